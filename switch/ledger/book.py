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
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.domain.decisions import APPROVED, Decline, Outcome
from switch.domain.hosts import HostKey
from switch.domain.identifiers import CardNumber
from switch.domain.transactions import (
    Balance,
    CardRequest,
    Completion,
    CompletionVoid,
    Kind,
    Load,
    LoadConfirm,
    PreAuthorisation,
    PreAuthorisationVoid,
    Purchase,
    Refused,
    Reversal,
    Void,
)
from switch.ledger import batch as reading
from switch.ledger import batch_rows as writing
from switch.ledger import (
    completed_holds,
    hold_rows,
    holds,
    leg_rows,
    legs,
    limit_rows,
    load_rows,
    loads,
    medical_rows,
    medical_rules,
    rules,
)
from switch.ledger.batch import Batch, lock_and_read
from switch.ledger.batch_messages import CLOSED, FROZEN
from switch.ledger.batch_rows import queue_writes
from switch.ledger.items import (
    FINANCIAL,
    IN_DOUBT,
    IN_FLIGHT,
    KIND,
    REVERSAL,
    Item,
    Key,
    extra_of,
    outcome_of,
)
from switch.ledger.leg_state import Leg
from switch.ledger.legs import Asked, LegEnd
from switch.ledger.load_rows import OnLoad
from switch.ledger.medical import MedicalPolicy, by_table
from switch.ledger.rules import Entry, Facts, Ruling
from switch.ledger.serials import Serials, base36
from switch.storage.pipeline import Pipeline
from switch.storage.pool import LOST, plan_once
from switch.storage.sql import load

log = structlog.get_logger(__name__)

SQL = load("switch.ledger")
_STATEMENTS = (
    *reading.STATEMENTS,
    *writing.STATEMENTS,
    *hold_rows.STATEMENTS,
    *limit_rows.STATEMENTS,
    *load_rows.STATEMENTS,
    "next_block",
)
_TRANSACTION = {"begin": "BEGIN", "commit": "COMMIT", "rollback": "ROLLBACK"}
Row = tuple[Any, ...]
Connect = Callable[[], Awaitable[AsyncConnection[Row]]]

_REFUSALS = (  # by the form of a request, or by routing
    Decline.CASH_FORBIDDEN,
    Decline.NOT_SUPPORTED,
    Decline.CARD_UNKNOWN,
    Decline.ISSUER_UNKNOWN,
    Decline.ACQUIRER_OUT_OF_SCOPE,
    Decline.NO_ROUTE,
    Decline.HOST_DOWN,
    Decline.LIMIT_AMOUNT,
    Decline.TOMBSTONED,
    Decline.ACCOUNT_NOT_PERMITTED,
    Decline.ORIGINAL_UNKNOWN,
)
_KIND = {request: int(kind) for request, kind in KIND.items()}
SERIALS_EACH = 4  # that one request can use up: of itself, of what it gives up, of what hosts must be told
HEARD_TURNS_MAX = 8  # turns of the loop between two batches, in which what has come is read
Told = Outcome | Asked


def _kind_of(request: CardRequest | LegEnd) -> int:
    if type(request) is Completion and request.advice:
        return int(Kind.COMPLETION_ADVICE)
    return _KIND[type(request)]


