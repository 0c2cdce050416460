"""Whose cards a terminal takes 白名單: issuers whose purses may pay, and cities, ours or interoperable. Kept as a file, published whole."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg

from switch.domain.errors import InputRefused
from switch.registry.list_rollout import SQL, Plan, begin, begin_back, newest_of, require_finished

Connection = psycopg.Connection[tuple[Any, ...]]

COLUMNS: Final = ("what", "value", "use")
FILE_BYTES_MAX: Final = 1024 * 1024
ENTRIES_MAX: Final = 10_000
USES: Final = {"own": 0, "interop": 1}
_DIGITS: Final = {"issuer": (16, "0123456789ABCDEF"), "city": (4, "0123456789")}
_WHAT: Final = {"issuer": "I", "city": "C"}


class Entry(NamedTuple):
    """what: I an issuer id, C a city code. use: 0 our own, 1 interoperable."""

    what: str
    value: str
    use: int


def read_file(path: Path) -> list[Entry]:
    """Lines `issuer|city,value,own|interop` below such a head, the whole list. InputRefused names the line and the rule."""
    if path.stat().st_size > FILE_BYTES_MAX:
        raise InputRefused(f"{path.name}: larger than {FILE_BYTES_MAX // 1024} KiB")
    found: dict[tuple[str, str], Entry] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = csv.reader(stream, strict=True)
            if tuple(next(lines, ())) != COLUMNS:
                raise InputRefused(f"{path.name}: the first line is not {','.join(COLUMNS)}")
            for row in lines:
                entry = _entry(f"{path.name}: line {lines.line_num}", row)
                if found.setdefault(entry[:2], entry) is not entry:
                    raise InputRefused(f"{path.name}: line {lines.line_num}: named twice")
                if len(found) > ENTRIES_MAX:
                    raise InputRefused(f"{path.name}: more than {ENTRIES_MAX} entries")
    except (UnicodeDecodeError, csv.Error):
        raise InputRefused(f"{path.name}: not CSV in UTF-8") from None
    if not any(entry.what == "I" for entry in found.values()):
        raise InputRefused(f"{path.name}: no issuer is left, and every terminal would refuse every card")
    return list(found.values())


def _entry(where: str, row: Sequence[str]) -> Entry:
    if len(row) != len(COLUMNS):
        raise InputRefused(f"{where}: {len(COLUMNS)} values are wanted")
    what, value, use = row
    if what not in _DIGITS:
        raise InputRefused(f"{where}: what: neither issuer nor city")
    size, digits = _DIGITS[what]
    if len(value) != size or any(digit not in digits for digit in value):
        raise InputRefused(f"{where}: value: an issuer id has 16 hex digits, a city code 4 digits")
    if use not in USES:
        raise InputRefused(f"{where}: use: neither own nor interop")
    return Entry(_WHAT[what], value, USES[use])


def publish(
    connection: Connection, entries: Sequence[Entry], actor: str, plan: Plan | None = None
) -> int | None:
    """Make these the next version, the whole list; None when they change nothing. connection: not in a transaction."""
    with connection.transaction():
        before = require_finished(connection, "CITY")
        now = {Entry(*row) for row in connection.execute(SQL["city_entries"].encode())}
        if now == set(entries):
            return None
        version = _write(connection, before.version + 1, entries, actor)
        begin(connection, "CITY", version, plan or Plan(), actor, before=before)
        return version


def roll_back(connection: Connection, actor: str) -> int:
    """Publish what was in force before the newest version, as the next one, to everybody at once; its number."""
    with connection.transaction():
        connection.execute(SQL["lock_lists"].encode())
        before = newest_of(connection, "CITY")
        if not before.previous:
            raise InputRefused("there is no version to take back")
        rows = connection.execute(SQL["city_entries_at"].encode(), {"version": before.previous})
        version = _write(connection, before.version + 1, [Entry(*row) for row in rows], actor)
        begin_back(connection, "CITY", version, actor, before=before, base=before.previous)
        return version


def _write(connection: Connection, version: int, entries: Sequence[Entry], actor: str) -> int:
    made = {"kind": "CITY", "version": version, "actor": actor, "entries": len(entries), "through": None}
    connection.execute(SQL["add_list_version"].encode(), made)
    columns = {
        "version": version,
        "whats": [entry.what for entry in entries],
        "values": [entry.value for entry in entries],
        "usages": [entry.use for entry in entries],
    }
    connection.execute(SQL["end_city_entries"].encode(), columns)
    connection.execute(SQL["begin_city_entries"].encode(), columns)
    return version


def listed(connection: Connection) -> list[Entry]:
    """The newest list."""
    return [Entry(*row) for row in connection.execute(SQL["city_entries"].encode())]
