"""Business days: made ahead, cut over, and sealed. The stored end of a day and the database's clock decide, nothing else.

A day goes through: open (the clock is between its ends) → past its end → sealed (every gate has been had once since, so no
booking of that day can still come) → closed (clearing). Days follow each other without a hole: one begins at the
instant at which the one before it ends.
"""

import asyncio
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.errors import DeadlockDetected, LockNotAvailable

from switch.domain.calendar import CUT_OFF, clearing_date, day_bounds
from switch.domain.errors import DependencyError, InputRefused
from switch.ledger.gate import PURSE_GATE_SHARD, wait_for_all

Connection = AsyncConnection[tuple[Any, ...]]

# Tables with a partition per business date. The clearing room reads them; each belongs to its own room.
PARTITIONED = ("journal", "posting", "purse_record")

DAYS_AT_ONCE_MAX = 400  # a service that stood still longer than this is not caught up silently
_LOCK_TIMEOUT = "500ms"
_TRIES = 20
_PAUSE_S = 0.1
_SEAL_WAIT_STEP_S = 0.2


class Day(NamedTuple):
    """A row of business_day. state: 0 open or to come, 1 being closed, 2 closed."""

    day: date
    begins_at: datetime
    ends_at: datetime
    state: int
    sealed_at: datetime | None


_COLUMNS = "business_date, begins_at, ends_at, state, sealed_at"


async def _one(connection: Connection, query: str, *values: object) -> Day | None:
    cursor = await connection.execute(query, values)
    row = await cursor.fetchone()
    return None if row is None else Day(*row)


async def day_of(connection: Connection, day: date) -> Day | None:
    """The row of one business date."""
    return await _one(connection, f"SELECT {_COLUMNS} FROM business_day WHERE business_date = %s", day)  # noqa: S608


async def open_day(connection: Connection) -> Day | None:
    """The day that the database's clock is in."""
    return await _one(
        connection,
        f"SELECT {_COLUMNS} FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at",  # noqa: S608
    )


async def oldest_not_closed(connection: Connection) -> Day | None:
    """The day that has to be closed next: begun, and not closed."""
    return await _one(
        connection,
        f"SELECT {_COLUMNS} FROM business_day WHERE state < 2 AND begins_at <= clock_timestamp()"  # noqa: S608
        " ORDER BY business_date LIMIT 1",
    )


async def ended_not_closed(connection: Connection) -> tuple[date, ...]:
    """Days that have ended by the database's clock and are not closed, the oldest first."""
    cursor = await connection.execute(
        "SELECT business_date FROM business_day WHERE state < 2 AND ends_at <= clock_timestamp()"
        " ORDER BY business_date LIMIT %s",
        (DAYS_AT_ONCE_MAX,),
    )
    return tuple(row[0] for row in await cursor.fetchall())


async def ensure_days(
    connection: Connection, ahead_days: int = 3, cut_off: time = CUT_OFF
) -> tuple[date, ...]:
    """Make business days and their partitions up to `ahead_days` after the open one. Idempotent, safe from two processes.

    Whoever is going to book calls this first, so here the books also learn that they have been loaded into another cluster,
    whose transactions are numbered otherwise (migration 0007).

    Returns the dates whose row was made now. Partitions are made one by one with a short lock time-out, so that a writer
    never waits longer than that for us. Raises DependencyError when a lock could not be had within the bounded tries.
    connection: in autocommit mode and not in a transaction.
    """
    await adopt_cluster(connection)
    made = await _ensure_rows(connection, ahead_days, cut_off)
    cursor = await connection.execute(
        "SELECT d.business_date, t.name FROM business_day d CROSS JOIN unnest(%s::text[]) AS t (name)"
        " WHERE d.state < 2 AND to_regclass(t.name) IS NOT NULL"
        " AND to_regclass(t.name || '_' || to_char(d.business_date, 'YYYYMMDD')) IS NULL ORDER BY 1, 2",
        [list(PARTITIONED)],
    )
    for day, table in await cursor.fetchall():
        await _make_partition(connection, table, day)
    return made


async def adopt_cluster(connection: Connection) -> bool:
    """Go on from the numbers of the cluster that the database came from; False when it is in the same as before."""
    cursor = await connection.execute("SELECT adopt_cluster()")
    return await cursor.fetchone() == (True,)


