"""Money that people and partners' files move, and no terminal: payouts, what a bank settles, what a reconciliation finds.

Only between accounts that nobody waits for (chart.HOT_CODES): a holder's balance moves under the locks of its shard and nowhere
else. A booking is of the open day and never changes; a correction is another booking.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.domain.errors import InputRefused
from switch.ledger.chart import HOT_CODES, Event, legs
from switch.ledger.gate import GATE, PURSE_GATE_SHARD, TAKE_SHARED
from switch.ledger.serials import BLOCK, Serials
from switch.storage.sql import load

SQL: Final = load("switch.ledger", "bookings.sql")

Connection = AsyncConnection[tuple[Any, ...]]


class Booking(NamedTuple):
    """One event with its amount. owners: as the chart says for each side's code, 0 where a code has one account.

    source: what asks for it, a word and its key, as `payout 12`; a source books an event once for ever. reason: for people.
    """

    event: Event
    amount_fen: int
    debit_owner: int
    credit_owner: int
    source: str
    reason: str = ""


class Booked(NamedTuple):
    """When and under which numbers; an entry is None where its source had booked that event before."""

    business_date: date
    at: datetime
    entries: tuple[int | None, ...]


async def book(
    connection: Connection, bookings: Sequence[Booking], *, actor: str, checker: str = ""
) -> Booked:
    """Book on the open day, in the caller's transaction, which must be short: the day cannot be sealed before it ends.

    checker: another person than the actor, where the rules want two. Raises InputRefused when no business day covers this instant.
    """
    assert connection.info.transaction_status != 0, "in a transaction of the caller's"
    await connection.execute(TAKE_SHARED, (GATE, PURSE_GATE_SHARD))
    row = await (await connection.execute(SQL["read_instant"])).fetchone()
    if row is None:
        raise InputRefused("no business day covers this instant: run `cardswitch doctor`")
    now, today = row
    if not bookings:
        return Booked(today, now, ())
    sides = [legs(booking.event) for booking in bookings]
    assert all(side in HOT_CODES for pair in sides for side in pair), "a holder's balance is not booked here"
    entries = await _numbers(connection, len(bookings))
    cursor = await connection.execute(
        SQL["write_bookings"],
        {
            "day": today,
            "now": now,
            "actor": actor,
            "checker": checker,
            "entries": entries,
            "events": [booking.event.value for booking in bookings],
            "amounts": [booking.amount_fen for booking in bookings],
            "sources": [booking.source for booking in bookings],
            "reasons": [booking.reason for booking in bookings],
            "debit_codes": [int(debit) for debit, _ in sides],
            "debit_owners": [booking.debit_owner for booking in bookings],
            "credit_codes": [int(credit) for _, credit in sides],
            "credit_owners": [booking.credit_owner for booking in bookings],
        },
    )
    written = {row[0] for row in await cursor.fetchall()}
    return Booked(today, now, tuple(entry if entry in written else None for entry in entries))


async def _numbers(connection: Connection, count: int) -> list[int]:
    serials = Serials()
    numbers = []
    for place in range(count):
        if place % BLOCK == 0:
            row = await (await connection.execute(SQL["next_block"])).fetchone()
            assert row is not None
            serials.refill(row[0])
        numbers.append(serials.take())
    return numbers
