"""A bounded queue with one writer behind it, for messages that are written many in one database transaction.

While one batch is at the database the next is collected and prepared. A message is answered exactly once: with its outcome
after the commit, or with None (96) when it could not be booked. A lost connection leaves the outcome unknown, so the
batch is written again on a new one: messages that were committed are then found as repeats, by their keys.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.domain.decisions import Outcome
from switch.storage.pool import LOST

log = structlog.get_logger(__name__)

Row = tuple[Any, ...]
Connection = AsyncConnection[Row]
Connect = Callable[[], Awaitable[Connection]]
MessageT = TypeVar("MessageT")

_PAUSE_FIRST_S = 0.05
_PAUSE_MAX_S = 1.0
WRITE_MAX_S = 30.0
_RECOVERABLE = (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.DeadlockDetected)


class CannotBookError(Exception):
    """A batch broke a constraint or met a deadlock; nothing was written."""


class MessageWriter(ABC, Generic[MessageT]):
    """One queue, one writer, one connection. Subclasses say what a message weighs and how a batch is written.

    connect: gives a connection in autocommit mode, for this writer alone. queue_max: weight that may wait, in all; weight_max:
    weight of one batch (a single heavier message goes alone). retry_for_s: how long messages outlive a lost database before they are answered 96.
    write_max_s: a batch that takes longer counts as lost with its connection (the server stalls, or somebody holds a lock).
    on_batch: told the weight and the seconds of each batch.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        name: str,
        queue_max: int,
        weight_max: int,
        retry_for_s: float,
        write_max_s: float = WRITE_MAX_S,
        on_batch: Callable[[int, float], None] = lambda _weight, _seconds: None,
    ) -> None:
        self._connect = connect
        self._name = name
        self._queue: deque[MessageT] = deque()
        self._queued = 0
        self._queue_max = queue_max
        self._weight_max = weight_max
        self._retry_for_s = retry_for_s
        self._write_max_s = write_max_s
        self._lost_s: float | None = None  # since when the database has been lost
        self._on_batch = on_batch
        self._wake = asyncio.Event()
        self._stopping = False
        self._connection: Connection | None = None

    # ------------------------------------------------------------------ what a subclass says

    def weight(self, message: MessageT) -> int:
        """How much of the bounds a message takes; at least 1."""
        return 1

    async def prepare(self, messages: Sequence[MessageT]) -> None:
        """Do ahead what needs no database, while another batch is being written."""

    @abstractmethod
    async def write(self, connection: Connection, messages: Sequence[MessageT]) -> Sequence[Outcome]:
        """Write a batch in one transaction; outcomes in the order of messages. `booking` wraps what may conflict."""

    @abstractmethod
    def answer(self, message: MessageT, outcome: Outcome | None) -> None:
        """Tell whoever waits."""

    def may_join(self, message: MessageT, batch: Sequence[MessageT]) -> bool:
        """Whether a message may be in the same batch as those before it; if not, it and all behind it wait."""
        return True

    # ------------------------------------------------------------------ the queue

    @property
    def depth(self) -> int:
        """Weight waiting for a batch."""
        return self._queued

    def enqueue(self, message: MessageT) -> bool:
        """Queue a message; False when the queue is full or the writer is stopping, and then nothing was taken."""
        weight = self.weight(message)
        if self._stopping or (self._queued and self._queued + weight > self._queue_max):
            return False
        self._queue.append(message)
        self._queued += weight
        self._wake.set()
        return True

    def stop(self) -> None:
        """Take no more; run() returns when everything queued is answered."""
        self._stopping = True
        self._wake.set()

    def _take(self, batch: Sequence[MessageT], weight: int) -> tuple[list[MessageT], int]:
        """Take from the queue what may still join the batch; returns it, and the batch's weight with it."""
        company = list(batch)
        while self._queue:
            message = self._queue[0]
            more = self.weight(message)
            if company and (weight + more > self._weight_max or not self.may_join(message, company)):
                break
            self._queue.popleft()
            self._queued -= more
            company.append(message)
            weight += more
        return company[len(batch) :], weight

    async def run(self) -> None:
        """Serve the queue until stop(); then finish what is queued and return."""
        batch: list[MessageT] = []
        weight = 0
        writing: asyncio.Task[None] | None = None
        try:
            while True:
                self._wake.clear()
                taken, weight = self._take(batch, weight)
                if taken:
                    batch += await self._prepared(taken)
                if writing is not None and writing.done():
                    await writing
                    writing = None
                if writing is None and batch:
                    writing = asyncio.create_task(self._serve(batch, weight))
                    writing.add_done_callback(lambda _: self._wake.set())
                    batch, weight = [], 0
                    continue
                if writing is None and self._stopping and not self._queue:
                    return
                await self._wake.wait()
        finally:
            if writing is not None:
                writing.cancel()
            await self._drop_connection()

    async def _prepared(self, messages: list[MessageT]) -> list[MessageT]:
        """Prepare messages; returns those that could be. The others are answered 96."""
        try:
            await self.prepare(messages)
        except Exception:
            if len(messages) > 1:
                return [one for message in messages for one in await self._prepared([message])]
            log.exception("message cannot be prepared", writer=self._name)
            self._answer_surely(messages[0], None)
            return []
        return messages

    async def _serve(self, batch: list[MessageT], weight: int) -> None:
        started = time.monotonic()
        outcomes: Sequence[Outcome | None]
        try:
            outcomes = await self._write_surely(batch)
        except Exception:  # our own fault: 96 for the batch, and the service lives on
            log.exception("batch failed", writer=self._name, messages=len(batch))
            await self._drop_connection()
            outcomes = [None] * len(batch)
        self._on_batch(weight, time.monotonic() - started)
        for message, outcome in zip(batch, outcomes, strict=True):
            self._answer_surely(message, outcome)

    def _answer_surely(self, message: MessageT, outcome: Outcome | None) -> None:
        try:
            self.answer(message, outcome)
        except Exception:
            log.exception("an answer could not be delivered", writer=self._name)

    # ------------------------------------------------------------------ writing, whatever happens

    async def _write_surely(self, batch: Sequence[MessageT]) -> Sequence[Outcome | None]:
        """Patience is one for all batches of an outage, or those behind the first would be answered minutes late."""
        pause_s = _PAUSE_FIRST_S
        while True:
            try:
                outcomes = await self._write_or_split(batch)
            except (*LOST, TimeoutError) as error:
                await self._drop_connection()
                now_s = time.monotonic()
                if self._lost_s is None:
                    self._lost_s = now_s
                if self._stopping or now_s + pause_s > self._lost_s + self._retry_for_s:
                    log.warning("database lost, batch answered 96", writer=self._name, messages=len(batch))
                    return [None] * len(batch)
                log.warning("database lost, batch waits", writer=self._name, error=type(error).__name__)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _PAUSE_MAX_S)
            else:
                self._lost_s = None
                return outcomes

    async def _write_or_split(self, batch: Sequence[MessageT]) -> Sequence[Outcome | None]:
        """One bad message must not fail its batch: again as a whole, then in halves, until it is alone and gets 96."""
        fault = ""
        for _ in range(2):
            try:
                return await self._write_once(batch)
            except CannotBookError as error:
                fault = type(error.__cause__).__name__
        if len(batch) == 1:
            log.error("message cannot be booked", writer=self._name, error=fault)
            return [None]
        middle = len(batch) // 2
        return [*await self._write_or_split(batch[:middle]), *await self._write_or_split(batch[middle:])]

    async def _write_once(self, batch: Sequence[MessageT]) -> Sequence[Outcome]:
        connection = await self._connected()
        try:
            async with asyncio.timeout(self._write_max_s):
                return await self.write(connection, batch)
        except _RECOVERABLE as error:
            await connection.rollback()
            raise CannotBookError from error
        except BaseException:
            await self._drop_connection()
            raise

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = await self._connect()
        return self._connection

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
