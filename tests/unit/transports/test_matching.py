"""Which answer is whose: one request per key, time-outs, late and second answers, bounds."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switch.transports.matching import HEAP_SLACK, Begin, Belongs, Found, Matcher


def matcher(in_flight: int = 3, remembered: int = 4, remember_s: float = 10.0) -> Matcher[str, str]:
    return Matcher(in_flight, remembered, remember_s)


#   What happens, in order, one line each: action, key, at, and what comes of it.
COURSES: dict[str, list[tuple[str, str, float, Any]]] = {
    "an answer finds its request once": [
        ("begin", "a", 5, Begin.GOOD),
        ("answer", "a", 1, (Belongs.WAITING, "a")),
        ("answer", "a", 2, (Belongs.TWICE, None)),
        ("expire", "", 9, []),
    ],
    "after the time-out it is late, once": [
        ("begin", "a", 5, Begin.GOOD),
        ("expire", "", 4.9, []),
        ("expire", "", 5, ["a"]),
        ("answer", "a", 6, (Belongs.LATE, "a")),
        ("answer", "a", 6, (Belongs.TWICE, None)),
    ],
    "of an answer that is kept the second one is told whose it is, until the key begins again": [
        ("begin", "a", 5, Begin.GOOD),
        ("answer and keep", "a", 1, (Belongs.WAITING, "a")),
        ("answer", "a", 2, (Belongs.TWICE, "a")),
        ("answer", "a", 3, (Belongs.TWICE, "a")),
        ("begin", "a", 9, Begin.GOOD),
        ("answer", "a", 4, (Belongs.WAITING, "a")),
        ("answer", "a", 5, (Belongs.TWICE, None)),
    ],
    "what nobody asked for belongs nowhere": [("answer", "x", 1, (Belongs.NOWHERE, None))],
    "a key in flight is refused, another is not": [
        ("begin", "a", 5, Begin.GOOD),
        ("begin", "a", 9, Begin.IN_USE),
        ("begin", "b", 5, Begin.GOOD),
    ],
    "the bound refuses and leaves room when one ends": [
        ("begin", "a", 5, Begin.GOOD),
        ("begin", "b", 6, Begin.GOOD),
        ("begin", "c", 7, Begin.GOOD),
        ("begin", "d", 8, Begin.FULL),
        ("begin", "a", 8, Begin.IN_USE),
        ("answer", "b", 1, (Belongs.WAITING, "b")),
        ("begin", "d", 8, Begin.GOOD),
    ],
    "a repeat takes the place of the one that timed out": [
        ("begin", "a", 5, Begin.GOOD),
        ("expire", "", 5, ["a"]),
        ("begin", "a", 20, Begin.GOOD),
        ("expire", "", 19, []),
        ("answer", "a", 19, (Belongs.WAITING, "a")),
    ],
    "an early deadline does not end a later request of the same key": [
        ("begin", "a", 5, Begin.GOOD),
        ("answer", "a", 1, (Belongs.WAITING, "a")),
        ("begin", "a", 50, Begin.GOOD),
        ("expire", "", 6, []),
        ("answer", "a", 7, (Belongs.WAITING, "a")),
    ],
    "giving up makes a later answer late": [
        ("begin", "a", 5, Begin.GOOD),
        ("give up", "a", 1, "a"),
        ("give up", "a", 1, None),
        ("expire", "", 6, []),
        ("answer", "a", 7, (Belongs.LATE, "a")),
    ],
    "what ended long ago is forgotten": [
        ("begin", "a", 5, Begin.GOOD),
        ("expire", "", 5, ["a"]),
        ("expire", "", 14.9, []),
        ("waiter", "a", 0, "a"),
        ("expire", "", 15, []),
        ("waiter", "a", 0, None),
        ("answer", "a", 15, (Belongs.NOWHERE, None)),
    ],
}


@pytest.mark.parametrize("course", COURSES)
def test_a_course_of_events(course: str) -> None:
    matching = matcher()
    for action, key, at, expected in COURSES[course]:
        if action == "begin":
            assert matching.may_begin(key) is expected
            assert matching.begin(key, key, at) is expected
        elif action in ("answer", "answer and keep"):
            assert matching.answer(key, at, keep=action != "answer") == Found(*expected)
        elif action == "give up":
            assert matching.give_up(key, at) == expected
        elif action == "waiter":
            assert matching.waiter(key) == expected
        else:
            assert [waiter for _, waiter in matching.expire(at)] == expected


def test_deadlines_end_in_their_order_and_the_next_one_is_known() -> None:
    matching = matcher(in_flight=10)
    for key, deadline in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        matching.begin(key, key, deadline)
    assert matching.next_deadline_s == 1.0
    matching.answer("a", 0.5)
    assert matching.next_deadline_s == 2.0
    assert [key for key, _ in matching.expire(9.0)] == ["b", "c"]
    assert matching.next_deadline_s is None


def test_a_million_answered_requests_leave_nothing_but_the_memory_that_is_bounded() -> None:
    matching: Matcher[int, int] = Matcher(100, 50, 1e9)
    for number in range(1_000_000):
        matching.begin(number, number, 1e9)
        if number >= 20:
            matching.answer(number - 20, 1.0)
    assert len(matching) == 20
    assert (len(matching._answered), matching.remembered) == (50, 0)
    assert len(matching._deadlines) <= 2 * 21 + HEAP_SLACK


def test_many_answers_do_not_push_out_what_was_given_up() -> None:
    matching: Matcher[int, int] = Matcher(10, 3, 600.0)
    for key in (1, 2):
        matching.begin(key, key, 1.0)
    matching.expire(1.0)
    for key in range(100, 200):
        matching.begin(key, key, 9.0)
        assert matching.answer(key, 2.0).belongs is Belongs.WAITING
    assert [matching.answer(key, 3.0) for key in (1, 2)] == [Found(Belongs.LATE, 1), Found(Belongs.LATE, 2)]
    assert matching.answer(199, 3.0).belongs is Belongs.TWICE
    assert matching.answer(100, 3.0).belongs is Belongs.NOWHERE


@given(st.lists(st.tuples(st.sampled_from("bagx"), st.integers(0, 5), st.integers(0, 3)), max_size=80))
@settings(max_examples=200, deadline=None)
def test_every_request_ends_once_whatever_the_order(events: list[tuple[str, int, int]]) -> None:
    matching: Matcher[int, int] = Matcher(4, 6, 4.0)
    begun: set[int] = set()
    ended: list[int] = []
    waiting: dict[int, int] = {}
    now = 0.0
    for serial, (action, key, wait) in enumerate(events):
        if action == "b" and matching.begin(key, serial, now + wait) is Begin.GOOD:
            assert key not in waiting
            begun.add(serial)
            waiting[key] = serial
        elif action == "a":
            found = matching.answer(key, now)
            assert (found.belongs is Belongs.WAITING) == (key in waiting)
            if found.belongs is Belongs.WAITING:
                assert found.waiter == waiting.pop(key)
                ended.append(found.waiter)
        elif action == "g":
            given = matching.give_up(key, now)
            assert given == waiting.pop(key, None)
            ended += [] if given is None else [given]
        elif action == "x":
            now += wait
            for gone, waiter in matching.expire(now):
                assert waiting.pop(gone) == waiter
                ended.append(waiter)
        assert len(matching) == len(waiting) <= 4
        assert matching.remembered <= 6
    ended += [waiter for _, waiter in matching.expire(now + 10)]
    assert sorted(ended) == sorted(begun)
