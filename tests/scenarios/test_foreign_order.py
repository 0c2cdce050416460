"""The order of checks, by a terminal made from the documents alone: where two things are wrong, the first check answers.

docs/iso8583.md section 7: unreadable 30, 03 and 97, 77 for want of keys, A0, repeat, mandatory fields 30, batch 77, frozen 90, rules.
"""

from dataclasses import replace

import pytest

from tests.scenarios.foreign_city import CLOSED_SHOP, SHOP, ForeignCity, pan
from tests.scenarios.foreign_client import Terminal, Totals, spoilt, with_fields
from tests.scenarios.foreign_codec import HEADER, Message, unpack
from tests.scenarios.test_foreign_client import signed_on

pytestmark = pytest.mark.server

UNKNOWN_CARD = pan(999)
BARE = {3, 11, 12, 13, 39, 41, 42, 60}  # of an answer to what could not be read or authenticated
FULL = {2, 3, 4, 11, 12, 13, 25, 32, 37, 39, 41, 42, 49, 60, 64}
LETTERS = b"\x00\x00\x00\x00\x0a\xbc"  # field 4 with nibbles that are no digits


def unreadable(terminal: Terminal, **more: str) -> bytes:
    """A purchase whose amount is not digits, with a good field 64."""
    changes = {int(name[1:]): value for name, value in more.items()}
    return with_fields(terminal.purchase(pan(15), 100), terminal, {4: LETTERS, **changes})


def refused(terminal: Terminal, frame: bytes, code: str, fields: set[int]) -> Message:
    """The answer, after it was found to have this code and exactly these fields. 44 may always be absent."""
    answer = terminal.ask(frame)
    assert answer.code == code
    assert answer.numbers - {44} == fields
    return answer


def test_what_cannot_be_read_comes_before_who_sent_it(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 1)
    refused(terminal, unreadable(terminal), "30", BARE | {64})
    refused(terminal, spoilt(unreadable(terminal)), "30", BARE | {64})
    refused(terminal, unreadable(terminal, f42=CLOSED_SHOP), "30", BARE | {64})  # the terminal has keys
    refused(terminal, unreadable(terminal, f41="58000701"), "30", BARE)


def test_what_cannot_be_read_has_no_mac_without_keys(foreign_city: ForeignCity) -> None:
    stranger = foreign_city.terminal(121, merchant=SHOP)
    stranger.keys = foreign_city.terminal(1).keys or signed_on(foreign_city, 1).keys
    refused(stranger, unreadable(stranger), "30", BARE)


def test_the_merchant_comes_before_the_terminal_and_both_before_the_keys(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 2)
    frame = terminal.purchase(pan(15), 100)
    refused(terminal, spoilt(with_fields(frame, terminal, {41: "58000701", 42: CLOSED_SHOP})), "03", BARE)
    refused(terminal, spoilt(with_fields(frame, terminal, {41: "58000701"})), "97", BARE)
    refused(terminal, spoilt(with_fields(frame, terminal, {41: "58000991"})), "97", BARE)


def test_keys_come_before_the_mac(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 3)
    frame = spoilt(terminal.purchase(pan(15), 100))
    assert terminal.ask(terminal.sign_off()).code == "00"
    answer = refused(terminal, frame, "77", BARE)
    assert answer.header[5] == "3"


def test_the_mac_comes_before_repeat_form_and_batch(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 4)
    good = terminal.purchase(pan(15), 100)
    assert terminal.ask(good).code == "00"
    for frame in (
        good,  # a repeat
        with_fields(terminal.purchase(pan(15), 100), terminal, {49: None}),
        with_fields(terminal.purchase(pan(15), 100), terminal, {60: "2299999900050"}),
    ):
        answer = refused(terminal, spoilt(frame), "A0", BARE | {64})
        assert answer.header[5] == "3"
    without = unpack(terminal.purchase(pan(15), 100)[2:])
    kept = {number: value for number, value in without.fields.items() if number != 64}
    refused(terminal, terminal.frame("0200", kept, mac=False), "A0", BARE | {64})


