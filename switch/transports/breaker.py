"""When to leave a host in peace: a circuit breaker and a retry budget. No clock: monotonic seconds go in.

CLOSED lets everything pass. Too many unknown ends among the last ones open it: requests are refused at once, so that no
customer waits for a host that does not answer. After a pause it is HALF_OPEN: a few requests are let through as probes.
If all of them are answered it closes; one that is not opens it again, for twice as long.
"""

from collections import deque
from dataclasses import dataclass
from enum import IntEnum


class BreakerState(IntEnum):
    """The numbers are shown in metrics."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerTerms:
    """failures: unknown ends among the last 2 × failures that open it. Pauses double from open_s to open_max_s."""

    failures: int = 10
    open_s: float = 2.0
    open_max_s: float = 60.0
    probes: int = 3


class Breaker:
    """One host's breaker.

    Whoever is admitted gets a ticket and gives it back with the end. Tickets of an earlier state count for nothing: what was
    asked before the breaker opened must neither close it nor open it anew.
    """

    def __init__(self, terms: BreakerTerms) -> None:
        self._terms = terms
        self._state = BreakerState.CLOSED
        self._ends: deque[bool] = deque(maxlen=2 * terms.failures)
        self._ticket = 0
        self._open_until_s = 0.0
        self._pause_s = terms.open_s
        self._probing = 0
        self._proved = 0

    def state(self, now_s: float) -> BreakerState:
        """What it is now."""
        if self._state is BreakerState.OPEN and now_s >= self._open_until_s:
            return BreakerState.HALF_OPEN
        return self._state

    def may_admit(self, now_s: float) -> bool:
        """Whether `admit` would give a ticket."""
        state = self.state(now_s)
        if state is BreakerState.HALF_OPEN:
            return self._state is BreakerState.OPEN or self._probing + self._proved < self._terms.probes
        return state is BreakerState.CLOSED

    def admit(self, now_s: float) -> int | None:
        """A ticket for one request, or None: not now."""
        if not self.may_admit(now_s):
            return None
        if self._state is BreakerState.OPEN:
            self._enter(BreakerState.HALF_OPEN)
        if self._state is BreakerState.HALF_OPEN:
            self._probing += 1
        return self._ticket

    def withdrawn(self, ticket: int) -> None:
        """The request was not sent after all."""
        if ticket == self._ticket and self._state is BreakerState.HALF_OPEN:
            self._probing -= 1

    def ended(self, ticket: int, *, answered: bool, now_s: float) -> None:
        """The end of an admitted request. answered: the host said something usable, be it a refusal."""
        if ticket != self._ticket:
            return
        if self._state is BreakerState.HALF_OPEN:
            self._probing -= 1
            if not answered:
                self._open(now_s)
                return
            self._proved += 1
            if self._proved >= self._terms.probes:
                self._enter(BreakerState.CLOSED)
                self._pause_s = self._terms.open_s
            return
        self._ends.append(answered)
        if not answered and self._ends.count(False) >= self._terms.failures:
            self._open(now_s)

    def _open(self, now_s: float) -> None:
        if self._state is BreakerState.HALF_OPEN:
            self._pause_s = min(2 * self._pause_s, self._terms.open_max_s)
        self._enter(BreakerState.OPEN)
        self._open_until_s = now_s + self._pause_s

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._ticket += 1
        self._ends.clear()
        self._probing = self._proved = 0


class RetryBudget:
    """Repeats are paid for by answers, so that they cannot become most of what a struggling host gets.

    Each answer earns `ratio` of a repeat, and each second earns `per_s`, up to `saved_max`.
    """

    def __init__(self, ratio: float, per_s: float, saved_max: float, now_s: float) -> None:
        self._ratio = ratio
        self._per_s = per_s
        self._saved_max = saved_max
        self._saved = saved_max
        self._seen_s = now_s

    def answered(self) -> None:
        """The host has answered a request."""
        self._saved = min(self._saved + self._ratio, self._saved_max)

    def take(self, now_s: float) -> bool:
        """Whether one more repeat may be sent."""
        self._saved = min(self._saved + (now_s - self._seen_s) * self._per_s, self._saved_max)
        self._seen_s = now_s
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
