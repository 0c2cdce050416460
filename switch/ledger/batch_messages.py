"""Messages of terminals about their batches, kept under their key like card requests: what all their writers share.

One transaction: purse gate shared → lock the terminals' sessions in terminal_no order → instant, batches and repeats, each
in a statement of its own → decide in order of arrival → journal rows. Whichever shard a row lies in, the purse gate
covers it: whoever closes a day or freezes a batch has that gate too.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import orjson
from psycopg import AsyncCursor

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import APPROVED, Outcome
from switch.domain.transactions import Kind
from switch.ledger.gate import GATE, PURSE_GATE_SHARD
from switch.ledger.serials import Serials, rrn_of
from switch.ledger.writer import Connection, Row
from switch.storage.arrays import byteas, dates, int2s, int4s, int8s, texts
from switch.storage.sql import load

SQL: Final = load("switch.ledger", "terminal_batches.sql")

KEYS_REPLACED: Final = "A0"
SIGN_ON_AGAIN: Final = "77"
OTHER_CONTENT: Final = "94"
NOT_NOW: Final = "96"

OPEN, FROZEN, CLOSED = 0, 1, 2
MoreT = TypeVar("MoreT")

_UNKNOWN_BATCH_LOOKBACK = timedelta(days=4)


class Keyed(Protocol):
    """What every message about a batch has. since: first business date on which its key can have been booked, if known."""

    @property
    def terminal_no(self) -> int:
        """The terminal it came from."""

    @property
    def merchant_no(self) -> int:
        """Its merchant."""

    @property
    def batch_no(self) -> int:
        """Field 60.2."""

    @property
    def stan(self) -> int:
        """Field 11."""

    @property
    def digest(self) -> bytes:
        """SM3 of the content, 32 bytes."""

    @property
    def generation(self) -> int:
        """Number of the key set its MAC was good under."""

    @property
    def since(self) -> date | None:
        """First business date on which its key can have been booked."""


class BatchState(NamedTuple):
    """A row of terminal_batch."""

    opened_on: date
    state: int
    settled_at: datetime | None
    claimed: str | None
    computed: str | None
    ended: bool  # its batch end has been answered

    @property
    def ending(self) -> bool:
        """Its batch end was begun and not finished (the process died in between)."""
        return self.state == CLOSED and not self.ended


class Stored(NamedTuple):
    """The answer kept under a key."""

    kind: int
    answer: str
    rrn: str
    decided_at: datetime
    business_date: date
    digest: bytes
    extra: bytes | None


class Written(NamedTuple):
    """A journal row to be inserted."""

    message: Keyed
    entry_no: int
    kind: Kind
    amount_fen: int
    answer: str
    rrn: str
    extra: bytes


MessageKey = tuple[int, int, int]  # terminal, batch, trace


def key_of(message: Keyed) -> MessageKey:
    """The key of a message, all of one class."""
    return message.terminal_no, message.batch_no, message.stan


def outcome_of(stored: Stored) -> Outcome:
    """The answer that a row keeps. A settlement's has the clearing date, field 15."""
    extra: Mapping[str, Any] = orjson.loads(stored.extra) if stored.extra else {}
    settled = stored.kind == Kind.SETTLEMENT and stored.answer == APPROVED
    return Outcome(
        stored.answer,
        stored.rrn,
        stored.decided_at,
        stored.business_date if settled else None,
        field48=extra.get("48", ""),
        field62=bytes.fromhex(extra.get("62", "")),
    )


async def ask(
    connection: Connection, statement: str, parameters: Mapping[str, Any] | None = None
) -> AsyncCursor[Row]:
    """Send a prepared statement; inside a pipeline its rows are there once the pipeline has been left."""
    cursor = connection.cursor(binary=True)
    await cursor.execute(statement, parameters, prepare=True)
    return cursor


