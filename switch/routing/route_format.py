"""The routing table as operators write it: a CSV file, read into rows or faults, and written again in one spelling.

Columns and their readers are data, as in the registry's files. Nothing here knows who exists: see route_check.py.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

from switch.domain.circles import Circle
from switch.domain.money import FIELD4_MAX
from switch.domain.transactions import AccountKind, Kind
from switch.registry.import_files import Fault, Faults
from switch.registry.import_format import day, merchant_id, shape, text, whole
from switch.routing.destinations import DIGITS, REFUSALS, Destination, Row, Way, interval_of

ROWS_MAX: Final = 10_000
FILE_BYTES_MAX: Final = 4 * 1024 * 1024  # as in the table's constraint
RANGES_MAX: Final = 50  # of cards, in one row
DESTINATIONS_MAX: Final = 8

KINDS: Final = {  # those that name no original: a void or refund goes where its original went
    kind.name: int(kind) for kind in (Kind.PURCHASE, Kind.BALANCE, Kind.PRE_AUTHORISATION, Kind.LOAD)
}
ACCOUNTS: Final = {kind.name: int(kind) for kind in AccountKind}
CIRCLES: Final = {circle.name: circle for circle in Circle}

_DIGITS: Final = re.compile(f"([0-9]{{1,{DIGITS}}})(?:-([0-9]{{1,{DIGITS}}}))?", re.ASCII).fullmatch
_HOURS: Final = re.compile("([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})", re.ASCII).fullmatch
_HOST: Final = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,31}", re.ASCII).fullmatch
_CITY: Final = re.compile("[0-9]{8}", re.ASCII).fullmatch


def _cards(cell: str) -> tuple[tuple[int, int], ...]:
    parts = cell.split(" ", RANGES_MAX)
    found = [_DIGITS(part) for part in parts]
    if len(parts) > RANGES_MAX or None in found:
        raise ValueError(
            f"must be leading digits or ranges like 622200-622299, 1 to {DIGITS} digits, at most {RANGES_MAX}"
        )
    ranges = []
    for low, high in (match.groups() for match in found if match is not None):
        if high is not None and (len(high) != len(low) or high < low):
            raise ValueError("a range must have ends of equal length, the lower first")
        ranges.append(interval_of(low, high or ""))
    apart: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if apart and begin <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(end, apart[-1][1]))
        else:
            apart.append((begin, end))
    return tuple(apart)


def _words(known: Mapping[str, Any]) -> Callable[[str], frozenset[Any]]:
    rule = "must be one or more of " + ", ".join(known) + ", a blank between them"

    def read(cell: str) -> frozenset[Any]:
        words = cell.split(" ", len(known))
        if len(words) != len(set(words)) or not known.keys() >= set(words):
            raise ValueError(rule)
        return frozenset(known[word] for word in words)

    return read


def _span(most: int, digits: int, rule: str) -> Callable[[str], tuple[int, int]]:
    number = whole(0, most)

    def read(cell: str) -> tuple[int, int]:
        low, hyphen, high = cell.partition("-")
        try:
            begin = number(low) if low else 0
            end = number(high) if high else (most if hyphen else begin)
        except ValueError:
            raise ValueError(rule) from None
        assert isinstance(begin, int)
        assert isinstance(end, int)
        if cell == "-" or end < begin or (digits and {len(part) for part in (low, high) if part} != {digits}):
            raise ValueError(rule)
        return begin, end

    return read


def _hours(cell: str) -> tuple[int, int]:
    match = _HOURS(cell)
    if match is not None:
        hour, minute, end_hour, end_minute = map(int, match.groups())
        begin, end = hour * 60 + minute, end_hour * 60 + end_minute
        if hour < 24 and minute < 60 and end_minute < 60 and end <= 24 * 60 and begin != end:
            return begin, end
    raise ValueError("must be hours like 08:00-22:00 in Shanghai; 22:00-06:00 goes over midnight")


def _day(cell: str) -> date:
    return date.fromisoformat(str(day(cell)))


def _destinations(cell: str) -> tuple[Destination, ...]:
    parts = cell.split(">", DESTINATIONS_MAX)
    if len(parts) > DESTINATIONS_MAX:
        raise ValueError(f"must name at most {DESTINATIONS_MAX} destinations")
    found = tuple(_destination(part.strip(" ")) for part in parts)
    if len(set(found)) != len(found):
        raise ValueError("names the same destination twice")
    if any(not one.linked for one in found[:-1]):
        raise ValueError("nothing can follow LEDGER or REFUSE: they always answer")
    return found


def _destination(word: str) -> Destination:
    way, _, name = word.partition(":")
    if word == Way.LEDGER.value:
        return Destination(Way.LEDGER)
    if way == Way.HOST.value and _HOST(name):
        return Destination(Way.HOST, name)
    if way == Way.CITY.value and _CITY(name):
        return Destination(Way.CITY, name)
    if way == Way.REFUSE.value and name in REFUSALS:
        return Destination(Way.REFUSE, name)
    codes = ", ".join(f"REFUSE:{code}" for code in REFUSALS)
    raise ValueError(f"must be LEDGER, HOST:name, CITY:institution id, or {codes}; with > between them")


class Column(NamedTuple):
    """A column of the file, the attribute of Row that it fills, and how a cell is read."""

    name: str
    attribute: str
    read: Callable[[str], Any]


COLUMNS: Final = (
    Column("precedence", "precedence", whole(1, 999_999_999)),
    Column("cards", "cards", _cards),
    Column("issuer", "issuer", shape("[0-9A-F]{16}", "16 hexadecimal digits, letters in upper case")),
    Column("scope", "circles", _words(CIRCLES)),
    Column("account", "accounts", _words(ACCOUNTS)),
    Column("type", "kinds", _words(KINDS)),
    Column("merchant", "merchant", merchant_id),
    Column("category", "category", _span(9_999, 4, "must be 4 digits, or a range like 5400-5499")),
    Column(
        "amount_fen",
        "amount_fen",
        _span(FIELD4_MAX, 0, "must be a range of fen like 1-50000, 50001- or -100"),
    ),
    Column("hours", "minutes", _hours),
    Column("valid_from", "valid_from", _day),
    Column("valid_to", "valid_to", _day),
    Column("to", "to", _destinations),
    Column("note", "", text(100)),
)
NAMES: Final = tuple(column.name for column in COLUMNS)
REQUIRED: Final = ("precedence", "to")


def read_file(path: Path, faults: Faults) -> list[Row]:
    """The rows of a file; what cannot be read goes to `faults`. Never reads more than FILE_BYTES_MAX."""
    name = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        faults.add(Fault(name, "", "", f"cannot be read ({error.strerror})"))
        return []
    if len(data) > FILE_BYTES_MAX:
        faults.add(Fault(name, "", "", f"is longer than {FILE_BYTES_MAX >> 20} MiB"))
        return []
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        faults.add(Fault(name, "", "", "must be UTF-8 text"))
        return []
    return read_rows(content, name, faults)


def read_rows(content: str, name: str, faults: Faults) -> list[Row]:
    """The rows of a table's text, as read_file."""
    rows: list[Row] = []
    lines: dict[int, int] = {}
    for line, record in _records(content, name, faults):
        if len(rows) == ROWS_MAX:
            faults.add(Fault(name, f"line {line}", "", f"a table has at most {ROWS_MAX} rows"))
            break
        wrong: list[tuple[str, str]] = []
        row = _row(record, wrong)
        if row is not None:
            first = lines.setdefault(row.precedence, line)
            if first != line:
                wrong.append(("precedence", f"is that of line {first} too"))
        for field, rule in wrong:
            faults.add(Fault(name, f"line {line}", field, rule))
        if row is not None and not wrong:
            rows.append(row)
        if faults.more:
            break
    return rows


