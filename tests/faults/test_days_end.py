"""The day's end under full load from two processes, and what comes days late."""

import asyncio
import json
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from switch.ledger.days import cut_over, ensure_days, seal_day
from switch.storage.pool import connect
from tests.helpers.load import Load
from tests.helpers.switch_process import SwitchProcess
from tests.helpers.till import Seen, Till, check_books, stored
from tests.helpers.town import Town

pytestmark = [pytest.mark.server, pytest.mark.slow]

TILLS = 32


@pytest.fixture(scope="module")
def both(town: Town) -> tuple[SwitchProcess, SwitchProcess]:
    return town.serve(), town.serve_beside()


def query(town: Town, text: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(town.database_url) as connection:
        return connection.execute(text, values).fetchall()


def open_day(town: Town) -> date:
    ((day,),) = query(
        town,
        "SELECT business_date FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at",
    )
    assert isinstance(day, date)
    return day


async def close(town: Town) -> dict[str, Any]:
    """The oldest day that is not closed, by the command."""
    report: dict[str, Any] = json.loads(await asyncio.to_thread(town.run, "close", "--yes", "--json"))
    return report


async def test_a_close_under_full_load_puts_each_transaction_in_one_day_and_refuses_none(
    town: Town, both: tuple[SwitchProcess, SwitchProcess]
) -> None:
    seen = Seen()
    tills = [Till(town.new_terminal(), seen, both[0].line) for _ in range(TILLS)]
    cards = [town.new_card("rich") for _ in range(16)]
    before = open_day(town)
    # Nobody dies here, so nothing is sent again: how long an answer took says nothing.
    async with Load(tills, cards, lambda: (both[0].line, both[1].line), seed=5, try_s=60.0) as load:
        await load.more(500)
        report = await close(town)
        assert report["day"] == before.isoformat()
        assert report["state"] == "closed"
        closed = query(town, "SELECT count(*), sum(effect_fen) FROM journal WHERE business_date = %s", before)
        await load.more(500)
    assert seen.answers.keys() == {"00"}
    assert (load.broken, load.malfunctions) == (0, 0)
    assert open_day(town) == before + timedelta(days=1)
    # Nothing came to the closed day after it was closed, and each row lies between its day's ends.
    assert closed == query(
        town, "SELECT count(*), sum(effect_fen) FROM journal WHERE business_date = %s", before
    )
    assert query(
        town,
        "SELECT count(*) FROM journal j JOIN business_day d USING (business_date)"
        " WHERE NOT (d.begins_at <= j.decided_at AND j.decided_at < d.ends_at)",
    ) == [(0,)]
    days = {approval.clearing_day for approval in seen.approvals if approval.clearing_day}
    assert days == {f"{before:%m%d}", f"{before + timedelta(days=1):%m%d}"}
    check_books(town.database_url, [seen])


async def test_three_days_later_reversals_repeats_and_tombstones_still_find_their_batch(
    town: Town, both: tuple[SwitchProcess, SwitchProcess]
) -> None:
    seen = Seen()
    one, other = both
    till = await Till(town.new_terminal(), seen, one.line).sign_on()
    card = town.new_card()
    day = open_day(town)
    kept, undone, voided = (till.pos.purchase(card, amount_fen) for amount_fen in (1_000, 2_000, 3_000))
    told = [await till.ask(request) for request in (kept, undone, voided)]
    void = till.pos.void(till.pos.batch.receipts[2])
    assert await till.code(void) == "00"
    never = till.pos.purchase(card, 500)  # made, but not sent yet
    await close(town)
    async with await connect(town.database_url) as connection:
        for later in (1, 2):  # ended early, and not closed yet
            await ensure_days(connection)
            ended = await cut_over(connection, day + timedelta(days=later), lead_s=0.05)
            await seal_day(connection, ended.day, (0, 1))
    assert open_day(town) == day + timedelta(days=3)

    assert stored(await till.ask(kept, other.line)) == stored(told[0])
    reversal = till.pos.reversal(undone, "98")
    late = await till.ask(reversal, other.line)
    assert late.fields[39] == "00"
    assert late.fields[37] == told[1].fields[37]
    assert stored(await till.ask(reversal, one.line)) == stored(late)
    assert await till.code(till.pos.reversal(voided, "98")) == "12"
    assert await till.code(till.pos.reversal(never, "98")) == "25"
    assert await till.code(never, other.line) == "22"
    other_amount = kept._replace(fields=kept.fields | {4: "000000000999"})
    assert await till.code(other_amount) == "94"
    assert (await till.buy(card, 9_000)).fields[39] == "00"
    assert (await till.buy(card, 1)).fields[39] == "51"
    rows = query(
        town,
        "SELECT j.business_date, j.original_date, j.effect_fen FROM journal j JOIN terminal USING (terminal_no)"
        " WHERE terminal_id = %s AND class = 1 AND answer = '00'",
        till.terminal.terminal_id,
    )
    assert rows == [(day + timedelta(days=3), day, -2_000)]
    check_books(town.database_url, [seen])
