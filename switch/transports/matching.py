"""Requests to answers by key. No socket, no clock: instants in monotonic seconds go in.

A key has one request at a time. When that has ended, the key is remembered for a while, so that an answer that comes
after the time-out is told from one that comes twice and from one that nobody ever asked for. All of it is bounded.
"""

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum, auto
from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
WaiterT = TypeVar("WaiterT")

HEAP_SLACK = 64


class Begin(Enum):
    """Whether a request may go out."""

    GOOD = auto()
    FULL = auto()
    IN_USE = auto()  # a request with this key is unanswered: its answer could not be told from this one's


class Belongs(Enum):
    """Where an answer belongs."""

    WAITING = auto()
    LATE = auto()  # its request was given up
    TWICE = auto()  # its request has been answered
    NOWHERE = auto()


class Found(NamedTuple, Generic[WaiterT]):
    """Where an answer belongs, and who waits or waited for it; None when nobody is known."""

    belongs: Belongs
    waiter: WaiterT | None


class _Ended(NamedTuple, Generic[WaiterT]):
    at_s: float
    given_up: WaiterT | None  # None: answered


class Matcher(Generic[KeyT, WaiterT]):
    """At most `in_flight_max` requests wait; at most `remembered_max` ended ones are remembered, each for `remember_s`."""

    def __init__(self, in_flight_max: int, remembered_max: int, remember_s: float) -> None:
        self._in_flight_max = in_flight_max
        self._remembered_max = remembered_max
        self._remember_s = remember_s
        self._waiting: dict[KeyT, tuple[WaiterT, float, int]] = {}
        self._ended: OrderedDict[KeyT, _Ended[WaiterT]] = OrderedDict()
        self._deadlines: list[tuple[float, int, KeyT]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def remembered(self) -> int:
        """Ended requests that are still known."""
        return len(self._ended)

    def may_begin(self, key: KeyT) -> Begin:
        """What `begin` would say."""
        if key in self._waiting:
            return Begin.IN_USE
        return Begin.FULL if len(self._waiting) >= self._in_flight_max else Begin.GOOD

    def begin(self, key: KeyT, waiter: WaiterT, deadline_s: float) -> Begin:
        """Let a request wait until deadline_s. A key that has ended may begin again: that is a repeat."""
        may = self.may_begin(key)
        if may is not Begin.GOOD:
            return may
        self._ended.pop(key, None)
        self._serial += 1
        self._waiting[key] = (waiter, deadline_s, self._serial)
        if len(self._deadlines) >= 2 * len(self._waiting) + HEAP_SLACK:  # mostly of answered ones
            self._deadlines = [(until, serial, held) for held, (_, until, serial) in self._waiting.items()]
            heapify(self._deadlines)
        else:
            heappush(self._deadlines, (deadline_s, self._serial, key))
        return Begin.GOOD

    def answer(self, key: KeyT, now_s: float) -> Found[WaiterT]:
        """An answer has come. The first one ends the waiting; a late one is told once."""
        held = self._waiting.pop(key, None)
        if held is not None:
            self._remember(key, None, now_s)
            return Found(Belongs.WAITING, held[0])
        ended = self._ended.get(key)
        if ended is None:
            return Found(Belongs.NOWHERE, None)
        if ended.given_up is None:
            return Found(Belongs.TWICE, None)
        self._ended[key] = ended._replace(given_up=None)
        return Found(Belongs.LATE, ended.given_up)

    def waiter(self, key: KeyT) -> WaiterT | None:
        """Who waits for the answer of this key, or has given up waiting, without ending anything."""
        held = self._waiting.get(key)
        if held is not None:
            return held[0]
        ended = self._ended.get(key)
        return ended.given_up if ended is not None else None

    def give_up(self, key: KeyT, now_s: float) -> WaiterT | None:
        """End one request without an answer; one that comes later is late. Returns who waited."""
        held = self._waiting.pop(key, None)
        if held is None:
            return None
        self._remember(key, held[0], now_s)
        return held[0]

    def expire(self, now_s: float) -> list[tuple[KeyT, WaiterT]]:
        """Give up what has reached its deadline, and forget what ended long ago. Returns who waited."""
        expired: list[tuple[KeyT, WaiterT]] = []
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now_s:
            _, serial, key = heappop(deadlines)
            held = self._waiting.get(key)
            if held is not None and held[2] == serial:  # else it was answered, and maybe asked again
                expired.append((key, held[0]))
                self.give_up(key, now_s)
        while self._ended and next(iter(self._ended.values())).at_s <= now_s - self._remember_s:
            self._ended.popitem(last=False)
        return expired

    @property
    def next_deadline_s(self) -> float | None:
        """When `expire` has something to do at the earliest; None when nothing waits."""
        while self._deadlines:
            until, serial, key = self._deadlines[0]
            held = self._waiting.get(key)
            if held is not None and held[2] == serial:
                return until
            heappop(self._deadlines)
        return None

    def _remember(self, key: KeyT, given_up: WaiterT | None, now_s: float) -> None:
        while len(self._ended) >= self._remembered_max:
            self._ended.popitem(last=False)
        self._ended[key] = _Ended(now_s, given_up)
