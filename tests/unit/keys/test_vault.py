import numpy as np
import pytest

from switch.domain.errors import InputRefused, MacMismatch
from switch.domain.identifiers import CardNumber, diversifier_of
from switch.domain.transactions import PinFormat
from switch.keys import sm2
from switch.keys.ceremony import Custodian, zone_spec
from switch.keys.macs import mac_engine
from switch.keys.opening import open_stored_vault
from switch.keys.pin_blocks import PinBlockError, encrypt_pin
from switch.keys.primitives import Algorithm, MacKey, PinKey, WrappingKey, algorithm_named, kcv_of
from switch.keys.purse import LoadTerms, TacItem
from switch.keys.records import KeyMissingError, KeyState
from switch.keys.sealing import SealError
from switch.keys.tac_columns import TacColumns
from switch.keys.terminal_keys import EngineRing, unwrap_key
from switch.keys.vault import CENTRE_SIGNING_KEY, VERIFIER_KEY, CardKeyRef, Vault
from tests.unit.keys.helpers import ISSUER, OPERATORS, UNLOCK, root_spec, set_state, vector_vault, vectors

TMK = {
    vector["in"]["terminal_id"]: vector for vector in vectors("keys") if vector["id"].startswith("KEY-TMK-")
}
CARD = CardNumber("3133500100000001239")
MAC_ID = {Algorithm.TDES: 1, Algorithm.SM4: 5}


@pytest.fixture
def store_and_vault(tmp_path):
    vault, store = vector_vault(tmp_path)
    return store, vault


@pytest.fixture
def vault(store_and_vault) -> Vault:
    return store_and_vault[1]


def terminal_side(terminal_id, field62):
    """What the terminal makes of field 62: its keys, check values verified."""
    algorithm = algorithm_named(TMK[terminal_id]["alg"])
    tmk = WrappingKey(bytes.fromhex(TMK[terminal_id]["out"]["child_key"]), algorithm)
    keys = []
    for start in range(0, len(field62), 20):
        keys.append(unwrap_key(tmk, field62[start : start + 16]))
        assert kcv_of(keys[-1], algorithm) == field62[start + 16 : start + 20]
    return algorithm, keys


@pytest.mark.parametrize("terminal_id", TMK)
@pytest.mark.parametrize("with_track_key", [False, True])
def test_a_sign_on_gives_terminal_and_switch_the_same_keys(vault, terminal_id, with_track_key):
    drawn = vault.new_working_keys(terminal_id, algorithm_named(TMK[terminal_id]["alg"]), with_track_key)
    assert len(drawn.field62) == (60 if with_track_key else 40)
    algorithm, keys = terminal_side(terminal_id, drawn.field62)
    assert len(set(keys)) == len(keys)
    for mac_id in (1, 2, 3) if algorithm is Algorithm.TDES else (4, 5):
        session = vault.open_session(terminal_id, drawn.stored, mac_id)
        field64 = mac_engine(mac_id, MacKey(keys[1], algorithm)).field64(b"\x02\x00 a purchase")
        assert session.mac(b"\x02\x00 a purchase") == field64
        assert session.verify(b"\x02\x00 a purchase", field64) is None
        with pytest.raises(MacMismatch):
            session.verify(b"\x02\x00 another", field64)
    assert vault.terminal_kcv(terminal_id, algorithm).hex().upper() == TMK[terminal_id]["out"]["child_kcv"]


def test_every_sign_on_draws_other_keys(vault):
    sets = [vault.new_working_keys("33500001", Algorithm.TDES, False) for _ in range(5)]
    assert len({drawn.field62 for drawn in sets}) == 5


def test_stored_keys_open_after_a_restart_for_their_terminal_only(store_and_vault, tmp_path):
    store, vault = store_and_vault
    drawn = vault.new_working_keys("33500003", Algorithm.SM4, False)
    field64 = vault.open_session("33500003", drawn.stored, 5).mac(b"message")
    again = open_stored_vault(store, UNLOCK, production=False)
    assert again.open_session("33500003", drawn.stored, 5).mac(b"message") == field64
    with pytest.raises(SealError):
        again.open_session("33500002", drawn.stored, 5)
    (tmp_path / "other").mkdir()
    with pytest.raises(SealError):
        vector_vault(tmp_path / "other")[0].open_session("33500003", drawn.stored, 5)
    for broken in (b"", drawn.stored[:-1], drawn.stored[:-1] + bytes([drawn.stored[-1] ^ 1])):
        with pytest.raises(SealError):
            again.open_session("33500003", broken, 5)


