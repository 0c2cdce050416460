"""Releasing money: approved payouts become a payment order, are booked as gone, and the order becomes a file for the custody bank.

Deciding, ordering and booking are one transaction; the file is made from what that stored. Killed in between, the next run writes the
missing file and orders nothing twice. Of a settlement date there may be several orders: what was approved later, or held up, goes
into a further one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from switch.clearing.files import UNMARKED, WholeFile, Written, fault_of, mark_complete, sync_folder
from switch.clearing.settlement.legs import Accounts, bookings_of, paid_legs
from switch.clearing.settlement.pain001 import Order, Side, Transfer, write_order
from switch.clearing.settlement.paper import settlement_folder
from switch.clearing.settlement.payouts import Awaited, Move, move, not_compared, source_of
from switch.clearing.settlement.terms import Account, SealNumbers, account_in_force, number_of
from switch.clearing.settlement.turn import Connection, SettlementRefused, fold_now, only_one
from switch.domain.calendar import SHANGHAI
from switch.ledger.bookings import Booking, book
from switch.ledger.card_states import with_reason
from switch.ledger.chart import Event
from switch.ledger.fold import LOOKBACK_DAYS
from switch.storage.sql import load

SQL: Final = load("switch.clearing.settlement", "order.sql")
PAYOUTS_MAX: Final = 10_000  # of one order, so that its transaction stays short: the day waits for it
WORKDAYS_LOOKED_AT: Final = 31


class OrderTerms(NamedTuple):
    """own_id: whose account pays. shards: every shard that any process books in. awaited: whose comparisons come first."""

    own_id: str
    folder: Path
    shards: tuple[int, ...]
    is_workday: Callable[[date], bool]
    awaited: tuple[Awaited, ...] = ()


class Left(NamedTuple):
    """An approved payout that was not ordered.

    why: ACCOUNT (another account is in force than was approved: it must be approved again), BALANCE (the merchant has less
    now, by refunds since), OWES (the institution has not paid us yet).
    """

    payout_id: str
    party: str
    amount_fen: int
    why: str


class Ordered(NamedTuple):
    """What was done. order_id: empty when there was nothing to order. written: files written now."""

    order_id: str
    payout_count: int
    total_fen: int
    left: tuple[Left, ...]
    written: tuple[str, ...]


class Waiting(NamedTuple):
    """An approved payout, as it is looked at. held_fen: what the books hold for the merchant now."""

    payout_id: str
    party: str
    kind: str
    merchant_no: int | None
    amount_fen: int
    account_no: int
    approved_by: str
    prepared_by: str
    account_now: int | None
    held_fen: int
    owes: bool


def sort_out(waiting: Iterable[Waiting]) -> tuple[list[Waiting], list[Left]]:
    """Which payouts are ordered, and which are left and why. Pure; the strongest reason is told."""
    good: list[Waiting] = []
    left: list[Left] = []
    for one in waiting:
        why = ""
        if one.account_now != one.account_no:
            why = "ACCOUNT"
        elif one.kind == "MERCHANT" and one.amount_fen > one.held_fen:
            why = "BALANCE"
        elif one.kind == "INSTITUTION" and one.owes:
            why = "OWES"
        if why:
            left.append(Left(one.payout_id, one.party, one.amount_fen, why))
        else:
            good.append(one)
    return good, left


def execution_date(day: date, today: date, is_workday: Callable[[date], bool]) -> date:
    """The settlement date, or the first workday from today on when that is past."""
    if today <= day:
        return day
    for ahead in range(WORKDAYS_LOOKED_AT):
        if is_workday(today + timedelta(days=ahead)):
            return today + timedelta(days=ahead)
    raise ValueError("no workday within 31 days: the calendar is wrong")


async def order(
    connection: Connection,
    day: date,
    terms: OrderTerms,
    vault: SealNumbers,
    *,
    actor: str,
    override: str = "",
) -> Ordered:
    """Order what is approved of a settlement date, and write what orders have no whole file.

    connection: its own, in autocommit mode. override: why money is released although a comparison is waited for. Raises
    SettlementRefused (one is waited for, no account of ours, somebody else at it), FolderError, SealError.
    """
    async with only_one(connection, actor):
        written = await _write_missing(connection, day, terms, vault)
        waits = await not_compared(connection, day, terms.awaited)
        if waits and not override:
            first_day, partner = waits[0]
            raise SettlementRefused(
                f"{first_day} is not compared with {partner} to an end ({len(waits)} such): reconcile, or override with a reason"
            )
        why = with_reason(override) if override else ""
        await fold_now(connection, terms.shards)
        made, left = await _make(connection, day, terms, actor, why if waits else "")
        written += await _write_missing(connection, day, terms, vault)
    if made is None:
        return Ordered("", 0, 0, tuple(left), tuple(written))
    return Ordered(made[0], made[1], made[2], tuple(left), tuple(written))


async def _make(
    connection: Connection, day: date, terms: OrderTerms, actor: str, override: str
) -> tuple[tuple[str, int, int] | None, list[Left]]:
    async with connection.transaction():
        row = await (await connection.execute(SQL["clock"])).fetchone()
        assert row is not None
        now: datetime = row[0]
        today = now.astimezone(SHANGHAI).date()
        cursor = await connection.execute(
            SQL["approved"],
            {
                "date": day,
                "today": max(day, today),
                "since": min(day, today) - timedelta(days=LOOKBACK_DAYS),
                "most": PAYOUTS_MAX,
            },
        )
        waiting = [Waiting(*found) for found in await cursor.fetchall()]
        good, left = sort_out(waiting)
        accounts = {one.payout_id: one.account_now for one in waiting}
        back = [
            Move(one.payout_id, "APPROVED", "PREPARED", "the account has changed", accounts[one.payout_id])
            for one in left
            if one.why == "ACCOUNT"
        ]
        if back:
            await move(connection, back, now, actor=actor)
        if not good:
            return None, left
        own = await account_in_force(connection, terms.own_id, max(day, today))
        if own is None:
            raise SettlementRefused(
                f"institution {terms.own_id} has no confirmed account: `cardswitch settlement terms account` names the one that pays"
            )
        order_id = await _add(connection, day, terms, actor, override, now, own, good)
        await _book(connection, good, order_id)
        await move(
            connection,
            [Move(one.payout_id, "APPROVED", "ORDERED", order_id) for one in good],
            now,
            actor=actor,
            order_id=order_id,
        )
    return (order_id, len(good), sum(one.amount_fen for one in good)), left


async def _add(
    connection: Connection,
    day: date,
    terms: OrderTerms,
    actor: str,
    override: str,
    now: datetime,
    own: Account,
    good: Sequence[Waiting],
) -> str:
    row = await (await connection.execute(SQL["orders_so_far"], {"date": day})).fetchone()
    assert row is not None
    order_id = f"O{day:%Y%m%d}{row[0] + 1:03d}"
    await connection.execute(
        SQL["add_order"],
        {
            "order_id": order_id,
            "date": day,
            "execution_date": execution_date(day, now.astimezone(SHANGHAI).date(), terms.is_workday),
            "now": now,
            "actor": actor,
            "account_no": own.account_no,
            "count": len(good),
            "total_fen": sum(one.amount_fen for one in good),
            "override": override,
        },
    )
    return order_id


async def _book(connection: Connection, good: Sequence[Waiting], order_id: str) -> None:
    """Book what goes, by the two who prepared and approved it."""
    people: dict[tuple[str, str], list[Booking]] = {}
    for one in good:
        bookings = people.setdefault((one.prepared_by, one.approved_by), [])
        source = source_of(one.payout_id)
        if one.merchant_no is not None:
            bookings.append(
                Booking(Event.MERCHANT_PAID_OUT, one.amount_fen, one.merchant_no, 0, source, order_id)
            )
        else:
            cursor = await connection.execute(SQL["institution_accounts"], {"owner": int(one.party)})
            row = await cursor.fetchone()
            assert row is not None
            bookings += bookings_of(source, one.party, paid_legs(Accounts(*row), one.amount_fen), order_id)
    for (prepared_by, approved_by), bookings in people.items():
        booked = await book(connection, bookings, actor=prepared_by, checker=approved_by)
        assert None not in booked.entries, "a payout that is ordered now was never booked before"


class OrderRow(NamedTuple):
    """A row of settlement_order. sm3: upper-case hex, None while its file was never written."""

    order_id: str
    settlement_date: date
    execution_date: date
    created_at: datetime
    created_by: str
    account_no: int
    payout_count: int
    total_fen: int
    override: str
    sm3: str | None
    size_bytes: int | None

    @property
    def name(self) -> str:
        """Its file."""
        return f"{self.order_id}.xml"


async def read_orders(connection: Connection, day: date) -> list[OrderRow]:
    """The orders of a settlement date."""
    cursor = await connection.execute(SQL["orders"], {"date": day})
    return [OrderRow(*row) for row in await cursor.fetchall()]


def inspect_order(folder: Path, row: OrderRow) -> str:
    """What is wrong with an order's file; empty when it is whole and marked complete."""
    return fault_of(settlement_folder(folder, row.settlement_date) / row.name, row.sm3, row.size_bytes)


