"""The day that the benchmark closes, in small: with everything that a day can hold, all files of it written and found right by the audit."""

from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest
from psycopg import AsyncConnection

from loadtests.clearing_day import SHARDS, Size, build_city, fill_day, settle_down
from loadtests.close_bench import growth
from loadtests.growth_picture import picture
from switch.clearing.close import CloseTerms, close_day
from switch.clearing.files import parse_name
from switch.domain.calendar import clearing_date, day_bounds
from switch.operations.audit import audit
from tests.helpers.days import make_days

pytestmark = pytest.mark.server


async def test_a_day_of_the_benchmark_closes_into_files_that_the_audit_finds_right(
    pg: AsyncConnection[Any], postgres_url: str, terms: CloseTerms
) -> None:
    size = Size.of(2_000)._replace(cards=200, terminals=40)
    day = clearing_date(datetime.now(UTC)) - timedelta(days=1)
    begins_at, ends_at = day_bounds(day)
    await pg.execute(
        "INSERT INTO business_day (business_date, begins_at, ends_at) VALUES (%s, %s, %s)",
        (day, begins_at, ends_at),
    )
    await make_days(pg)
    await build_city(pg, size, day, merchants=12)
    await fill_day(pg, day, size, begins_at, timedelta(hours=22))
    await settle_down(pg, day)
    closed = await close_day(pg, day, terms._replace(shards=SHARDS, interop_centre=terms.centre_id), "test")
    # As many processes as the terms allow, in the session that planned all of this.
    shown = await pg.execute("SHOW max_parallel_workers_per_gather")
    assert await shown.fetchone() == (str(terms.parallel_workers),)
    kinds = {parse_name(name).kind for name in closed.rewritten}
    assert kinds == {"NP", "CM", "NS", "QS", "SS", "MR", "TR", "FH"}
    with psycopg.connect(postgres_url, autocommit=True) as link:
        report = audit(link, terms.folder)
    assert {verdict.name: verdict.places for verdict in report.verdicts if not verdict.good} == {}

    # Any of the long files alone, and some of both kinds together, are written as they were.
    long = [name for name in closed.rewritten if name[:2] in ("CM", "MR")]
    for lost in (long[:1], long[-1:], long[1::3]):
        for name in lost:
            (closed.folder / name).unlink()
        again = await close_day(pg, day, terms, "test")
        assert again.rewritten == tuple(lost)


def test_growth_is_the_power_with_which_time_grows_and_its_picture_is_well_formed() -> None:
    def day(transactions: int, seconds: float) -> dict[str, Any]:
        return {
            "transactions": transactions,
            "seconds": seconds,
            "python_cpu_s": seconds,
            "postgres": {"cpu_s": seconds},
            "yardstick": {"copy_entries_s": seconds / 8, "sm3_s": seconds / 8},
        }

    days = [day(10_000, 1.0), day(100_000, 10.0), day(1_000_000, 1_000.0)]
    assert [step["exponent"] for step in growth(days)] == [1.0, 2.0]
    text = picture(
        [
            {"at": "2026-11-26T06:00:00", "close": {"sizes": days[2:]}},
            {"at": "2026-11-26", "close": {"sizes": days[:2]}},
        ]
    )
    circles = ElementTree.fromstring(text).findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 2 * len(days)
