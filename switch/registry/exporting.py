"""Export of everybody who takes part, in the form that an import reads: exporting and importing again changes nothing.

Rows stream from server-side cursors, so that half a million cards need no memory. Cards come with full numbers, so they are
written to files only their owner can read, and only when asked for. PINs never come out: there is nothing to take out but
verifiers keyed in this vault. Nor do the numbers of bound bank cards, which rest sealed: an import knows the binding without. Opening figures are the balances of the moment, for a move to another installation.
"""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, TextIO

import orjson
import psycopg
from psycopg import sql

from switch.domain.errors import InputRefused
from switch.registry.import_format import (
    ACCOUNT_KINDS,
    BINDINGS,
    CARD_STATES,
    CARDS,
    FORMAT,
    VERSION,
    Kind,
)
from switch.storage.sql import load

_SQL: Final = load("switch.registry", "importing.sql")
_STORED: Final = {
    CARDS: load("switch.registry", "card_import.sql")["stored_cards"],
    BINDINGS: load("switch.registry", "binding_import.sql")["stored_bindings"],
}

FETCH_ROWS: Final = 5_000
_WORDS: Final = {  # stored numbers back into the words of the files
    "account_kind": {number: name for name, number in ACCOUNT_KINDS.items()},
    "card_state": {number: name for name, number in CARD_STATES.items()},
}

Progress = Callable[[str, int], None]


def export_json(
    connection: psycopg.Connection[Any], stream: TextIO, kinds: Sequence[Kind], progress: Progress
) -> dict[str, int]:
    """Write one document of these kinds; returns the records by kind. Fields without a value are left out."""
    counts: dict[str, int] = {}
    stream.write(f'{{"format": "{FORMAT}", "version": {VERSION}')
    with connection.transaction():
        _one_moment(connection)
        for kind in kinds:
            stream.write(f',\n"{kind.name}": [')
            counts[kind.name] = 0
            for record in _records(connection, kind):
                given = {name: value for name, value in record.items() if value is not None}
                stream.write(("," if counts[kind.name] else "") + "\n" + orjson.dumps(given).decode())
                counts[kind.name] += 1
                if counts[kind.name] % FETCH_ROWS == 0:
                    progress(kind.name, counts[kind.name])
            stream.write("\n]")
    stream.write("\n}\n")
    return counts


def export_csv(
    connection: psycopg.Connection[Any], folder: Path, kinds: Sequence[Kind], progress: Progress
) -> dict[str, int]:
    """Write `<kind>.csv` for each kind into a folder; existing files are replaced when the new one is whole."""
    counts: dict[str, int] = {}
    with connection.transaction():
        _one_moment(connection)
        for kind in kinds:
            names = [column.name for column in kind.stored_columns]
            with PrivateFile(folder / f"{kind.name}.csv") as stream:
                writer = csv.writer(stream)  # lines end in CRLF (RFC 4180)
                writer.writerow(names)
                counts[kind.name] = 0
                for record in _records(connection, kind):
                    writer.writerow([_cell(record[name]) for name in names])
                    counts[kind.name] += 1
                    if counts[kind.name] % FETCH_ROWS == 0:
                        progress(kind.name, counts[kind.name])
    return counts


class PrivateFile:
    """A text file, mode 600, that appears under its name only when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".tmp")

    def __enter__(self) -> TextIO:
        try:
            handle = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise InputRefused(f"{self._path}: cannot be written ({error.strerror})") from error
        os.fchmod(handle, 0o600)
        self._stream = os.fdopen(handle, "w", encoding="utf-8", newline="")
        return self._stream

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._stream.flush()
                os.fsync(self._stream.fileno())
        finally:
            self._stream.close()
            if error is None:
                self._part.replace(self._path)
            else:
                self._part.unlink(missing_ok=True)


def _one_moment(connection: psycopg.Connection[Any]) -> None:
    """All kinds as of one instant, so that references hold."""
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


def _records(connection: psycopg.Connection[Any], kind: Kind) -> Iterator[dict[str, Any]]:
    stored = _STORED.get(kind) or _SQL[f"stored_{kind.name}"]
    names = [column.name for column in kind.stored_columns]
    query = sql.SQL("SELECT {} FROM ({}) s ORDER BY subject").format(
        sql.SQL(", ").join(map(sql.Identifier, names)), sql.SQL(stored)
    )
    with connection.cursor(f"export_{kind.name}") as cursor:
        cursor.itersize = FETCH_ROWS
        cursor.execute(query)
        for row in cursor:
            yield {
                name: _words(kind, name, value.isoformat() if isinstance(value, date) else value)
                for name, value in zip(names, row, strict=True)
            }


def _words(kind: Kind, name: str, value: Any) -> Any:
    if name == "account_kind":
        return _WORDS["account_kind"][value]
    if name == "state" and kind.name == "cards":
        return _WORDS["card_state"][value]
    return value


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value
