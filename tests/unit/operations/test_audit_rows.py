"""Rows that are gone and rows that nobody booked, in any table with money or state, and the audit misses or finds them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.unit.operations.audit_changed import report_of
from tests.unit.operations.conftest import Audited

pytestmark = [pytest.mark.server, pytest.mark.slow]

LOST = [
    ("account", "true"),
    ("journal", "kind = 1 AND answer = '00'"),
    ("journal", "kind = 4"),
    ("journal", "kind = 20"),
    ("posting", "debit_code = 2001"),
    ("posting", "credit_code = 6001"),
    ("posting", "debit_code = 1001"),
    ("original_use", "refunded_fen > 0"),
    ("hold", "true"),
    ("purchase_split", "own_fen > 0"),
    ("purchase_split", "own_fen = 0"),
    ("medical_window", "true"),
    ("medical_policy", "category = '4111'"),
    ("posting", "line = 1"),
    ("purse_load", "true"),
    ("purse_load_move", "reason <> 'request'"),
    ("posting", "credit_code = 2002 AND debit_code = 1002"),
    ("posting", "credit_code = 2201 AND debit_code = 2002"),
    ("posting", "credit_code = 2001 AND debit_code = 1002"),
    *(("host_leg", f"state = {state}") for state in range(6)),
    ("host_outbox", "step = 3 AND service = 1"),
    ("host_outbox", "service = 2"),
    ("host_outbox", "step = 5"),
    ("stand_in", "outstanding_fen > 0"),
    ("journal", "class = 2"),
    ("journal", "entry_no IN (SELECT ended_by FROM host_leg WHERE state = 4)"),
    ("folded_balance", "code = 2101"),
    ("purse", "card_no = 2"),
    ("purse_record", "result = '10'"),
    ("purse_record", "result = '03'"),
    ("purse_atc", "true"),
    ("purse_serial", "true"),
    ("purse_waiting", "result = '04'"),
    ("purse_quarantine", "true"),
    ("purse_stray", "true"),
    ("purse_sequence", "kind = 3"),
    ("purse_gap", "closed_at IS NULL"),
    ("purse_alarm", "gap_no IS NOT NULL"),
    ("purse_alarm_note", "acknowledged"),
    ("dispute_case", "source = 1"),
    ("dispute_event", "what = 'DONE' AND action = '04'"),
    ("dispute_received", "refusal <> ''"),
    ("journal", "kind = 14"),
    ("card_route", "card_no = 2"),
    ("interop_arrival", "true"),
    ("interop_record", "refused IS NULL"),
    ("interop_verdict", "result = '10'"),
    ("interop_hold", "true"),
    ("interop_position", "true"),
    ("interop_file", "true"),
    ("terminal_batch_difference", "matter = 'AMOUNT'"),
    ("terminal_batch_detail", "line = 5"),
    *(
        (f"clearing_{part}", "true")
        for part in [
            "step",
            "merchant",
            "rule",
            "original",
            "leg",
            "dispute",
            "adjusted",
            "source_line",
            "summary",
            "offline",
            "position",
            "float",
            "file",
            "seal",
            "seal_block",
            "movement",
            "suspense",
            "report",
            "interop",
        ]
    ),
]


_STORED = """
SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position)
  FROM information_schema.columns
 WHERE table_schema = 'public' AND table_name = %s AND is_generated = 'NEVER'
