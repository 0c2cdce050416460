"""Bounded caches and shared look-ups, without a database."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from switch.domain.errors import DatabaseLost, Overloaded
from switch.registry.cache import Lookup, RecentMap


class Shelf:
    """Stands where the database stands; can be slow, and can fail."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.queries: list[tuple[str, ...]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def fetch(self, keys: Sequence[str]) -> Mapping[str, str]:
        self.queries.append(tuple(keys))
        found = {key: self.values[key] for key in keys if key in self.values}  # as of now, not of the answer
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return found


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def _turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_recent_map_never_holds_more_than_its_capacity_and_keeps_what_is_used() -> None:
    recent: RecentMap[int, int] = RecentMap(100)
    recent.put(-1, 1)
    for number in range(10_000):
        recent.put(number, number)
        assert recent.get(-1) == 1
        assert len(recent) <= 100
    assert recent.get(9_999) == 9_999
    assert recent.get(0) is None
    recent.pop(-1)
    assert recent.get(-1) is None
    recent.clear()
    assert list(recent) == []


def test_a_recent_map_of_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity"):
        RecentMap(1)


async def test_waiters_for_one_key_share_a_query_and_waiting_keys_share_the_next() -> None:
    shelf = Shelf(a="1", b="2", c="3")
    lookup = Lookup(shelf.fetch, capacity=10, queries_max=1)
    shelf.open.clear()
    tasks = [asyncio.create_task(lookup.load(key)) for key in "abcabca"]
    await _turn()
    shelf.open.set()
    assert await asyncio.gather(*tasks) == ["1", "2", "3", "1", "2", "3", "1"]
    assert sorted(key for query in shelf.queries for key in query) == ["a", "b", "c"]
    assert lookup.get("a") == "1"
    assert await lookup.load_many(["a", "b", "x"]) == {"a": "1", "b": "2", "x": None}
    await lookup.close()


async def test_absence_is_remembered_for_a_moment_only() -> None:
    shelf, clock = Shelf(), Clock()
    lookup = Lookup(shelf.fetch, capacity=10, absent_s=1.0, clock=clock)
    assert await lookup.load("a") is None
    shelf.values["a"] = "1"
    assert await lookup.load("a") is None
    assert len(shelf.queries) == 1
    clock.now_s += 1.0
    assert await lookup.load("a") == "1"
    lookup.forget_absent()
    await lookup.close()


async def test_made_up_keys_do_not_push_out_real_ones() -> None:
    shelf = Shelf(a="1")
    lookup = Lookup(shelf.fetch, capacity=4, absent_max=100)
    await lookup.load("a")
    await lookup.load_many([f"made up {number}" for number in range(1000)])
    assert lookup.get("a") == "1"
    await lookup.close()


async def test_what_is_invalidated_on_its_way_serves_its_waiters_and_is_not_kept() -> None:
    shelf = Shelf(a="old")
    lookup = Lookup(shelf.fetch, capacity=10)
    shelf.open.clear()
    waiter = asyncio.create_task(lookup.load("a"))
    await _turn()
    shelf.values["a"] = "new"
    lookup.invalidate("a")
    second = asyncio.create_task(lookup.load("a"))
    await _turn()
    shelf.open.set()
    assert await waiter == "old"
    assert await second == "new"
    assert lookup.get("a") == "new"
    await lookup.close()


async def test_a_reload_sees_what_was_written_before_it_was_asked_for_even_behind_a_slow_query() -> None:
    shelf = Shelf(a="old")
    lookup = Lookup(shelf.fetch, capacity=10)
    shelf.open.clear()
    slow = asyncio.create_task(lookup.load("a"))
    await _turn()
    shelf.values["a"] = "new"
    reloads = [asyncio.create_task(lookup.reload("a")) for _ in range(50)]
    await _turn()
    shelf.open.set()
    assert await slow == "old"
    assert set(await asyncio.gather(*reloads)) == {"new"}
    assert len(shelf.queries) <= 3
    assert lookup.get("a") == "new"
    await lookup.close()


