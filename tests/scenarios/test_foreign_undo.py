"""A terminal made from the documents alone voids, refunds, reverses and repeats."""

from dataclasses import replace

import pytest

from tests.scenarios.foreign_city import ForeignCity, pan
from tests.scenarios.foreign_client import Terminal, with_fields
from tests.scenarios.foreign_codec import Message, unpack
from tests.scenarios.test_foreign_client import available_fen, signed_on

pytestmark = pytest.mark.server


def kept(body: bytes | None) -> bytes:
    """What of an answer its repeat has again: all but TPDU, header (whose digit 6 may ask for something) and field 64."""
    assert body is not None
    return body[11:-8]


def bought(terminal: Terminal, card: str, amount_fen: int) -> tuple[bytes, Message]:
    """An approved purchase: request and answer."""
    request = terminal.purchase(card, amount_fen)
    answer = terminal.ask(request)
    assert answer.code == "00"
    return request, answer


# ------------------------------------------------------------------------------------------------ void and refund


def test_a_purchase_is_voided_once_and_whole(foreign_city: ForeignCity) -> None:
    terminal, card = signed_on(foreign_city, 51), pan(4)
    before_fen = available_fen(terminal, card)
    _, original = bought(terminal, card, 700)
    assert terminal.ask(terminal.void(original, 699)).code == "64"
    assert terminal.ask(terminal.void(original)).code == "00"
    assert available_fen(terminal, card) == before_fen
    assert terminal.ask(terminal.void(original)).code == "12"
    assert terminal.ask(terminal.refund(original, 100)).code == "12"


def test_refunds_reach_the_amount_of_the_purchase_and_not_a_fen_more(foreign_city: ForeignCity) -> None:
    terminal, card = signed_on(foreign_city, 51), pan(5)
    before_fen = available_fen(terminal, card)
    _, original = bought(terminal, card, 700)
    assert terminal.ask(terminal.refund(original, 300)).code == "00"
    assert terminal.ask(terminal.refund(original, 401)).code == "64"
    answer = terminal.ask(terminal.refund(original, 400))
    assert answer.numbers - {38, 44} == {2, 3, 4, 11, 12, 13, 15, 25, 32, 37, 39, 41, 42, 49, 60, 64}
    assert terminal.ask(terminal.refund(original, 1)).code == "64"
    assert available_fen(terminal, card) == before_fen


def test_what_names_no_purchase_is_not_found(foreign_city: ForeignCity) -> None:
    terminal, card = signed_on(foreign_city, 51), pan(5)
    _, original = bought(terminal, card, 700)
    for undo in (terminal.void, terminal.refund):
        frame = undo(original, 700)
        elsewhere = f"{terminal.batch}999999{original.text(13)}"
        assert terminal.ask(with_fields(frame, terminal, {61: elsewhere})).code == "25"
        frame = undo(original, 700)
        assert terminal.ask(with_fields(frame, terminal, {37: "000000000000"})).code == "25"


def test_a_purchase_of_a_closed_batch_is_refunded_and_not_voided(foreign_city: ForeignCity) -> None:
    terminal, card = signed_on(foreign_city, 61), pan(6)
    _, original = bought(terminal, card, 700)
    batch = terminal.batch
    totals = replace(terminal.totals, online_debit_fen=700, online_debits=1)
    assert terminal.ask(terminal.settlement(totals)).text(48)[30::31] == "11"
    assert terminal.ask(terminal.batch_end("207", 0)).code == "00"
    assert terminal.sign_on().code == "00"
    assert terminal.batch != batch
    assert terminal.ask(terminal.void(original)).code == "12"
    assert terminal.ask(terminal.refund(original, 700)).code == "00"


# ------------------------------------------------------------------------------------------------ reversals


def test_a_reversal_gives_the_money_back_and_its_repeat_nothing_more(foreign_city: ForeignCity) -> None:
    terminal, card = signed_on(foreign_city, 71), pan(7)
    before_fen = available_fen(terminal, card)
    request, original = bought(terminal, card, 1500)
    reversal = terminal.reversal(request, original.text(13))
    body = terminal.send(reversal)
    assert body is not None
    answer = unpack(body)
    assert (answer.code, answer.text(37)) == ("00", original.text(37))
    assert answer.numbers - {44} == {2, 3, 4, 11, 12, 13, 25, 32, 37, 39, 41, 42, 49, 60, 64}
    assert available_fen(terminal, card) == before_fen
    assert kept(terminal.send(reversal)) == kept(body)
    other_reason = terminal.reversal(request, original.text(13), "A0")
    assert kept(terminal.send(other_reason)) == kept(body)
    assert available_fen(terminal, card) == before_fen


