"""Holds on a real database: expiry by its clock, repeats, two books at once, and the constraints behind them."""

import asyncio
from datetime import date
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.domain.decisions import Outcome
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    Balance,
    Completion,
    CompletionVoid,
    Kind,
    Original,
    PreAuthorisation,
    PreAuthorisationVoid,
    Reversal,
)
from switch.ledger.batch import lock_and_read
from switch.ledger.book import ShardBook
from switch.ledger.items import REVERSAL, Item
from switch.ledger.medical import by_table
from switch.ledger.sweeping import sweep_shard
from switch.storage.pool import connect
from tests.helpers.books import OPENING_FEN, a_book, card_of, item, purchase, seed

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]


def pre_authorisation(fen: int, *, holder_id: int = 1) -> PreAuthorisation:
    return PreAuthorisation(card_of(holder_id), AccountKind.ONLINE, Fen(fen), None, "051")


def completion(of: Item, code: str, fen: int, day: date) -> Completion:
    named = Original(1, of.key.stan, day.month, day.day)
    return Completion(card_of(1), AccountKind.ONLINE, Fen(fen), named, code, "051", advice=False)


async def settle(book: ShardBook, *items: Item) -> list[Outcome]:
    return list(await book.settle(items))


async def account(pg: Pg) -> tuple[int, int, bool]:
    """Balance, held, and whether a hold may fall due."""
    cursor = await pg.execute(
        "SELECT balance_fen, held_fen, holds_due IS NOT NULL FROM account WHERE account_id = 110"
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1], row[2]


async def holds(pg: Pg) -> list[tuple[Any, ...]]:
    cursor = await pg.execute("SELECT amount_fen, frozen_fen, ended_by FROM hold ORDER BY amount_fen")
    return await cursor.fetchall()


async def let_expire(pg: Pg) -> None:
    """All holds of the account fell due a moment ago."""
    await pg.execute("UPDATE hold SET expires_at = clock_timestamp()")
    await pg.execute("UPDATE account SET holds_due = clock_timestamp() WHERE held_fen > 0")


