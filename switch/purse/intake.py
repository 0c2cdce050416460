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
from datetime import date, datetime
from typing import Any, Final, NamedTuple

import structlog
from psycopg import AsyncCursor

from switch.domain.decisions import APPROVED, Outcome
from switch.domain.transactions import Kind
from switch.keys.purse import TacItem
from switch.keys.vault import Vault
from switch.keys.workers import verify_in_worker
from switch.ledger.batch_messages import SIGN_ON_AGAIN, Session, ask
from switch.ledger.serials import Serials
from switch.ledger.writer import Connect, Connection, MessageWriter
from switch.purse.record import LOCKED
from switch.purse.rows import (
    ATC_COLUMNS,
    HEADER,
    INTEROP_PAYABLE,
    MERCHANTS_PAYABLE,
    RECORD_COLUMNS,
    SERIAL_COLUMNS,
    TRAILER,
    Credit,
    Judged,
    atc_rows,
    record_rows,
    serial_rows,
)
from switch.purse.verify import (
    ACCEPTED,
    ATC_COLLISION,
    CARD_UNREGISTERED,
    FOREIGN,
    PENDING_GREY,
    PSAM_COLLISION,
    TAKEN,
    Candidate,
    Card,
    Judge,
    Psam,
    registration_fault,
)
from switch.storage.arrays import byteas, int2s, int4s, int8s, texts
from switch.storage.sql import load

log = structlog.get_logger(__name__)
SQL: Final = load("switch.purse")

RECORDS_PER_TRANSACTION: Final = 4_096
RECORDS_PER_UPLOAD_MAX: Final = 2_000
SLICE: Final = 128  # records between two breaths of the event loop
UPLOADS_PER_TRANSACTION: Final = 1_000

_ALARM_TEXT: Final = {
    PSAM_COLLISION: "PSAM serial is used up by another accepted record",
    ATC_COLLISION: "offline ATC is used up by another accepted record: clone suspicion",
}
Rows = AsyncCursor[tuple[Any, ...]]

CheckTacs = Callable[[Sequence[TacItem]], Awaitable[Sequence[bool]]]


