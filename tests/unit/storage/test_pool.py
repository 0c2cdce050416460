"""Connections, the pool, and which of the driver's errors mean that a connection is lost."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from switch.domain.errors import DatabaseLost, Overloaded
from switch.storage.pool import connect, connect_now, end_tasks, is_lost, make_pool, translated

pytestmark = pytest.mark.server

NOWHERE = "postgresql:///nothing?host=/nonexistent"


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[AsyncConnectionPool[AsyncConnection[Any]]]:
    made = make_pool(postgres_url, size_max=1, waiting_max=1, wait_s=0.5)
    await made.open(wait=True, timeout=60)  # or the first connection would have to stand within wait_s
    yield made
    await made.close()


async def backend(connection: AsyncConnection[Any]) -> int:
    cursor = await connection.execute("SELECT pg_backend_pid()")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def test_a_connection_says_who_we_are_and_commits_each_statement(postgres_url: str) -> None:
    async with await connect(postgres_url) as connection:
        cursor = await connection.execute("SHOW application_name")
        assert await cursor.fetchone() == ("cardswitch",)
        assert connection.autocommit


def test_a_connection_without_a_loop_is_the_same(postgres_url: str) -> None:
    with connect_now(postgres_url) as connection:
        assert connection.execute("SHOW application_name").fetchone() == ("cardswitch",)
        assert connection.autocommit


async def test_a_broken_connection_of_the_pool_costs_nobody_a_request(
    pool: AsyncConnectionPool[AsyncConnection[Any]], pg: AsyncConnection[Any]
) -> None:
    async with pool.connection() as connection:
        first = await backend(connection)
    await pg.execute("SELECT pg_terminate_backend(%s, 10000)", (first,))  # and wait until it is gone

    async with pool.connection(timeout=60) as connection:  # a new one has to be made
        assert await backend(connection) != first


async def test_a_good_connection_is_handed_out_without_asking_the_server(
    pool: AsyncConnectionPool[AsyncConnection[Any]], pg: AsyncConnection[Any]
) -> None:
    async with pool.connection() as connection:
        pid = await backend(connection)
    async with pool.connection():
        cursor = await pg.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", (pid,))
        assert await cursor.fetchone() == ("SELECT pg_backend_pid()",), "its last statement is still ours"


async def test_who_waits_too_long_for_a_connection_is_told_so(
    pool: AsyncConnectionPool[AsyncConnection[Any]],
) -> None:
    async with pool.connection():
        with pytest.raises(DatabaseLost), translated():
            async with pool.connection():
                pass


async def test_one_more_than_may_wait_is_refused_at_once(
    pool: AsyncConnectionPool[AsyncConnection[Any]],
) -> None:
    async def one() -> None:
        with translated():
            async with pool.connection():
                pass

    async with pool.connection():
        outcomes = await asyncio.gather(one(), one(), return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {DatabaseLost, Overloaded}


async def test_no_database_is_a_lost_one() -> None:
    with pytest.raises(DatabaseLost), translated():
        await connect(NOWHERE)


async def test_a_connection_that_was_cut_is_lost(postgres_url: str, pg: AsyncConnection[Any]) -> None:
    connection = await connect(postgres_url)
    await pg.execute("SELECT pg_terminate_backend(%s)", (await backend(connection),))

    with pytest.raises(DatabaseLost) as caught, translated():
        await connection.execute("SELECT 1")

    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    with pytest.raises(DatabaseLost), translated():  # and stays so
        await connection.execute("SELECT 1")
    await connection.close()


async def test_an_error_of_a_statement_is_not_a_lost_connection(pg: AsyncConnection[Any]) -> None:
    with pytest.raises(psycopg.errors.QueryCanceled) as caught, translated():
        await pg.execute("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)")

    assert isinstance(caught.value, psycopg.OperationalError), "the driver files both under one class"
    assert not is_lost(caught.value)
    with pytest.raises(psycopg.errors.UniqueViolation), translated():
        await pg.execute("CREATE TEMP TABLE t (i int PRIMARY KEY); INSERT INTO t VALUES (1), (1)")


async def test_work_that_swallowed_a_cancellation_is_ended_all_the_same(
    pool: AsyncConnectionPool[AsyncConnection[Any]],
) -> None:
    """As a service's own work may, whose connection comes free in the moment in which the service is told to stop."""
    went_on = asyncio.Event()

    async def work() -> None:
        while True:
            async with pool.connection():
                pass
            went_on.set()
            await asyncio.sleep(3600)

    async def crash() -> None:
        await asyncio.sleep(0)
        raise DatabaseLost("what it failed of is not said here")

    async with pool.connection():
        task = asyncio.create_task(work())
        while not pool.get_stats().get("requests_waiting"):
            await asyncio.sleep(0)
    task.cancel()  # the connection has just been given back, and nothing has run in between
    await went_on.wait()
    assert not task.done(), "it has not heard of it"
    await end_tasks(task, None, asyncio.create_task(crash()))
    assert task.cancelled()
