"""Tells a host what the outbox holds for it, until it has confirmed: one forwarder for each host, in every serving process.

Messages of many transactions go out side by side, those of one transaction one after the other: only the oldest open one can be claimed.
How many are on their way is a window that opens with each answer and closes when the host falters, and how many leave in a second has a
bound: a host that comes back is not met by everything at once, and neither are the processors by which terminals are served. Nothing is
kept here: a process that dies leaves its claims to the next one when their lease is over.
"""

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from secrets import SystemRandom
from typing import Any, Final, Protocol

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.domain.errors import DependencyError
from switch.domain.hosts import HostDown, HostTimeout, Refusal
from switch.ledger.outbox import Due, End, Verdict, claim, figures, record
from switch.routing.advices import UNSENDABLE, BackOff, end_of, request_of
from switch.routing.hosts import HostLink
from switch.storage.pool import end_tasks

log = structlog.get_logger(__name__)

POLL_S: Final = 1.0
FIRST_WINDOW: Final = 2
LEASE_MARGIN_S: Final = 30.0  # beyond the time-out, to write down what became of it
SAID_MAX: Final = 120  # characters of `last_end`
PORTION_S: Final = 0.05  # what may leave in so long is claimed at once
SLICE: Final = 16  # messages between two breaths of the event loop
HOST_DOWN_PAUSE_S: Final = 0.25
DATABASE_PAUSE_S: Final = 1.0
STOP_S: Final = 2.0
COUNT_EVERY_S: Final = 10.0
Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]
# Refusals that say nothing about the next message.
_OF_ONE_MESSAGE: Final = frozenset({Refusal.RETRY_BUDGET, Refusal.KEY_IN_USE})


class ForwardWatch(Protocol):
    """What operators see of the outbox."""

    def host_forwarded(self, host: str, end: str, count: int) -> None:
        """So many messages ended: `confirmed`, `refused`, `later`, `unknown`, `not_sent`."""

    def outbox(self, figures: Mapping[str, tuple[int, int, float]]) -> None:
        """By host: open messages, refused ones, age of the oldest open one in seconds."""


@dataclass(frozen=True, slots=True)
class ForwardTerms:
    """in_flight_max: messages of the outbox that one process has on their way to the host. answer_s: the link's time-out.

    per_s: messages that one process sends in a second.
    """

    answer_s: float
    in_flight_max: int = 256
    back_off: BackOff = field(default_factory=BackOff)
    per_s: float = 1_200.0


