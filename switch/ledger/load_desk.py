"""Moves of loads that no request makes: suspense for those nobody speaks of any more, and the decisions of people about it.

Behind the gate of the shard and under the locks that a batch takes, in its order; the postings are of the open business day.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.domain.errors import InputRefused
from switch.domain.people import another, person
from switch.domain.transactions import AccountKind
from switch.ledger import leg_rows, legs, load_rows, loads
from switch.ledger.batch import Batch
from switch.ledger.batch_rows import queue_writes
from switch.ledger.card_states import with_reason
from switch.ledger.gate import GATE
from switch.ledger.load_states import SOURCE_NAME, Held, LoadMove, LoadState, Purse, Reason
from switch.ledger.rules import Account, Card, Facts
from switch.ledger.serials import Serials
from switch.storage.arrays import int8s, texts
from switch.storage.pipeline import Parameter, Pipeline
from switch.storage.sql import load

SQL = load("switch.ledger")
AT_ONCE: Final = 200  # loads of one transaction of a sweep
ADJUSTED_DAYS_MAX: Final = 30  # a load adjustment after its business date
LISTED_MAX: Final = 10_000

Connection = AsyncConnection[Any]
Connect = Callable[[], Awaitable[Connection]]
Moved = Callable[[Sequence[LoadMove]], None]
_STATEMENTS: Final = (
    *load_rows.STATEMENTS,
    "take_gate",
    "lock_accounts",
    "read_cards",
    "read_instant",
    "next_block",
    "find_unconfirmed",
    "write_accounts",
    "write_postings",
)


class Settled(NamedTuple):
    """A decision that was carried out."""

    entry_no: int
    state: LoadState
    at: datetime


class Beside(NamedTuple):
    """A statement that is executed with a decision, in its transaction and before its commit; `%(name)b` as elsewhere on this link.

    values: its parameters, from the instant, the business date and the number of the move.
    """

    statement: str
    values: Callable[[datetime, date, int], Mapping[str, Parameter]]


class _Desk:
    """One shard, on a connection of its own."""

    def __init__(self, link: Pipeline, shard: int) -> None:
        self.link = link
        self.shard = shard
        self.serials = Serials()

    @classmethod
    async def open(cls, connect: Connect, shard: int) -> "_Desk":
        link = Pipeline(await connect())
        names = {name: SQL[name] for name in _STATEMENTS}
        names |= {name: leg_rows.SQL[name] for name in leg_rows.STATEMENTS}
        await link.prepare(names | {"begin": "BEGIN", "commit": "COMMIT", "rollback": "ROLLBACK"})
        return cls(link, shard)

    async def ask(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        self.link.queue(statement, parameters)
        (rows,) = await self.link.round_trip()
        return rows

    async def lock(self, pans: Collection[str], accounts: Collection[int], entries: Collection[int]) -> Batch:
        """Begin, lock, and read these loads under the locks."""
        queue, shard = self.link.queue, self.shard
        if self.serials.short_of(2 * len(entries)):  # of each move, and of what its host must be told
            ((block,),) = await self.ask("next_block")
            self.serials.refill(block)
        queue("begin")
        queue("take_gate", {"gate": GATE, "shard": shard})
        queue("lock_accounts", {"shard": shard, "account_ids": int8s(sorted(accounts))})
        queue("lock_purses", {"shard": shard, "pans": texts(list(pans))})
        queue("read_instant")
        queue("read_cards", {"shard": shard, "pans": texts(list(pans))})
        _, _, locked, purses, instant, cards = await self.link.round_trip()
        if not instant:
            raise LookupError("no business day covers this instant: run `cardswitch doctor`")
        batch = Batch()
        batch.now, batch.today = instant[0]
        batch.facts = Facts(batch.now, batch.today)
        batch.accounts = {row[0]: Account(*row) for row in locked}
        batch.cards = {row[0]: Card(*row[1:]) for row in cards}
        batch.purses = {row[0]: Purse(*row[1:]) for row in purses}
        await load_rows.read_loads(self.link, shard, batch, (), entries)
        paid = legs.paid_by_hosts(batch.facts.loads.values())
        if paid:
            leg_rows.queue_read(self.link, shard, (), paid)
            leg_rows.take_in(batch, (await self.link.round_trip())[0])
        return batch

    async def move(
        self, batch: Batch, entry_no: int, pan: str, to: LoadState, reason: Reason, note: str
    ) -> None:
        """Move a load that `lock` has read."""
        facts = batch.facts
        facts.serial = self.serials.take()
        facts.purse = batch.purses[pan]
        facts.card = batch.cards.get(pan)
        facts.account = next(iter(batch.accounts.values()), None)
        loads.move(facts.loads[entry_no], to, reason, facts, note)
        for tell in legs.returned(facts.load_moves[batch.moves_told :], batch.legs, None):
            batch.tells.append((tell, facts.serial))
        batch.moves_told = len(facts.load_moves)

    async def commit(self, batch: Batch) -> None:
        queue_writes(self.link, self.shard, batch)
        leg_rows.queue_writes(self.link, self.shard, batch, self.serials)
        self.link.queue("commit")
        await self.link.round_trip()

    async def give_up(self) -> None:
        self.link.queue("rollback")
        await self.link.round_trip()


async def suspend_unconfirmed(connect: Connect, shard: int, moved: Moved = lambda _moves: None) -> int:
    """Bring to suspense what was neither confirmed nor reversed until the cut-off of its day + 1 day; how many."""
    desk = await _Desk.open(connect, shard)
    done = 0
    try:
        while found := await desk.ask("find_unconfirmed", shard=shard, limit=AT_ONCE):
            pan_of = dict(found)
            batch = await desk.lock(set(pan_of.values()), (), pan_of)
            for entry_no, pan in found:
                one = batch.facts.loads.get(entry_no)
                if one is not None and one.state == LoadState.AUTHORISED:  # else somebody has spoken just now
                    await desk.move(batch, entry_no, pan, LoadState.SUSPENSE, Reason.NO_WORD, "")
            await desk.commit(batch)
            moved(batch.facts.load_moves)
            done += len(batch.facts.load_moves)
    finally:
        await desk.link.close()
    return done


async def settle(
    connect: Connect,
    entry_no: int,
    to: LoadState,
    *,
    actor: str,
    checker: str,
    reason: str,
    beside: Beside | None = None,
) -> Settled:
    """調賬: two people decide about a load in suspense. InputRefused when it is not there, or its thirty days are over.

    Evidence, not a guess: the reason says what was seen. When the card comes after all and proves the opposite, that counts.
    beside: what else its transaction writes.
    """
    if to not in (LoadState.LOADED, LoadState.RETURNED):
        raise InputRefused("as: loaded or returned")
    reason, actor = with_reason(reason), person("actor", actor)
    checker = another("checker", checker, actor)
    connection = await connect()
    try:
        cursor = await connection.execute(SQL["find_load"], {"entry_no": entry_no})
        row = await cursor.fetchone()
    finally:
        await connection.close()
    if row is None:
        raise InputRefused("load: no such load")
    shard, _, pan, holder_id, day, _ = row
    desk = await _Desk.open(connect, shard)
    try:
        if beside is not None:
            await desk.link.prepare({"beside": beside.statement})
        batch = await desk.lock([pan], [holder_id * 100 + int(AccountKind.ONLINE)], [entry_no])
        try:
            await _decide(desk, batch, entry_no, pan, day, to, f"{actor}, checked by {checker}: {reason}")
        except InputRefused:
            await desk.give_up()
            raise
        if beside is not None:
            desk.link.queue("beside", beside.values(batch.now, batch.today, batch.facts.serial))
        await desk.commit(batch)
    finally:
        await desk.link.close()
    return Settled(entry_no, to, batch.now)


async def _decide(
    desk: _Desk, batch: Batch, entry_no: int, pan: str, day: date, to: LoadState, note: str
) -> None:
    one = batch.facts.loads[entry_no]
    if one.state != LoadState.SUSPENSE:
        raise InputRefused(f"load: is {LoadState(one.state).name}, not in suspense")
    if batch.today > day + timedelta(days=ADJUSTED_DAYS_MAX):
        raise InputRefused(f"load: {ADJUSTED_DAYS_MAX} days are over; only its card can settle it now")
    if to == LoadState.LOADED and one.held == Held.SOURCE and one.debit_code == loads.BANKS_RECEIVABLE:
        raise InputRefused(
            "load: its bank has been told that the money goes back; only its card can settle it"
        )
    if to == LoadState.LOADED and any(
        other.card_no == one.card_no
        and other.online_atc == one.online_atc
        and other.state in (LoadState.AUTHORISED, LoadState.CONFIRMED, LoadState.LOADED)
        for other in batch.facts.loads.values()
    ):
        raise InputRefused("load: the card's counter was used by another load, so this one cannot be on it")
    await desk.move(batch, entry_no, pan, to, Reason.OPERATOR, note)


# ---------------------------------------------------------------------- to be looked at


async def suspense(connection: Connection, shards: Sequence[int]) -> tuple[int, datetime | None]:
    """How many loads are in suspense, and when the oldest of them was authorised."""
    cursor = await connection.execute(SQL["loads_in_suspense"], {"shards": list(shards)})
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


async def list_loads(
    connection: Connection, states: Collection[LoadState], limit: int
) -> list[dict[str, Any]]:
    """Loads in these states, the oldest first; a card by its card_no."""
    cursor = await connection.execute(
        SQL["list_loads"], {"states": list(map(int, states)), "limit": min(limit, LISTED_MAX)}
    )
    return [
        {
            "load": entry_no,
            "business_date": day.isoformat(),
            "authorised_at": at.isoformat(),
            "card_no": card_no,
            "amount_fen": fen,
            "source": SOURCE_NAME[source],
            "state": LoadState(state).name,
            "reason": reason,
            "money": Held(held).name.lower(),
            "online_atc": atc,
        }
        for entry_no, day, at, card_no, fen, source, state, reason, held, atc in await cursor.fetchall()
    ]


async def load_history(connection: Connection, entry_no: int) -> list[dict[str, Any]]:
    """What happened to a load, in order, with the money that moved."""
    cursor = await connection.execute(SQL["load_history"], {"entry_no": entry_no})
    return [
        {
            "at": at.isoformat(),
            "from": LoadState(before).name if before else "",
            "to": LoadState(after).name,
            "reason": reason,
            "note": note,
            "posting": f"{fen} fen from {debit}/{debit_owner} to {credit}/{credit_owner}"
            if fen is not None
            else "",
        }
        for at, before, after, reason, note, debit, debit_owner, credit, credit_owner, fen in await cursor.fetchall()
    ]
