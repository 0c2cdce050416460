"""What a case gives back of another city's ride mirrors it, although the tariff between cities has changed since."""

from datetime import date
from pathlib import Path

import psycopg
import pytest

from switch.clearing.close import CloseTerms, close_day
from switch.clearing.disputes.cases import open_case
from switch.clearing.disputes.deciding import decide
from switch.clearing.disputes.originals import find_transaction
from switch.ledger.days import open_day
from switch.operations.audit import audit
from switch.storage.pool import connect, connect_now
from tests.helpers.clearing_day import CENTRE, OWN, add_participants, add_records
from tests.helpers.days import make_days
from tests.helpers.disputed import asking
from tests.helpers.reconciling import CITY, Pg, pay_city, rows

pytestmark = pytest.mark.server

TARIFFS = (("2020-01-01", 50_000, 7, 1, 2), ("2025-01-01", 10_000, 1, 1, 8))  # the ride is of March 2024


async def close(pg: Pg, folder: Path) -> date:
    """Close the open day of a city that forwards to a centre."""
    opened = await open_day(pg)
    assert opened is not None
    day = opened.day
    terms = CloseTerms(
        *(OWN, CENTRE, "49993350", (0, 1), folder, lambda _day: True), lead_s=0.02, interop_centre=CENTRE
    )
    await close_day(pg, day, terms, "a tester")
    await pg.execute("SET enable_nestloop = on")
    return day


def faults(url: str, folder: Path, day: date) -> set[str]:
    """Tables of which the audit of a closed day finds something; that the plain record and verdict came from nowhere is known."""
    with connect_now(url) as other:
        report = audit(other, folder, day)
    named = {place.table for verdict in report.verdicts for place in verdict.places}
    return named & {"clearing_leg", "clearing_summary", "clearing_file", "clearing_adjusted"}


async def test_a_case_about_another_citys_ride_has_the_tariff_of_the_ride(
    pg: Pg, postgres_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "clearing"
    await make_days(pg, 6)
    await add_participants(pg)
    await pg.execute("INSERT INTO institution VALUES (%s, 'Another city', 'CITY')", (CITY,))
    for since, ppm, *weights in TARIFFS:
        await pg.execute(
            "INSERT INTO interop_tariff VALUES (%s, %s, 1, NULL, %s, %s, %s, 'tests')",
            (since, ppm, *weights),
        )
    opened = await open_day(pg)
    assert opened is not None
    await add_records(pg, opened.day, 8_000_000, 1, [("11", 20_000)])
    await close(pg, folder)
    opened = await open_day(pg)
    assert opened is not None
    await pay_city(pg, opened.day, 7, 1, 20_000)
    await pg.execute("ALTER TABLE foreign_verdict DISABLE TRIGGER USER")
    await pg.execute("UPDATE foreign_verdict SET original_entry = 8000000")
    await pg.execute("ALTER TABLE foreign_verdict ENABLE TRIGGER USER")
    first = await close(pg, folder)
    ((entry_no,),) = await rows(pg, "SELECT entry_no FROM foreign_verdict")
    original = await find_transaction(pg, first, OWN, entry_no=entry_no)
    case_no = (await open_case(pg, original, asking("04"))).case_no
    await decide(lambda: connect(postgres_url), case_no, checker="wang fang")
    last = await close(pg, folder)
    charges = "SELECT effect_fen, issuer_fee_fen, switch_fee_fen FROM clearing_charge WHERE issuer_id = %s ORDER BY business_date"
    assert await rows(pg, charges, CITY) == [(20_000, 700, 100), (-20_000, -700, -100)]
    assert faults(postgres_url, folder, last) == set()
    with psycopg.connect(postgres_url) as other:
        other.execute("SET session_replication_role = replica")
        other.execute("UPDATE clearing_leg SET tariff_on = tariff_on + 700")
        other.commit()
    assert faults(postgres_url, folder, last) == {"clearing_leg"}
