"""Bounded caches, and look-ups that many waiters share. No SQL here.

`RecentMap` forgets what was not used lately; `Lookup` puts one in front of a database: at most one query at a time looks
for a key, and keys that wait together are asked for together.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Generic, TypeVar

from switch.domain.errors import Overloaded

K = TypeVar("K")
V = TypeVar("V")


class RecentMap(Generic[K, V]):
    """A map of at most `capacity` entries which drops those that were not used for longest, roughly.

    Two plain dictionaries, young and old: a hit among the old moves to the young; when the young fill half of the
    capacity they become the old, and what nobody asked for since the last time is gone. That costs no links per entry,
    and an entry is kept for at least capacity / 2 insertions after its last use.
    """

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, capacity: int) -> None:
        if capacity < 2:
            raise ValueError("capacity must be 2 or more")
        self._half = capacity // 2
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value, or None."""
        value = self._young.get(key)
        if value is not None:
            return value
        value = self._old.pop(key, None)
        if value is not None:
            self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep a value (never None) under a key."""
        self._old.pop(key, None)
        self._young[key] = value
        if len(self._young) >= self._half:
            self._old = self._young
            self._young = {}

    def pop(self, key: K) -> None:
        """Forget a key, known or not."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._young = {}
        self._old = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __iter__(self) -> Iterator[K]:
        yield from self._old
        yield from self._young


class Lookup(Generic[K, V]):
    """A cache in front of a set-based query.

    fetch: asks for many keys at once and returns those that exist.
    capacity: entries kept; found ones until invalidated, absent ones for `absent_s` seconds (kept apart, bounded by
    `absent_max`: made-up keys cannot push out real ones).
    batch_max, queries_max: keys per query and queries in flight.
    waiting_max: keys on their way; one more is refused with Overloaded.

    One event loop only; not for use from other threads.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
        *,
        capacity: int,
        absent_s: float = 1.0,
        absent_max: int = 10_000,
        batch_max: int = 256,
        queries_max: int = 2,
        waiting_max: int = 20_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._found: RecentMap[K, V] = RecentMap(capacity)
        self._absent: RecentMap[K, float] = RecentMap(absent_max)  # key -> instant until which it counts
        self._absent_s = absent_s
        self._batch_max = batch_max
        self._queries_max = queries_max
        self._waiting_max = waiting_max
        self._clock = clock
        self._queued: dict[
            K, asyncio.Future[V | None]
        ] = {}  # in order of arrival; will see the database as it is then
        self._flying: dict[K, asyncio.Future[V | None]] = {}  # its query has left
        self._workers: set[asyncio.Task[None]] = set()
        self._active = 0  # workers that will still look at the queue; a task that has just ended may be in the set for a turn
        self._trusted = True
        self._closed = False

    def get(self, key: K) -> V | None:
        """What the cache holds; None means: ask `load`. Costs a fraction of a microsecond."""
        return self._found.get(key)

    async def load(self, key: K) -> V | None:
        """The value from the cache or the database; None if there is none.

        Raises Overloaded when too many keys wait already, and what `fetch` raises (DatabaseLost).
        """
        value = self._found.get(key)
        if value is not None:
            return value
        absent_until = self._absent.get(key)
        if absent_until is not None and self._clock() < absent_until:
            return None
        # Shielded: a waiter who gives up must not take the answer away from the others.
        return await asyncio.shield(self._flight(key))

    async def load_many(self, keys: Collection[K]) -> dict[K, V | None]:
        """As `load`, for many keys; they share queries."""
        answers: dict[K, V | None] = {}
        flights: dict[K, asyncio.Future[V | None]] = {}
        now = self._clock()
        for key in keys:
            value = self._found.get(key)
            if value is None and (self._absent.get(key) or 0.0) <= now:
                flights[key] = self._flight(key)
            else:
                answers[key] = value
        for key, flight in flights.items():
            answers[key] = await asyncio.shield(flight)
        return answers

    async def reload(self, key: K) -> V | None:
        """The value as the database has it after this call began, whatever the cache says; waiters share the query.

        What is kept serves others until then: a stranger who makes us look must not make everybody else wait.
        """
        self._absent.pop(key)
        self._flying.pop(key, None)
        return await asyncio.shield(self._flight(key))

    def invalidate(self, key: K) -> None:
        """Forget a key. A query that has left serves those who wait for it, and is not kept."""
        self._found.pop(key)
        self._absent.pop(key)
        self._flying.pop(key, None)

    def clear(self) -> None:
        """Forget everything, also what is on its way."""
        self._found.clear()
        self._absent.clear()
        self._flying.clear()

    def forget_absent(self) -> None:
        """Ask again for keys that were not there."""
        self._absent.clear()

    def distrust(self) -> None:
        """Nobody tells us of changes any more: forget all and keep nothing until `trust`."""
        self._trusted = False
        self.clear()

    def trust(self) -> None:
        """Changes are announced again. Queries that left before this moment are not kept."""
        self.clear()
        self._trusted = True

    async def close(self) -> None:
        """Cancel what is waited for, and wait until no query is left."""
        self._closed = True
        for flight in self._queued.values():
            flight.cancel()
        self._queued.clear()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._found)

    def _flight(self, key: K) -> asyncio.Future[V | None]:
        flight = self._queued.get(key) or self._flying.get(key)
        if flight is not None:
            return flight
        if self._closed or len(self._queued) >= self._waiting_max:
            raise Overloaded("too many look-ups are waiting")
        flight = asyncio.get_running_loop().create_future()
        flight.add_done_callback(_look_at)
        self._queued[key] = flight
        if self._active < self._queries_max:
            self._active += 1
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return flight

    async def _work(self) -> None:
        try:
            while self._queued:
                await self._query()
        finally:
            self._active -= 1  # in the same turn as the look at the empty queue, or a key queued in between would wait for ever

    async def _query(self) -> None:
        batch = dict(islice(self._queued.items(), self._batch_max))
        for key in batch:
            del self._queued[key]
        self._flying.update(batch)
        try:
            found = await self._fetch(tuple(batch))
        except Exception as error:  # noqa: BLE001 - every waiter gets it
            for key, flight in batch.items():
                self._land(key, flight)
                if not flight.done():
                    flight.set_exception(error)
            return
        except asyncio.CancelledError:
            for flight in batch.values():
                flight.cancel()
            raise
        absent_until = self._clock() + self._absent_s
        for key, flight in batch.items():
            value = found.get(key)
            if self._land(key, flight) and self._trusted:
                if value is None:
                    self._found.pop(key)
                    self._absent.put(key, absent_until)
                else:
                    self._found.put(key, value)
            if not flight.done():
                flight.set_result(value)

    def _land(self, key: K, flight: asyncio.Future[V | None]) -> bool:
        """Whether nothing was invalidated since this query left."""
        if self._flying.get(key) is not flight:
            return False
        del self._flying[key]
        return True


def _look_at(flight: asyncio.Future[V | None]) -> None:
    if not flight.cancelled():
        flight.exception()  # otherwise asyncio logs "never retrieved" when every waiter has given up
