"""Balances of hot accounts: merchants, banks, fees, cities.

Nobody waits for them, so no transaction updates them. Every few seconds the postings behind the watermark are added up and
folded in; a balance is `folded + postings after the watermark`, and only folded money is ever paid out.

Rows commit out of order, so the watermark passes only postings of transactions older than every one still running.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import date, timedelta
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.storage.sql import load

log = structlog.get_logger(__name__)
SQL = load("switch.ledger")
Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]

LOOKBACK_DAYS = 7  # a transaction cannot have been running for longer than this


async def fold_shard(connection: AsyncConnection[Any], shard: int, today: date) -> None:
    """Move the watermark of one shard as far as it may go. Safe to run from several processes: a row lock orders them.

    today: the oldest business date that is not closed; postings dated more than LOOKBACK_DAYS before it are folded already.
    """
    async with connection.transaction():
        cursor = await connection.execute(SQL["lock_watermark"], {"shard": shard})
        row = await cursor.fetchone()
        if row is None:
            await connection.execute(SQL["add_watermark"], {"shard": shard})
            cursor = await connection.execute(SQL["lock_watermark"], {"shard": shard})
            row = await cursor.fetchone()
            assert row is not None
        await connection.execute(
            SQL["fold_postings"],
            {"shard": shard, "folded_to": row[0], "since": today - timedelta(days=LOOKBACK_DAYS)},
        )


async def fold_all(connection: AsyncConnection[Any], shards: Iterable[int]) -> None:
    """Fold every shard once."""
    # A day that is closed late gets its fee postings late: they must still be looked for.
    cursor = await connection.execute(
        "SELECT least(current_date, min(business_date)) FROM business_day WHERE state < 2"
    )
    row = await cursor.fetchone()
    assert row is not None
    for shard in shards:
        await fold_shard(connection, shard, row[0])


async def keep_folding(connect: Connect, shards: Iterable[int], every_s: float) -> None:
    """Fold until cancelled. A failure is logged and the next round tries again: nothing is lost by folding late."""
    shards = tuple(shards)
    while True:
        try:
            async with connect() as connection:
                await fold_all(connection, shards)
        except psycopg.Error as error:
            log.warning("folding postponed", error=type(error).__name__)
        await asyncio.sleep(every_s)
