"""The schema's versions: whole or not at all, once, in order, and never backwards."""

import threading
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.domain.errors import ConfigurationError, DatabaseLost, InputRefused
from switch.storage.migrate import applied, known, migrate, pending, require_current
from switch.storage.pool import connect_now
from tests.conftest import database_url

pytestmark = pytest.mark.server

FUNCTION = """
-- depends: 0001_first
-- Semicolons; within a function; and 'quoted; text' do not end it. A percent sign % is only that, and so is :name.
CREATE FUNCTION twice(n bigint) RETURNS bigint LANGUAGE plpgsql AS $body$
DECLARE answer bigint;
BEGIN
    IF n IS NULL THEN RETURN 0; END IF;
    answer := CASE WHEN n % 2 = 0 THEN n * 2 ELSE n + n END;
    RETURN answer;
END;
$body$;
SELECT twice(1);
"""


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    """A database without a schema."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty_one")
    yield database_url(server_url, "empty_one")
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE empty_one WITH (FORCE)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (i int);\n-- the end")
    (tmp_path / "0002_second.sql").write_text(FUNCTION)
    return tmp_path


def one(url: str, query: str) -> Any:
    with connect_now(url) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


def test_the_migrations_of_this_version_are_in_order() -> None:
    names = list(known())

    assert names == sorted(names)
    assert names[0] == "0001_registry"


def test_a_released_migration_stays_as_it_was_released() -> None:
    """A database that has it would never see the change. What a release adds is added here: sha256sum in switch/storage/migrations."""
    lines = (Path(__file__).parent / "released_migrations.sha256").read_text(encoding="ascii").splitlines()
    released = {name: digest for digest, name in (line.split() for line in lines)}
    folder = files("switch.storage.migrations")

    assert released == {name: sha256((folder / name).read_bytes()).hexdigest() for name in released}
    later = {f"{name}.sql" for name in known()} - released.keys()
    assert all(name > max(released) for name in later)


def test_a_new_database_gets_all_of_them_and_a_second_run_finds_nothing_to_do(empty_url: str) -> None:
    assert migrate(empty_url) == list(known())
    assert migrate(empty_url) == []
    with connect_now(empty_url) as connection:
        assert applied(connection) == list(known())
        require_current(connection)


def test_a_database_that_is_not_in_utf_8_is_refused(server_url: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin_one ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            with pytest.raises(ConfigurationError, match=r"LATIN1.*UTF8"):
                migrate(database_url(server_url, "latin_one"))
        finally:
            connection.execute("DROP DATABASE latin_one WITH (FORCE)")


def test_functions_with_semicolons_go_in_as_they_stand(
    empty_url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrate(empty_url, folder) == ["0001_first", "0002_second"]

    assert one(empty_url, "SELECT twice(21)") == 42
    assert capsys.readouterr() == ("", "")


def test_only_what_is_missing_is_applied(empty_url: str, folder: Path) -> None:
    migrate(empty_url, folder)
    (folder / "0003_third.sql").write_text("ALTER TABLE first ADD COLUMN j int;")

    with connect_now(empty_url) as connection:
        assert pending(connection, folder) == ["0003_third"]
    assert migrate(empty_url, folder) == ["0003_third"]


def test_a_migration_that_fails_half_way_leaves_nothing_and_is_named(empty_url: str, folder: Path) -> None:
    (folder / "0003_bad.sql").write_text("CREATE TABLE half (i int); INSERT INTO first VALUES ('secret');")

    with pytest.raises(InputRefused, match="migration 0003_bad: invalid input syntax"):
        migrate(empty_url, folder)

    assert one(empty_url, "SELECT to_regclass('half')") is None
    with connect_now(empty_url) as connection:
        assert applied(connection) == ["0001_first", "0002_second"]
    (folder / "0003_bad.sql").write_text("CREATE TABLE half (i int);")
    assert migrate(empty_url, folder) == ["0003_bad"]


def test_two_that_migrate_at_once_apply_each_once_and_both_succeed(empty_url: str, folder: Path) -> None:
    (folder / "0003_slow.sql").write_text("SELECT pg_sleep(0.3); CREATE TABLE slow (i int);")
    outcomes: list[list[str]] = []
    threads = [threading.Thread(target=lambda: outcomes.append(migrate(empty_url, folder))) for _ in range(3)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == [[], [], ["0001_first", "0002_second", "0003_slow"]]


def test_the_lock_row_of_a_process_that_was_killed_keeps_nobody_out(empty_url: str, folder: Path) -> None:
    migrate(empty_url, folder)
    with connect_now(empty_url) as connection:
        connection.execute("INSERT INTO yoyo_lock VALUES (1, now(), 4711)")
    (folder / "0003_third.sql").write_text("CREATE TABLE third (i int);")

    assert migrate(empty_url, folder) == ["0003_third"]


def test_a_database_of_a_newer_version_is_refused(empty_url: str, folder: Path) -> None:
    (folder / "0009_future.sql").write_text("CREATE TABLE future (i int);")
    migrate(empty_url, folder)
    (folder / "0009_future.sql").unlink()

    with pytest.raises(ConfigurationError, match=r"newer version .*0009_future"):
        migrate(empty_url, folder)


def test_a_database_that_lacks_a_migration_is_not_current(empty_url: str) -> None:
    with connect_now(empty_url) as connection, pytest.raises(ConfigurationError, match="lacks 0001_registry"):
        require_current(connection)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("3_third.sql", "SELECT 1;", "name is not of the form"),
        ("0003-third.sql", "SELECT 1;", "name is not of the form"),
        ("0002_again.sql", "SELECT 1;", "number stands twice"),
        ("0003_third.sql", "-- depends: 0004_later\nSELECT 1;", "depends on 0004_later"),
        ("0003_third.sql", "-- depends: 0001_first 0003_third\nSELECT 1;", "depends on 0003_third"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_before_anything_is_applied(
    empty_url: str, folder: Path, name: str, text: str, problem: str
) -> None:
    (folder / name).write_text(text)

    with pytest.raises(ConfigurationError, match=problem):
        migrate(empty_url, folder)

    with connect_now(empty_url) as connection:
        assert applied(connection) == []


def test_a_database_that_cannot_be_reached_is_said_to_be_lost() -> None:
    with pytest.raises(DatabaseLost):
        migrate("postgresql:///nothing?host=/nonexistent")
