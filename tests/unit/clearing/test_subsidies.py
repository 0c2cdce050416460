"""What fares were reduced by is made good by sponsors: one rule for a ride, whole fen, caps of rides and days, kept by the close."""

import json
from datetime import date, timedelta
from typing import Any

import pytest
import typer
from psycopg import AsyncConnection
from typer.testing import CliRunner

from switch.clearing.close import CloseTerms, close_day
from switch.clearing.subsidies import SubsidyRule, end_subsidy, set_subsidy, subsidies, subsidy_rules
from switch.domain.errors import InputRefused
from switch.operations.commands import fees
from tests.helpers.clearing_day import OTHER, OWN, Fare, add_records

pytestmark = pytest.mark.server
Pg = AsyncConnection[Any]

BUSES = "993350041110002"


async def agreed(pg: Pg, *terms: dict[str, Any], begins: date) -> list[int]:
    return [
        await set_subsidy(
            pg,
            SubsidyRule(
                **{"sponsor_id": OTHER, "discount": "OTHER", "rate_ppm": 1_000_000, "valid_from": begins}
                | one
            ),
            actor="li wei",
            checker="wang fang",
            reason="council",
        )
        for one in terms
    ]


async def ridden(pg: Pg, day: date, terms: CloseTerms, *rides: tuple[int, Fare]) -> list[dict[str, Any]]:
    """Rides of the day after `day`, closed: what it says of subsidies."""
    following = day + timedelta(days=1)
    await close_day(pg, day, terms, "a tester")
    await add_records(
        pg, following, 400_000_000, 2, [("10", fen) for fen, _ in rides], fares=[fare for _, fare in rides]
    )
    await close_day(pg, following, terms, "a tester")
    return await subsidies(pg, following, following)


async def test_the_most_specific_rule_counts_for_a_ride_and_no_other(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    general, lines, own = await agreed(
        pg,
        {"rate_ppm": 100_000},
        {"rate_ppm": 333_333, "line": "0002", "sponsor_id": OWN},
        {"rate_ppm": 1_000_000, "merchant_id": BUSES, "industry": 7, "ride_cap_fen": 30},
        begins=day + timedelta(days=1),
    )
    found = await ridden(
        pg,
        day,
        terms,
        (150, Fare(200)),  # 5
        (150, Fare(200)),  # 5
        (200, Fare(200)),  # no discount
        (200, Fare(190)),  # a full fare below the fare is none either
        (100, Fare(200, transfer=True)),  # of a transfer: no rule
        (100, Fare(201, line="0002")),  # 33.67
        (100, Fare(200, industry=7)),  # 100, capped at 30
        (100, Fare(200, industry=0)),  # not a ride
    )
    assert [
        (one["rule_no"], one["ride_count"], one["discount_fen"], one["subsidy_fen"]) for one in found
    ] == [
        (general, 2, 100, 10),
        (own, 1, 100, 30),
        (lines, 1, 101, 34),
    ], "in the order of sponsors"
    assert {one["merchant_id"] for one in found} == {BUSES}


async def test_a_day_asks_for_no_more_than_its_cap(pg: Pg, day: date, terms: CloseTerms) -> None:
    await agreed(pg, {"day_cap_fen": 120}, begins=day + timedelta(days=1))
    (one,) = await ridden(pg, day, terms, *[(100, Fare(150))] * 3)
    assert (one["asked_fen"], one["subsidy_fen"]) == (150, 120)


async def test_rules_begin_later_end_later_and_take_two_people(pg: Pg, day: date) -> None:
    soon = day + timedelta(days=1)
    (number,) = await agreed(pg, {}, begins=soon)
    rule = SubsidyRule(OTHER, "OTHER", 5, soon)
    two = {"actor": "li wei", "checker": "wang fang", "reason": "council"}
    for bad, how, words in (
        (rule, two, "same scope"),
        (rule._replace(discount="TRANSFER", valid_from=day), two, "after the open business day"),
        (rule._replace(discount="STUDENT"), two, "TRANSFER or OTHER"),
        (rule._replace(line="7"), two, "four hex digits"),
        (rule._replace(line="0007", valid_to=day), two, "must not end before it begins"),
        (rule._replace(line="0007", sponsor_id="12345678"), two, "not an institution"),
        (rule._replace(merchant_id="993350099999999"), two, "not in the registry"),
        (rule._replace(line="0007"), two | {"checker": "LI WEI"}, "another person"),
    ):
        with pytest.raises(InputRefused, match=words):
            await set_subsidy(pg, bad, **how)
    with pytest.raises(InputRefused, match="open business day or later"):
        await end_subsidy(pg, number, day - timedelta(days=1), **two)
    await end_subsidy(pg, number, soon, **two)
    with pytest.raises(InputRefused, match="no rule of this number"):
        await end_subsidy(pg, number, soon + timedelta(days=1), **two)
    assert [(one["rule_no"], one["valid_to"]) for one in await subsidy_rules(pg)] == [(number, soon)]


def test_an_operator_agrees_on_a_subsidy_and_gives_the_sponsor_a_table(
    day: date, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    cli = typer.Typer()
    cli.add_typer(fees.app, name="fees")

    def run(*words: str) -> str:
        done = CliRunner().invoke(cli, ["fees", "subsidies", *words])
        assert done.exit_code == 0, done.output
        return done.output

    two = ("--checker", "wang fang", "--reason", "council", "--actor", "li wei")
    told = run(
        "set",
        "--sponsor",
        OTHER,
        "--discount",
        "transfer",
        "--rate-ppm",
        "500000",
        "--from",
        "2199-01-01",
        *two,
    )
    assert told == "subsidy 1 from 2199-01-01 on\n"
    assert json.loads(run("list", "--json"))[0]["discount"] == "TRANSFER"
    assert "ends with" in run("end", "1", "--to", "2199-02-01", *two)
    assert run("of", day.isoformat()) == f"{day} to {day}: 0.00 together\n"
    assert run("of", day.isoformat(), "--csv").startswith("business_date,sponsor_id,rule_no")
