"""What is checked before what: at each boundary a message that breaks both rules gets the answer of the first.

Unreadable fields (30) > merchant, terminal (03, 97) > keys (77) > MAC (A0) > repeat > mandatory fields (30) > batch (77) > freeze (90)
> rules. The answers before the MAC was checked carry a MAC only where a key exists to make one with.
"""

import dataclasses
from typing import Any

import psycopg
import pytest

from switch.messages.codec import decode
from switch.messages.framing import frame
from switch.messages.message import Message
from terminal_sim.frames import PinPad, Terminal
from terminal_sim.pos import SIGN_ON_AGAIN
from terminal_sim.pos_answers import Request
from tests.helpers.till import Seen, Till, stored
from tests.helpers.town import (
    CLOSED_MERCHANT,
    CLOSED_TERMINAL,
    OF_CLOSED_MERCHANT,
    OTHER_MERCHANT,
    terminal_of,
)
from tests.scenarios.conftest import Two

pytestmark = pytest.mark.server

UNKNOWN_CARD = "3133500199999999995"
BARE = {3, 11, 12, 13, 39, 41, 42, 60}


class Desk:
    """One signed-on till and ways to send what a Pos would not."""

    def __init__(self, two: Two, till: Till) -> None:
        self.two = two
        self.till = till
        self.card = two.town.card_in_the_shard_of(
            till.terminal
        )  # so that messages without a card see its keys

    def purchase(self, changes: dict[int, Any] | None = None) -> Request:
        """A purchase with other fields; None takes one out."""
        made = self.till.pos.purchase(self.card, 100)
        fields = {n: value for n, value in (made.fields | (changes or {})).items() if value is not None}
        return made._replace(fields=fields)

    async def send(self, request: Request, *, bad_mac: bool = False, garbled: bool = False) -> Message:
        """Send; garbled: field 49 made impossible to read, with the MAC over what is sent."""
        framed = self.till.pos.pack(request)
        body = bytearray(framed[2:])
        if garbled:
            at = body.index(b"156")
            body[at : at + 1] = b"\xff"
            pad = self.till.pos.pin_pad
            assert pad is not None
            body[-8:] = pad.field64(bytes(body[11:-8]))
        if bad_mac:
            body[-1] ^= 1
        wire = await self.till.wire()
        return decode(await wire.ask(frame(bytes(body))))

    def has_good_mac(self, answer: Message) -> bool:
        """Whether field 64 of an answer is right."""
        pad: PinPad | None = self.till.pos.pin_pad
        return pad is not None and 64 in answer.fields and pad.mac_holds(answer.mab, answer.field64)


@pytest.fixture
async def desk(two: Two, seen: Seen) -> Desk:
    return Desk(two, await Till(two.town.new_terminal(), seen, two.one.line).sign_on())


def booked(two: Two, terminal: Terminal) -> int:
    """Journal rows of a terminal."""
    with psycopg.connect(two.town.database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM journal JOIN terminal USING (terminal_no) WHERE terminal_id = %s",
            [terminal.terminal_id],
        ).fetchone()
    assert row is not None
    return int(row[0])


# ---------------------------------------------------------------------- before the MAC


async def test_unreadable_fields_come_before_merchant_and_terminal(two: Two, desk: Desk) -> None:
    for stranger in ("99999999", terminal_of(CLOSED_TERMINAL).terminal_id):
        answer = await desk.send(desk.purchase({41: stranger}), garbled=True)
        assert answer.fields[39] == "30"
        assert answer.fields.keys() <= BARE | {64}
    answer = await desk.send(desk.purchase({42: OTHER_MERCHANT}), garbled=True)
    assert answer.fields[39] == "30"


async def test_an_unreadable_field_is_30_before_the_mac_is_looked_at_and_carries_one_where_there_are_keys(
    two: Two, desk: Desk
) -> None:
    answer = await desk.send(desk.purchase(), garbled=True, bad_mac=True)
    assert answer.fields[39] == "30"
    assert answer.fields.keys() == BARE | {64}
    assert desk.has_good_mac(answer)
    keyless = two.town.new_terminal()
    answer = await desk.send(desk.purchase({41: keyless.terminal_id}), garbled=True)
    assert answer.fields[39] == "30"
    assert answer.fields.keys() == BARE
    assert booked(two, desk.till.terminal) == booked(two, keyless) == 0


