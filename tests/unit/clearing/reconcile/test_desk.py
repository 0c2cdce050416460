"""Differences before people: what may follow what, whose money moves where, and what is refused."""

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.clearing.reconcile.desk import (
    Decision,
    ageing,
    decide,
    list_differences,
    show_difference,
)
from switch.clearing.reconcile.expected import Due, Figures, expectations, figures, keep_expecting, told
from switch.clearing.settlement.resolving import EntryName
from switch.clearing.settlement.statements import list_odd
from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.storage.pool import end_tasks
from tests.helpers.reconciling import BANK, Leg, Pg, ask, compared, found_bank, rows, say, send

pytestmark = pytest.mark.server


def by(action: str, *, reason: str = "statement of the bank", **more: Any) -> Decision:
    return Decision(action, "li wei", "wang fang", reason, **more)


async def differing(pg: Pg, folder: Path) -> tuple[date, dict[str, int]]:
    """A day with one difference of each kind, all open, and their numbers."""
    _, day, _ = await found_bank(pg)
    legs = [Leg(number, 1_000) for number in (1, 2, 3, 4)]
    await ask(pg, day, legs)
    items = [
        legs[0].item(day, amount_fen=900),
        legs[1].item(day, amount_fen=1_100),
        legs[3].item(day, response="51"),
        Leg(9, 777).item(day),
    ]
    await send(pg, folder, day, items)
    await compared(pg, day, roll_days=0)
    found = await rows(
        pg, "SELECT outcome || sign(theirs_fen - ours_fen), difference_no FROM reconcile_difference"
    )
    return day, dict(found)


async def refused(pg: Pg, number: int, decision: Decision) -> str:
    before = await rows(pg, "SELECT (SELECT count(*) FROM reconcile_step), (SELECT count(*) FROM booking)")
    with pytest.raises(InputRefused) as error:
        await decide(pg, number, decision)
    after = await rows(pg, "SELECT (SELECT count(*) FROM reconcile_step), (SELECT count(*) FROM booking)")
    assert after == before
    return str(error.value)


async def test_money_that_came_waits_in_suspense_and_leaves_it_once(pg: Pg, tmp_path: Path) -> None:
    _, numbers = await differing(pg, tmp_path)
    long, more = numbers["long1"], numbers["amount1"]
    assert (await decide(pg, long, by("suspense"))).state == "SUSPENSE"
    assert "in 2201 already" in await refused(pg, long, by("suspense"))
    assert "sent-back or settled" in await refused(pg, long, by("accept"))
    assert (await decide(pg, long, by("settled", reason="for item 9"))).state == "CLOSED"
    assert "is closed" in await refused(pg, long, by("sent-back"))
    await decide(pg, more, by("suspense"))
    await decide(pg, more, by("sent-back"))
    posted = (
        "SELECT debit_code, debit_owner, credit_code, credit_owner, amount_fen FROM posting ORDER BY entry_no"
    )
    assert await rows(pg, posted) == [
        (1001, 0, 2201, 0, 777),
        (2201, 0, 1001, 0, 777),
        (1001, 0, 1101, int(BANK), 777),
        (1001, 0, 2201, 0, 100),
        (2201, 0, 1001, 0, 100),
    ]
    assert await rows(pg, "SELECT DISTINCT source, actor, checker FROM booking ORDER BY 1") == sorted(
        (f"difference {number}", "li wei", "wang fang") for number in (long, more)
    )
    decided = (await show_difference(pg, long))["decisions"]
    assert [(step["action"], step["from"], step["to"], step["reason"]) for step in decided] == [
        ("suspense", "OPEN", "SUSPENSE", "statement of the bank"),
        ("settled", "SUSPENSE", "CLOSED", "for item 9"),
    ]


