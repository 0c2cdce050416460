"""Records that two people accept after all: a grey one (04) that was debited, or a refused one (01, 02) that its issuer stands for.

What is written is what the adjudication of the close writes: a row with result 00 on the open day, and the guards. A counter that
another record has used up stays that one's, so no evidence makes two records of one counter.
"""

from datetime import date, datetime
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.ledger.gate import GATE, PURSE_GATE_SHARD, TAKE_SHARED
from switch.ledger.serials import Serials
from switch.purse.record import LOCKED, TEST
from switch.storage.sql import load

SQL: Final = load("switch.purse", "decisions.sql")
GREY: Final = "04"
REFUSED: Final = frozenset({"01", "02"})
_MERCHANTS: Final = 2101

Connection = AsyncConnection[Any]


class RecordRefused(Exception):
    """The record cannot be accepted. Nothing was written that the caller's rollback does not take back."""


class Accepted(NamedTuple):
    """The row that pays the record, and when."""

    entry_no: int
    business_date: date
    at: datetime


async def accept(connection: Connection, entry_no: int, day: date, *, grey: bool) -> Accepted:
    """Accept a record in the caller's transaction. grey: it must be one that waits; else one that was refused.

    Raises RecordRefused, or LookupError when no business day covers this instant.
    """
    assert connection.info.transaction_status != 0, "in a transaction of the caller's"
    await connection.execute(TAKE_SHARED, (GATE, PURSE_GATE_SHARD))
    where = {"entry_no": entry_no, "day": day}
    row = await _one(connection, "read_record", where)
    if row is None:
        raise RecordRefused("record: not there")
    result, kind, card, card_no, atc, psam, psam_serial, amount_fen, *credit = row
    if grey:
        waits = await _one(connection, "lock_waiting", where)
        if result != GREY or waits is None:
            raise RecordRefused(f"record: is none that waits (result {result})")
        if waits[0] is not None:
            raise RecordRefused(f"record: was decided before ({waits[0]})")
    elif result not in REFUSED:
        raise RecordRefused(f"record: result {result} is none that its issuer can accept")
    if kind is None or kind in (LOCKED, TEST) or not amount_fen or card_no is None:
        raise RecordRefused("record: no purchase of a card of ours that can be read")
    _check_creditor(*credit)
    used = await _one(
        connection, "read_verdict", {"card": card, "atc": atc, "psam": psam, "psam_serial": psam_serial}
    )
    assert used is not None
    if used[0]:
        raise RecordRefused("record: its card's counter is used up by another record")
    if used[1]:
        raise RecordRefused("record: its PSAM's serial is used up by another record")
    return await _write(connection, entry_no, day, grey=grey)


def _check_creditor(
    credit_code: int | None, credit_owner: int | None, merchant_no: int, terminal_no: int
) -> None:
    """Whoever is paid must be who brought it: of a PSAM in other hands nobody knows whose the money is."""
    if credit_code is None or credit_owner is None or not merchant_no or not terminal_no:
        raise RecordRefused("record: its PSAM is nobody's, so nobody can be paid")
    if credit_code == _MERCHANTS and credit_owner != merchant_no:
        raise RecordRefused("record: its PSAM is another merchant's")


async def _write(connection: Connection, entry_no: int, day: date, *, grey: bool) -> Accepted:
    stamp = await (
        await connection.execute(
            "WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)"
            " SELECT nextval('entry_no_block'), clock.now, d.business_date"
            " FROM clock JOIN business_day d ON d.begins_at <= clock.now AND clock.now < d.ends_at"
        )
    ).fetchone()
    if stamp is None:
        raise LookupError("no business day covers this instant: run `cardswitch doctor`")
    block, now, today = stamp
    serials = Serials()
    serials.refill(block)
    number = serials.take()
    values = {"entry_no": entry_no, "day": day, "number": number, "today": today, "now": now}
    await connection.execute(SQL["write_record"], values)
    for guard, whose in (("use_up_atc", "card's counter"), ("use_up_serial", "PSAM's serial")):
        cursor = await connection.execute(SQL[guard], values)
        if cursor.rowcount != 1:  # somebody has been quicker than this question
            raise RecordRefused(f"record: its {whose} is used up by another record")
    if grey:
        await connection.execute(SQL["end_waiting"], values)
    return Accepted(number, today, now)


async def _one(connection: Connection, query: str, values: dict[str, Any]) -> tuple[Any, ...] | None:
    row: tuple[Any, ...] | None = await (await connection.execute(SQL[query], values)).fetchone()
    return row
