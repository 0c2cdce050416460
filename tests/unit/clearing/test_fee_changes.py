"""Fee rules change by two people, from a day to come, and closed days keep what they froze."""

from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.clearing.close import CloseTerms, close_day
from switch.clearing.fee_changes import approve, explain, propose, stored_proposals, stored_rules, withdraw
from switch.clearing.fees import FeeRule, fee_split
from switch.domain.errors import InputRefused
from switch.domain.transactions import AccountKind
from tests.helpers.clearing_day import add_journal, add_records

pytestmark = pytest.mark.server
Pg = AsyncConnection[Any]

GROCER, NOODLES = "993350054110001", "993310058120003"


def rule(begins: date, **more: Any) -> dict[str, Any]:
    terms = {
        "merchant_id": None,
        "category": None,
        "account_kind": 10,
        "rate_ppm": 5_000,
        "minimum_fen": 0,
        "cap_fen": None,
        "weight_issuer": 7,
        "weight_switch": 1,
        "weight_acquirer": 2,
        "valid_from": begins.isoformat(),
        "valid_to": None,
    }
    return terms | more


async def asked(pg: Pg, *rules: dict[str, Any]) -> int:
    return await propose(pg, rules, actor="li wei", reason="council of March")


async def test_a_rule_begins_when_another_person_has_approved_it_and_the_old_one_ends_the_day_before(
    pg: Pg, day: date
) -> None:
    begins = day + timedelta(days=2)
    number = await asked(pg, rule(begins))
    assert len(await stored_rules(pg, begins)) == 4
    for same in (" Li Wei ", "li  wei", "\uff2c\uff29 \uff37\uff25\uff29", "l\u0456 w\u0435i"):
        with pytest.raises(InputRefused, match="another person"):
            await approve(pg, number, actor=same)
    (new,) = await approve(pg, number, actor="wang fang", note="as decided")
    general = [
        one
        for one in await stored_rules(pg, None)
        if one["account_kind"] == 10 and not one["merchant_id"] and not one["category"]
    ]
    assert [(one["rule_no"], one["valid_to"]) for one in general] == [
        (1, begins - timedelta(days=1)),
        (new, None),
    ]
    (kept,) = await stored_proposals(pg)
    assert (kept["state"], kept["decider"], kept["rules"][0]["rule_no"]) == ("APPROVED", "wang fang", new)
    with pytest.raises(InputRefused, match="approved before"):
        await approve(pg, number, actor="zhao min")


@pytest.mark.parametrize("later", [-1, 0])
async def test_a_rule_cannot_begin_within_the_open_day_or_before(pg: Pg, day: date, later: int) -> None:
    with pytest.raises(InputRefused, match="after the open business day"):
        await asked(pg, rule(day + timedelta(days=later)))
    assert await stored_proposals(pg) == []


async def test_a_proposal_that_waited_too_long_is_not_approved(pg: Pg, day: date, terms: CloseTerms) -> None:
    number = await asked(pg, rule(day + timedelta(days=1)))
    await close_day(pg, day, terms, "a tester")  # the next day is open now
    with pytest.raises(InputRefused, match="after the open business day"):
        await approve(pg, number, actor="wang fang")
    await withdraw(pg, number, actor="li wei", reason="too late")
    assert (await stored_proposals(pg))[0]["state"] == "WITHDRAWN"


