"""One value changed in what lies with hosts, came in files, tells of trips or of cases, and the audit names table and key."""

from typing import Any

import psycopg
import pytest

from tests.helpers.audit_changes import Change
from tests.helpers.audit_changes_disputes import CHANGES_OF_DISPUTES
from tests.helpers.audit_changes_hosts import CHANGES_AT_HOSTS, CHANGES_IN_TRANSIT, CHANGES_OF_BOOKINGS
from tests.helpers.audit_changes_interop import CHANGES_BETWEEN_CITIES
from tests.unit.operations.audit_changed import check_named, report_of
from tests.unit.operations.conftest import Audited

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize(
    "change",
    [
        *CHANGES_AT_HOSTS,
        *CHANGES_IN_TRANSIT,
        *CHANGES_OF_BOOKINGS,
        *CHANGES_BETWEEN_CITIES,
        *CHANGES_OF_DISPUTES,
    ],
    ids=str,
)
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
