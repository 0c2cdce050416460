"""Offline records that come in files of a depot: the same desk, checks and rows as over the wire, without a terminal's batch.

Which terminal and merchant a record belongs to is what the registry says of its PSAM. One transaction takes consecutive
lines, gives them consecutive entries, and writes down with them how far the file has been taken; so a killed run goes on
behind what it committed, and no line counts twice. Such records have batch_no 0.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final, NamedTuple

import numpy as np
import psycopg

from switch.domain.decisions import Outcome
from switch.ledger.batch_messages import Session, ask
from switch.ledger.serials import Serials
from switch.ledger.writer import Connection
from switch.purse.asking import SQL, Asked
from switch.purse.batch import Batch
from switch.purse.batches import Batches
from switch.purse.columns import joined
from switch.purse.desk import Desk
from switch.purse.intake import DigestAll
from switch.storage.arrays import texts

RECORDS_MAX: Final = 4_096  # of one transaction
TRIES: Final = 20  # each needs somebody else who has just committed one of the same records
PAUSE_S: Final = 0.05
NO_BATCH: Final = 0
NOBODY: Final = (0, 0)  # terminal_no and merchant_no of a record whose PSAM is in no terminal of the sender
_COLLISIONS = (psycopg.IntegrityError, psycopg.errors.DeadlockDetected)

Statement = tuple[str, Mapping[str, Any]]


class TakenChunk(NamedTuple):
    """What one transaction did: its business date, the entry of the first record, and per result count and fen."""

    today: date
    first_entry: int
    results: Mapping[str, tuple[int, int]]


class Lines(NamedTuple):
    """Consecutive lines of one terminal, in the place of an upload: no message brought them, so its other parts are nothing."""

    terminal_no: int
    merchant_no: int
    records: Sequence[bytes]
    blob: bytes
    tacs: bytes
    batch_no: int = NO_BATCH
    stan: int = 0
    digest: bytes = b""
    generation: int = 0
    since: date | None = None
    bulk: bool = True
    serial: int = 0

    def __repr__(self) -> str:  # records hold card numbers
        return f"Lines(terminal_no={self.terminal_no}, {len(self.records)} records)"


class DepotDesk(Desk):
    """Decisions about records of one file: all are new, and none is answered by itself."""

    def _find_new(self) -> None:
        self._new = [True] * len(self._jobs)
        self._live[:] = True

    async def _answer(self) -> list[Outcome]:
        first = self._session.take_serials(self._batch.count)
        self.verdicts.entry_no[:] = np.arange(first, first + self._batch.count)
        return []

    def taken(self) -> TakenChunk:
        """What the receipt says. The amount of a record that cannot be read is that of its bytes, as in the file's total."""
        fen = self._batch.raw[:, 30:34].astype(np.int64) @ np.array([1 << 24, 1 << 16, 1 << 8, 1])
        result = self.verdicts.result
        results = {
            code.decode(): (int((result == code).sum()), int(fen[result == code].sum()))
            for code in np.unique(result).tolist()
        }
        return TakenChunk(self._session.today, int(self.verdicts.entry_no[0]), results)


async def take_chunk(
    connection: Connection,
    sender_id: str,
    records: Sequence[bytes],
    *,
    digest_all: DigestAll,
    shards: int,
    serials: Serials,
    note: Callable[[TakenChunk], Sequence[Statement]],
) -> TakenChunk:
    """Take consecutive records of 96 bytes in one transaction, again when somebody else was quicker with one of them.

    note: what else is to be written in that transaction. connection: in autocommit mode and not in a transaction. Raises what
    the database raises when it cannot; nothing of the chunk was written then.
    """
    assert 1 <= len(records) <= RECORDS_MAX
    tacs = await digest_all(joined(records))
    batch_of = await _lines(connection, sender_id, records, tacs)
    return await take_again(connection, lambda: _write(connection, batch_of, shards, serials, note))


async def take_again(connection: Connection, write: Callable[[], Awaitable[TakenChunk]]) -> TakenChunk:
    """Write a chunk, and again when somebody else was quicker with one of its records."""
    for attempt in range(1, TRIES + 1):
        try:
            return await write()
        except _COLLISIONS:
            await connection.rollback()
            if attempt == TRIES:
                raise
            await asyncio.sleep(PAUSE_S * attempt)
        except BaseException:
            if not connection.closed:
                await connection.rollback()
            raise
    raise AssertionError("every try returns or raises")


async def _lines(
    connection: Connection, sender_id: str, records: Sequence[bytes], tacs: bytes
) -> list[Lines]:
    """The records in runs of one terminal each, by the PSAMs of the sender. A PSAM that is none is nobody's."""
    psams = [raw[45:51].hex() for raw in records]
    cursor = await ask(
        connection, SQL["read_psam_homes"], {"psams": texts(sorted(set(psams))), "sender": sender_id}
    )
    homes = {psam: (terminal_no, merchant_no) for psam, terminal_no, merchant_no in await cursor.fetchall()}
    of = [homes.get(psam, NOBODY) for psam in psams]
    starts = [place for place in range(len(of)) if place == 0 or of[place] != of[place - 1]]
    return [
        Lines(*of[start], records[start:end], joined(records[start:end]), tacs[start:end])
        for start, end in zip(starts, [*starts[1:], len(of)], strict=True)
    ]


async def _write(
    connection: Connection,
    lines: Sequence[Lines],
    shards: int,
    serials: Serials,
    note: Callable[[TakenChunk], Sequence[Statement]],
) -> TakenChunk:
    batch = Batch(lines)
    session = Session(shards, serials)
    asked = await session.begin(
        connection, (), serials=batch.count, more=lambda link: Asked.send(link, batch, counters=True)
    )
    assert asked is not None
    desk = DepotDesk(session, Batches(session, ()), shards, lines, batch, await asked.received(batch))
    await desk.decide(connection)
    await desk.copy_rows(connection)
    taken = desk.taken()
    await session.finish(connection, [*desk.statements(), *note(taken)])
    return taken
