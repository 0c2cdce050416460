"""What the book would have refused, written past it: the audit names it, and is silent about what the book itself approved."""

import asyncio
from datetime import date
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, Completion, Kind, Original, PreAuthorisation, Reversal
from switch.ledger.card_desk import change_card, find_card
from switch.ledger.card_states import Move
from switch.ledger.items import REVERSAL
from switch.operations.audit import CHECKS
from tests.helpers.books import a_book, card_of, item, purchase, seed
from tests.unit.ledger.test_book_limits import limited

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


async def test_a_payment_during_a_loss_report_is_named_and_one_before_or_behind_it_is_not(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    place = await find_card(pg, card_of(1).reveal())

    async def move(what: Move) -> None:
        await change_card(pg, place, what, actor="a tester", reason="so it went")
        await asyncio.sleep(0.002)  # in force from the next whole millisecond

    bought = [item(purchase(10 + n), since=day) for n in range(5)]
    async with a_book(postgres_url) as book:

        async def buy(number: int) -> str:
            return (await book.settle([bought[number]]))[0].answer

        assert await buy(0) == "00"
        await move(Move.LOSE)
        assert await buy(1) == "41"
        await move(Move.LIFT)
        assert await buy(2) == "00"
        await move(Move.LOSE)
        await move(Move.CONFIRM)
        assert await buy(3) == "41"
    assert await named(pg, "losses_kept") == []
    await past_the_book(pg, "UPDATE journal SET answer = '00' WHERE answer = '41'")
    assert set(await named(pg, "losses_kept")) == {await entry(pg, bought[n].key.stan) for n in (1, 3)}


async def test_a_report_that_an_import_noted_counts_from_its_last_note(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    bought = [item(purchase(10 + n), since=day) for n in range(2)]
    async with a_book(postgres_url) as book:
        assert (await book.settle(bought[:1]))[0].answer == "00"
        # A lapsed report that a file confirms: the card shows the old instant, and was good in between.
        await past_the_book(
            pg,
            (
                "INSERT INTO registry_change (actor, subject, change)"
                " SELECT 'import', 'card ' || card_no, '{\"before\": null, \"after\": {\"state\": 3}}' FROM card_route WHERE holder_id = 1"
            ),
            "UPDATE card SET state = 3, lost_at = clock_timestamp() - interval '9 days' WHERE holder_id = 1",
        )
        assert (await book.settle(bought[1:]))[0].answer == "41"
    assert await named(pg, "losses_kept") == []
    await past_the_book(pg, "UPDATE journal SET answer = '00' WHERE answer = '41'")
    assert await named(pg, "losses_kept") == [await entry(pg, bought[1].key.stan)]


async def long_agreed(pg: Pg, **limits: int) -> date:
    """A ledger with a limit that was noted an hour ago."""
    day = await limited(pg, **limits)
    await past_the_book(pg, "UPDATE registry_change SET at = at - interval '1 hour'")
    return day


async def test_what_exceeds_a_transaction_or_day_limit_is_named_and_what_just_reaches_it_is_not(
    pg: Pg, postgres_url: str
) -> None:
    day = await long_agreed(pg, transaction_fen=300, day_fen=500, day_count=2)
    bought = [item(purchase(fen), since=day) for fen in (300, 200, 1)]
    async with a_book(postgres_url) as book:
        assert [one.answer for one in await book.settle(bought)] == ["00", "00", "61"]
    assert await named(pg, "limits_kept") == await named(pg, "day_limits_kept") == []
    for column, least in (("transaction_fen", 300), ("day_fen", 500), ("day_count", 2)):
        await past_the_book(pg, f"UPDATE limit_rule SET {column} = {least - 1}")
        found = (await named(pg, "limits_kept"), await named(pg, "day_limits_kept"))
        if column == "transaction_fen":
            assert found == ([await entry(pg, bought[0].key.stan)], [])
        else:
            assert found == ([], [f"account 110 in shard 0 on {day}"])
        await past_the_book(pg, f"UPDATE limit_rule SET {column} = {least}")


async def test_a_day_of_which_something_was_undone_and_a_rule_of_the_last_minute_say_nothing(
    pg: Pg, postgres_url: str
) -> None:
    day = await long_agreed(pg, transaction_fen=300, day_fen=500)
    first, second = (item(purchase(300), since=day) for _ in range(2))
    back = item(
        Reversal(
            card_of(1),
            AccountKind.ONLINE,
            Fen(300),
            Original(1, first.key.stan, day.month, day.day),
            Kind.PURCHASE,
            "98",
            "051",
            "000000",
        ),
        since=day,
        stan=first.key.stan,
        rclass=REVERSAL,
    )
    async with a_book(postgres_url) as book:
        assert [one.answer for one in await book.settle([first, back, second])] == ["00"] * 3
    assert await named(pg, "limits_kept") == await named(pg, "day_limits_kept") == []
    await past_the_book(
        pg, "UPDATE limit_rule SET transaction_fen = 1", "UPDATE registry_change SET at = clock_timestamp()"
    )
    assert await named(pg, "limits_kept") == []


async def test_the_rule_of_a_class_goes_before_the_general_one(pg: Pg, postgres_url: str) -> None:
    day = await long_agreed(pg, transaction_fen=300)
    bought = item(purchase(300), since=day)
    async with a_book(postgres_url) as book:
        assert (await book.settle([bought]))[0].answer == "00"
    await past_the_book(
        pg,
        "UPDATE limit_rule SET transaction_fen = 1",
        (
            "INSERT INTO limit_rule (account_kind, product, transaction_fen, valid_from)"
            " SELECT 10, substr(pan, 7, 2), 300, current_date - 3 FROM journal LIMIT 1"
        ),
        (
            "INSERT INTO registry_change (at, actor, subject, change)"
            " SELECT clock_timestamp() - interval '1 hour', 'ann', 'limit ' || max(rule_no), '{}' FROM limit_rule"
        ),
    )
    assert await named(pg, "limits_kept") == []
    await past_the_book(pg, "UPDATE limit_rule SET transaction_fen = 299 WHERE product IS NOT NULL")
    assert await named(pg, "limits_kept") == [await entry(pg, bought.key.stan)]
