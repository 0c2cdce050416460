"""Rides: the record that comes out, grey records, gates, and whom the validator refuses."""

import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from terminal_sim import crypto
from terminal_sim.apdu import ApduDevice
from terminal_sim.card import Lock, PurseCard
from terminal_sim.crypto import KeyKind
from terminal_sim.personalisation import NOT_ENABLED, CardProfile
from terminal_sim.pos_batch import NotNowError
from terminal_sim.psam import Psam
from terminal_sim.reading import CardGoneError, CardRejectedError, FlakyReader
from terminal_sim.records import (
    OfflineRecord,
    Phase,
    Place,
    RecordKind,
    RideKind,
    RideRecord,
    crc16,
    open_entry,
)
from terminal_sim.tariff import Tariff
from terminal_sim.validator import Rules, Validator
from tests.unit.terminal_sim.cards import ASN, ISSUER, ISSUER_ID, PSAM_NO, make_card, make_psam, send

WHEN = datetime(2024, 3, 15, 8, 15, 30)  # noqa: DTZ001 - a validator's local time
BUS = Place(ISSUER_ID, line="0007", vehicle="00012345", driver="00000021")
METRO = Place(ISSUER_ID, industry=1, line="0001", station="0103")
TARIFF = Tariff(max_fare_fen=900, max_minutes=120, percent_of_type={2: 60}, transfer_fen=50)
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "offline.json").read_text("utf-8"))["vectors"]
EPURSE = json.loads((Path(__file__).parents[2] / "vectors" / "epurse.json").read_text("utf-8"))["vectors"]
DEBIT_OF_RIDE = 5  # SELECT, two files, INITIALIZE, DEBIT
DEBIT_OF_TAP = 7  # the same with READ RECORD before and UPDATE CAPP after INITIALIZE


def make_validator(place: Place = BUS, **rules: Any) -> Validator:
    rules.setdefault("issuers", {ISSUER_ID})
    return Validator(make_psam(), place, Rules(**rules), tariff=TARIFF)


def tac_holds(record: bytes) -> bool:
    own = next(s for s in ISSUER.card_keys(ASN) if s.key_index == record[5])
    tac_input = record[30:34] + record[2:3] + record[45:51] + record[51:55] + record[38:45]
    return crypto.tac(own.algorithm, own.keys[KeyKind.TAC], tac_input) == record[55:59]


# --- packing


@pytest.mark.parametrize("vector", [v for v in VECTORS if "record" in v["in"]], ids=lambda v: v["id"])
def test_records_pack_to_the_known_bytes(vector: dict[str, dict[str, str]]) -> None:
    raw = bytes.fromhex(vector["in"]["record"])
    place = Place(
        raw[63:71],
        raw[71:73].hex(),
        raw[78],
        raw[79:81].hex(),
        raw[81:83].hex(),
        raw[85:89].hex(),
        raw[89:93].hex(),
    )
    record = OfflineRecord(
        RecordKind(raw[1]),
        raw[2],
        raw[3],
        raw[4],
        raw[5],
        raw[6:16],
        raw[16:24],
        raw[24:26],
        raw[26],
        raw[27],
        int.from_bytes(raw[28:30]),
        int.from_bytes(raw[30:34]),
        int.from_bytes(raw[34:38]),
        raw[38:45],
        raw[45:51],
        raw[51:55],
        raw[55:59],
        int.from_bytes(raw[73:77]),
        Phase(raw[77]),
        place,
        raw[83:85].hex(),
    )
    packed = record.pack(int.from_bytes(raw[59:63]))
    assert packed[:94] == raw[:94]
    assert (packed == raw) is (
        "CRC" not in str(vector.get("note")) or "recomputed" in str(vector.get("note"))
    )
    assert crc16(packed) == 0  # data followed by its CRC