"""


@contextmanager
def gone(connection: psycopg.Connection[Any], table: str, where: str) -> Iterator[None]:
    """Take a row away, and put it back."""
    [columns] = connection.execute(_STORED, [table]).fetchone() or [None]
    names = {"t": sql.Identifier(table), "c": sql.SQL(columns), "w": sql.SQL(where)}
    take = "DELETE FROM {t} WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM {t} WHERE {w} LIMIT 1) RETURNING {c}"
    keep = "CREATE TEMPORARY TABLE kept AS SELECT {c} FROM {t} WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM {t} WHERE {w} LIMIT 1)"
    back = "INSERT INTO {t} ({c}) OVERRIDING SYSTEM VALUE SELECT {c} FROM kept"
    kept = connection.execute(sql.SQL(keep).format(**names)).rowcount
    taken = connection.execute(sql.SQL(take).format(**names)).fetchall()
    try:
        assert kept == 1
        assert taken == connection.execute("SELECT * FROM kept").fetchall()
        yield
    finally:
        connection.execute(sql.SQL(back).format(**names))
        connection.execute("DROP TABLE kept")


@contextmanager
def booked_by_nobody(connection: psycopg.Connection[Any], statement: str) -> Iterator[None]:
    """Add a row, and take it away."""
    returning = f"{statement} RETURNING tableoid::regclass::text, ctid::text"
    [(place, at)] = connection.execute(returning.encode()).fetchall()
    try:
        yield
    finally:
        connection.execute(sql.SQL("DELETE FROM {} WHERE ctid = %s::tid").format(sql.SQL(place)), [at])


@pytest.mark.parametrize(("table", "where"), LOST)
def test_a_row_that_is_gone_is_missed(
    audited: Audited,
    reader: psycopg.Connection[Any],
    superuser: psycopg.Connection[Any],
    table: str,
    where: str,
) -> None:
    with gone(superuser, table, where):
        report = report_of(audited, reader, table)
    assert not report.good
    assert any(place.expected for verdict in report.verdicts for place in verdict.places)


ADDED = [
    (
        "INSERT INTO posting (shard, business_date, entry_no, debit_code, debit_owner, credit_code, credit_owner, amount_fen)"
        " SELECT shard, business_date, 900000, 2101, 1, 1001, 0, 1 FROM posting LIMIT 1"
    ),  # a payout that nobody ordered
    (
        "INSERT INTO posting SELECT shard, business_date, entry_no, 1::smallint, debit_code, debit_owner, credit_code, credit_owner, amount_fen"
        " FROM posting p WHERE debit_code = 2001 AND line = 0"
        " AND NOT EXISTS (SELECT FROM posting o WHERE (o.shard, o.entry_no, o.line) = (p.shard, p.entry_no, 1)) LIMIT 1"
    ),
    "INSERT INTO original_use SELECT shard, entry_no, business_date, amount_fen, 0, NULL FROM journal WHERE kind = 1 AND answer = '51' LIMIT 1",
    "INSERT INTO account SELECT shard, account_id + 100000, holder_id + 1000, kind, 0 FROM account LIMIT 1",
    (
        "INSERT INTO hold SELECT shard, 900000, business_date, account_id, 5, 0, decided_at, 0 FROM journal"
        " WHERE kind = 1 AND answer = '00' LIMIT 1"
    ),
    "INSERT INTO purchase_split SELECT shard, entry_no, business_date, account_id, 1, 1, 1 FROM journal WHERE kind = 1 AND answer = '51' LIMIT 1",
    "INSERT INTO medical_window SELECT shard, account_id, business_date, 1, 1 FROM journal WHERE kind = 2 LIMIT 1",
    "INSERT INTO folded_balance VALUES (0, 1001, 77, 1, 1)",
    *(
        "INSERT INTO host_outbox SELECT shard, outbox_no + 900000, leg_no, host, step, service, reason, amount_fen, entry_no, rrn, transmitted,"
        f" (outbox_no + 900000) %% 999999 + 1, created_at, due_at FROM host_outbox WHERE {what} LIMIT 1".replace(
            "%%", "%"
        )
        for what in ("step = 5", "step = 3 AND service = 2")
    ),  # told twice
    (
        "INSERT INTO host_outbox SELECT shard, 900000, leg_no, host, 5, service, '98', amount_fen, ended_by, rrn,"
        " to_char(ended_at AT TIME ZONE INTERVAL '8 hours', 'MMDDHH24MISS'), 900001, ended_at, ended_at FROM host_leg"
        " WHERE state = 1 AND service = 3 LIMIT 1"
    ),  # the reversal of a balance
    (
        "INSERT INTO host_leg SELECT 1 - shard, leg_no, business_date, terminal_no, batch_no, stan, merchant_no, terminal_id, merchant_id, kind, account_kind,"
        " pan, amount_fen, entry_mode, rrn, host, debit_code, debit_owner, service, step, transmitted, trace, asked_at, gives_up_at, 0, NULL, NULL"
        " FROM host_leg WHERE state = 1 LIMIT 1"
    ),
    "INSERT INTO stand_in VALUES (0, 'elsewhere', 1, 1)",
    "INSERT INTO clearing_leg SELECT business_date, 900000, 20, '01020000', '3133' FROM clearing_day LIMIT 1",
    "INSERT INTO purse_serial VALUES (335000000001, 5555555, 1, 1)",
    "INSERT INTO clearing_float SELECT business_date, 1234, 0, 0, 0, 0 FROM clearing_day LIMIT 1",
    (
        "INSERT INTO journal SELECT shard, business_date, terminal_no, 2, stan, class, entry_no + 900000, merchant_no, kind, account_id, pan,"
        " amount_fen, effect_fen, answer, rrn, auth_code, entry_mode, decided_at, digest FROM journal WHERE kind = 1 AND answer = '00' LIMIT 1"
    ),
    (
        "INSERT INTO journal SELECT 1 - shard, business_date, terminal_no, batch_no, stan, class, entry_no + 900000, merchant_no, kind, NULL, NULL,"
        " amount_fen, 0, '51', rrn, '', entry_mode, decided_at, digest FROM journal WHERE kind = 1 AND answer = '00' LIMIT 1"
    ),
]


@pytest.mark.parametrize("statement", ADDED, ids=range(len(ADDED)))
def test_a_row_that_nobody_booked_is_found(
    audited: Audited,
    reader: psycopg.Connection[Any],
    superuser: psycopg.Connection[Any],
    statement: str,
) -> None:
    table = statement.split()[2]
    with booked_by_nobody(superuser, statement):
        report = report_of(audited, reader, table)
    assert not report.good


def test_everything_was_put_back(audited: Audited, reader: psycopg.Connection[Any]) -> None:
    report = report_of(audited, reader)
    assert [place for verdict in report.verdicts for place in verdict.places] == []
