"""Requests to answers by key. No socket, no clock: instants in monotonic seconds go in.

A key has one request at a time. When that has ended, the key is remembered for a while, so that an answer that comes
after the time-out is told from one that comes twice and from one that nobody ever asked for. All of it is bounded; what was
given up is kept apart from what was answered, so that a busy hour cannot push the few out that matter.
"""

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum, auto
from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
WaiterT = TypeVar("WaiterT")
EndedT = TypeVar("EndedT")

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
    TWICE = auto()  # its request has been answered; who waited is known where `answer` was told to keep it
    NOWHERE = auto()


class Found(NamedTuple, Generic[WaiterT]):
    """Where an answer belongs, and who waits or waited for it; None when nobody is known."""

    belongs: Belongs
    waiter: WaiterT | None


class Matcher(Generic[KeyT, WaiterT]):
    """At most `in_flight_max` requests wait; of those given up and those answered `remembered_max` each are remembered.

    remember_s: for how long.
    """

    def __init__(self, in_flight_max: int, remembered_max: int, remember_s: float) -> None:
        self._in_flight_max = in_flight_max
        self._remembered_max = remembered_max
        self._remember_s = remember_s
        self._waiting: dict[KeyT, tuple[WaiterT, float, int]] = {}
        self._given_up: OrderedDict[KeyT, tuple[float, WaiterT]] = OrderedDict()
        self._answered: OrderedDict[KeyT, tuple[float, WaiterT | None]] = OrderedDict()
        self._deadlines: list[tuple[float, int, KeyT]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def remembered(self) -> int:
        """Requests that were given up and whose late answer would be known."""
        return len(self._given_up)

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
        self._given_up.pop(key, None)
        self._answered.pop(key, None)
        self._serial += 1
        self._waiting[key] = (waiter, deadline_s, self._serial)
        if len(self._deadlines) >= 2 * len(self._waiting) + HEAP_SLACK:  # mostly of answered ones
            self._deadlines = [(until, serial, held) for held, (_, until, serial) in self._waiting.items()]
            heapify(self._deadlines)
        else:
            heappush(self._deadlines, (deadline_s, self._serial, key))
        return Begin.GOOD

    def answer(self, key: KeyT, now_s: float, *, keep: bool = False) -> Found[WaiterT]:
        """An answer has come. The first one ends the waiting; a late one is told once.

        keep: a second answer may say something else that matters, so who waited is remembered with the key.
        """
        held = self._waiting.pop(key, None)
        if held is not None:
            self._remember(self._answered, key, now_s, held[0] if keep else None)
            return Found(Belongs.WAITING, held[0])
        late = self._given_up.pop(key, None)
        if late is not None:
            self._remember(self._answered, key, now_s, None)
            return Found(Belongs.LATE, late[1])
        answered = self._answered.get(key)
        if answered is None:
            return Found(Belongs.NOWHERE, None)
        return Found(Belongs.TWICE, answered[1])

    def waiter(self, key: KeyT) -> WaiterT | None:
        """Who waits for the answer of this key, has given up waiting or was kept, without ending anything."""
        held = self._waiting.get(key)
        if held is not None:
            return held[0]
        ended = self._given_up.get(key) or self._answered.get(key)
        return ended[1] if ended is not None else None

    def give_up(self, key: KeyT, now_s: float) -> WaiterT | None:
        """End one request without an answer; one that comes later is late. Returns who waited."""
        held = self._waiting.pop(key, None)
        if held is None:
            return None
        self._remember(self._given_up, key, now_s, held[0])
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
        self._forget(self._given_up, now_s)
        self._forget(self._answered, now_s)
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

    def _remember(
        self, among: OrderedDict[KeyT, tuple[float, EndedT]], key: KeyT, now_s: float, waiter: EndedT
    ) -> None:
        while len(among) >= self._remembered_max:
            among.popitem(last=False)
        among[key] = (now_s, waiter)

    def _forget(self, among: OrderedDict[KeyT, tuple[float, EndedT]], now_s: float) -> None:
        while among and next(iter(among.values()))[0] <= now_s - self._remember_s:
            among.popitem(last=False)