@pytest.mark.parametrize("vector", [v for v in EPURSE if "capp_record_1E" in v["out"]], ids=lambda v: v["id"])
def test_ride_records_pack_to_the_known_bytes(vector: dict[str, dict[str, str]]) -> None:
    raw = bytes.fromhex(vector["out"]["capp_record_1E"])
    ride = RideRecord(
        RideKind(raw[0]),
        raw[3:9],
        Place(raw[34:42], raw[32:34].hex(), raw[9], raw[10:14].hex()),
        int.from_bytes(raw[17:21]),
        int.from_bytes(raw[21:25]),
        raw[25:32],
        max_fare_fen=int.from_bytes(raw[42:46]),
        max_minutes=int.from_bytes(raw[46:48]),
    )
    assert ride.pack() == raw


def test_an_unreadable_ride_record_is_no_entry() -> None:
    assert open_entry(b"\x03" + bytes(47)) is None
    assert open_entry(b"\x04" + bytes(47)) is None


# --- flat fare


@pytest.mark.parametrize("capp", [False, True])
@pytest.mark.parametrize("index", [0x41, 0x01])
def test_a_ride_makes_one_record_with_a_good_tac(index: int, *, capp: bool) -> None:
    card, validator = make_card(offline_atc=9), make_validator(key_indexes=(0x05, index))
    ride = validator.ride(card, 200, WHEN, full_fare_fen=250, capp=capp)
    (raw,) = validator.take_records()
    assert ride.record.pack(1) == raw
    assert card.balance_fen == 9_800
    assert tac_holds(raw)
    assert crc16(raw) == 0
    algorithm, version = ("00", "01") if index == 1 else ("04", "02")
    expected = f"0100{'09' if capp else '06'}{algorithm}{version}{index:02x}{ASN}{ISSUER_ID.hex()}33500100"
    assert raw[:28].hex() == expected
    assert raw[28:55].hex() == f"0009000000c80000271020240315081530{PSAM_NO}00000001"
    assert raw[59:94].hex() == f"00000001{ISSUER_ID.hex()}3350000000fa0002000700000000000123450000002100"
    if capp:
        assert send(card, "00B201F430")[:2] == "06"


def test_record_serials_have_no_gaps_and_psam_serials_may() -> None:
    card, validator = make_card(), make_validator()
    for _ in range(3):
        validator.ride(card, 100, WHEN)
    poor = make_card(balance_fen=0)
    with pytest.raises(CardRejectedError) as caught:
        validator.ride(poor, 100, WHEN)
    assert caught.value.status == 0x9401
    failing = make_card()
    failing.write_fails = True
    with pytest.raises(CardRejectedError) as caught:
        validator.ride(failing, 100, WHEN)
    assert caught.value.status == 0x6581
    assert validator.grey_waiting == 0
    validator.ride(card, 100, WHEN)
    records = validator.take_records(with_grey=True)
    assert [int.from_bytes(raw[59:63]) for raw in records] == [1, 2, 3, 4]
    assert [int.from_bytes(raw[51:55]) for raw in records] == [1, 2, 3, 5]
    assert validator.take_records() == []


def test_a_test_validator_marks_its_records() -> None:
    validator = Validator(make_psam(), BUS, Rules({ISSUER_ID}), test=True)
    validator.ride(make_card(), 100, WHEN)
    assert validator.take_records()[0][1] == 0x0F


# --- grey records


def torn_ride(validator: Validator, card: PurseCard, *, obeyed: bool) -> None:
    with pytest.raises(CardGoneError):
        validator.ride(FlakyReader(card, DEBIT_OF_RIDE, obeyed=obeyed), 200, WHEN)
    assert validator.grey_waiting == 1


@pytest.mark.parametrize("obeyed", [False, True])
def test_a_card_that_never_comes_back_leaves_a_grey_record(*, obeyed: bool) -> None:
    card, validator = make_card(), make_validator()
    torn_ride(validator, card, obeyed=obeyed)
    assert card.balance_fen == (9_800 if obeyed else 10_000)
    assert validator.take_records() == []
    (raw,) = validator.take_records(with_grey=True)
    assert raw[1] == RecordKind.GREY
    assert raw[55:59] == b"\xff" * 4


