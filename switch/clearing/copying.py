"""Reading a long COPY without a step of the event loop for every row or every packet."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from select import POLLIN, poll
from typing import Any, TypeVar

from psycopg import AsyncConnection
from psycopg.errors import error_from_result

from switch.clearing.columns import COPY_END, COPY_HEAD

ROWS_AT_ONCE = 16_384  # 5 MB of CM
_LOOK_UP_MS = 200  # so long a thread may wait for the server before it sees that nobody waits for it

Messages = list[bytes | bytearray | memoryview]
Blocks = AsyncGenerator[Messages, None]
T = TypeVar("T")


async def copied(connection: AsyncConnection[Any], query: str, values: dict[str, object]) -> Blocks:
    """What the server sends for a COPY in its binary format, one message per row, many at a time.

    Each read through psycopg costs some steps of generators, and every 16 KB a visit to the event loop's selector: more than all else
    that is done with ten million rows. So its libpq is read in a thread, which nothing else of the connection is used beside.
    """
    async with connection.cursor() as cursor, cursor.copy(query.encode(), values) as rows:
        reader = _Reader(connection)
        while not reader.ended:
            messages = await _in_thread(reader.block, reader.stop)
            if messages:
                yield messages
        assert not await rows.read(), "nothing comes behind the end"  # and psycopg sees it too


class _Reader:
    """One COPY, read from a thread."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self.ended = False
        self._pgconn = connection.pgconn
        self._stopped = False
        self._first = True

    def stop(self) -> None:
        """Let a block that is being read end early."""
        self._stopped = True

    def block(self) -> Messages:
        """Up to ROWS_AT_ONCE messages, fewer at the end. Raises what the server says, or that it is gone."""
        messages: Messages = []
        take, add = self._pgconn.get_copy_data, messages.append
        socket = poll()
        socket.register(self._pgconn.socket, POLLIN)
        left = ROWS_AT_ONCE
        while left and not self.ended:
            size, message = take(1)
            if size > len(COPY_END):  # as every row is
                add(message)
                left -= 1
                if self._first:
                    self._first = False
                    self.ended = message == COPY_HEAD + COPY_END  # there is no row
            elif size > 0:
                self.ended = True
            elif size < 0:
                raise _why_it_ended(self._pgconn)
            elif self._stopped:
                break
            else:
                socket.poll(_LOOK_UP_MS)
                # Also when nothing came to the socket: TLS may hold the rest of a record.
                self._pgconn.consume_input()
        return messages


def _why_it_ended(pgconn: Any) -> Exception:
    """The server's error that ended a COPY before its last row."""
    result = pgconn.get_result()
    assert result is not None, "a COPY ends with a result"
    while pgconn.get_result() is not None:
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


async def _in_thread(call: Callable[[], T], stop: Callable[[], None]) -> T:
    """Whoever is cancelled waits for the thread first: what it uses is used again."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait((task,))
        raise
