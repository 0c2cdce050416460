"""Answers that come after their request has ended: noted once with their leg, and what undoes them is sent at once.

Of a leg that was given up nothing depends on it: its reversal was stored in the same transaction, so an answer that is dropped here, or
lost with its process, costs only time, and no second reversal is ever made. Of a leg that its host declined there is none, since a decline
moves nothing; a host that approves it after all has one made here, with the note, once.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.domain.errors import DependencyError
from switch.domain.hosts import LateAnswer
from switch.ledger.leg_state import LegState
from switch.ledger.outbox import Late, note_late

log = structlog.get_logger(__name__)

QUEUE_MAX: Final = 10_000
TRIES: Final = 10  # PAUSE_S apart; a database that is away longer, or a leg open longer, has lost us little
PAUSE_S: Final = 1.0
Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]


class LateWatch(Protocol):
    """What operators count."""

    def host_late(self, host: str, what: str) -> None:
        """A late answer: `approved`, `declined`; `again` for a leg that had one; `other` for no leg; `dropped`, `failed`."""


class LateAnswers:
    """Use: run() as a task; put() is what a link calls."""

    def __init__(
        self, connect: Connect, watch: LateWatch, on_due: Callable[[str], None], *, queue_max: int = QUEUE_MAX
    ) -> None:
        """on_due: called with the host's name when a message to it has become due."""
        self._connect = connect
        self._watch = watch
        self._on_due = on_due
        self._queue_max = queue_max
        self._waiting: deque[tuple[LateAnswer, int]] = deque()  # with how often its leg was found open
        self._postponed = 0
        self._any = asyncio.Event()
        self._dropping = False

    @property
    def depth(self) -> int:
        """Answers that wait."""
        return len(self._waiting) + self._postponed

    def put(self, late: LateAnswer) -> None:
        """Take a late answer; returns at once."""
        if self.depth >= self._queue_max:
            self._watch.host_late(late.host, "dropped")
            if not self._dropping:  # once for each time that it fills up
                log.warning("late answers are dropped", host=late.host)
            self._dropping = True
            return
        self._add(late, 0)

    def _add(self, late: LateAnswer, found_open: int) -> None:
        self._waiting.append((late, found_open))
        self._any.set()

    async def run(self) -> None:
        """Note late answers until cancelled."""
        while True:
            await self._any.wait()
            self._any.clear()
            while self._waiting:
                late, found_open = self._waiting.popleft()
                self._dropping = self._dropping and self.depth > self._queue_max // 2
                await self._note(late, found_open)

    async def _note(self, late: LateAnswer, found_open: int) -> None:
        for _ in range(TRIES):
            try:
                async with self._connect() as connection:
                    found = await note_late(connection, late.host, late.answer)
                break
            except (psycopg.Error, OSError, DependencyError) as error:
                log.warning("late answer not noted; tried again", host=late.host, error=type(error).__name__)
                await asyncio.sleep(PAUSE_S)
            except Exception:  # our own fault, and no reason to stop listening to others
                log.exception("late answer not noted", host=late.host)
                self._watch.host_late(late.host, "failed")
                return
        else:
            self._watch.host_late(late.host, "failed")
            return
        if found is not None and found.state == LegState.ASKED and found_open < TRIES:
            # Its first answer is on the way into the book; others need not wait for it.
            self._postponed += 1
            asyncio.get_running_loop().call_later(PAUSE_S, self._come_back, late, found_open + 1)
            return
        what = _what(late, found)
        self._watch.host_late(late.host, what)
        log.info("late answer of a host", host=late.host, answer=late.answer.code, what=what)
        if found is not None and found.due:
            self._on_due(late.host)

    def _come_back(self, late: LateAnswer, found_open: int) -> None:
        self._postponed -= 1
        self._add(late, found_open)


def _what(late: LateAnswer, found: Late | None) -> str:
    if found is None:
        return "other"
    if found.state == LegState.ASKED:  # for so long that it will be ended as unknown, with a reversal
        return "failed"
    if not found.first:
        return "again"
    return "approved" if late.answer.approved else "declined"
