"""The book when its database goes away: what is told, and what stays in the way of others."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.domain.decisions import Outcome
from switch.ledger.book import ShardBook
from switch.ledger.gate import GATE, wait_for_all
from switch.ledger.items import IN_DOUBT, Item
from switch.messages.answers import DE39
from switch.storage.pool import connect, connect_writer
from tests.helpers.books import OPENING_FEN, item, purchase, seed

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]

# The backend dies while it commits: the client cannot know whether before or after.
_DIE_AT_COMMIT = """
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_terminate_backend(pg_backend_pid());
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER die AFTER INSERT ON original_use DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die();
"""


class Gone:
    """Connects to a database as often as it may, then there is none any more."""

    def __init__(self, url: str, times: int) -> None:
        self._url = url
        self._left = times

    async def __call__(self) -> AsyncConnection[Any]:
        if not self._left:
            raise psycopg.OperationalError("no database")
        self._left -= 1
        return await connect(self._url)


async def _told(book: ShardBook, requests: list[Item]) -> list[Outcome | None]:
    told: list[Outcome | None] = []
    for request in requests:
        assert book.submit(request._replace(done=lambda _item, outcome: told.append(outcome)))
    serving = asyncio.create_task(book.run())
    async with asyncio.timeout(60):
        while len(told) < len(requests):
            await asyncio.sleep(0.01)
    book.stop()
    await serving
    return told


async def test_who_asks_again_in_an_outage_is_not_told_that_it_was_declined(
    pg: Pg, postgres_url: str
) -> None:
    """The first copy is booked, and nobody heard of it: 96 would be taken for a decline of what is paid."""
    day = await seed(pg)
    book = ShardBook(0, Gone(postgres_url, 1), DE39, retry_for_s=0.3)
    write = book._write_and_commit

    async def committed_and_lost(link: Any, batch: Any) -> None:
        await write(link, batch)
        raise psycopg.OperationalError("connection lost")

    book._write_and_commit = committed_and_lost  # type: ignore[method-assign]
    bought, other = item(purchase(300), since=day), item(purchase(1), since=day)
    told: list[Outcome | None] = []
    serving = asyncio.create_task(book.run())
    async with asyncio.timeout(60):
        for request in (bought, bought, other):
            before = len(told)
            assert book.submit(request._replace(done=lambda _item, outcome: told.append(outcome)))
            while len(told) == before:
                await asyncio.sleep(0.01)
    book.stop()
    await serving
    assert told == [IN_DOUBT, IN_DOUBT, None]
    cursor = await pg.execute("SELECT balance_fen FROM account WHERE account_id = 110")
    assert await cursor.fetchone() == (OPENING_FEN - 300,)


async def test_a_request_whose_commit_was_sent_into_a_lost_connection_is_not_called_declined(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    # The whole work of a batch, then a connection that dies where its commit is: at the end of the second round trip.
    await pg.execute(_DIE_AT_COMMIT.replace("original_use", "posting_" + day.strftime("%Y%m%d")).encode())
    book = ShardBook(0, Gone(postgres_url, 1), DE39, retry_for_s=0.2)
    assert await _told(book, [item(purchase(300), since=day)]) == [IN_DOUBT]


async def test_a_request_of_which_nothing_can_be_booked_is_told_96(pg: Pg, postgres_url: str) -> None:
    day = await seed(pg)
    book = ShardBook(0, Gone(postgres_url, 0), DE39, retry_for_s=0.2)
    assert await _told(book, [item(purchase(300), since=day)]) == [None]


async def test_what_queued_behind_a_lost_database_is_not_booked_after_its_patience_is_over(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    book = ShardBook(0, Gone(postgres_url, 0), DE39, retry_for_s=3.0, batch_max=1)
    started = asyncio.get_running_loop().time()
    assert await _told(book, [item(purchase(1), since=day) for _ in range(50)]) == [None] * 50
    # One patience for all; one for each would be two minutes and a half, more than _told waits.
    assert asyncio.get_running_loop().time() - started < 3.0 * 20


async def test_a_process_that_stops_between_two_round_trips_does_not_hold_its_gate_for_ever(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    stopped = await connect_writer(postgres_url, idle_max_s=0.2)
    # As one message: between two of them the server might already find it idle for too long.
    held = f"SELECT pg_advisory_xact_lock_shared({GATE}, 0); SELECT 1 FROM account WHERE account_id = 110 FOR NO KEY UPDATE"
    await stopped.execute(f"BEGIN; {held}".encode())
    async with asyncio.timeout(60):
        await wait_for_all(pg, [0])
        book = ShardBook(0, Gone(postgres_url, 1), DE39)
        assert [outcome.answer for outcome in await book.settle([item(purchase(300), since=day)])] == ["00"]
    book.stop()
    await book.run()
    await stopped.close()
    cursor = await pg.execute("SELECT balance_fen FROM account WHERE account_id = 110")
    assert await cursor.fetchone() == (OPENING_FEN - 300,)


async def test_a_book_whose_transaction_the_server_ended_settles_again(
    pg: Pg, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = await seed(pg)
    times = iter([0.05, 10.0, 10.0])  # the first connection loses its transaction in the pause below

    async def connect_impatiently() -> AsyncConnection[Any]:
        return await connect_writer(postgres_url, idle_max_s=next(times))

    book = ShardBook(0, connect_impatiently, DE39, retry_for_s=20.0)
    write = book._write_and_commit
    pauses = iter([0.5])

    async def pause(*args: Any) -> None:
        await asyncio.sleep(next(pauses, 0.0))
        await write(*args)

    monkeypatch.setattr(book, "_write_and_commit", pause)  # stands for a process that was suspended here
    told = await _told(book, [item(purchase(300), since=day)])
    assert [outcome.answer for outcome in told if outcome] == ["00"]
    cursor = await pg.execute("SELECT balance_fen FROM account WHERE account_id = 110")
    assert await cursor.fetchone() == (OPENING_FEN - 300,)
