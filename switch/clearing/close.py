"""Closing a business day: named steps in a table, each done once, the whole resumable at any point with the same bytes.

    cut-over → seal → adjudicate → fold → fees → netting → postings → files → reports → evidence → done

Nothing pauses: bookings go on into the next day while the old one is closed. What cannot be computed again (the instant of
the first close, rules, merchants, the settlement date) is stored by the first run and used by every later one.

Fees are posted on the day they belong to, after its seal and before it is closed, in one transaction with the mark
that they are posted; from `done` on a trigger refuses every change of what was settled for the day.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

from switch.clearing.close_steps import STEPS, CloseTerms, Progress, Run, day_folder, told
from switch.clearing.day_files import SQL, Connection, DayTerms
from switch.clearing.evidence.sealing import (
    draw_secret,
)
from switch.domain.calendar import settlement_date
from switch.domain.errors import InputRefused
from switch.ledger.days import Day, day_of

__all__ = [
    "CLOSE_LOCK",
    "STEPS",
    "CloseRefused",
    "CloseRunning",
    "CloseTerms",
    "Closed",
    "Progress",
    "close_day",
    "day_folder",
    "told",
]
CLOSE_LOCK = 0x43435332  # advisory, two-part, second part 0: one close at a time


class Closed(NamedTuple):
    """A closed day. rewritten, reports: names of files written by this run; was_closed: nothing else was left to do."""

    terms: DayTerms
    folder: Path
    was_closed: bool
    rewritten: tuple[str, ...]
    reports: tuple[str, ...] = ()


class CloseRefused(InputRefused):
    """A day that cannot be closed now. Nothing was changed."""


class CloseRunning(CloseRefused):
    """Somebody else is closing a day; the text says who."""


async def close_day(
    connection: Connection,
    day: date,
    terms: CloseTerms,
    actor: str,
    tell: Callable[[Progress], None] = lambda _progress: None,
) -> Closed:
    """Close a day, or go on where an interrupted close stopped; of a closed day, check its files and write missing ones.

    connection: its own, in autocommit mode; its session settings are changed. actor: who closes, for the steps and for
    another who tries meanwhile. Raises CloseRefused (predecessor open, somebody else closing, day not begun),
    FolderError (disk), or what the database raises; every finished step stays finished.
    """
    async with _only_closer(connection, actor):
        await connection.execute("SET TIME ZONE 'UTC'")
        await connection.execute("SET DateStyle = 'ISO, YMD'")  # dates of reports are the server's text
        await connection.execute("SET work_mem = '128MB'")
        await connection.execute("SET jit = off")
        await connection.execute(f"SET max_parallel_workers_per_gather = {terms.parallel_workers:d}".encode())
        # Sums over a day have few groups, and PostgreSQL thinks a tenth of its rows: too many to pass on, by its usual figure.
        await connection.execute("SET parallel_tuple_cost = 0.01")
        row = await day_of(connection, day)
        if row is None:
            raise CloseRefused(f"there is no business day {day}")
        if row.state < 2:
            await _check_turn(connection, row, may_end=terms.may_end)
            await connection.execute(
                SQL["begin_day"],
                {
                    "day": day,
                    "settlement_date": settlement_date(day, terms.is_workday),
                    "own_id": terms.own_id,
                    "centre_id": terms.centre_id,
                    "acquirer_code": terms.acquirer_code,
                    "shards": list(terms.shards),
                    "interop_id": terms.interop_centre,
                },
            )
            await draw_secret(connection, day)
        run = Run(connection, await _day_terms(connection, day), terms, actor, tell)
        if row.state < 2:
            await run.steps()
        else:
            await run.check_files()
        return Closed(run.day, run.folder, row.state == 2, tuple(run.written), tuple(run.reported))


async def _check_turn(connection: Connection, row: Day, *, may_end: bool) -> None:
    cursor = await connection.execute(SQL["predecessor"], {"day": row.day})
    before = await cursor.fetchone()
    if before is not None and before[1] < 2:
        raise CloseRefused(f"business day {before[0]} is not closed yet: close it first")
    cursor = await connection.execute(
        "SELECT now >= %s, now >= %s FROM clock_timestamp() AS now", (row.begins_at, row.ends_at)
    )
    begun = await cursor.fetchone()
    if begun is None or not begun[0]:
        raise CloseRefused(f"business day {row.day} has not begun")
    if not (begun[1] or may_end):
        raise CloseRefused(f"business day {row.day} has not ended by the database's clock")


async def _day_terms(connection: Connection, day: date) -> DayTerms:
    cursor = await connection.execute(SQL["read_day"], {"day": day})
    row = await cursor.fetchone()
    assert row is not None
    created_at: datetime = row[1]
    return DayTerms(row[0], created_at, row[2], row[3], row[4], tuple(row[5]))


@asynccontextmanager
async def _only_closer(connection: Connection, actor: str) -> AsyncIterator[None]:
    """Hold the closer's lock; it ends with the connection, so a killed close leaves nothing behind."""
    await connection.execute("SELECT set_config('application_name', %s, false)", (f"close by {actor}"[:63],))
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, 0)", (CLOSE_LOCK,))
    row = await cursor.fetchone()
    if row is None or not row[0]:
        cursor = await connection.execute(SQL["who_closes"], {"lock": CLOSE_LOCK})
        who = await cursor.fetchone()
        text = f"{who[0]}, connected since {who[1]:%Y-%m-%d %H:%M:%S%z}" if who else "it has just ended"
        raise CloseRunning(f"a close is running: {text}")
    try:
        yield
    finally:
        if not connection.closed:
            await connection.execute("SELECT pg_advisory_unlock(%s, 0)", (CLOSE_LOCK,))
