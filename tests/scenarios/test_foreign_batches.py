"""A terminal made from the documents alone uploads offline records and settles its batches."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from tests.scenarios.foreign_city import (
    BUSES,
    ISSUER,
    NEIGHBOUR,
    NEIGHBOUR_ISSUER,
    OWN,
    PSAMS,
    SHOP,
    ForeignCity,
    luhn,
    pan,
)
from tests.scenarios.foreign_client import Terminal, Totals, results, with_fields
from tests.scenarios.foreign_crypto import crc16
from tests.scenarios.foreign_purse import GREY, LOCKED, TEST, Ride
from tests.scenarios.test_foreign_client import signed_on

pytestmark = pytest.mark.server

SHANGHAI = timezone(timedelta(hours=8))
NO_TAC = bytes.fromhex("FFFFFFFF")
STRANGER = luhn("310999010000000001")  # a card of another city
_serials = itertools.count(1)


def bus(city: ForeignCity, number: int) -> Terminal:
    """A validator of the buses after its sign-on."""
    terminal = city.terminal(number, mac_id=number % 10, merchant=BUSES)
    assert terminal.sign_on().code == "00"
    return terminal


def ride(card: str = pan(41), *, merchant: str = BUSES) -> Ride:
    """A ride of 2.00 yuan an hour ago. Every serial and counter is new."""
    serial = next(_serials)
    when = (datetime.now(SHANGHAI) - timedelta(hours=1)).replace(microsecond=0)
    return Ride(card, serial, 200, 20_000, when, PSAMS[merchant], serial, serial, ISSUER, OWN)


def signed(city: ForeignCity, one: Ride) -> bytes:
    """The record with the TAC that its card makes."""
    return one.record(one.tac(city.roots["DTK", one.algorithm]))


def outcome(terminal: Terminal, *records: bytes) -> list[str]:
    """The result of each record, after the serials were found in order."""
    answer = terminal.ask(terminal.upload(records))
    assert answer.code == "00"
    assert answer.numbers == {11, 12, 13, 32, 37, 39, 41, 42, 60, 62, 64}
    told = results(answer)
    assert [serial for serial, _ in told] == [int.from_bytes(record[59:63], "big") for record in records]
    return [result for _, result in told]


# ------------------------------------------------------------------------------------------------ offline records


def ago(one: Ride, **before: int) -> Ride:
    """The same ride at another time."""
    return replace(one, when=one.when - timedelta(**before))


CHANGES: dict[str, tuple[str, Callable[[Ride], Ride]]] = {
    "a good record in 3DES": ("10", lambda one: one),
    "a good record in SM4": ("10", lambda one: replace(one, algorithm="SM4")),
    "a card that nobody registered": ("10", lambda one: replace(one, pan=pan(9_000))),
    "89 days ago": ("10", lambda one: ago(one, days=89)),
    "91 days ago": ("05", lambda one: ago(one, days=91)),
    "tomorrow at this hour, nearly": ("10", lambda one: ago(one, hours=-24)),
    "two days ahead": ("07", lambda one: ago(one, days=-2)),
    "before the card's first day": ("07", lambda one: ago(one, days=365 * 10)),
    "a test record": ("06", lambda one: replace(one, kind=TEST)),
    "a PSAM of another merchant": ("02", lambda one: replace(one, psam=PSAMS[SHOP])),
    "a PSAM nobody knows": ("02", lambda one: replace(one, psam="580000000099")),
    "an acquirer that is not the merchant's": ("02", lambda one: replace(one, acquirer=NEIGHBOUR)),
    "an unknown kind": ("02", lambda one: replace(one, kind=0x07)),
    "a lock that takes money": ("02", lambda one: replace(one, kind=LOCKED)),
    "a card of another city": ("11", lambda one: replace(one, pan=STRANGER, issuer=NEIGHBOUR_ISSUER)),
    "an issuer nobody knows": ("08", lambda one: replace(one, issuer="77777777FFFFFFFF")),
    "a grey record": ("04", lambda one: replace(one, kind=GREY)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_record_has_its_result(foreign_city: ForeignCity, name: str) -> None:
    expected, change = CHANGES[name]
    terminal = bus(foreign_city, 111)
    assert outcome(terminal, signed(foreign_city, change(ride()))) == [expected]


def test_what_the_terminal_can_spoil_in_a_record(foreign_city: ForeignCity) -> None:
    terminal = bus(foreign_city, 115)
    good = signed(foreign_city, ride(pan(42)))
    serial = ride(pan(42))
    wrong_tac = serial.record(bytes(3) + b"\x01")
    without_tac = ride(pan(42)).record(NO_TAC)
    whole = signed(foreign_city, ride(pan(42)))
    bad_crc = whole[:-1] + bytes([whole[-1] ^ 1])
    lock = replace(ride(pan(42)), kind=LOCKED, amount_fen=0).record(NO_TAC)
    assert outcome(terminal, good, wrong_tac, without_tac, bad_crc, lock) == [
        "10",
        "01",
        "04",
        "02",
        "10",
    ]
    letters = bytearray(signed(foreign_city, ride(pan(42))))
    letters[38] = 0xAA  # the year in BCD
    letters[94:] = crc16(bytes(letters[:94]))
    assert outcome(terminal, good, bytes(letters)) == ["03", "02"]


def test_a_counter_and_a_serial_are_used_once(foreign_city: ForeignCity) -> None:
    terminal = bus(foreign_city, 115)
    first = ride(pan(43))
    assert outcome(terminal, signed(foreign_city, first)) == ["10"]
    same_psam_serial = replace(ride(pan(43)), psam_serial=first.psam_serial)
    same_counter = replace(ride(pan(43)), counter=first.counter)
    records = [signed(foreign_city, one) for one in (same_psam_serial, same_counter, first, ride(pan(43)))]
    assert outcome(terminal, *records) == ["02", "02", "03", "10"]


def test_an_upload_is_repeated_until_it_is_answered(foreign_city: ForeignCity) -> None:
    terminal = bus(foreign_city, 115)
    records = [signed(foreign_city, ride(pan(44))) for _ in range(5)]
    frame = terminal.upload(records)
    body, again = terminal.send(frame), terminal.send(frame)
    assert body is not None
    assert again is not None
    assert again[11:] == body[11:]  # in the header the switch may ask for something else
    other = with_fields(frame, terminal, {62: b"\x01" + signed(foreign_city, ride(pan(44)))})
    assert terminal.ask(other).code == "94"
    assert (
        terminal.ask(with_fields(terminal.upload(records), terminal, {62: b"\x06" + b"".join(records)})).code
        == "30"
    )
    assert terminal.ask(with_fields(terminal.upload(records), terminal, {62: b"\x00"})).code == "30"


# ------------------------------------------------------------------------------------------------ settlement


def flags(terminal: Terminal, totals: Totals) -> str:
    """The two result digits of a settlement; the figures come back as sent."""
    answer = terminal.ask(terminal.settlement(totals))
    assert answer.code == "00"
    assert answer.numbers == {11, 12, 13, 15, 32, 37, 39, 41, 42, 48, 49, 60, 64}
    sent, got = totals.field_48(), answer.text(48)
    assert (got[:30], got[31:61]) == (sent[:30], sent[31:61])
    return got[30] + got[61]


def test_a_balanced_batch_is_closed_and_the_next_begins(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 91)
    batch = terminal.batch
    first = terminal.purchase(pan(13), 1000)
    bought = terminal.ask(first)
    assert terminal.ask(terminal.purchase(pan(13), 300)).code == "00"
    voided = terminal.ask(terminal.purchase(pan(13), 40))
    assert terminal.ask(terminal.void(voided)).code == "00"
    reversed_request = terminal.purchase(pan(13), 5)
    assert terminal.ask(reversed_request).code == "00"
    assert terminal.ask(terminal.reversal(reversed_request, bought.text(13))).code == "00"
    paid, grey = ride(merchant=SHOP), replace(ride(merchant=SHOP), kind=GREY)
    wrong = ride(merchant=SHOP).record(bytes(3) + b"\x01")
    records = [signed(foreign_city, paid), grey.record(NO_TAC), wrong, signed(foreign_city, paid)]
    assert outcome(terminal, *records) == ["10", "04", "01", "03"]
    assert terminal.ask(terminal.details([("000001", pan(13), 1000)])).code == "12"
    assert terminal.ask(terminal.batch_end("207", 3)).code == "12"
    assert flags(terminal, Totals(1340, 3, 40, 1, 400, 2)) == "11"

    assert terminal.ask(terminal.purchase(pan(13), 1)).code == "90"
    assert terminal.ask(terminal.settlement(Totals(1340, 3, 40, 1, 400, 2))).code == "90"
    assert terminal.ask(first).code == "00"  # a repeat
    assert outcome(terminal, signed(foreign_city, paid)) == ["03"]
    assert terminal.ask(terminal.batch_end("207", 99)).code == "95"
    end = terminal.batch_end("207", 2)
    answer = terminal.ask(end)
    assert (answer.code, answer.text(48)) == ("00", "0002")
    assert answer.numbers == {11, 12, 13, 32, 37, 39, 41, 42, 48, 60, 64}
    assert terminal.ask(end).code == "00"
    assert terminal.ask(first).code == "00"
    assert terminal.ask(terminal.purchase(pan(13), 1)).code == "77"
    assert terminal.ask(terminal.reversal(first, bought.text(13))).code == "12"
    assert terminal.sign_on().code == "00"
    assert int(terminal.batch) == int(batch) + 1
    assert terminal.ask(terminal.purchase(pan(13), 1)).code == "00"


def test_an_unbalanced_batch_is_closed_with_its_details(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 95)
    batch = terminal.batch
    traces = []
    for amount_fen in (100, 200):
        answer = terminal.ask(terminal.purchase(pan(14), amount_fen))
        traces.append((answer.text(11), pan(14), amount_fen))
    assert outcome(terminal, signed(foreign_city, ride(merchant=SHOP))) == ["10"]
    assert flags(terminal, Totals(301, 2, 0, 0, 200, 1)) == "21"
    assert terminal.ask(terminal.batch_end("207", 1)).code == "95"
    answer = terminal.ask(terminal.details(traces))
    assert answer.code == "00"
    assert answer.numbers == {11, 12, 13, 32, 37, 39, 41, 42, 60, 64}
    answer = terminal.ask(terminal.batch_end("202", 3))
    assert (answer.code, answer.text(48)) == ("00", "0003")
    assert terminal.ask(terminal.purchase(pan(14), 1)).code == "77"
    assert terminal.sign_on().code == "00"
    assert int(terminal.batch) == int(batch) + 1


def test_a_batch_that_is_not_the_open_one_asks_for_a_sign_on(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 91)
    wrong = f"{int(terminal.batch) + 1:06d}"
    for frame, end in (
        (terminal.purchase(pan(13), 1), "00050"),
        (terminal.upload([signed(foreign_city, ride(merchant=SHOP))]), "203"),
        (terminal.settlement(), "201"),
        (terminal.batch_end("207", 0), "207"),
    ):
        kind = "22" if end == "00050" else "00"
        answer = terminal.ask(with_fields(frame, terminal, {60: kind + wrong + end}))
        assert answer.code == "77"
        assert 64 in answer.fields
