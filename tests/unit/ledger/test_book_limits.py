"""Limits on a real database: exact under repeats, voids, refunds and reversals, and for two books at once."""

import asyncio
from datetime import date, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.domain.decisions import Outcome
from switch.domain.errors import InputRefused
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, Kind, Original, PreAuthorisation, Refund, Reversal, Void
from switch.ledger.book import ShardBook
from switch.ledger.items import REVERSAL, Item
from switch.ledger.limit_desk import end_limit, open_date, set_limit, stored_limits
from switch.ledger.limits import LimitRule
from tests.helpers.books import OPENING_FEN, a_book, card_of, item, purchase, seed

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
ONLINE = AccountKind.ONLINE


async def limited(pg: Pg, **limits: int) -> date:
    """A ledger whose online accounts have had a limit since before today."""
    day = await seed(pg)
    names = ("transaction_fen", "day_fen", "month_fen", "day_count", "month_count")
    rule = LimitRule(10, None, *(limits.get(name) for name in names), day + timedelta(days=1), None)
    number, marked = await set_limit(pg, rule, range(1), actor="ann", reason="as agreed")
    assert marked == 5
    await pg.execute("UPDATE limit_rule SET valid_from = valid_from - 1 WHERE rule_no = %s", (number,))
    await pg.execute("UPDATE account SET limited_from = limited_from - 1")
    return day


async def window(pg: Pg) -> tuple[Any, ...] | None:
    cursor = await pg.execute(
        "SELECT day_fen, day_count, month_fen, month_count FROM limit_window WHERE account_id = 110"
    )
    return await cursor.fetchone()


async def codes(book: ShardBook, *items: Item) -> list[str]:
    return [outcome.answer for outcome in await book.settle(items)]


def named(of: Item, day: date) -> Original:
    return Original(1, of.key.stan, day.month, day.day)


async def test_amounts_then_counts_are_refused_in_one_batch_and_over_several(
    pg: Pg, postgres_url: str
) -> None:
    day = await limited(pg, transaction_fen=300, day_fen=500, day_count=3)
    async with a_book(postgres_url) as book:
        first = item(purchase(300), since=day)
        assert await codes(book, item(purchase(301), since=day), first, item(purchase(201), since=day)) == [
            "61",
            "00",
            "61",
        ]
        assert (
            await codes(book, first, item(purchase(1), since=day), item(purchase(1), since=day)) == ["00"] * 3
        )
        assert await codes(book, item(purchase(1), since=day)) == ["65"]
        assert await codes(book, item(purchase(199), since=day)) == ["61"]
    assert await window(pg) == (302, 3, 302, 3)


async def test_a_reversal_and_a_void_give_back_and_a_refund_does_not(pg: Pg, postgres_url: str) -> None:
    day = await limited(pg, day_fen=500)
    async with a_book(postgres_url) as book:
        bought = [item(purchase(100), since=day) for _ in range(3)]
        outcomes = await book.settle(bought)
        reversal = Reversal(
            card_of(1), ONLINE, Fen(100), named(bought[0], day), Kind.PURCHASE, "98", "051", "000000"
        )
        void = Void(
            card_of(1), ONLINE, Fen(100), named(bought[1], day), outcomes[1].rrn, outcomes[1].auth_code, "051"
        )
        refund = Refund(card_of(1), ONLINE, Fen(100), named(bought[2], day), outcomes[2].rrn, "051")
        undone = item(reversal, since=day, stan=bought[0].key.stan, rclass=REVERSAL)
        voided = item(void, since=day)
        assert await codes(book, undone, undone, voided, item(refund, since=day)) == ["00"] * 4
        assert await window(pg) == (100, 1, 100, 1)
        again = Reversal(card_of(1), ONLINE, Fen(100), named(voided, day), Kind.VOID, "98", "051", "200000")
        assert await codes(book, item(again, since=day, stan=voided.key.stan, rclass=REVERSAL)) == ["00"]
        assert await window(pg) == (200, 2, 200, 2)
        assert await codes(book, item(purchase(301), since=day), item(purchase(300), since=day)) == [
            "61",
            "00",
        ]