@pytest.mark.parametrize(
    ("terminal_id", "merchant_id", "code"),
    [
        ("99999999", None, "97"),
        ("99999999", "000000000000000", "03"),
        (None, "000000000000000", "03"),
        (None, CLOSED_MERCHANT, "03"),
        (None, OTHER_MERCHANT, "97"),
        (terminal_of(CLOSED_TERMINAL).terminal_id, None, "97"),
        (terminal_of(OF_CLOSED_MERCHANT).terminal_id, CLOSED_MERCHANT, "03"),
    ],
)
async def test_merchant_and_terminal_come_before_keys_and_mac(
    desk: Desk, terminal_id: str | None, merchant_id: str | None, code: str
) -> None:
    changes = {41: terminal_id} if terminal_id else {}
    changes |= {42: merchant_id} if merchant_id else {}
    for bad_mac in (False, True):
        answer = await desk.send(desk.purchase(changes), bad_mac=bad_mac)
        assert answer.fields[39] == code
        assert answer.fields.keys() == BARE
        assert answer.fields[41] == (terminal_id or desk.till.terminal.terminal_id)


async def test_a_sign_on_of_a_stranger_is_turned_away_in_the_same_order(two: Two, seen: Seen) -> None:
    cases = [
        (dataclasses.replace(terminal_of(0), terminal_id="99999999"), "97"),
        (terminal_of(CLOSED_TERMINAL), "97"),
        (dataclasses.replace(terminal_of(0), merchant_id="000000000000000"), "03"),
        (terminal_of(OF_CLOSED_MERCHANT, merchant_id=CLOSED_MERCHANT), "03"),
    ]
    for terminal, code in cases:
        till = Till(terminal, seen, two.one.line)
        answer = decode(await (await till.wire()).ask(till.pos.pack(till.pos.sign_on())))
        assert answer.fields[39] == code
        assert 62 not in answer.fields
        assert 64 not in answer.fields


async def test_without_keys_the_answer_is_77_whatever_the_mac_and_asks_for_a_sign_on(
    two: Two, desk: Desk
) -> None:
    keyless = two.town.new_terminal()
    for changes in ({41: keyless.terminal_id}, {41: keyless.terminal_id, 22: None}):
        answer = await desk.send(desk.purchase(changes), bad_mac=True)
        assert answer.fields[39] == "77"
        assert answer.fields.keys() == BARE
        assert answer.header[2] & 0x0F == SIGN_ON_AGAIN
    assert booked(two, keyless) == 0


# ---------------------------------------------------------------------- the MAC, repeats, form


async def test_a_wrong_or_missing_mac_comes_before_repeat_form_batch_and_rules_and_is_not_kept(
    two: Two, desk: Desk
) -> None:
    approved = desk.purchase()
    first = await desk.till.ask(approved)
    for request in (approved, desk.purchase({22: None}), desk.purchase({60: "22999999000500"[:13]})):
        answer = await desk.send(request, bad_mac=True)
        assert answer.fields[39] == "A0"
        assert answer.fields.keys() == BARE | {64}
        assert answer.header[2] & 0x0F == SIGN_ON_AGAIN
        assert desk.has_good_mac(answer)
    fresh = desk.purchase()
    assert (await desk.send(fresh, bad_mac=True)).fields[39] == "A0"
    bare = fresh._replace(with_mac=False)
    answer = decode(await (await desk.till.wire()).ask(desk.till.pos.pack(bare)))
    assert answer.fields[39] == "A0"
    assert await desk.till.code(fresh) == "00"  # a first request
    assert stored(await desk.till.ask(approved)) == stored(first)


async def test_a_repeat_comes_before_form_batch_number_freeze_and_rules(two: Two, desk: Desk) -> None:
    till = desk.till
    approved = desk.purchase()
    first = await till.ask(approved)
    malformed = desk.purchase({22: None})
    refused = await till.ask(malformed)
    assert refused.fields[39] == "30"
    assert 37 in refused.fields
    assert stored(await till.ask(malformed)) == stored(refused)
    other = approved._replace(fields={n: v for n, v in approved.fields.items() if n != 22})
    assert await till.code(other) == "94"  # not 30
    assert await till.code(till.pos.settlement()) == "00"
    assert stored(await till.ask(approved)) == stored(first)  # not 90
    assert await till.code(till.pos.batch_end(balanced=True)) == "00"
    await till.sign_on()
    assert stored(await till.ask(approved)) == stored(first)  # not 77
    assert stored(await till.ask(malformed)) == stored(refused)