class Session:
    """The running state of one transaction over messages of many terminals."""

    def __init__(self, shards: int, serials: Serials) -> None:
        self._shards = shards
        self._serials = serials
        self.now: datetime
        self.today: date
        self.txid = 0
        self.until: date  # no row of a batch can be dated after it
        self.sessions: dict[int, tuple[int, int]] = {}  # generation, open batch
        self.batches: dict[tuple[int, int], BatchState] = {}
        self._stored: dict[MessageKey, Stored] = {}
        self._written: list[Written] = []

    async def begin(
        self,
        connection: Connection,
        messages: Sequence[Keyed],
        *,
        serials: int | None = None,
        more: Callable[[Connection], Awaitable[MoreT]] | None = None,
    ) -> MoreT | None:
        """Begin the transaction, take gate and locks, and read what decisions need: one round trip.

        messages: none for what comes without one. serials: how many will be taken at most, one for each message by default; less than a block.
        more: queues further statements behind these, in the same round trip; what it returns is returned.
        """
        terminals = int4s([message.terminal_no for message in messages])
        batches = int4s([message.batch_no for message in messages])
        unknown_since = datetime.now(SHANGHAI).date() - _UNKNOWN_BATCH_LOOKBACK
        sinces = [message.since or unknown_since for message in messages]
        keys = {
            "shards": int2s([self.shard_of(message) for message in messages]),
            "terminals": terminals,
            "batches": batches,
            "stans": int4s([message.stan for message in messages]),
            "sinces": dates(sinces),
            "oldest": min(sinces, default=unknown_since),
        }
        if self._serials.short_of(len(messages) if serials is None else serials):
            await self._refill(connection)
        async with connection.pipeline():
            await connection.execute("BEGIN")
            await connection.execute(
                SQL["take_gate"], {"gate": GATE, "shard": PURSE_GATE_SHARD}, prepare=True
            )
            sessions = await ask(connection, SQL["lock_sessions"], {"terminals": terminals})
            instant = await ask(connection, SQL["read_instant"])
            states = await ask(connection, SQL["read_batches"], {"terminals": terminals, "batches": batches})
            stored = await ask(connection, SQL["find_messages"], keys)
            extra = await more(connection) if more is not None else None
        for terminal_no, generation, batch_no in await sessions.fetchall():
            self.sessions[terminal_no] = (generation, batch_no)
        row = await instant.fetchone()
        if row is None:
            raise LookupError("no business day covers this instant: run `cardswitch doctor`")
        self.now, self.today, self.txid = row
        # The day may change while this transaction runs. Asked of the database: days that are ended by hand run ahead of any calendar.
        self.until = self.today + timedelta(days=1)
        for terminal_no, batch_no, *rest in await states.fetchall():
            self.batches[terminal_no, batch_no] = BatchState(*rest)
        for at, *rest in await stored.fetchall():
            self._stored[key_of(messages[at - 1])] = Stored(*rest)
        return extra

    async def _refill(self, connection: Connection) -> None:
        cursor = await connection.execute("SELECT nextval('entry_no_block')")
        row = await cursor.fetchone()
        assert row is not None
        self._serials.refill(row[0])

    def take_serials(self, count: int) -> int:
        """Serials for rows of another table: the first of `count` that follow each other."""
        return self._serials.take_many(count)

    def shard_of(self, message: Keyed) -> int:
        """Where the journal row of a message lies."""
        return message.terminal_no % self._shards

    def is_new(self, message: Keyed) -> bool:
        """Whether nothing settles a message before the rules: `earlier` would say None."""
        generation, _ = self.sessions.get(message.terminal_no, (0, 0))
        return message.generation >= generation and key_of(message) not in self._stored

    def earlier(self, message: Keyed, *, heard: bool = False) -> Outcome | None:
        """The answer that is settled before any rule: old keys (A0), a repeat's stored answer, or 94. None: a new message.

        heard: its keys were in force when the first half of its work was written, so that they no longer matter.
        """
        generation, _ = self.sessions.get(message.terminal_no, (0, 0))
        if message.generation < generation and not heard:
            return Outcome(KEYS_REPLACED, "", self.now)
        stored = self._stored.get(key_of(message))
        if stored is None:
            return None
        if stored.digest == message.digest:
            return outcome_of(stored)
        return Outcome(OTHER_CONTENT, rrn_of(self._serials.take(), self.now), self.now)

    def open_batch(self, message: Keyed) -> BatchState | None:
        """The batch of a message if it is the terminal's open or frozen one; None means 77."""
        _, batch_no = self.sessions.get(message.terminal_no, (0, 0))
        if batch_no != message.batch_no:
            return None
        batch = self.batches.get((message.terminal_no, message.batch_no))
        return None if batch is None or batch.state == CLOSED else batch

    def why_not_open(self, message: Keyed) -> str:
        """The answer to a message whose batch was taken from what was known of its terminal, when open_batch has none.

        77, or 96 when another batch was opened in between.
        """
        _, batch_no = self.sessions.get(message.terminal_no, (0, 0))
        return SIGN_ON_AGAIN if batch_no == message.batch_no else NOT_NOW

    def enter(
        self,
        message: Keyed,
        kind: Kind,
        answer: str,
        *,
        amount_fen: int = 0,
        extra: Mapping[str, Any] | None = None,
    ) -> tuple[int, Outcome]:
        """Make the journal row of a message, seen by repeats from now on. Returns its entry number and the answer."""
        entry_no = self._serials.take()
        rrn = rrn_of(entry_no, self.now)
        packed = orjson.dumps(extra) if extra else b""
        self._written.append(Written(message, entry_no, kind, amount_fen, answer, rrn, packed))
        stored = Stored(kind, answer, rrn, self.now, self.today, message.digest, packed)
        self._stored[key_of(message)] = stored
        return entry_no, outcome_of(stored)

    def journal_columns(self) -> dict[str, Any] | None:
        """Parameters of write_messages, or None when there is nothing to write."""
        written = self._written
        if not written:
            return None
        return {
            "business_date": self.today,
            "decided_at": self.now,
            "shards": int2s([self.shard_of(row.message) for row in written]),
            "terminals": int4s([row.message.terminal_no for row in written]),
            "batches": int4s([row.message.batch_no for row in written]),
            "stans": int4s([row.message.stan for row in written]),
            "entries": int8s([row.entry_no for row in written]),
            "merchants": int4s([row.message.merchant_no for row in written]),
            "kinds": int2s([row.kind for row in written]),
            "amounts": int8s([row.amount_fen for row in written]),
            "answers": texts([row.answer for row in written]),
            "rrns": texts([row.rrn for row in written]),
            "digests": byteas([row.message.digest for row in written]),
            "extras": byteas([row.extra for row in written]),
        }

    async def finish(
        self, connection: Connection, statements: Sequence[tuple[str, Mapping[str, Any]]] = ()
    ) -> None:
        """Write the journal rows and what else is to be written, and commit: one round trip."""
        columns = self.journal_columns()
        async with connection.pipeline():
            if columns is not None:
                await connection.execute(SQL["write_messages"], columns, prepare=True)
            for statement, parameters in statements:
                await connection.execute(statement, parameters, prepare=True)
            await connection.execute("COMMIT")
