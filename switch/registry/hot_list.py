"""The hot list 黑名單 as operators keep it: changes are drawn into a draft, and a draft becomes the next version whole or not at all.

A loss report never enters it (Article 21): there is no reason that would name one, and a card of ours is listed as replaced or cancelled
only when it is.
"""

import csv
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg

from switch.domain.errors import InputRefused
from switch.messages.hot_list import LEVEL_MAX
from switch.messages.list_blocks import LIST_ENTRIES_MAX
from switch.messages.structures import HOT_LIST_ENTRIES_MAX
from switch.registry.list_rollout import Plan, begin, begin_back, newest_of, require_finished
from switch.storage.sql import load

_SQL = load("switch.registry", "hot_list.sql")

Connection = psycopg.Connection[tuple[Any, ...]]

LINE_MAX: Final = 9_999 * HOT_LIST_ENTRIES_MAX  # by 0800/390: four digits of block number
FILE_BYTES_MAX: Final = 64 * 1024 * 1024
LISTED_FAULTS_MAX: Final = 20
COLUMNS: Final = ("operation", "asn", "level", "reason")
REASONS: Final = ("COUNTERFEIT", "REPLACED", "CANCELLED", "KEY_COMPROMISED", "WRONG_STOCK")


class Draw(NamedTuple):
    """One line of a file. level None: off the list."""

    line: int
    asn: str
    level: int | None
    reason: str | None


class Draft(NamedTuple):
    """What the next version would add and remove; a card whose level changes is in both."""

    added: int
    removed: int


class Version(NamedTuple):
    """A published version. entries: how many cards it lists."""

    version: int
    published_at: datetime
    actor: str
    entries: int
    added: int
    removed: int


def read_file(path: Path) -> list[Draw]:
    """Lines `operation,asn,level,reason` below such a head. InputRefused names lines and rules, never a card."""
    if path.stat().st_size > FILE_BYTES_MAX:
        raise InputRefused(f"{path.name}: larger than {FILE_BYTES_MAX // 1024 // 1024} MiB")
    faults: list[str] = []
    found: dict[str, Draw] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = csv.reader(stream, strict=True)
            if tuple(next(lines, ())) != COLUMNS:
                raise InputRefused(f"{path.name}: the first line is not {','.join(COLUMNS)}")
            for row in lines:
                try:
                    _keep(found, _draw(lines.line_num, row))
                except InputRefused as fault:
                    faults.append(f"line {lines.line_num}: {fault}")
                    if len(faults) > LISTED_FAULTS_MAX:
                        break
    except (UnicodeDecodeError, csv.Error):
        raise InputRefused(f"{path.name}: not CSV in UTF-8") from None
    _refuse(path, faults)
    return list(found.values())


def _draw(line: int, row: list[str]) -> Draw:
    if len(row) != len(COLUMNS):
        raise InputRefused(f"{len(COLUMNS)} values are wanted")
    operation, asn, level, reason = row
    if not (len(asn) == 20 and asn.isascii() and asn.isdecimal()):
        raise InputRefused("asn: 20 digits are wanted")
    if operation == "D":
        if level or reason:
            raise InputRefused("level, reason: a card that comes off the list has none")
        return Draw(line, asn, None, None)
    if operation != "A":
        raise InputRefused("operation: neither A nor D")
    if level not in {f"{number:02d}" for number in range(LEVEL_MAX + 1)}:
        raise InputRefused("level: neither 00 nor 01")
    if reason not in REASONS:
        raise InputRefused(f"reason: none of {', '.join(REASONS)}; a loss report is no reason")
    return Draw(line, asn, int(level), reason)


def _keep(found: dict[str, Draw], draw: Draw) -> None:
    if found.setdefault(draw.asn, draw) is not draw:
        raise InputRefused("the card is named twice")


def _refuse(path: Path, faults: list[str]) -> None:
    if faults:
        shown = "; ".join(faults[:LISTED_FAULTS_MAX])
        more = "; and more" if len(faults) > LISTED_FAULTS_MAX else ""
        raise InputRefused(f"{path.name}: {shown}{more}")