async def test_a_pre_authorisation_counts_when_it_freezes_and_its_completion_does_not(
    pg: Pg, postgres_url: str
) -> None:
    day = await limited(pg, day_fen=500, day_count=2)
    async with a_book(postgres_url) as book:
        held = item(PreAuthorisation(card_of(1), ONLINE, Fen(400), None, "051"), since=day)
        over = item(PreAuthorisation(card_of(1), ONLINE, Fen(101), None, "051"), since=day)
        assert await codes(book, held, over) == ["00", "61"]
        reversal = Reversal(
            card_of(1), ONLINE, Fen(400), named(held, day), Kind.PRE_AUTHORISATION, "98", "051", "031000"
        )
        assert await codes(book, item(reversal, since=day, stan=held.key.stan, rclass=REVERSAL)) == ["00"]
        assert await window(pg) == (0, 0, 0, 0)
        assert await codes(book, item(purchase(500), since=day)) == ["00"]


async def test_two_books_at_once_never_pass_a_limit(pg: Pg, postgres_url: str) -> None:
    day = await limited(pg, day_fen=500)
    answers: list[str] = []

    def noted(_item: Item, outcome: Outcome | None) -> None:
        answers.append(outcome.answer if outcome else "96")

    async with a_book(postgres_url, batch_max=3) as one, a_book(postgres_url, batch_max=2) as two:
        for number in range(40):
            assert (one, two)[number % 2].submit(item(purchase(50), since=day, done=noted))
        one.stop()
        two.stop()
        await asyncio.gather(one.run(), two.run())
    assert sorted(answers) == ["00"] * 10 + ["61"] * 30
    assert await window(pg) == (500, 10, 500, 10)


async def test_yesterdays_window_is_over_and_its_month_is_not(pg: Pg, postgres_url: str) -> None:
    day = await limited(pg, day_fen=500)
    yesterday = day - timedelta(days=1)
    same_month = yesterday.month == day.month
    await pg.execute("INSERT INTO limit_window VALUES (0, 110, %s, 500, 9, 500, 9)", (yesterday,))
    async with a_book(postgres_url) as book:
        assert await codes(book, item(purchase(200), since=day)) == ["00"]
    assert await window(pg) == ((200, 1, 700, 10) if same_month else (200, 1, 200, 1))


async def test_a_limit_of_a_later_day_binds_nobody_yet_and_an_account_without_one_has_no_window(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        assert await codes(book, item(purchase(1), since=day)) == ["00"]
        rule = LimitRule(10, None, 1, None, None, None, None, day + timedelta(days=1), None)
        await set_limit(pg, rule, range(1), actor="ann", reason="as agreed")
        assert await codes(book, item(purchase(OPENING_FEN - 1), since=day)) == ["00"]
    assert await window(pg) is None


async def test_setting_a_limit_twice_changes_nothing_and_a_bad_one_is_refused(pg: Pg) -> None:
    day = await seed(pg)
    tomorrow = day + timedelta(days=1)
    rule = LimitRule(10, "01", 100, None, None, None, None, tomorrow, None)
    assert await set_limit(pg, rule, range(1), actor="ann", reason="as agreed") == (1, 5)
    assert await set_limit(pg, rule, range(1), actor="ann", reason="as agreed") == (1, 0)
    general = rule._replace(product=None)
    assert await set_limit(pg, general, range(1), actor="ann", reason="as agreed") == (2, 0)
    for bad, words in (
        (rule._replace(product="02", valid_from=day), "after the open business day"),
        (rule._replace(transaction_fen=200), "another one"),
        (rule._replace(product="02", transaction_fen=None), "limit something"),
    ):
        with pytest.raises(InputRefused, match=words):
            await set_limit(pg, bad, range(1), actor="ann", reason="as agreed")
    with pytest.raises(InputRefused, match="reason"):
        await set_limit(pg, general._replace(product="03"), range(1), actor="ann", reason=" ")
    await end_limit(pg, 1, tomorrow, actor="ann", reason="too narrow")
    assert (await stored_limits(pg))[0].rule.valid_to == tomorrow
    for number, last, words in (
        (9, tomorrow, "no such"),
        (2, day - timedelta(days=1), "can end with"),
        (1, tomorrow + timedelta(days=9), "ends before"),
    ):
        with pytest.raises(InputRefused, match=words):
            await end_limit(pg, number, last, actor="ann", reason="so")
    assert await open_date(pg) == day