def test_mac_id_and_working_keys_must_be_of_one_algorithm(vault):
    drawn = vault.new_working_keys("33500003", Algorithm.SM4, False)
    with pytest.raises(ValueError, match="same algorithm"):
        vault.open_session("33500003", drawn.stored, 1)


def test_handles_and_sets_show_no_key(vault):
    drawn = vault.new_working_keys("33500003", Algorithm.SM4, True)
    keys = terminal_side("33500003", drawn.field62)[1]
    shown = (
        repr(drawn)
        + repr(vault.open_session("33500003", drawn.stored, 5))
        + repr(vault)
        + repr(vault.records())
    )
    assert not any(key.hex() in shown.lower() or str(key) in shown for key in keys)


def test_only_so_many_terminals_keep_their_cipher_contexts_and_all_go_on_working(store_and_vault):
    store = store_and_vault[0]
    vault = open_stored_vault(store, UNLOCK, production=False, engines_max=3)
    ids = [f"3350{number:04d}" for number in range(10)]
    handles = {
        name: vault.open_session(name, vault.new_working_keys(name, Algorithm.SM4, False).stored, 5)
        for name in ids
    }
    macs = {name: handle.mac(b"message") for name, handle in handles.items()}
    assert len(set(macs.values())) == 10
    for name in [*ids, *reversed(ids), ids[0], ids[0], ids[5]]:
        assert handles[name].mac(b"message") == macs[name]
    alive = [handle for handle in handles.values() if handle._field64 is not None]
    assert len(alive) <= 3
    with pytest.raises(ValueError, match="at least one"):
        EngineRing(0)


def pin_block(vault, terminal_id, pin, pin_format, card=CARD):
    drawn = vault.new_working_keys(terminal_id, algorithm_named(TMK[terminal_id]["alg"]), False)
    algorithm, keys = terminal_side(terminal_id, drawn.field62)
    session = vault.open_session(terminal_id, drawn.stored, MAC_ID[algorithm])
    return session, encrypt_pin(PinKey(keys[0], algorithm), pin, pin_format, card)


TERMINAL_OF = {PinFormat.ISO_0: "33500001", PinFormat.NO_PAN: "33500002", PinFormat.SM4_PAN: "33500003"}


@pytest.mark.parametrize("pin_format", list(PinFormat))
def test_a_pin_gives_the_same_verifier_however_it_came(vault, pin_format):
    session, block = pin_block(vault, TERMINAL_OF[pin_format], "123456", pin_format)
    verifier = vault.pin_verifier(session, block, pin_format, CARD, 77)
    assert len(verifier) == 16
    assert verifier == vault.verifier_of_clear_pin("123456", 77)
    assert verifier != vault.verifier_of_clear_pin("123456", 78)
    assert verifier != vault.verifier_of_clear_pin("123457", 77)


def test_an_unreadable_pin_block_is_told_apart_from_a_wrong_pin(vault):
    session, block = pin_block(vault, "33500001", "123456", PinFormat.ISO_0)
    for broken in (block[:-1], bytes(8), b""):
        with pytest.raises(PinBlockError):
            vault.pin_verifier(session, broken, PinFormat.ISO_0, CARD, 1)
    with pytest.raises(PinBlockError):
        vault.pin_verifier(session, bytes(16), PinFormat.SM4_PAN, CARD, 1)


def test_pins_travel_to_a_partner_under_its_own_key_and_come_from_there(store_and_vault):
    store, vault = store_and_vault
    custodian = Custodian(vault, store)
    zpk = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
    for algorithm in ("3DES", "SM4"):
        custodian.enter(zone_spec("ZPK", algorithm, 1, "01020000"), [zpk, bytes(16)], OPERATORS)
    session, block = pin_block(vault, "33500003", "0864", PinFormat.SM4_PAN)
    translated = vault.translate_pin(
        session, block, PinFormat.SM4_PAN, CARD, "ZPK/3DES/v1/01020000", PinFormat.ISO_0
    )
    assert translated == encrypt_pin(PinKey(zpk, Algorithm.TDES), "0864", PinFormat.ISO_0, CARD)
    verifier = vault.pin_verifier_from_zone("ZPK/3DES/v1/01020000", translated, PinFormat.ISO_0, CARD, 5)
    assert verifier == vault.verifier_of_clear_pin("0864", 5)
    with pytest.raises(KeyMissingError, match="not for this use"):
        vault.translate_pin(session, block, PinFormat.SM4_PAN, CARD, "TMMK/SM4/v1/national", PinFormat.ISO_0)
    with pytest.raises(KeyMissingError, match="no key"):
        vault.translate_pin(session, block, PinFormat.SM4_PAN, CARD, "ZPK/SM4/v9/01020000", PinFormat.ISO_0)


