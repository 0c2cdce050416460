"""Floods of sign-ons, which anybody can send: other terminals get theirs, and the session they are sent for goes on."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import NamedTuple

import psycopg
import pytest

from switch.messages.codec import decode
from switch.routing.sign_ons import SIGN_ONS_MAX
from terminal_sim.frames import Terminal
from tests.helpers.switch_process import SwitchProcess
from tests.helpers.till import Seen, Till, Wire, check_books
from tests.helpers.town import Town

pytestmark = pytest.mark.server


class Two(NamedTuple):
    """Two processes on one database."""

    one: SwitchProcess
    other: SwitchProcess


@pytest.fixture(scope="module")
def two(town: Town) -> Two:
    return Two(town.serve(), town.serve_beside())


async def flood(
    wire: Wire, terminal: Terminal, rounds: int, *, modes: tuple[str, ...] = ("",)
) -> Counter[str]:
    """Sign-ons, sixty at a time; what they were answered."""
    stranger = Till(terminal, Seen(), None)  # type: ignore[arg-type]  # it uses the wire at hand
    answers: Counter[str] = Counter()
    for number in range(rounds):
        mode = modes[number % len(modes)]
        wire.send(b"".join(stranger.pos.pack(stranger.pos.sign_on(mode)) for _ in range(60)))
        answers.update([decode(await wire.body()).fields[39] for _ in range(60)])
    return answers


@pytest.fixture
async def locked(town: Town, two: Two) -> AsyncIterator[tuple[Terminal, psycopg.Connection]]:
    """A terminal with a session, whose row is locked until the connection commits: by another process that stands still, say."""
    assert two.one.alive()
    terminal = town.new_terminal()
    await Till(terminal, Seen(), two.one.line).sign_on()
    with psycopg.connect(town.database_url) as connection:
        connection.execute(
            "SELECT FROM terminal_session JOIN terminal USING (terminal_no) WHERE terminal_id = %s FOR UPDATE",
            [terminal.terminal_id],
        )
        yield terminal, connection


async def test_sign_ons_that_wait_for_one_terminal_keep_no_other_from_signing_on(
    town: Town, two: Two, locked: tuple[Terminal, psycopg.Connection]
) -> None:
    terminal, lock = locked
    floods = [
        asyncio.create_task(flood(await Wire.open(process.line), terminal, 1, modes=(mode,)))
        for process in two
        for mode in ("005", "006", "005", "006")
    ]
    await asyncio.sleep(1.0)  # they have come, and wait
    for process in two:
        for _ in range(12):  # more than there are pooled connections; each of a terminal not seen before
            # One that found no connection would be refused after five seconds, and not signed on.
            await Till(town.new_terminal(), Seen(), process.line).sign_on()
    lock.commit()
    answers = sum([await one for one in floods], Counter[str]())
    assert answers.keys() == {"00", "96"}
    assert answers["00"] >= SIGN_ONS_MAX * len(two)


async def test_a_flood_of_sign_ons_ends_no_session_and_stops_nobody(town: Town, two: Two) -> None:
    seen = Seen()
    till = await Till(town.new_terminal(), seen, two.one.line).sign_on()
    card = town.new_card("rich")
    assert (await till.buy(card, 1)).fields[39] == "00"
    wires = [await Wire.open(process.line) for process in two for _ in range(3)]
    floods = [
        asyncio.create_task(flood(wire, till.terminal, 10, modes=("005", "006", "003"))) for wire in wires
    ]
    for _ in range(10):
        assert (await till.buy(card, 1, two.one.line)).fields[39] == "00"
        assert (await till.buy(card, 1, two.other.line)).fields[39] == "00"
        for process in two:
            await Till(town.new_terminal(), Seen(), process.line).sign_on()
    answers = sum([await one for one in floods], Counter[str]())
    assert answers.keys() <= {"00", "58", "96"}
    assert answers["00"]
    assert answers["58"]  # the mode of the other algorithm
    await till.sign_on(two.other.line)
    assert (await till.buy(card, 1, two.one.line)).fields[39] == "00"
    check_books(town.database_url, [seen])


async def test_a_terminal_that_asks_twice_at_once_can_work_with_either_answer(town: Town, two: Two) -> None:
    for use in (0, 1):
        seen = Seen()
        till = Till(town.new_terminal(), seen, two.one.line)
        requests = [till.pos.sign_on(), till.pos.sign_on()]
        wire = await till.wire()
        wire.send(b"".join(till.pos.pack(request) for request in requests))
        bodies = {decode(body).fields[11]: body for body in [await wire.body(), await wire.body()]}
        request = requests[use]
        assert till.pos.take(request, bodies[request.fields[11]]).code == "00"
        assert (await till.buy(town.new_card(), 1, two.other.line)).fields[39] == "00"
        check_books(town.database_url, [seen])
