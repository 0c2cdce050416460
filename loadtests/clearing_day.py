"""A city and a business day of any size for close_bench.py, put into a database by a few set-based statements (clearing_day.sql)."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from loadtests.town import OPENING_FEN, pan_of
from switch.ledger.fold import fold_all
from switch.ledger.serials import BLOCK
from switch.purse.shadow import fold_purses
from switch.purse.trips import fold_trips
from switch.storage.sql import load

SQL: Final = load("loadtests", "clearing_day.sql")
SHARDS: Final = (0, 1)
ONLINE_OF_100: Final = 55
UPLOAD: Final = 50  # records of one
MERCHANTS: Final = 400

Connection = AsyncConnection[Any]


class Size(NamedTuple):
    """How large a day is. online and offline: transactions; the rows that come with them are on top."""

    online: int
    offline: int
    terminals: int
    cards: int

    @classmethod
    def of(cls, transactions: int) -> "Size":
        """A day of so many transactions, and a city to match."""
        online = transactions * ONLINE_OF_100 // 100
        offline = (transactions - online) // UPLOAD * UPLOAD
        terminals = min(4_000, max(100, transactions // 100)) // 4 * 4
        return cls(online, offline, terminals, min(500_000, max(1_000, transactions // 20)))


async def build_city(connection: Connection, size: Size, day: date, merchants: int = MERCHANTS) -> None:
    """Institutions, merchants with rules, terminals and cards with money. In a migrated, empty database that has the day."""
    async with connection.transaction():
        values = {"merchants": merchants, "terminals": size.terminals}
        for step in ("institutions", "issuers", "merchants", "fee_rules", "terminals", "psams"):
            await connection.execute(SQL[step].encode(), values)
        async with (
            connection.cursor() as cursor,
            cursor.copy("COPY card_route (pan, shard, holder_id, card_no) FROM STDIN") as rows,
        ):
            for number in range(size.cards):
                await rows.write_row((pan_of(number), number % len(SHARDS), number + 1, number + 1))
        opening = {"opening_fen": OPENING_FEN, "day": day, "first": await _numbers(connection, size.cards)}
        for step in ("cards", "holders", "accounts", "open_accounts"):
            await connection.execute(SQL[step].encode(), opening)
    await connection.execute("ANALYZE")


async def fill_day(
    connection: Connection, day: date, size: Size, begins_at: datetime, span: timedelta
) -> None:
    """The transactions of a day in the city that is there, of any registry whose terminals number a multiple of four.

    span: how far the last one lies behind begins_at; inside the day, and in the past.
    """
    groups = size.offline // UPLOAD
    async with connection.transaction():
        await connection.execute("SET LOCAL work_mem = '256MB'")
        cards = await _numbers(connection, size.cards)
        first_online = await _numbers(connection, 2 * size.online)
        first_offline = await _numbers(connection, groups * (UPLOAD + 1))
        values: dict[str, Any] = {
            "day": day,
            "terminals": size.terminals,
            "cards": size.cards,
            "online": size.online,
            "offline": size.offline,
            "groups": groups,
            "begin": begins_at,
            "span": span,
        }
        for steps, first in (
            (("institutions", "issuers", "open_purses", "list_cards", "list_terminals"), cards),
            (("online", "host_legs", "online_postings", "original_uses", "spend"), first_online),
            (
                ("records", "uploads", "upload_serials", "used_counters", "used_serials", "waiting"),
                first_offline,
            ),
        ):
            for step in steps:
                await connection.execute(SQL[step].encode(), values | {"first": first})
                await connection.execute(_FRESH.get(step, "SELECT 1").format(f"{day:%Y%m%d}").encode())


_FRESH: Final = {
    "list_cards": "ANALYZE listed_card",
    "list_terminals": "ANALYZE listed_terminal",
    "online": "ANALYZE journal_{}",
    "host_legs": "ANALYZE host_leg",
    "records": "ANALYZE purse_record_{}",
}


async def settle_down(connection: Connection, day: date) -> None:
    """What the service and the server do all day long beside the traffic: folds, and the first look at fresh rows."""
    while True:
        await fold_all(connection, SHARDS)
        await fold_trips(connection)
        if not await fold_purses(connection):
            break
        await asyncio.sleep(0)
    for table in ("journal", "posting", "purse_record"):
        await connection.execute(f"VACUUM (ANALYZE) {table}_{day:%Y%m%d}".encode())
    await connection.execute("CHECKPOINT")


async def _numbers(connection: Connection, count: int) -> int:
    """The first of so many entry numbers that follow each other and nobody else gets."""
    row = await (
        await connection.execute(
            "SELECT setval('entry_no_block', nextval('entry_no_block') + %s)", (-(-count // BLOCK),)
        )
    ).fetchone()
    assert row is not None
    return int((row[0] - -(-count // BLOCK) - 1) * BLOCK + 1)
