"""One batch of a shard: what it locks and reads, as a state that every decision changes.

Everything a decision depends on is in a locked row or read in a statement after the lock, so that what is read is what the lock
protects. Two round trips at the most: the second one only where an original or a repeat was found, or holds or limits matter.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import APPROVED
from switch.domain.transactions import AccountKind, Kind, Original, Purchase, Reversal
from switch.ledger import hold_rows, holds, leg_rows, legs, load_rows, medical_rows
from switch.ledger.gate import GATE
from switch.ledger.items import FINANCIAL, Item, Key
from switch.ledger.leg_state import Leg, StandIn, Tell
from switch.ledger.legs import LegEnd
from switch.ledger.limits import LimitRule, Window
from switch.ledger.load_states import Purse
from switch.ledger.medical import MedicalPolicy, Split
from switch.ledger.rules import Account, Card, Entry, Facts, Hold, Ruling
from switch.ledger.serials import rrn_head
from switch.storage.arrays import dates, day_number, int4s, int8s, texts
from switch.storage.pipeline import Pipeline
from switch.storage.records import RecordKind

STATEMENTS = (
    "take_gate",
    "lock_accounts",
    "read_instant",
    "read_cards",
    "read_terminals",
    "find_keys",
    "find_originals",
    "find_batches",
    "read_uses",
)
Row = tuple[Any, ...]
_KEY_LINE = RecordKind("iiid")  # the composite type of that name (migration 0049)
_ONLINE = int(AccountKind.ONLINE)
UNKNOWN_BATCH_DAYS = (
    4  # a batch that was never opened holds declines only; their repeats are looked for so far back
)


# From the date on a terminal's clock to the business day of the same moment: late in the evening the open day is tomorrow's, and
# somebody ends that one early.
ORIGINAL_AFTER = timedelta(days=2)


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


class Batch:
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
        "legs",
        "legs_asked",
        "moves_told",
        "now",
        "originals",
        "purse_max_fen",
        "purses",
        "reference",
        "rrn_head",
        "stand_ins",
        "tells",
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
        self.legs_asked: dict[tuple[int, int, int], Leg] = {}  # by terminal, batch, trace
        self.legs: dict[int, Leg] = {}  # by the entry that ended them
        self.stand_ins: dict[str, StandIn] = {}
        self.tells: list[tuple[Tell, int]] = []  # with the number of the entry that made it necessary
        self.moves_told = 0  # of the loads' moves, those about which hosts are told what they must be
        self.purses: dict[str, Purse] = {}  # by card number, where a request is about a load
        self.purse_max_fen: dict[int, int] = {}  # by terminal
        self.written: list[tuple[Item, Entry, Ruling]] = []

    def found(self, key: Key, row: Row) -> Entry:
        """Take in a journal row that was read."""
        entry = self.by_number.get(row[3])
        if entry is None:
            entry = self.by_number[row[3]] = _entry(row)
        return self.by_key.setdefault(key, entry)

    def original(self, terminal_no: int, original: Original) -> Entry | None:
        """The entry that field 61 names."""
        day = original_day(original, self.reference)
        entry = self.originals.get((terminal_no, original.batch_no, original.stan, day))
        if entry is None:  # perhaps decided a moment ago, in this very batch
            entry = self.by_key.get(Key(terminal_no, original.batch_no, original.stan, FINANCIAL))
            if entry is not None and not day <= entry.business_date <= day + ORIGINAL_AFTER:
                return None
        return entry


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


async def lock_and_read(
    link: Pipeline, shard: int, items: Sequence[Item], *, no_pin_limit_fen: int, medical_policy: MedicalPolicy
) -> Batch:
    """Begin the transaction, lock the accounts of these requests and read what their decisions depend on."""
    reference = datetime.now(SHANGHAI).date() + timedelta(days=2)
    unknown_since = reference - timedelta(days=UNKNOWN_BATCH_DAYS + 2)
    batch = Batch()
    batch.reference = reference
    pans: set[str] = set()
    terminals: set[int] = set()
    reversals: set[tuple[int, int]] = set()
    elsewhere: set[int] = set()  # terminals of requests that no account of ours orders
    stood_in: set[str] = set()  # hosts
    bound: set[int] = set()  # bindings with a day limit
    loaded: set[str] = set()  # cards whose purse a request is about
    look_into: set[int] = set()  # accounts of which a hold may have expired, or is asked about
    medical: list[Item] = []
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
        account = getattr(request, "account", None)
        online = holder_id and item.ask is None and account == AccountKind.ONLINE
        if online and type(request) is Purchase:  # nearly all are
            batch.account_ids.append(holder_id * 100 + _ONLINE)
            continue
        kind = _ONLINE if account is None else int(account)
        if isinstance(request, Reversal) and request.of == Kind.LOAD:
            kind = _ONLINE  # what it names is the source; who paid is kept with the load
        batch.account_ids.append(holder_id * 100 + kind if holder_id else 0)
        if kind == medical_rows.KIND and item.ask is None:
            medical.append(item)
        if item.key.rclass:
            reversals.add((item.key.terminal_no, item.key.batch_no))
        if not online or item.key.rclass:  # what could meet an intent under its key, if only to be refused
            elsewhere.add(item.key.terminal_no)
            if item.ask is not None and item.ask.stand_in is not None:
                stood_in.add(item.ask.host)
            if item.ask is not None and item.ask.day_limit_fen is not None:
                bound.add(item.ask.binding_no)
        if isinstance(request, LegEnd):
            elsewhere.add(item.key.terminal_no)
            if request.load is not None and request.load.purse is not None:
                loaded.add(request.card.reveal())
            continue
        if isinstance(request, Reversal) and request.of == Kind.LOAD:
            elsewhere.add(item.key.terminal_no)  # its bank may still be asked
        if hold_rows.concerned(request):
            look_into.add(batch.account_ids[-1])
        if card is not None and load_rows.concerned(request):
            loaded.add(card.reveal())
        if isinstance(request, holds.NAMING):
            day = original_day(request.original, reference)
            name = (item.key.terminal_no, request.original.batch_no, request.original.stan, day)
            named[name] = item.merchant_no

    queue = link.queue
    queue("begin")
    queue("take_gate", {"gate": GATE, "shard": shard})
    locked = set(batch.account_ids)
    if medical:
        locked.update(medical_rows.accounts_beside(medical))
    queue("lock_accounts", {"shard": shard, "account_ids": int8s(list(locked))})
    if elsewhere:
        leg_rows.queue_locks(link, shard, elsewhere, stood_in)
    if bound:
        leg_rows.queue_bound(link, shard, bound, unknown_since)
    if loaded:
        queue("lock_purses", {"shard": shard, "pans": texts(list(loaded))})
    queue("read_instant")
    queue("read_cards", {"shard": shard, "pans": texts(list(pans))})
    queue("read_terminals", {"terminals": int4s(list(terminals))})
    sinces = [item.since or unknown_since for item in items]
    queue(
        "find_keys",
        {
            "shard": shard,
            "keys": _KEY_LINE.pack(
                (*item.key[:3], day_number(since)) for item, since in zip(items, sinces, strict=True)
            ),
            "oldest": min(sinces),
        },
    )
    if named:
        days = [key[3] for key in named]
        queue(
            "find_originals",
            {
                "shard": shard,
                "terminals": int4s([key[0] for key in named]),
                "batches": int4s([key[1] for key in named]),
                "stans": int4s([key[2] for key in named]),
                "dates": dates(days),
                "oldest": min(days),
                "newest": max(days) + ORIGINAL_AFTER,
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
    if medical:
        medical_rows.queue_reads(link, shard, medical)
    _, _, accounts, *rest = await link.round_trip()
    if elsewhere:
        rest, batch.stand_ins = leg_rows.locked(rest, stood_in)
    paid: Sequence[Row] = ()
    if bound:
        _, paid, *rest = rest
    purses = rest.pop(0) if loaded else []
    instant, cards, sessions, keys, *rest = rest
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
        no_pin_limit_fen=no_pin_limit_fen,
        entry_of=batch.by_number.get,
        holds=batch.holds,
    )
    batch.facts.bound_fen = {row[0]: row[1] for row in paid}
    batch.accounts = batch.facts.accounts = {row[0]: Account(*row) for row in accounts}
    if medical:
        batch.facts.medical = medical_rows.state_of(medical_policy, *rest)
    batch.cards = {row[0]: Card(*row[1:]) for row in cards}
    batch.terminals = {row[0]: (row[1], row[2], row[3]) for row in sessions}
    for row in keys:
        key = items[row[0] - 1].key
        batch.found(Key(key.terminal_no, key.batch_no, key.stan, row[1]), row)
    wanted = list(named)
    for row in originals:
        name = wanted[row[0] - 1]
        batch.originals[name] = batch.found(Key(name[0], name[1], name[2], FINANCIAL), row)
    batch.closed_batches = {(row[0], row[1]) for row in closed}
    batch.purses = {row[0]: Purse(*row[1:]) for row in purses}
    limited: list[int] = []
    for account in batch.accounts.values():
        if account.holds_due is not None and batch.now >= account.holds_due:
            look_into.add(account.account_id)
        if account.limited_from is not None:
            limited.append(account.account_id)
    if loaded:
        await load_rows.read_loads(link, shard, batch, terminals)
    if batch.by_number or look_into or limited or batch.facts.loads:
        await _read_further(link, shard, batch, look_into, limited)
    return batch


async def _read_further(
    link: Pipeline, shard: int, batch: Batch, look_into: set[int], limited: list[int]
) -> None:
    """A third round trip, only for batches in which an original or a repeat was found, or holds or limits matter.

    look_into: accounts all of whose open holds are read, and set free where they have expired. limited: those with limits.
    """
    intents = legs.intents(batch.by_key)
    away = legs.decided_elsewhere(batch.by_number.values()) + legs.paid_by_hosts(batch.facts.loads.values())
    if intents or away:
        leg_rows.queue_read(link, shard, intents, away)
    numbers = set(batch.by_number) | {e.original_entry for e in batch.by_number.values() if e.original_entry}
    held = hold_rows.entries_wanted(batch.by_number.values())
    if numbers:
        link.queue("read_uses", {"shard": shard, "entries": int8s(list(numbers))})
    medical = batch.facts.medical
    if numbers and medical is not None:
        link.queue("read_splits", {"shard": shard, "entries": int8s(list(numbers))})
    if held or look_into:
        link.queue(
            "read_holds", {"shard": shard, "accounts": int8s(list(look_into)), "entries": int8s(list(held))}
        )
    if limited:
        link.queue("read_windows", {"shard": shard, "accounts": int8s(limited)})
        link.queue("read_limits")
    rest = await link.round_trip()
    if intents or away:
        leg_rows.take_in(batch, rest.pop(0))
    uses = rest.pop(0) if numbers else ()
    if numbers and medical is not None:
        medical.splits = {row[0]: Split(*row) for row in rest.pop(0)}
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