def test_a_debited_card_that_comes_back_proves_its_ride_and_pays_once() -> None:
    card, validator = make_card(), make_validator()
    torn_ride(validator, card, obeyed=True)
    ride = validator.ride(card, 200, WHEN + timedelta(seconds=3))
    assert ride.repaired
    (raw,) = validator.take_records()
    assert raw[1] == RecordKind.NORMAL
    assert tac_holds(raw)
    assert (card.balance_fen, card.offline_atc) == (9_800, 1)


def test_a_debited_card_that_comes_back_later_proves_the_old_ride_and_pays_the_new() -> None:
    card, validator = make_card(), make_validator()
    torn_ride(validator, card, obeyed=True)
    assert not validator.ride(card, 200, WHEN + timedelta(hours=1)).repaired
    records = validator.take_records()
    assert [tac_holds(raw) for raw in records] == [True, True]
    assert (card.balance_fen, card.offline_atc) == (9_600, 2)


def test_an_undebited_card_that_comes_back_pays_and_the_grey_record_is_dropped() -> None:
    card, validator = make_card(), make_validator()
    torn_ride(validator, card, obeyed=False)
    assert not validator.ride(card, 200, WHEN).repaired
    records = validator.take_records(with_grey=True)
    assert len(records) == 1
    assert tac_holds(records[0])
    assert card.balance_fen == 9_800


def test_a_card_that_went_on_elsewhere_leaves_the_grey_record_as_it_is() -> None:
    card, validator, other = make_card(), make_validator(), make_validator()
    other.psam.next_serial = 500
    torn_ride(validator, card, obeyed=True)
    other.ride(card, 100, WHEN)
    assert not validator.ride(card, 200, WHEN).repaired
    assert [raw[1] for raw in validator.take_records()] == [RecordKind.GREY, RecordKind.NORMAL]


def test_a_card_gone_before_debit_leaves_nothing() -> None:
    card, validator = make_card(), make_validator()
    for at in range(1, DEBIT_OF_RIDE):
        with pytest.raises(CardGoneError):
            validator.ride(FlakyReader(card, at, obeyed=True), 200, WHEN)
    assert validator.grey_waiting == 0
    assert card.balance_fen == 10_000


def test_an_entry_that_was_not_debited_is_told_by_the_counter() -> None:
    card, validator = make_card(), make_validator(METRO)
    with pytest.raises(CardGoneError):
        validator.enter(FlakyReader(card, DEBIT_OF_TAP, obeyed=False), WHEN)
    assert validator.grey_waiting == 1
    (ride,) = validator.enter(card, WHEN)
    assert not ride.repaired
    assert len(validator.take_records(with_grey=True)) == 1


class ForgedCard(ApduDevice):
    """Answers like a card and makes up what it does not know."""

    def __init__(self, card: PurseCard) -> None:
        super().__init__()
        self._card = card

    def transmit(self, raw: bytes) -> bytes:
        answer = self._card.transmit(raw)
        return bytes(8) + b"\x90\x00" if raw[1] == 0x54 else answer

    def answer(self, command: object) -> bytes:
        raise NotImplementedError


def test_a_card_whose_mac2_is_wrong_does_not_ride_and_its_record_stays_grey() -> None:
    validator = make_validator()
    with pytest.raises(CardRejectedError) as caught:
        validator.ride(ForgedCard(make_card()), 200, WHEN)
    assert caught.value.status == 0x9302
    assert validator.grey_waiting == 1


# --- gates


def test_entry_and_exit() -> None:
    card, validator = make_card(), make_validator(METRO)
    (entry,) = validator.enter(card, WHEN)
    assert (entry.record.phase, entry.record.amount_fen) == (Phase.ENTRY, 0)
    exit_ride = validator.leave(card, 300, WHEN + timedelta(minutes=30))
    assert (exit_ride.record.phase, exit_ride.record.entry_station) == (Phase.EXIT, "0103")
    assert (card.balance_fen, card.offline_atc) == (9_700, 2)
    assert all(tac_holds(raw) for raw in validator.take_records())
    card.reset()
    send(card, "00A4040008A00000063201010500")
    assert send(card, "00B201F430")[:2] == "04"
    assert send(card, "00B202F430")[:2] == "03"