async def test_nothing_is_kept_while_changes_are_not_heard() -> None:
    shelf = Shelf(a="1")
    lookup = Lookup(shelf.fetch, capacity=10)
    await lookup.load("a")
    lookup.distrust()
    assert lookup.get("a") is None
    assert await lookup.load("a") == "1"
    assert lookup.get("a") is None
    shelf.open.clear()
    early = asyncio.create_task(lookup.load("a"))
    await _turn()
    lookup.trust()
    shelf.open.set()
    assert await early == "1"
    assert lookup.get("a") is None  # read before the changes were heard again
    await lookup.load("a")
    assert lookup.get("a") == "1"
    await lookup.close()


async def test_a_failed_query_fails_its_waiters_and_the_next_one_tries_again() -> None:
    shelf = Shelf(a="1")
    lookup = Lookup(shelf.fetch, capacity=10)
    shelf.error = DatabaseLost("gone")
    with pytest.raises(DatabaseLost):
        await lookup.load("a")
    shelf.error = None
    assert await lookup.load("a") == "1"
    await lookup.close()


async def test_too_many_waiting_keys_are_refused_at_once() -> None:
    shelf = Shelf()
    lookup = Lookup(shelf.fetch, capacity=10, waiting_max=3, batch_max=1, queries_max=1)
    shelf.open.clear()
    tasks = [asyncio.create_task(lookup.load("a"))]  # its query leaves; the others wait
    await _turn()
    tasks += [asyncio.create_task(lookup.load(key)) for key in "bcd"]
    await _turn()
    with pytest.raises(Overloaded):
        await lookup.load("e")
    shelf.open.set()
    await asyncio.gather(*tasks)
    await lookup.close()


async def test_a_waiter_who_gives_up_takes_the_answer_from_nobody() -> None:
    shelf = Shelf(a="1")
    lookup = Lookup(shelf.fetch, capacity=10)
    shelf.open.clear()
    first, second = (asyncio.create_task(lookup.load("a")) for _ in range(2))
    await _turn()
    first.cancel()
    await _turn()
    shelf.open.set()
    assert await second == "1"
    await lookup.close()


async def test_closing_cancels_what_is_waited_for_and_refuses_more() -> None:
    shelf = Shelf()
    lookup = Lookup(shelf.fetch, capacity=10, queries_max=1, batch_max=1)
    shelf.open.clear()
    tasks = [asyncio.create_task(lookup.load(key)) for key in "ab"]
    await _turn()
    await lookup.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    with pytest.raises(Overloaded):
        await lookup.load("c")


async def test_a_key_asked_for_in_the_turn_in_which_the_last_query_ends_is_looked_up() -> None:
    gate = asyncio.Event()

    async def fetch(keys: Sequence[str]) -> dict[str, str]:
        await gate.wait()
        return {key: key.upper() for key in keys}

    lookup: Lookup[str, str] = Lookup(fetch, capacity=10, queries_max=1)
    first = asyncio.create_task(lookup.load("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.set()  # the worker goes on in the next turn, ends in it, and right behind it comes the second
    second = asyncio.create_task(lookup.load("b"))
    async with asyncio.timeout(60):
        assert await asyncio.gather(first, second) == ["A", "B"]
    await lookup.close()


async def test_a_reload_that_a_stranger_provokes_makes_nobody_else_wait() -> None:
    shelf = Shelf(a="old")
    lookup = Lookup(shelf.fetch, capacity=10)
    await lookup.load("a")
    shelf.open.clear()
    provoked = asyncio.create_task(lookup.reload("a"))
    await _turn()
    assert lookup.get("a") == "old"
    del shelf.values["a"]
    again = asyncio.create_task(lookup.reload("a"))
    await _turn()
    shelf.open.set()
    assert (await provoked, await again) == ("old", None)
    assert lookup.get("a") is None
    await lookup.close()
