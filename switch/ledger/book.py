"""The book of one shard: requests are decided and written in batches, one database transaction for each.

While one batch is at the database the next collects: a lone request never waits for company, and under load a commit is
shared by hundreds. Nothing about money outlives a batch; two processes may serve one database.

A batch is two round trips. In the first it takes the gate, locks the holders' accounts in id order, and only then reads the
instant, the cards, the terminals and the keys. Then every request is decided in order of arrival: repeats first, or a repeat
would be declined for want of the money that its original took. The second writes and commits. Only then is anybody told.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import APPROVED, Decline, Outcome
from switch.domain.transactions import (
    Balance,
    CardRequest,
    Completion,
    CompletionVoid,
    Kind,
    Original,
    PreAuthorisation,
    PreAuthorisationVoid,
    Purchase,
    Refused,
    Reversal,
    Void,
)
from switch.ledger import hold_rows, holds, limit_rows, rules
from switch.ledger.batch_messages import CLOSED, FROZEN
from switch.ledger.gate import GATE
from switch.ledger.items import FINANCIAL, IN_DOUBT, KIND, REVERSAL, Item, Key, extra_of, outcome_of
from switch.ledger.limits import LimitRule, Window
from switch.ledger.rules import Account, Card, Entry, Facts, Hold, Ruling
from switch.ledger.serials import Serials, base36, rrn_head
from switch.storage.arrays import byteas, dates, int2s, int4s, int8s, texts
from switch.storage.pipeline import Parameter, Pipeline
from switch.storage.pool import LOST
from switch.storage.sql import load

log = structlog.get_logger(__name__)

SQL = load("switch.ledger")
_STATEMENTS = (
    "take_gate",
    "lock_accounts",
    "read_instant",
    "read_cards",
    "read_terminals",
    "find_keys",
    "find_originals",
    "find_batches",
    "read_uses",
    "write_accounts",
    "write_journal",
    "write_postings",
    "write_uses",
    "next_block",
    *hold_rows.STATEMENTS,
    *limit_rows.STATEMENTS,
)
_TRANSACTION = {"begin": "BEGIN", "commit": "COMMIT", "rollback": "ROLLBACK"}
Row = tuple[Any, ...]
Connect = Callable[[], Awaitable[AsyncConnection[Row]]]
UNKNOWN_BATCH_DAYS = (
    4  # a batch that was never opened holds declines only; their repeats are looked for so far back
)
NO_DATE = date(2000, 1, 1)  # stands for NULL in the arrays, which hold none


_REFUSALS = (  # by the form of a request, or by routing
    Decline.CASH_FORBIDDEN,
    Decline.NOT_SUPPORTED,
    Decline.CARD_UNKNOWN,
    Decline.ISSUER_UNKNOWN,
    Decline.ACQUIRER_OUT_OF_SCOPE,
    Decline.NO_ROUTE,
)
_KIND = {request: int(kind) for request, kind in KIND.items()}


def _kind_of(request: CardRequest) -> int:
    if type(request) is Completion and request.advice:
        return int(Kind.COMPLETION_ADVICE)
    return _KIND[type(request)]


class ConflictError(Exception):
    """A batch broke a constraint or met a deadlock; it is run again, then in halves, until the culprit is alone."""


def original_day(original: Original, today: date) -> date:
    """The date that field 61 means: the latest MMDD not after tomorrow. An impossible date counts as today."""
    for year in (today.year + 1, today.year, today.year - 1, today.year - 4):
        try:
            day = date(year, original.month, original.day)
        except ValueError:
            continue
        if day <= today + timedelta(days=1):
            return day
    return today


class _Batch:
    """The running state of one batch: what was locked and read, changed by every decision."""

    __slots__ = (
        "account_ids",
        "accounts",
        "by_key",
        "by_number",
        "cards",
        "closed_batches",
        "facts",
        "holds",
        "now",
        "originals",
        "reference",
        "rrn_head",
        "terminals",
        "today",
        "written",
    )

    def __init__(self) -> None:
        self.now: datetime
        self.today: date
        self.rrn_head: str
        self.facts: Facts
        self.account_ids: list[int] = []  # of each item, 0 for a card that is not ours
        self.reference: date  # no row can be dated after it; field 61 is read against it
        self.accounts: dict[int, Account] = {}
        self.cards: dict[str, Card] = {}
        self.terminals: dict[int, tuple[int, int, int]] = {}  # generation, batch_no, batch state
        self.by_key: dict[Key, Entry] = {}
        self.by_number: dict[int, Entry] = {}
        self.originals: dict[tuple[int, int, int, date], Entry] = {}
        self.closed_batches: set[tuple[int, int]] = set()
        self.holds: dict[int, Hold] = {}  # by entry number; all open ones of every account in holds_of
        self.written: list[tuple[Item, Entry, Ruling]] = []


def _entry(row: Row) -> Entry:
    return Entry(
        entry_no=row[3],
        business_date=row[2],
        kind=row[4],
        account_id=row[5],
        pan=row[6],
        amount_fen=row[7],
        effect_fen=row[8],
        answer=row[9],
        rrn=row[10],
        auth_code=row[11],
        decided_at=row[12],
        digest=row[13],
        extra=row[14],
        original_date=row[15],
        original_entry=row[16],
    )


class ShardBook:
    """One queue, one writer, one connection: a process's way into one shard.

    queue_max: requests that may wait; one more is refused at once. batch_max: requests per database transaction.
    de39: field 39 of each reason to decline. retry_for_s: how long requests outlive a lost database before they are answered 96.
    """

    def __init__(
        self,
        shard: int,
        connect: Connect,
        de39: Mapping[Decline, str],
        *,
        queue_max: int = 10_000,
        batch_max: int = 256,
        no_pin_limit_fen: int = 0,
        retry_for_s: float = 20.0,
        on_batch: Callable[[int, float], None] = lambda _size, _seconds: None,
    ) -> None:
        self.shard = shard
        self._connect = connect
        self._de39 = de39
        self._queue: deque[Item] = deque()
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._no_pin_limit_fen = no_pin_limit_fen
        self._retry_for_s = retry_for_s
        self._on_batch = on_batch
        self._serials = Serials()
        self._link: Pipeline | None = None
        self._wake = asyncio.Event()
        self._busy = False
        self._stopping = False
        self._lost_s: float | None = None  # since when the database has been lost
        self._in_doubt = False  # a commit of the running batch was sent, and nobody said what became of it

    # ------------------------------------------------------------------ the queue

    def submit(self, item: Item) -> bool:
        """Queue a request; False when the queue is full or the book is closing, and then nothing was taken."""
        if len(self._queue) >= self._queue_max or self._stopping:
            return False
        self._queue.append(item)
        self._wake.set()
        return True

    @property
    def depth(self) -> int:
        """Requests waiting for a batch."""
        return len(self._queue)

    async def run(self) -> None:
        """Serve the queue until stop(); then finish what is queued and return."""
        try:
            while True:
                if not self._queue:
                    if self._stopping:
                        return
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                queue = self._queue
                batch = [queue.popleft() for _ in range(min(len(queue), self._batch_max))]
                self._busy = True
                await self._serve(batch)
                self._busy = False
        finally:
            await self._drop_link()

    def stop(self) -> None:
        """Take no more; run() returns when the queue is empty."""
        self._stopping = True
        self._wake.set()

    async def _serve(self, batch: list[Item]) -> None:
        """Bring a batch to its end, whatever it takes, and answer each of its requests exactly once."""
        started = time.monotonic()
        self._in_doubt = False
        outcomes: Sequence[Outcome | None]
        try:
            outcomes = await self._settle_surely(batch)
        except Exception:  # our own fault: 96 for the batch, and the service lives on
            log.exception("batch failed", shard=self.shard, size=len(batch))
            await self._drop_link()
            outcomes = [self._unsettled()] * len(batch)
        self._on_batch(len(batch), time.monotonic() - started)
        for item, outcome in zip(batch, outcomes, strict=True):
            self._tell(item, outcome)
        if self._lost_s is not None:  # who has queued behind an outage may have gone home by its end
            while self._queue:
                self._tell(self._queue.popleft(), None)

    def _tell(self, item: Item, outcome: Outcome | None) -> None:
        try:
            item.done(outcome)
        except Exception:
            log.exception("an answer could not be delivered", shard=self.shard)

    def _unsettled(self) -> Outcome | None:
        """What to tell those of a batch that came to no end: 96 only if surely nothing of it was booked."""
        return IN_DOUBT if self._in_doubt else None

    async def _settle_surely(self, batch: list[Item]) -> Sequence[Outcome | None]:
        """Settle; after a lost connection settle again: requests that were committed are then found as repeats.

        The patience of retry_for_s is one for all batches of an outage: what has queued behind the first would otherwise be
        booked minutes after its terminal gave up.
        """
        delay_s = 0.05
        while True:
            try:
                outcomes = await self._settle_or_split(batch)
            except LOST as error:
                await self._drop_link()
                now_s = time.monotonic()
                if self._lost_s is None:
                    self._lost_s = now_s
                if self._stopping or now_s + delay_s > self._lost_s + self._retry_for_s:
                    log.warning(
                        "database lost, batch given up",
                        shard=self.shard,
                        size=len(batch),
                        in_doubt=self._in_doubt,
                    )
                    return [self._unsettled()] * len(batch)
                log.warning("database lost, batch waits", shard=self.shard, error=type(error).__name__)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, 1.0)
            else:
                self._lost_s = None
                return outcomes

    async def _settle_or_split(self, batch: list[Item]) -> Sequence[Outcome | None]:
        """One bad request must not fail its batch: again as a whole, then in halves, until it is alone and gets 96."""
        for _ in range(2):
            try:
                return await self.settle(batch)
            except ConflictError as error:
                conflict = error.__cause__
        if len(batch) == 1:
            log.error("request cannot be booked", shard=self.shard, error=repr(type(conflict)))
            return [None]
        middle = len(batch) // 2
        return [*await self._settle_or_split(batch[:middle]), *await self._settle_or_split(batch[middle:])]

    # ------------------------------------------------------------------ one batch

    async def settle(self, items: Sequence[Item]) -> Sequence[Outcome]:
        """Decide and write one batch in one transaction; outcomes in the order of items.

        Raises ConflictError when a constraint or a deadlock failed the batch (nothing was written) and
        psycopg.OperationalError when the connection was lost (the outcome is unknown).
        """
        link = await self._linked()
        if self._serials.short_of(len(items)):
            await self._refill(link)
        try:
            batch = await self._lock_and_read(link, items)
            outcomes = [
                self._decide(batch, item, account_id)
                for item, account_id in zip(items, batch.account_ids, strict=True)
            ]
            await self._write_and_commit(link, batch)
        except (psycopg.IntegrityError, psycopg.errors.DeadlockDetected, psycopg.DataError) as error:
            link.queue("rollback")
            await link.round_trip()
            raise ConflictError from error
        except BaseException:
            await self._drop_link()
            raise
        return outcomes

    async def _refill(self, link: Pipeline) -> None:
        link.queue("next_block")
        ((row,),) = await link.round_trip()
        self._serials.refill(row[0])

    async def _lock_and_read(self, link: Pipeline, items: Sequence[Item]) -> _Batch:
        shard = self.shard
        reference = datetime.now(SHANGHAI).date() + timedelta(days=2)
        unknown_since = reference - timedelta(days=UNKNOWN_BATCH_DAYS + 2)
        batch = _Batch()
        batch.reference = reference
        pans: set[str] = set()
        terminals: set[int] = set()
        reversals: set[tuple[int, int]] = set()
        look_into: set[int] = set()  # accounts of which a hold may have expired, or is asked about
        named: dict[
            tuple[int, int, int, date], int
        ] = {}  # with the merchant, since a terminal may have had another
        for item in items:
            request = item.request
            terminals.add(item.key.terminal_no)
            card = request.card
            if card is not None:
                pans.add(card.reveal())
            holder_id = item.holder_id
            batch.account_ids.append(
                holder_id * 100 + int(getattr(request, "account", 10)) if holder_id else 0
            )
            if item.key.rclass:
                reversals.add((item.key.terminal_no, item.key.batch_no))
            if type(request) is Purchase:  # nearly all are
                continue
            if hold_rows.concerned(request):
                look_into.add(batch.account_ids[-1])
            if isinstance(request, holds.NAMING):
                day = original_day(request.original, reference)
                name = (item.key.terminal_no, request.original.batch_no, request.original.stan, day)
                named[name] = item.merchant_no

        queue = link.queue
        queue("begin")
        queue("take_gate", {"gate": GATE, "shard": shard})
        queue("lock_accounts", {"shard": shard, "account_ids": int8s(list(set(batch.account_ids)))})
        queue("read_instant")
        queue("read_cards", {"shard": shard, "pans": texts(list(pans))})
        queue("read_terminals", {"terminals": int4s(list(terminals))})
        queue(
            "find_keys",
            {
                "shard": shard,
                "terminals": int4s([item.key.terminal_no for item in items]),
                "batches": int4s([item.key.batch_no for item in items]),
                "stans": int4s([item.key.stan for item in items]),
                "sinces": dates([item.since or unknown_since for item in items]),
            },
        )
        if named:
            queue(
                "find_originals",
                {
                    "shard": shard,
                    "terminals": int4s([key[0] for key in named]),
                    "batches": int4s([key[1] for key in named]),
                    "stans": int4s([key[2] for key in named]),
                    "dates": dates([key[3] for key in named]),
                    "merchants": int4s(list(named.values())),
                },
            )
        if reversals:
            queue(
                "find_batches",
                {
                    "terminals": int4s([key[0] for key in reversals]),
                    "batches": int4s([key[1] for key in reversals]),
                },
            )
        _, _, accounts, instant, cards, sessions, keys, *rest = await link.round_trip()
        originals = rest.pop(0) if named else []
        closed = rest.pop(0) if reversals else []

        if not instant:
            raise LookupError("no business day covers this instant: run `cardswitch doctor`")
        batch.now, batch.today = instant[0]
        batch.rrn_head = rrn_head(batch.now)
        # A method of the batch here would close a circle, and every batch would wait for the collector: 90 000 objects a second.
        batch.facts = Facts(
            batch.now,
            batch.today,
            no_pin_limit_fen=self._no_pin_limit_fen,
            entry_of=batch.by_number.get,
            holds=batch.holds,
        )
        batch.accounts = {row[0]: Account(*row) for row in accounts}
        batch.cards = {row[0]: Card(*row[1:]) for row in cards}
        batch.terminals = {row[0]: (row[1], row[2], row[3]) for row in sessions}
        for row in keys:
            key = items[row[0] - 1].key
            self._found(batch, Key(key.terminal_no, key.batch_no, key.stan, row[1]), row)
        wanted = list(named)
        for row in originals:
            name = wanted[row[0] - 1]
            batch.originals[name] = self._found(batch, Key(name[0], name[1], name[2], FINANCIAL), row)
        batch.closed_batches = {(row[0], row[1]) for row in closed}
        limited: list[int] = []
        for account in batch.accounts.values():
            if account.holds_due is not None and batch.now >= account.holds_due:
                look_into.add(account.account_id)
            if account.limited_from is not None:
                limited.append(account.account_id)
        if batch.by_number or look_into or limited:
            await self._read_further(link, batch, look_into, limited)
        return batch

    @staticmethod
    def _found(batch: _Batch, key: Key, row: Row) -> Entry:
        entry = batch.by_number.get(row[3])
        if entry is None:
            entry = batch.by_number[row[3]] = _entry(row)
        return batch.by_key.setdefault(key, entry)

    async def _read_further(
        self, link: Pipeline, batch: _Batch, look_into: set[int], limited: list[int]
    ) -> None:
        """A third round trip, only for batches in which an original or a repeat was found, or holds or limits matter.

        look_into: accounts all of whose open holds are read, and set free where they have expired. limited: those with limits.
        """
        numbers = set(batch.by_number) | {
            e.original_entry for e in batch.by_number.values() if e.original_entry
        }
        held = hold_rows.entries_wanted(batch.by_number.values())
        link.queue("read_uses", {"shard": self.shard, "entries": int8s(list(numbers))})
        if held or look_into:
            link.queue(
                "read_holds",
                {"shard": self.shard, "accounts": int8s(list(look_into)), "entries": int8s(list(held))},
            )
        if limited:
            link.queue("read_windows", {"shard": self.shard, "accounts": int8s(limited)})
            link.queue("read_limits")
        uses, *rest = await link.round_trip()
        for row in rest.pop(0) if held or look_into else ():
            batch.holds[row[0]] = Hold(*row)
        if limited:
            batch.facts.windows = {row[0]: Window(*row) for row in rest[0]}
            batch.facts.limit_rules = [LimitRule(*row) for row in rest[1]]
        for account_id in look_into:
            account = batch.accounts.get(account_id)
            if account is not None:
                holds.release_expired(account, batch.holds.values(), batch.now)
        for entry_no, day, amount_fen, refunded_fen, undone_by in uses:
            entry = batch.by_number.get(entry_no)
            if entry is None:  # the purchase behind a void that is to be reversed: only its use matters
                entry = batch.by_number[entry_no] = Entry(
                    entry_no, day, 0, None, None, amount_fen, 0, APPROVED, "", "", batch.now, b"", None
                )
            entry.refunded_fen = refunded_fen
            entry.undone_by = undone_by

    # ------------------------------------------------------------------ decisions

    def _decide(self, batch: _Batch, item: Item, account_id: int) -> Outcome:
        """Repeat, then form (30), batch number (77), freeze (90), then the rules. Pure but for the running state."""
        key = item.key
        generation, open_batch, state = batch.terminals.get(key.terminal_no, (0, 0, 2))
        if item.generation < generation:  # authenticated under keys that have been replaced since
            return Outcome("A0", "", batch.now)
        before = batch.by_key.get(key)
        if before is not None:
            if before.digest == item.digest:
                return outcome_of(before)
            rrn = batch.rrn_head + base36(self._serials.take())
            return Outcome(self._de39[Decline.DUPLICATE_KEY], rrn, batch.now)
        ruling = self._rule(batch, item, account_id, open_batch, state)
        return self._enter(batch, item, account_id, ruling)

    def _rule(self, batch: _Batch, item: Item, account_id: int, open_batch: int, batch_state: int) -> Ruling:
        request, key = item.request, item.key
        if isinstance(request, Refused) and request.answer == self._de39[Decline.FORMAT]:
            return Ruling(Decline.FORMAT)
        if key.rclass == FINANCIAL:
            # A closed batch is nobody's open one: 90 would let a terminal wait for what only a sign-on brings.
            if key.batch_no != open_batch or batch_state == CLOSED:
                return Ruling(Decline.TERMINAL_MUST_SIGN_ON)
            if batch_state == FROZEN:
                return Ruling(Decline.BATCH_FROZEN)
            if batch.by_key and (*key[:3], REVERSAL) in batch.by_key:
                return Ruling(Decline.TOMBSTONED)
        if isinstance(request, Refused):
            return Ruling(_refusal(request, self._de39))
        facts = batch.facts
        facts.serial = self._serials.take()
        facts.merchant_no = item.merchant_no
        facts.card = batch.cards.get(request.card.reveal())
        facts.account = batch.accounts.get(account_id)
        facts.holder_id = item.holder_id
        facts.original = None
        facts.original_batch_closed = False
        facts.pin = item.pin
        facts.pin_unreadable = item.pin_unreadable
        ruling = self._apply(batch, item, facts)
        ruling.serial = facts.serial
        return ruling

    def _apply(self, batch: _Batch, item: Item, facts: Facts) -> Ruling:
        request, key = item.request, item.key
        if isinstance(request, Purchase):
            return rules.purchase(request, facts)
        if isinstance(request, Balance):
            return rules.balance(request, facts)
        if isinstance(request, Reversal):
            facts.original = batch.by_key.get(Key(key.terminal_no, key.batch_no, key.stan, FINANCIAL))
            facts.original_batch_closed = (key.terminal_no, key.batch_no) in batch.closed_batches
            return rules.reversal(request, facts, holds.undo if request.of in holds.KINDS else None)
        if isinstance(request, PreAuthorisation):
            return holds.pre_authorise(request, facts)
        if not isinstance(request, holds.NAMING):
            return Ruling(Decline.NOT_SUPPORTED)
        facts.original = self._original(batch, key.terminal_no, request.original)
        if isinstance(request, Void):
            return rules.void(request, facts, key.batch_no)
        if isinstance(request, PreAuthorisationVoid):
            return holds.void_pre_authorisation(request, facts)
        if isinstance(request, Completion):
            return holds.complete(request, facts)
        if isinstance(request, CompletionVoid):
            return holds.void_completion(request, facts, key.batch_no)
        return rules.refund(request, facts)

    @staticmethod
    def _original(batch: _Batch, terminal_no: int, original: Original) -> Entry | None:
        day = original_day(original, batch.reference)
        entry = batch.originals.get((terminal_no, original.batch_no, original.stan, day))
        if entry is None:  # perhaps decided a moment ago, in this very batch
            entry = batch.by_key.get(Key(terminal_no, original.batch_no, original.stan, FINANCIAL))
            if entry is not None and not day <= entry.business_date <= day + timedelta(days=1):
                return None
        return entry

    def _enter(self, batch: _Batch, item: Item, account_id: int, ruling: Ruling) -> Outcome:
        """Make the journal entry of a ruling, visible at once to the rest of the batch."""
        serial = ruling.serial or self._serials.take()
        decline = ruling.decline
        answer = APPROVED if decline is None else self._de39[decline]
        suffix = base36(serial)
        auth_code = ruling.auth_code
        if auth_code is None:
            auth_code = suffix if decline is None else ""
        request = item.request
        card = request.card
        original = ruling.original
        entry = Entry(
            serial,
            batch.today,
            _kind_of(request),
            account_id or None,
            card.reveal() if card is not None else None,
            getattr(request, "amount_fen", 0),
            ruling.effect_fen,
            answer,
            ruling.rrn or batch.rrn_head + suffix,
            auth_code,
            batch.now,
            item.digest,
            extra_of(ruling.balances) if ruling.balances else None,
            original.business_date if original is not None else None,
            original.entry_no if original is not None else None,
        )
        batch.by_key[item.key] = entry
        batch.by_number[serial] = entry
        batch.written.append((item, entry, ruling))
        return outcome_of(entry)

    # ------------------------------------------------------------------ writing

    async def _write_and_commit(self, link: Pipeline, batch: _Batch) -> None:
        shard = self.shard
        changed = [a for a in batch.accounts.values() if a.changed and not a.held_changed]
        held = [a for a in batch.accounts.values() if a.held_changed]
        used = [entry for entry in batch.by_number.values() if entry.used]
        moved = [
            (entry, ruling.movement) for _, entry, ruling in batch.written if ruling.movement is not None
        ]
        queue = link.queue
        if changed:
            queue(
                "write_accounts",
                {
                    "shard": shard,
                    "account_ids": int8s([a.account_id for a in changed]),
                    "balances": int8s([a.balance_fen for a in changed]),
                    "failures": int2s([a.pin_failures for a in changed]),
                },
            )
        if held:
            queue("write_held_accounts", hold_rows.held_columns(shard, held))
        if batch.facts.windows:
            windows = [window for window in batch.facts.windows.values() if window.changed]
            if windows:
                queue("write_windows", limit_rows.window_columns(shard, windows))
        if batch.holds:
            touched = [hold for hold in batch.holds.values() if hold.changed]
            if touched:
                queue("write_holds", hold_rows.hold_columns(shard, touched))
        if batch.written:
            queue("write_journal", self._journal_columns(batch))
        if moved:
            queue(
                "write_postings",
                {
                    "shard": shard,
                    "business_date": batch.today,
                    "entries": int8s([entry.entry_no for entry, _ in moved]),
                    "debit_codes": int2s([m.debit[0] for _, m in moved]),
                    "debit_owners": int8s([m.debit[1] for _, m in moved]),
                    "credit_codes": int2s([m.credit[0] for _, m in moved]),
                    "credit_owners": int8s([m.credit[1] for _, m in moved]),
                    "amounts": int8s([m.amount_fen for _, m in moved]),
                },
            )
        if used:
            queue(
                "write_uses",
                {
                    "shard": shard,
                    "entries": int8s([entry.entry_no for entry in used]),
                    "dates": dates([entry.business_date for entry in used]),
                    "amounts": int8s([entry.amount_fen for entry in used]),
                    "refunds": int8s([entry.refunded_fen for entry in used]),
                    "undone": int8s([entry.undone_by or 0 for entry in used]),
                },
            )
        queue("commit")
        doubted, self._in_doubt = self._in_doubt, True
        try:
            await link.round_trip()
        except (psycopg.IntegrityError, psycopg.errors.DeadlockDetected, psycopg.DataError):
            self._in_doubt = doubted  # the server said that this transaction failed
            raise
        # It stays set: of a batch in halves, the first may be booked when the second is given up.

    def _journal_columns(self, batch: _Batch) -> dict[str, Parameter]:
        items = [item for item, _, _ in batch.written]
        entries = [entry for _, entry, _ in batch.written]
        return {
            "shard": self.shard,
            "business_date": batch.today,
            "decided_at": batch.now,
            "terminals": int4s([item.key.terminal_no for item in items]),
            "batches": int4s([item.key.batch_no for item in items]),
            "stans": int4s([item.key.stan for item in items]),
            "classes": int2s([item.key.rclass for item in items]),
            "merchants": int4s([item.merchant_no for item in items]),
            "entry_modes": texts([getattr(item.request, "entry_mode", "") for item in items]),
            "digests": byteas([item.digest for item in items]),
            "entries": int8s([entry.entry_no for entry in entries]),
            "kinds": int2s([entry.kind for entry in entries]),
            "accounts": int8s([entry.account_id or 0 for entry in entries]),
            "pans": texts([entry.pan or "" for entry in entries]),
            "amounts": int8s([entry.amount_fen for entry in entries]),
            "effects": int8s([entry.effect_fen for entry in entries]),
            "answers": texts([entry.answer for entry in entries]),
            "rrns": texts([entry.rrn for entry in entries]),
            "auth_codes": texts([entry.auth_code for entry in entries]),
            "original_dates": dates([entry.original_date or NO_DATE for entry in entries]),
            "original_entries": int8s([entry.original_entry or 0 for entry in entries]),
            "extras": byteas([entry.extra or b"" for entry in entries]),
        }

    # ------------------------------------------------------------------ the connection

    async def _linked(self) -> Pipeline:
        if self._link is None or self._link.closed:
            link = Pipeline(await self._connect())
            await link.prepare({name: SQL[name] for name in _STATEMENTS} | _TRANSACTION)
            self._link = link
        return self._link

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()


def _refusal(request: Refused, de39: Mapping[Decline, str]) -> Decline:
    for decline in _REFUSALS:
        if de39[decline] == request.answer:
            return decline
    raise AssertionError("a refused request names one of the codes that form or routing can give")