def import_draft(connection: Connection, path: Path, actor: str, *, full: bool = False) -> Draft:
    """Take a file into the draft, on top of what is there. full: the file is the whole list, and the draft becomes what leads to it.

    The same file again changes nothing. connection: not in a transaction.
    """
    draws = read_file(path)
    if full and any(draw.level is None for draw in draws):
        raise InputRefused(f"{path.name}: a full list takes nothing off")
    columns = {
        "asns": [draw.asn for draw in draws],
        "levels": [draw.level for draw in draws],
        "reasons": [draw.reason for draw in draws],
        "actor": actor,
    }
    with connection.transaction():
        _run(connection, "lock_hot_list")
        places = _rows(connection, "not_ours_to_list", **columns, most=LISTED_FAULTS_MAX + 1)
        rule = "reason: the card is neither replaced nor cancelled; a lost one stays off the list"
        _refuse(path, [f"line {draws[place - 1].line}: {rule}" for (place,) in places])
        if full:
            _run(connection, "clear_draft")
            _run(connection, "draft_removals", actor=actor)
        _run(connection, "draft", **columns)
        _run(connection, "drop_idle_draft")
        return draft_of(connection)


def draft_of(connection: Connection) -> Draft:
    """What waits to be published."""
    return Draft(*_rows(connection, "count_draft")[0])


def publish(
    connection: Connection, actor: str, plan: Plan | None = None, *, beyond_line: bool = False
) -> Version | None:
    """Make the draft the next version; None when it would change nothing. Serving processes hear of it at the commit.

    plan: how it is rolled out; at once to everybody by default. beyond_line: it may be longer than terminals that fetch it by 0800/390
    can be sent.
    """
    with connection.transaction():
        _run(connection, "lock_hot_list")
        before = require_finished(connection, "HOT")
        _run(connection, "drop_idle_draft")
        draft = draft_of(connection)
        if draft == (0, 0):
            return None
        newest, entries = _rows(connection, "newest")[0]
        made = {"version": newest + 1, "entries": entries + draft.added - draft.removed}
        most = LIST_ENTRIES_MAX if beyond_line else LINE_MAX
        if made["entries"] > most:
            raise InputRefused(f"the list would be longer than {most} cards")
        _run(connection, "add_version", **made, added=draft.added, removed=draft.removed, actor=actor)
        _run(connection, "end_entries", version=made["version"])
        _run(connection, "begin_entries", version=made["version"])
        _run(connection, "clear_draft")
        # Serving processes are told: every terminal's entry says what it needs.
        begin(connection, "HOT", made["version"], plan or Plan(), actor, before=before)
        return newest_versions(connection, 1)[0]


def roll_back(connection: Connection, actor: str) -> Version:
    """Publish what was in force before the newest version, as the next one, to everybody at once. The draft stays.

    InputRefused when there is nothing before it.
    """
    with connection.transaction():
        _run(connection, "lock_hot_list")
        connection.execute(b"LOCK TABLE list_rollout IN SHARE ROW EXCLUSIVE MODE")
        before = newest_of(connection, "HOT")
        if not before.version:
            raise InputRefused("there is no version to take back")
        base = before.version - 1 if before.previous is None else before.previous
        made = {"version": before.version + 1, "base": base, "newest": before.version}
        added, removed, entries = _rows(connection, "count_back", **made)[0]
        figures = {"version": made["version"], "entries": entries, "added": added, "removed": removed}
        _run(connection, "add_version", **figures, actor=actor)
        _run(connection, "end_back", **made)
        _run(connection, "begin_back", **made)
        begin_back(connection, "HOT", made["version"], actor, before=before, base=base)
        return newest_versions(connection, 1)[0]


def discard(connection: Connection) -> None:
    """Forget the draft."""
    with connection.transaction():
        _run(connection, "lock_hot_list")
        _run(connection, "clear_draft")


def newest_versions(connection: Connection, most: int) -> list[Version]:
    """The newest versions, the last one first."""
    return [Version(*row) for row in _rows(connection, "versions", most=most)]


def listed(connection: Connection) -> Iterable[tuple[str, int, str, int]]:
    """ASN, level, reason and first version of every card on the newest list."""
    return ((asn, level, reason, since) for asn, level, reason, since in _rows(connection, "listed"))


def _run(connection: Connection, name: str, **values: Any) -> None:
    connection.execute(_SQL[name].encode(), values)


def _rows(connection: Connection, name: str, **values: Any) -> list[tuple[Any, ...]]:
    return connection.execute(_SQL[name].encode(), values).fetchall()