class ConflictError(Exception):
    """A batch broke a constraint or met a deadlock; it is run again, then in halves, until the culprit is alone."""


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
        medical_policy: MedicalPolicy = by_table,
        retry_for_s: float = 20.0,
        on_batch: Callable[[int, float], None] = lambda _size, _seconds: None,
        on_load: OnLoad = lambda _state, _source, _reason: None,
    ) -> None:
        self.shard = shard
        self._connect = connect
        self._de39 = de39
        self._queue: deque[Item] = deque()
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._no_pin_limit_fen = no_pin_limit_fen
        self._medical_policy = medical_policy
        self._retry_for_s = retry_for_s
        self._on_batch = on_batch
        self._on_load = on_load
        self._serials = Serials()
        self._link: Pipeline | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._lost_s: float | None = None  # since when the database has been lost
        self._in_doubt = False  # a commit of the running batch was sent, and nobody said what became of it
        # Who was told nothing in the running outage; at most queue_max.
        self._doubted: set[tuple[Key, bytes]] = set()

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
                await self._serve(batch)
                await self._hear_the_rest()
        finally:
            await self._drop_link()

    def stop(self) -> None:
        """Take no more; run() returns when the queue is empty."""
        self._stopping = True
        self._wake.set()

    async def _hear_the_rest(self) -> None:
        """Before the next batch, read what terminals have already sent: what a batch costs whatever its size is shared by more.

        No timer: a lone request, and one for which nobody waits behind, begins at once.
        """
        queue = self._queue
        for _ in range(HEARD_TURNS_MAX):
            heard = len(queue)
            if not 0 < heard < self._batch_max:
                return
            await asyncio.sleep(0)
            if len(queue) == heard:
                return

    async def _serve(self, batch: list[Item]) -> None:
        """Bring a batch to its end, whatever it takes, and answer each of its requests exactly once."""
        started = time.monotonic()
        self._in_doubt = False
        outcomes: Sequence[Told | None]
        try:
            outcomes = await self._settle_surely(batch)
        except Exception:  # our own fault: 96 for the batch, and the service lives on
            log.exception("batch failed", shard=self.shard, size=len(batch))
            await self._drop_link()
            outcomes = [self._unsettled()] * len(batch)
        self._on_batch(len(batch), time.monotonic() - started)
        for item, outcome in zip(batch, outcomes, strict=True):
            self._tell(item, outcome)
        if self._lost_s is None:
            self._doubted.clear()
            return
        while self._queue:  # who has queued behind an outage may have gone home by its end
            self._tell(self._queue.popleft(), None)

    def _tell(self, item: Item, outcome: Told | None) -> None:
        if outcome is None or outcome is IN_DOUBT:
            outcome = self._unsettled_again(item, outcome)
        try:
            item.done(item, outcome)
        except Exception:
            log.exception("an answer could not be delivered", shard=self.shard)

    def _unsettled_again(self, item: Item, outcome: Outcome | None) -> Outcome | None:
        """In an outage who asks again gets no 96: the first copy may be booked, and a terminal takes 96 for a decline."""
        name = item.key, item.digest
        if outcome is None:
            return IN_DOUBT if name in self._doubted else None
        if len(self._doubted) < self._queue_max:
            self._doubted.add(name)
        return outcome

    def _unsettled(self) -> Outcome | None:
        """What to tell those of a batch that came to no end: 96 only if surely nothing of it was booked."""
        return IN_DOUBT if self._in_doubt else None

    async def _settle_surely(self, batch: list[Item]) -> Sequence[Told | None]:
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

    async def _settle_or_split(self, batch: list[Item]) -> Sequence[Told | None]:
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

    async def settle(self, items: Sequence[Item]) -> Sequence[Told]:
        """Decide and write one batch in one transaction; outcomes in the order of items.

        Raises ConflictError when a constraint or a deadlock failed the batch (nothing was written) and
        psycopg.OperationalError when the connection was lost (the outcome is unknown).
        """
        link = await self._linked()
        serials = self._serials
        if serials.short_of(len(items) * SERIALS_EACH) or serials.held_too_long(time.monotonic()):
            await self._refill(link)
        try:
            batch = await lock_and_read(
                link,
                self.shard,
                items,
                no_pin_limit_fen=self._no_pin_limit_fen,
                medical_policy=self._medical_policy,
            )
            if batch.by_number:
                await completed_holds.read_completed_holds(link, self.shard, batch, items)
            outcomes = [
                self._decide(batch, item, account_id)
                for item, account_id in zip(items, batch.account_ids, strict=True)
            ]
            await self._write_and_commit(link, batch)
            if batch.purses or batch.facts.load_moves:
                load_rows.tell(batch, self._on_load)
        except (psycopg.IntegrityError, psycopg.errors.DeadlockDetected, psycopg.DataError) as error:
            link.queue("rollback")
            await link.round_trip()
            raise ConflictError from error
        except BaseException:
            await self._drop_link()
            raise
        return outcomes

    async def _refill(self, link: Pipeline) -> None:
        now_s = time.monotonic()
        link.queue("next_block")
        ((row,),) = await link.round_trip()
        self._serials.refill(row[0], now_s)

    # ------------------------------------------------------------------ decisions

    def _decide(self, batch: Batch, item: Item, account_id: int) -> Told:
        """Repeat, then form (30), batch number (77), freeze (90), then the rules. Pure but for the running state."""
        key = item.key
        generation, open_batch, state = batch.terminals.get(key.terminal_no, (0, 0, 2))
        if type(item.request) is LegEnd:
            return self._end_leg(
                batch, item, item.request, account_id, batch_open=key.batch_no == open_batch and not state
            )
        if item.generation < generation:  # authenticated under keys that have been replaced since
            return Outcome("A0", "", batch.now)
        before = batch.by_key.get(key)
        if before is not None:
            if before.digest == item.digest:
                return outcome_of(before)
            return self._unkept(batch, Decline.DUPLICATE_KEY)
        if key.rclass == REVERSAL and self._malformed(item.request):
            # The right one will come under the same key: it must find its original, and not this.
            return self._unkept(batch, Decline.FORMAT)
        if batch.legs_asked and key[:3] in batch.legs_asked:
            intent = batch.by_key[Key(*key[:3], legs.INTENT)]
            if key.rclass == FINANCIAL:
                if intent.digest == item.digest:
                    return IN_FLIGHT
                return self._unkept(batch, Decline.DUPLICATE_KEY)
            if isinstance(item.request, Reversal):
                self._give_up(batch, item, item.request, intent)
        ruling = self._rule(batch, item, account_id, open_batch, state)
        told = self._enter(batch, item, account_id, ruling)
        if ruling.answer != legs.IN_PROGRESS:
            return told
        leg = ruling.leg
        assert leg is not None
        return Asked(
            self.shard, leg.leg_no, HostKey(leg.transmitted, leg.trace), told.rrn, batch.now, batch.today
        )

    def _unkept(self, batch: Batch, decline: Decline) -> Outcome:
        """A refusal of which no entry is made."""
        return Outcome(self._de39[decline], batch.rrn_head + base36(self._serials.take()), batch.now)

    def _malformed(self, request: CardRequest | LegEnd) -> bool:
        return isinstance(request, Refused) and request.answer == self._de39[Decline.FORMAT]

    def _end_leg(
        self, batch: Batch, item: Item, request: LegEnd, account_id: int, *, batch_open: bool
    ) -> Outcome:
        """Write the answer under the key of the request, unless somebody else has ended the leg before."""
        before = batch.by_key.get(item.key)
        if before is not None:
            return self._overtaken(batch, item, request, account_id, before)
        intent = batch.by_key.get(Key(*item.key[:3], legs.INTENT))
        leg = batch.legs_asked.pop(item.key[:3], None)
        if intent is None or leg is None:  # who waits is told nothing, and whoever sweeps finds it again
            log.error("a leg to end was not found", shard=self.shard, terminal_no=item.key.terminal_no)
            return IN_DOUBT
        facts = self._facts_of(batch, item, account_id, request.card)
        ruling = legs.end(request, facts, leg, batch_open=batch_open)
        return self._end(batch, item, intent, leg, ruling)

    def _overtaken(
        self, batch: Batch, item: Item, request: LegEnd, account_id: int, before: Entry
    ) -> Outcome:
        """Another answer stands under the key: who ended the leg, or a terminal that used its trace twice at once, over two processes.

        Then the leg is still open. Its host is told to undo it, and the terminal what any other content under its key gets.
        """
        leg = batch.legs_asked.pop(item.key[:3], None)
        intent = batch.by_key.get(Key(*item.key[:3], legs.INTENT))
        if leg is None or intent is None:
            return outcome_of(before)
        facts = self._facts_of(batch, item, account_id, request.card)
        ruling = legs.end(
            LegEnd(request.card, request.account, request.amount_fen, None), facts, leg, batch_open=False
        )
        leg.ended_by = before.entry_no
        batch.legs[before.entry_no] = leg
        for tell in ruling.tells:
            batch.tells.append((tell, before.entry_no))
        return Outcome(self._de39[Decline.DUPLICATE_KEY], batch.rrn_head + base36(facts.serial), batch.now)

    def _give_up(self, batch: Batch, item: Item, request: Reversal, intent: Entry) -> None:
        """A reversal of what its host has not answered ends it first, if it is about that at all."""
        refusal = rules.undo_refusal(request, intent, batch.facts)
        if refusal is not None and refusal.decline is not None:
            return
        key = item.key._replace(rclass=FINANCIAL)
        leg = batch.legs_asked.pop(key[:3])
        facts = self._facts_of(batch, item, intent.account_id or 0, request.card)
        self._end(batch, item._replace(key=key), intent, leg, legs.give_up(request, facts, leg))

    def _end(self, batch: Batch, item: Item, intent: Entry, leg: Leg, ruling: Ruling) -> Outcome:
        assert leg.ended_by is not None
        ruling.serial = leg.ended_by
        batch.legs[leg.ended_by] = leg
        return self._enter(batch, item, intent.account_id or 0, ruling, of=intent)

    def _rule(self, batch: Batch, item: Item, account_id: int, open_batch: int, batch_state: int) -> Ruling:
        request, key = item.request, item.key
        if self._malformed(request):
            return Ruling(Decline.FORMAT)
        if key.rclass == FINANCIAL and type(request) is not LoadConfirm:  # that is never too late
            # A closed batch is nobody's open one: 90 would let a terminal wait for what only a sign-on brings.
            if key.batch_no != open_batch or batch_state == CLOSED:
                return Ruling(Decline.TERMINAL_MUST_SIGN_ON)
            if batch_state == FROZEN:
                return Ruling(Decline.BATCH_FROZEN)
            if batch.by_key and (*key[:3], REVERSAL) in batch.by_key:
                return Ruling(Decline.TOMBSTONED)
        assert not isinstance(request, LegEnd)
        if isinstance(request, Refused):
            return Ruling(_refusal(request, self._de39))
        facts = self._facts_of(batch, item, account_id, request.card)
        ruling = self._apply(batch, item, request, facts)
        ruling.serial = facts.serial
        return ruling

    def _facts_of(self, batch: Batch, item: Item, account_id: int, card: CardNumber) -> Facts:
        facts = batch.facts
        facts.serial = self._serials.take()
        facts.merchant_no = item.merchant_no
        facts.card = batch.cards.get(card.reveal())
        facts.account = batch.accounts.get(account_id)
        facts.holder_id = item.holder_id
        facts.original = None
        facts.original_batch_closed = False
        facts.leg = None
        facts.pin = item.pin
        facts.pin_unreadable = item.pin_unreadable
        facts.loading = item.loading
        if batch.purses:
            facts.purse = batch.purses.get(card.reveal())
            facts.purse_max_fen = batch.purse_max_fen.get(item.key.terminal_no, 0)
        return facts

    def _apply(self, batch: Batch, item: Item, request: CardRequest, facts: Facts) -> Ruling:
        key = item.key
        if item.ask is not None:
            return legs.intend(request, facts, item.ask, batch.stand_ins.get(item.ask.host))
        medical = facts.medical is not None
        if isinstance(request, Purchase):
            return medical_rules.purchase(request, facts) if medical else rules.purchase(request, facts)
        if isinstance(request, Balance):
            return rules.balance(request, facts)
        if isinstance(request, Reversal):
            facts.original = batch.by_key.get(Key(key.terminal_no, key.batch_no, key.stan, FINANCIAL))
            if facts.original is None:
                # Still with its host, since the reversal does not fit it: known, and not to be refused when it ends.
                facts.original = batch.by_key.get(Key(key.terminal_no, key.batch_no, key.stan, legs.INTENT))
            facts.leg = _leg_of(batch, facts.original)
            facts.original_batch_closed = (key.terminal_no, key.batch_no) in batch.closed_batches
            if request.of == Kind.LOAD:
                return rules.reversal(request, facts, loads.undo)
            if request.of in holds.KINDS:
                return rules.reversal(request, facts, holds.undo)
            return rules.reversal(request, facts, medical_rules.undo if medical else None)
        if isinstance(request, PreAuthorisation):
            return holds.pre_authorise(request, facts)
        if isinstance(request, Load):
            return loads.load(request, facts)
        assert not isinstance(request, Refused), "that was decided by its form"
        facts.original = batch.original(key.terminal_no, request.original)
        facts.leg = _leg_of(batch, facts.original)
        if isinstance(request, LoadConfirm):
            return loads.confirm(request, facts)
        if isinstance(request, Void):
            voiding = medical_rules.void if medical else rules.void
            return voiding(request, facts, key.batch_no)
        if isinstance(request, PreAuthorisationVoid):
            return holds.void_pre_authorisation(request, facts)
        if isinstance(request, Completion):
            return holds.complete(request, facts)
        if isinstance(request, CompletionVoid):
            return holds.void_completion(request, facts, key.batch_no)
        return medical_rules.refund(request, facts) if medical else rules.refund(request, facts)

    def _enter(
        self, batch: Batch, item: Item, account_id: int, ruling: Ruling, of: Entry | None = None
    ) -> Outcome:
        """Make the journal entry of a ruling, visible at once to the rest of the batch. of: the intent that it ends."""
        serial = ruling.serial or self._serials.take()
        decline = ruling.decline
        answer = ruling.answer or (APPROVED if decline is None else self._de39[decline])
        suffix = base36(serial)
        auth_code = ruling.auth_code
        if auth_code is None:
            auth_code = suffix if decline is None else ""
        request = item.request
        pan = request.card.reveal() if request.card is not None else None
        if of is not None:
            pan = of.pan  # a sweep knows only the host's number
        original = ruling.original
        entry = Entry(
            serial,
            batch.today,
            _kind_of(request) if of is None else of.kind,
            account_id or None,
            pan,
            getattr(request, "amount_fen", 0),
            ruling.effect_fen,
            answer,
            ruling.rrn or batch.rrn_head + suffix,
            auth_code,
            batch.now,
            item.digest if of is None else of.digest,
            extra_of(ruling.balances, ruling.field55) if ruling.balances or ruling.field55 else None,
            original.business_date if original is not None else None,
            original.entry_no if original is not None else None,
        )
        leg = ruling.leg
        if leg is not None:
            item = self._with_leg(batch, item, entry, leg)
        tells = list(ruling.tells)
        moves = batch.facts.load_moves
        if len(moves) > batch.moves_told:
            reversal = request if isinstance(request, Reversal) else None
            tells += legs.returned(moves[batch.moves_told :], batch.legs, reversal)
            batch.moves_told = len(moves)
        for tell in tells:
            batch.tells.append((tell, serial))
        batch.by_key[item.key] = entry
        batch.by_number[serial] = entry
        batch.written.append((item, entry, ruling))
        return outcome_of(entry)

    def _with_leg(self, batch: Batch, item: Item, entry: Entry, leg: Leg) -> Item:
        """A new leg, which the rest of the batch finds too. What goes to a host is entered under the key of its intent."""
        leg.rrn = entry.rrn
        if leg.ended_by is not None:
            batch.legs[leg.ended_by] = leg
            return item
        batch.legs_asked[item.key[:3]] = leg
        return item._replace(key=item.key._replace(rclass=legs.INTENT))

    # ------------------------------------------------------------------ writing

    async def _write_and_commit(self, link: Pipeline, batch: Batch) -> None:
        if self._serials.short_of(len(batch.tells)):  # one contact of a card may settle many loads
            await self._refill(link)
        queue_writes(link, self.shard, batch)
        leg_rows.queue_writes(link, self.shard, batch, self._serials)
        link.queue("commit")
        doubted, self._in_doubt = self._in_doubt, True
        try:
            await link.round_trip()
        except (psycopg.IntegrityError, psycopg.errors.DeadlockDetected, psycopg.DataError):
            self._in_doubt = doubted  # the server said that this transaction failed
            raise
        # It stays set: of a batch in halves, the first may be booked when the second is given up.

    # ------------------------------------------------------------------ the connection

    async def _linked(self) -> Pipeline:
        if self._link is None or self._link.closed:
            connection = await self._connect()
            await plan_once(connection)
            link = Pipeline(connection)
            own = {name: SQL[name] for name in _STATEMENTS}
            of_legs = {name: leg_rows.SQL[name] for name in leg_rows.STATEMENTS}
            await link.prepare(own | completed_holds.SQL | medical_rows.SQL | of_legs | _TRANSACTION)
            self._link = link
        return self._link

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()


def _leg_of(batch: Batch, original: Entry | None) -> Leg | None:
    """The leg of a transaction, or of the one that it undid."""
    if original is None or not batch.legs:
        return None
    return batch.legs.get(original.entry_no) or batch.legs.get(original.original_entry or 0)


def _refusal(request: Refused, de39: Mapping[Decline, str]) -> Decline:
    for decline in _REFUSALS:
        if de39[decline] == request.answer:
            return decline
    raise AssertionError("a refused request names one of the codes that form or routing can give")
