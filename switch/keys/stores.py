"""Where key records rest: database tables, or a JSON file for tools and tests. Both hold sealed bytes only."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from switch.domain.errors import ConfigurationError, DatabaseLost, InputRefused
from switch.keys.records import ALGORITHM_IDS, ALGORITHM_LABELS, CeremonyEntry, KeyLevel, KeyRecord, KeyState

VAULT_EXISTS = "there is a vault already; it is not overwritten"

_INSERT_RECORD = """
INSERT INTO key_record (key_name, owner, key_type, key_index, key_version, algorithm, level, state,
                        valid_from, valid_to, kcv, ciphertext, rehearsal)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (key_name) DO UPDATE
   SET state = EXCLUDED.state, valid_from = EXCLUDED.valid_from, valid_to = EXCLUDED.valid_to,
       ciphertext = EXCLUDED.ciphertext
 WHERE key_record.kcv = EXCLUDED.kcv
"""
_INSERT_LOG = "INSERT INTO key_ceremony (action, key_name, operators, kcv) VALUES (%s, %s, %s, %s)"
_UPSERT_META = """
INSERT INTO vault_meta (name, value) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value
"""
_SELECT_RECORDS = """
SELECT key_name, owner, key_type, key_index, key_version, algorithm, level, state,
       valid_from, valid_to, kcv, ciphertext, rehearsal
  FROM key_record
 ORDER BY key_name
"""


class DatabaseKeyStore:
    """Tables `vault_meta`, `key_record` and `key_ceremony`, over a synchronous connection that the caller owns."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
        try:
            with self._connection.transaction(), self._connection.cursor(row_factory=tuple_row) as cursor:
                yield cursor
        except psycopg.OperationalError as error:
            raise DatabaseLost("the database was lost while keys were read or written") from error

    def load_meta(self) -> dict[str, bytes]:
        """Vault-wide values by name; empty when there is no vault yet."""
        with self._transaction() as cursor:
            return dict(cursor.execute("SELECT name, value FROM vault_meta").fetchall())

    def create(
        self, meta: Mapping[str, bytes], records: Iterable[KeyRecord], log: Iterable[CeremonyEntry]
    ) -> None:
        """Write a new vault at once; InputRefused when there is one already."""
        try:
            with self._transaction() as cursor:
                cursor.executemany("INSERT INTO vault_meta (name, value) VALUES (%s, %s)", list(meta.items()))
                _write(cursor, records, log)
        except psycopg.errors.UniqueViolation as error:
            raise InputRefused(VAULT_EXISTS) from error

    def replace_meta(self, meta: Mapping[str, bytes]) -> None:
        """Replace vault-wide values by name, at once."""
        with self._transaction() as cursor:
            cursor.executemany(_UPSERT_META, list(meta.items()))

    def load_all(self) -> list[KeyRecord]:
        """All records, by name."""
        with self._transaction() as cursor:
            return [_record_of(row) for row in cursor.execute(_SELECT_RECORDS)]

    def save(self, records: Iterable[KeyRecord], log: Iterable[CeremonyEntry]) -> None:
        """Insert or replace records and append to the log, all or nothing."""
        with self._transaction() as cursor:
            _write(cursor, records, log)

    def load_log(self) -> list[tuple[datetime, CeremonyEntry]]:
        """The ceremony log, oldest first."""
        with self._transaction() as cursor:
            rows = cursor.execute(
                "SELECT at, action, key_name, operators, kcv FROM key_ceremony ORDER BY ceremony_id"
            )
            return [
                (at, CeremonyEntry(action, name, tuple(who), check)) for at, action, name, who, check in rows
            ]


def _write(
    cursor: psycopg.Cursor[tuple[Any, ...]], records: Iterable[KeyRecord], log: Iterable[CeremonyEntry]
) -> None:
    for record in records:
        if cursor.execute(_INSERT_RECORD, _row_of(record)).rowcount != 1:
            raise InputRefused(f"another ceremony made {record.name} in the meantime; nothing was changed")
    cursor.executemany(
        _INSERT_LOG, [(entry.action, entry.key_name, list(entry.operators), entry.kcv) for entry in log]
    )


def _row_of(record: KeyRecord) -> tuple[Any, ...]:
    algorithm = ALGORITHM_IDS[record.algorithm]
    return (*record[:5], algorithm, record.level.value, record.state.value, *record[8:])


