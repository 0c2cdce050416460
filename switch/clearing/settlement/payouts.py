"""Payouts and collections between their preparation and their end: a table of states, and who may move what.

The money of a payout is booked as gone (2101 → 1001) when it is ordered, in the transaction that orders it. So no second payout
can be made of it, and what the custody account holds by the books is what it holds once the bank has done what it was told.
Returned or rejected, it is booked back on the day that is open then, and is due again.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, time
from typing import Any, Final, NamedTuple

from switch.clearing.settlement.legs import Leg, bookings_of, returned_legs
from switch.clearing.settlement.turn import Connection, SettlementRefused, only_one
from switch.domain.people import another, person
from switch.ledger.bookings import Booking, book
from switch.ledger.card_states import with_reason
from switch.ledger.chart import Event
from switch.storage.sql import load

SQL: Final = load("switch.clearing.settlement", "payouts.sql")
LISTED_MAX: Final = 10_000
STATES: Final = frozenset(
    ("PREPARED", "APPROVED", "ORDERED", "PAID", "RETURNED", "REJECTED", "CANCELLED", "EXPECTED", "FUNDED")
)
# APPROVED goes back when the account that was approved is no longer the one in force.
MOVES: Final = frozenset(
    (
        ("PREPARED", "APPROVED"),
        ("APPROVED", "PREPARED"),
        ("PREPARED", "CANCELLED"),
        ("APPROVED", "CANCELLED"),
        ("APPROVED", "ORDERED"),
        ("ORDERED", "PAID"),
        ("ORDERED", "RETURNED"),
        ("ORDERED", "REJECTED"),
        ("PAID", "RETURNED"),
        ("EXPECTED", "FUNDED"),
        ("EXPECTED", "CANCELLED"),
    )
)


class Move(NamedTuple):
    """One step of one payout. account_no: of a payout that goes back to PREPARED."""

    payout_id: str
    before: str
    after: str
    reason: str = ""
    account_no: int | None = None


class Awaited(NamedTuple):
    """A partner without whose comparison no money of a date moves, from the business date `since` on."""

    institution: str
    since: date


class Payout(NamedTuple):
    """A payout or collection as a desk sees it."""

    payout_id: str
    settlement_date: date
    party: str
    kind: str
    merchant_no: int | None
    amount_fen: int
    state: str
    approved_by: str | None
    prepared_by: str
    order_id: str | None


def source_of(payout_id: str) -> str:
    """By which its bookings are known. A source books an event once, so nothing is paid or given back twice."""
    return f"payout {payout_id}"


def back_again(payout: Payout, booked: Sequence[Leg], reason: str) -> list[Booking]:
    """The bookings by which an ordered payout comes back. booked: what was booked when it was ordered."""
    source = source_of(payout.payout_id)
    if payout.kind == "MERCHANT":
        assert payout.merchant_no is not None
        return [
            Booking(Event.MERCHANT_PAYOUT_RETURNED, payout.amount_fen, 0, payout.merchant_no, source, reason)
        ]
    return bookings_of(source, payout.party, returned_legs(list(booked)), reason)


async def booked_legs(connection: Connection, payout_ids: Iterable[str]) -> dict[str, list[Leg]]:
    """What was booked for each, by number."""
    sources = {source_of(payout_id): payout_id for payout_id in payout_ids}
    found: dict[str, list[Leg]] = {payout_id: [] for payout_id in sources.values()}
    cursor = await connection.execute(SQL["booked_legs"], {"sources": list(sources)})
    for source, event, fen in await cursor.fetchall():
        found[sources[source]].append((Event(event), fen))
    return found


async def move(
    connection: Connection,
    moves: Sequence[Move],
    at: datetime,
    *,
    actor: str,
    checker: str = "",
    order_id: str | None = None,
    day: date | None = None,
) -> None:
    """Write moves, in the caller's transaction, which has locked the payouts. day: of the booking of what comes back."""
    assert all((one.before, one.after) in MOVES for one in moves), "a move of the table"
    cursor = await connection.execute(
        SQL["move"],
        {
            "ids": [one.payout_id for one in moves],
            "froms": [one.before for one in moves],
            "tos": [one.after for one in moves],
            "reasons": [one.reason for one in moves],
            "accounts": [one.account_no for one in moves],
            "at": at,
            "actor": actor,
            "checker": checker,
            "order_id": order_id,
            "day": day,
        },
    )
    assert len(await cursor.fetchall()) == len(moves), "whoever moves has locked what it moves"


async def instant(connection: Connection) -> datetime:
    """The database's clock, read once per step."""
    row = await (await connection.execute(SQL["instant"])).fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


async def approve(
    connection: Connection, day: date, payout_ids: Sequence[str] | None, *, actor: str
) -> list[str]:
    """Approve payouts of a settlement date, or all that are prepared; those approved now. Again: nothing changes.

    actor: another person than who prepared.
    """
    async with only_one(connection, actor), connection.transaction():
        cursor = await connection.execute(
            SQL["to_approve"], {"date": day, "all": payout_ids is None, "ids": list(payout_ids or ())}
        )
        rows = await cursor.fetchall()
        missing = sorted(set(payout_ids or ()) - {row[0] for row in rows})
        if missing:
            raise SettlementRefused(f"payout {missing[0]}: no such payout on {day}")
        for prepared_by in {row[2] for row in rows}:
            another("actor", actor, prepared_by)
        ended = [row[0] for row in rows if row[1] == "CANCELLED"]
        if ended:
            raise SettlementRefused(f"payout {ended[0]} is CANCELLED: its money comes with a later date")
        moves = [Move(row[0], "PREPARED", "APPROVED") for row in rows if row[1] == "PREPARED"]
        if moves:
            await move(connection, moves, await instant(connection), actor=actor)
    return [one.payout_id for one in moves]


