"""kill -9 of the switch and of PostgreSQL under load: what a terminal was told is booked, and service comes back by itself."""

import asyncio
import contextlib
import os
import signal

import pytest

from tests.helpers.load import Load
from tests.helpers.switch_process import SwitchProcess, postgres_pids, process_gone, until
from tests.helpers.till import Seen, Till, check_books, stored
from tests.helpers.town import Town

pytestmark = [pytest.mark.server, pytest.mark.slow]

TILLS = 24
BACK_S = 180.0


class Served:
    """The town's processes as they are now, for loads that go on while they come and go."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.one = town.serve()
        self.other = town.serve_beside()
        self.seen = Seen()
        self.cards = [town.new_card("rich") for _ in range(8)]

    def load(self, tills: int = TILLS) -> Load:
        made = [Till(self.town.new_terminal(), self.seen, self.one.line) for _ in range(tills)]
        return Load(made, self.cards, lambda: (self.one.line, self.other.line), seed=tills)

    def kill(self, process: SwitchProcess) -> None:
        process.kill()
        self.town.processes.remove(process)


@pytest.fixture(scope="module")
def served(town: Town) -> Served:
    return Served(town)


async def test_a_switch_killed_under_load_loses_nothing_that_was_told(served: Served) -> None:
    async with served.load() as load:
        await load.more(500)
        served.kill(served.other)
        await load.more(500)  # by the one that lives
        served.other = await asyncio.to_thread(served.town.serve_beside)
        await load.more(500)
        before = served.seen.answers["00"]
    assert load.broken, "nobody noticed"
    assert before > 1_000
    check_books(served.town.database_url, [served.seen])


async def test_postgresql_killed_under_load_comes_back_by_itself_and_nothing_told_is_lost(
    served: Served,
) -> None:
    data_dir = served.town.data_dir
    async with served.load() as load:
        await load.more(500)
        before = postgres_pids(data_dir)
        assert before
        postmaster = min(before)
        os.kill(postmaster, signal.SIGKILL)
        await asyncio.to_thread(until, lambda: process_gone(postmaster), BACK_S, "the postmaster's end")
        await load.more(TILLS + 500)  # every till has had an answer since
    assert served.one.alive()
    assert served.other.alive()
    for process in (served.one, served.other):
        await asyncio.to_thread(until, process.ready, BACK_S, "ready again")
    check_books(served.town.database_url, [served.seen])


async def test_a_backend_of_postgresql_killed_under_load_is_survived_too(served: Served) -> None:
    data_dir = served.town.data_dir
    async with served.load(8) as load:
        await load.more(100)
        killed = False
        while not killed:  # one may have ended by itself meanwhile
            with contextlib.suppress(ProcessLookupError):
                os.kill(
                    max(postgres_pids(data_dir)), signal.SIGKILL
                )  # the postmaster then restarts all of them
                killed = True
        await load.more(8 + 200)
    check_books(served.town.database_url, [served.seen])


async def test_the_switch_that_holds_the_database_killed_takes_it_along_and_both_return(
    served: Served,
) -> None:
    town = served.town
    async with served.load() as load:
        await load.more(500)
        before = postgres_pids(town.data_dir)
        served.kill(served.one)
        await asyncio.to_thread(until, lambda: all(process_gone(pid) for pid in before), BACK_S, "no orphan")
        served.one = await asyncio.to_thread(town.serve)  # what a supervisor does
        await load.more(TILLS + 500)
    assert served.other.alive()
    await asyncio.to_thread(until, served.other.ready, BACK_S, "ready again")
    check_books(town.database_url, [served.seen])


async def test_a_reply_lost_with_its_switch_is_told_by_the_next_one(served: Served) -> None:
    town = served.town
    seen = Seen()
    till = await Till(town.new_terminal(), seen, served.other.line).sign_on()
    card = town.new_card()
    told = till.pos.purchase(card, 4_000)
    first = await till.ask(told)
    purchase = till.pos.purchase(card, 6_000)
    await till.send(purchase, served.other.line)
    served.kill(served.other)
    till.break_off()
    served.other = town.serve_beside()
    assert stored(await till.ask(told, served.other.line)) == stored(first)
    again = await till.ask(purchase, served.other.line)
    assert again.fields[39] == "00"
    await till.sign_on(served.one.line)
    assert stored(await till.ask(purchase, served.one.line)) == stored(again)
    assert stored(await till.ask(told, served.other.line)) == stored(first)
    assert (await till.buy(card, 1, served.one.line)).fields[39] == "51"
    check_books(town.database_url, [seen])