class Upload(NamedTuple):
    """One upload message of one authenticated terminal.

    digest: SM3 of its content. generation: number of the key set its MAC was good under. since: business date on which its
    batch was opened, None if unknown. bulk: the answer travels in a receipt, whose count has two bytes, not in field 62.
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

    def __repr__(self) -> str:  # records hold card numbers
        return f"Upload(terminal_no={self.terminal_no}, stan={self.stan}, {len(self.records)} records)"


class _Job:
    """An upload on its way through the writer; has what batch_messages.Keyed asks for."""

    __slots__ = (
        "batch_no",
        "candidates",
        "digest",
        "done",
        "generation",
        "merchant_no",
        "since",
        "stan",
        "terminal_no",
        "upload",
    )

    def __init__(self, upload: Upload, done: Callable[[Outcome | None], None]) -> None:
        self.upload = upload
        self.done = done
        self.terminal_no = upload.terminal_no
        self.merchant_no = upload.merchant_no
        self.batch_no = upload.batch_no
        self.stan = upload.stan
        self.digest = upload.digest
        self.generation = upload.generation
        self.since = upload.since
        self.candidates: list[Candidate] = []


def inline_tacs(vault: Vault) -> CheckTacs:
    """Check TACs in this process, in slices, so that the event loop breathes between them."""

    async def check(items: Sequence[TacItem]) -> Sequence[bool]:
        verdicts: list[bool] = []
        for start in range(0, len(items), SLICE):
            verdicts += vault.verify_tacs(items[start : start + SLICE])
            await asyncio.sleep(0)
        return verdicts

    return check


def pooled_tacs(pool: Executor, vault: Vault, *, processes: int, worth: int = 256) -> CheckTacs:
    """Check TACs in worker processes (keys.workers.tac_pool). Fewer than `worth`, or a broken pool: in this process."""
    inline = inline_tacs(vault)

    async def check(items: Sequence[TacItem]) -> Sequence[bool]:
        if len(items) < worth:
            return await inline(items)
        loop = asyncio.get_running_loop()
        share = -(-len(items) // processes)
        parts = [items[start : start + share] for start in range(0, len(items), share)]
        try:
            verdicts = await asyncio.gather(
                *(loop.run_in_executor(pool, verify_in_worker, part) for part in parts)
            )
        except BrokenExecutor:
            log.exception("TAC workers are gone, checking in this process")
            return await inline(items)
        return [verdict for part in verdicts for verdict in part]

    return check


class IntakeWriter(MessageWriter[_Job]):
    """The writer of offline records in one process.

    check_tacs: inline_tacs or pooled_tacs. shards: number of shards that books are kept in. queue_max: records that may wait.
    records_max: records of one transaction; one upload of more goes alone.
    """

    def __init__(
        self,
        connect: Connect,
        check_tacs: CheckTacs,
        shards: int,
        *,
        queue_max: int = 50_000,
        records_max: int = RECORDS_PER_TRANSACTION,
        retry_for_s: float = 20.0,
        on_batch: Callable[[int, float], None] = lambda _records, _seconds: None,
    ) -> None:
        super().__init__(
            connect,
            name="purse intake",
            queue_max=queue_max,
            weight_max=records_max,
            retry_for_s=retry_for_s,
            on_batch=on_batch,
        )
        self._check_tacs = check_tacs
        self._shards = shards
        self._serials = Serials()

    def submit(self, upload: Upload, done: Callable[[Outcome | None], None]) -> bool:
        """Queue an upload of 1 to 2000 records; False when the queue is full, and then nothing was taken.

        done: called once with the stored answer, or with None when the system failed (96).
        """
        assert 1 <= len(upload.records) <= RECORDS_PER_UPLOAD_MAX, "the message room counts records"
        return self.enqueue(_Job(upload, done))

    def weight(self, message: _Job) -> int:
        """Records of an upload."""
        return len(message.upload.records)

    def may_join(self, message: _Job, batch: Sequence[_Job]) -> bool:
        """Uploads of one transaction are bounded too: each takes a serial."""
        return len(batch) < UPLOADS_PER_TRANSACTION

    def answer(self, message: _Job, outcome: Outcome | None) -> None:
        """Tell whoever waits."""
        message.done(outcome)

    # ------------------------------------------------------------------ before the database

    async def prepare(self, messages: Sequence[_Job]) -> None:
        """Read the records and check the TACs that could matter."""
        for job in messages:
            candidates = job.candidates = []
            for place, raw in enumerate(job.upload.records):
                if place % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
                candidates.append(Candidate(raw))
        wanted = [candidate for job in messages for candidate in job.candidates if candidate.wants_tac]
        verdicts = await self._check_tacs([candidate.tac_item() for candidate in wanted])
        for candidate, good in zip(wanted, verdicts, strict=True):
            candidate.tac_good = good

    # ------------------------------------------------------------------ one transaction

    async def write(self, connection: Connection, messages: Sequence[_Job]) -> Sequence[Outcome]:
        """Judge and write a batch of uploads in one transaction; outcomes in the order of messages."""
        records = sum(map(self.weight, messages))
        readable = [
            candidate for job in messages for candidate in job.candidates if candidate.record is not None
        ]
        session = Session(self._shards, self._serials)
        asked = await session.begin(
            connection,
            messages,
            serials=records + len(messages),
            more=lambda link: _Asked.send(link, readable),
        )
        assert asked is not None
        desk = _Desk(session, *await asked.received(session.now, readable))
        outcomes = [await desk.take(job) for job in messages]
        await self._name_strays(connection, session, desk)
        await self._copy_rows(connection, session, desk)
        await session.finish(connection, desk.statements())
        return outcomes

    async def _name_strays(self, connection: Connection, session: Session, desk: "_Desk") -> None:
        """Give cards of ours that the registry does not know a number, since they own float from now on."""
        strays = {row.candidate.card: row for row in reversed(desk.rows) if _is_stray(row.candidate)}
        if not strays:
            return
        cursor = await ask(
            connection,
            SQL["add_strays"],
            {
                "found_at": session.now,
                "cards": int8s(list(strays)),
                "shards": int2s([card % self._shards for card in strays]),
            },
        )
        named = {card: Card(shard, card_no, None, None) for card, shard, card_no in await cursor.fetchall()}
        for row in desk.rows:
            if _is_stray(row.candidate):
                row.candidate.facts = named[row.candidate.card]
        for row in strays.values():
            desk.alarm(CARD_UNREGISTERED, row, "a good record of a card that is not registered")

    @staticmethod
    async def _copy_rows(connection: Connection, session: Session, desk: "_Desk") -> None:
        rows, today = desk.rows, session.today
        if not rows:
            return
        parts = [HEADER]
        for start in range(0, len(rows), SLICE):
            parts.append(record_rows(rows[start : start + SLICE], today, session.now, session.txid))
            await asyncio.sleep(0)
        parts.append(TRAILER)
        await _copy(connection, f"purse_record_{today:%Y%m%d}", RECORD_COLUMNS, b"".join(parts))
        accepted = [row for row in rows if _uses_up(row.candidate)]
        if accepted:
            await _copy(connection, "purse_atc", ATC_COLUMNS, atc_rows(accepted, today))
            await _copy(connection, "purse_serial", SERIAL_COLUMNS, serial_rows(accepted))


async def _copy(connection: Connection, table: str, columns: str, data: bytes) -> None:
    statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)"
    async with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        await copy.write(data)


def _uses_up(candidate: Candidate) -> bool:
    """Whether a record is an accepted purchase; a notice of a locked card is not."""
    record = candidate.record
    return candidate.result == ACCEPTED and record is not None and record.kind != LOCKED


def _waits(candidate: Candidate) -> bool:
    """Whether a record is stored and uses nothing up."""
    return candidate.result in (PENDING_GREY, FOREIGN) or (
        candidate.result == ACCEPTED and not _uses_up(candidate)
    )


def _is_stray(candidate: Candidate) -> bool:
    return candidate.facts is None and candidate.result in (ACCEPTED, PENDING_GREY)


class _Asked(NamedTuple):
    """Questions about the records of a transaction, on their way."""

    issuers: Rows
    psams: Rows
    cards: Rows
    accepted: Rows
    waiting: Rows
    serials: Rows

    @classmethod
    async def send(cls, connection: Connection, candidates: Sequence[Candidate]) -> "_Asked":
        """Queue all questions in the pipeline that is open on the connection."""
        pans = {candidate.card: candidate.asn[1:] for candidate in candidates}
        records = [candidate.record for candidate in candidates if candidate.record is not None]
        assert len(records) == len(candidates)
        used = {
            "cards": int8s([candidate.card for candidate in candidates]),
            "atcs": int4s([record.atc for record in records]),
        }
        serials = {
            "psams": int8s([candidate.psam for candidate in candidates]),
            "serials": int8s([record.psam_serial for record in records]),
        }
        psams = texts([f"{psam:012d}" for psam in {candidate.psam for candidate in candidates}])
        return cls(
            await ask(connection, SQL["read_issuers"]),
            await ask(connection, SQL["read_psams"], {"psams": psams}),
            await ask(
                connection,
                SQL["read_cards"],
                {"cards": int8s(list(pans)), "pans": texts(list(pans.values()))},
            ),
            await ask(connection, SQL["find_accepted"], used),
            await ask(connection, SQL["find_waiting"], used),
            await ask(connection, SQL["find_serials"], serials),
        )

    async def received(self, now: datetime, candidates: Sequence[Candidate]) -> tuple[Judge, dict[int, Psam]]:
        """A judge who knows what the database knows, and the PSAMs; the candidates get their cards' facts."""
        judge = Judge(now, dict(await self.issuers.fetchall()))
        for card, atc, amount_fen, mark in await self.accepted.fetchall():
            judge.accepted[card, atc] = (amount_fen, mark)
        judge.waiting.update(await self.waiting.fetchall())
        judge.serials.update(await self.serials.fetchall())
        cards = {card: Card(*facts) for card, *facts in await self.cards.fetchall()}
        for candidate in candidates:
            candidate.facts = cards.get(candidate.card)
        psams = {int(psam_no): Psam(*facts) for psam_no, *facts in await self.psams.fetchall()}
        return judge, psams