def test_a_bad_mac_leaves_no_trace_behind(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 4)
    assert (
        terminal.ask(terminal.balance(pan(15))).code == "00"
    )  # until then the old keys sign what was not authenticated
    frame = terminal.purchase(pan(15), 100)
    assert terminal.ask(spoilt(frame)).code == "A0"
    assert terminal.ask(frame).code == "00"


def test_a_repeat_comes_before_batch_and_freeze(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 5)
    request = terminal.purchase(pan(15), 100)
    trace = terminal.ask(request).text(11)
    assert terminal.ask(terminal.settlement(Totals(1))).code == "00"
    refused(terminal, request, "00", FULL | {15, 38})  # the stored answer, not 90
    refused(terminal, with_fields(request, terminal, {4: f"{101:012d}"}), "94", FULL)  # not 90 either
    assert terminal.ask(terminal.batch_end("202", 0)).code == "00"
    assert terminal.ask(request).code == "00"  # not 77
    # The key holds the batch: another batch is another key, so only the form can come before it.
    other = with_fields(terminal.purchase(pan(15), 100), terminal, {11: trace, 60: "2299999900050"})
    refused(terminal, other, "77", FULL)


def test_a_malformed_message_under_a_used_trace_is_no_repeat_whatever_shard_its_card_lies_in(
    foreign_city: ForeignCity,
) -> None:
    terminal = signed_on(foreign_city, 1)
    for serial in range(1, 9):
        request = terminal.purchase(pan(serial), 100)
        assert terminal.ask(request).code == "00"
        refused(terminal, with_fields(request, terminal, {49: None}), "94", FULL - {49})


def test_form_comes_before_the_batch(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 1)
    wrong_batch = {60: "2299999900050"}
    refused(
        terminal,
        with_fields(terminal.purchase(pan(15), 100), terminal, {49: None, **wrong_batch}),
        "30",
        FULL - {49},
    )
    refused(
        terminal,
        with_fields(terminal.purchase(pan(15), 100), terminal, {49: "840", **wrong_batch}),
        "30",
        FULL,
    )
    refused(terminal, with_fields(terminal.purchase(pan(15), 100), terminal, wrong_batch), "77", FULL)


def test_the_batch_comes_before_the_freeze_and_the_freeze_before_the_rules(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 71)
    terminal.ask(terminal.settlement(Totals(1)))  # whatever it answers, the batch is frozen
    poor = terminal.purchase(UNKNOWN_CARD, 100)
    refused(terminal, with_fields(poor, terminal, {60: "2299999900050"}), "77", FULL)
    refused(terminal, terminal.purchase(UNKNOWN_CARD, 100), "90", FULL)
    assert terminal.ask(terminal.batch_end("202", 0)).code == "00"
    assert terminal.sign_on().code == "00"
    refused(terminal, terminal.purchase(UNKNOWN_CARD, 100), "14", FULL)


# ------------------------------------------------------------------------------------------------ the line itself


def test_the_switch_closes_on_what_is_no_frame(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 2)
    good = terminal.purchase(pan(15), 100)
    body = good[2:]
    for frame in (
        b"\x00\x00",
        b"\x00\x14" + body[:20],
        b"\x08\x01" + bytes(2049),
        good[:2] + b"\x61" + body[1:],
        good[:2] + body[:11] + b"\x02\x10" + body[13:],  # an answer
        good[:2] + body[:11] + b"\x06\x00" + body[13:],
    ):
        assert terminal.send(frame) is None
    assert terminal.ask(good).code == "00"  # a new connection, the same session


def test_a_header_that_is_no_header_is_a_format_error(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 3)
    assert terminal.ask(replace(terminal, header="6131A0310001").echo()).code == "30"
    assert terminal.ask(replace(terminal, header="613120310001").echo()).code == "30"
    assert terminal.ask(replace(terminal, header=HEADER).echo()).code == "00"


def test_frames_may_come_in_pieces_and_together(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 5)
    terminal.ask(terminal.echo())
    assert terminal._line is not None
    frames = [terminal.purchase(pan(16), 100) for _ in range(3)]
    stream = b"".join(frames)
    for at in range(0, len(stream), 7):
        terminal._line.send(stream[at : at + 7])
    answers = {unpack(terminal._line.receive() or b"").text(11) for _ in frames}
    assert answers == {unpack(frame[2:]).text(11) for frame in frames}
