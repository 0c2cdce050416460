"""Money that two people move about a transaction that is over: given back to who paid, or collected again. In the holder's shard, under its locks.

It counts in original_use as a refund counts, with either sign, so no original is given back twice or beyond its amount, whoever comes
first: a terminal's refund, its void, or people. What is booked is a journal row of class 3 that names its original. Everything that reads
the journal (fees, files, positions) takes it from there.

A bank or another city is not told by its host link: it learns of a case from the ER file of the day, and often asked for it.
"""

from collections.abc import Sequence
from datetime import date, datetime
from enum import IntEnum
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.domain.transactions import AccountKind, Kind
from switch.ledger.gate import GATE, TAKE_SHARED
from switch.ledger.leg_rows import TERMINAL_LOCK
from switch.ledger.leg_state import LegState
from switch.ledger.medical import CoverWindow, Split
from switch.ledger.rules import CUSTOMER_CODE, MERCHANT_PAYABLE, SUSPENSE
from switch.ledger.serials import Serials
from switch.storage.sql import load

SQL: Final = load("switch.ledger", "adjustments.sql")
NUMBERS: Final = 1_000_000  # adjustments to a batch number: its trace is the rest

GIVING_BACK: Final = frozenset({Kind.CREDIT_ADJUSTMENT, Kind.CHARGEBACK})
_REFUNDABLE: Final = frozenset({Kind.PURCHASE, Kind.COMPLETION, Kind.COMPLETION_ADVICE})
_PURCHASE_AT_HOST: Final = 1  # the service of a leg
_INTEROP_RECEIVABLE: Final = 1102

Connection = AsyncConnection[Any]


class Source(IntEnum):
    """Where a transaction is kept; the numbers are stored with its cases."""

    ENTRY = 1  # the journal
    RECORD = 2  # an offline record of a card of ours
    FOREIGN = 3  # an offline record of another city's card, paid by that city
    LOAD = 4


class Why(IntEnum):
    """Why an adjustment is refused."""

    NOT_THERE = 1
    STATE = 2  # of the transaction, its card or its accounts
    AMOUNT = 3
    FUNDS = 4


class AdjustmentRefused(Exception):
    """Nothing was written; the caller's transaction is to be rolled back."""

    def __init__(self, why: Why, text: str) -> None:
        self.why = why
        super().__init__(text)


class Adjustment(NamedTuple):
    """What is to be booked. original_*: what is adjusted, as the case names it; item_*: the entry that is in CM.

    earlier: entry and date of the chargeback that a re-presentment takes back.
    """

    kind: Kind
    source: Source
    shard: int
    terminal_no: int
    original_entry: int
    original_date: date
    item_entry: int
    item_date: date
    amount_fen: int
    digest: bytes
    earlier: tuple[int, date] | None = None


class Adjusted(NamedTuple):
    """What was booked, and when."""

    entry_no: int
    business_date: date
    at: datetime


class _Original(NamedTuple):
    """A transaction as far as it matters. accounts: of the holder who paid, as (code, account id); none where others owe (payer)."""

    pan: str | None
    amount_fen: int
    rrn: str
    merchant_no: int
    account_id: int | None
    payer: tuple[int, int] | None = None
    split: Split | None = None
    stands: bool = True  # it took its amount; of an unknown end nothing was taken
    voidable: bool = True  # that a void of it can be made good here


class _Side(NamedTuple):
    """One share of the money: whose, and how much."""

    code: int
    owner: int
    fen: int