class _Desk:
    """Decisions of one transaction and what they write."""

    def __init__(self, session: Session, judge: Judge, psams: dict[int, Psam]) -> None:
        self._session = session
        self._judge = judge
        self._psams = psams
        self._alarms: list[tuple[str, Judged, str]] = []
        self.rows: list[Judged] = []

    async def take(self, job: _Job) -> Outcome:
        """Repeat, then batch number, then the records one by one; the answer names each by its terminal's serial."""
        session = self._session
        earlier = session.earlier(job)
        if earlier is not None:
            return earlier
        if session.open_batch(job) is None:
            return session.enter(job, Kind.UPLOAD, SIGN_ON_AGAIN)[1]
        taken = taken_fen = 0
        bulk = job.upload.bulk
        head = len(job.candidates).to_bytes(2) if bulk else bytes.fromhex(f"{len(job.candidates):02d}")
        parts = [head]
        for place, candidate in enumerate(job.candidates):
            if place % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            result = self._judged(job, candidate)
            parts.append(candidate.raw[59:63] + result.encode())
            if result in TAKEN:
                assert candidate.record is not None
                taken += 1
                taken_fen += candidate.record.amount_fen
        extra = {"62": b"".join(parts).hex(), "head": len(head), "n": len(job.candidates), "taken": taken}
        return session.enter(job, Kind.UPLOAD, APPROVED, amount_fen=taken_fen, extra=extra)[1]

    def _judged(self, job: _Job, candidate: Candidate) -> str:
        record = candidate.record
        psam = self._psams.get(candidate.psam) if record is not None else None
        fault = registration_fault(record, job.merchant_no, psam) if record is not None else ""
        result = self._judge.judge(candidate, fault)
        credit = None
        if psam is not None:
            foreign = psam.acquirer_foreign
            credit = (
                Credit(INTEROP_PAYABLE, int(psam.acquirer_id))
                if foreign
                else Credit(MERCHANTS_PAYABLE, psam.merchant_no)
            )
        row = Judged(
            candidate, self._session.take_serial(), job.terminal_no, job.merchant_no, job.batch_no, credit
        )
        self.rows.append(row)
        if candidate.alarm:
            self.alarm(candidate.alarm, row, _ALARM_TEXT[candidate.alarm])
        return result

    def alarm(self, kind: str, row: Judged, detail: str) -> None:
        """Note that somebody must look into a record."""
        self._alarms.append((kind, row, detail))

    def statements(self) -> list[tuple[str, dict[str, Any]]]:
        """What is to be written beside records, guards and journal rows."""
        made: list[tuple[str, dict[str, Any]]] = []
        session = self._session
        waiting = [row for row in self.rows if _waits(row.candidate)]
        if waiting:
            made.append((SQL["write_waiting"], _waiting_columns(waiting) | {"business_date": session.today}))
        faulty = [row for row in self.rows if row.candidate.fault]
        if faulty:
            columns = {
                "received_at": session.now,
                "entries": int8s([row.entry_no for row in faulty]),
                "terminals": int4s([row.terminal_no for row in faulty]),
                "reasons": texts([row.candidate.fault for row in faulty]),
                "raws": byteas([row.candidate.raw for row in faulty]),
            }
            made.append((SQL["write_quarantine"], columns))
        if self._alarms:
            columns = {
                "business_date": session.today,
                "kinds": texts([kind for kind, _, _ in self._alarms]),
                "entries": int8s([row.entry_no for _, row, _ in self._alarms]),
                "cards": int8s([row.candidate.card for _, row, _ in self._alarms]),
                "details": texts([detail for _, _, detail in self._alarms]),
            }
            made.append((SQL["write_alarms"], columns))
        return made


def _waiting_columns(rows: Sequence[Judged]) -> dict[str, Any]:
    records = [row.candidate.record for row in rows if row.candidate.record is not None]
    assert len(records) == len(rows)
    return {
        "cards": int8s([row.candidate.card for row in rows]),
        "atcs": int4s([record.atc for record in records]),
        "amounts": int8s([record.amount_fen for record in records]),
        "marks": byteas([row.candidate.mark for row in rows]),
        "results": texts([row.candidate.result for row in rows]),
        "entries": int8s([row.entry_no for row in rows]),
        "balances": int8s([record.balance_fen for record in records]),
    }