async def test_a_change_at_noon_leaves_the_day_as_it_began_and_the_next_has_it(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    following = day + timedelta(days=1)
    number = await asked(pg, rule(following, merchant_id=GROCER, rate_ppm=20_000))
    await approve(pg, number, actor="wang fang")
    await add_records(pg, day, 400_000_000, 1, [("10", 200)])  # traffic goes on behind the change
    await close_day(pg, day, terms, "a tester")
    assert await grocer(pg, day) == {6_000}
    await add_journal(pg, following, 40, first=900_000_000)
    await close_day(pg, following, terms, "a tester")
    assert await grocer(pg, following) == {20_000}
    explained = await explain(pg, GROCER, AccountKind.ONLINE, day, 10_000)
    assert (explained.frozen, explained.rule.rate_ppm, explained.split.fee_fen) == (True, 6_000, 60)


async def grocer(pg: Pg, day: date) -> set[int]:
    cursor = await pg.execute(
        "SELECT rate_ppm FROM clearing_rule WHERE business_date = %s AND merchant_no = 1 AND account_kind = 10",
        (day,),
    )
    return {row[0] for row in await cursor.fetchall()}


async def test_rules_that_meet_are_refused_and_nothing_is_written(pg: Pg, day: date) -> None:
    soon, later = day + timedelta(days=2), day + timedelta(days=9)
    refused = (
        ((rule(soon), rule(later)), "the same scope at the same time"),
        ((rule(soon, valid_to=later.isoformat()),), "nothing to follow"),
        ((rule(soon, merchant_id="993350099999999"),), "not in the registry"),
        ((rule(soon, weight_issuer=0, weight_switch=0, weight_acquirer=0),), "figures cannot be"),
        ((), "1 to"),
    )
    for rules, words in refused:
        with pytest.raises(InputRefused, match=words):
            await asked(pg, *rules)
    await approve(pg, await asked(pg, rule(later)), actor="wang fang")
    with pytest.raises(InputRefused, match="begins in its time"):
        await asked(pg, rule(soon))
    assert len(await stored_proposals(pg)) == 1


async def test_a_rule_for_a_time_needs_one_that_follows(pg: Pg, day: date) -> None:
    soon = day + timedelta(days=2)
    until = soon + timedelta(days=6)
    number = await asked(
        pg,
        rule(soon, rate_ppm=0, valid_to=until.isoformat()),
        rule(until + timedelta(days=1), rate_ppm=3_800),
    )
    free, back = await approve(pg, number, actor="wang fang")
    in_force = {
        (one["rule_no"], one["rate_ppm"])
        for when in (soon, until, until + timedelta(days=1))
        for one in await stored_rules(pg, when)
        if one["account_kind"] == 10 and not one["merchant_id"] and not one["category"]
    }
    assert in_force == {(free, 0), (back, 3_800)}


async def test_what_is_decided_cannot_be_changed(pg: Pg, day: date) -> None:
    number = await asked(pg, rule(day + timedelta(days=2)))
    await approve(pg, number, actor="wang fang")
    for statement in (
        "UPDATE fee_proposal SET reason = 'another'",
        "UPDATE fee_proposal_rule SET rate_ppm = 1",
        "DELETE FROM fee_proposal_rule",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation):
            await pg.execute(statement.encode())


async def test_the_most_specific_rule_is_the_one_that_counts_and_the_others_say_why_not(
    pg: Pg, day: date
) -> None:
    found = await explain(pg, NOODLES, AccountKind.ONLINE, day, 600_000)
    assert [(one.scope, why) for one, why in found.candidates] == [
        ("category", ""),
        ("general", f"less specific than rule {found.rule_no}"),
    ]
    assert found.split == fee_split(600_000, FeeRule(5_000, 1, 2_600))
    nobody = await explain(pg, NOODLES, AccountKind.BANK, day, 600_000)
    assert (nobody.rule_no, nobody.split.fee_fen) == (None, 0)
    early = await explain(pg, NOODLES, AccountKind.ONLINE, date(2019, 12, 31), 100)
    assert [why for _, why in early.candidates] == ["begins on 2020-01-01"] * 2
    with pytest.raises(InputRefused, match="not in the registry"):
        await explain(pg, "993350099999999", AccountKind.ONLINE, day, 1)


async def test_a_rule_may_end_with_the_last_day_of_the_calendar(pg: Pg, day: date) -> None:
    number = await asked(pg, rule(day + timedelta(days=2), category="7999", valid_to="9999-12-31"))
    (new,) = await approve(pg, number, actor="wang fang")
    assert [
        one["valid_to"] for one in await stored_rules(pg, date(9999, 12, 31)) if one["rule_no"] == new
    ] == [date(9999, 12, 31)]
