"""A decision meets the end of the day, and each table of the states is whole."""

import asyncio
from pathlib import Path

import pytest

from switch.clearing.disputes.reasons import REASONS
from switch.clearing.disputes.states import DAYS, NEXT, OPEN, RULE_TEXT, Action, State
from switch.ledger.days import cut_over
from switch.storage.pool import connect
from tests.helpers.days import make_days
from tests.helpers.disputed import Disputes, asking

pytestmark = pytest.mark.server


async def test_what_is_decided_while_the_day_ends_is_of_the_day_whose_lock_it_waited_for(
    town: Disputes,
) -> None:
    """It holds the gate from before it waits, so the old day is not sealed under it; the clock is read behind the locks."""
    await make_days(town.pg, 2)
    case_no = (await town.open(await town.buy(), asking("01"))).case_no
    async with await connect(town.url) as other:
        async with other.transaction():
            await other.execute("SELECT FROM account WHERE account_id = 110 FOR UPDATE")
            deciding = asyncio.create_task(town.decide(case_no))
            while not await town.rows(
                "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ):
                await asyncio.sleep(0)
            await cut_over(town.pg, town.day, 0)
        done = await deciding
    (dates,) = await town.rows(
        "SELECT e.business_date, j.business_date, p.business_date FROM dispute_event e JOIN journal j USING (entry_no) JOIN posting p USING (entry_no)"
    )
    assert set(dates) == {done.business_date}
    assert done.business_date > town.day


def test_the_manual_says_what_the_tables_say() -> None:
    text = (Path(__file__).parents[4] / "docs" / "disputes.md").read_text(encoding="utf-8")
    for code, reason in REASONS.items():
        assert f"| {code} | {reason.text} | {' '.join(sorted(reason.actions))} |\n" in text
    for rule, said in RULE_TEXT.items():
        assert f"| {rule} | {said} |\n" in text
    for action, days in DAYS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {action} "))
        assert row.split(" | ")[3] == str(days)
    for state in State:
        assert state in text
    assert set(NEXT.values()) | OPEN | {State.CLOSED, State.DENIED} == set(State)
    assert {action for _, action in NEXT} == set(Action)
