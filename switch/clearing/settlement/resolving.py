"""Bank entries that nobody could explain: two people say whose the money was, and it leaves suspense.

    paid-by      money that came was somebody's: 2201 to 1001, and 1001 to what each party owed
    paid-to      money that went out was somebody's: 1001 to 2201, and what each party was owed to 1001
    collection   money that came was what an open collection waits for: 2201 to 1001, and FUNDED with its own bookings
    sent-back    of two entries one is the other's way back: both were booked when they were taken, nothing is now

Parts come to the whole, and may have either sign: the one transfer of an interop centre is the net of several cities. An entry is resolved
once and whole, less what decisions about differences have taken of it (reconcile/desk.py), and then none of it lies in 2201.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final, NamedTuple

from switch.clearing.settlement.legs import Accounts, Leg, bookings_of, paid_legs, received_legs
from switch.clearing.settlement.payouts import Move, Payout, lock_payout, move
from switch.clearing.settlement.statements import SQL as STATEMENTS
from switch.clearing.settlement.statements import StatementTerms, funding
from switch.clearing.settlement.turn import Connection, SettlementRefused, fold_now, only_one
from switch.domain.people import another, person
from switch.ledger.bookings import Booked, Booking, book
from switch.ledger.card_states import with_reason
from switch.ledger.chart import Event
from switch.storage.sql import load

SQL: Final = load("switch.clearing.settlement", "resolving.sql")
ACTIONS: Final = ("paid-by", "paid-to", "collection", "sent-back")
PARTS_MAX: Final = 1_000
FUND: Final = "FUND"
_ODD: Final = frozenset(("AMOUNT", "TWICE", "UNEXPLAINED"))


class EntryName(NamedTuple):
    """An entry as people name it: the bank's id of the statement, and the entry's place in it, from 1."""

    statement_id: str
    line: int

    @classmethod
    def parse(cls, text: str) -> "EntryName":
        """Of STATEMENT/LINE, as `statement odd` shows it. Raises SettlementRefused."""
        statement_id, _, line = text.rpartition("/")
        if not statement_id or not (line.isascii() and line.isdecimal()) or len(line) > 9:
            raise SettlementRefused("entry: STATEMENT/LINE, as `settlement statement odd` shows it")
        return cls(statement_id, int(line))


class Part(NamedTuple):
    """What of an entry was whose. fen: above zero in the entry's own direction; None: all of it."""

    party: str
    fen: int | None = None


class Resolution(NamedTuple):
    """action: of ACTIONS. parts: of paid-by and paid-to. payout_id: of collection. other: of sent-back."""

    action: str
    parts: tuple[Part, ...] = ()
    payout_id: str | None = None
    other: EntryName | None = None


class Resolved(NamedTuple):
    """fen: what left suspense, below zero of money that had gone out. again: it had been resolved so before, and nothing was changed."""

    action: str
    fen: int
    at: datetime
    business_date: date
    again: bool


class Entry(NamedTuple):
    """An entry, locked. rest_fen: what of it lay in suspense, less what differences have taken; of one that is resolved that is gone."""

    statement_no: int
    line: int
    outcome: str | None
    rest_fen: int

    @property
    def source(self) -> str:
        return f"bank-resolved {self.statement_no}/{self.line}"


class _Plan(NamedTuple):
    """What follows. parts: above zero a party paid us."""

    bookings: list[Booking]
    parts: Sequence[tuple[str, int]] = ()
    payout: Payout | None = None
    other: Entry | None = None


async def resolve_entry(
    connection: Connection,
    name: EntryName,
    asked: Resolution,
    terms: StatementTerms,
    *,
    actor: str,
    checker: str,
    reason: str,
) -> Resolved:
    """Carry the decision of two people out, whole or not at all. Again with the same words: nothing happens.

    connection: its own, in autocommit mode. Raises SettlementRefused with the rule that forbids it.
    """
    why = with_reason(reason)
    actor = person("actor", actor)
    checker = another("checker", checker, actor)
    _check(asked)
    async with only_one(connection, actor):
        # What a party is paid by is set off against what it owes now.
        await fold_now(connection, terms.shards)
        async with connection.transaction():
            entry, other = await _lock(connection, name, asked.other)
            before = await _before(connection, entry, asked, other)
            if before is not None:
                return before
            plan = await _plan(connection, entry, other, asked, terms, why)
            booked = await book(connection, plan.bookings, actor=actor, checker=checker)
            assert None not in booked.entries, "an entry is resolved once"
            if plan.payout is not None:
                one = Move(plan.payout.payout_id, plan.payout.state, "FUNDED", f"{entry.source}: {why}")
                await move(
                    connection, [one], booked.at, actor=actor, checker=checker, day=booked.business_date
                )
            await _keep(connection, entry, plan, asked.action, booked, (actor, checker, why))
    return Resolved(asked.action, entry.rest_fen, booked.at, booked.business_date, again=False)


