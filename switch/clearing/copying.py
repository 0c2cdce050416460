"""Reading a long COPY without a step of the event loop for every row."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import error_from_result

from switch.clearing.columns import COPY_END, COPY_HEAD

ROWS_AT_ONCE = 16_384  # 5 MB of CM

_LAST = (COPY_END, COPY_HEAD + COPY_END)  # the second of no rows

Messages = list[bytes | bytearray | memoryview]
Blocks = AsyncGenerator[Messages, None]


async def copied(connection: AsyncConnection[Any], query: str, values: dict[str, object]) -> Blocks:
    """What the server sends for a COPY in its binary format, one message per row, many at a time.

    Each read through psycopg costs two steps of a generator. What its libpq has received already is taken from there: half of
    the processor time for ten million rows.
    """
    messages: Messages = []
    async with connection.cursor() as cursor, cursor.copy(query.encode(), values) as rows:
        take = connection.pgconn.get_copy_data
        while message := await rows.read():
            messages.append(message)
            # Not beyond the last one: the end is psycopg's to see.
            while message not in _LAST and len(messages) < ROWS_AT_ONCE:
                size, more = take(1)
                if size == 0:
                    break
                if size < 0:
                    raise _why_it_ended(connection)
                message = more
                messages.append(message)
            if len(messages) >= ROWS_AT_ONCE:
                yield messages
                messages = []
    if messages:
        yield messages


def _why_it_ended(connection: AsyncConnection[Any]) -> Exception:
    """The server's error that ended a COPY before its last row."""
    result = connection.pgconn.get_result()
    assert result is not None, "a COPY ends with a result"
    while connection.pgconn.get_result() is not None:
        pass
    return error_from_result(result)


async def each_in_thread(blocks: Blocks, work: Callable[[Messages], None]) -> None:
    """Work on each block in order, in another thread, while the next is on its way. Not more than two are in memory."""
    busy: asyncio.Future[None] | None = None
    try:
        async with aclosing(blocks):
            async for block in blocks:
                if busy is not None:
                    await busy
                busy = asyncio.ensure_future(asyncio.to_thread(work, block))
            if busy is not None:
                await busy
    finally:
        if busy is not None and not busy.done():
            await asyncio.wait((busy,))  # whatever ended us: the thread's files are ours to close