def test_a_reversal_that_comes_first_refuses_the_original(foreign_city: ForeignCity) -> None:
    terminal, card = signed_on(foreign_city, 71), pan(8)
    before_fen = available_fen(terminal, card)
    date = terminal.ask(terminal.echo()).text(13)
    late = terminal.purchase(card, 1500)
    assert terminal.ask(terminal.reversal(late, date)).code == "25"
    answer = terminal.ask(late)
    assert answer.code == "22"
    assert answer.numbers - {44} == {2, 3, 4, 11, 12, 13, 25, 32, 37, 39, 41, 42, 49, 60, 64}
    assert terminal.ask(terminal.reversal(late, date)).code == "25"
    assert available_fen(terminal, card) == before_fen


def test_what_else_a_reversal_hears(foreign_city: ForeignCity) -> None:
    terminal, card = signed_on(foreign_city, 71), pan(9)
    declined = terminal.purchase(card, 99_999_999)
    date = terminal.ask(declined).text(13)
    assert terminal.ask(terminal.reversal(declined, date)).code == "00"
    request, original = bought(terminal, card, 1500)
    other = with_fields(request, terminal, {4: f"{1499:012d}"})
    assert terminal.ask(terminal.reversal(other, date)).code == "64"
    request, original = bought(terminal, card, 1500)
    assert terminal.ask(terminal.void(original)).code == "00"
    assert terminal.ask(terminal.reversal(request, date)).code == "12"
    request, original = bought(terminal, card, 1500)
    assert terminal.ask(terminal.refund(original, 100)).code == "00"
    assert terminal.ask(terminal.reversal(request, date)).code == "12"
    request, original = bought(terminal, card, 1500)
    reversal = terminal.reversal(request, date)
    elsewhere = with_fields(reversal, terminal, {61: f"{terminal.batch}999999{date}"})
    assert terminal.ask(elsewhere).code == "30"  # field 61 names another trace than field 11


# ------------------------------------------------------------------------------------------------ repeats


def test_a_repeat_is_booked_once_and_answered_alike(foreign_city: ForeignCity) -> None:
    terminal, card = signed_on(foreign_city, 81), pan(10)
    before_fen = available_fen(terminal, card)
    request = terminal.purchase(card, 300)
    body = terminal.send(request)
    assert kept(terminal.send(request)) == kept(body)
    terminal.hang_up()
    assert kept(terminal.send(request)) == kept(body)
    assert terminal.sign_on().code == "00"
    again = with_fields(
        request, terminal, {}, header="613100319999"
    )  # a MAC under the new key, another software version
    body_again = terminal.send(again)
    assert kept(body_again) == kept(body)
    assert body_again is not None
    header = body_again[5:11].hex()
    assert header[:5] + header[6:] == "61310319999"  # digit 6 is the switch's own
    assert available_fen(terminal, card) == before_fen - 300


def test_the_same_trace_with_other_content_is_refused(foreign_city: ForeignCity) -> None:
    terminal, card = signed_on(foreign_city, 81), pan(11)
    request, original = bought(terminal, card, 300)
    answer = terminal.ask(with_fields(request, terminal, {4: f"{301:012d}"}))
    assert answer.code == "94"
    void = with_fields(terminal.void(original), terminal, {11: original.text(11)})
    assert terminal.ask(void).code == "94"
    assert terminal.ask(request).code == "00"


def test_a_declined_purchase_is_declined_again_when_money_has_come(foreign_city: ForeignCity) -> None:
    terminal, card = signed_on(foreign_city, 81), pan(12)
    _, original = bought(terminal, card, available_fen(terminal, card))
    poor = terminal.purchase(card, 1)
    assert terminal.ask(poor).code == "51"
    assert terminal.ask(terminal.void(original)).code == "00"
    assert terminal.ask(poor).code == "51"