async def test_money_that_the_statement_has_booked_is_linked_and_not_booked_again(
    pg: Pg, tmp_path: Path
) -> None:
    _, numbers = await differing(pg, tmp_path)
    long, more = numbers["long1"], numbers["amount1"]
    await say(pg, 777, 150, -100, 50)
    assert "STMT-1/1 of the bank's statement is of just this" in await refused(pg, long, by("suspense"))
    for number, line, why in (
        (long, 2, "150 fen of it lie in suspense, and 777 are wanted"),
        (more, 3, "-100 fen of it lie in suspense"),
        (more, 9, "no statement has such an entry"),
    ):
        assert why in await refused(pg, number, by("suspense", entry=EntryName("STMT-1", line)))
    assert "goes with" in await refused(pg, long, by("accept", entry=EntryName("STMT-1", 1)))
    await decide(pg, long, by("suspense", entry=EntryName("STMT-1", 1)))
    await decide(pg, more, by("suspense", entry=EntryName("STMT-1", 2)))
    assert await rows(pg, "SELECT count(*) FROM booking") == [(0,)]
    odd = [(one["line"], one["rest_fen"]) for one in await list_odd(pg, waiting=False)]
    assert odd == [(2, 50), (3, -100), (4, 50)]
    await decide(pg, long, by("settled"))
    assert "STMT-1/3 of the bank's statement is of just this" in await refused(pg, more, by("sent-back"))
    await decide(pg, more, by("sent-back", entry=EntryName("STMT-1", 3)))
    assert await rows(pg, "SELECT event, amount_fen FROM booking ORDER BY 1") == [
        ("bank_settled", 777),
        ("money_sent_back", 777),
    ]
    assert [one["line"] for one in await list_odd(pg, waiting=False)] == [2, 4]
    assert [step["entry"] for step in (await show_difference(pg, more))["decisions"]] == [
        "STMT-1/2",
        "STMT-1/3",
    ]


async def test_other_money_of_the_same_amount_is_booked_when_somebody_says_why(
    pg: Pg, tmp_path: Path
) -> None:
    _, numbers = await differing(pg, tmp_path)
    long = numbers["long1"]
    await say(pg, 777)
    assert "name it by --entry" in await refused(pg, long, by("suspense"))
    await decide(pg, long, by("suspense", although="paid in at the counter, receipt 4711"))
    assert await rows(pg, "SELECT event, amount_fen FROM booking") == [("money_unexplained", 777)]
    decided = (await show_difference(pg, long))["decisions"]
    assert [(step["although"], step["entry"]) for step in decided] == [
        ("paid in at the counter, receipt 4711", None)
    ]


async def test_what_the_rules_forbid_is_refused_and_says_why(pg: Pg, tmp_path: Path) -> None:
    _, numbers = await differing(pg, tmp_path)
    short = numbers["short-1"]
    table = [
        (short, by("suspense"), "no more than we have"),
        (short, by("settled"), "none of its money is in 2201"),
        (short, by("loaded"), "is not of a load"),
        (short, by("case"), "case: a number"),
        (short, by("accept")._replace(checker="Li Wei"), "another person"),
        (short, by("accept")._replace(checker=" "), "checker: a name of 1 to 100 characters"),
        (short, by("accept", reason="  "), "reason"),
        (short, by("forgiven"), "as: one of"),
        (99, by("accept"), "no such difference"),
    ]

    async def nobody(_load: int, _to: object) -> None:
        raise AssertionError("no load is settled")

    for number, decision, why in table:
        with pytest.raises(InputRefused, match=why):
            await decide(pg, number, decision, nobody)
    assert await rows(pg, "SELECT count(*) FROM reconcile_step") == [(0,)]
    assert (await decide(pg, short, by("case", case_no="C-7"))).state == "OPEN"
    assert (await decide(pg, short, by("accept"))).state == "CLOSED"
    assert await rows(
        pg, "SELECT case_no, state FROM reconcile_difference WHERE difference_no = %s", short
    ) == [("C-7", "CLOSED")]
    with pytest.raises(psycopg.errors.RestrictViolation):
        await pg.execute("UPDATE reconcile_step SET reason = 'other'")


async def test_money_of_an_item_is_taken_once_whatever_generation_of_the_file_says_how_much(
    pg: Pg, tmp_path: Path
) -> None:
    _, day, _ = await found_bank(pg)
    found = []
    for sequence, fen in enumerate((5, 6), 1):
        await send(pg, tmp_path, day, [Leg(1, fen).item(day)], sequence=sequence)
        await compared(pg, day, roll_days=0)
        ((number,),) = await rows(
            pg, "SELECT difference_no FROM reconcile_difference WHERE state = 'OPEN' AND theirs_fen = %s", fen
        )
        found.append(number)
        if sequence == 1:
            await decide(pg, number, by("suspense"))
    assert f"as difference {found[0]} already" in await refused(pg, found[1], by("suspense"))
    await decide(pg, found[1], by("accept", reason="see the other"))


