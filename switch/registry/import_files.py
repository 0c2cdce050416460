"""Reading import files: JSON documents and CSV tables become records, or faults that name file, place, field and rule.

A CSV file holds one kind of record, named by the file's name (`cards.csv`, `cards-2026-03.csv`), and is read row by row
however long it is. A JSON document holds any kinds; it is read as a whole, so its size is bounded.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from switch.domain.errors import InputRefused
from switch.registry.import_format import BY_NAME, FORMAT, VERSION, Kind, Record

FAULTS_MAX: Final = 100
JSON_BYTES_MAX: Final = 64 * 1024 * 1024


class Fault(NamedTuple):
    """One thing wrong. Never holds the value that was found."""

    file: str
    place: str  # "line 7" of CSV, "cards[6]" of JSON, counted from 0
    field: str
    rule: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


class ImportRefused(InputRefused):
    """The files break rules; nothing was changed. `more`: reading stopped at FAULTS_MAX faults."""

    def __init__(self, faults: Sequence[Fault], *, more: bool) -> None:
        self.faults = tuple(faults)
        self.more = more
        count = f"{len(self.faults)}{' or more' if more else ''}"
        super().__init__(f"import refused, nothing was changed: {count} fault{'' if count == '1' else 's'}")


class Faults:
    """Collects faults up to FAULTS_MAX; `kinds` are the kinds of which a record could not be read."""

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self.kinds: set[str] = set()
        self.more = False

    def add(self, fault: Fault) -> None:
        """Keep it; beyond the bound only the fact that there are more."""
        if len(self.found) < FAULTS_MAX:
            self.found.append(fault)
        else:
            self.more = True

    def refuse_if_any(self) -> None:
        """Raise ImportRefused when there are any."""
        if self.found:
            raise ImportRefused(self.found, more=self.more)


class Source(NamedTuple):
    """An import file; faults name it as the operator did."""

    path: Path

    @property
    def is_json(self) -> bool:
        """By its suffix."""
        return self.path.suffix.lower() == ".json"

    def place(self, kind: Kind, number: int) -> str:
        """Where record `number` (as read_files numbers them) stands."""
        return f"{kind.name}[{number}]" if self.is_json else f"line {number}"

    def fault(self, place: str, field: str, rule: str) -> Fault:
        """A fault in this file."""
        return Fault(str(self.path), place, field, rule)


class Row(NamedTuple):
    """A record and where it stands: index of the file, line (CSV) or index (JSON)."""

    kind: Kind
    file_no: int
    number: int
    record: Record


def read_files(sources: Sequence[Source], faults: Faults) -> Iterator[Row]:
    """Every readable record of every file, in order; what cannot be read goes to `faults`.

    Ends early once there are more faults than are reported.
    """
    for file_no, source in enumerate(sources):
        for kind, number, raw in _raw_records(source, faults):
            record = read_record(kind, source, number, raw, faults)
            if record is not None:
                yield Row(kind, file_no, number, record)
            if faults.more:
                return


def _raw_records(source: Source, faults: Faults) -> Iterator[tuple[Kind, int, Mapping[str, object]]]:
    try:
        if source.is_json:
            yield from _json_records(source, faults)
        elif source.path.suffix.lower() == ".csv":
            yield from _csv_records(source, faults)
        else:
            faults.add(source.fault("", "", "the name must end in .json or .csv"))
    except UnicodeDecodeError:
        faults.add(source.fault("", "", "must be UTF-8 text"))
    except OSError as error:
        faults.add(source.fault("", "", f"cannot be read ({error.strerror})"))


def _csv_records(source: Source, faults: Faults) -> Iterator[tuple[Kind, int, Mapping[str, object]]]:
    name = source.path.stem.partition("-")[0]
    kind = BY_NAME.get(name)
    if kind is None:
        faults.add(source.fault("", "", "the name must begin with one of " + ", ".join(BY_NAME)))
        return
    with source.path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream, strict=True)
        try:
            header = next(rows, [])
            if not _header_holds(source, kind, header, faults):
                faults.kinds.add(kind.name)
                return
            for cells in rows:
                if len(cells) == len(header):
                    yield kind, rows.line_num, dict(zip(header, cells, strict=True))
                elif cells:  # an empty line is no row
                    faults.kinds.add(kind.name)
                    faults.add(
                        source.fault(f"line {rows.line_num}", "", "must have as many cells as the header")
                    )
        except csv.Error:
            faults.kinds.add(kind.name)
            faults.add(
                source.fault(f"line {rows.line_num}", "", "is no CSV (RFC 4180): look for a stray quote")
            )


def _header_holds(source: Source, kind: Kind, header: Sequence[str], faults: Faults) -> bool:
    names = {column.name for column in kind.columns}
    before = len(faults.found)
    for number, name in enumerate(header):
        if name not in names:
            faults.add(
                source.fault("line 1", f"column {number + 1}", "is unknown; known are " + ", ".join(names))
            )
        elif name in header[:number]:
            faults.add(source.fault("line 1", name, "is given twice"))
    for column in kind.columns:
        if column.required and column.name not in header:
            faults.add(source.fault("line 1", column.name, "is missing"))
    return len(faults.found) == before and not faults.more


class _JsonRuleError(ValueError):
    """The document breaks a rule of JSON that Python's reader would let pass."""


