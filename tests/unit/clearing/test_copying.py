"""A long COPY arrives whole and in order, and what ends it early is the server's own error."""

import asyncio
import threading
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.clearing.columns import Column, Table
from switch.clearing.copying import ROWS_AT_ONCE, Messages, copied, each_in_thread

pytestmark = pytest.mark.server

TABLE = Table((Column("n", "n", "int4", 4), Column("word", "n::text", "char", 12)))
ROWS = 2 * ROWS_AT_ONCE + 7


def _query(last: str = "n") -> str:
    return f"COPY (SELECT {TABLE.select}, {last}::int2 FROM generate_series(1, %(rows)s) AS n) TO STDOUT (FORMAT BINARY)"


NUMBERS = f"COPY (SELECT {TABLE.select} FROM generate_series(1, %(rows)s) AS n) TO STDOUT (FORMAT BINARY)"


async def test_every_row_comes_once_and_in_order_in_blocks(pg: AsyncConnection[Any]) -> None:
    blocks = [TABLE.read(messages) async for messages in copied(pg, NUMBERS, {"rows": ROWS})]
    assert [len(block) for block in blocks] == [ROWS_AT_ONCE, ROWS_AT_ONCE, 7]
    assert [int(n) for block in blocks for n in block["n"]] == list(range(1, ROWS + 1))
    assert blocks[1]["word"][0] == b"%-12d" % (ROWS_AT_ONCE + 1)
    assert await (await pg.execute("SELECT 1")).fetchone() == (1,)


async def test_nothing_comes_of_no_rows(pg: AsyncConnection[Any]) -> None:
    assert [len(TABLE.read(messages)) async for messages in copied(pg, NUMBERS, {"rows": 0})] == [0]


@pytest.mark.parametrize("at", [1, 5_000, ROWS])
async def test_an_error_between_rows_is_raised_as_what_it_is_and_the_connection_lives(
    pg: AsyncConnection[Any], at: int
) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        async for _ in copied(pg, _query(f"(1 / (n - {at}))"), {"rows": ROWS}):
            pass
    assert await (await pg.execute("SELECT 1")).fetchone() == (1,)


async def test_what_goes_wrong_in_the_thread_ends_the_copy(pg: AsyncConnection[Any]) -> None:
    seen: list[int] = []

    def work(messages: Messages) -> None:
        seen.append(len(messages))
        raise OSError(28, "disk full")

    with pytest.raises(OSError, match="disk full"):
        await each_in_thread(copied(pg, NUMBERS, {"rows": ROWS}), work)
    assert seen == [ROWS_AT_ONCE]
    assert await (await pg.execute("SELECT 1")).fetchone() == (1,)


async def test_who_is_cancelled_waits_for_the_thread_that_still_writes(pg: AsyncConnection[Any]) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work(_messages: Messages) -> None:
        begun.set()
        go_on.wait(30)
        ended.set()

    task = asyncio.create_task(each_in_thread(copied(pg, NUMBERS, {"rows": ROWS}), work))
    await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
