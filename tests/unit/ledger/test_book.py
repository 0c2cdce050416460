"""The book on a real database: batches, repeats, culprits."""

import asyncio
import gc
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.domain.calendar import SHANGHAI
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, Kind, Original, Refund, Refused, Reversal, Void
from switch.ledger.days import cut_over, open_day
from switch.ledger.items import REVERSAL, Item
from tests.helpers.books import OPENING_FEN, a_book, card_of, item, purchase, seed
from tests.helpers.days import make_days

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]


async def balance_of(pg: Pg, holder_id: int = 1) -> int:
    cursor = await pg.execute("SELECT balance_fen FROM account WHERE holder_id = %s", (holder_id,))
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def rows_of(pg: Pg, table: str) -> int:
    cursor = await pg.execute(f"SELECT count(*) FROM {table}")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def test_many_requests_for_one_account_share_a_batch_and_see_each_other(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        outcomes = await book.settle([item(purchase(300), since=day) for _ in range(5)])
    assert [outcome.answer for outcome in outcomes] == ["00", "00", "00", "51", "51"]
    assert await balance_of(pg) == OPENING_FEN - 900
    assert (await rows_of(pg, "journal"), await rows_of(pg, "posting")) == (5, 3)


async def test_what_came_while_a_batch_was_told_shares_the_next_one(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    sizes: list[int] = []
    over = asyncio.Event()
    async with a_book(postgres_url, on_batch=lambda size, _s: sizes.append(size)) as book:
        third = item(purchase(10), since=day, done=lambda _item, _outcome: over.set())
        soon = asyncio.get_running_loop().call_soon  # as a frame that the loop has not read yet
        first = item(purchase(10), since=day, done=lambda _item, _outcome: soon(book.submit, third))
        running = asyncio.create_task(book.run())
        book.submit(first)
        while book.depth:
            await asyncio.sleep(0)
        book.submit(item(purchase(10), since=day))
        await over.wait()
        book.stop()
        await running
    assert sizes == [1, 2]


async def test_a_repeat_in_the_same_batch_or_a_later_one_gets_the_stored_answer(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    one, poor = item(purchase(300), since=day), item(purchase(5_000), since=day)
    async with a_book(postgres_url) as book:
        first = await book.settle([one, poor, one, poor])
        second = await book.settle([poor, one])
    assert (first[0], first[1]) == (first[2], first[3]) == (second[1], second[0])
    assert [first[0].answer, first[1].answer] == ["00", "51"]
    assert await balance_of(pg) == OPENING_FEN - 300


async def test_the_same_key_with_other_content_is_94_and_the_answer_of_the_key_stays(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    one = item(purchase(300), since=day)
    other = one._replace(digest=b"o" * 32)
    async with a_book(postgres_url) as book:
        outcomes = await book.settle([one, other])
        again = await book.settle([other, one])
    assert [outcome.answer for outcome in outcomes] == ["00", "94"]
    assert [again[0].answer, again[1]] == ["94", outcomes[0]]


async def test_a_decline_in_a_batch_that_was_never_opened_is_told_again(pg: Pg, postgres_url: str) -> None:
    await seed(pg)
    stray = item(purchase(), since=None, batch_no=77)
    async with a_book(postgres_url) as book:
        first = await book.settle([stray])
        second = await book.settle([stray])
    assert first[0].answer == "77"
    assert second == first


async def test_one_bad_request_is_alone_with_its_96(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    answers: list[str | None] = []
    bad = item(purchase(holder_id=2), since=day, holder_id=2)
    # The same key already stands in the journal, but dated so that the repeat look-up cannot see it: only the unique key can.
    await pg.execute(
        "INSERT INTO journal (shard, business_date, terminal_no, batch_no, stan, class, entry_no, merchant_no, kind, amount_fen,"
        " answer, rrn, decided_at, digest) VALUES (0, %s, %s, 1, %s, 0, 1, 1, 1, 0, '51', '000000000000', now(), %s)",
        (day, bad.key.terminal_no, bad.key.stan, b"x" * 32),
    )
    bad = bad._replace(since=day + timedelta(days=365))
    requests = [item(purchase(10, holder_id=n), since=day, holder_id=n) for n in (1, 3, 4, 5)]
    requests.insert(2, bad)
    async with a_book(postgres_url) as book:
        for request in requests:
            assert book.submit(
                request._replace(
                    done=lambda _item, outcome: answers.append(outcome.answer if outcome else None)
                )
            )
    assert answers == ["00", "00", None, "00", "00"]


async def test_a_tombstone_refuses_the_late_original(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    late = item(purchase(300), since=day)
    undo = Reversal(
        card_of(1),
        AccountKind.ONLINE,
        Fen(300),
        Original(1, late.key.stan, day.month, day.day),
        Kind.PURCHASE,
        "98",
        "051",
        "001000",
    )
    first = item(undo, since=day, stan=late.key.stan, rclass=REVERSAL)
    async with a_book(postgres_url) as book:
        outcomes = await book.settle([first, late])
        again = await book.settle([late, first])
    assert [outcome.answer for outcome in outcomes] == ["25", "22"]
    assert [outcome.answer for outcome in again] == ["22", "25"]
    assert await balance_of(pg) == OPENING_FEN


def reversal_of(original: Item, amount_fen: int, day: date) -> Reversal:
    """Of a purchase with holder 1's card."""
    named = Original(1, original.key.stan, day.month, day.day)
    return Reversal(
        card_of(1), AccountKind.ONLINE, Fen(amount_fen), named, Kind.PURCHASE, "98", "051", "001000"
    )


async def test_the_reversal_of_a_malformed_original_is_over_whatever_its_amount(
    pg: Pg, postgres_url: str
) -> None:
    """What was refused for its form has no amount that could differ, and the terminal may sell nothing before it is told so."""
    day = await seed(pg)
    malformed = item(Refused(card_of(1), Fen(0), "30", "PIN is announced, none came"), since=day)
    undo = item(reversal_of(malformed, 1_403, day), since=day, stan=malformed.key.stan, rclass=REVERSAL)
    async with a_book(postgres_url) as book:
        outcomes = [*await book.settle([malformed]), *await book.settle([undo])]
    assert [outcome.answer for outcome in outcomes] == ["30", "00"]


async def test_a_malformed_reversal_does_not_stand_in_the_way_of_the_right_one(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    sold = item(purchase(300), since=day)
    how: dict[str, Any] = {"since": day, "stan": sold.key.stan, "rclass": REVERSAL}
    malformed = item(Refused(card_of(1), Fen(0), "30", "reason is none of the table"), **how)
    right = item(reversal_of(sold, 300, day), **how)
    late = item(purchase(1), since=day, content=b"another")
    unheard = item(malformed.request, since=day, stan=late.key.stan, rclass=REVERSAL)
    async with a_book(postgres_url) as book:
        outcomes = await book.settle([sold, malformed, malformed, right, unheard, late])
        after = await book.settle([malformed._replace(digest=b"x" * 32)])
    assert [outcome.answer for outcome in outcomes] == ["00", "30", "30", "00", "30", "00"]
    assert after[0].answer == "94", "the right one has been answered under this key"
    assert await balance_of(pg) == OPENING_FEN - 1


async def test_purchase_void_and_its_reversal_in_one_batch(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        bought = item(purchase(300), since=day)
        outcome = (await book.settle([bought]))[0]
        named = Original(1, bought.key.stan, day.month, day.day)
        void = item(
            Void(card_of(1), AccountKind.ONLINE, Fen(300), named, outcome.rrn, outcome.auth_code, "051"),
            since=day,
        )
        undo = Reversal(
            card_of(1),
            AccountKind.ONLINE,
            Fen(300),
            Original(1, void.key.stan, day.month, day.day),
            Kind.VOID,
            "98",
            "051",
            "201000",
        )
        outcomes = await book.settle([void, item(undo, since=day, stan=void.key.stan, rclass=REVERSAL)])
        once_more = item(void.request, since=day)
        again = await book.settle([once_more])
    assert [one.answer for one in (*outcomes, *again)] == ["00", "00", "00"]
    assert await balance_of(pg) == OPENING_FEN


async def test_an_original_is_found_when_its_business_day_is_two_ahead_of_the_calendar(
    pg: Pg, postgres_url: str
) -> None:
    """After 23:00 the open day is tomorrow's, and somebody ends that one early too: a terminal knows only the date on its clock."""
    await seed(pg)
    await make_days(pg, 4)
    today = datetime.now(SHANGHAI).date()
    while (opened := await open_day(pg)) is None or opened.day < today + timedelta(days=2):
        if opened is not None:
            await cut_over(pg, opened.day, lead_s=0)
    async with a_book(postgres_url) as book:
        bought = item(purchase(300), since=today)
        outcome = (await book.settle([bought]))[0]
        named = Original(1, bought.key.stan, today.month, today.day)
        void = Void(card_of(1), AccountKind.ONLINE, Fen(300), named, outcome.rrn, outcome.auth_code, "051")
        assert [one.answer for one in await book.settle([item(void, since=today)])] == ["00"]
    assert await balance_of(pg) == OPENING_FEN


async def test_two_books_on_one_account_never_spend_a_fen_twice(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    answers: list[str] = []
    async with a_book(postgres_url, batch_max=7) as one, a_book(postgres_url, batch_max=5) as two:
        for number in range(60):
            book = (one, two)[number % 2]
            request = item(
                purchase(100),
                since=day,
                done=lambda _item, outcome: answers.append(outcome.answer if outcome else "96"),
            )
            assert book.submit(request)
        one.stop()
        two.stop()
        await asyncio.gather(one.run(), two.run())
    assert sorted(answers) == ["00"] * 10 + ["51"] * 50
    assert await balance_of(pg) == 0


async def test_a_full_queue_refuses_and_a_stopped_book_finishes(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    answers: list[str] = []
    async with a_book(postgres_url, queue_max=2) as book:
        requests = [
            item(
                purchase(1),
                since=day,
                done=lambda _item, outcome: answers.append(outcome.answer if outcome else "96"),
            )
            for _ in range(3)
        ]
        assert [book.submit(request) for request in requests] == [True, True, False]
        book.stop()
        assert not book.submit(requests[2])
    assert answers == ["00", "00"]


async def test_keys_that_were_replaced_get_a0_and_leave_no_trace(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    await pg.execute("UPDATE terminal_session SET generation = 2, last_generation = 2 WHERE terminal_no = 1")
    async with a_book(postgres_url) as book:
        outcomes = await book.settle([item(purchase(), since=day)])
    assert outcomes[0].answer == "A0"
    assert await rows_of(pg, "journal") == 0


async def test_a_terminal_that_changed_hands_cannot_give_back_at_the_expense_of_its_new_merchant(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    bought = item(purchase(300), since=day)
    async with a_book(postgres_url) as book:
        outcome = (await book.settle([bought]))[0]
        named = Original(1, bought.key.stan, day.month, day.day)
        refund = Refund(card_of(1), AccountKind.ONLINE, Fen(300), named, outcome.rrn, "051")
        moved = item(refund, since=day)._replace(merchant_no=2)
        outcomes = [(await book.settle([one]))[0].answer for one in (moved, item(refund, since=day))]
    assert outcomes == ["25", "00"]
    assert await balance_of(pg) == OPENING_FEN


async def test_a_batch_leaves_nothing_behind_for_the_garbage_collector(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        await book.settle(
            [item(purchase(), stan=1, since=day)]
        )  # the connection is made, statements are prepared
        gc.collect()
        gc.disable()
        try:
            for stan in range(2, 12):
                await book.settle([item(purchase(1), stan=stan, since=day)])
            left = gc.collect()
        finally:
            gc.enable()
    assert left < 10  # fewer than one a batch
