"""One transaction of intake: the decisions, and what they write."""

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import Any, Final, Protocol

import numpy as np

from switch.domain.decisions import APPROVED, Outcome
from switch.domain.transactions import Kind
from switch.ledger.batch_messages import SIGN_ON_AGAIN, Session, ask, key_of
from switch.ledger.writer import Connection
from switch.purse.asking import SQL, Known, ask_for_judge
from switch.purse.batch import Batch, all_accepted
from switch.purse.batch import Job as Uploaded
from switch.purse.batches import Batches, Numbered
from switch.purse.columns import Flags
from switch.purse.record import LOCKED
from switch.purse.rows import (
    ATC_COLUMNS,
    RECORD_COLUMNS,
    SERIAL_COLUMNS,
    Stamp,
    Verdicts,
    atc_rows,
    odd_rows,
    record_rows,
    serial_rows,
    whole,
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
    day_bytes,
)
from switch.storage.arrays import byteas, int2s, int4s, int8s, texts

SLICE: Final = 128  # records between two breaths of the event loop
JOBS_SLICE: Final = 32  # uploads likewise

_ALARM_TEXT: Final = {
    PSAM_COLLISION: "PSAM serial is used up by another accepted record",
    ATC_COLLISION: "offline ATC is used up by another accepted record: clone suspicion",
    CARD_UNREGISTERED: "a good record of a card that is not registered",
}


class Job(Numbered, Uploaded, Protocol):
    """An upload that has been prepared. bulk: a batch with a serial, whose answer travels in a receipt and counts with two bytes."""

    @property
    def bulk(self) -> bool:
        """Whether the count of the answer has two bytes."""


def uses_up(candidate: Candidate) -> bool:
    """Whether a record is an accepted purchase; a notice of a locked card is not."""
    return candidate.result == ACCEPTED and candidate.kind != LOCKED


def _waits(candidate: Candidate) -> bool:
    """Whether a record is stored and uses nothing up."""
    return candidate.result in (PENDING_GREY, FOREIGN) or (
        candidate.result == ACCEPTED and not uses_up(candidate)
    )