def _record_of(row: tuple[Any, ...]) -> KeyRecord:
    name, owner, key_type, index, version, algorithm, level, state, *rest = row
    label = ALGORITHM_LABELS[algorithm]
    return KeyRecord(name, owner, key_type, index, version, label, KeyLevel(level), KeyState(state), *rest)


class JsonKeyStore:
    """One JSON file, readable by its owner only, replaced as a whole: written aside, synced, renamed.

    For tools and tests, with one writer at a time; a service keeps its keys in the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def _load(self) -> dict[str, Any]:
        try:
            loaded = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {"meta": {}, "keys": [], "log": []}
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{self._path}: not a readable key file") from error
        if not isinstance(loaded, dict) or loaded.keys() != {"meta", "keys", "log"}:
            raise ConfigurationError(f"{self._path}: not a key file")
        return loaded

    def _save(self, content: dict[str, Any]) -> None:
        aside = self._path.with_name(self._path.name + ".tmp")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # or a power cut may bring the old file back
        finally:
            os.close(folder)

    def load_meta(self) -> dict[str, bytes]:
        """Vault-wide values by name; empty when there is no vault yet."""
        return {name: bytes.fromhex(value) for name, value in self._load()["meta"].items()}

    def create(
        self, meta: Mapping[str, bytes], records: Iterable[KeyRecord], log: Iterable[CeremonyEntry]
    ) -> None:
        """Write a new vault at once; InputRefused when there is one already."""
        content = self._load()
        if content["meta"]:
            raise InputRefused(VAULT_EXISTS)
        content["meta"] = {name: value.hex() for name, value in meta.items()}
        self._save(_with(content, records, log))

    def replace_meta(self, meta: Mapping[str, bytes]) -> None:
        """Replace vault-wide values by name, at once."""
        content = self._load()
        content["meta"] |= {name: value.hex() for name, value in meta.items()}
        self._save(content)

    def load_all(self) -> list[KeyRecord]:
        """All records, by name."""
        return sorted(
            (_record_from_json(entry) for entry in self._load()["keys"]), key=lambda record: record.name
        )

    def save(self, records: Iterable[KeyRecord], log: Iterable[CeremonyEntry]) -> None:
        """Insert or replace records and append to the log, all or nothing."""
        self._save(_with(self._load(), records, log))

    def load_log(self) -> list[tuple[datetime, CeremonyEntry]]:
        """The ceremony log, oldest first."""
        return [
            (
                datetime.fromisoformat(entry["at"]),
                CeremonyEntry(
                    entry["action"],
                    entry["key_name"],
                    tuple(entry["operators"]),
                    None if entry["kcv"] is None else bytes.fromhex(entry["kcv"]),
                ),
            )
            for entry in self._load()["log"]
        ]


def _with(
    content: dict[str, Any], records: Iterable[KeyRecord], log: Iterable[CeremonyEntry]
) -> dict[str, Any]:
    """The content with records inserted or replaced and log lines added."""
    keys = {entry["name"]: entry for entry in content["keys"]}
    keys |= {record.name: _record_to_json(record) for record in records}
    now = datetime.now(UTC).isoformat()
    lines = [
        entry._asdict() | {"at": now, "kcv": None if entry.kcv is None else entry.kcv.hex()} for entry in log
    ]
    return content | {"keys": list(keys.values()), "log": content["log"] + lines}


def _record_to_json(record: KeyRecord) -> dict[str, Any]:
    plain: dict[str, Any] = {
        name: value.hex() if isinstance(value, bytes) else value for name, value in record._asdict().items()
    }
    return plain | {
        "level": record.level.value,
        "state": record.state.value,
        "valid_from": record.valid_from and record.valid_from.isoformat(),
        "valid_to": record.valid_to and record.valid_to.isoformat(),
    }


def _record_from_json(entry: dict[str, Any]) -> KeyRecord:
    moments = {
        name: entry[name] and datetime.fromisoformat(entry[name]) for name in ("valid_from", "valid_to")
    }
    return KeyRecord(
        **entry
        | moments
        | {
            "level": KeyLevel(entry["level"]),
            "state": KeyState(entry["state"]),
            "kcv": bytes.fromhex(entry["kcv"]),
            "ciphertext": bytes.fromhex(entry["ciphertext"]),
        }
    )