def _check(asked: Resolution) -> None:
    if asked.action not in ACTIONS:
        raise SettlementRefused(f"as: one of {', '.join(ACTIONS)}")
    paid = asked.action in ("paid-by", "paid-to")
    if bool(asked.parts) != paid:
        raise SettlementRefused("party: a party or parts go with paid-by and paid-to, and with nothing else")
    if (asked.payout_id is not None) != (asked.action == "collection"):
        raise SettlementRefused("collection: its number goes with --as collection, and with nothing else")
    if (asked.other is not None) != (asked.action == "sent-back"):
        raise SettlementRefused("entry: the way back goes with --as sent-back, and with nothing else")
    if len(asked.parts) > PARTS_MAX:
        raise SettlementRefused(f"part: at most {PARTS_MAX}")
    if len({part.party for part in asked.parts}) != len(asked.parts):
        raise SettlementRefused("part: each party once")
    if any(part.fen == 0 or (part.fen is None and len(asked.parts) > 1) for part in asked.parts):
        raise SettlementRefused("part: PARTY:FEN, and not of nothing")


async def _lock(
    connection: Connection, name: EntryName, other: EntryName | None
) -> tuple[Entry, Entry | None]:
    """The entries of a decision, locked in one order."""
    found = {one: await lock_entry(connection, one) for one in sorted({name, *([other] if other else [])})}
    if other == name:
        raise SettlementRefused("entry: an entry is not its own way back")
    return found[name], found[other] if other else None


async def lock_entry(connection: Connection, name: EntryName) -> Entry:
    """One entry, locked until the end of the transaction. Raises SettlementRefused."""
    row = await (await connection.execute(SQL["lock_entry"], name._asdict())).fetchone()
    if row is None:
        raise SettlementRefused("entry: no statement has such an entry")
    entry = Entry(*row)
    claimed = await (await connection.execute(SQL["claimed"], entry._asdict())).fetchone()
    assert claimed is not None
    return entry._replace(rest_fen=entry.rest_fen - claimed[0])


async def open_fen(connection: Connection, entry: Entry) -> int:
    """What of a locked entry lies in suspense now, below zero of money that went out. Raises SettlementRefused when nothing does."""
    if await (await connection.execute(SQL["resolved"], entry._asdict())).fetchone() is not None:
        raise SettlementRefused(f"entry {entry.line}: was resolved before")
    if entry.outcome not in _ODD or not entry.rest_fen:
        raise SettlementRefused(f"entry {entry.line}: nothing of it lies in suspense ({entry.outcome})")
    return entry.rest_fen


async def _before(
    connection: Connection, entry: Entry, asked: Resolution, other: Entry | None
) -> Resolved | None:
    """What was decided before, if it is what is asked for. Raises SettlementRefused when it is not."""
    row = await (await connection.execute(SQL["resolved"], entry._asdict())).fetchone()
    if row is None:
        return None
    action, fen, payout_id, other_no, other_line, at, day, parts = row
    wanted = sorted(f"{party}:{part}" for party, part in _parts(asked, fen))
    same = (action, payout_id, other_no, other_line) == (
        asked.action,
        asked.payout_id,
        other and other.statement_no,
        other and other.line,
    )
    if not same or sorted(parts) != wanted:
        raise SettlementRefused(f"entry: was resolved as {action} before, on {day}")
    return Resolved(action, fen, at, day, again=True)


def _parts(asked: Resolution, fen: int) -> list[tuple[str, int]]:
    """Parts with our sign: above zero a party paid us."""
    sign = 1 if asked.action == "paid-by" else -1
    return [(part.party, fen if part.fen is None else sign * part.fen) for part in asked.parts]


