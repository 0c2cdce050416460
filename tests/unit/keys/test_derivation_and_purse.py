import pytest

from switch.keys import purse
from switch.keys.derivation import card_key, issuer_key, spread, terminal_master_key
from switch.keys.primitives import Algorithm, LoadKey, MaintenanceKey, MasterKey, TacKey
from switch.keys.purse import LoadTerms, TacItem
from tests.unit.keys.helpers import ISSUER, vector_roots

TERMINAL = bytes.fromhex("335000000017")
MOMENT = bytes.fromhex("20240315"), bytes.fromhex("081530")


def dtk_master(algorithm):
    return issuer_key(MasterKey(vector_roots()["DTK", algorithm], algorithm, "DTK"), ISSUER)


def items(algorithm, count, version=1):
    master = dtk_master(algorithm)
    made = []
    for number in range(count):
        diversifier = (number % 7).to_bytes(8)
        data = purse.purchase_tac_input(number, 6, TERMINAL, number, *MOMENT)
        tac = purse.tac(card_key(master, diversifier, TacKey), data)
        made.append(TacItem(int(algorithm), version, ISSUER, diversifier, data, tac))
    return made


def test_a_mixed_list_of_tacs_is_judged_item_by_item_in_order():
    mixed = [
        item
        for pair in zip(items(Algorithm.SM4, 20), items(Algorithm.TDES, 20), strict=True)
        for item in pair
    ]
    mixed[3] = mixed[3]._replace(tac=b"\0\0\0\0")
    mixed[8] = mixed[8]._replace(tac_input=mixed[8].tac_input[:-1] + b"\x31")
    mixed[11] = mixed[11]._replace(diversifier=b"another!")
    mixed[14] = mixed[14]._replace(version=2)
    mixed[17] = mixed[17]._replace(issuer_id=b"stranger")
    mixed[20] = mixed[20]._replace(algorithm=0)
    masters = {(int(algorithm), 1, ISSUER): dtk_master(algorithm) for algorithm in Algorithm}
    verdicts = purse.verify_tacs(masters, mixed)
    assert [place for place, good in enumerate(verdicts) if not good] == [3, 8, 11, 14, 17, 20]
    assert purse.verify_tacs(masters, []) == []


@pytest.mark.parametrize("tac", [b"", b"\0", b"12345"])
def test_a_tac_of_another_length_is_wrong(tac):
    one = items(Algorithm.SM4, 1)[0]._replace(tac=tac)
    assert purse.verify_tacs({(4, 1, ISSUER): dtk_master(Algorithm.SM4)}, [one]) == [False]


def test_a_master_key_derives_only_what_it_is_for():
    master = dtk_master(Algorithm.SM4)
    for wrong in (LoadKey, MaintenanceKey):
        with pytest.raises(ValueError, match="a DTK master does not derive"):
            card_key(master, bytes(8), wrong)
    with pytest.raises(ValueError, match="TMMK only"):
        terminal_master_key(master, "33500001")
    with pytest.raises(ValueError, match="DTK master only"):
        purse.verify_tacs(
            {(4, 1, ISSUER): MasterKey(bytes(16), Algorithm.SM4, "DLK")}, items(Algorithm.SM4, 1)
        )


@pytest.mark.parametrize("terminal_id", ["", "3350000", "335000011", "3350000１"])
def test_terminal_ids_are_eight_ascii_characters(terminal_id):
    with pytest.raises(ValueError, match="8 ASCII"):
        terminal_master_key(MasterKey(bytes(16), Algorithm.SM4, "TMMK"), terminal_id)


@pytest.mark.parametrize("size", [0, 7, 9, 16])
def test_a_diversifier_is_eight_bytes(size):
    with pytest.raises(ValueError, match="8 bytes"):
        spread(bytes(size))


def test_inputs_have_the_lengths_of_the_standard():
    terms = LoadTerms(bytes(4), 1, 100, 200, TERMINAL)
    assert len(purse.load_mac1_input(terms)) == 15
    assert len(purse.load_mac2_input(200, TERMINAL, *MOMENT)) == 18
    assert len(purse.load_tac_input(terms, *MOMENT)) == 24
    assert len(purse.purchase_mac1_input(200, 6, TERMINAL, *MOMENT)) == 18
    assert len(purse.purchase_tac_input(200, 6, TERMINAL, 5, *MOMENT)) == purse.PURCHASE_TAC_INPUT_BYTES


def test_a_load_tac_of_24_bytes_is_padded_with_a_whole_block_in_3des():
    assert len(purse.pad_80(bytes(24), 8)) == 32
    assert len(purse.pad_80(bytes(24), 16)) == 32
    assert len(purse.pad_80(bytes(23), 8)) == 24


@pytest.mark.parametrize(
    "broken", [{"terminal_no": TERMINAL[:5]}, {"amount_fen": -1}, {"amount_fen": 1 << 32}]
)
def test_inputs_of_the_wrong_size_are_refused(broken):
    terms = LoadTerms(bytes(4), 1, 100, 200, TERMINAL)._replace(**broken)
    with pytest.raises((ValueError, OverflowError)):
        purse.load_mac1_input(terms)
