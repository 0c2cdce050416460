"""Sessions that strangers, other processes, restarts and sign-offs come between."""

import pytest

from switch.messages.codec import decode
from switch.messages.message import Message
from terminal_sim.frames import PinPad
from terminal_sim.pos import SIGN_ON_AGAIN
from terminal_sim.pos_answers import Request
from tests.helpers.till import Seen, Till, Wire
from tests.scenarios.conftest import Two

pytestmark = pytest.mark.server


def processing(answer: Message) -> int:
    """Header digit 6: what the terminal should do next."""
    return answer.header[2] & 0x0F


async def under(till: Till, pad: PinPad | None, request: Request, wire: Wire) -> Message:
    """Send a request under other keys than today's; the answer, its MAC not looked at."""
    today, till.pos.pin_pad = till.pos.pin_pad, pad
    try:
        frame = till.pos.pack(request)
    finally:
        till.pos.pin_pad = today
    return decode(await wire.ask(frame))


async def test_a_strangers_sign_on_through_any_process_ends_no_live_session(two: Two, seen: Seen) -> None:
    terminal = two.town.new_terminal()
    till = await Till(terminal, seen, two.one.line).sign_on()
    card = two.town.new_card()
    assert (await till.buy(card, 100)).fields[39] == "00"
    stranger = Till(terminal, Seen(), two.other.line)
    for line in (two.other.line, two.one.line) * 4:  # more than may wait
        await stranger.sign_on(line)
        assert (await till.buy(card, 100, two.one.line)).fields[39] == "00"
        assert (await till.buy(card, 100, two.other.line)).fields[39] == "00"


async def test_after_the_first_good_mac_under_new_keys_old_ones_get_a0_and_are_told_to_sign_on(
    two: Two, seen: Seen
) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    card = two.town.new_card()
    first = till.pos.purchase(card, 100)
    assert await till.code(first) == "00"
    old = till.pos.pin_pad
    await till.sign_on(two.other.line)
    waiting = till.pos.pin_pad
    # The old ones serve until the new ones are used, in either process.
    for line in (two.one.line, two.other.line):
        assert (await under(till, old, first, await till.wire(line))).fields[39] == "00"
    assert await till.code(till.pos.purchase(card, 100), two.other.line) == "00"
    for line in (two.other.line, two.one.line):
        refused = await under(till, old, till.pos.purchase(card, 100), await till.wire(line))
        assert refused.fields[39] == "A0"
        assert processing(refused) == SIGN_ON_AGAIN
        assert refused.fields.keys() == {3, 11, 12, 13, 39, 41, 42, 60, 64}
        assert waiting is not None
        assert waiting.mac_holds(refused.mab, refused.field64)  # made under the keys that serve
    assert await till.code(till.pos.purchase(card, 100), two.one.line) == "00"


async def test_the_youngest_of_several_sign_ons_wins_and_the_others_are_gone(two: Two, seen: Seen) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    card = two.town.new_card()
    pads = []
    for line in (two.one.line, two.other.line, two.one.line):
        await till.sign_on(line)
        pads.append(till.pos.pin_pad)
    assert await till.code(till.pos.purchase(card, 100), two.other.line) == "00"
    for pad in pads[:2]:
        refused = await under(till, pad, till.pos.purchase(card, 100), await till.wire())
        assert refused.fields[39] == "A0"


async def test_sign_off_ends_the_keys_in_every_process_and_leaves_the_batch_open(
    two: Two, seen: Seen
) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    card = two.town.new_card()
    purchase = till.pos.purchase(card, 100)
    first = await till.ask(purchase)
    assert first.fields[39] == "00"
    batch_no, pad = till.pos.batch_no, till.pos.pin_pad
    for line in (two.one.line, two.other.line):  # both have it in mind
        assert (await till.ask(purchase, line)).fields[37] == first.fields[37]
    assert await till.code(till.pos.sign_off(), two.one.line) == "00"
    for line in (two.one.line, two.other.line):
        refused = await under(till, pad, purchase, await till.wire(line))
        assert refused.fields[39] in ("77", "A0")
        assert processing(refused) == SIGN_ON_AGAIN
    refused = await under(till, pad, purchase, await till.wire(two.one.line))
    assert refused.fields[39] == "77"
    assert 64 not in refused.fields
    await till.sign_on(two.other.line)
    assert till.pos.batch_no == batch_no
    assert (await till.ask(purchase)).fields[37] == first.fields[37]


async def test_a_restart_of_the_switch_ends_no_session(two: Two, seen: Seen) -> None:
    first = two.town.serve_beside()
    try:
        till = await Till(two.town.new_terminal(1), seen, first.line).sign_on()
        card = two.town.new_card()
        assert (await till.buy(card, 100)).fields[39] == "00"
    finally:
        two.town.stop(first)
    second = two.town.serve_beside()
    try:
        assert (await till.buy(card, 100, second.line)).fields[39] == "00"
        assert not till.pos.must_sign_on
    finally:
        two.town.stop(second)


async def test_keys_that_were_drawn_but_never_used_survive_a_restart_too(two: Two, seen: Seen) -> None:
    first = two.town.serve_beside()
    till = await Till(two.town.new_terminal(), seen, first.line).sign_on()
    first.kill()
    two.town.processes.remove(first)
    assert (await till.buy(two.town.new_card(), 100, two.other.line)).fields[39] == "00"


async def test_one_terminal_by_three_connections_at_once_has_one_session(two: Two, seen: Seen) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    card = two.town.new_card()
    wires = [await Wire.open(two.one.line), await Wire.open(two.one.line), await Wire.open(two.other.line)]
    requests = [till.pos.purchase(card, 100) for _ in range(30)]
    for number, request in enumerate(requests):
        wires[number % 3].send(till.pos.pack(request))
    for number in range(30):
        answer = decode(await wires[number % 3].body())
        assert answer.fields[39] == "00"


async def test_working_keys_serve_for_their_time_and_then_the_terminal_signs_on_again(
    two: Two, seen: Seen
) -> None:
    brief = two.town.serve_beside(terminals__key_age_s=0.000_001)
    try:
        till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
        purchase = till.pos.purchase(two.town.new_card(), 100)
        refused = decode(await (await till.wire(brief.line)).ask(till.pos.pack(purchase)))
        assert refused.fields[39] == "77"
        assert processing(refused) == SIGN_ON_AGAIN
        assert 64 not in refused.fields
        assert await till.code(purchase, two.one.line) == "00"
    finally:
        two.town.stop(brief)