def test_exit_without_entry_costs_the_maximum() -> None:
    card, validator = make_card(), make_validator(METRO)
    ride = validator.leave(card, 300, WHEN)
    assert (ride.record.phase, ride.record.amount_fen) == (Phase.SUPPLEMENT, 900)


def test_a_second_entry_charges_the_trip_that_was_never_completed() -> None:
    card, validator = make_card(), make_validator(METRO)
    validator.enter(card, WHEN)
    rides = validator.enter(card, WHEN + timedelta(hours=5))
    assert [ride.record.phase for ride in rides] == [Phase.SUPPLEMENT, Phase.ENTRY]
    assert card.balance_fen == 9_100


def test_too_long_inside_costs_the_maximum() -> None:
    card, validator = make_card(), make_validator(METRO)
    validator.enter(card, WHEN)
    ride = validator.leave(card, 300, WHEN + timedelta(minutes=121))
    assert (ride.record.phase, ride.record.amount_fen) == (Phase.SUPPLEMENT, 900)


def test_a_torn_exit_is_repaired_and_not_charged_twice() -> None:
    card, validator = make_card(), make_validator(METRO)
    validator.enter(card, WHEN)
    with pytest.raises(CardGoneError):
        validator.leave(FlakyReader(card, DEBIT_OF_TAP, obeyed=True), 300, WHEN)
    assert validator.leave(card, 300, WHEN).repaired
    assert card.balance_fen == 9_700


# --- fares


def gate(station: str) -> Validator:
    return make_validator(METRO._replace(station=station))


def test_the_fare_goes_by_distance_and_a_discounted_card_pays_its_part() -> None:
    card = PurseCard(CardProfile(ASN, ISSUER_ID, card_type=2), ISSUER.card_keys(ASN), balance_fen=10_000)
    gate("0103").enter(card, WHEN)
    record = gate("0109").leave(card, None, WHEN + timedelta(minutes=20)).record
    assert (record.amount_fen, record.full_fare_fen, record.transfer) == (180, 300, False)
    assert card.balance_fen == 9_820


def test_another_citys_card_has_no_discount_of_this_city() -> None:
    profile = CardProfile(ASN, ISSUER_ID, city_code="3310", card_type=2)
    card = PurseCard(profile, ISSUER.card_keys(ASN), balance_fen=1_000)
    record = make_validator(known_cities={b"\x33\x10"}).board(card, 200, WHEN).record
    assert (record.amount_fen, record.full_fare_fen) == (200, 200)


@pytest.mark.parametrize(
    ("line", "minutes", "fare_fen", "transfer"),
    [("0008", 90, 150, True), ("0008", 91, 200, False), ("0007", 10, 200, False)],
)
def test_a_ride_soon_after_one_on_another_line_is_a_transfer(
    line: str, minutes: int, fare_fen: int, transfer: bool
) -> None:
    card = make_card()
    make_validator().board(card, 200, WHEN)
    later = make_validator(BUS._replace(line=line)).board(card, 200, WHEN + timedelta(minutes=minutes))
    assert (later.record.amount_fen, later.record.full_fare_fen) == (fare_fen, 200)
    assert later.record.pack(1)[93] == 2 * transfer


def test_a_trip_that_began_as_a_transfer_ends_as_one() -> None:
    card = make_card()
    make_validator().board(card, 200, WHEN)
    (entry,) = gate("0103").enter(card, WHEN + timedelta(minutes=60))
    record = gate("0105").leave(card, None, WHEN + timedelta(minutes=110)).record
    assert entry.record.transfer
    assert (record.amount_fen, record.full_fare_fen, record.transfer) == (150, 200, True)


