"""One transaction of intake: what must be known of its records, the decisions, and what they write."""

import asyncio
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final, NamedTuple, Protocol

from psycopg import AsyncCursor

from switch.domain.decisions import APPROVED, Outcome
from switch.domain.transactions import Kind
from switch.ledger.batch_messages import SIGN_ON_AGAIN, Keyed, Session, ask
from switch.ledger.chart import Code
from switch.ledger.writer import Connection
from switch.purse.record import LOCKED
from switch.purse.rows import Judged, credit
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
    day_bytes,
    registration_fault,
)
from switch.storage.arrays import byteas, int2s, int4s, int8s, texts
from switch.storage.sql import load

SQL: Final = load("switch.purse")
SLICE: Final = 128  # records between two breaths of the event loop

_ALARM_TEXT: Final = {
    PSAM_COLLISION: "PSAM serial is used up by another accepted record",
    ATC_COLLISION: "offline ATC is used up by another accepted record: clone suspicion",
    CARD_UNREGISTERED: "a good record of a card that is not registered",
}
_RESULT_BYTES = {f"{number:02d}": f"{number:02d}".encode() for number in range(100)}
_TWO_64 = 1 << 64
Rows = AsyncCursor[tuple[Any, ...]]


class Job(Keyed, Protocol):
    """An upload that has been prepared. bulk: its answer travels in a receipt, whose count has two bytes."""

    @property
    def candidates(self) -> Sequence[Candidate]:
        """Its records, in order."""

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


def _is_stray(candidate: Candidate) -> bool:
    return candidate.facts is None and candidate.result in (ACCEPTED, PENDING_GREY)


