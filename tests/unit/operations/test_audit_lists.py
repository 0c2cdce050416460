"""The audit of terminals' lists: clean after roll-outs, stops and ways back, and one value changed in any of their tables is named."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from switch.keys.opening import create_vault
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import JsonKeyStore
from switch.operations.audit import CHECKS, PLACES_MAX
from switch.operations.audit.checks import read_checks
from switch.registry import city_list, hot_list
from switch.registry.list_publication import ListPublication, ListSigner
from switch.registry.list_rollout import Plan, change_group, stop
from switch.registry.parameters import RULES, Scope, set_parameters
from tests.helpers.lists import Retained
from tests.unit.registry.helpers import PAN, city, open_day, run_import, write

pytestmark = pytest.mark.server

OURS = read_checks("lists.sql")
_NO_CONSTRAINTS = """
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname)
  FROM pg_constraint
 WHERE contype IN ('c', 'f') AND connamespace = 'public'::regnamespace AND conrelid::regclass::text ~ '^(list_|hot_list_|city_)'
"""

# table, column, value, which row; a part of the key that must be named
CHANGES = [
    ("hot_list_version", "entries", "entries + 1", "version = 2", "version 2"),
    ("hot_list_version", "added", "added + 1", "version = 1", "version 1"),
    ("hot_list_version", "removed", "removed + 1", "version = 3", "version 3"),
    (
        "hot_list_entry",
        "reason",
        "'CANCELLED'",
        f"asn = '0{PAN}' AND until_version IS NULL",
        "from version 1",
    ),
    ("list_version", "entries", "entries + 1", "kind = 'CITY'", "CITY version 1"),
    ("list_version", "through", "through - 1", "kind = 'PARAM' AND version = 2", "PARAM version 2"),
    ("city_list_entry", "until_version", "1", "what = 'C'", "CITY version 1"),
    ("list_rollout", "stage", "stage + 1", "kind = 'HOT' AND version = 2", "HOT version 2"),
    ("list_rollout", "percent", "99", "kind = 'HOT' AND version = 2", "HOT version 2"),
    ("list_rollout", "state", "'COMPLETE'", "kind = 'HOT' AND version = 2", "HOT version 2"),
    ("list_rollout", "previous", "-7", "kind = 'HOT' AND version = 3", "HOT version 3"),
    ("list_rollout", "staged_at", "started_at - interval '1 second'", "kind = 'CITY'", "CITY version 1"),
    ("list_event", "action", "'RESUME'", "action = 'BEGIN' AND detail = ''", "version"),
    (
        "list_event",
        "stage",
        "stage + 1",
        "action = 'SUPERSEDE' AND detail LIKE 'taken back%'",
        "HOT version 2",
    ),
    ("list_rollout_member", "stage", "2", "true", "terminal_no"),
    ("list_receipt", "held_at", "held_at - interval '1 hour'", "true", "terminal_no"),
    ("list_form", "entries", "entries + 1", "kind = 'HOT' AND base = 0", "HOT version"),
    ("list_form", "blocks", "blocks + 1", "kind = 'CITY'", "CITY version 1"),
    ("list_manifest", "serial", "serial + 1", "kind = 'CITY'", "CITY serial 2"),
    ("list_manifest", "percent", "percent - 1", "kind = 'HOT'", "HOT serial 1"),
    ("list_manifest", "version", "version + 1", "kind = 'PARAM'", "PARAM serial 1"),
    ("list_manifest", "made_at", "made_at + interval '1 second'", "kind = 'HOT'", "HOT serial 1"),
    ("list_manifest", "payload", "set_byte(payload, 19, 1)", "kind = 'CITY'", "CITY serial 1"),
]


def places(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Table and key of everything that is wrong."""
    found = []
    for check in OURS:
        rows = connection.execute(check.query.encode(), {"first": "-infinity", "last": "infinity"}).fetchmany(
            PLACES_MAX
        )
        found += [(str(row[0]), str(row[1])) for row in rows]
    return found


async def test_lists_after_a_stop_and_a_way_back_are_clean_and_one_changed_value_is_named(
    postgres_url: str, tmp_path: Path, pg: psycopg.AsyncConnection[Any]
) -> None:
    assert set(OURS) <= set(CHECKS)
    store = JsonKeyStore(tmp_path / "keys.json")
    vault = create_vault(store, UnlockSecret(b"a key file for the tests, 32 bytes", "hkdf"), rehearsal=True)
    publication = ListPublication(ListSigner(vault), Retained())
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        run_import(connection, write(tmp_path, city()))
        draw = (
            "INSERT INTO hot_list_draft (asn, level, reason, actor) VALUES (%s, 1, 'COUNTERFEIT', 'li wei')"
        )
        connection.execute(draw, [f"0{PAN}"])
        hot_list.publish(connection, "li wei")
        change_group(connection, "pilot", ["33500001"], [])
        connection.execute(draw, ["03133500190000000002"])
        hot_list.publish(connection, "li wei", Plan(("pilot", "100")))
        number = connection.execute(
            "SELECT terminal_no FROM terminal WHERE terminal_id = '33500001'"
        ).fetchone()
        assert number is not None
        connection.execute(
            "INSERT INTO list_receipt (rollout_no, terminal_no, held_at) VALUES (2, %s, clock_timestamp())",
            number,
        )
        assert await publication.publish_due(pg) == 2
        stop(connection, "HOT", "li wei", "no")
        hot_list.roll_back(connection, "li wei")
        entries = [city_list.Entry("I", "99993350FFFFFFFF", 0), city_list.Entry("C", "3310", 1)]
        city_list.publish(connection, entries, "li wei")
        set_parameters(connection, Scope(category="4111"), {RULES["resends"]: 1}, "li wei")
        assert await publication.publish_due(pg) == 3
        assert places(connection) == []

        for (statement,) in connection.execute(_NO_CONSTRAINTS.encode()).fetchall():
            connection.execute(statement)
        connection.execute("SET session_replication_role = replica")
        for table, column, value, where, key in CHANGES:
            change = sql.SQL("UPDATE {} SET {} = {} WHERE ctid = (SELECT ctid FROM {} WHERE {} LIMIT 1)")
            name = sql.Identifier(table)
            with connection.transaction(force_rollback=True):
                done = connection.execute(
                    change.format(name, sql.Identifier(column), sql.SQL(value), name, sql.SQL(where))
                )
                assert done.rowcount == 1, (table, column, where)
                found = places(connection)
                assert any(key in named for _, named in found), (table, column, key, found)
                assert not any(PAN in named for _, named in found)
        assert places(connection) == []
