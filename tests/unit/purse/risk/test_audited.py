"""The audit counts cases again from their hits, and hits from the records, and names what was changed behind everybody's back."""

from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.operations.audit import CHECKS, Place
from switch.purse.risk.cases import run
from switch.storage.pool import connect_now
from tests.helpers.offline import upload
from tests.unit.purse.conftest import Office
from tests.unit.purse.risk.test_cases import MANY, in_force, rides

pytestmark = pytest.mark.server


def places(town: str) -> list[Place]:
    with connect_now(town) as connection:
        return [
            Place(*row)
            for check in CHECKS
            if check.name.startswith("risk_")
            for row in connection.execute(check.query.encode(), {}).fetchall()
        ]


CHANGES = [
    ("UPDATE risk_case SET hits = hits + 1", "risk_case", "case_no 1"),
    ("UPDATE risk_case SET amount_fen = amount_fen - 1", "risk_case", "case_no 1"),
    ("UPDATE risk_case SET owner = owner + 1", "risk_hit", "rule many-rides"),
    ("UPDATE risk_case SET rule = 'other'", "risk_case", "case_no 1"),
    ("UPDATE risk_hit SET amount_fen = amount_fen + 1", "risk_hit", "rule many-rides"),
    ("UPDATE risk_hit SET entry_no = entry_no - 10", "risk_hit", "rule many-rides"),
    ("DELETE FROM risk_hit", "risk_case", "case_no 1"),
    ("UPDATE risk_hit SET business_date = business_date - 1", "risk_hit", "rule many-rides"),
]


async def test_what_is_changed_is_named(office: Office, link: AsyncConnection[Any], town: str) -> None:
    await in_force(link, MANY)
    await office.take(upload(*rides(1, 200, 300)))
    await run(link)
    assert places(town) == []
    for change, table, key in CHANGES:
        with psycopg.connect(town) as other:
            other.execute("SET session_replication_role = replica")  # past the triggers
            other.execute(change.encode())
            named = [
                row[:2]
                for check in CHECKS
                if check.name.startswith("risk_")
                for row in other.execute(check.query.encode(), {}).fetchall()
            ]
            other.rollback()
        assert any(one[0] == table and one[1].startswith(key) for one in named), (change, named)
