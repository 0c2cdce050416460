"""Whatever a bank's file says and whatever we have: every item of both sides is in one outcome, and counts and sums are those of the sides."""

import asyncio
import itertools
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switch.clearing.reconcile.run import Compared
from switch.operations import audit
from switch.operations.audit.checks import read_checks
from switch.storage.pool import connect, connect_now
from terminal_sim.host.day_file import Item
from tests.helpers.reconciling import Leg, Pg, ask, begins_at, compared, found_bank, rows, send, tell

pytestmark = pytest.mark.server

_generations = itertools.count(1)
KEYS = st.integers(1, 12)
LINES = st.lists(
    st.tuples(
        KEYS,
        st.sampled_from(
            ["line", "line", "line", "reversal", "declined", "other amount", "near", "other card"]
        ),
    ),
    max_size=14,
)
OURS = st.dictionaries(KEYS, st.tuples(st.sampled_from([1, 1, 1, 2, 3, 4, 5]), st.booleans()), max_size=10)


def line_of(key: int, how: str, day: date) -> Item:
    leg = Leg(key, 100 * key)
    if how == "reversal":
        return leg.reversal(day)
    changes: dict[str, dict[str, Any]] = {
        "declined": {"response": "51"},
        "other amount": {"amount_fen": 7},
        "near": {"amount_fen": 100 * key + 1},
        "other card": {"pan": "6228489999999999999"},
    }
    return leg.item(day, **changes.get(how, {}))


def money(item: Item) -> int:
    return 0 if item.response != "00" else -item.amount_fen if item.mti == "0420" else item.amount_fen


async def day_of(pg: Pg, days: list[date], data: Any, folder: Path) -> list[tuple[Compared, Any, list[Item]]]:
    """Two days one after the other, so that something is carried; what each comparison says, our items and the lines."""
    done = []
    for day, (ours, lines) in zip(days, data, strict=True):
        await pg.execute("DELETE FROM host_outbox WHERE created_at >= %s", (begins_at(day),))
        await pg.execute("DELETE FROM host_leg WHERE ended_at >= %s", (begins_at(day),))
        legs = [Leg(key, 100 * key, state) for key, (state, _) in sorted(ours.items())]
        known = {row[0] for row in await rows(pg, "SELECT leg_no FROM host_leg")}
        legs = [leg for leg in legs if leg.number not in known]
        await ask(pg, day, legs)
        undone = [leg for leg in legs if ours[leg.number][1] and leg.state in (1, 5)]
        for leg in undone:
            await tell(pg, day, leg)
        items = [line_of(key, how, days[0] if key in known else day) for key, how in lines]
        await send(pg, folder, day, items, sequence=next(_generations))
        count = len(legs) + len(undone)
        fen = sum(leg.amount_fen for leg in legs if leg.state in (1, 5) and leg not in undone)
        done.append((await compared(pg, day, tolerance_fen=1), (count, fen), items))
    return done


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.tuples(st.tuples(OURS, LINES), st.tuples(OURS, LINES)))
def test_both_sides_are_the_sum_of_the_outcomes_and_a_second_look_finds_the_same(
    postgres_url: str, data: Any
) -> None:
    async def run() -> list[tuple[Compared, Any, list[Item]]]:
        async with await connect(postgres_url) as pg:
            found = [
                row[0]
                for row in await rows(pg, "SELECT business_date FROM business_day WHERE state = 2 ORDER BY 1")
            ]
            with tempfile.TemporaryDirectory() as folder:
                return await day_of(pg, found or await found_bank(pg, 2), data, Path(folder))

    for done, ours, items in asyncio.run(run()):
        sums = [sum(column) for column in zip(*done.totals.values(), strict=True)]
        assert sums == [*ours, len(items), sum(map(money, items))]
    with connect_now(postgres_url) as connection, audit._snapshot(connection):
        checks = audit._Audit(connection, None)
        places = [place for check in read_checks("reconcile.sql") for place in checks.run(check).places]
    assert places == []
