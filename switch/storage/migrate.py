"""The schema's versions: numbered SQL files, applied in order, each whole or not at all, with a note in the database.

yoyo keeps the notes. Three habits differ from its own, and are why its pieces are put together here: a file is sent to the
server as it stands (no splitting at semicolons, so functions may hold any), a file and its note are one transaction (a kill
in between leaves neither), and an advisory lock instead of a lock row keeps a second process waiting (a kill leaves no lock
behind).

A file once released is never edited: what it should have said comes in the next number.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from switch.domain.errors import ConfigurationError, DependencyError, InputRefused
from switch.storage.pool import connect_now, is_lost, translated

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_WAIT_S = 120
_LOCK = 0x63617264  # advisory lock key, "card": one migration at a time per database
_NOTES = "_yoyo_migration"  # yoyo's table of applied migrations
_FILE_NAME = re.compile(r"^[0-9]{4}_[a-z0-9_]+$")
_DEPENDS = re.compile(r"^-- depends: *(.*)$", re.MULTILINE)


def known(folder: Path = MIGRATIONS) -> Mapping[str, str]:
    """Names and texts of the migrations of this version, in the order of their numbers.

    ConfigurationError: a name is not of the form 0001_words, a number stands twice, or a `-- depends:` line names a file that
    is not before its own.
    """
    texts: dict[str, str] = {}
    for file in sorted(folder.glob("*.sql")):
        if not _FILE_NAME.match(file.stem):
            raise ConfigurationError(f"migration {file.name}: the name is not of the form 0001_words.sql")
        if any(name[:4] == file.stem[:4] for name in texts):
            raise ConfigurationError(f"migration {file.name}: its number stands twice")
        texts[file.stem] = text = file.read_text(encoding="utf-8")
        needed = {name for line in _DEPENDS.findall(text) for name in line.split()}
        if missing := needed - texts.keys() | needed & {file.stem}:
            raise ConfigurationError(
                f"migration {file.name}: depends on {min(missing)}, which is not before it"
            )
    return texts


def applied(connection: psycopg.Connection[Any]) -> Sequence[str]:
    """Names of the migrations a database has had, in order; empty for a new one."""
    with connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
        if cursor.execute("SELECT to_regclass(%s)", (_NOTES,)).fetchone() == (None,):
            return []
        cursor.execute("SELECT migration_id FROM _yoyo_migration ORDER BY migration_id")
        return [name for (name,) in cursor]


def pending(connection: psycopg.Connection[Any], folder: Path = MIGRATIONS) -> Sequence[str]:
    """Names of the migrations a database still lacks, in order.

    ConfigurationError: the database has had a migration that this version does not know, so it belongs to a newer one.
    """
    texts, had = known(folder), applied(connection)
    if unknown := sorted(set(had) - texts.keys()):
        raise ConfigurationError(
            f"the database was migrated by a newer version (it has had {unknown[-1]}); use that version"
        )
    return [name for name in texts if name not in had]


def require_current(connection: psycopg.Connection[Any]) -> None:
    """ConfigurationError unless the schema is exactly the one of this version."""
    if missing := pending(connection):
        raise ConfigurationError(
            f"the schema lacks {', '.join(missing)}; run `cardswitch migrate` (or `cardswitch init` on a new database)"
        )


def migrate(url: str, folder: Path = MIGRATIONS) -> list[str]:
    """Apply what is missing; returns the names applied, in order. Another process that migrates is waited for.

    ConfigurationError: the database is not in UTF-8. InputRefused names the migration the database would not take; those before it stay applied. DatabaseLost: it went away or
    cannot be reached. DependencyError: another process has been migrating for LOCK_WAIT_S.
    """
    with translated(), connect_now(url) as guard:
        guard.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_WAIT_S}s",))
        try:
            guard.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        except psycopg.errors.LockNotAvailable as error:
            raise DependencyError("another process is migrating this database") from error
        encoding = guard.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise ConfigurationError(
                f"the database is encoded in {encoding}; it has to be made with ENCODING 'UTF8'"
            )
        missing = pending(guard, folder)
        return _apply(url, missing, known(folder)) if missing else []


def _apply(url: str, names: Sequence[str], texts: Mapping[str, str]) -> list[str]:
    # Here, because it brings a parser and a package index that a command which migrates nothing need not wait for.
    from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
    from yoyo.connections import DatabaseURI
    from yoyo.migrations import Migration, default_migration_table

    assert default_migration_table == _NOTES
    parts = conninfo_to_dict(url)
    target = DatabaseURI("postgresql+psycopg", None, None, None, None, parts.pop("dbname", None), parts)
    done: list[str] = []
    with PostgresqlPsycopgBackend(target, default_migration_table) as backend:
        backend.connection.execute("SET client_min_messages = warning")
        backend.create_lock_table()
        backend.break_lock()  # a row left by a process that was killed; the advisory lock is what counts
        backend.ensure_internal_schema_updated()
        for name in names:
            try:
                with backend.transaction():
                    backend.connection.execute(texts[name].encode())
                    # Without its log of hosts and users: that asks the name service, which may not be there.
                    backend.mark_one(Migration(name, f"{name}.sql", None), log=False)
            except psycopg.Error as error:
                if is_lost(error):
                    raise
                problem = error.diag.message_primary or type(error).__name__
                raise InputRefused(f"migration {name}: {problem}") from error
            done.append(name)
    return done
