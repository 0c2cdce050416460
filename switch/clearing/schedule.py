"""Closing days by itself: which day is due, who does it, and what became of it.

A day is due when it has ended and every terminal batch that was opened by then is closed, or when the time has come (01:00), whichever is
first; days that were missed are closed one after the other, the oldest first. Only the database's clock is asked, and at every look anew: a
clock that is set back makes a day that has ended an open one again, which nobody closes, and a closed day is never due. Several services, and
people with the command, may look at the same database: the closer's lock lets one work, and the others say who it is.
"""

import asyncio
import time as clock
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime, time, timedelta
from typing import Any, Final, NamedTuple

import structlog

from switch.clearing.close import CLOSE_LOCK, CloseRunning, Progress, told
from switch.clearing.day_files import SQL as CLOSE_SQL
from switch.clearing.day_files import Connection
from switch.domain.calendar import SHANGHAI
from switch.ledger.days import DAYS_AT_ONCE_MAX
from switch.storage.sql import load

log = structlog.get_logger(__name__)
SQL: Final = load("switch.clearing", "schedule.sql")

LOOK_EVERY_S: Final = 10.0
PAUSE_FIRST_S: Final = 5.0  # after a failure; doubled
PAUSE_MAX_S: Final = 300.0

Connect = Callable[[], AbstractAsyncContextManager[Connection]]
Close = Callable[[date, Callable[[Progress], None]], Awaitable[None]]


class Waiting(NamedTuple):
    """A day that has ended and is not closed."""

    day: date
    ends_at: datetime
    batches_open: bool


class Look(NamedTuple):
    """What the database said at one instant of its clock. closer: who is closing, empty when nobody is."""

    now: datetime
    days: Sequence[Waiting]
    closer: str


def at_the_latest(ends_at: datetime, close_at: time) -> datetime:
    """When a day is closed whatever is still open: the first time that it is so late in Shanghai at or after its end.

    >>> at_the_latest(datetime(2026, 11, 26, 23, tzinfo=SHANGHAI), time(1)).isoformat()
    '2026-11-27T01:00:00+08:00'
    """
    end = ends_at.astimezone(SHANGHAI)
    latest = datetime.combine(end.date(), close_at, SHANGHAI)
    return latest if latest >= end else latest + timedelta(days=1)


def is_due(waiting: Waiting, now: datetime, close_at: time) -> bool:
    """Whether a day is to be closed now. One that is not past its end is not waiting at all."""
    return now >= waiting.ends_at and (
        not waiting.batches_open or now >= at_the_latest(waiting.ends_at, close_at)
    )


async def look(connection: Connection) -> Look:
    """Read what waits, and the clock with it."""
    cursor = await connection.execute(SQL["look"], {"limit": DAYS_AT_ONCE_MAX})
    rows = await cursor.fetchall()
    cursor = await connection.execute(CLOSE_SQL["who_closes"], {"lock": CLOSE_LOCK})
    holder = await cursor.fetchone()
    days = [Waiting(*row[1:]) for row in rows if row[1] is not None]
    return Look(rows[0][0], days, holder[0] if holder else "")


