"""The transaction that a case is about: found by its number or retrieval reference, with what a case must know of it."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.domain.errors import InputRefused
from switch.ledger.adjustments import Source
from switch.storage.sql import load

SQL: Final = load("switch.clearing.disputes")

Connection = AsyncConnection[Any]
_SOURCES: Final = (
    (Source.ENTRY, "find_entry"),
    (Source.RECORD, "find_record"),
    (Source.FOREIGN, "find_verdict"),
)


class Original(NamedTuple):
    """A transaction. original_*: what an adjustment names; item_*: the entry that stands in CM, None of what never did.

    account_kind, issuer_id, acquirer_id: as CM has them. amount_fen: of the whole. approved: False of an unknown end at a host.
    """

    source: Source
    shard: int
    original_entry: int
    original_date: date
    item_entry: int | None
    item_date: date | None
    merchant_no: int
    terminal_no: int
    account_kind: int
    amount_fen: int
    issuer_id: str
    acquirer_id: str
    approved: bool

    @property
    def cleared_on(self) -> date:
        """Where the days of most actions begin: the clearing date, or of what was not cleared the day it came."""
        return self.item_date or self.original_date


async def find_transaction(
    connection: Connection, day: date, own_id: str, *, entry_no: int = 0, rrn: str = ""
) -> Original:
    """A transaction of a business date, by number or reference. InputRefused when there is none that a case can be about."""
    found = await find_transactions(connection, day, own_id, [entry_no] if entry_no else [], rrn=rrn)
    if len(found) == 1:
        return next(iter(found.values()))
    raise InputRefused(
        "transaction: no purchase, completion or offline record of that number and date that moved or could move money"
    )


async def find_transactions(
    connection: Connection, day: date, own_id: str, entries: Sequence[int], *, rrn: str = ""
) -> dict[int, Original]:
    """Transactions of a business date by the numbers that were asked for, or the one with a reference."""
    values = {"day": day, "entries": list(entries), "rrn": rrn, "own": own_id}
    found: dict[int, Original] = {}
    for source, query in _SOURCES[: None if entries else 1]:
        cursor = await connection.execute(SQL[query], values)
        found |= {row[0]: Original(source, *row[1:]) for row in await cursor.fetchall()}
        if entries and len(found) == len(entries):
            break
    return found


async def find_load(connection: Connection, load_no: int, own_id: str) -> Original:
    """A load of a purse. InputRefused when there is none."""
    cursor = await connection.execute(SQL["find_load"], {"entry_no": load_no, "own": own_id})
    row = await cursor.fetchone()
    if row is None:
        raise InputRefused("load: no such load")
    return Original(Source.LOAD, *row)
