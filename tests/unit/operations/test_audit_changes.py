"""One fen, one value changed in any table with money or state, and the audit names table and key.

The changes are made as a superuser with triggers, references and checks off. A last test holds the list of changes against
the schema, so that a new money column cannot be forgotten. What concerns hosts, and whole rows, are files of their own, because files
run side by side.
"""

from typing import Any

import psycopg
import pytest

from tests.helpers.audit_changes import CHANGED_ELSEWHERE, CHANGES, UNSEEN, Change
from tests.helpers.audit_changes_disputes import CHANGES_OF_DISPUTES
from tests.helpers.audit_changes_hosts import CHANGES_AT_HOSTS, CHANGES_IN_TRANSIT, CHANGES_OF_BOOKINGS
from tests.helpers.audit_changes_interop import CHANGES_BETWEEN_CITIES
from tests.unit.operations.audit_changed import check_named, report_of
from tests.unit.operations.conftest import Audited

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_one_value_changed_is_found_and_named(
    audited: Audited,
    reader: psycopg.Connection[Any],
    superuser: psycopg.Connection[Any],
    change: Change,
) -> None:
    check_named(audited, reader, superuser, change)


def test_everything_was_put_back(audited: Audited, reader: psycopg.Connection[Any]) -> None:
    report = report_of(audited, reader)
    assert [place for verdict in report.verdicts for place in verdict.places] == []


def test_no_money_column_of_the_schema_was_forgotten(superuser: psycopg.Connection[Any]) -> None:
    columns = {
        (table, column)
        for table, column in superuser.execute(
            "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND is_generated = 'NEVER' AND table_name !~ '_[0-9]{8}$'"
            "   AND column_name LIKE '%\\_fen'"
        ).fetchall()
    }
    assert (
        columns
        - {
            (change.table, change.column)
            for change in (
                *CHANGES,
                *CHANGES_AT_HOSTS,
                *CHANGES_IN_TRANSIT,
                *CHANGES_OF_BOOKINGS,
                *CHANGES_BETWEEN_CITIES,
                *CHANGES_OF_DISPUTES,
            )
        }
        - CHANGED_ELSEWHERE
        == UNSEEN.keys()
    )
