"""A small ledger for tests of the book: terminals, holders and a day, straight in the tables, and requests to settle."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from itertools import count
from typing import Any

from psycopg import AsyncConnection

from switch.domain.decisions import Outcome
from switch.domain.identifiers import CardNumber, luhn_digit
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, CardRequest, Purchase
from switch.ledger.book import ShardBook
from switch.ledger.items import FINANCIAL, Item, Key
from switch.messages.answers import DE39
from switch.storage.pool import connect
from tests.helpers.days import make_days

OPENING_FEN = 1_000
_stans = count(1)


def card_of(holder_id: int) -> CardNumber:
    """The card of a holder of this ledger."""
    payload = f"31335001{holder_id:010d}"
    return CardNumber(payload + luhn_digit(payload))


async def seed(pg: AsyncConnection[Any], *, holders: int = 5, terminals: int = 3) -> date:
    """One merchant, its terminals with batch 1 open, and holders 1.. in shard 0 with 10 yuan each; returns the open day."""
    await make_days(pg, 1)
    cursor = await pg.execute(
        "SELECT business_date FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at"
    )
    row = await cursor.fetchone()
    assert row is not None
    await pg.execute("INSERT INTO institution VALUES ('99993350', 'own', 'ISSUER')")
    await pg.execute(
        "INSERT INTO merchant (merchant_id, name, category, acquirer_id) VALUES ('993350054110001', 'shop', '5411', '99993350')"
    )
    for number in range(1, terminals + 1):
        await pg.execute(
            "INSERT INTO terminal (terminal_id, merchant_no, mac_algorithm) VALUES (%s, 1, 5)",
            (f"{number:08d}",),
        )
        await pg.execute("INSERT INTO terminal_session VALUES (%s, 1, 1, 1, now())", (number,))
        await pg.execute(
            "INSERT INTO terminal_batch (terminal_no, batch_no, opened_on) VALUES (%s, 1, %s)",
            (number, row[0]),
        )
    for holder in range(1, holders + 1):
        pan = card_of(holder).reveal()
        await pg.execute("INSERT INTO card_route VALUES (%s, 0, %s, %s)", (pan, holder, holder))
        await pg.execute(
            "INSERT INTO card VALUES (0, %s, %s, %s, 1, '2024-01-01', '2034-01-01', NULL)",
            (pan, holder, holder),
        )
        await pg.execute(
            "INSERT INTO account (shard, account_id, holder_id, kind, balance_fen) VALUES (0, %s, %s, 10, %s)",
            (holder * 100 + 10, holder, OPENING_FEN),
        )
    day: date = row[0]
    return day


@asynccontextmanager
async def a_book(url: str, **options: Any) -> AsyncIterator[ShardBook]:
    """The book of shard 0; its connection is closed at the end."""
    book = ShardBook(0, lambda: connect(url), DE39, **options)
    try:
        yield book
    finally:
        book.stop()
        await book.run()


def item(
    request: CardRequest,
    *,
    since: date | None,
    holder_id: int = 1,
    terminal_no: int = 1,
    batch_no: int = 1,
    stan: int = 0,
    rclass: int = FINANCIAL,
    content: bytes = b"content",
    generation: int = 1,
    done: Callable[[Item, Outcome | None], None] = lambda _item, _outcome: None,
) -> Item:
    """A request as the reception would queue it. stan 0: the next one never used."""
    key = Key(terminal_no, batch_no, stan or next(_stans), rclass)
    return Item(key, 1, content.ljust(32, b"."), generation, since, request, holder_id, None, False, done)


def purchase(amount_fen: int = 100, *, holder_id: int = 1) -> Purchase:
    """A purchase by a holder's card."""
    return Purchase(card_of(holder_id), AccountKind.ONLINE, Fen(amount_fen), None, "051")
