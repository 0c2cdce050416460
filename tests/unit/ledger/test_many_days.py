"""A ledger that has run for long: what a batch asks looks into the days that it is about, however many are kept."""

import re
from datetime import date, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.ledger import completed_holds
from switch.ledger.batch_messages import SQL as MESSAGE_SQL
from switch.ledger.book import SQL
from switch.ledger.days import ensure_days, open_day
from switch.storage.pipeline import positional
from switch.storage.pool import plan_once

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
KEPT_DAYS = 8
AHEAD_DAYS = 3

ASKED = {
    "find_keys": SQL["find_keys"],
    "find_originals": SQL["find_originals"],
    "read_completed_holds": completed_holds.SQL["read_completed_holds"],
    "find_messages": MESSAGE_SQL["find_messages"],
}


@pytest.mark.parametrize("name", ASKED)
async def test_days_before_the_oldest_that_is_asked_for_are_not_even_opened(pg: Pg, name: str) -> None:
    await ensure_days(pg, AHEAD_DAYS)
    today = await open_day(pg)
    assert today is not None
    for back in range(1, KEPT_DAYS):
        await pg.execute("SELECT make_day_partition('journal', %s)", (today.day - timedelta(days=back),))
    await plan_once(pg)
    text, names = positional(ASKED[name])
    await pg.execute(b"PREPARE asked AS " + text)
    values = ", ".join(_literal(one, today.day) for one in names)

    cursor = await pg.execute(f"EXPLAIN EXECUTE asked ({values})".encode())
    plan = "\n".join(row[0] for row in await cursor.fetchall())

    opened = {word for word in plan.split() if re.fullmatch(r"journal_\d{8}", word)}
    assert 1 <= len(opened) <= 1 + AHEAD_DAYS, plan


def _literal(name: str, day: date) -> str:
    if name in ("oldest", "newest"):
        return f"'{day}'"
    if name == "keys":
        return f"ARRAY[(1, 1, 1, '{day}')::key_line]"
    if name in ("sinces", "dates"):
        return f"ARRAY['{day}'::date]"
    return "0" if name == "shard" else "ARRAY[1]"
