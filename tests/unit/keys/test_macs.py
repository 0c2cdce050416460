import threading

import pytest

from switch.domain.errors import MacMismatch
from switch.keys import macs
from switch.keys.macs import MAC_ALGORITHMS, cbc_chain, mac_engine, verify_field64
from switch.keys.primitives import Algorithm, MacKey
from tests.unit.keys.helpers import vectors

KEY = bytes.fromhex("3228C4DBDC6E04C0A1B7FC96CFFE4030")
OUT_OF_ID = {
    1: "cup_ecb_3des_field64",
    2: "x99_block",
    3: "x919_block",
    4: "cup_ecb_sm4_field64",
    5: "sm4_cbc_field64",
}


def engine(mac_id, material=KEY):
    return mac_engine(mac_id, MacKey(material, MAC_ALGORITHMS[mac_id]))


def field64_of(vector, mac_id):
    stated = vector["out"][OUT_OF_ID[mac_id]]
    return stated.encode() if mac_id in (1, 4) else bytes.fromhex(stated)


@pytest.mark.parametrize("mac_id", OUT_OF_ID)
def test_one_engine_serves_many_messages_and_each_as_if_it_were_the_first(mac_id):
    for vector in vectors("mac"):
        name = "key_sm4" if MAC_ALGORITHMS[mac_id] is Algorithm.SM4 else "key_3des"
        one = engine(mac_id, bytes.fromhex(vector["in"][name]))
        data = bytes.fromhex(vector["in"]["data"])
        for other in (b"x", data, bytes(500)):
            one.field64(other)
            assert one.field64(data) == field64_of(vector, mac_id)


@pytest.mark.parametrize("mac_id", OUT_OF_ID)
def test_a_right_mac_passes_and_every_flipped_bit_fails(mac_id):
    one = engine(mac_id)
    good = one.field64(b"message")
    assert len(good) == 8
    assert verify_field64(one, b"message", good) is None
    for bit in range(64):
        bad = (int.from_bytes(good) ^ 1 << bit).to_bytes(8)
        with pytest.raises(MacMismatch):
            verify_field64(one, b"message", bad)


@pytest.mark.parametrize("field64", [b"", b"1234567", b"123456789"])
def test_a_mac_of_another_length_is_a_wrong_mac(field64):
    with pytest.raises(MacMismatch):
        verify_field64(engine(5), b"message", field64)


@pytest.mark.parametrize("mac_id", OUT_OF_ID)
def test_an_empty_message_is_refused(mac_id):
    with pytest.raises(ValueError, match="nothing to authenticate"):
        engine(mac_id).field64(b"")


@pytest.mark.parametrize(
    ("mac_id", "algorithm"), [(5, Algorithm.TDES), (1, Algorithm.SM4), (0, Algorithm.SM4), (6, Algorithm.SM4)]
)
def test_mac_id_and_key_must_belong_together(mac_id, algorithm):
    with pytest.raises(ValueError, match="do not belong together"):
        mac_engine(mac_id, MacKey(KEY, algorithm))


def test_x919_needs_both_halves():
    with pytest.raises(ValueError, match="double-length"):
        mac_engine(3, MacKey(KEY[:8], Algorithm.TDES))


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("step", ["before", "after"])
def test_an_exception_in_the_middle_never_leaves_a_half_chained_context(algorithm, step, monkeypatch):
    real, fail = macs.cbc_encryptor, []

    class Breaking:
        def __init__(self, context):
            self.context = context

        def update(self, data):
            if fail and step == "before":
                raise KeyboardInterrupt
            made = self.context.update(data)
            if fail:
                raise KeyboardInterrupt
            return made

    monkeypatch.setattr(macs, "cbc_encryptor", lambda material, kind: Breaking(real(material, kind)))
    last_block = cbc_chain(KEY, algorithm)
    first = last_block(b"first message")
    second = last_block(b"second message")
    fail.append(True)
    with pytest.raises(KeyboardInterrupt):
        last_block(b"third message")
    fail.clear()
    assert last_block(b"first message") == first
    assert last_block(b"second message") == second


def test_threads_that_share_an_engine_do_not_disturb_each_other():
    one = engine(5)
    expected = {size: engine(5).field64(bytes([size]) * size) for size in range(1, 60)}
    wrong = []

    def work():
        for _ in range(30):
            wrong.extend(size for size, mac in expected.items() if one.field64(bytes([size]) * size) != mac)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