async def _write_missing(
    connection: Connection, day: date, terms: OrderTerms, vault: SealNumbers
) -> list[str]:
    names = []
    for row in await read_orders(connection, day):
        fault = inspect_order(terms.folder, row)
        folder = settlement_folder(terms.folder, day)
        if fault == UNMARKED:
            assert row.sm3 is not None
            mark_complete(folder, [Written(row.name, row.sm3, row.size_bytes or 0)])
        elif fault:
            await _write(connection, row, folder, vault)
            names.append(row.name)
    return names


async def _write(connection: Connection, row: OrderRow, folder: Path, vault: SealNumbers) -> None:
    folder.joinpath(f"{row.name}.ok").unlink(missing_ok=True)
    cursor = await connection.execute(SQL["account"], {"account_no": row.account_no})
    ours = await cursor.fetchone()
    assert ours is not None
    cursor = await connection.execute(SQL["transfers"], {"order_id": row.order_id})
    rows = await cursor.fetchall()  # at most PAYOUTS_MAX, without their clear numbers
    head = Order(
        row.order_id,
        row.created_at,
        row.execution_date,
        _side(vault, Account(*ours)),
        row.payout_count,
        row.total_fen,
    )
    with WholeFile(folder / row.name) as file:
        for block in write_order(head, _transfers(vault, rows, row.settlement_date)):
            file.write(block)
        written = file.finish()
    sync_folder(folder)
    if row.sm3 is None:
        await connection.execute(
            SQL["store_digest"], {"order_id": row.order_id, "sm3": written.sm3, "size": written.size}
        )
    else:
        assert row.sm3 == written.sm3, f"{row.name}: the same order has given other bytes"
    mark_complete(folder, [written])


def _side(vault: SealNumbers, account: Account) -> Side:
    return Side(account.account_name, number_of(vault, account), account.bank_code)


def _transfers(vault: SealNumbers, rows: Iterable[tuple[Any, ...]], day: date) -> Iterator[Transfer]:
    for payout_id, fen, *account in rows:
        to = Account(*account)
        yield Transfer(payout_id, fen, _side(vault, to), f"citizen card settlement {day} {to.party}")
