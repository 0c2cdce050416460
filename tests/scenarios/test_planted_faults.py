"""Fifty faults of ten kinds among ten thousand rides: each is found as what it is, and nothing that is good is taken for one."""

from datetime import datetime

import psycopg
import pytest

from loadtests.planted_faults import ISSUER, ROOT, measure, score
from switch.domain.calendar import SHANGHAI
from switch.purse.risk.rules import read_rules
from switch.storage.pool import connect
from terminal_sim.planted import FaultKind, PlantedCity

pytestmark = pytest.mark.server

RULES = b"""
format = 1
[[rule]]
name = "clone"
matter = "card"
when = ["atc_collision = 1"]
[[rule]]
name = "money-vanished"
matter = "card"
when = ["chain_fen < 0"]
[[rule]]
name = "anything-large"
matter = "card"
when = ["amount_fen >= 400"]
"""
SIZE = {"rides": 10_000, "faults": 50, "seed": 11}


async def test_every_planted_fault_is_found_and_no_good_record_is_blamed(postgres_url: str) -> None:
    report = await measure(postgres_url, **SIZE, rules=read_rules(RULES))
    assert {kind.kind: (kind.planted, kind.hit, kind.found, kind.right) for kind in report.kinds} == {
        kind.value: (5, 5, 5, 5) for kind in FaultKind
    }
    assert report.refused == 0
    assert (
        report.records == 10_000 + 5 + 5 + 5 - 5
    )  # duplicates, clones, rides after a grey one; and the lost
    clone, vanished, large = report.rules
    assert (clone.records, clone.precision) == (5, 1.0)
    assert (vanished.records, vanished.precision) == (5, 1.0)
    assert large.precision is not None
    assert large.precision < 0.1

    # The score is of what the tables say: without the alarms three kinds are missed, and an alarm about a good record is seen.
    today = datetime.fromisoformat(report.day).replace(tzinfo=SHANGHAI)  # midnight may have passed
    city = PlantedCity(**SIZE, today=today, root=ROOT, issuer=ISSUER)
    with psycopg.connect(postgres_url, autocommit=True) as superuser:
        superuser.execute("SET session_replication_role = replica")
        superuser.execute("DELETE FROM purse_alarm")
        superuser.execute(
            "INSERT INTO purse_alarm (kind, entry_no, business_date, card, detail)"
            " SELECT 'CHAIN_BREAK', min(entry_no), min(business_date), min(card), '' FROM purse_record WHERE result = '10'"
        )
    async with await connect(postgres_url) as link:
        kinds, _ = await score(link, city)
    scored = {kind.kind: (kind.recall, kind.precision) for kind in kinds}
    assert scored["clone"][0] == scored["serial_reused"][0] == 0.0
    assert scored["chain_break"] == (0.0, 0.0)
    assert scored["lost"] == (1.0, 1.0)
