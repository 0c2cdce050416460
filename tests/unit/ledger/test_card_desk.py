"""Loss reports on a real database: who is refused, to the microsecond, and what is written down."""

import asyncio
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.domain.errors import InputRefused
from switch.ledger.card_desk import Changed, change_card, find_card, lapse_losses
from switch.ledger.card_states import Move
from switch.ledger.rules import CardStatus
from switch.storage.pool import connect
from tests.helpers.books import a_book, card_of, item, purchase, seed

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]


async def make(pg: Pg, move: Move, *, holder: int = 1, **how: str) -> Changed:
    place = await find_card(pg, card_of(holder).reveal())
    return await change_card(pg, place, move, actor="ann", reason=how.pop("reason", "told us so"), **how)


async def rows(pg: Pg, query: str) -> list[tuple[Any, ...]]:
    return await (await pg.execute(query.encode())).fetchall()


async def test_among_payments_that_rush_by_those_from_the_instant_on_are_refused_and_no_other(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    await pg.execute("UPDATE account SET balance_fen = 1000000")
    async with (
        a_book(postgres_url, batch_max=3) as one,
        a_book(postgres_url, batch_max=2) as two,
        await connect(postgres_url) as desk,
    ):
        tasks = [asyncio.create_task(book.run()) for book in (one, two)]
        answered: list[str] = []
        reported, lost = asyncio.Event(), asyncio.Event()

        def told(_item: Any, outcome: Any) -> None:
            answered.append(outcome.answer)
            if len(answered) == 60:
                reported.set()

        async def pay() -> None:
            number, still = 0, 100
            while still:  # some come after the report, however long it takes
                still -= lost.is_set()
                assert (one, two)[number % 2].submit(item(purchase(1), since=day, done=told))
                number += 1
                await asyncio.sleep(0.001)

        paying = asyncio.create_task(pay())
        await reported.wait()
        changed = await make(desk, Move.LOSE)
        lost.set()
        await paying
        one.stop()
        two.stop()
        await asyncio.gather(*tasks)
    assert {"00", "41"} == set(answered)
    lost_at = changed.after.lost_at
    assert lost_at is not None
    for answer, decided_at in await rows(pg, "SELECT answer, decided_at FROM journal"):
        assert (answer == "41") == (decided_at >= lost_at), (answer, decided_at, lost_at)
    assert (await rows(pg, "SELECT lost_at FROM card WHERE holder_id = 1")) == [(lost_at,)]


async def test_a_report_lapses_by_the_clock_whether_or_not_anybody_tidies_up(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    await make(pg, Move.LOSE)
    async with a_book(postgres_url) as book:
        assert (await book.settle([item(purchase(1), since=day)]))[0].answer == "41"
        assert await lapse_losses(pg, 0) == 0
        await pg.execute("UPDATE card SET loss_lapses_at = lost_at + interval '1 millisecond'")
        await asyncio.sleep(0.01)
        assert (await book.settle([item(purchase(1), since=day)]))[0].answer == "00"
        assert await lapse_losses(pg, 0) == 1
        assert await lapse_losses(pg, 0) == 0
        assert (await book.settle([item(purchase(1), since=day)]))[0].answer == "00"
    assert (await rows(pg, "SELECT state, lost_at, loss_lapses_at FROM card WHERE holder_id = 1")) == [
        (1, None, None)
    ]
    ((actor, at),) = await rows(
        pg, "SELECT actor, change ->> 'move' FROM registry_change ORDER BY change_no DESC LIMIT 1"
    )
    assert (actor, at) == ("clock", "lapse")


async def test_every_change_is_noted_with_who_when_before_after_and_why(pg: Pg) -> None:
    await seed(pg)
    lost = await make(pg, Move.LOSE, reason="left  on a bus")
    formal = await make(pg, Move.CONFIRM)
    await make(pg, Move.LIFT, evidence="identity document, card")
    with pytest.raises(InputRefused):
        await make(pg, Move.LIFT)
    notes = await rows(pg, "SELECT actor, subject, at, change FROM registry_change ORDER BY change_no")
    assert [note[:2] for note in notes] == [("ann", "card 1")] * 3
    assert notes[0][2] == lost.at
    assert [(n[3]["before"]["state"], n[3]["after"]["state"]) for n in notes] == [(1, 2), (2, 3), (3, 1)]
    assert [n[3]["reason"] for n in notes] == ["left on a bus", "told us so", "told us so"]
    assert notes[2][3]["evidence"] == "identity document, card"
    assert formal.after.lost_at == lost.after.lost_at
    with pytest.raises(psycopg.errors.RestrictViolation):
        await pg.execute("UPDATE registry_change SET actor = 'nobody'")


async def test_of_two_who_report_at_once_one_is_told_that_it_is_done(pg: Pg, postgres_url: str) -> None:
    await seed(pg)
    async with await connect(postgres_url) as one, await connect(postgres_url) as two:
        found = await asyncio.gather(make(one, Move.LOSE), make(two, Move.LOSE), return_exceptions=True)
    assert sorted(type(one).__name__ for one in found) == ["Changed", "InputRefused"]
    assert len(await rows(pg, "SELECT 1 FROM registry_change")) == 1


async def test_a_loss_in_the_past_is_refused_by_the_database_itself(pg: Pg) -> None:
    await seed(pg)
    with pytest.raises(psycopg.errors.RestrictViolation):
        await pg.execute("UPDATE card SET state = 2, lost_at = clock_timestamp() - interval '1 second'")
    await make(pg, Move.LOSE)
    with pytest.raises(psycopg.errors.RestrictViolation):
        await pg.execute("UPDATE card SET lost_at = lost_at - interval '1 millisecond'")
    with pytest.raises(psycopg.errors.CheckViolation):
        await pg.execute("UPDATE card SET lost_at = NULL, loss_lapses_at = NULL WHERE state = 2")


async def test_the_purse_and_the_money_are_left_alone(pg: Pg) -> None:
    await seed(pg)
    tables = "SELECT (SELECT count(*) FROM posting), (SELECT sum(balance_fen) FROM account), (SELECT count(*) FROM purse)"
    before = await rows(pg, tables)
    for move in (Move.LOSE, Move.CONFIRM, Move.REPLACE):
        await make(pg, move)
    assert await rows(pg, tables) == before
    assert (await rows(pg, "SELECT state FROM card WHERE holder_id = 1")) == [(CardStatus.REPLACED,)]


@pytest.mark.parametrize("number", ["", "7x", "3133500100000009999", "99999", "-1", "9" * 30])
async def test_an_unknown_card_is_refused_without_repeating_its_number(pg: Pg, number: str) -> None:
    await seed(pg)
    with pytest.raises(InputRefused) as error:
        await find_card(pg, number)
    assert str(error.value) == "card: no such card"


async def test_a_card_is_found_by_its_number_in_reports_too(pg: Pg) -> None:
    day: date = await seed(pg)
    assert day + timedelta(days=1) > day
    assert (await find_card(pg, "3")).pan == card_of(3).reveal()
    assert card_of(3).reveal() not in repr(await find_card(pg, "3"))
