"""The audit of reconciliation: clean after comparisons, late files and decisions, and one value changed in any of its tables is named."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from switch.clearing.reconcile.desk import Decision, decide
from switch.clearing.settlement.resolving import EntryName
from switch.operations import audit
from switch.operations.audit.checks import read_checks
from switch.storage.pool import connect, connect_now
from tests.conftest import AS_MIGRATED, database_url
from tests.helpers.reconciling import (
    CITY,
    UNKNOWN,
    Leg,
    ask,
    compared,
    found_bank,
    pay_city,
    rows,
    say,
    send,
    tell,
)

pytestmark = pytest.mark.server

OURS = read_checks("reconcile.sql")
_NO_CONSTRAINTS = """
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname)
  FROM pg_constraint
 WHERE contype IN ('c', 'f', 'u') AND connamespace = 'public'::regnamespace AND coninhcount = 0
   AND conrelid::regclass::text ~ '^(reconcile_|partner_|bank_|booking|host_|foreign_verdict)'
 ORDER BY contype DESC
"""

# table, column, value, which row; what the audit must name: table and a part of the key
NEW = "file_no = 2 AND line_no = 1"
CHANGES = [
    ("partner_file", "line_count", "line_count + 1", "status = '00'", "partner_line file_no"),
    ("partner_file", "sequence", "sequence + 1", "status = '00'", "partner_file file_no"),
    *(
        ("partner_file", name, f"{name} + 1", "file_no = 2", "partner_file file_no")
        for name in ("total_fen", "effect_fen")
    ),
    ("partner_file", "partner_id", "'01030000'", "sequence = 2", "partner_file file_no"),
    ("partner_file", "business_date", "business_date - 1", "sequence = 2", "partner_file file_no"),
    ("partner_file", "status", "'01'", "line_count > 3", "partner_file file_no"),
    *(
        ("partner_line", name, f"{name} + 1", NEW, "partner_line file_no")
        for name in ("amount_fen", "effect_fen")
    ),
    ("partner_line", "line_no", "line_no + 1", NEW, "partner_line file_no"),
    ("partner_line", "k1", "k1 + 7", NEW, "reconcile_total run"),
    ("partner_line", "k2", "k2 + 7", "k2 > 0 AND file_no > 4", "reconcile_total run"),
    ("partner_line", "pan", "'6228489999999999990'", NEW, "reconcile_total run"),
    ("partner_line", "rrn", "'R99999999990'", NEW, "reconcile_total run"),
    *(
        ("reconcile_run", name, f"{name} + 1", "run_no = 3", "reconcile_total run")
        for name in ("ours_fen", "ours_count")
    ),
    *(
        ("reconcile_run", name, f"{name} + 1", "run_no = 3", "reconcile_run run")
        for name in ("theirs_fen", "theirs_count")
    ),
    ("reconcile_run", "file_no", "1", "run_no = 3", "reconcile_run run"),
    ("reconcile_run", "carried_run", "NULL", "run_no = 3", "reconcile_total run"),
    ("reconcile_run", "tolerance_fen", "0", "run_no = 2", "reconcile_total run"),
    ("reconcile_run", "roll_days", "0", "run_no = 2", "reconcile_difference difference"),
    ("reconcile_run", "partner_id", "'01030000'", "run_no = 3", "reconcile_run run"),
    *(
        ("reconcile_total", name, f"{name} + 1", "outcome = 'match' AND run_no = 1", "reconcile_total run")
        for name in ("ours_fen", "ours_count", "theirs_fen", "theirs_count")
    ),
    ("reconcile_total", "outcome", "'undone'", "outcome = 'shifted'", "reconcile_total run"),
    *(
        ("reconcile_difference", name, f"{name} + 1", "outcome = 'amount'", "reconcile_difference difference")
        for name in ("ours_fen", "ours_count", "theirs_fen", "theirs_count", "k1", "k2")
    ),
    *(
        ("reconcile_difference", "state", "'OPEN'", f"state = '{state}'", "reconcile_difference difference")
        for state in ("SHIFTED", "TOLERATED", "GONE", "CARRIED", "SUSPENSE", "CLOSED")
    ),
    ("reconcile_difference", "state", "'CLOSED'", "state = 'OPEN'", "reconcile_difference difference"),
    ("reconcile_difference", "outcome", "'status'", "outcome = 'amount'", "reconcile_difference difference"),
    ("reconcile_difference", "load_no", "77", "outcome = 'short'", "reconcile_difference difference"),
    ("reconcile_difference", "first_run", "1", "partner_id = '99993311'", "reconcile_difference difference"),
    (
        "reconcile_finding",
        "difference_no",
        "difference_no + 90000",
        "run_no = 1",
        "reconcile_difference difference",
    ),
    ("reconcile_finding", "difference_no", "difference_no + 90000", "run_no = 2", "reconcile_difference run"),
    ("reconcile_step", "checker", "upper(actor)", "true", "reconcile_step difference"),
    ("reconcile_step", "business_date", "business_date - 1", "true", "reconcile_step difference"),
    ("reconcile_step", "decided_at", "decided_at - interval '3 days'", "true", "reconcile_step difference"),
    ("reconcile_step", "action", "'accept'", "action = 'suspense'", "reconcile_step difference"),
    ("reconcile_step", "action", "'sent-back'", "action = 'settled'", "booking entry"),
    ("reconcile_step", "from_state", "'OPEN'", "action = 'settled'", "reconcile_step difference"),
    ("reconcile_step", "to_state", "'OPEN'", "action = 'accept'", "reconcile_step difference"),
    ("reconcile_step", "difference_no", "difference_no + 90000", "action = 'suspense'", "booking entry"),
    (
        "reconcile_step",
        "action",
        "'accept'",
        "step_no IN (SELECT step_no FROM bank_claim)",
        "bank_claim step",
    ),
    ("bank_claim", "fen", "fen + 1", "fen > 0", "bank_claim step"),
    ("bank_claim", "fen", "fen + 1", "fen < 0", "bank_claim step"),
    ("bank_claim", "line", "line + 1", "fen > 0", "bank_claim step"),
    ("bank_claim", "step_no", "1", "fen > 0", "reconcile_step difference"),
    ("bank_entry", "suspense_fen", "suspense_fen - 300", "line = 1", "bank_claim step"),
    ("bank_entry", "outcome", "'PAID'", "line = 2", "bank_claim step"),
    ("booking", "amount_fen", "amount_fen + 1", "true", "reconcile_step difference"),
    ("booking", "actor", "'somebody'", "true", "reconcile_step difference"),
    ("booking", "source", "'difference 90001'", "true", "booking entry"),
    *(
        ("host_leg", name, change, "leg_no = 1", "reconcile_run run")
        for name, change in (
            ("amount_fen", "amount_fen + 1"),
            ("ended_at", "ended_at + interval '1 day'"),
            ("debit_owner", "debit_owner + 1"),
        )
    ),
    ("host_leg", "trace", "trace + 70", "leg_no = 1", "reconcile_total run"),
    ("host_outbox", "amount_fen", "amount_fen + 1", "step = 3", "reconcile_run run"),
    ("foreign_verdict", "amount_fen", "amount_fen + 1", "true", "reconcile_run run"),
]


async def live(url: str, folder: Path) -> None:
    """Three days of a bank and one of a city: every outcome and every state."""
    async with await connect(url) as pg:
        first, second, third = await found_bank(pg)
        legs = [Leg(number, 1_000) for number in range(1, 9)]
        late, lost, known = Leg(20, 200), Leg(21, 300), Leg(22, 400, UNKNOWN)
        await ask(pg, first, [*legs, late, lost, known])
        back = await tell(pg, first, legs[5], 250)
        await tell(pg, first, legs[6])
        items = [leg.item(first) for leg in legs[:5]] + [legs[5].item(first), back, known.item(first)]
        items[1] = items[1]._replace(amount_fen=998)
        items[2] = items[2]._replace(amount_fen=900)
        items += [
            legs[7].item(first),
            legs[7].item(first),
            Leg(30, 777).item(first),
            Leg(31, 778).item(first),
            Leg(33, 779).item(first),
        ]
        await send(pg, folder, first, [*items, Leg(32, 5).item(first)])
        await compared(pg, first, tolerance_fen=2)
        await send(pg, folder, first, items, sequence=2)
        await compared(pg, first, tolerance_fen=2)
        await ask(pg, second, [Leg(40, 40), Leg(41, 41)])
        await send(pg, folder, second, [late.item(first), known.reversal(first), Leg(40, 40).item(second)])
        await compared(pg, second, tolerance_fen=2)
        await send(pg, folder, third, [], sender=CITY)
        record = await pay_city(pg, third, 7, 1, 150)
        await send(
            pg, folder, third, [record, record._replace(offline="0009000000FF")], sender=CITY, sequence=2
        )
        await compared(pg, third, partner=CITY)
        by = Decision("suspense", "li wei", "wang fang", "statement")
        numbers = dict(
            await rows(
                pg, "SELECT theirs_fen, difference_no FROM reconcile_difference WHERE outcome = 'long'"
            )
        )
        await decide(pg, numbers[777], by)
        await decide(pg, numbers[778], by)
        await decide(pg, numbers[778], by._replace(action="settled"))
        await say(pg, 1_000, -779)
        await decide(pg, numbers[779], by._replace(entry=EntryName("STMT-1", 1)))
        await decide(pg, numbers[779], by._replace(action="sent-back", entry=EntryName("STMT-1", 2)))
        ((amount,),) = await rows(
            pg, "SELECT difference_no FROM reconcile_difference WHERE outcome = 'amount'"
        )
        await decide(pg, amount, by._replace(action="case", case_no="C1"))
        ((doubled,),) = await rows(
            pg, "SELECT difference_no FROM reconcile_difference WHERE outcome = 'duplicate'"
        )
        await decide(pg, doubled, by._replace(action="accept"))


@pytest.fixture(scope="module")
def lived(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("reconciled")
    url = database_url(server_url, "reconciled")
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE reconciled {AS_MIGRATED}".encode())
        asyncio.run(live(url, folder))
        with psycopg.connect(url, autocommit=True) as connection:
            for (statement,) in connection.execute(_NO_CONSTRAINTS.encode()).fetchall():
                connection.execute(statement)
        yield url, folder
        server.execute("DROP DATABASE reconciled WITH (FORCE)")


def found(lived: tuple[str, Path], reading: str = "") -> list[str]:
    """What the checks of reconciliation find, those that read a table; the plain rows of this bank have no journal, of which other checks speak."""
    with connect_now(lived[0]) as connection, audit._snapshot(connection):
        run = audit._Audit(connection, None)
        places = [
            place for check in OURS if not reading or check.reads(reading) for place in run.run(check).places
        ]
    return [f"{place.table} {place.key}: {place.expected} <> {place.found}" for place in places]


@pytest.fixture(scope="module")
def superuser(lived: tuple[str, Path]) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(lived[0], autocommit=True) as connection:
        connection.prepare_threshold = None
        connection.execute("SET session_replication_role = replica")
        yield connection


def test_a_reconciled_bank_is_clean_and_every_state_is_there(
    lived: tuple[str, Path], superuser: psycopg.Connection[Any]
) -> None:
    states = superuser.execute(
        "SELECT array_agg(DISTINCT state ORDER BY state) FROM reconcile_difference"
    ).fetchone()
    assert states == (["CARRIED", "CLOSED", "GONE", "OPEN", "SHIFTED", "SUSPENSE", "TOLERATED"],)
    outcomes = superuser.execute("SELECT count(DISTINCT outcome) FROM reconcile_total").fetchone()
    assert outcomes == (9,)
    assert found(lived) == []


def test_one_value_changed_is_found_and_named(
    lived: tuple[str, Path], superuser: psycopg.Connection[Any]
) -> None:
    unseen = []
    for table, column, value, where, named in CHANGES:
        parts = {
            "t": sql.Identifier(table),
            "c": sql.Identifier(column),
            "v": sql.SQL(value),
            "w": sql.SQL(where),
        }
        pick = sql.SQL(
            "SELECT tableoid::regclass::text, ctid::text, {c} FROM {t} WHERE {w} ORDER BY 1, ctid LIMIT 1"
        )
        row = superuser.execute(pick.format(**parts)).fetchone()
        assert row is not None, (table, column, where)
        place = sql.SQL(row[0])
        change = sql.SQL("UPDATE {p} SET {c} = {v} WHERE ctid = {i} RETURNING ctid::text")
        at = superuser.execute(change.format(p=place, i=sql.Literal(row[1]), **parts)).fetchone()
        assert at is not None
        places = found(lived, table)
        undo = sql.SQL("UPDATE {p} SET {c} = %s WHERE ctid = %s::tid")
        superuser.execute(undo.format(p=place, **parts), (row[2], at[0]))
        if not any(one.startswith(named) for one in places):
            unseen.append((table, column, value, where, places))
        assert not any("622848000000" in one for one in places)
    assert unseen == [], "\n".join(map(str, unseen))
    assert found(lived) == []