class Closing:
    """How far it is, for metrics and for people. Everything is of this process; step_s is its own clock's."""

    def __init__(self) -> None:
        self.day: date | None = None
        self.step = ""
        self.days_overdue = 0
        self.seconds: dict[str, float] = {}
        self.failures: Counter[str] = Counter()
        self.last_error = ""
        self.last_closed: date | None = None
        self.waits_for = ""
        self.again_in_s = 0.0
        self._since_s = 0.0

    def begins(self, day: date) -> None:
        """A day is being closed."""
        self.day, self.step, self.waits_for, self.seconds = day, "", "", {}
        self._since_s = clock.monotonic()

    def progress(self, progress: Progress) -> None:
        """A step has begun, gone on or ended."""
        now_s = clock.monotonic()
        if progress.step != self.step:
            self.step, self._since_s = progress.step, now_s
        self.seconds[progress.step] = now_s - self._since_s

    def ends(self, error: str = "") -> None:
        """It is closed, or why not."""
        if error:
            self.failures[(self.step or "begin") if self.day is not None else "look"] += 1
        else:
            self.last_closed = self.day
        self.last_error, self.day = error, None

    @property
    def step_s(self) -> float:
        """How long the step that runs has taken so far."""
        return clock.monotonic() - self._since_s if self.day is not None else 0.0

    def note(self) -> str:
        """For /readyz: empty when nothing is to be said."""
        words = []
        if self.day is not None:
            words.append(f"closing {self.day}: {self.step or 'begins'}, {self.step_s:.0f} s")
        if self.waits_for:
            words.append(self.waits_for)
        if self.days_overdue:
            words.append(f"{self.days_overdue} days overdue")
        if self.last_error:
            words.append(f"{self.last_error}; tried again in {self.again_in_s:.0f} s")
        return "; ".join(words)


class DayCloser:
    """Closes days until it is cancelled.

    connect: for looking. close: closes one day, elsewhere or here; raises CloseRunning when somebody else is at it. pause: asyncio.sleep,
    where nobody drives it by hand.
    """

    def __init__(
        self,
        connect: Connect,
        close: Close,
        close_at: time,
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._connect = connect
        self._close = close
        self._close_at = close_at
        self._pause = pause
        self.closing = Closing()

    async def run(self) -> None:
        """Look, close what is due, and wait; for as long as the service lives."""
        pause_s = 0.0
        failed = 0
        while True:
            try:
                closed = await self.turn()
                failed = 0
                pause_s = 0.0 if closed else LOOK_EVERY_S
            except Exception as error:  # noqa: BLE001  also our own fault is no reason to leave days open for ever
                pause_s = min(PAUSE_FIRST_S * 2**failed, PAUSE_MAX_S)
                failed = min(failed + 1, 16)
                self._failed(told(error), pause_s)
            await self._pause(pause_s)

    def _failed(self, error: str, again_in_s: float) -> None:
        """Without a traceback: a driver's words may quote a row."""
        log.error(
            "a day was not closed; tried again later",
            day=str(self.closing.day or ""),
            step=self.closing.step,
            error=error,
            again_in_s=again_in_s,
        )
        self.closing.again_in_s = again_in_s
        self.closing.ends(error)

    async def turn(self) -> bool:
        """Look once, and close the oldest day if it is due; whether one was closed. Raises what went wrong."""
        async with self._connect() as connection:
            found = await look(connection)
        self.closing.days_overdue = sum(
            found.now >= at_the_latest(one.ends_at, self._close_at) for one in found.days
        )
        self.closing.waits_for = ""
        if not found.days:
            self.closing.last_error = ""  # whoever did it, nothing is left to do
            return False
        oldest = found.days[0]
        if not is_due(oldest, found.now, self._close_at):
            latest = at_the_latest(oldest.ends_at, self._close_at)
            self.closing.waits_for = f"{oldest.day} waits for open batches until {latest:%Y-%m-%d %H:%M:%S}"
            return False
        if found.closer:  # a process that would only be told so need not be begun
            self.closing.waits_for = f"{oldest.day}: a close is running: {found.closer}"
            return False
        return await self._close_one(oldest.day)

    async def _close_one(self, day: date) -> bool:
        began_s = clock.monotonic()
        self.closing.begins(day)
        try:
            await self._close(day, self.closing.progress)
        except CloseRunning as running:
            self.closing.day = None
            self.closing.waits_for = f"{day}: {running}"
            return False
        except asyncio.CancelledError:
            self.closing.day = None
            raise
        self.closing.ends()
        self.closing.days_overdue = max(0, self.closing.days_overdue - 1)
        log.info("business day closed", day=str(day), seconds=round(clock.monotonic() - began_s, 1))
        return True