class Forwarder:
    """Use: run() as a task, until cancelled or stop(); wake() when a message was added or the host came back."""

    def __init__(
        self,
        link: HostLink,
        connect: Connect,
        shards: Iterable[int],
        terms: ForwardTerms,
        watch: ForwardWatch,
        *,
        now_s: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] | None = None,
    ) -> None:
        self._link = link
        self._connect = connect
        self._shards = tuple(shards)
        self._terms = terms
        self._watch = watch
        self._now_s = now_s
        self._uniform = uniform or SystemRandom().uniform
        self._woken = asyncio.Event()
        self._stopping = False
        self._window = FIRST_WINDOW
        self._held = 0  # claimed, and not written down yet
        self._quiet_until_s = 0.0
        self._may = self._portion = max(terms.per_s * PORTION_S, 1.0)  # messages that may leave by now
        self._counted_s = now_s()
        self._turn = 0
        self._asking: set[asyncio.Task[None]] = set()
        self._ended: list[End] = []
        self._any_ended = asyncio.Event()

    @property
    def held(self) -> int:
        """Messages that this process has claimed and not written down."""
        return self._held

    def wake(self) -> None:
        """Look now. Cheap: an event."""
        self._woken.set()

    async def run(self) -> None:
        """Forward until stopped. What goes wrong is logged and tried again."""
        recorder = asyncio.get_running_loop().create_task(self._keep_recording())
        try:
            while not self._stopping:
                self._woken.clear()
                pause_s = POLL_S
                try:
                    pause_s = await self._claim()
                except (psycopg.Error, OSError, DependencyError) as error:
                    log.warning(
                        "outbox not read; tried again", host=self._link.name, error=type(error).__name__
                    )
                except Exception:  # our own fault, and no reason to leave a host untold for ever
                    log.exception("outbox not read; tried again", host=self._link.name)
                if pause_s:
                    # Not wait_for: it swallows a cancellation that comes with the wake-up, and this would run for ever.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause_s):
                            await self._woken.wait()
            await self._finish()
        finally:
            await end_tasks(recorder, *self._asking)

    def stop(self) -> None:
        """Claim nothing more; run() returns when what is on its way has ended, or after STOP_S."""
        self._stopping = True
        self.wake()

    async def _finish(self) -> None:
        """Wait for what is on its way. What is left then stays claimed until its lease is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                while self._held:
                    self._woken.clear()
                    await self._woken.wait()

    # ------------------------------------------------------------------ claiming and sending

    async def _claim(self) -> float:
        """Claim what there is room for, and send it. Returns the seconds after which to look again: 0 when more may be due."""
        now_s = self._now_s()
        limit = min(self._window, self._terms.in_flight_max)
        room = limit - self._held
        # Not for every place that becomes free: a claim costs about as much for one as for some hundred.
        if now_s < self._quiet_until_s or not self._link.usable or room < 1 or 4 * room < limit:
            return POLL_S
        short_s = self._short_s(now_s)
        if short_s > 0:
            return short_s
        room = min(room, int(self._may))
        lease_s = self._terms.answer_s + LEASE_MARGIN_S
        first = self._turn
        async with self._connect() as connection:
            for step in range(len(self._shards)):
                self._turn = (first + step) % len(self._shards)
                shard = self._shards[self._turn]
                due = await claim(connection, shard, self._link.name, limit=room, lease_s=lease_s)
                self._held += len(due)
                self._may -= len(due)
                room -= len(due)
                await self._send(due, now_s)
                if not room:
                    self._turn += 1  # the next shard is the first next time, or one could starve the others
                    return 0.0
        self._turn = 0
        return POLL_S

    def _short_s(self, now_s: float) -> float:
        """Seconds until a whole portion may leave; 0 or less when it may. What was not sent is saved up to one portion more."""
        self._may = min(self._may + (now_s - self._counted_s) * self._terms.per_s, 2 * self._portion)
        self._counted_s = now_s
        return (self._portion - self._may) / self._terms.per_s

    async def _send(self, due: list[Due], claimed_s: float) -> None:
        loop = asyncio.get_running_loop()
        for place, message in enumerate(due, start=1):
            task = loop.create_task(self._ask(message, claimed_s + self._terms.answer_s))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
            if place % SLICE == 0:
                await asyncio.sleep(0)

    async def _ask(self, message: Due, deadline_s: float) -> None:
        """One message to its end, which is written down with others."""
        try:
            outcome = await self._link.ask(
                request_of(message), deadline_s=deadline_s, repeat=message.tries > 0
            )
        except ValueError as error:  # it cannot be made of what is stored: people must look into it
            self._window = min(self._window + 1, self._terms.in_flight_max)
            said = f"{UNSENDABLE}: {error}"[:SAID_MAX]
            self._end(End(message, Verdict.REFUSED, said, tried=False))
            return
        except Exception:  # our own fault: this message waits, others go on
            log.exception("a stored message was not sent", host=self._link.name, outbox_no=message.outbox_no)
            pause_s = self._terms.back_off.pause_s(message.tries + 1, self._uniform)
            self._end(End(message, Verdict.LATER, UNSENDABLE, tried=True, wait_s=pause_s))
            return
        if isinstance(outcome, HostDown):
            if outcome.why not in _OF_ONE_MESSAGE:
                self._window = FIRST_WINDOW
                self._quiet_until_s = self._now_s() + HOST_DOWN_PAUSE_S
        elif isinstance(outcome, HostTimeout):
            self._window = max(self._window // 2, FIRST_WINDOW)
        else:
            self._window = min(self._window + 1, self._terms.in_flight_max)
        self._end(end_of(message, outcome, self._terms.back_off, self._uniform))

    def _end(self, end: End) -> None:
        self._ended.append(end)
        self._any_ended.set()

    # ------------------------------------------------------------------ writing down

    async def _keep_recording(self) -> None:
        """Write down what has ended; while one transaction is at the database the next collects."""
        while True:
            await self._any_ended.wait()
            self._any_ended.clear()
            ends, self._ended = self._ended, []
            by_shard: dict[int, list[End]] = defaultdict(list)
            for end in ends:
                by_shard[end.message.shard].append(end)
            for shard, some in by_shard.items():
                await self._record(shard, some)
                self._held -= len(some)
                self.wake()

    async def _record(self, shard: int, ends: list[End]) -> None:
        """Until it is written down, since what was confirmed must not be sent again. Once more does no harm."""
        while True:
            try:
                async with self._connect() as connection:
                    counted = set(await record(connection, shard, self._link.name, ends))
                break
            except (psycopg.Error, OSError, DependencyError) as error:
                log.warning(
                    "ends of the outbox not written; tried again",
                    host=self._link.name,
                    error=type(error).__name__,
                )
            except Exception:
                log.exception("ends of the outbox not written; tried again", host=self._link.name)
            await asyncio.sleep(self._uniform(DATABASE_PAUSE_S / 2, DATABASE_PAUSE_S))
        names = Counter(_name(end) for end in ends if end.message.outbox_no in counted)
        for name, count in names.items():
            self._watch.host_forwarded(self._link.name, name, count)
        refused = [end for end in ends if end.verdict is Verdict.REFUSED and end.message.outbox_no in counted]
        if refused:  # one line, however many: a host can refuse a million
            first = refused[0]
            log.warning(
                "a host refused what it was told",
                host=self._link.name,
                count=len(refused),
                first_outbox_no=first.message.outbox_no,
                answer=first.said,
            )


def _name(end: End) -> str:
    if end.verdict is not Verdict.LATER:
        return end.verdict.name.lower()
    if not end.tried:
        return "not_sent"
    return "later" if len(end.said) == 2 else "unknown"


async def keep_counting(
    connect: Connect, shards: Iterable[int], watch: ForwardWatch, every_s: float = COUNT_EVERY_S
) -> None:
    """Count the outbox for the metrics, until cancelled."""
    shards = tuple(shards)
    while True:
        try:
            async with connect() as connection:
                watch.outbox(await figures(connection, shards))
        except (psycopg.Error, OSError, DependencyError) as error:
            log.warning("the outbox was not counted", error=type(error).__name__)
        await asyncio.sleep(every_s)
