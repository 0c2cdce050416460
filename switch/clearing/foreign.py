"""Other cities' cards at our merchants: forwarded at the close (FH), answered by their cities (DT), paid or refused.

    day D      the intake gives result 11 and keeps the record in purse_waiting
    close of D FH, from us to the interop centre, with every such record of the day
    then       DT from the centre: 10 or 00 pays the merchant (1102 to 2101), anything else refuses with the city's reason
               04: its city holds it as grey; it goes on waiting, and the final answer comes in a later DT
    deadline   a record that nobody has answered is accepted at the close of the first day that ends behind it

Each record is decided once; an answer that comes after that is counted and changes nothing. A decision is a row of the
open day with the record's own date kept, and never changes. The other side (DF, for our cards elsewhere) is own_cards.py.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, Final, NamedTuple

from switch.clearing.day_files import Connection
from switch.clearing.files import FileRefused, FileStatus
from switch.clearing.layouts import Value
from switch.clearing.received import Block, Kind, Progress, Terms
from switch.domain.errors import InputRefused
from switch.ledger.chart import Event, legs
from switch.ledger.gate import GATE, PURSE_GATE_SHARD, TAKE_SHARED
from switch.ledger.serials import BLOCK, Serials
from switch.storage.sql import load

SQL: Final = load("switch.clearing", "foreign.sql")
ANSWER: Final = "DT"
PAID: Final = "00"
PAYING: Final = frozenset({"10", "00"})
REFUSING: Final = frozenset({"01", "02", "03", "05", "06", "07", "08", "09", "92", "93", "94", "95"})
HELD: Final = "04"
LATE, UNKNOWN = "late", "unknown"  # in receipts: decided before; not a record that we forwarded
HELD_DAYS_MAX: Final = 65  # its city decides within 60 days of getting it, and its answer takes some more
_TWO_63, _TWO_64 = 1 << 63, 1 << 64


class Deadline(NamedTuple):
    """When an answer must be there: on the so-many-th day after the clearing date, by this time in Shanghai."""

    days: int = 2
    by: time = time(20)


class _Verdict(NamedTuple):
    original: int
    result: str
    answered_on: date | None


async def accept_unanswered(connection: Connection, day: date, deadline: Deadline) -> int:
    """Accept what nobody has answered in time, as rows of a day that has ended; returns how many. Done again it finds nothing.

    connection: in autocommit mode and not in a transaction.
    """
    async with connection.transaction():
        await connection.execute(TAKE_SHARED, (GATE, PURSE_GATE_SHARD))
        due = {
            "day": day,
            "answer_days": deadline.days,
            "answer_by": deadline.by,
            "held_days": HELD_DAYS_MAX,
        }
        cursor = await connection.execute(SQL["find_unanswered"], due)
        verdicts = [_Verdict(entry_no, PAID, None) for (entry_no,) in await cursor.fetchall()]
        if verdicts:
            row = await (await connection.execute(SQL["last_instant"], {"day": day})).fetchone()
            assert row is not None
            await _write(connection, verdicts, day, row[0], None)
    return len(verdicts)


def answer_kind(connection: Connection, terms: Terms) -> Kind:
    """How a DT file is taken: from the interop centre, to us. Raises InputRefused when there is none."""
    if not terms.interop_centre:
        raise InputRefused("DT files are not taken: interop.centre_id is not set")

    async def take(progress: Progress, block: Block) -> Progress:
        async with connection.transaction():
            await connection.execute(TAKE_SHARED, (GATE, PURSE_GATE_SHARD))
            row = await (await connection.execute(SQL["read_instant"])).fetchone()
            if row is None:
                raise InputRefused("no business day covers this instant: run `cardswitch doctor`")
            now, today = row
            verdicts, results = await _decide(connection, block.lines)
            holds = [verdict for verdict in verdicts if verdict.result == HELD]
            verdicts = [verdict for verdict in verdicts if verdict.result != HELD]
            if verdicts:
                await _write(connection, verdicts, today, now, progress.file_no)
            if holds:
                await connection.execute(SQL["write_holds"], _held(holds, today, now, progress.file_no))
            moved = progress.after(len(block.lines), results)
            await connection.execute(*moved.statement(today))
        return moved

    return Kind(addressee=terms.own_id, sender=terms.interop_centre, check=check_answer, take=take)


def _held(holds: Sequence["_Verdict"], today: date, now: datetime, file_no: int) -> dict[str, Any]:
    return {
        "day": today,
        "now": now,
        "file_no": file_no,
        "originals": [verdict.original for verdict in holds],
        "dates": [verdict.answered_on for verdict in holds],
    }


def check_answer(number: int, values: dict[str, Value]) -> None:
    """Refuse a line of a DT that says nothing: its result ends the matter or holds it, and its date is one."""
    if values["result"] not in PAYING | REFUSING | {HELD}:
        raise FileRefused(FileStatus.CONTENT, "result: one that ends a matter", line=number + 1, column=202)
    if date_of(values) is None:
        raise FileRefused(FileStatus.CONTENT, "result_date: not a date", line=number + 1, column=204)


def date_of(values: Mapping[str, Value]) -> date | None:
    """The date of a result, None where there is no such day."""
    digits = f"{values['result_date']:08d}"
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


async def _decide(
    connection: Connection, lines: Sequence[Mapping[str, Value]]
) -> tuple[list[_Verdict], dict[str, tuple[int, int]]]:
    """Which records the lines decide, and what became of every line: its result, late, or unknown."""
    raws = [bytes.fromhex(str(values["record"])) for values in lines]
    cursor = await connection.execute(
        SQL["find_answered"],
        {
            "cards": [card_of(raw) for raw in raws],
            "atcs": [int.from_bytes(raw[28:30]) for raw in raws],
            "amounts": [int.from_bytes(raw[30:34]) for raw in raws],
            "marks": [raw[38:59] for raw in raws],
            "raws": raws,
        },
    )
    verdicts: list[_Verdict] = []
    became = [UNKNOWN] * len(lines)
    decided: set[int] = set()
    for entry_no, before, held, place in await cursor.fetchall():
        values = lines[place - 1]
        if before or entry_no in decided or (held and values["result"] == HELD):
            became[place - 1] = LATE
            continue
        result = PAID if values["result"] in PAYING else str(values["result"])
        decided.add(entry_no)
        verdicts.append(_Verdict(entry_no, result, date_of(values)))
        became[place - 1] = result
    return verdicts, counted(became, raws)


def counted(became: Sequence[str], raws: Sequence[bytes]) -> dict[str, tuple[int, int]]:
    """How many lines each became, and their amounts."""
    results: dict[str, tuple[int, int]] = {}
    for code, raw in zip(became, raws, strict=True):
        count, fen = results.get(code, (0, 0))
        results[code] = (count + 1, fen + int.from_bytes(raw[30:34]))
    return results


def card_of(raw: bytes) -> int:
    """card_key of the record's card; -1, which no card has, where it is none."""
    digits = raw[6:16].hex()
    if not digits.isdecimal():
        return -1
    card = int(digits)
    return card - _TWO_64 if card >= _TWO_63 else card


async def _write(
    connection: Connection, verdicts: Sequence[_Verdict], day: date, now: datetime, file_no: int | None
) -> None:
    serials = Serials()
    entries: list[int] = []
    for place in range(len(verdicts)):
        if place % BLOCK == 0:
            row = await (await connection.execute("SELECT nextval('entry_no_block')")).fetchone()
            assert row is not None
            serials.refill(row[0])
        entries.append(serials.take())
    receivable, payable = legs(Event.FOREIGN_CARD_CONFIRMED)
    values: dict[str, Any] = {
        "day": day,
        "now": now,
        "file_no": file_no,
        "entries": entries,
        "originals": [verdict.original for verdict in verdicts],
        "results": [verdict.result for verdict in verdicts],
        "dates": [verdict.answered_on for verdict in verdicts],
        "receivable": int(receivable),
        "payable": int(payable),
    }
    for step in ("write_verdicts", "post_verdicts", "end_waiting"):
        await connection.execute(SQL[step], values)