async def test_a_hold_its_completion_and_the_repeats_of_both_in_one_batch_count_once(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    held = item(pre_authorisation(400), since=day)
    async with a_book(postgres_url) as book:
        (opened,) = await settle(book, held)
        taken = item(completion(held, opened.auth_code, 460, day), since=day)
        outcomes = await settle(book, held, taken, held, taken)
        assert [one.answer for one in outcomes] == ["00"] * 4
        assert outcomes[0] == outcomes[2] == opened
        assert outcomes[1] == outcomes[3]
        assert outcomes[1].auth_code == opened.auth_code
        assert (opened.clearing_date, outcomes[1].clearing_date) == (None, day)
        again = item(completion(held, opened.auth_code, 460, day), since=day)
        assert (await settle(book, again))[0].answer == "12"
    assert await account(pg) == (OPENING_FEN - 460, 0, False)


async def test_pre_authorisation_and_completion_that_come_together_are_decided_in_order(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        held = item(pre_authorisation(400), since=day)
        (opened,) = await settle(book, held)
        voided = item(
            PreAuthorisationVoid(
                card_of(1),
                AccountKind.ONLINE,
                Fen(400),
                Original(1, held.key.stan, day.month, day.day),
                opened.auth_code,
                "051",
            ),
            since=day,
        )
        second = item(pre_authorisation(900), since=day)
        bought = item(purchase(101), since=day)
        outcomes = await settle(
            book, second, voided, second._replace(key=second.key._replace(stan=77_777)), bought
        )
        assert [one.answer for one in outcomes] == ["51", "00", "00", "51"]
    assert await account(pg) == (OPENING_FEN, 900, True)


async def test_an_expired_hold_is_free_without_any_job_and_a_completion_of_it_is_25(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        held = item(pre_authorisation(900), since=day)
        (opened,) = await settle(book, held)
        assert (await settle(book, item(purchase(101), since=day)))[0].answer == "51"
        await let_expire(pg)
        asked = item(Balance(card_of(1), AccountKind.ONLINE, None, "051"), since=day)
        late = item(completion(held, opened.auth_code, 900, day), since=day)
        outcomes = await settle(book, late, item(purchase(1_000), since=day), asked)
        assert [one.answer for one in outcomes] == ["25", "00", "00"]
        assert [figure.amount_fen for figure in outcomes[2].balances] == [0, 0]
    assert await account(pg) == (0, 0, False)
    assert await holds(pg) == [(900, 0, 0)]


@pytest.mark.parametrize("expiring", ["before the void", "after it", "after it and swept"])
async def test_a_completion_whose_void_is_reversed_after_the_last_day_counts_again(
    pg: Pg, postgres_url: str, expiring: str
) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        held = item(pre_authorisation(400), since=day)
        (opened,) = await settle(book, held)
        taken = item(completion(held, opened.auth_code, 300, day), since=day)
        (done,) = await settle(book, taken)
        if expiring == "before the void":
            await let_expire(pg)
        named = Original(1, taken.key.stan, day.month, day.day)
        request = CompletionVoid(
            card_of(1), AccountKind.ONLINE, Fen(300), named, done.rrn, done.auth_code, "051"
        )
        void = item(request, since=day)
        assert (await settle(book, void))[0].answer == "00"
        if expiring != "before the void":
            await let_expire(pg)
        if expiring == "after it and swept":
            assert await sweep_shard(pg, 0) == 1
        named = Original(1, void.key.stan, day.month, day.day)
        back = item(
            Reversal(
                card_of(1), AccountKind.ONLINE, Fen(300), named, Kind.COMPLETION_VOID, "98", "051", "200010"
            ),
            since=day,
            stan=void.key.stan,
            rclass=REVERSAL,
        )
        outcomes = await settle(book, back, back)
        assert [one.answer for one in outcomes] == ["00", "00"]
        assert (await settle(book, back))[0] == outcomes[0]
    assert await account(pg) == (OPENING_FEN - 300, 0, False)
    cursor = await pg.execute("SELECT ended_by = completed_by, frozen_fen FROM hold")
    assert await cursor.fetchall() == [(True, 0)]


async def test_a_due_instant_that_belongs_to_no_open_hold_is_forgotten_and_the_purchase_is_booked(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    await pg.execute("UPDATE account SET holds_due = clock_timestamp() WHERE account_id = 110")
    async with a_book(postgres_url) as book:
        assert (await settle(book, item(purchase(300), since=day)))[0].answer == "00"
    assert await account(pg) == (OPENING_FEN - 300, 0, False)


async def test_the_sweep_releases_what_nobody_asks_for_and_leaves_the_others(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        await settle(book, item(pre_authorisation(300), since=day), item(pre_authorisation(200), since=day))
        assert await sweep_shard(pg, 0) == 0
        await pg.execute("UPDATE hold SET expires_at = clock_timestamp() WHERE amount_fen = 300")
        assert await sweep_shard(pg, 0) == 1
        assert await account(pg) == (OPENING_FEN, 200, True)
        assert await holds(pg) == [(200, 200, None), (300, 0, 0)]
        await let_expire(pg)
        assert await sweep_shard(pg, 0) == 1
        assert await sweep_shard(pg, 0) == 0
    assert await account(pg) == (OPENING_FEN, 0, False)


async def test_sweep_and_book_that_meet_release_a_hold_once(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        await settle(book, item(pre_authorisation(500), since=day), item(pre_authorisation(400), since=day))
        await pg.execute("UPDATE hold SET expires_at = clock_timestamp() WHERE amount_fen = 500")
        await pg.execute("UPDATE account SET holds_due = clock_timestamp() WHERE held_fen > 0")
        requests = [book.settle([item(purchase(1), since=day)]) for _ in range(1)]
        await asyncio.gather(sweep_shard(pg, 0), *requests)
    assert await account(pg) == (OPENING_FEN - 1, 400, True)


async def test_sweep_and_book_that_meet_at_the_second_of_many_accounts_release_a_hold_once(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)

    def held(holder_id: int, amount_fen: int) -> Item:
        return item(pre_authorisation(amount_fen, holder_id=holder_id), since=day, holder_id=holder_id)

    async with a_book(postgres_url) as book:
        await settle(book, held(1, 400), held(2, 400), held(2, 500))
        await pg.execute("UPDATE hold SET expires_at = clock_timestamp() WHERE amount_fen = 400")
        await pg.execute("UPDATE account SET holds_due = clock_timestamp() WHERE held_fen > 0")
        link = await book._linked()
        bought = item(purchase(1, holder_id=2), since=day, holder_id=2)
        batch = await lock_and_read(link, 0, [bought], no_pin_limit_fen=0, medical_policy=by_table)
        assert book._decide(batch, bought, batch.account_ids[0]).answer == "00"
        sweep = asyncio.create_task(sweep_shard(pg, 0))
        async with asyncio.timeout(60):
            while not await _waits_for_a_lock(postgres_url):
                await asyncio.sleep(0.01)
        await book._write_and_commit(link, batch)
        await sweep
    cursor = await pg.execute(
        "SELECT account_id, held_fen FROM account WHERE account_id IN (110, 210) ORDER BY 1"
    )
    assert await cursor.fetchall() == [(110, 0), (210, 500)]


async def _waits_for_a_lock(postgres_url: str) -> bool:
    async with await connect(postgres_url) as connection:
        cursor = await connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return await cursor.fetchone() is not None


async def test_two_books_never_freeze_or_complete_a_fen_twice(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    answers: list[str] = []

    def noted(_item: Item, outcome: Outcome | None) -> None:
        answers.append(outcome.answer if outcome else "96")

    async with a_book(postgres_url) as book:
        held = item(pre_authorisation(300), since=day)
        (opened,) = await settle(book, held)
    async with a_book(postgres_url, batch_max=3) as one, a_book(postgres_url, batch_max=2) as two:
        for number in range(40):
            request: Any = (
                pre_authorisation(100) if number % 4 else completion(held, opened.auth_code, 300, day)
            )
            assert (one, two)[number % 2].submit(item(request, since=day, done=noted))
        one.stop()
        two.stop()
        await asyncio.gather(one.run(), two.run())
    assert sorted(answers) == ["00"] * 8 + ["12"] * 9 + ["51"] * 23
    assert await account(pg) == (OPENING_FEN - 300, 700, True)


async def test_a_reversal_before_its_pre_authorisation_leaves_nothing_frozen(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    named = Original(1, 4_242, day.month, day.day)
    reversal = Reversal(
        card_of(1), AccountKind.ONLINE, Fen(400), named, Kind.PRE_AUTHORISATION, "98", "051", "031000"
    )
    async with a_book(postgres_url) as book:
        first = item(reversal, since=day, stan=4_242, rclass=REVERSAL)
        late = item(pre_authorisation(400), since=day, stan=4_242)
        assert [one.answer for one in await settle(book, first, late, first)] == ["25", "22", "25"]
    assert await account(pg) == (OPENING_FEN, 0, False)
    assert await holds(pg) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE account SET held_fen = balance_fen + 1, holds_due = now()",
        "UPDATE account SET held_fen = -1, holds_due = now()",
        "UPDATE account SET held_fen = 1",
        "UPDATE account SET balance_fen = 399 WHERE held_fen = 400",
        "UPDATE hold SET frozen_fen = 401",
        "UPDATE hold SET frozen_fen = -1",
        "UPDATE hold SET ended_by = 0",
    ],
)
async def test_the_database_itself_refuses_what_no_rule_would_write(
    pg: Pg, postgres_url: str, statement: str
) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        await settle(book, item(pre_authorisation(400), since=day))
    with pytest.raises(psycopg.errors.CheckViolation):
        await pg.execute(statement.encode())