async def cancel(connection: Connection, payout_id: str, *, actor: str, reason: str) -> str:
    """Take back what is not ordered yet, or a collection; its amount is part of the next settlement date. The state before."""
    why = with_reason(reason)
    async with only_one(connection, actor), connection.transaction():
        payout = await lock_payout(connection, payout_id)
        if payout.state == "CANCELLED":
            return payout.state
        if (payout.state, "CANCELLED") not in MOVES:
            raise SettlementRefused(f"payout {payout_id} is {payout.state}: only what is not ordered can be")
        one = Move(payout_id, payout.state, "CANCELLED", why)
        await move(connection, [one], await instant(connection), actor=actor)
    return payout.state


async def resolve(
    connection: Connection, payout_id: str, to_state: str, *, actor: str, checker: str, reason: str
) -> None:
    """Two people say what became of an ordered payout, where no statement says it.

    REJECTED: the bank has refused it; its money is booked back, and due again. PAID: it was paid, if with another amount: the
    difference is in suspense already.
    """
    why = with_reason(reason)
    if to_state not in ("PAID", "REJECTED"):
        raise SettlementRefused("as: PAID or REJECTED")
    actor = person("actor", actor)
    checker = another("checker", checker, actor)
    async with only_one(connection, actor), connection.transaction():
        payout = await lock_payout(connection, payout_id)
        if payout.state == to_state:
            return
        if payout.state != "ORDERED":
            raise SettlementRefused(f"payout {payout_id} is {payout.state}: only an ordered one is resolved")
        bookings: list[Booking] = []
        if to_state == "REJECTED":
            seen = await (await connection.execute(SQL["went_out"], {"id": payout_id})).fetchone()
            if seen is not None:
                raise SettlementRefused(f"payout {payout_id}: the bank has moved money for it, see `show`")
            legs = await booked_legs(connection, [payout_id])
            bookings = back_again(payout, legs[payout_id], why)
        booked = await book(connection, bookings, actor=actor, checker=checker)
        assert None not in booked.entries, "what was never given back is given back now"
        one = Move(payout_id, payout.state, to_state, why)
        await move(connection, [one], booked.at, actor=actor, checker=checker, day=booked.business_date)


async def lock_payout(connection: Connection, payout_id: str) -> Payout:
    """One payout, locked until the end of the transaction. Raises SettlementRefused."""
    row = await (await connection.execute(SQL["one_payout"], {"id": payout_id})).fetchone()
    if row is None:
        raise SettlementRefused("payout: no such number")
    return Payout(*row)


async def _rows(connection: Connection, query: str, **values: object) -> list[dict[str, Any]]:
    cursor = await connection.execute(SQL[query], values)
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]


async def list_payouts(
    connection: Connection,
    day: date | None,
    states: Sequence[str],
    fund_by: time,
    *,
    after: str = "",
    most: int = LISTED_MAX,
) -> list[dict[str, Any]]:
    """Payouts and collections, by number, from behind `after` on. late: a collection that should have come by fund_by."""
    unknown = sorted(set(states) - STATES)
    if unknown:
        raise SettlementRefused(f"state: one of {', '.join(sorted(STATES))}")
    return await _rows(
        connection,
        "list_payouts",
        date=day,
        states=list(states),
        fund_by=fund_by,
        after=after,
        most=min(most, LISTED_MAX),
    )


async def list_left(connection: Connection, day: date) -> list[dict[str, Any]]:
    """Lines of a settlement date of which something stays, with the cause."""
    return await _rows(connection, "list_lines", date=day, most=LISTED_MAX)


async def show_payout(connection: Connection, payout_id: str) -> dict[str, Any]:
    """A payout with the line it comes from, its clearing days, its moves, and what the bank said of it."""
    async with connection.transaction():
        payout = await lock_payout(connection, payout_id)
    where = {"date": payout.settlement_date, "party": payout.party}
    (line,) = await _rows(connection, "show_line", **where)
    return {
        **payout._asdict(),
        "line": line,
        "days": await _rows(connection, "show_days", **where),
        "moves": await _rows(connection, "show_moves", id=payout_id),
        "bank": await _rows(connection, "show_entries", id=payout_id),
    }


async def not_compared(
    connection: Connection, day: date, partners: Sequence[Awaited]
) -> list[tuple[date, str]]:
    """Clearing days of a settlement date whose money waits, and for which partner's comparison."""
    values = {
        "date": day,
        "institutions": [one.institution for one in partners],
        "since": [one.since for one in partners],
    }
    cursor = await connection.execute(SQL["not_compared"], values)
    return [(row[0], row[1]) for row in await cursor.fetchall()]
