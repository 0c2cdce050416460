"""Batches that come under a serial of their terminal (EPB1): each serial is used up once, and its answer is found for ever.

The journal keeps the answer as of any upload, under a key that names the terminal's batch of the day. A batch may come again after
that one was settled, so purse_batch says in which it was taken.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final, Protocol

from psycopg import AsyncCursor

from switch.domain.decisions import Outcome
from switch.ledger.batch_messages import Keyed, Session, Stored, ask, outcome_of
from switch.ledger.writer import Connection
from switch.storage.arrays import dates, int2s, int4s, int8s
from switch.storage.sql import load

SQL: Final = load("switch.purse", "batches.sql")
_LOW_BITS: Final = 0x7FFF_FFFF


class Numbered(Keyed, Protocol):
    """An upload that has a batch serial."""

    @property
    def serial(self) -> int:
        """Of the batch, as its terminal counts."""


def stan_of(serial: int) -> int:
    """The trace number under which the journal keeps a batch: not above zero, where no field 11 can be."""
    return -(serial & _LOW_BITS)


class Batches:
    """The serials of one transaction. Use: send in the pipeline that follows the locks, received, then earlier and note."""

    def __init__(self, session: Session, messages: Sequence[Numbered]) -> None:
        self._session = session
        self._messages = messages
        self._cursor: AsyncCursor[Any] | None = None
        self._stored: dict[tuple[int, int], Stored] = {}
        self._taken: list[Numbered] = []

    async def send(self, connection: Connection) -> None:
        """Queue the question in which batch of the day the serials were used, if they were."""
        if not self._messages:
            return
        keys = {
            "terminals": int4s([message.terminal_no for message in self._messages]),
            "serials": int8s([message.serial for message in self._messages]),
        }
        self._cursor = await ask(connection, SQL["find_batches"], keys)

    async def received(self, connection: Connection) -> None:
        """Take the answer, after the pipeline. Only for serials that come again there is one more question."""
        found = await self._cursor.fetchall() if self._cursor is not None else []
        if not found:
            return
        days = [day for _, _, _, day in found]
        shards = {message.terminal_no: self._session.shard_of(message) for message in self._messages}
        keys = {
            "shards": int2s([shards[terminal_no] for terminal_no, _, _, _ in found]),
            "terminals": int4s([terminal_no for terminal_no, _, _, _ in found]),
            "serials": int8s([serial for _, serial, _, _ in found]),
            "batches": int4s([batch_no for _, _, batch_no, _ in found]),
            "stans": int4s([stan_of(serial) for _, serial, _, _ in found]),
            "days": dates(days),
            "oldest": min(days),
            "newest": max(days),
        }
        cursor = await ask(connection, SQL["read_answers"], keys)
        for terminal_no, serial, *stored in await cursor.fetchall():
            self._stored[terminal_no, serial] = Stored(*stored)

    def earlier(self, message: Numbered) -> Outcome | None:
        """The stored answer of a serial that came before; 94 when it came with other content; None for a new one."""
        stored = self._stored.get((message.terminal_no, message.serial))
        if stored is None:
            return None
        return outcome_of(stored) if stored.digest == message.digest else Outcome("94", "", self._session.now)

    def note(self, message: Numbered) -> None:
        """Its serial is used up."""
        self._taken.append(message)

    def statements(self, today: date) -> list[tuple[str, dict[str, Any]]]:
        """What is to be written beside the journal rows."""
        if not self._taken:
            return []
        columns = {
            "business_date": today,
            "terminals": int4s([message.terminal_no for message in self._taken]),
            "serials": int8s([message.serial for message in self._taken]),
            "batches": int4s([message.batch_no for message in self._taken]),
        }
        return [(SQL["write_batches"], columns)]