def _records(content: str, name: str, faults: Faults) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header) or not set(NAMES) >= set(header) >= set(REQUIRED):
            rule = f"must name {' and '.join(REQUIRED)}, and otherwise only " + ", ".join(NAMES)
            faults.add(Fault(name, "line 1", "", rule))
            return
        for cells in reader:
            if len(cells) == len(header):
                yield reader.line_num, dict(zip(header, cells, strict=True))
            elif cells:  # an empty line is no row
                faults.add(
                    Fault(name, f"line {reader.line_num}", "", "must have as many cells as the header")
                )
                if faults.more:
                    return
    except csv.Error:
        faults.add(Fault(name, f"line {reader.line_num}", "", "is no CSV (RFC 4180): look for a stray quote"))


def _row(record: dict[str, str], wrong: list[tuple[str, str]]) -> Row | None:
    """A row, or None with what is wrong."""
    values: dict[str, Any] = {}
    for column in COLUMNS:
        cell = record.get(column.name, "")
        if not cell:
            if column.name in REQUIRED:
                wrong.append((column.name, "is missing"))
            continue
        try:
            value = column.read(cell)
        except ValueError as error:
            wrong.append((column.name, str(error)))
        else:
            if column.attribute:
                values[column.attribute] = value
    if wrong:
        return None
    cells = (str(values["precedence"]), *(record.get(column, "") for column in NAMES[1:]))
    row = Row(**values, cells=cells)
    if row.valid_from is not None and row.valid_to is not None and row.valid_to < row.valid_from:
        wrong.append(("valid_to", "must not be before valid_from"))
    return row


def written(rows: Iterable[Row]) -> str:
    """The text of a table, in the order of precedence: the same rows give the same text, however they were written."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(NAMES)
    writer.writerows(row.cells for row in sorted(rows, key=lambda row: row.precedence))
    return out.getvalue()
