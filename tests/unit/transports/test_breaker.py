"""The breaker and the retry budget, as courses of events."""

import pytest

from switch.transports.breaker import Breaker, BreakerState, BreakerTerms, RetryBudget

TERMS = BreakerTerms(failures=3, open_s=2.0, open_max_s=6.0, probes=2)


def send(breaker: Breaker, pattern: str, at: float) -> str:
    """One request after another: `+` answered, `-` unknown. What became of each: the same sign, or `x` refused."""
    told = ""
    for end in pattern:
        ticket = breaker.admit(at)
        told += "x" if ticket is None else end
        if ticket is not None:
            breaker.ended(ticket, answered=end == "+", now_s=at)
    return told


#   at, pattern, what is let through, state afterwards
COURSES = {
    "three unknown ends in a row open it": [
        (0, "--", "--", "CLOSED"),
        (0, "-", "-", "OPEN"),
        (1.9, "+", "x", "OPEN"),
    ],
    "so do three among six": [(0, "-+-+-", "-+-+-", "OPEN")],
    "two among six do not": [(0, "-+++++-+++++-", "-+++++-+++++-", "CLOSED")],
    "refusals are answers": [(0, "+" * 50, "+" * 50, "CLOSED")],
    "good probes close it": [(0, "---", "---", "OPEN"), (2, "+", "+", "HALF_OPEN"), (2, "+", "+", "CLOSED")],
    "a bad probe opens it for twice as long": [
        (0, "---", "---", "OPEN"),
        (2, "-", "-", "OPEN"),
        (5.9, "+", "x", "OPEN"),
        (6, "-", "-", "OPEN"),
        (11.9, "+", "x", "OPEN"),  # 8 s would be above the longest pause of 6
        (12, "++", "++", "CLOSED"),
        (12, "---", "---", "OPEN"),
        (14, "++", "++", "CLOSED"),
    ],
}


@pytest.mark.parametrize("course", COURSES)
def test_a_course_of_events(course: str) -> None:
    breaker = Breaker(TERMS)
    for at, pattern, through, state in COURSES[course]:
        assert send(breaker, pattern, at) == through
        assert breaker.state(at).name == state


def test_only_so_many_probes_are_under_way_at_once() -> None:
    breaker = Breaker(TERMS)
    send(breaker, "---", 0)
    assert breaker.state(2) is BreakerState.HALF_OPEN
    assert breaker.may_admit(2)
    tickets = [breaker.admit(2) for _ in range(4)]
    assert [ticket is None for ticket in tickets] == [False, False, True, True]
    assert tickets[0] is not None
    breaker.withdrawn(tickets[0])
    assert breaker.may_admit(2)


def test_what_was_asked_before_it_opened_neither_opens_nor_closes_it() -> None:
    breaker = Breaker(TERMS)
    early = [breaker.admit(0) for _ in range(20)]
    send(breaker, "---", 0)
    for ticket in early[:10]:
        assert ticket is not None
        breaker.ended(ticket, answered=True, now_s=1)
    assert breaker.state(1) is BreakerState.OPEN
    assert breaker.admit(2) is not None
    for ticket in early[10:]:
        assert ticket is not None
        breaker.ended(ticket, answered=False, now_s=2)
        breaker.withdrawn(ticket)
    assert breaker.state(2) is BreakerState.HALF_OPEN


def test_repeats_are_paid_for_by_answers_and_by_time() -> None:
    budget = RetryBudget(ratio=0.5, per_s=1.0, saved_max=2.0, now_s=0.0)
    assert [budget.take(0.0) for _ in range(3)] == [True, True, False]
    for _ in range(2):
        budget.answered()
    assert [budget.take(0.0) for _ in range(2)] == [True, False]
    assert not budget.take(0.9)
    assert budget.take(1.0)
    assert [budget.take(1e6) for _ in range(3)] == [True, True, False]
