"""Tidying up of what has ended by the clock: holds that have expired, loss reports that have lapsed, loads of which nobody speaks.

Nothing waits for it: a batch that meets one of them knows what it is worth. This writes down the end of those whose holders do not
come, so that the list of open holds stays short and reports show what is in force.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.ledger.card_desk import lapse_losses
from switch.ledger.load_desk import Connect as ConnectWriter
from switch.ledger.load_desk import Moved, suspend_unconfirmed, suspense
from switch.storage.pool import end_if_idle
from switch.storage.sql import load

log = structlog.get_logger(__name__)

SQL = load("switch.ledger")
ACCOUNTS_MAX: Final = 500  # of one transaction: their requests wait for it
EVERY_S: Final = 60.0
Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]


async def sweep_shard(connection: AsyncConnection[Any], shard: int) -> int:
    """Release expired holds of up to ACCOUNTS_MAX accounts; how many accounts were touched. connection: in autocommit mode."""
    cursor = await connection.execute(SQL["find_expired"], {"shard": shard, "limit": ACCOUNTS_MAX})
    accounts = sorted(row[0] for row in await cursor.fetchall())
    if not accounts:
        return 0
    which = {"shard": shard, "accounts": accounts}
    async with connection.transaction():
        await end_if_idle(connection)
        await connection.execute(SQL["lock_expired"], which)
        cursor = await connection.execute(SQL["read_clock"])
        row = await cursor.fetchone()
        assert row is not None
        cursor = await connection.execute(SQL["release_expired"], {**which, "now": row[0]})
        return cursor.rowcount


async def keep_sweeping(connect: Connect, shards: Iterable[int], every_s: float = EVERY_S) -> None:
    """Sweep until cancelled. A failure is logged and the next round tries again."""
    shards = tuple(shards)
    while True:
        try:
            async with connect() as connection:
                for shard in shards:
                    while lapsed := await lapse_losses(connection, shard):
                        log.info("loss reports lapsed", shard=shard, cards=lapsed)
                    while released := await sweep_shard(connection, shard):
                        log.info("expired holds released", shard=shard, accounts=released)
        except psycopg.Error as error:
            log.warning("sweep of holds postponed", error=type(error).__name__)
        await asyncio.sleep(every_s)


async def keep_sweeping_loads(
    connect: Connect,
    connect_writer: ConnectWriter,
    shards: Iterable[int],
    moved: Moved,
    tell: Callable[[int, datetime | None], None],
    every_s: float = EVERY_S,
) -> None:
    """Bring unconfirmed loads to suspense until cancelled, and tell how many are there and how old the oldest is."""
    shards = tuple(shards)
    while True:
        try:
            for shard in shards:
                if suspended := await suspend_unconfirmed(connect_writer, shard, moved):
                    log.warning("loads nobody confirmed", shard=shard, loads=suspended)
            async with connect() as connection:
                tell(*await suspense(connection, shards))
        except psycopg.Error as error:
            log.warning("sweep of loads postponed", error=type(error).__name__)
        await asyncio.sleep(every_s)
