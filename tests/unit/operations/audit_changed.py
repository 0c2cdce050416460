"""Changes to a city's tables behind everybody's back, and whether the audit names them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from switch.operations.audit import Report
from switch.operations.audit import audit as run_audit
from tests.helpers.audit_changes import KEYS, Change
from tests.unit.operations.conftest import Audited


@contextmanager
def changed(connection: psycopg.Connection[Any], change: Change) -> Iterator[set[str]]:
    """Make a change, give the keys by which its row may be named (before and after), and put everything back."""
    key = sql.SQL(KEYS[change.table])
    table, column = sql.Identifier(change.table), sql.Identifier(change.column)
    pick = sql.SQL(
        "SELECT tableoid::regclass::text, ctid::text, {}, {} FROM {} WHERE {} ORDER BY 3, 2 LIMIT 1"
    ).format(
        column,
        key,
        table,
        sql.SQL(change.where),
    )
    row = connection.execute(pick).fetchone()
    assert row is not None, f"no row for {change}"
    place, at, before, old_key = row
    change_it = sql.SQL("UPDATE {} SET {} = {} WHERE ctid = {} RETURNING ctid::text, {}")
    named = connection.execute(
        change_it.format(sql.SQL(place), column, sql.SQL(change.value), sql.Literal(at), key)
    ).fetchone()
    assert named is not None
    try:
        yield {old_key, named[1]}
    finally:
        value = Jsonb(before) if isinstance(before, dict) else before
        connection.execute(
            sql.SQL("UPDATE {} SET {} = %s WHERE ctid = %s::tid").format(sql.SQL(place), column),
            (value, named[0]),
        )


def report_of(audited: Audited, reader: psycopg.Connection[Any], reading: str = "") -> Report:
    """What the audit finds. reading: the one table that was changed; what does not read it finds what it found before."""
    return run_audit(reader, audited[1], reading=reading)


def card_numbers(connection: psycopg.Connection[Any]) -> list[str]:
    return [row[0] for row in connection.execute("SELECT pan FROM card_route").fetchall()]


def check_named(
    audited: Audited, reader: psycopg.Connection[Any], superuser: psycopg.Connection[Any], change: Change
) -> None:
    """Make a change: the audit must name its table and key, and no card number."""
    with changed(superuser, change) as keys:
        report = report_of(audited, reader, change.table)
    places = [place for verdict in report.verdicts for place in verdict.places]
    assert not report.good
    table = change.named or change.table
    named = [place for place in places if place.table == table]
    assert named, places
    if not change.named:
        assert any(re.search(rf"{re.escape(key)}(?!\d)", place.key) for key in keys for place in named), (
            keys,
            named,
        )
    assert not any(pan in str(place) for place in places for pan in card_numbers(superuser))