async def _plan(
    connection: Connection,
    entry: Entry,
    other: Entry | None,
    asked: Resolution,
    terms: StatementTerms,
    why: str,
) -> _Plan:
    rest_fen = await open_fen(connection, entry)
    if other is not None:
        if await open_fen(connection, other) + rest_fen:
            raise SettlementRefused(
                f"entry: {rest_fen} and {other.rest_fen} fen in suspense do not come to nothing"
            )
        return _Plan([], other=other)
    if (rest_fen > 0) == (asked.action == "paid-to"):
        came = "came in" if rest_fen > 0 else "went out"
        raise SettlementRefused(f"as: the money of this entry {came}")
    event = Event.MONEY_SENT_BACK if rest_fen > 0 else Event.MONEY_UNEXPLAINED
    out = Booking(event, abs(rest_fen), 0, 0, entry.source, why)
    if asked.payout_id is not None:
        payout = await lock_payout(connection, asked.payout_id)
        if payout.state != "EXPECTED":
            raise SettlementRefused(f"payout {payout.payout_id} is {payout.state}: no open collection")
        if payout.amount_fen != rest_fen:
            raise SettlementRefused(
                f"collection {payout.payout_id} waits for {payout.amount_fen} fen, not {rest_fen}:"
                " `settlement cancel` it, and resolve the entry as paid-by"
            )
        return _Plan([out, *await funding(connection, payout, why)], payout=payout)
    parts = _parts(asked, rest_fen)
    if sum(fen for _, fen in parts) != rest_fen:
        raise SettlementRefused(f"part: the parts do not come to {abs(rest_fen)} fen")
    bookings = [out]
    for place, (party, fen) in enumerate(parts, 1):
        bookings += await _part(connection, party, fen, f"{entry.source}/{place}", terms.own_id, why)
    return _Plan(bookings, parts)


async def _part(
    connection: Connection, party: str, fen: int, source: str, own_id: str, why: str
) -> list[Booking]:
    """What one party paid (above zero) or was paid, booked where it owes or is owed."""
    row = await (await connection.execute(SQL["awaited_of"], {"party": party, "fen": fen})).fetchone()
    if row is not None:
        raise SettlementRefused(
            f"collection {row[0]} waits for just this: --as collection, or `settlement cancel` it"
        )
    if party == FUND:
        if fen < 0:
            raise SettlementRefused("party: the fund is not paid from here")
        return [Booking(Event.FUND_SETTLED, fen, 0, 0, source, why)]
    row = await (await connection.execute(SQL["merchant"], {"party": party})).fetchone()
    if row is not None:
        if fen > 0:
            return [Booking(Event.MERCHANT_PAYOUT_RETURNED, fen, 0, row[0], source, why)]
        return [Booking(Event.MERCHANT_PAID_OUT, -fen, row[0], 0, source, why)]
    row = await (await connection.execute(SQL["role"], {"party": party})).fetchone()
    if row is None or party == own_id:
        raise SettlementRefused(f"party: no merchant or other institution {party[:15]}")
    cursor = await connection.execute(STATEMENTS["institution_accounts"], {"owner": int(party)})
    accounts = await cursor.fetchone()
    assert accounts is not None
    return bookings_of(source, party, _legs(row[0], Accounts(*accounts), fen), why)


def _legs(role: str, accounts: Accounts, fen: int) -> list[Leg]:
    """As a net of the institution is booked; but of a city by way of the centre it is no bank's money, and a bank pays ahead for its cards.

    >>> _legs("CITY", Accounts(bank_fen=700, interop_fen=5_000, share_fen=35), 4_965)
    [(<Event.INTEROP_SET_OFF: 'interop_set_off'>, 35), (<Event.INTEROP_RECEIVED: 'interop_received'>, 4965)]
    >>> _legs("BANK", Accounts(bank_fen=700, interop_fen=0, share_fen=0), 900)
    [(<Event.BANK_SETTLED: 'bank_settled'>, 900)]
    """
    if role in ("CITY", "CENTRE"):
        accounts = accounts._replace(bank_fen=0)
    legs = received_legs(accounts, fen) if fen > 0 else paid_legs(accounts, -fen)
    ahead_fen = sum(part for event, part in legs if event is Event.INTEROP_RECEIVED)
    if role != "BANK" or not ahead_fen:
        return legs
    settled_fen = ahead_fen + sum(part for event, part in legs if event is Event.BANK_SETTLED)
    rest = [leg for leg in legs if leg[0] not in (Event.BANK_SETTLED, Event.INTEROP_RECEIVED)]
    return [*rest, (Event.BANK_SETTLED, settled_fen)]


async def _keep(
    connection: Connection,
    entry: Entry,
    plan: _Plan,
    action: str,
    booked: Booked,
    said: tuple[str, str, str],
) -> None:
    pairs: list[tuple[Entry, Entry | None]] = [(entry, plan.other)]
    if plan.other is not None:
        pairs.append((plan.other, entry))
    for one, other in pairs:
        values = {
            **one._asdict(),
            "action": action,
            "fen": one.rest_fen,
            "payout_id": plan.payout and plan.payout.payout_id,
            "other_statement_no": other and other.statement_no,
            "other_line": other and other.line,
            "at": booked.at,
            "day": booked.business_date,
            **dict(zip(("actor", "checker", "reason"), said, strict=True)),
        }
        await connection.execute(SQL["add_resolution"], values)
    for place, (party, fen) in enumerate(plan.parts, 1):
        await connection.execute(
            SQL["add_part"], {**entry._asdict(), "part": place, "party": party, "fen": fen}
        )