async def adjust(connection: Connection, asked: Adjustment) -> Adjusted:
    """Book in the caller's transaction, which must be short: the day cannot be sealed before it ends.

    Raises AdjustmentRefused, or LookupError when no business day covers this instant.
    """
    assert connection.info.transaction_status != 0, "in a transaction of the caller's"
    assert asked.amount_fen > 0
    where = {"shard": asked.shard, "entry_no": asked.original_entry, "day": asked.original_date}
    await connection.execute(TAKE_SHARED, (GATE, asked.shard))
    original = await _read(connection, asked)
    accounts = await _lock(connection, asked, original)
    used = await _one(connection, "lock_use", where)
    refunded_fen, undone_by = used or (0 if original.stands else original.amount_fen, None)
    row = await _one(connection, "read_instant", {})
    if row is None:
        raise LookupError("no business day covers this instant: run `cardswitch doctor`")
    now, today = row
    giving = asked.kind in GIVING_BACK
    left_fen = _left_given_back(asked, original, refunded_fen, undone=undone_by is not None)
    shares = _shares(asked, original, left_fen)
    if giving:
        sides = await _receivers(connection, asked, original, shares, accounts)
    else:
        sides = await _payers(connection, asked, shares, accounts)
    entry_no = await _write(connection, asked, original, sides, (now, today))
    await connection.execute(
        SQL["write_use"], {**where, "amount_fen": original.amount_fen, "refunded_fen": left_fen}
    )
    if original.split is not None:
        covered_fen = shares[0].fen if shares and shares[0].code != CUSTOMER_CODE[AccountKind.ONLINE] else 0
        await _cover(connection, asked, original.split, -covered_fen if giving else covered_fen, today)
    return Adjusted(entry_no, today, now)


async def _one(connection: Connection, query: str, values: dict[str, Any]) -> tuple[Any, ...] | None:
    row: tuple[Any, ...] | None = await (await connection.execute(SQL[query], values)).fetchone()
    return row


# ---------------------------------------------------------------------- what is there


async def _read(connection: Connection, asked: Adjustment) -> _Original:
    """The original, which never changes. What can change is read under the locks."""
    values = {
        "shard": asked.shard,
        "day": asked.original_date,
        "terminal_no": asked.terminal_no,
        "entry_no": asked.original_entry,
        "item_entry": asked.item_entry,
        "item_date": asked.item_date,
    }
    if asked.source == Source.RECORD:
        row = await _one(connection, "read_record", values)
        if row is None:
            raise AdjustmentRefused(Why.NOT_THERE, "record: none of ours that was paid")
        _, pan, amount_fen, rrn, merchant_no, _, credit_code, holder_id = row
        if credit_code != MERCHANT_PAYABLE:
            raise AdjustmentRefused(
                Why.STATE, "record: was acquired by another city, which settles with its merchant"
            )
        account_id = None if holder_id is None else holder_id * 100 + int(AccountKind.ONLINE)
        return _Original(pan, amount_fen, rrn, merchant_no, account_id)
    if asked.source == Source.FOREIGN:
        row = await _one(connection, "read_verdict", values)
        if row is None:
            raise AdjustmentRefused(Why.NOT_THERE, "record: none that its city has paid")
        pan, amount_fen, rrn, merchant_no, _, issuer_id = row
        return _Original(pan, amount_fen, rrn, merchant_no, None, (_INTEROP_RECEIVABLE, int(issuer_id)))
    row = await _one(connection, "read_entry", values)
    if row is None:
        raise AdjustmentRefused(Why.NOT_THERE, "transaction: not there")
    kind, answer, account_id, pan, amount_fen, effect_fen, rrn, merchant_no, _ = row
    if kind not in _REFUNDABLE:
        raise AdjustmentRefused(Why.STATE, "transaction: is no purchase")
    leg = await _one(connection, "read_leg", values)
    split = await _one(connection, "read_split", values)
    stands = effect_fen > 0
    if not stands and not (
        asked.kind == Kind.DEBIT_ADJUSTMENT
        and leg is not None
        and leg[2] == LegState.UNKNOWN
        and leg[3] == _PURCHASE_AT_HOST
    ):
        raise AdjustmentRefused(Why.STATE, f"transaction: was not approved ({answer})")
    return _Original(
        pan,
        amount_fen,
        rrn,
        merchant_no,
        account_id,
        None if leg is None else (leg[0], leg[1]),
        None if split is None else Split(*split),
        stands,
        voidable=kind == Kind.PURCHASE and split is None,
    )


async def _lock(
    connection: Connection, asked: Adjustment, original: _Original
) -> dict[int, tuple[int, bool]]:
    """Lock what orders this with the terminal's own voids and refunds; available balance and freeze of each account."""
    wanted = []
    if original.payer is None and original.account_id is not None:
        wanted.append(original.account_id)
        if original.split is not None:
            wanted.append(original.account_id - int(AccountKind.MEDICAL) + int(AccountKind.ONLINE))
    accounts = {}
    if wanted:
        which = {"shard": asked.shard, "accounts": sorted(wanted)}
        rows = await (await connection.execute(SQL["lock_accounts"], which)).fetchall()
        accounts = {row[0]: (row[1], row[2]) for row in rows}
    if asked.source == Source.ENTRY and original.payer is not None:
        await connection.execute(
            SQL["lock_terminal"], {"space": TERMINAL_LOCK, "terminal_no": asked.terminal_no}
        )
    return accounts


