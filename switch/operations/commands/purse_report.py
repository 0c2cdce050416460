"""A day's report of completeness as CSV: one line for each device and hole, readable by a depot's spreadsheet."""

import csv
import io
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Final

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.purse.completeness import Came, Missing

COLUMNS: Final = (
    "business_date",
    "as_of",
    "counter",
    "device",
    "merchant",
    "records_that_day",
    "taken_that_day",
    "of_earlier_days",
    "first",
    "last",
    "expected",
    "received",
    "missing",
    "missing_from",
    "missing_to",
    "missing_count",
    "missing_since",
    "days",
    "damaged",
)


def report_lines(
    day: date, found: Missing, came: Mapping[tuple[int, int], Came], merchants: Collection[str] = ()
) -> list[str]:
    """The header and the lines. merchants: only their devices; without any: all. Numbers of cards are in none of them."""
    holes: dict[tuple[int, int], list[Sequence[object]]] = {}
    damaged: dict[int, list[int]] = {}
    for piece in found.damaged:
        damaged.setdefault(piece.terminal_no, []).append(piece.serial)
    for gap in found.gaps:
        serials = damaged.get(gap.owner, []) if gap.kind.name == "record_serial" else []
        inside = sum(gap.lowest <= serial <= gap.highest for serial in serials)
        since = gap.opened_at.astimezone(SHANGHAI)
        hole = (
            gap.lowest,
            gap.highest,
            gap.size,
            f"{since:%Y-%m-%d}",
            (found.now - gap.opened_at).days,
            inside,
        )
        holes.setdefault((gap.kind.number, gap.owner), []).append(hole)
    as_of = f"{found.now.astimezone(SHANGHAI):%Y-%m-%d %H:%M:%S}"
    rows: list[Sequence[object]] = [COLUMNS]
    for one in found.counters:
        owner = found.owner(one.kind, one.owner)
        if merchants and owner.merchant_id not in merchants:
            continue
        brought = came.get((one.kind.number, one.owner), Came(0, 0, 0))
        head = (
            *(day, as_of, one.kind.name, owner.name, owner.merchant_id, *brought),
            *(one.first_no, one.next_no - 1, one.expected, one.received, one.missing),
        )
        rows += [(*head, *each) for each in holes.get((one.kind.number, one.owner), [("",) * 6])]
    lines = []
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow(row)
        lines.append(line.getvalue())
    return lines


def write_report(folder: Path, day: date, lines: Sequence[str]) -> Path:
    """Write the whole file or nothing: beside its name, forced out, renamed. InputRefused when the folder refuses."""
    path = folder / f"missing-{day:%Y%m%d}.csv"
    beside = path.with_suffix(".csv.tmp")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise InputRefused(f"folder: {error.strerror or error}") from error
    return path