async def test_what_waits_for_the_next_file_waits_and_a_decision_outlives_a_new_generation(
    pg: Pg, tmp_path: Path
) -> None:
    _, day, _ = await found_bank(pg)
    await send(pg, tmp_path, day, [Leg(1, 5).item(day), Leg(2, 6).item(day)])
    await compared(pg, day)
    (first,), (second,) = await rows(pg, "SELECT difference_no FROM reconcile_difference ORDER BY theirs_fen")
    assert "waits for the partner's file of the next day" in await refused(pg, first, by("accept"))
    await compared(pg, day, roll_days=0)
    await decide(pg, first, by("suspense"))
    await decide(pg, second, by("accept"))
    await send(pg, tmp_path, day, [], sequence=2)
    await compared(pg, day, roll_days=0)
    states = "SELECT state FROM reconcile_difference ORDER BY theirs_fen"
    assert await rows(pg, states) == [
        ("SUSPENSE",),
        ("CLOSED",),
    ]  # the money is here, whatever the file says now
    assert [one["difference"] for one in await list_differences(pg)] == [first]


async def test_open_differences_are_listed_masked_with_three_sides_and_by_age(pg: Pg, tmp_path: Path) -> None:
    day, numbers = await differing(pg, tmp_path)
    await pg.execute(
        "INSERT INTO terminal_batch (terminal_no, batch_no, opened_on, state, closed_at) VALUES (1, 1, %s, 2, now())",
        (day,),
    )
    await pg.execute(
        "INSERT INTO terminal_batch_detail VALUES (1, 1, 1, 1, '2', 1, '6228480000000000001', 900)"
    )
    listed = await list_differences(pg, partner=BANK, day=day)
    assert [one["difference"] for one in listed] == sorted(numbers.values())
    assert all("*" in one["card"] for one in listed)
    shown = await show_difference(pg, numbers["amount-1"])
    assert (shown["terminal"], shown["ours"]["amount_fen"], shown["theirs"][0]["amount_fen"]) == (
        "listed with 900 fen",
        1_000,
        900,
    )
    assert (await show_difference(pg, numbers["amount1"]))["terminal"] == "totals agree"
    assert (await show_difference(pg, numbers["long1"]))["ours"] is None
    age = listed[0]["age_days"]
    assert 2 <= age <= 7
    expected = {"0-1": (0, 0), "2-7": (5, 100 + 100 + 1_000 + 1_000 + 777), "8-30": (0, 0), "31+": (0, 0)}
    assert await ageing(pg) == {BANK: expected}


async def test_files_are_expected_until_they_are_compared_and_overdue_behind_their_time(
    pg: Pg, tmp_path: Path
) -> None:
    first, second, third = await found_bank(pg)
    await ask(pg, first, [Leg(1, 10)])
    due = [Due(BANK, first, by=time(9))]
    nine = datetime.combine(third, time(9), SHANGHAI)  # when the second day's file is due

    async def states(now: datetime) -> list[tuple[date, str, int]]:
        return [(one.day, one.state, one.carried) for one in await expectations(pg, due, now)]

    assert await states(nine) == [(second, "waiting", 0), (first, "overdue", 0)]
    await send(pg, tmp_path, first, [])
    await compared(pg, first)
    assert await states(nine) == [(second, "waiting", 1), (first, "compared", 0)]
    late = nine + timedelta(seconds=1)
    assert await states(late) == [(second, "overdue", 1), (first, "compared", 0)]
    now = await figures(pg, due, late)
    assert (now[BANK].overdue, now[BANK].open) == (1, 0)
    seen: asyncio.Queue[Mapping[str, Figures]] = asyncio.Queue()
    keeping = asyncio.create_task(keep_expecting(lambda: nullcontext(pg), due, seen.put_nowait))
    assert (await seen.get())[BANK].overdue > 1  # by the clock, the days since are late too
    await end_tasks(keeping)
    assert told(now) == f"1 files of {BANK} overdue"
    await send(pg, tmp_path, second, [])
    assert await states(nine) == [(second, "taken", 1), (first, "compared", 0)]
    await compared(pg, second)
    assert await states(late) == [(second, "compared", 0), (first, "compared", 0)]
    now = await figures(pg, due, late)
    assert (now[BANK].overdue, now[BANK].open, told(now)) == (0, 1, "")
    await send(pg, tmp_path, second, [], sequence=2)  # a new generation that nobody has compared
    assert (await states(late))[0][1] == "overdue"
