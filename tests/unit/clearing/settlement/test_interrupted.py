"""Killed between any two steps, a settlement goes on where it stopped: nothing twice, nothing lost, the same bytes."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from switch.clearing.settlement import order as order_module
from switch.clearing.settlement import statements
from terminal_sim.custody_bank import CustodyBank, Fate
from tests.helpers.settling import CUSTODY, GROCER, Settling

pytestmark = pytest.mark.server


class Killed(BaseException):
    """As if the power had gone: nobody catches it."""


async def snapshot(city: Settling) -> list[list[tuple[object, ...]]]:
    """Everything that a settlement writes."""
    return [
        await city.rows(f"SELECT * FROM {table} ORDER BY 1, 2")
        for table in ("payout", "payout_move", "settlement_order", "booking", "bank_entry")
    ]


async def test_killed_after_the_order_is_booked_its_file_is_written_by_the_next_run(
    city: Settling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await city.trade()
    await city.close()
    day = (await city.prepare()).settlement_date
    await city.approve(day)
    good = order_module.write_order

    def dies(*arguments: object) -> object:
        blocks = good(*arguments)
        yield next(blocks)
        raise Killed

    monkeypatch.setattr(order_module, "write_order", dies)
    with pytest.raises(Killed):
        await city.order(day)
    folder = city.folder / "settlement" / f"{day:%Y%m%d}"
    assert list(folder.iterdir()) == []
    booked = await snapshot(city)
    monkeypatch.setattr(order_module, "write_order", good)
    again = await city.order(day)
    assert (again.payout_count, again.written) == (0, (f"O{day:%Y%m%d}001.xml",))
    after = await snapshot(city)
    assert [after[n] for n in (0, 1, 3)] == [booked[n] for n in (0, 1, 3)]
    path = folder / again.written[0]
    first = path.read_bytes()
    path.with_name(f"{path.name}.ok").unlink()
    assert (await city.order(day)).written == ()
    assert path.with_name(f"{path.name}.ok").exists()
    path.write_bytes(first[:-1])
    assert (await city.order(day)).written == again.written
    assert path.read_bytes() == first


async def test_killed_inside_the_order_nothing_is_ordered(
    city: Settling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await city.trade()
    await city.close()
    day = (await city.prepare()).settlement_date
    await city.approve(day)
    before = await snapshot(city)

    async def dies(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr(order_module, "move", dies)
    with pytest.raises(Killed):
        await city.order(day)
    assert await snapshot(city) == before


async def test_killed_between_two_parts_of_a_statement_the_next_run_takes_the_rest(
    city: Settling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await city.trade()
    await city.close()
    day = await city.settle()
    bank = CustodyBank(CUSTODY)
    ids = dict(await city.rows("SELECT party, payout_id FROM payout"))
    order = city.folder / "settlement" / f"{day:%Y%m%d}" / f"O{day:%Y%m%d}001.xml"
    bank.order(order.read_bytes(), {ids[GROCER]: Fate.RETURNED})
    bank.move("", 5, "a stranger")
    paper = city.folder / "paper.xml"
    paper.write_bytes(bank.statement(datetime(2024, 3, 18, tzinfo=UTC)))
    monkeypatch.setattr(statements, "AT_ONCE", 2)
    good, calls = statements.move, 0

    async def dies(*arguments: object, **more: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        await good(*arguments, **more)

    monkeypatch.setattr(statements, "move", dies)
    with pytest.raises(Killed):
        await city.take(paper)
    assert await city.one("SELECT count(outcome) FROM bank_entry") == 2
    monkeypatch.setattr(statements, "move", good)
    (taken,) = await city.take(paper)
    assert not taken.again
    assert {outcome: counts[0] for outcome, counts in taken.counts.items()} == {
        "PAID": 5,
        "RETURNED": 1,
        "UNEXPLAINED": 1,
    }
    assert await city.one("SELECT count(*) FROM booking WHERE event = 'merchant_payout_returned'") == 1


_PREPARE = """
import asyncio, sys
from switch.clearing.settlement.prepare import prepare
from switch.storage.pool import connect
async def run():
    async with await connect(sys.argv[1]) as connection:
        await prepare(connection, None, "process")
asyncio.run(run())
"""


async def test_killed_while_it_prepares_there_is_nothing_and_the_next_run_prepares(
    city: Settling, postgres_url: str, tmp_path: Path
) -> None:
    await city.trade()
    await city.close()
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE payout_move IN ACCESS EXCLUSIVE MODE")
        process = subprocess.Popen([sys.executable, "-c", _PREPARE, postgres_url])
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'payout_move'::regclass"
        while not await city.one(waiting):
            assert process.poll() is None
        process.kill()
        process.wait()
    assert await city.one("SELECT count(*) FROM settlement_line") == 0
    while await city.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1"):
        pass  # the server notices that its client has gone
    assert not (await city.prepare()).again