async def _ensure_rows(connection: Connection, ahead_days: int, cut_off: time) -> tuple[date, ...]:
    async with connection.transaction():
        await connection.execute("LOCK TABLE business_day IN SHARE ROW EXCLUSIVE MODE")  # readers go on
        cursor = await connection.execute(
            "SELECT max(business_date), max(ends_at), clock_timestamp() FROM business_day"
        )
        row = await cursor.fetchone()
        assert row is not None
        newest, ends_at, now = row
        if newest is None:
            newest = clearing_date(now, cut_off) - timedelta(days=1)
            ends_at = day_bounds(newest, cut_off)[1]
        current = await open_day(connection)
        target = (current.day if current else clearing_date(now, cut_off)) + timedelta(days=ahead_days)
        if (target - newest).days > DAYS_AT_ONCE_MAX:
            raise InputRefused(f"the newest business day is {newest}, more than {DAYS_AT_ONCE_MAX} days ago")
        made = []
        while newest < target:
            newest += timedelta(days=1)
            begins_at, ends_at = ends_at, day_bounds(newest, cut_off)[1]
            await connection.execute(
                "INSERT INTO business_day (business_date, begins_at, ends_at) VALUES (%s, %s, %s)",
                (newest, begins_at, ends_at),
            )
            made.append(newest)
    return tuple(made)


async def _make_partition(connection: Connection, table: str, day: date) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext('make_day_partition'))")
                # The server learns of tables that others made when it locks one, and an advisory lock is none.
                await connection.execute("LOCK TABLE business_day IN ACCESS SHARE MODE")
                await connection.execute("SELECT make_day_partition(%s, %s)", (table, day))
                if table == "journal":
                    # The day's end looks up originals by serial; serials rise with time, so a block range index is enough.
                    await connection.execute(
                        f"CREATE INDEX IF NOT EXISTS journal_{day:%Y%m%d}_entry ON journal_{day:%Y%m%d}"
                        " USING brin (entry_no) WITH (pages_per_range = 32)"
                    )
        except (LockNotAvailable, DeadlockDetected) as error:
            if attempt == _TRIES:
                raise DependencyError(
                    f"no lock for the partition of {table} for {day} in {_TRIES} tries"
                ) from error
            await asyncio.sleep(_PAUSE_S * attempt)
        else:
            return


async def cut_over(connection: Connection, day: date, lead_s: float = 2.0) -> Day:
    """End the open day `lead_s` from now, and let the next begin at that instant, for an operator who closes early.

    The lead lets every batch that is deciding by the old end finish before the new one is reached. A day whose end is
    nearer than that, or past, keeps it. Returns the day with its end. Raises InputRefused when the day has not begun.
    connection: in autocommit mode and not in a transaction.
    """
    async with connection.transaction():
        await connection.execute("LOCK TABLE business_day IN SHARE ROW EXCLUSIVE MODE")
        row = await day_of(connection, day)
        if row is None:
            raise InputRefused(f"there is no business day {day}")
        following = await day_of(connection, day + timedelta(days=1))
        if following is None:
            raise InputRefused(f"there is no business day after {day}: make days ahead first")
        await connection.execute("SET CONSTRAINTS ALL DEFERRED")
        cursor = await connection.execute(
            "SELECT clock_timestamp() + make_interval(secs => %s), clock_timestamp() >= %s",
            (lead_s, row.begins_at),
        )
        answer = await cursor.fetchone()
        assert answer is not None
        end, begun = answer
        if not begun:
            raise InputRefused(f"business day {day} has not begun")
        if end < row.ends_at:
            await connection.execute(
                "UPDATE business_day SET ends_at = %s WHERE business_date = %s", (end, day)
            )
            await connection.execute(
                "UPDATE business_day SET begins_at = %s WHERE business_date = %s", (end, following.day)
            )
            row = row._replace(ends_at=end)
    return row


async def seal_day(connection: Connection, day: date, shards: Sequence[int], wait_s_max: float = 60.0) -> Day:
    """Wait until a day is past its end, then have every shard's gate and the purse's exclusively once: nothing more can come.

    shards: every shard that any process books in. Idempotent: a sealed day is returned as it is. Raises InputRefused when
    the end is farther off than wait_s_max. connection: in autocommit mode and not in a transaction.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + wait_s_max
    while True:
        row = await day_of(connection, day)
        if row is None:
            raise InputRefused(f"there is no business day {day}")
        if row.sealed_at is not None:
            return row
        cursor = await connection.execute(
            "SELECT extract(epoch FROM %s - clock_timestamp())::float8", (row.ends_at,)
        )
        answer = await cursor.fetchone()
        assert answer is not None
        if answer[0] <= 0:
            break
        if loop.time() + answer[0] > give_up_at:
            raise InputRefused(
                f"business day {day} ends at {row.ends_at:%Y-%m-%d %H:%M:%S%z}: it cannot be sealed yet"
            )
        await asyncio.sleep(min(answer[0] + 0.01, _SEAL_WAIT_STEP_S))
    await wait_for_all(connection, (*shards, PURSE_GATE_SHARD))
    await connection.execute(
        "UPDATE business_day SET sealed_at = clock_timestamp(), state = 1 WHERE business_date = %s AND sealed_at IS NULL",
        (day,),
    )
    row = await day_of(connection, day)
    assert row is not None
    return row
