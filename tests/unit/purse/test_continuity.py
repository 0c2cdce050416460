"""What is missing follows from the numbers that have come, in whatever order; old holes are told once; alarms say each matter once."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.purse import completeness
from switch.purse.shadow import SQL as SHADOW
from switch.purse.shadow import adjudicate, fold_purses
from switch.storage.pool import connect
from switch.telemetry.metrics import Metrics
from terminal_sim.records import RecordKind
from tests.helpers.offline import Fetch, Ride, pan_of, results, upload
from tests.unit.purse.conftest import Office

pytestmark = pytest.mark.server

HOLES = (
    "SELECT kind, owner, missing::text FROM purse_gap WHERE closed_at IS NULL ORDER BY kind, owner, missing"
)


@pytest.fixture
async def link(town: str) -> AsyncIterator[AsyncConnection[Any]]:
    connection = await connect(town)
    yield connection
    await connection.close()


def numbered(number: int, **changes: Any) -> bytes:
    """A record whose counter, PSAM serial and record serial are one number."""
    ride = Ride(
        atc=number, balance_fen=100_000 - 200 * number, psam_serial=number, record_serial=number, **changes
    )
    return ride.pack()


async def test_what_came_below_the_first_number_opens_a_hole_as_it_would_have_in_order(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    stray = "0" + pan_of(555)
    for number in (50, 44, 47):
        await office.take(upload(numbered(number, asn=stray)))
        await fold_purses(link)
    assert [row[2] for row in fetch(HOLES)] == ["[45,47)", "[48,50)"] * 3
    assert fetch("SELECT DISTINCT first_no, next_no FROM purse_sequence") == [(44, 51)]
    await office.take(upload(*(numbered(number, asn=stray) for number in (49, 45, 48, 46))))
    await fold_purses(link)
    assert fetch(HOLES) == []


async def test_a_card_begins_where_the_registry_says_and_what_lies_below_is_not_missed(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    fetch("UPDATE purse SET next_atc = 10 WHERE card_no = 1 RETURNING 1")
    rides = [Ride(atc=atc, balance_fen=100_000 - 200 * atc) for atc in (12, 3)]
    for ride in rides:
        await office.take(upload(ride.pack()))
        await fold_purses(link)
    assert fetch("SELECT first_no, next_no, missing::text FROM purse_sequence WHERE kind = 1") == [
        (10, 13, "{[10,12)}")
    ]
    counter = await completeness.counter_of(link, completeness.CARDS, int(pan_of(1)))
    assert counter is not None
    assert (counter.expected, counter.received, counter.missing) == (3, 1, 2)


async def test_a_hole_is_reported_once_after_thirty_days_and_so_is_what_late_records_leave_of_it(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    await office.take(upload(numbered(0), numbered(9)))
    await fold_purses(link)
    fetch("UPDATE purse_gap SET opened_at = opened_at - interval '29 days' RETURNING 1")
    await fold_purses(link)
    assert fetch("SELECT * FROM purse_alarm") == []
    fetch("UPDATE purse_gap SET opened_at = opened_at - interval '1 day' RETURNING 1")
    for _ in range(2):
        await fold_purses(link)
    await office.take(upload(numbered(5)))
    await fold_purses(link)
    alarms = fetch("SELECT kind, entry_no, card IS NOT NULL, detail FROM purse_alarm ORDER BY alarm_no")
    assert [row[:2] for row in alarms] == [("GAP_OVERDUE", None)] * 3
    assert sum(row[2] for row in alarms) == 1
    assert all(row[3].startswith("1 to 8 have not come since ") for row in alarms)
    assert fetch("SELECT count(*), count(reported_at) FROM purse_gap WHERE closed_at IS NULL") == [(6, 6)]
    metrics = Metrics()
    metrics.completeness(*await completeness.figures(link))
    text = metrics.text().decode()
    assert 'cardswitch_purse_gaps{counter="psam_serial"} 2.0' in text
    assert 'cardswitch_purse_missing{counter="record_serial"} 7.0' in text
    assert 'cardswitch_purse_missing{counter="batch_serial"} 0.0' in text
    assert 'cardswitch_purse_alarms{kind="GAP_OVERDUE"} 3.0' in text


async def test_a_kind_of_counter_that_others_add_is_listed_like_the_rest(
    link: AsyncConnection[Any], fetch: Fetch
) -> None:
    await link.execute("ALTER TABLE purse_sequence DROP CONSTRAINT purse_sequence_kind_check")
    fetch("INSERT INTO purse_sequence VALUES (4, 2, 8, '{[3,5)}', 1), (9, 2, 8, '{[3,5)}', 1) RETURNING 1")
    fetch(
        "INSERT INTO purse_gap (kind, owner, missing, opened_at) VALUES (4, 2, '[3,5)', now()), (9, 2, '[3,5)', now()) RETURNING 1"
    )
    found = await completeness.missing(link)
    assert [
        (one.kind.name, found.owner(one.kind, one.owner).name, one.received) for one in found.counters
    ] == [("batch_serial", "33500002", 5)]
    gaps, _ = await completeness.figures(link)
    assert gaps["batch_serial"][:2] == gaps["kind_9"][:2] == (1, 2)


async def test_a_terminal_that_numbers_two_records_alike_is_told_once_a_fold_and_never_for_a_repeat(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    first = Ride(atc=0, record_serial=7).pack()
    (again,) = await office.take(upload(first))
    (again,) = await office.take(upload(first))
    assert results(again) == ["03"]
    await fold_purses(link)
    assert fetch("SELECT * FROM purse_alarm") == []
    rides = [Ride(atc=n, balance_fen=100_000 - 200 * n, record_serial=7) for n in (1, 2)]
    await office.take(upload(*(ride.pack() for ride in rides)))
    await fold_purses(link)
    twins = [Ride(card=2, atc=n, balance_fen=100_000 - 200 * n, record_serial=9) for n in (0, 1)]
    await office.take(upload(*(ride.pack() for ride in twins), terminal_no=7))
    await fold_purses(link)
    kinds = "SELECT a.kind, r.terminal_no, r.atc FROM purse_alarm a JOIN purse_record r USING (entry_no) ORDER BY alarm_no"
    assert fetch(kinds) == [("RECORD_SERIAL_REUSED", 1, 1)]


async def test_a_shadow_that_stays_below_zero_is_told_when_it_goes_there_and_not_for_every_ride(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    count = "SELECT count(*) FROM purse_alarm WHERE kind = 'SHADOW_NEGATIVE'"

    async def ride(atc: int, fen: int) -> int:
        await office.take(upload(Ride(atc=atc, amount_fen=fen, balance_fen=200_000).pack()))
        await fold_purses(link)
        return int(fetch(count)[0][0])

    assert await ride(0, 99_999) == 0
    assert await ride(1, 2) == 1
    assert await ride(2, 500) == 1
    fetch("UPDATE purse SET loaded_fen = loaded_fen + 1000 WHERE card_no = 1 RETURNING 1")  # the late load
    assert await ride(3, 1) == 1
    assert await ride(4, 999) == 2


LOAD = (
    "INSERT INTO purse_load VALUES (1, 500, (SELECT min(business_date) FROM business_day), 1, 0, '335000000001', '\\x99993350ffffffff',"
    " 1, 4, 65, '\\x00000000', 5000, 99800, now(), 4, 1002, 99993350, %s, 'x', 1) RETURNING 1"
)


async def test_a_load_in_between_is_no_break_unless_its_money_has_gone_back(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    """The load is there before the card has it, so a record that shows it always finds it."""
    fetch(LOAD, 1)
    rides = [Ride(atc=0), Ride(atc=1, balance_fen=104_800), Ride(atc=2, balance_fen=104_650)]
    await office.take(upload(*(ride.pack() for ride in rides)))
    await fold_purses(link)
    breaks = (
        "SELECT r.atc, a.detail FROM purse_alarm a JOIN purse_record r USING (entry_no) ORDER BY alarm_no"
    )
    assert fetch(breaks) == [(2, "balance before ATC 2 is 104650 fen, expected 104600")]
    fetch("UPDATE purse_load SET state = 3, held = 0 RETURNING 1")
    fetch(
        "INSERT INTO purse_load_move SELECT shard, 501, 0, business_date, now(), entry_no, 1, 3, 'reversal' FROM purse_load RETURNING 1"
    )
    ((day,),) = fetch("SELECT min(business_date) FROM business_day")
    for _ in range(2):
        await adjudicate(link, day)
    assert fetch(breaks)[1:] == [
        (
            1,
            "balance before ATC 1 is 104800 fen, expected 99800: load 500 is on the card, and money went back",
        )
    ]


async def test_a_grey_record_is_paid_by_evidence_with_a_load_in_between(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    grey = Ride(atc=0, balance_fen=100_000, amount_fen=200, kind=RecordKind.GREY)
    await office.take(upload(grey.pack(), Ride(atc=1, balance_fen=104_800).pack()))
    assert (await adjudicate(link)).waiting == 1
    fetch(LOAD, 2)
    assert (await adjudicate(link)).paid == 1
    await fold_purses(link)
    assert fetch("SELECT kind FROM purse_alarm") == [("GREY_CONTRADICTION",)]


async def test_a_terminal_with_very_many_holes_is_looked_at_as_a_whole(
    link: AsyncConnection[Any], fetch: Fetch
) -> None:
    # Straight into the tables: uploads of so many records would take a minute.
    fetch("INSERT INTO purse_sequence SELECT 3, 1, 400002, range_agg(int8range(2 * n, 2 * n + 1)), 1"
          " FROM generate_series(1, 200000) AS n RETURNING 1")  # fmt: skip
    records = """INSERT INTO purse_record (entry_no, card_no, card, amount_fen, balance_fen, psam, psam_serial, record_serial, credit_owner,
                     happened_at, received_at, business_date, terminal_no, merchant_no, batch_no, atc, shard, credit_code, record_kind, result, raw)
                 SELECT n, 1, 1, 200, 1000, 335000000001, n, n, 1, now(), now(), business_date, 1, 1, 1, 1, 0, 2101, 0, '04', repeat('a', 96)::bytea
                   FROM generate_series(%s::int, %s::int, 2) AS n, business_day WHERE begins_at <= now() AND now() < ends_at RETURNING 1"""
    alarms = "SELECT kind, entry_no FROM purse_alarm"
    for first, last, told in ((2, 16_000, []), (16_001, 32_000, [("RECORD_SERIAL_REUSED", 16_001)])):
        fetch(records, first, last)
        async with link.transaction():
            await link.execute("SET LOCAL statement_timeout = '25s'")  # each record by itself would take 50 s
            await link.execute(SHADOW["collect"].encode(), {"folded_to": 0, "upto": 2**62})
            await link.execute(SHADOW["report_reused_serials"].encode())
        assert fetch(alarms) == told


async def test_very_many_new_holes_are_listed_before_the_server_knows_that_there_are_many(
    link: AsyncConnection[Any], fetch: Fetch
) -> None:
    fetch("INSERT INTO purse_sequence SELECT 3, 1, 60002, range_agg(int8range(2 * n, 2 * n + 1)), 1"
          " FROM generate_series(1, 30000) AS n RETURNING 1")  # fmt: skip
    fetch("INSERT INTO purse_gap (kind, owner, missing, opened_at)"
          " SELECT 3, 1, unnest(missing), now() FROM purse_sequence RETURNING 1")  # fmt: skip
    await link.execute("SET statement_timeout = '60s'")  # once for each hole took longer
    found = await completeness.missing(link)
    assert (found.counters[0].missing, len(found.gaps)) == (30_000, completeness.LISTED_MAX)
