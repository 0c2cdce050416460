"""What follows from records once they are in: shadow balances, gaps in counters, balance chains, verdicts on grey records.

None of it is ever a reason to refuse a good record, so nobody waits for it: a fold takes the records behind a watermark,
all at once, every few seconds and before a day is closed. shadow.sql has the steps.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Any, Final, NamedTuple

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.ledger.gate import GATE, PURSE_GATE_SHARD, TAKE_SHARED
from switch.ledger.serials import BLOCK, Serials
from switch.purse.chain import ALARMING, LOADS_MAX, Loaded, link
from switch.purse.verify import ADJUSTED, GREY_DAYS_MAX, REFUSED_GREY, Trace
from switch.purse.verify import adjudicate as adjudicate_one
from switch.storage.sql import load

log = structlog.get_logger(__name__)
SQL: Final = load("switch.purse", "shadow.sql")

Connection = AsyncConnection[Any]
Connect = Callable[[], AbstractAsyncContextManager[Connection]]

GAP_DAYS_MAX: Final = 30  # a hole that is older is reported
GAPS_AT_ONCE: Final = 10_000  # reported by one fold
_FOLD_STEPS = (
    "fold_spending",
    "fold_balances",
    "report_reused_serials",
    "collect_arrivals",
    "add_sequences",
    "move_sequences",
    "move_purses",
    "collect_holes",
    "collect_closing",
    "analyze_holes",
    "open_gaps",
    "close_gaps",
    "report_negative",
)


async def fold_purses(connection: Connection) -> int:
    """Fold what lies behind the horizon; returns the number of records. Safe from several processes: a row lock orders them.

    connection: in autocommit mode and not in a transaction.
    """
    async with connection.transaction():
        folded_to = (await _one(connection, "lock_watermark"))[0]
        upto = (await _one(connection, "read_horizon"))[0]
        await connection.execute(SQL["collect"].encode(), {"folded_to": folded_to, "upto": upto})
        await connection.execute(SQL["collect_batches"].encode(), {"folded_to": folded_to, "upto": upto})
        records = int((await _one(connection, "count_collected"))[0])
        if records:
            for step in _FOLD_STEPS:
                await connection.execute(SQL[step].encode())
            await _report_breaks(connection, await _all(connection, "find_mismatches"))
        overdue = {"days": GAP_DAYS_MAX, "at_once": GAPS_AT_ONCE}
        await connection.execute(SQL["report_overdue_gaps"].encode(), overdue)
        await connection.execute(SQL["move_watermark"].encode(), {"upto": upto})
    return records


async def loads_of(connection: Connection, cards: Collection[int]) -> dict[int, list[Loaded]]:
    """Loads of these cards (card_key), the newest few of each."""
    found: dict[int, list[Loaded]] = defaultdict(list)
    if cards:
        asked = {"cards": sorted(cards), "loads_max": LOADS_MAX}
        for card, *one in await _all(connection, "read_loads_of", asked):
            found[card].append(Loaded(*one))
    return found


async def _report_breaks(connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
    """Raise alarms for balances that neither the record before nor loads explain. rows: of find_mismatches."""
    loads = await loads_of(connection, {row[2] for row in rows})
    found: list[tuple[Any, ...]] = []
    for entry_no, day, card, atc, expected_fen, found_fen in rows:
        step = link(expected_fen, found_fen, loads[card])
        if step.verdict in ALARMING:
            text = f"balance before ATC {atc} is {found_fen} fen, expected {expected_fen}"
            if step.loads:
                named = ", ".join(str(one.load_no) for one in step.loads)
                text += f": load {named} is on the card, and money went back"
            found.append((entry_no, day, card, text))
    if found:
        names = ("entries", "dates", "cards", "details")
        columns = dict(zip(names, map(list, zip(*found, strict=True)), strict=True))
        await connection.execute(SQL["report_chain_breaks"].encode(), columns)


async def keep_folding_purses(connect: Connect, every_s: float) -> None:
    """Fold until cancelled. A failure is logged and the next round tries again: nothing is lost by folding late."""
    while True:
        try:
            async with connect() as connection:
                await fold_purses(connection)
        except psycopg.Error as error:
            log.warning("folding of purses postponed", error=type(error).__name__)
        await asyncio.sleep(every_s)


class Adjudication(NamedTuple):
    """What became of the grey records that were pending: numbers of records."""

    paid: int
    refused: int
    waiting: int


class _Grey(NamedTuple):
    """A pending grey record."""

    card: int
    trace: Trace
    psam: int
    psam_serial: int
    entry_no: int
    business_date: date


async def adjudicate(
    connection: Connection, day: date | None = None, *, days_max: int = GREY_DAYS_MAX
) -> Adjudication:
    """Decide the grey records that evidence, or `days_max` days without any, has settled: 00 or 94 as new rows of `day`.

    day: the business date that is being closed, past its end and not closed; records up to it are evidence. None: the
    open day. The same records give the same verdicts. connection: in autocommit mode and not in a transaction.
    """
    async with connection.transaction():
        await connection.execute(TAKE_SHARED, (GATE, PURSE_GATE_SHARD))
        if day is None:
            cursor = await connection.execute(
                "SELECT business_date FROM business_day"
                " WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at"
            )
            row = await cursor.fetchone()
            if row is None:
                raise LookupError("no business day covers this instant: run `cardswitch doctor`")
            day = row[0]
        await _report_breaks(connection, await _all(connection, "find_returned_rises", {"day": day}))
        greys = [_grey(row) for row in await _all(connection, "lock_greys", {"day": day})]
        if not greys:
            return Adjudication(0, 0, 0)
        verdicts, contradicted = await _decide(connection, greys, day, days_max)
        if contradicted:
            entries = {"entries": contradicted}
            await connection.execute(SQL["report_contradictions"].encode(), entries)
        if verdicts:
            await _write(connection, verdicts, day)
    paid = sum(1 for _, verdict in verdicts if verdict == ADJUSTED)
    return Adjudication(paid, len(verdicts) - paid, len(greys) - len(verdicts))


def _grey(row: Sequence[Any]) -> _Grey:
    card, atc, amount_fen, balance_fen, mark, entry_no, business_date = row
    psam, serial = int(mark[7:13].hex()), int.from_bytes(mark[13:17])
    return _Grey(card, Trace(atc, amount_fen, balance_fen), psam, serial, entry_no, business_date)


async def _decide(
    connection: Connection, greys: Sequence[_Grey], day: date, days_max: int
) -> tuple[list[tuple[_Grey, str]], list[int]]:
    """Verdicts in order of arrival, each seen by the next; and the entry numbers whose evidence contradicts itself."""
    asked = {
        "cards": [grey.card for grey in greys],
        "atcs": [grey.trace.atc for grey in greys],
        "day": day,
    }
    accepted: dict[int, list[Trace]] = defaultdict(list)
    for card, *trace in await _all(connection, "find_evidence", asked):
        accepted[card].append(Trace(*trace))
    serials = {
        "psams": [grey.psam for grey in greys],
        "serials": [grey.psam_serial for grey in greys],
    }
    used = set(await _all(connection, "find_used_serials", serials))
    loads = await loads_of(connection, {grey.card for grey in greys})
    of_card: dict[int, list[_Grey]] = defaultdict(list)
    for grey in greys:
        of_card[grey.card].append(grey)

    verdicts: list[tuple[_Grey, str]] = []
    contradicted: list[int] = []
    for grey in greys:
        others = [other.trace for other in of_card[grey.card] if other is not grey]
        result, contradiction = adjudicate_one(grey.trace, accepted[grey.card], others, loads[grey.card])
        serial = (grey.psam, grey.psam_serial)
        if result == ADJUSTED and serial in used:
            result, contradiction = "", True
        if not result and (day - grey.business_date).days >= days_max:
            result = REFUSED_GREY
        if contradiction:
            contradicted.append(grey.entry_no)
        if result:
            verdicts.append((grey, result))
        if result == ADJUSTED:
            accepted[grey.card].append(grey.trace)
            used.add(serial)
    return verdicts, contradicted


async def _write(connection: Connection, verdicts: Sequence[tuple[_Grey, str]], day: date) -> None:
    serials = Serials()
    entries: list[int] = []
    for place in range(len(verdicts)):
        if place % BLOCK == 0:
            cursor = await connection.execute("SELECT nextval('entry_no_block')")
            row = await cursor.fetchone()
            assert row is not None
            serials.refill(row[0])
        entries.append(serials.take())
    columns = {
        "day": day,
        "entries": entries,
        "originals": [grey.entry_no for grey, _ in verdicts],
        "dates": [grey.business_date for grey, _ in verdicts],
        "verdicts": [verdict for _, verdict in verdicts],
    }
    for step in ("write_verdicts", "use_up_atcs", "use_up_serials", "close_greys"):
        await connection.execute(SQL[step].encode(), columns)


async def _all(
    connection: Connection, name: str, parameters: Mapping[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(SQL[name].encode(), parameters)
    return list(await cursor.fetchall())


async def _one(connection: Connection, name: str) -> tuple[Any, ...]:
    (row,) = await _all(connection, name)
    return row