async def test_form_comes_before_the_batch_number_and_the_batch_number_before_the_freeze_and_the_rules(
    two: Two, desk: Desk
) -> None:
    till = desk.till
    wrong_batch = f"22{till.pos.batch_no + 5:06d}00050"
    assert await till.code(desk.purchase({60: wrong_batch, 22: None})) == "30"
    answer = await till.ask(desk.purchase({60: wrong_batch, 2: UNKNOWN_CARD}))
    assert answer.fields[39] == "77"
    assert answer.header[2] & 0x0F == SIGN_ON_AGAIN
    assert 64 in answer.fields
    assert await till.code(till.pos.settlement()) == "00"
    assert await till.code(desk.purchase({60: wrong_batch})) == "77"
    assert await till.code(desk.purchase({2: UNKNOWN_CARD})) == "90"
    assert await till.code(desk.purchase({22: None})) == "30"


async def test_the_freeze_by_one_process_is_seen_by_the_other_at_once(two: Two, desk: Desk) -> None:
    till = desk.till
    assert await till.code(desk.purchase(), two.other.line) == "00"
    assert await till.code(till.pos.settlement(), two.one.line) == "00"
    assert await till.code(desk.purchase(), two.other.line) == "90"


@pytest.mark.parametrize("number", [2, 3, 4, 22, 25, 42, 49, 60])
async def test_each_mandatory_field_of_a_purchase_that_is_missing_is_named_by_30_or_its_own_check(
    desk: Desk, number: int
) -> None:
    answer = await desk.send(desk.purchase({number: None}))
    assert answer.fields[39] == ("03" if number == 42 else "30")


async def test_a_malformed_sale_whose_answer_was_lost_is_reversed_and_the_books_hold(
    two: Two, seen: Seen
) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    malformed = till.pos.purchase(two.town.new_card(), 1_403)
    malformed.fields[22] = "051"  # says that a PIN comes
    assert await till.code(malformed) == "30"
    assert await till.code(till.pos.reversal(malformed, "98")) == "00"
    two.town.run("audit")


# ---------------------------------------------------------------------- training


async def test_a_training_terminal_is_answered_and_nothing_is_booked(two: Two, seen: Seen) -> None:
    terminal = dataclasses.replace(two.town.new_terminal(), training=True)
    till = await Till(terminal, seen, two.one.line).sign_on()
    card = two.town.new_card()
    answer = await till.buy(card, 50_000)
    assert answer.fields[39] == "00"
    assert answer.header[2] >> 4 == 1
    assert answer.fields[38]
    assert 15 not in answer.fields  # nothing was posted
    assert await till.code(till.pos.balance(card)) == "00"
    receipt = till.pos.batch.receipts[0]
    assert await till.code(till.pos.void(receipt)) == "00"
    assert await till.code(till.pos.reversal(till.raw("0200", receipt.fields), "98")) == "00"
    frame = bytearray(till.pos.pack(till.pos.purchase(card, 1)))
    frame[-1] ^= 1
    assert (
        decode(await (await till.wire()).ask(bytes(frame))).fields[39] == "A0"
    )  # trained like the real thing
    assert booked(two, terminal) == 0
    real = await Till(dataclasses.replace(terminal, training=False), seen, two.other.line).sign_on()
    assert (await real.buy(card, 10_000)).fields[39] == "00"
    assert booked(two, terminal) == 1


async def test_network_management_that_breaks_a_rule_of_form_is_answered_30_and_an_unknown_code_40(
    two: Two, seen: Seen
) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    for code, mti, field62, expected in [
        ("390", "0800", b"X000000000001", "30"),
        ("362", "0820", b"99", "30"),
        ("370", "0800", b"", "40"),
    ]:
        assert await till.code(till.pos.management(code, mti, field62)) == expected
