"""What a settlement date pays: the nets of the closed days that it settles, what was carried, what stays and why.

A party's claim is what the postings of settled days come to, less what earlier settlement dates have turned into payouts. A
payout's own postings are of later days and count for nobody; one that comes back is due again. So no fen is paid twice, and

    carried in + nets of the days + come back = payout + held + carried on

holds for every line, by constraint.
"""

from datetime import date, datetime
from typing import Any, Final, NamedTuple

from switch.clearing.settlement.terms import Terms
from switch.clearing.settlement.turn import Connection, SettlementRefused, only_one
from switch.storage.sql import load

SQL: Final = load("switch.clearing.settlement", "prepare.sql")


class Share(NamedTuple):
    """Where a claim goes. payout_fen below zero: the party is to pay us."""

    payout_fen: int
    held_fen: int
    carried_fen: int
    cause: str


def divide(fen: int, terms: Terms, *, is_merchant: bool, has_account: bool, in_cycle: bool) -> Share:
    """What is paid of a claim, what is held and what is carried on. The first reason for which something stays is its cause.

    terms: as they hold on the settlement date; a hold that has ended is none.
    A merchant below zero is carried; an institution, or the fund, owes it on the settlement date, unless all of it is held.
    """
    if fen < 0 and (is_merchant or terms.held_all):
        return Share(0, 0, fen, "NEGATIVE" if is_merchant else "HELD")
    if fen <= 0:
        return Share(fen, 0, 0, "")
    held = fen if terms.held_all else min(fen, terms.held_fen)
    rest = fen - held
    if rest == 0:
        return Share(0, held, 0, "HELD")
    if not has_account:
        return Share(0, held, rest, "NO_ACCOUNT")
    if not in_cycle:
        return Share(0, held, rest, "CYCLE")
    if rest < terms.minimum_fen:
        return Share(0, held, rest, "MINIMUM")
    return Share(rest, held, 0, "HELD" if held else "")


class Prepared(NamedTuple):
    """A settlement date. again: it had been prepared before, and nothing was changed."""

    settlement_date: date
    first_day: date
    last_day: date
    prepared_at: datetime
    prepared_by: str
    again: bool
    figures: dict[str, Any]


async def prepare(connection: Connection, chosen: date | None, actor: str) -> Prepared:
    """Make the lines and payouts of a settlement date; default: the one of the newest closed day. Idempotent.

    connection: its own, in autocommit mode. Raises SettlementRefused: a day before the date is not closed, a later date is
    prepared already, nothing is due, somebody else is at it.
    """
    async with only_one(connection, actor):
        day = chosen or await _due(connection)
        again = await _run(connection, day) is not None
        if not again:
            await _make(connection, day, actor)
        row = await _run(connection, day)
        assert row is not None
        return Prepared(row[0], row[1], row[2], row[3], row[4], again, await figures(connection, day))


async def _due(connection: Connection) -> date:
    row = await (await connection.execute(SQL["due_date"])).fetchone()
    if row is None:
        raise SettlementRefused("no day has been closed yet")
    day: date = row[0]
    return day


async def _run(connection: Connection, day: date) -> tuple[Any, ...] | None:
    return await (await connection.execute(SQL["read_run"], {"date": day})).fetchone()


async def figures(connection: Connection, day: date) -> dict[str, Any]:
    """Sums over the lines of a settlement date, in fen."""
    cursor = await connection.execute(SQL["figures"], {"date": day})
    row = await cursor.fetchone()
    assert row is not None
    assert cursor.description is not None
    return {column.name: value for column, value in zip(cursor.description, row, strict=True)}


async def _make(connection: Connection, day: date, actor: str) -> None:
    newest = await (await connection.execute(SQL["newest_run"])).fetchone()
    if newest is not None and newest[0] > day:
        raise SettlementRefused(
            f"settlement date {newest[0]} is prepared already: dates are settled in order"
        )
    row = await (await connection.execute(SQL["not_closed"], {"date": day})).fetchone()
    if row is not None and row[0] is not None:
        raise SettlementRefused(f"business day {row[0]} is not closed yet: `cardswitch close` first")
    row = await (await connection.execute(SQL["days_due"], {"date": day})).fetchone()
    assert row is not None
    first, last, count = row
    if not count:
        raise SettlementRefused(f"no closed day is due on {day}: all before it are settled")
    days = {"date": day, "first": first, "last": last, "actor": actor}
    async with connection.transaction():
        await connection.execute("SET LOCAL jit = off")
        await connection.execute(SQL["keep_terms_still"])
        await _check_centre(connection, days)
        for query in ("add_run", "day_nets", "take_again", "lines", "payouts", "first_moves"):
            await connection.execute(SQL[query], days)
        sums = await figures(connection, day)
        assert sums["carried_in_fen"] + sums["net_fen"] + sums["returned_fen"] == (
            sums["payout_fen"] - sums["collection_fen"] + sums["held_fen"] + sums["carried_fen"]
        ), "what came in goes somewhere"


async def _check_centre(connection: Connection, days: dict[str, Any]) -> None:
    """What a city owes or is owed by way of the centre is paid by the centre's NP: it must not be paid here as well."""
    row = await (await connection.execute(SQL["city_not_held"], days)).fetchone()
    if row is not None:
        raise SettlementRefused(
            f"party {row[0]} has items that the interop centre settles (NP): hold it, or it would be paid twice: "
            f"`cardswitch settlement terms set {row[0]} --held-all --held-reason ... --reason ...`"
        )