class Desk:
    """Decisions of one transaction and what they write."""

    def __init__(
        self,
        session: Session,
        numbered: Batches,
        shards: int,
        jobs: Sequence[Job],
        batch: Batch,
        known: Known,
    ) -> None:
        self._session = session
        self._numbered = numbered
        self._shards = shards
        self._jobs = jobs
        self._batch = batch
        self._known = known
        self._registrations = batch.registrations(known.psams)
        facts, of = known.facts, batch.card_of
        self.verdicts = Verdicts(
            result=all_accepted(batch.count),
            entry_no=np.zeros(batch.count, np.int64),
            shard=facts.shard[of],
            card_no=facts.card_no[of],
            credit_code=self._registrations.credit_code,
            credit_owner=self._registrations.credit_owner,
        )
        self._new: list[bool] = []
        self._live: Flags = np.zeros(batch.count, np.bool_)
        self._odd: list[tuple[int, Candidate]] = []  # those that the judge has seen, with their places
        self._alarms: list[tuple[str, int, Candidate]] = []

    async def decide(self, connection: Connection) -> list[Outcome]:
        """Repeat, then batch number, then the records; an outcome per upload, which names each record by its terminal's serial."""
        self._find_new()
        await asyncio.sleep(0)
        judge = Judge(self._session.now, self._known.issuers)
        own = [issuer for issuer, ours in self._known.issuers.items() if ours]
        batch = self._batch
        plain = batch.plain(
            self._live, self._known.facts, self._registrations, own, judge.window, self._known.touched
        )
        await asyncio.sleep(0)
        await self._judge_the_others(connection, judge, np.flatnonzero(self._live & ~plain).tolist())
        return await self._answer()

    def _find_new(self) -> None:
        """Uploads that nobody has answered, that no other of this transaction repeats before them, and whose batch is open."""
        session, starts = self._session, self._batch.starts
        claimed = set()
        for number, job in enumerate(self._jobs):
            new = key_of(job) not in claimed and session.is_new(job)
            new = new and not (job.bulk and self._numbered.earlier(job))
            if new:
                claimed.add(key_of(job))
                new = session.open_batch(job) is not None
            self._new.append(new)
            self._live[starts[number] : starts[number + 1]] = new

    # ------------------------------------------------------------------ records that are not plainly good

    async def _judge_the_others(self, connection: Connection, judge: Judge, places: Sequence[int]) -> None:
        for number, place in enumerate(places):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            candidate = self._batch.candidate(place)
            candidate.facts = self._facts(place)
            self._odd.append((place, candidate))
        readable = [candidate for _, candidate in self._odd if candidate.readable]
        if readable:
            others = await ask_for_judge(connection, judge, readable)
            for candidate in readable:
                if candidate.facts is None:
                    candidate.facts = others.get(candidate.card)
        verdicts, registrations = self.verdicts, self._registrations
        for number, (place, candidate) in enumerate(self._odd):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            fault = registrations.faults[registrations.fault[place]] if candidate.readable else ""
            verdicts.result[place] = judge.judge(candidate, fault).encode()
            if candidate.alarm:
                self._alarms.append((candidate.alarm, place, candidate))
        await self._name_strays(connection)
        for place, candidate in self._odd:
            if candidate.facts is not None:
                verdicts.shard[place] = candidate.facts.shard
                verdicts.card_no[place] = candidate.facts.card_no

    def _facts(self, place: int) -> Card | None:
        facts, at = self._known.facts, self._batch.card_of[place]
        if not (facts.known[at] and self._batch.readable[place]):
            return None
        return Card(
            int(facts.shard[at]),
            int(facts.card_no[at]),
            day_bytes(int(facts.valid_from[at])),
            day_bytes(int(facts.valid_through[at])),
        )

    async def _name_strays(self, connection: Connection) -> None:
        """Give cards of ours that the registry does not know a number, since they own float from now on."""
        strays: dict[int, tuple[int, Candidate]] = {}
        found: list[Candidate] = []
        for place, candidate in self._odd:
            if candidate.facts is None and candidate.result in (ACCEPTED, PENDING_GREY):
                found.append(candidate)
                strays.setdefault(candidate.card, (place, candidate))
        if not strays:
            return
        cursor = await ask(
            connection,
            SQL["add_strays"],
            {
                "found_at": self._session.now,
                "cards": int8s(list(strays)),
                "shards": int2s([card % self._shards for card in strays]),
            },
        )
        named = {card: Card(shard, card_no) for card, shard, card_no in await cursor.fetchall()}
        for candidate in found:
            candidate.facts = named[candidate.card]
        self._alarms += [(CARD_UNREGISTERED, *stray) for stray in strays.values()]

    # ------------------------------------------------------------------ answers

    async def _answer(self) -> list[Outcome]:
        """Outcomes in order of arrival. Every record's number stands before that of its upload: the audit tells them by it."""
        batch, session, verdicts = self._batch, self._session, self.verdicts
        count = batch.count
        answers = np.concatenate(
            [batch.raw[:, 59:63], verdicts.result.view(np.uint8).reshape(count, 2)], axis=1
        ).tobytes()
        taken = np.isin(verdicts.result, [code.encode() for code in TAKEN])
        taken_to = [0, *np.cumsum(taken).tolist()]
        fen_to = [0, *np.cumsum(np.where(taken, batch.columns.amount_fen, 0)).tolist()]
        outcomes: list[Outcome] = []
        for number, job in enumerate(self._jobs):
            if number % JOBS_SLICE == JOBS_SLICE - 1:
                await asyncio.sleep(0)
            earlier = session.earlier(job)
            if earlier is None and job.bulk:
                earlier = self._numbered.earlier(job)
            if earlier is None and job.bulk and not self._new[number]:
                # Nothing is kept: its serial may come again after the sign-on.
                earlier = Outcome(session.why_not_open(job), "", session.now)
            if earlier is not None:
                outcomes.append(earlier)
                continue
            if not self._new[number]:
                outcomes.append(session.enter(job, Kind.UPLOAD, SIGN_ON_AGAIN)[1])
                continue
            start, end = batch.starts[number], batch.starts[number + 1]
            if job.bulk:
                self._numbered.note(job)
            first = session.take_serials(end - start)
            verdicts.entry_no[start:end] = np.arange(first, first + end - start)
            head = (end - start).to_bytes(2) if job.bulk else bytes.fromhex(f"{end - start:02d}")
            named = answers[start * 6 : end * 6]
            if not batch.readable[start:end].all():
                named = self._named(job, start)
            outcomes.append(
                session.enter(
                    job,
                    Kind.UPLOAD,
                    APPROVED,
                    amount_fen=fen_to[end] - fen_to[start],
                    extra={
                        "62": (head + named).hex(),
                        "head": len(head),
                        "n": end - start,
                        "taken": taken_to[end] - taken_to[start],
                    },
                )[1]
            )
        return outcomes

    def _named(self, job: Job, start: int) -> bytes:
        """Serials and results of an upload that may have records of another length."""
        results = self.verdicts.result[start : start + len(job.records)].tolist()
        return b"".join(raw[59:63] + result for raw, result in zip(job.records, results, strict=True))

    # ------------------------------------------------------------------ rows

    async def copy_rows(self, connection: Connection) -> None:
        """COPY of guards and records. The guards first: where one is used up already, nothing else has been written for nothing."""
        batch, session, verdicts = self._batch, self._session, self.verdicts
        if not self._live.any():
            return
        accepted = self._live & (verdicts.result == ACCEPTED.encode()) & (batch.columns.kind != LOCKED)
        by_atc, by_serial = batch.guard_order(accepted)
        if len(by_atc):
            rows = atc_rows(batch, verdicts, by_atc, session.today)
            await _copy(connection, "purse_atc", ATC_COLUMNS, rows)
            await _copy(connection, "purse_serial", SERIAL_COLUMNS, serial_rows(batch, by_serial))
        stamp = Stamp(session.today, session.now, session.txid)
        regular = self._live & batch.readable & (verdicts.card_no != 0) & (verdicts.credit_code != 0)
        rows_of_all = [record_rows(batch, verdicts, np.flatnonzero(regular), stamp)]
        await asyncio.sleep(0)
        odd = [one for one in self._odd if not regular[one[0]]]
        for at in range(0, len(odd), SLICE):
            rows_of_all += odd_rows(batch, verdicts, odd[at : at + SLICE], stamp)
            await asyncio.sleep(0)
        await _copy(connection, f"purse_record_{session.today:%Y%m%d}", RECORD_COLUMNS, whole(rows_of_all))

    def statements(self) -> list[tuple[str, dict[str, Any]]]:
        """What is to be written beside records, guards and journal rows."""
        session, entry_no = self._session, self.verdicts.entry_no
        made = self._numbered.statements(session.today)
        rows = [(candidate, int(entry_no[place])) for place, candidate in self._odd]
        waiting = [(candidate, number) for candidate, number in rows if _waits(candidate)]
        if waiting:
            made.append((SQL["write_waiting"], _waiting_columns(waiting, session.today)))
        if any(candidate.fault for candidate, _ in rows):
            made.append((SQL["write_quarantine"], self._quarantine_columns()))
        if self._alarms:
            columns = {
                "business_date": session.today,
                "kinds": texts([kind for kind, _, _ in self._alarms]),
                "entries": int8s([int(entry_no[place]) for _, place, _ in self._alarms]),
                "cards": int8s([candidate.card for _, _, candidate in self._alarms]),
                "details": texts([_ALARM_TEXT[kind] for kind, _, _ in self._alarms]),
            }
            made.append((SQL["write_alarms"], columns))
        return made

    def _quarantine_columns(self) -> dict[str, Any]:
        faulty = [(place, candidate) for place, candidate in self._odd if candidate.fault]
        places = [place for place, _ in faulty]
        return {
            "received_at": self._session.now,
            "entries": int8s(self.verdicts.entry_no[places].tolist()),
            "terminals": int4s(self._batch.terminal_no[places].tolist()),
            "reasons": texts([candidate.fault for _, candidate in faulty]),
            "raws": byteas([candidate.raw for _, candidate in faulty]),
        }


async def _copy(connection: Connection, table: str, columns: str, data: bytes) -> None:
    statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)"
    async with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        await copy.write(data)


def _waiting_columns(rows: Sequence[tuple[Candidate, int]], today: date) -> dict[str, Any]:
    return {
        "business_date": today,
        "cards": int8s([candidate.card for candidate, _ in rows]),
        "atcs": int4s([candidate.atc for candidate, _ in rows]),
        "amounts": int8s([candidate.amount_fen for candidate, _ in rows]),
        "marks": byteas([candidate.mark for candidate, _ in rows]),
        "results": texts([candidate.result for candidate, _ in rows]),
        "entries": int8s([entry_no for _, entry_no in rows]),
        "balances": int8s([int.from_bytes(candidate.raw[34:38]) for candidate, _ in rows]),
    }