# ---------------------------------------------------------------------- decisions


def _left_given_back(asked: Adjustment, original: _Original, given_fen: int, *, undone: bool) -> int:
    """What is given back of the original after this, in all. given_fen: by refunds and cases before. Raises AdjustmentRefused."""
    amount_fen = asked.amount_fen
    if asked.kind in GIVING_BACK:
        if undone:
            raise AdjustmentRefused(Why.STATE, "transaction: was voided or reversed, nothing is left of it")
        if given_fen + amount_fen > original.amount_fen:
            left_fen = original.amount_fen - given_fen
            raise AdjustmentRefused(Why.AMOUNT, f"amount: {left_fen} fen are left of the transaction")
        return given_fen + amount_fen
    if undone:
        if not original.voidable:
            raise AdjustmentRefused(Why.STATE, "transaction: its void stands; its holder must pay anew")
        given_fen = original.amount_fen
    if amount_fen > given_fen:
        raise AdjustmentRefused(Why.AMOUNT, f"amount: {given_fen} fen were given back")
    return given_fen - amount_fen


def _shares(asked: Adjustment, original: _Original, left_fen: int) -> Sequence[_Side]:
    """Whose money it is: of a divided purchase each account's part, as a refund would divide it."""
    if original.payer is not None:
        return (_Side(*original.payer, asked.amount_fen),)
    if original.account_id is None:
        return (_Side(SUSPENSE, 0, asked.amount_fen),)
    split = original.split
    if split is None:
        kind = AccountKind(original.account_id % 100)
        return (_Side(CUSTOMER_CODE[kind], original.account_id, asked.amount_fen),)
    before_fen = left_fen - asked.amount_fen if asked.kind in GIVING_BACK else left_fen
    covered_fen, own_fen = split.returned(before_fen, asked.amount_fen)
    own = original.account_id - int(AccountKind.MEDICAL) + int(AccountKind.ONLINE)
    both = (
        _Side(CUSTOMER_CODE[AccountKind.MEDICAL], original.account_id, covered_fen),
        _Side(CUSTOMER_CODE[AccountKind.ONLINE], own, own_fen),
    )
    return tuple(side for side in both if side.fen)


async def _receivers(
    connection: Connection,
    asked: Adjustment,
    original: _Original,
    shares: Sequence[_Side],
    accounts: dict[int, tuple[int, bool]],
) -> list[_Side]:
    """Who gets it: the accounts; of a cancelled card, or where there is none, suspense, where it can be claimed."""
    if original.payer is not None:
        return list(shares)
    row = await _one(connection, "read_cancelled", {"shard": asked.shard, "pan": original.pan})
    cancelled = row is None or row[0]
    return [
        side if side.owner in accounts and not cancelled else _Side(SUSPENSE, 0, side.fen) for side in shares
    ]


async def _payers(
    connection: Connection,
    asked: Adjustment,
    shares: Sequence[_Side],
    accounts: dict[int, tuple[int, bool]],
) -> list[_Side]:
    """Who pays again. What had to be left in suspense comes from there; an account must have the money, and not be frozen."""
    suspended = await _in_suspense(connection, asked, shares)
    sides = []
    for side in shares:
        if side in suspended:
            sides.append(_Side(SUSPENSE, 0, side.fen))
            continue
        if side.code not in CUSTOMER_CODE.values():
            if side.code == SUSPENSE:
                raise AdjustmentRefused(Why.STATE, "account: its holder has none")
            sides.append(side)
            continue
        if side.owner not in accounts:
            raise AdjustmentRefused(Why.STATE, "account: its holder has none")
        available_fen, frozen = accounts[side.owner]
        if frozen:
            raise AdjustmentRefused(Why.STATE, "account: is frozen")
        if available_fen < side.fen:
            raise AdjustmentRefused(Why.FUNDS, "account: the holder has not that much")
        sides.append(side)
    return sides