def test_the_direction_is_that_of_the_vehicle() -> None:
    validator = make_validator()
    validator.upstream = True
    assert validator.ride(make_card(), 200, WHEN).record.pack(1)[93] == 1


def test_a_fare_above_the_offline_limit_is_not_taken() -> None:
    card = make_card()
    with pytest.raises(CardRejectedError, match="offline limit"):
        make_validator(purchase_max_fen=199).ride(card, 200, WHEN)
    assert card.offline_atc == 0


@pytest.mark.parametrize("wrong", [{"steps": ()}, {"steps": ((5, 1), (5, 2))}, {"percent_of_type": {1: 101}}])
def test_a_tariff_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Tariff(**wrong)


# --- whom it refuses


@pytest.mark.parametrize(
    ("profile", "rules", "reason"),
    [
        ({"enabled": NOT_ENABLED}, {}, "not enabled"),
        ({"valid_from": date(2024, 3, 16)}, {}, "dates"),
        ({"valid_to": date(2024, 3, 14)}, {}, "dates"),
        ({}, {"issuers": set()}, "white list"),
        ({}, {"hot_list": {ASN: 0}}, "black list"),
        ({"city_code": "3310"}, {}, "city"),
        ({"city_code": "3310", "interoperable": False}, {"known_cities": {b"\x33\x10"}}, "city"),
        ({}, {"key_indexes": (0x05,)}, "key sets"),
    ],
)
def test_refusals(profile: dict[str, Any], rules: dict[str, Any], reason: str) -> None:
    made = CardProfile(ASN, ISSUER_ID, **profile)
    card = PurseCard(made, ISSUER.card_keys(ASN), balance_fen=1000)
    with pytest.raises(CardRejectedError, match=reason):
        make_validator(**rules).ride(card, 100, WHEN)
    assert (card.balance_fen, card.lock) == (1000, Lock.OPEN)


def test_cards_are_taken_on_their_first_and_last_day_and_from_known_cities() -> None:
    day = date(2024, 3, 15)
    profile = CardProfile(ASN, ISSUER_ID, city_code="3310", valid_from=day, valid_to=day)
    card = PurseCard(profile, ISSUER.card_keys(ASN), balance_fen=1000)
    assert make_validator(known_cities={b"\x33\x10"}).ride(card, 100, WHEN).record.card_city == b"\x33\x10"


def test_a_hot_card_of_level_one_is_locked_and_a_record_says_so() -> None:
    card, validator = make_card(), make_validator(hot_list={ASN: 1})
    with pytest.raises(CardRejectedError, match="black list"):
        validator.ride(card, 100, WHEN)
    assert card.lock is Lock.TEMPORARY
    assert card.balance_fen == 10_000
    (raw,) = validator.take_records()
    assert (raw[1], raw[30:34], raw[55:59]) == (RecordKind.LOCKED, bytes(4), bytes(4))
    with pytest.raises(CardRejectedError) as caught:
        validator.ride(card, 100, WHEN)
    assert caught.value.status == 0x6283


def test_nothing_prints_an_asn() -> None:
    validator = make_validator()
    ride = validator.ride(make_card(), 100, WHEN)
    assert ASN not in repr(ride)
    assert isinstance(validator.psam, Psam)
    assert "335000000017" in repr(validator.psam)


def test_a_validator_whose_hot_list_nobody_has_confirmed_for_days_takes_no_purse() -> None:
    validator = make_validator(list_fresh_at=WHEN - timedelta(days=7), list_days=7)
    assert validator.ride(make_card(), 200, WHEN).record.amount_fen == 200
    card = make_card()
    with pytest.raises(NotNowError, match="hot list is too old"):
        validator.ride(card, 200, WHEN + timedelta(seconds=1))
    assert validator.records_waiting == 1
    validator.rules.list_fresh_at = WHEN  # a manifest says that it is still in force
    assert validator.ride(card, 200, WHEN + timedelta(seconds=1)).record.amount_fen == 200
