"""Roll-outs that go on by themselves: every few seconds each is looked at, and moved where its rules say so. Any process may do it."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.registry.list_rollout import (
    BY_RULE,
    KINDS,
    SQL,
    STATES,
    Figures,
    Move,
    figures_values,
    judge,
    next_stage,
)
from switch.storage.sql import load

log = structlog.get_logger(__name__)
_SEEN = load("switch.registry", "fleet.sql")

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]
EVERY_S: Final = 10.0
ENDED_EVERY: Final = 30  # rounds
SEEN_MAX: Final = 50_000
_MOMENT: Final = slice(38, 45)  # date and time of an offline record


async def look(connection: AsyncConnection[Any], *, ended: bool = True) -> list[Figures]:
    """Look at the newest roll-out of each kind once, and move it if it is running; what they were before that.

    ended: also at those that are over, for their figures.
    """
    states = STATES if ended else ("RUNNING", "STOPPED")
    cursor = await connection.execute(SQL["rollouts"], {"kinds": list(KINDS), "states": list(states)})
    found = []
    for (number,) in await cursor.fetchall():
        cursor = await connection.execute(SQL["figures"], figures_values(number))
        row = await cursor.fetchone()
        assert row is not None
        at = Figures(*row)
        found.append(at)
        if at.state == "RUNNING":
            await _act(connection, at)
    return found


async def _act(connection: AsyncConnection[Any], at: Figures) -> None:
    move, reason = judge(at)
    if move is Move.WAIT:
        return
    async with connection.transaction():
        if move is Move.STAGE:
            cursor = await connection.execute(SQL["set_stage"], next_stage(at))
            stage, action = at.stage + 1, "STAGE"
        else:
            state, action = ("STOPPED", "STOP") if move is Move.STOP else ("COMPLETE", "COMPLETE")
            values = {"rollout_no": at.rollout_no, "state": state, "before": ["RUNNING"]}
            cursor = await connection.execute(SQL["set_state"], values)
            stage = at.stage
        if await cursor.fetchone() is None:
            return  # somebody else was first
        event = {
            "rollout_no": at.rollout_no,
            "action": action,
            "stage": stage,
            "actor": BY_RULE,
            "detail": reason,
        }
        await connection.execute(SQL["add_event"], event)
        await connection.execute(SQL["announce"])
    write = log.warning if move is Move.STOP else log.info
    write("roll-out moved", kind=at.kind, version=at.version, move=move.name.lower(), reason=reason)


async def keep_rolling(
    connect: Connect, tell: Callable[[Sequence[Figures]], None], *, every_s: float = EVERY_S
) -> None:
    """Look until cancelled. A failure is logged; the next round tries again."""
    for number in itertools.count():
        try:
            async with connect() as connection:
                # What has ended changes slowly, and counting a whole fleet is not for nothing.
                tell(await look(connection, ended=number % ENDED_EVERY == 0))
        except psycopg.Error as error:
            log.warning("roll-outs were not looked at", error=type(error).__name__)
        await asyncio.sleep(every_s)


class LastSeen:
    """When terminals were last heard, for this process, until it is written down.

    Noting costs an entry of a dictionary; nothing waits for it. What a crash loses is the last few seconds, and the next message
    of the terminal makes up for it.
    """

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._uploaded: dict[int, tuple[float, bytes]] = {}

    def heard(self, terminal_no: int, now_s: float) -> None:
        """A message with a good MAC came. now_s: monotonic seconds."""
        if len(self._seen) < SEEN_MAX or terminal_no in self._seen:
            self._seen[terminal_no] = now_s

    def uploaded(self, terminal_no: int, now_s: float, last_record: bytes) -> None:
        """Offline records of it were taken. last_record: the bytes of the last one."""
        if len(self._uploaded) < SEEN_MAX or terminal_no in self._uploaded:
            self._uploaded[terminal_no] = now_s, last_record[_MOMENT]
        self.heard(terminal_no, now_s)

    async def flush(self, connection: AsyncConnection[Any], now_s: float) -> None:
        """Write down what was noted, as how long ago it was: the instants are by the database's clock."""
        seen, uploaded, self._seen, self._uploaded = self._seen, self._uploaded, {}, {}
        if not seen:
            return
        numbers = sorted(seen)  # in order, so that two processes do not wait for each other in a circle
        uploads = [uploaded.get(number) for number in numbers]
        values = {
            "numbers": numbers,
            "ages": [now_s - seen[number] for number in numbers],
            "upload_ages": [upload and now_s - upload[0] for upload in uploads],
            "moments": [upload and _moment(upload[1]) for upload in uploads],
        }
        try:
            await connection.execute(_SEEN["note_seen"], values)
        except psycopg.Error:
            self._seen, self._uploaded = seen | self._seen, uploaded | self._uploaded
            raise


def _moment(bcd: bytes) -> datetime | None:
    """The time on a record; None where it is none: nobody has checked it yet."""
    try:
        return datetime.strptime(bcd.hex(), "%Y%m%d%H%M%S")  # noqa: DTZ007 - a terminal's own clock
    except ValueError:
        return None


async def keep_noting(
    connect: Connect, seen: LastSeen, clock: Callable[[], float], *, every_s: float = EVERY_S
) -> None:
    """Write down until cancelled, and once more then."""
    try:
        while True:
            await asyncio.sleep(every_s)
            await _flush(connect, seen, clock())
    finally:
        await _flush(connect, seen, clock())


async def _flush(connect: Connect, seen: LastSeen, now_s: float) -> None:
    try:
        async with connect() as connection:
            await seen.flush(connection, now_s)
    except psycopg.Error as error:
        log.warning("who was seen was not written down; tried again later", error=type(error).__name__)
