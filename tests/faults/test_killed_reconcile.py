"""Taking and comparing a partner's file, killed on the way and in the middle of what is written: nothing is half done, and run again it is whole."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from switch.clearing.reconcile import run, take
from switch.clearing.reconcile.run import Compared, Partner, compare
from switch.clearing.reconcile.take import take_partner_file
from switch.domain.errors import InputRefused
from switch.storage.pool import connect
from terminal_sim.host.day_file import write_file
from tests.helpers.clearing_day import CENTRE
from tests.helpers.closing import die
from tests.helpers.reconciling import BANK, TERMS, Leg, Pg, ask, found_bank, rows

pytestmark = pytest.mark.server

LEGS = [Leg(number, 100 + number) for number in range(1, 31)]
GONE = "SELECT pg_terminate_backend(pg_backend_pid())"
STEPS = ("count", "find repeated lines", "write")


async def with_database(url: str, work: Callable[[Pg], Coroutine[Any, Any, Any]]) -> Any:
    async with await connect(url) as pg:
        return await work(pg)


def killed(url: str, work: Callable[[Pg], Coroutine[Any, Any, Any]]) -> None:
    """Do it in a process of its own, which dies on the way."""
    child = os.fork()
    if not child:
        try:
            asyncio.run(with_database(url, work))
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 3
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL


def settled(url: str, work: Callable[[Pg], Coroutine[Any, Any, Any]]) -> Any:
    """Do it again until the server has noticed that the one before is dead."""

    async def again(pg: Pg) -> Any:
        async with asyncio.timeout(30):
            while True:
                try:
                    return await work(pg)
                except InputRefused as error:
                    if "by another process" not in str(error):
                        raise
                    await asyncio.sleep(0.05)

    return asyncio.run(with_database(url, again))


def test_a_taking_that_is_killed_takes_nothing_and_the_next_one_everything(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day: date = asyncio.run(with_database(postgres_url, found_bank))[0]
    path = write_file(tmp_path, BANK, CENTRE, day, [leg.item(day) for leg in LEGS])
    monkeypatch.setattr(take, "BLOCK_LINES", 4)
    monkeypatch.setattr(take, "_BLOCKS_AT_ONCE", 2)

    async def mortal(pg: Pg) -> None:
        await take_partner_file(pg, path, TERMS, lambda done, _total: die() if done == 16 else None)

    async def lost(pg: Pg) -> None:
        monkeypatch.setattr(take, "SQL", {**take.SQL, "add_file": GONE})
        await take_partner_file(pg, path, TERMS)

    async def what_is_there(pg: Pg) -> list[tuple[Any, ...]]:
        return await rows(
            pg, "SELECT (SELECT count(*) FROM partner_file), (SELECT count(*) FROM partner_line)"
        )

    for end in (mortal, lost):
        killed(postgres_url, end)
        assert asyncio.run(with_database(postgres_url, what_is_there)) == [(0, 0)]
    receipt = settled(postgres_url, lambda pg: take_partner_file(pg, path, TERMS))
    assert (receipt.status, receipt.repeated) == ("00", False)
    assert asyncio.run(with_database(postgres_url, what_is_there)) == [(1, 30)]

    async def tables(pg: Pg) -> list[tuple[Any, ...]]:
        return await rows(pg, "SELECT count(*) FROM pg_class WHERE relname ~ '^partner_line_[0-9]+$'")

    settled(postgres_url, lambda pg: take_partner_file(pg, path, TERMS))  # clears up what it finds
    assert asyncio.run(with_database(postgres_url, tables)) == [(1,)]


def test_a_comparison_that_is_killed_leaves_nothing_and_the_next_one_is_whole(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def build(pg: Pg) -> date:
        _, day, _ = await found_bank(pg)
        await ask(pg, day, LEGS)
        items = [leg.item(day) for leg in (*LEGS[2:], LEGS[5])]
        path = write_file(tmp_path, BANK, CENTRE, day, [items[0]._replace(amount_fen=1), *items[1:]])
        await take_partner_file(pg, path, TERMS)
        return day

    day: date = asyncio.run(with_database(postgres_url, build))

    def dying(at: str) -> Callable[[Pg], Coroutine[Any, Any, Any]]:
        return lambda pg: compare(pg, Partner(BANK), day, "x", lambda step: die() if step == at else None)

    async def lost(pg: Pg) -> None:
        monkeypatch.setattr(run, "SQL", {**run.SQL, "set_states": GONE})
        await compare(pg, Partner(BANK), day, "x")

    async def written(pg: Pg) -> list[tuple[Any, ...]]:
        return await rows(
            pg,
            "SELECT (SELECT count(*) FROM reconcile_run), (SELECT count(*) FROM reconcile_total), (SELECT count(*) FROM reconcile_difference)",
        )

    def survives(end: Callable[[Pg], Coroutine[Any, Any, Any]]) -> None:
        async def retried(pg: Pg) -> None:  # the one before may hold its lock for another moment
            while True:
                try:
                    await end(pg)
                except InputRefused:
                    await asyncio.sleep(0.05)

        killed(postgres_url, retried)

    for step in STEPS:
        survives(dying(step))
    survives(lost)
    assert asyncio.run(with_database(postgres_url, written)) == [(0, 0, 0)]
    (done,) = settled(postgres_url, lambda pg: compare(pg, Partner(BANK), day, "x"))
    assert isinstance(done, Compared)
    assert {name: (side.ours_count, side.theirs_count) for name, side in done.totals.items()} == {
        "match": (27, 27),
        "amount": (1, 1),
        "short": (2, 0),
        "duplicate": (0, 1),
    }