async def _in_suspense(connection: Connection, asked: Adjustment, shares: Sequence[_Side]) -> list[_Side]:
    """Which shares the holder never had back: of a chargeback those that it left in suspense, else all or none.

    Raises AdjustmentRefused when part of what is to be collected lies in suspense and the rest does not.
    """
    if asked.earlier is not None:
        entry_no, day = asked.earlier
        where = {"shard": asked.shard, "entry_no": entry_no, "day": day}
        credited = await (await connection.execute(SQL["credited_to"], where)).fetchall()
        return left_by(shares, [(code, owner) for code, owner in credited])
    where = {
        "shard": asked.shard,
        "entry_no": asked.original_entry,
        "day": asked.original_date,
        "terminal_no": asked.terminal_no,
    }
    row = await _one(connection, "left_in_suspense", where)
    assert row is not None
    left_fen = row[0]
    if 0 < left_fen < asked.amount_fen:
        raise AdjustmentRefused(
            Why.STATE,
            f"transaction: {left_fen} fen given back of it are in suspense, its holder never had them: collect these first",
        )
    return list(shares) if left_fen else []


def left_by(shares: Sequence[_Side], credited: Sequence[tuple[int, int]]) -> list[_Side]:
    """The shares that an earlier adjustment left in suspense. credited: code and owner of each of its postings."""
    if (SUSPENSE, 0) not in credited:
        return []
    return [side for side in shares if side.code == SUSPENSE or (side.code, side.owner) not in credited]


# ---------------------------------------------------------------------- writing


async def _write(
    connection: Connection,
    asked: Adjustment,
    original: _Original,
    sides: Sequence[_Side],
    stamp: tuple[datetime, date],
) -> int:
    now, today = stamp
    numbers = await _one(connection, "numbers", {})
    assert numbers is not None
    serials = Serials()
    serials.refill(numbers[0])
    entry_no = serials.take()
    batch_no, stan = divmod(numbers[1], NUMBERS)
    giving = asked.kind in GIVING_BACK
    customer = CUSTOMER_CODE.values()
    for side in sides:
        if side.code in customer:
            moved = {"shard": asked.shard, "account_id": side.owner, "fen": side.fen if giving else -side.fen}
            await connection.execute(SQL["move_account"], moved)
    await connection.execute(
        SQL["write_entry"],
        {
            "shard": asked.shard,
            "today": today,
            "terminal_no": asked.terminal_no,
            "batch_no": batch_no,
            "stan": stan,
            "entry_no": entry_no,
            "merchant_no": original.merchant_no,
            "kind": int(asked.kind),
            "account_id": original.account_id,
            "pan": original.pan,
            "amount_fen": asked.amount_fen,
            "effect_fen": -asked.amount_fen if giving else asked.amount_fen,
            "rrn": original.rrn,
            "now": now,
            "digest": asked.digest,
            "day": asked.original_date,
            "original": asked.original_entry,
        },
    )
    for line, side in enumerate(sides):
        debit = (MERCHANT_PAYABLE, original.merchant_no) if giving else (side.code, side.owner)
        credit = (side.code, side.owner) if giving else (MERCHANT_PAYABLE, original.merchant_no)
        await connection.execute(
            SQL["write_posting"],
            {
                "shard": asked.shard,
                "today": today,
                "entry_no": entry_no,
                "line": line,
                "debit_code": debit[0],
                "debit_owner": debit[1],
                "credit_code": credit[0],
                "credit_owner": credit[1],
                "amount_fen": side.fen,
            },
        )
    return entry_no


async def _cover(connection: Connection, asked: Adjustment, split: Split, fen: int, today: date) -> None:
    """Count what the medical account has covered, as refunds of divided purchases are counted."""
    where = {"shard": asked.shard, "account_id": split.account_id}
    row = await _one(connection, "read_medical_window", where)
    window = CoverWindow(*row) if row is not None else CoverWindow(split.account_id, today)
    window.roll(today)
    window.count(split.business_date, fen)
    await connection.execute(
        SQL["write_medical_window"],
        {**where, "day": window.day, "day_fen": window.day_fen, "year_fen": window.year_fen},
    )