def test_clear_pins_are_for_rehearsal_only(tmp_path):
    vault, _ = vector_vault(tmp_path, rehearsal=False)
    with pytest.raises(InputRefused, match="rehearsal"):
        vault.verifier_of_clear_pin("123456", 1)


@pytest.mark.parametrize("pin", ["", "123", "1234567890123", "12345a"])
def test_what_is_no_pin_has_no_verifier(vault, pin):
    with pytest.raises(ValueError, match="4 to 12"):
        vault.verifier_of_clear_pin(pin, 1)


def load_case(vector):
    given = vector["in"]
    card = CardKeyRef(
        int(given["algorithm_id"], 16), int(given["key_version"], 16), ISSUER, diversifier_of(given["asn"])
    )
    terms = LoadTerms(
        bytes.fromhex(given["card_random"]),
        int(given["online_atc"], 16),
        int(given["balance_before"], 16),
        int(given["amount"], 16),
        bytes.fromhex(given["terminal_no"]),
    )
    return card, terms, (bytes.fromhex(given["host_date"]), bytes.fromhex(given["host_time"])), vector["out"]


@pytest.mark.parametrize("vector", [v for v in vectors("epurse") if v["op"] == "load"], ids=lambda v: v["id"])
def test_loads_are_checked_and_answered_from_the_roots_down(vault, vector):
    card, terms, moment, out = load_case(vector)
    card = card._replace(version=1)
    assert vault.verify_load_mac1(card, terms, bytes.fromhex(out["MAC1"])) is None
    assert vault.load_mac2(card, terms, *moment).hex().upper() == out["MAC2"]
    assert vault.verify_load_tac(card, terms, *moment, bytes.fromhex(out["TAC"])) is None
    with pytest.raises(MacMismatch, match="MAC1"):
        vault.verify_load_mac1(card, terms, bytes.fromhex(out["MAC2"]))
    with pytest.raises(MacMismatch, match="TAC"):
        vault.verify_load_tac(
            card, terms._replace(online_atc=terms.online_atc + 1), *moment, bytes.fromhex(out["TAC"])
        )


def tac_items():
    items = []
    for vector in vectors("epurse"):
        if vector["op"] in ("purchase", "capp_purchase"):
            given, out = vector["in"], vector["out"]
            items.append(
                TacItem(
                    int(given["algorithm_id"], 16),
                    1,
                    bytes.fromhex(given["issuer_id"]),
                    diversifier_of(given["asn"]),
                    bytes.fromhex(out["tac_input"]),
                    bytes.fromhex(out["TAC"]),
                )
            )
    return items


def columns_of(items):
    """The same TACs side by side."""

    def rows(pieces):
        return np.frombuffer(b"".join(pieces), np.uint8).reshape(len(items), -1)

    return TacColumns(
        rows([bytes([item.algorithm, item.version]) + item.issuer_id for item in items]),
        rows([item.diversifier for item in items]),
        rows([item.tac_input for item in items]),
        rows([item.tac for item in items]),
    )


@pytest.mark.parametrize("in_columns", [False, True])
def test_offline_tacs_are_checked_from_the_roots_down(vault, in_columns):
    def check(items):
        if in_columns:
            return vault.verify_tac_columns(columns_of(items)).tolist()
        return vault.verify_tacs(items)

    items = tac_items()
    assert len(items) == 12
    assert {item.algorithm for item in items} == {0, 4}
    assert check(items) == [True] * 12
    assert check([item._replace(tac=b"0000") for item in items]) == [False] * 12
    assert check([item._replace(version=9) for item in items]) == [False] * 12
    assert check([item._replace(algorithm=0x77) for item in items]) == [False] * 12
    one_wrong = [items[0], items[1]._replace(tac_input=bytes(22)), *items[2:]]
    assert check(one_wrong) == [True, False] + [True] * 10


