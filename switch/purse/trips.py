"""Trips in transit 進出站: entries, exits and supplements of a card, put together in the order of its counter.

Records come late and in any order, so no trip is ever written down. What is kept are its steps (`trip_leg`), one row for each
accepted record with a ride phase; the view `trip` says which belong together. None of it is a reason to refuse a record,
and nobody waits for it: a fold takes the steps behind a watermark every few seconds, and the close takes those of its day.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Any, Final

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.storage.sql import load

log = structlog.get_logger(__name__)
SQL: Final = load("switch.purse", "trips.sql")
TRIPS_SHOWN_MAX: Final = 1_000

Connection = AsyncConnection[Any]
Connect = Callable[[], AbstractAsyncContextManager[Connection]]


async def fold_trips(connection: Connection) -> int:
    """Collect the steps of trips behind the horizon; returns how many were new. Safe from several processes.

    connection: in autocommit mode and not in a transaction.
    """
    async with connection.transaction():
        cursor = await connection.execute(SQL["lock_watermark"].encode())
        (folded_to,) = await cursor.fetchone()  # type: ignore[misc]  # the table has its one row
        cursor = await connection.execute(SQL["read_horizon"].encode())
        (upto,) = await cursor.fetchone()  # type: ignore[misc]  # a function always answers
        cursor = await connection.execute(SQL["collect"].encode(), {"folded_to": folded_to, "upto": upto})
        await connection.execute(SQL["move_watermark"].encode(), {"upto": upto})
        return cursor.rowcount


async def collect_day(connection: Connection, day: date) -> int:
    """Collect the steps of a sealed day; returns how many were new. The same again finds nothing."""
    cursor = await connection.execute(SQL["collect_day"].encode(), {"day": day})
    return cursor.rowcount


async def keep_folding_trips(connect: Connect, every_s: float) -> None:
    """Fold until cancelled. A failure is logged and the next round tries again: nothing is lost by folding late."""
    while True:
        try:
            async with connect() as connection:
                await fold_trips(connection)
        except psycopg.Error as error:
            log.warning("folding of trips postponed", error=type(error).__name__)
        await asyncio.sleep(every_s)
