"""Statements in one round trip: results, errors, and what a silent server costs."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.storage.arrays import int8s, texts
from switch.storage.pipeline import Pipeline
from switch.storage.pool import connect

pytestmark = pytest.mark.server

STATEMENTS = {
    "begin": "BEGIN",
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
    "add": "INSERT INTO item SELECT * FROM unnest(%(ids)b::bigint[], %(names)b::text[])",
    "all": "SELECT id, name FROM item ORDER BY id",
    "echo": "SELECT %(number)b::bigint, %(text)b::text, %(day)b::date, %(raw)b::bytea, %(at)b::timestamptz, %(small)b::smallint",
    "twice": "SELECT %(number)b::integer + %(number)b::integer",
    "sleep": "SELECT pg_sleep(60)",
    "large": "SELECT repeat('x', %(count)b::integer)",
    "length": "SELECT length(%(raw)b::bytea)",
}


@pytest.fixture
async def pipeline(pg: AsyncConnection[Any], postgres_url: str) -> AsyncIterator[Pipeline]:
    await pg.execute("CREATE TABLE item (id bigint PRIMARY KEY, name text NOT NULL)")
    made = Pipeline(await connect(postgres_url))
    await made.prepare(STATEMENTS)
    yield made
    await made.close()


async def test_each_statement_has_its_rows_in_its_place(pipeline: Pipeline) -> None:
    assert pipeline.queue("begin") == 0
    assert pipeline.queue("add", {"ids": int8s([2, 1]), "names": texts(["two", "one"])}) == 1
    assert pipeline.queue("all") == 2
    assert pipeline.queue("twice", {"number": 21}) == 3
    assert pipeline.queue("commit") == 4

    assert await pipeline.round_trip() == [[], [], [(1, "one"), (2, "two")], [(42,)], []]


async def test_values_of_every_kind_arrive_as_they_were_sent(pipeline: Pipeline) -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
    values = (-(2**63), "市民卡", date(2026, 2, 28), bytes(range(256)), at, -5)
    pipeline.queue("echo", dict(zip(("number", "text", "day", "raw", "at", "small"), values, strict=True)))
    pipeline.queue("echo", dict.fromkeys(("number", "text", "day", "raw", "at", "small")))

    assert await pipeline.round_trip() == [[values], [(None,) * 6]]


async def test_an_empty_round_trip_is_one(pipeline: Pipeline) -> None:
    assert await pipeline.round_trip() == []


async def test_more_bytes_than_the_sockets_hold_go_both_ways(pipeline: Pipeline) -> None:
    size = 8 * 1024 * 1024
    pipeline.queue("length", {"raw": bytes(size)})
    pipeline.queue("large", {"count": size})

    length, large = await pipeline.round_trip()

    assert length == [(size,)]
    assert len(large[0][0]) == size


async def test_the_first_error_of_a_round_trip_is_raised_and_nothing_of_it_stays(
    pipeline: Pipeline, pg: AsyncConnection[Any]
) -> None:
    pipeline.queue("begin")
    pipeline.queue("add", {"ids": int8s([1]), "names": texts(["one"])})
    pipeline.queue("add", {"ids": int8s([1]), "names": texts(["again"])})
    pipeline.queue("commit")

    with pytest.raises(psycopg.errors.UniqueViolation):
        await pipeline.round_trip()

    await pipeline.close()
    cursor = await pg.execute("SELECT count(*) FROM item")
    assert await cursor.fetchone() == (0,)


async def test_a_statement_that_cannot_be_prepared_says_why(postgres_url: str) -> None:
    pipeline = Pipeline(await connect(postgres_url))

    with pytest.raises(psycopg.errors.UndefinedTable):
        await pipeline.prepare({"bad": "SELECT * FROM no_such_table"})

    await pipeline.close()


async def test_a_parameter_that_is_missing_is_noticed_before_anything_is_sent(pipeline: Pipeline) -> None:
    with pytest.raises(KeyError):
        pipeline.queue("twice", {"nothing": 1})

    pipeline.queue("twice", {"number": 2})
    assert await pipeline.round_trip() == [[(4,)]]


async def test_a_server_that_does_not_answer_in_time_counts_as_lost(postgres_url: str) -> None:
    pipeline = Pipeline(await connect(postgres_url))
    await pipeline.prepare({"sleep": STATEMENTS["sleep"]})
    pipeline._round_trip_max_s = 0.2  # not before: to prepare is a round trip too
    pipeline.queue("sleep")

    with pytest.raises(psycopg.OperationalError, match="in time"):
        await pipeline.round_trip()

    await pipeline.close()
    assert pipeline.closed


async def test_a_backend_that_is_killed_is_an_operational_error(
    pipeline: Pipeline, pg: AsyncConnection[Any]
) -> None:
    pipeline.queue("sleep")
    waiting = asyncio.create_task(pipeline.round_trip())
    async with asyncio.timeout(60):
        while True:
            cursor = await pg.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
            )
            if await cursor.fetchone():
                break
            await asyncio.sleep(0.01)

    with pytest.raises(psycopg.OperationalError):
        await waiting


async def test_a_cancelled_round_trip_leaves_no_watch_on_the_socket(pipeline: Pipeline) -> None:
    pipeline.queue("sleep")
    waiting = asyncio.create_task(pipeline.round_trip())
    await asyncio.sleep(0.05)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    await pipeline.close()
    assert pipeline.closed


async def test_a_server_that_goes_away_between_two_round_trips_keeps_nobody_busy(
    pipeline: Pipeline, pg: AsyncConnection[Any], postgres_url: str
) -> None:
    pipeline.queue("twice", {"number": 1})
    await pipeline.round_trip()
    await pg.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'SELECT $1::integer + %'"
    )
    async with asyncio.timeout(60):
        while pipeline.watched:  # the end of a socket is readable for ever: it must be looked at once only
            await asyncio.sleep(0.01)

    pipeline.queue("twice", {"number": 2})
    with pytest.raises(psycopg.OperationalError):
        await pipeline.round_trip()
    await pipeline.close()