class Asked(NamedTuple):
    """Questions about the records of a transaction, on their way."""

    issuers: Rows
    psams: Rows
    cards: Rows
    accepted: Rows
    waiting: Rows
    serials: Rows

    @classmethod
    async def send(cls, connection: Connection, candidates: Sequence[Candidate]) -> "Asked":
        """Queue all questions in the pipeline that is open on the connection. candidates: readable ones."""
        cards = sorted({candidate.card for candidate in candidates})  # neighbours in the index
        psams = {candidate.psam for candidate in candidates}
        used = {
            "cards": int8s([candidate.card for candidate in candidates]),
            "atcs": int4s([candidate.atc for candidate in candidates]),
        }
        serials = {
            "psams": int8s([candidate.psam for candidate in candidates]),
            "serials": int8s([candidate.psam_serial for candidate in candidates]),
        }
        return cls(
            await ask(connection, SQL["read_issuers"]),
            await ask(connection, SQL["read_psams"], {"psams": texts([f"{psam:012d}" for psam in psams])}),
            await ask(
                connection,
                SQL["read_cards"],
                {"cards": int8s(cards), "pans": texts([f"{card % _TWO_64:019d}" for card in cards])},
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
        cards = {
            card: Card(shard, card_no, day_bytes(valid_from), day_bytes(valid_through))
            for card, shard, card_no, valid_from, valid_through in await self.cards.fetchall()
        }
        facts_of = cards.get
        for candidate in candidates:
            candidate.facts = facts_of(candidate.card)
        psams = {int(psam_no): Psam(*facts) for psam_no, *facts in await self.psams.fetchall()}
        return judge, psams


class Desk:
    """Decisions of one transaction and what they write."""

    def __init__(self, session: Session, judge: Judge, psams: dict[int, Psam]) -> None:
        self._session = session
        self._judge = judge
        self._psams = psams
        self._registrations: dict[tuple[int, int, bytes], tuple[str, bytes]] = {}
        self._alarms: list[tuple[str, Candidate, int]] = []
        self.judged: list[Judged] = []

    async def take(self, job: Job) -> Outcome:
        """Repeat, then batch number, then the records one by one; the answer names each by its terminal's serial."""
        session = self._session
        earlier = session.earlier(job)
        if earlier is not None:
            return earlier
        if session.open_batch(job) is None:
            return session.enter(job, Kind.UPLOAD, SIGN_ON_AGAIN)[1]
        count = len(job.candidates)
        head = count.to_bytes(2) if job.bulk else bytes.fromhex(f"{count:02d}")
        answer = [head]
        entries: list[int] = []
        credits_: list[bytes] = []
        taken = taken_fen = 0
        merchant_no, judge = job.merchant_no, self._judge
        for place, candidate in enumerate(job.candidates):
            if place % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            fault, owed = "", b""
            if candidate.readable:
                fault, owed = self._registration(merchant_no, candidate.psam, candidate.acquirer)
            result = judge.judge(candidate, fault)
            entry_no = session.take_serial()
            entries.append(entry_no)
            credits_.append(owed)
            answer.append(candidate.raw[59:63])
            answer.append(_RESULT_BYTES[result])
            if result in TAKEN:
                taken += 1
                taken_fen += candidate.amount_fen
            if candidate.alarm:
                self._alarms.append((candidate.alarm, candidate, entry_no))
        uploader = (job.terminal_no, merchant_no, job.batch_no)
        self.judged.append(Judged(uploader, job.candidates, entries, credits_))
        extra = {"62": b"".join(answer).hex(), "head": len(head), "n": count, "taken": taken}
        return session.enter(job, Kind.UPLOAD, APPROVED, amount_fen=taken_fen, extra=extra)[1]

    def _registration(self, merchant_no: int, psam_no: int, acquirer: bytes) -> tuple[str, bytes]:
        """Why merchant, PSAM and acquirer do not belong together, if so; and who is owed."""
        key = (merchant_no, psam_no, acquirer)
        known = self._registrations.get(key)
        if known is None:
            psam = self._psams.get(psam_no)
            owed = b""
            if psam is not None and psam.acquirer_foreign:
                owed = credit(Code.INTEROP_PAYABLE, int(psam.acquirer_id))
            elif psam is not None:
                owed = credit(Code.MERCHANTS_PAYABLE, psam.merchant_no)
            known = self._registrations[key] = (registration_fault(acquirer, merchant_no, psam), owed)
        return known

    def all_judged(self) -> list[tuple[Candidate, int]]:
        """Every judged record with its serial."""
        return [pair for one in self.judged for pair in zip(one.candidates, one.entries, strict=True)]

    async def name_strays(self, connection: Connection, shards: int) -> None:
        """Give cards of ours that the registry does not know a number, since they own float from now on."""
        strays: dict[int, tuple[Candidate, int]] = {}
        found: list[Candidate] = []
        for candidate, entry_no in self.all_judged():
            if _is_stray(candidate):
                found.append(candidate)
                strays.setdefault(candidate.card, (candidate, entry_no))
        if not strays:
            return
        cursor = await ask(
            connection,
            SQL["add_strays"],
            {
                "found_at": self._session.now,
                "cards": int8s(list(strays)),
                "shards": int2s([card % shards for card in strays]),
            },
        )
        named = {card: Card(shard, card_no) for card, shard, card_no in await cursor.fetchall()}
        for candidate in found:
            candidate.facts = named[candidate.card]
        self._alarms += [(CARD_UNREGISTERED, *stray) for stray in strays.values()]

    def statements(self) -> list[tuple[str, dict[str, Any]]]:
        """What is to be written beside records, guards and journal rows."""
        made: list[tuple[str, dict[str, Any]]] = []
        session = self._session
        rows = self.all_judged()
        waiting = [(candidate, entry_no) for candidate, entry_no in rows if _waits(candidate)]
        if waiting:
            made.append((SQL["write_waiting"], _waiting_columns(waiting, session.today)))
        if any(candidate.fault for candidate, _ in rows):
            made.append((SQL["write_quarantine"], self._quarantine_columns()))
        if self._alarms:
            columns = {
                "business_date": session.today,
                "kinds": texts([kind for kind, _, _ in self._alarms]),
                "entries": int8s([entry_no for _, _, entry_no in self._alarms]),
                "cards": int8s([candidate.card for _, candidate, _ in self._alarms]),
                "details": texts([_ALARM_TEXT[kind] for kind, _, _ in self._alarms]),
            }
            made.append((SQL["write_alarms"], columns))
        return made

    def _quarantine_columns(self) -> dict[str, Any]:
        faulty = [
            (one.uploader[0], candidate, entry_no)
            for one in self.judged
            for candidate, entry_no in zip(one.candidates, one.entries, strict=True)
            if candidate.fault
        ]
        return {
            "received_at": self._session.now,
            "entries": int8s([entry_no for _, _, entry_no in faulty]),
            "terminals": int4s([terminal_no for terminal_no, _, _ in faulty]),
            "reasons": texts([candidate.fault for _, candidate, _ in faulty]),
            "raws": byteas([candidate.raw for _, candidate, _ in faulty]),
        }


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
