"""What the book would have refused, written past it: the audit names it, and is silent about what the book itself approved."""

from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, Completion, Original, PreAuthorisation
from switch.operations.audit import CHECKS
from tests.helpers.books import a_book, card_of, item, seed

pytestmark = pytest.mark.server
Pg = AsyncConnection[Any]


async def named(pg: Pg, name: str) -> list[str]:
    """What one check finds: the keys."""
    check = next(check for check in CHECKS if check.name == name)
    days = {"first": "2000-01-01", "last": "9999-12-31"} if check.by_day else {}
    query = check.query if check.by_day else check.query.replace("%%", "%")
    cursor = await pg.execute(query.encode(), days or None)
    return [row[1] for row in await cursor.fetchall()]


async def entry(pg: Pg, stan: int) -> str:
    cursor = await pg.execute("SELECT entry_no FROM journal WHERE stan = %s AND class = 0", (stan,))
    row = await cursor.fetchone()
    assert row is not None
    return f"entry {row[0]} in shard 0"


async def past_the_book(pg: Pg, *statements: str) -> None:
    """Write as nobody may: no trigger fires."""
    await pg.execute("SET session_replication_role = replica")
    for statement in statements:
        await pg.execute(statement.encode())
    await pg.execute("RESET session_replication_role")


async def test_a_completion_after_the_last_day_is_named(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        held = item(PreAuthorisation(card_of(1), AccountKind.ONLINE, Fen(400), None, "051"), since=day)
        (opened,) = await book.settle([held])
        of = Original(1, held.key.stan, day.month, day.day)
        taking = Completion(card_of(1), AccountKind.ONLINE, Fen(400), of, opened.auth_code, "051", False)
        assert (await book.settle([item(taking, since=day)]))[0].answer == "00"
    assert await named(pg, "holds") == []
    await past_the_book(
        pg,
        "UPDATE journal SET decided_at = h.expires_at - interval '1 microsecond' FROM hold h WHERE kind = 8",
    )
    assert await named(pg, "holds") == []
    await past_the_book(pg, "UPDATE journal SET decided_at = h.expires_at FROM hold h WHERE kind = 8")
    assert await named(pg, "holds") == [await entry(pg, held.key.stan)]