class _NotWhole:
    """Stands for a number that is no whole one; every reader refuses it."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _JsonRuleError("an object names a field twice")
    return found


def _no_constant(_: str) -> NoReturn:
    raise _JsonRuleError("NaN and Infinity are no JSON")


def _json_records(source: Source, faults: Faults) -> Iterator[tuple[Kind, int, Mapping[str, object]]]:
    if source.path.stat().st_size > JSON_BYTES_MAX:
        faults.add(source.fault("", "", f"JSON is taken up to {JSON_BYTES_MAX >> 20} MiB; use CSV for more"))
        return
    try:
        document = json.loads(
            source.path.read_text(encoding="utf-8-sig"),
            object_pairs_hook=_pairs,
            parse_float=lambda _: _NotWhole(),
            parse_constant=_no_constant,
        )
    except json.JSONDecodeError as error:
        faults.add(source.fault(f"line {error.lineno}", "", "is no JSON"))
        return
    except _JsonRuleError as error:
        faults.add(source.fault("", "", str(error)))
        return
    except (RecursionError, ValueError):  # nesting, or a number of thousands of digits
        faults.add(source.fault("", "", "is no JSON that this format allows"))
        return
    if (
        not isinstance(document, dict)
        or document.get("format") != FORMAT
        or document.get("version") != VERSION
    ):
        faults.add(
            source.fault("", "format", f'must be an object with "format": "{FORMAT}", "version": {VERSION}')
        )
        return
    for name, records in document.items():
        if name in ("format", "version", "note"):
            continue
        kind = BY_NAME.get(name)
        if kind is None:
            faults.add(source.fault("", "", "has an unknown field; known are " + ", ".join(BY_NAME)))
        elif not isinstance(records, list):
            faults.kinds.add(name)
            faults.add(source.fault(name, "", "must be a list"))
        else:
            for number, raw in enumerate(records):
                if isinstance(raw, dict):
                    yield kind, number, raw
                else:
                    faults.kinds.add(name)
                    faults.add(source.fault(f"{name}[{number}]", "", "must be an object"))


def read_record(
    kind: Kind, source: Source, number: int, raw: Mapping[str, object], faults: Faults
) -> Record | None:
    """One record from its raw values, or None with its faults. number: as in Source.place."""
    record: Record = {}
    wrong: list[tuple[str, str]] = []
    known = 0
    for column in kind.columns:
        name = column.name
        value = raw.get(name)
        known += name in raw
        if value is None or value == "":
            record[name] = column.default
            if column.required:
                wrong.append((name, "is missing"))
            continue
        try:
            record[name] = column.read(value)
        except ValueError as error:
            wrong.append((name, str(error)))
    if known != len(raw):
        wrong.append(
            ("", "has an unknown field; known are " + ", ".join(column.name for column in kind.columns))
        )
    if not wrong:
        wrong.extend(broken for rule in kind.rules if (broken := rule(record)) is not None)
    if not wrong:
        return record
    faults.kinds.add(kind.name)
    for field, rule_text in wrong:
        faults.add(source.fault(source.place(kind, number), field, rule_text))
    return None
