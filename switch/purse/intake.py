"""Taking in offline records, each once: many uploads of many terminals in one database transaction.

    before    read the records, check their TACs (bulk; worker processes when there are some)
    then      gate and sessions (ledger.batch_messages) → what the guards, the registry and the waiting records say of these
              records, one round trip → judge them one after the other in order of arrival → COPY records and guards,
              journal row per upload → commit → answers

Guards are rows that a record uses up: (card, ATC) and (PSAM, PSAM serial), unique over all days. Two processes that are sent
the same record at once meet there: the second waits, fails, runs again and finds it. Rows go in key order, so they
never wait for each other crosswise.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor
from datetime import date
from typing import Final, NamedTuple

import psycopg
import structlog

from switch.domain.decisions import Outcome
from switch.keys.vault import Vault
from switch.ledger.batch_messages import Session
from switch.ledger.serials import Serials
from switch.ledger.writer import Connect, Connection, MessageWriter
from switch.purse.asking import Asked
from switch.purse.batch import Batch
from switch.purse.batches import Batches
from switch.purse.columns import joined
from switch.purse.desk import Desk
from switch.purse.digest import digest, digest_in_worker
from switch.purse.record import RECORD_BYTES
from switch.storage.pool import plan_once

log = structlog.get_logger(__name__)

RECORDS_PER_TRANSACTION: Final = 4_096
RECORDS_PER_UPLOAD_MAX: Final = 2_000
UPLOADS_PER_TRANSACTION: Final = 1_000

DIGESTED_AT_ONCE: Final = 512  # records between two breaths of the event loop: some 2 ms
DOUBTS: Final = 16  # transactions that ask first, after one that found a counter used up

DigestAll = Callable[
    [bytes], Awaitable[bytes]
]  # records one behind the other to their digests (purse.digest)


class Upload(NamedTuple):
    """One upload message of one authenticated terminal.

    digest: SM3 of its content. generation: number of the key set its MAC was good under. since: business date on which its
    batch was opened, None if unknown. bulk: a batch under `serial`, its stan is batches.stan_of it; the answer travels in a receipt,
    whose count has two bytes, not in field 62.
    """

    terminal_no: int
    terminal_id: str
    merchant_no: int
    acquirer_id: str
    batch_no: int
    stan: int
    digest: bytes
    generation: int
    since: date | None
    records: tuple[bytes, ...]
    bulk: bool = False
    serial: int = 0

    def __repr__(self) -> str:  # records hold card numbers
        return f"Upload(terminal_no={self.terminal_no}, stan={self.stan}, {len(self.records)} records)"


class _Job:
    """An upload on its way through the writer; has what batch_messages.Keyed asks for."""

    __slots__ = (
        "batch_no",
        "blob",
        "bulk",
        "digest",
        "done",
        "generation",
        "merchant_no",
        "records",
        "serial",
        "since",
        "stan",
        "tacs",
        "terminal_no",
    )

    def __init__(self, upload: Upload, done: Callable[[Outcome | None], None]) -> None:
        self.records = upload.records
        self.done = done
        self.terminal_no = upload.terminal_no
        self.merchant_no = upload.merchant_no
        self.batch_no = upload.batch_no
        self.stan = upload.stan
        self.digest = upload.digest
        self.generation = upload.generation
        self.since = upload.since
        self.bulk = upload.bulk
        self.serial = upload.serial
        self.blob = b""
        self.tacs = b""


def inline_tacs(vault: Vault) -> DigestAll:
    """Check records and TACs in this process, in slices, so that the event loop breathes between them."""

    async def digest_all(blob: bytes) -> bytes:
        parts: list[bytes] = []
        for start in range(0, len(blob), DIGESTED_AT_ONCE * RECORD_BYTES):
            part = blob[start : start + DIGESTED_AT_ONCE * RECORD_BYTES]
            parts.append(digest(part, vault.verify_tac_columns))
            await asyncio.sleep(0)
        return b"".join(parts)

    return digest_all


def pooled_tacs(pool: Executor, vault: Vault, *, worth: int = 256, share: int = 2_048) -> DigestAll:
    """Do it in worker processes (keys.workers.tac_pool), `share` records at a time.

    Fewer than `worth`, and what a broken pool leaves behind, are done in this process.
    """
    inline = inline_tacs(vault)

    async def digest_all(blob: bytes) -> bytes:
        if len(blob) < worth * RECORD_BYTES:
            return await inline(blob)
        loop = asyncio.get_running_loop()
        step = share * RECORD_BYTES
        blobs = [blob[start : start + step] for start in range(0, len(blob), step)]
        try:
            digests = await asyncio.gather(
                *(loop.run_in_executor(pool, digest_in_worker, part) for part in blobs)
            )
        except BrokenExecutor:
            log.exception("TAC workers are gone, checking in this process")
            return await inline(blob)
        return b"".join(digests)

    return digest_all


class IntakeWriter(MessageWriter[_Job]):
    """The writer of offline records in one process.

    digest_all: inline_tacs or pooled_tacs. shards: number of shards that books are kept in. queue_max: records that may wait.
    records_max: records of one transaction; one upload of more goes alone.
    """

    def __init__(
        self,
        connect: Connect,
        digest_all: DigestAll,
        shards: int,
        *,
        queue_max: int = 50_000,
        records_max: int = RECORDS_PER_TRANSACTION,
        retry_for_s: float = 20.0,
        on_batch: Callable[[int, float], None] = lambda _records, _seconds: None,
    ) -> None:
        async def planned() -> Connection:
            connection = await connect()
            await plan_once(connection)
            return connection

        super().__init__(
            planned,
            name="purse intake",
            queue_max=queue_max,
            weight_max=records_max,
            retry_for_s=retry_for_s,
            on_batch=on_batch,
        )
        self._digest_all = digest_all
        self._shards = shards
        self._serials = Serials()
        self._doubts = 0

    def submit(self, upload: Upload, done: Callable[[Outcome | None], None]) -> bool:
        """Queue an upload of 1 to 2000 records; False when the queue is full, and then nothing was taken.

        done: called once with the stored answer, or with None when the system failed (96).
        """
        assert 1 <= len(upload.records) <= RECORDS_PER_UPLOAD_MAX, "the message room counts records"
        return self.enqueue(_Job(upload, done))

    def weight(self, message: _Job) -> int:
        """Records of an upload."""
        return len(message.records)

    def may_join(self, message: _Job, batch: Sequence[_Job]) -> bool:
        """Uploads of one transaction are bounded too: each takes a serial."""
        return len(batch) < UPLOADS_PER_TRANSACTION

    def answer(self, message: _Job, outcome: Outcome | None) -> None:
        """Tell whoever waits."""
        message.done(outcome)

    # ------------------------------------------------------------------ before the database

    async def prepare(self, messages: Sequence[_Job]) -> None:
        """Look at the form of the records and check the TACs that could matter."""
        for job in messages:
            job.blob = joined(job.records)
        tacs = await self._digest_all(b"".join([job.blob for job in messages]))
        start = 0
        for job in messages:
            job.tacs = tacs[start : start + len(job.records)]
            start += len(job.records)
        assert start == len(tacs), "a digest for every record"

    # ------------------------------------------------------------------ one transaction

    async def write(self, connection: Connection, messages: Sequence[_Job]) -> Sequence[Outcome]:
        """Judge and write a batch of uploads in one transaction; outcomes in the order of messages.

        Whether the counters of plain records are used up is not asked before: the guards tell, at the price of a transaction that
        is written again. After that it is asked for a while, since what comes twice seldom comes alone.
        """
        batch = Batch(messages)
        await asyncio.sleep(0)
        if self._doubts:
            self._doubts -= 1
        else:
            try:
                return await self._write(connection, messages, batch, counters=False)
            except psycopg.errors.UniqueViolation:
                await connection.rollback()
                self._doubts = DOUBTS
        return await self._write(connection, messages, batch, counters=True)

    async def _write(
        self, connection: Connection, messages: Sequence[_Job], batch: Batch, *, counters: bool
    ) -> Sequence[Outcome]:
        session = Session(self._shards, self._serials)
        batches = Batches(session, [job for job in messages if job.bulk])

        async def more(link: Connection) -> Asked:
            await batches.send(link)
            return await Asked.send(link, batch, counters=counters)

        asked = await session.begin(connection, messages, serials=batch.count + len(messages), more=more)
        assert asked is not None
        await batches.received(connection)
        known = await asked.received(batch)
        desk = Desk(session, batches, self._shards, messages, batch, known)
        outcomes = await desk.decide(connection)
        await desk.copy_rows(connection)
        await session.finish(connection, desk.statements())
        return outcomes


class IntakeLanes:
    """Several writers side by side, each with its own connection: while one waits for the database another judges.

    A terminal always goes to the same one, so its messages stay in order. make: makes one writer.
    """

    def __init__(self, make: Callable[[], IntakeWriter], lanes: int = 2) -> None:
        self._lanes = [make() for _ in range(lanes)]

    def submit(self, upload: Upload, done: Callable[[Outcome | None], None]) -> bool:
        """As IntakeWriter.submit."""
        return self._lanes[upload.terminal_no % len(self._lanes)].submit(upload, done)

    @property
    def depth(self) -> int:
        """Records waiting."""
        return sum(lane.depth for lane in self._lanes)

    def stop(self) -> None:
        """Take no more; run() returns when everything queued is answered."""
        for lane in self._lanes:
            lane.stop()

    async def run(self) -> None:
        """Serve all lanes until stop()."""
        await asyncio.gather(*(lane.run() for lane in self._lanes))