def test_the_vault_knows_for_which_cards_it_has_keys(store_and_vault):
    store, vault = store_and_vault
    for algorithm in Algorithm:
        assert vault.has_issuer_key("DTK", ISSUER, 1, algorithm)
        assert not vault.has_issuer_key("DTK", ISSUER, 2, algorithm)
        assert not vault.has_issuer_key("DACK", ISSUER, 1, algorithm)
    assert not vault.has_issuer_key("DTK", ISSUER, 1, 0x12)
    set_state(vault, store, "DTK/SM4/v1/national", KeyState.VERIFY_ONLY)
    assert vault.has_issuer_key("DTK", ISSUER, 1, Algorithm.SM4)
    assert vault.verify_tacs(tac_items()) == [True] * 12
    set_state(vault, store, "DTK/SM4/v1/national", KeyState.RETIRED)
    assert not vault.has_issuer_key("DTK", ISSUER, 1, Algorithm.SM4)
    assert vault.verify_tacs(tac_items()) == [item.algorithm == 0 for item in tac_items()]


def test_a_verify_only_load_key_loads_no_more(store_and_vault):
    store, vault = store_and_vault
    vector = next(v for v in vectors("epurse") if v["op"] == "load" and v["alg"] == "SM4")
    card, terms, moment, _ = load_case(vector)
    set_state(vault, store, "DLK/SM4/v1/national", KeyState.VERIFY_ONLY)
    with pytest.raises(KeyMissingError):
        vault.load_mac2(card._replace(version=1), terms, *moment)


@pytest.mark.parametrize(
    "vector", [v for v in vectors("epurse") if v["op"] == "secure_messaging_mac"], ids=lambda v: v["id"]
)
def test_card_commands_get_their_mac(vault, vector):
    given = vector["in"]
    card = CardKeyRef(4 if vector["alg"] == "SM4" else 0, 1, ISSUER, diversifier_of("03133500100000045673"))
    command = bytes.fromhex(given["header"] + given["data"])
    mac = vault.maintenance_mac(card, bytes.fromhex(given["get_challenge_4"]), command)
    assert mac.hex().upper() == vector["out"]["MAC"]


def test_a_key_envelope_opens_at_its_terminal_and_is_signed_by_the_centre(vault):
    terminal = sm2.generate()
    envelope = vault.master_key_envelope("33500003", Algorithm.SM4, terminal.public)
    assert len(envelope) == 182
    sm2.verify(vault.public_key(CENTRE_SIGNING_KEY), envelope[:-64], envelope[-64:])
    assert envelope[0] == Algorithm.SM4
    assert sm2.decrypt(terminal.private, envelope[1:114]).hex().upper() == TMK["33500003"]["out"]["child_key"]
    assert envelope[114:118] == vault.terminal_kcv("33500003", Algorithm.SM4)
    with pytest.raises(sm2.Sm2Error):
        vault.master_key_envelope("33500003", Algorithm.SM4, b"\x04" + bytes(64))


def test_named_keys_sign_and_partners_macs_are_made_and_checked(store_and_vault):
    store, vault = store_and_vault
    signature = vault.sign(CENTRE_SIGNING_KEY, b"file")
    sm2.verify(vault.public_key(CENTRE_SIGNING_KEY), b"file", signature)
    with pytest.raises(KeyMissingError):
        vault.sign(VERIFIER_KEY, b"file")
    Custodian(vault, store).generate(zone_spec("ZAK", "SM4", 1, "01020000"), OPERATORS)
    mac = vault.zone_mac("ZAK/SM4/v1/01020000", 5, b"host message")
    assert vault.verify_zone_mac("ZAK/SM4/v1/01020000", 5, b"host message", mac) is None
    with pytest.raises(MacMismatch):
        vault.verify_zone_mac("ZAK/SM4/v1/01020000", 5, b"host massage", mac)


def test_without_a_terminal_root_nobody_signs_on(store_and_vault):
    store, vault = store_and_vault
    set_state(vault, store, "TMMK/SM4/v1/national", KeyState.RETIRED)
    with pytest.raises(KeyMissingError, match="TMMK"):
        vault.new_working_keys("33500003", Algorithm.SM4, False)
    vault.new_working_keys("33500001", Algorithm.TDES, False)


def test_the_newest_active_terminal_root_serves_unless_another_is_named(store_and_vault):
    store, vault = store_and_vault
    old = vault.terminal_kcv("33500003", Algorithm.SM4)
    custodian = Custodian(vault, store)
    custodian.generate(root_spec("TMMK", Algorithm.SM4, 2), OPERATORS, state=KeyState.PRE_ACTIVE)
    assert vault.terminal_kcv("33500003", Algorithm.SM4) == old
    custodian.set_state("TMMK/SM4/v2/national", KeyState.ACTIVE, OPERATORS)
    assert vault.terminal_kcv("33500003", Algorithm.SM4) != old
    drawn = vault.new_working_keys("33500003", Algorithm.SM4, False, tmmk_version=1)
    terminal_side("33500003", drawn.field62)  # still opens under the first root
