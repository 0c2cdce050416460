"""Whatever a day was made of, its files say it all, once, and add up: recomputed here from the lines and the rules alone."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switch.clearing.close import Closed, CloseTerms, close_day
from switch.clearing.fees import FeeRule, fee_split
from switch.clearing.files import check_file
from switch.clearing.layouts import Value
from switch.storage.pool import connect
from tests.helpers.clearing_day import CENTRE, OTHER, OWN, add_journal, add_participants, add_records
from tests.helpers.days import make_days

pytestmark = pytest.mark.server

ACQUIRER = {1: OWN, 2: OWN, 3: OTHER, 4: OWN}
RULE = {  # as tests.helpers.clearing_day sets them: by merchant and account kind
    **{(merchant, 10): FeeRule(3_800) for merchant in (2, 4)},
    (1, 10): FeeRule(6_000),
    (3, 10): FeeRule(5_000, 1, 2_600),
    **{(merchant, 50): FeeRule(6_000) for merchant in (1, 2, 3, 4)},
}
RESULTS = ("10", "10", "10", "01", "02", "03", "04", "11")
RECORDS = st.lists(st.tuples(st.sampled_from(RESULTS), st.integers(0, 2_000)), max_size=25)


class Town:
    """Days that follow each other in one database."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.entries = count(400_000_000, 1_000_000)
        self.day: date | None = None
        self.terms = CloseTerms(
            OWN, CENTRE, "49993350", (0, 1), folder, lambda day: day.weekday() < 5, lead_s=0.0
        )

    async def lived(self, purchases: int, records: dict[int, list[tuple[str, int]]]) -> Closed:
        async with await connect(self.url) as connection:
            if self.day is None:
                self.day, *_ = await make_days(connection, 3)
                await add_participants(connection)
            else:
                self.day += timedelta(days=1)
            await add_journal(connection, self.day, purchases, first=next(self.entries) * 1_000)
            for merchant, some in records.items():
                await add_records(connection, self.day, next(self.entries), merchant, some)
            return await close_day(connection, self.day, self.terms, "a tester")


@pytest.fixture
def town(postgres_url: str, tmp_path: Path) -> Iterator[Town]:
    return Town(postgres_url, tmp_path / "clearing")


def lines_of(closed: Closed, kind: str) -> dict[str, list[dict[str, Value]]]:
    """By receiver."""
    found: dict[str, list[dict[str, Value]]] = {}
    for path in closed.folder.glob(f"{kind}?*[0-9]"):
        lines = found.setdefault(path.name[10:18], [])
        with path.open("rb") as stream:
            check_file(path.name, stream, lambda _, values, lines=lines: lines.append(values))
    return found


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(purchases=st.integers(0, 60), buses=RECORDS, grocer=RECORDS)
def test_every_item_is_in_its_files_once_and_the_nets_are_gross_less_fees_and_sum_to_zero(
    town: Town, purchases: int, buses: list[tuple[str, int]], grocer: list[tuple[str, int]]
) -> None:
    records = {2: buses, 1: grocer}
    closed = asyncio.run(town.lived(purchases, records))
    by_merchant = lines_of(closed, "MR")
    nets: Counter[str] = Counter()
    for receiver, lines in by_merchant.items():
        merchant = int(receiver)
        for line in lines:
            split = fee_split(
                int(line["amount"]), RULE.get((merchant, int(line["account_kind"])), FeeRule(0))
            )
            assert (line["fee"], line["net"]) == (-split.fee_fen, int(line["amount"]) - split.fee_fen)
            nets[OWN] += split.issuer_fen - int(line["amount"])
            nets[ACQUIRER[merchant]] += int(line["amount"]) - split.issuer_fen - split.switch_fen
            nets[CENTRE] += split.switch_fen
    assert sum(nets.values()) == 0

    positions = {line["institution"]: line["net"] for line in lines_of(closed, "NP")[OWN]}
    assert positions == {one: nets[one] for one in positions}
    assert {one for one in nets if nets[one]} <= {*positions, CENTRE}

    accepted = Counter(
        (merchant, fen)
        for merchant, some in records.items()
        for result, fen in some
        if result == "10" and fen
    )
    assert accepted == Counter(
        (int(receiver), line["amount"])
        for receiver, lines in by_merchant.items()
        for line in lines
        if line["account_kind"] == 50
    )
    refused = Counter((result, fen) for some in records.values() for result, fen in some if result != "10")
    assert refused == Counter(
        (line["result"], line["amount"]) for line in lines_of(closed, "SS").get(OWN, [])
    )
    items = sum(len(lines) for lines in by_merchant.values())
    assert items == len(lines_of(closed, "CM")[OWN]), "we issued all of them"

    with psycopg.connect(town.url) as connection:
        waiting = connection.execute(
            "SELECT coalesce(sum(pending_count), 0), coalesce(sum(confirmed_count + refused_count), 0) FROM clearing_offline WHERE business_date = %s",
            (town.day,),
        ).fetchone()
    carried = sum(times for (result, _), times in refused.items() if result in ("04", "11"))
    assert waiting == (carried, len(buses) + len(grocer) - carried)
