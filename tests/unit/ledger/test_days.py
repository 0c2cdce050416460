"""Business days against a real server: made ahead, cut over, sealed while a writer goes on."""

import asyncio
from datetime import date, timedelta
from importlib.resources import files
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.domain.calendar import clearing_date, day_bounds
from switch.domain.errors import DependencyError, InputRefused
from switch.ledger import days
from switch.ledger.days import cut_over, day_of, ensure_days, oldest_not_closed, open_day, seal_day
from switch.ledger.gate import GATE, PURSE_GATE_SHARD, TAKE_SHARED
from switch.storage.pool import connect
from switch.storage.sql import load

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]


async def partitions(pg: Pg, table: str) -> set[str]:
    cursor = await pg.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", (table,)
    )
    return {row[0] for row in await cursor.fetchall()}


async def test_days_and_partitions_are_made_ahead_and_again_is_no_change(pg: Pg) -> None:
    made = await ensure_days(pg, 3)
    assert len(made) == 4
    today = await open_day(pg)
    assert today is not None
    assert today.day == made[0]
    assert (today.begins_at, today.ends_at) == day_bounds(made[0])
    for table in days.PARTITIONED:
        assert await partitions(pg, table) == {f"{table}_{day:%Y%m%d}" for day in made}
    assert await ensure_days(pg, 3) == ()


async def test_partitions_of_days_that_are_not_closed_are_analysed_seldom(pg: Pg) -> None:
    closed, *rest = await ensure_days(pg, 2)
    seldom = {f"{table}_{day:%Y%m%d}" for table in days.PARTITIONED for day in rest}

    async def marked() -> set[str]:
        cursor = await pg.execute(
            "SELECT relname FROM pg_class WHERE reloptions = ARRAY['autovacuum_analyze_scale_factor=1.0']"
        )
        return {row[0] for row in await cursor.fetchall()}

    assert await marked() == seldom | {f"{table}_{closed:%Y%m%d}" for table in days.PARTITIONED}
    for name in await marked():  # as they were before migration 0048
        await pg.execute(f"ALTER TABLE {name} RESET (autovacuum_analyze_scale_factor)")
    await pg.execute("UPDATE business_day SET state = 2 WHERE business_date = %s", (closed,))
    migration = files("switch.storage.migrations") / "0048_seldom_analysed.sql"
    await pg.execute(migration.read_text(encoding="utf-8"))
    assert await marked() == seldom


async def test_two_processes_may_make_the_same_days_at_once(pg: Pg, postgres_url: str) -> None:
    others = [await connect(postgres_url) for _ in range(4)]
    made = await asyncio.gather(*(ensure_days(other, 2) for other in others))
    assert sorted(len(one) for one in made) == [0, 0, 0, 3]
    assert len(await partitions(pg, "journal")) == 3
    for other in others:
        await other.close()


async def test_days_that_were_missed_while_the_service_stood_still_are_made_without_a_hole(pg: Pg) -> None:
    cursor = await pg.execute("SELECT clock_timestamp()")
    row = await cursor.fetchone()
    assert row is not None
    past = clearing_date(row[0]) - timedelta(days=5)
    begins_at, ends_at = day_bounds(past)
    await pg.execute(
        "INSERT INTO business_day (business_date, begins_at, ends_at) VALUES (%s, %s, %s)",
        (past, begins_at, ends_at),
    )
    assert len(await ensure_days(pg, 1)) == 6
    oldest = await oldest_not_closed(pg)
    assert oldest is not None
    assert oldest.day == past
    cursor = await pg.execute(
        "SELECT count(*) FROM (SELECT begins_at, lag(ends_at) OVER (ORDER BY business_date) AS before FROM business_day) d"
        " WHERE begins_at <> before"
    )
    assert await cursor.fetchone() == (0,)


async def test_partitions_are_made_while_a_writer_has_the_table_open(pg: Pg, postgres_url: str) -> None:
    await ensure_days(pg, 0)
    async with await connect(postgres_url) as writer, writer.transaction():
        await writer.execute("LOCK TABLE journal IN ROW EXCLUSIVE MODE")  # what an INSERT takes
        assert len(await ensure_days(pg, 1)) == 1
    assert len(await partitions(pg, "journal")) == 2


async def test_a_partition_that_cannot_be_had_is_an_error_after_bounded_tries(
    pg: Pg, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(days, "_TRIES", 2)
    monkeypatch.setattr(days, "_LOCK_TIMEOUT", "20ms")
    async with await connect(postgres_url) as other, other.transaction():
        await other.execute("LOCK TABLE journal IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DependencyError, match="no lock for the partition of journal"):
            await ensure_days(pg, 0)
    await ensure_days(pg, 0)
    assert len(await partitions(pg, "journal")) == 1


async def test_cut_over_moves_the_end_of_one_day_and_the_beginning_of_the_next_together(pg: Pg) -> None:
    first, second, *_ = await ensure_days(pg, 2)
    before = await day_of(pg, first)
    row = await cut_over(pg, first, lead_s=5)
    following = await day_of(pg, second)
    assert before is not None
    assert following is not None
    assert row.ends_at < before.ends_at
    assert following.begins_at == row.ends_at
    assert following.ends_at == day_bounds(second)[1]
    again = await cut_over(pg, first, lead_s=60)
    assert again.ends_at == row.ends_at, "an end is only ever moved nearer"


async def test_cut_over_of_a_day_that_has_not_begun_or_has_no_successor_is_refused(pg: Pg) -> None:
    made = await ensure_days(pg, 1)
    with pytest.raises(InputRefused, match="no business day after"):
        await cut_over(pg, made[-1])
    made += await ensure_days(pg, 2)
    with pytest.raises(InputRefused, match="has not begun"):
        await cut_over(pg, made[1])
    with pytest.raises(InputRefused, match="no business day 2001-01-01"):
        await cut_over(pg, date(2001, 1, 1))


async def test_a_day_whose_end_is_far_off_cannot_be_sealed(pg: Pg) -> None:
    first, *_ = await ensure_days(pg, 1)
    row = await day_of(pg, first)
    assert row is not None
    if (row.ends_at - row.begins_at) < timedelta(hours=24):
        pytest.skip("not a whole day")
    await pg.execute(
        "UPDATE business_day SET ends_at = ends_at + interval '1 hour' WHERE business_date = (SELECT max(business_date) FROM business_day)"
    )
    last = await day_of(pg, first + timedelta(days=1))
    assert last is not None
    with pytest.raises(InputRefused, match="cannot be sealed yet"):
        await seal_day(pg, last.day, (0, 1), wait_s_max=1)


@pytest.mark.parametrize("shard", [0, 1, PURSE_GATE_SHARD])
async def test_seal_waits_for_a_booking_that_is_behind_a_gate(pg: Pg, postgres_url: str, shard: int) -> None:
    first, *_ = await ensure_days(pg, 1)
    async with await connect(postgres_url) as booking:
        async with booking.transaction():
            await booking.execute(TAKE_SHARED, (GATE, shard))
            await cut_over(pg, first, lead_s=0)
            sealing = asyncio.create_task(seal_day(pg, first, (0, 1)))
            done, _ = await asyncio.wait({sealing}, timeout=0.3)
            assert not done
        row = await sealing
    assert row.sealed_at is not None
    assert (row.state, await seal_day(pg, first, (0, 1))) == (1, row)


BOOK = """
INSERT INTO journal (shard, business_date, terminal_no, batch_no, stan, class, entry_no, merchant_no, kind, amount_fen, answer, rrn,
                     decided_at, digest)
SELECT %(shard)s, d.business_date, %(shard)s, 1, %(stan)s, 0, %(entry)s, 1, 1, 1, '00', '000000000000', t.now, sha256('')
  FROM (SELECT clock_timestamp() AS now) t JOIN business_day d ON d.begins_at <= t.now AND t.now < d.ends_at
"""


async def book(url: str, shard: int, stop: asyncio.Event) -> int:
    """Book one row per transaction, as the ledger does: gate first, then the clock and the day."""
    count = 0
    async with await connect(url) as connection:
        while not stop.is_set():
            count += 1
            async with connection.transaction():
                await connection.execute(TAKE_SHARED, (GATE, shard))
                await connection.execute(BOOK, {"shard": shard, "stan": count, "entry": count * 2 + shard})
    return count


async def until_booked(pg: Pg, day: date) -> None:
    async with asyncio.timeout(60):
        while True:
            cursor = await pg.execute("SELECT 1 FROM journal WHERE business_date = %s LIMIT 1", (day,))
            if await cursor.fetchone():
                return
            await asyncio.sleep(0.02)


async def test_each_row_is_in_exactly_one_day_and_none_comes_after_the_seal_while_writers_run(
    pg: Pg, postgres_url: str
) -> None:
    first, second, *_ = await ensure_days(pg, 1)
    stop = asyncio.Event()
    writers = [asyncio.create_task(book(postgres_url, shard, stop)) for shard in (0, 1)]
    await until_booked(pg, first)
    await cut_over(pg, first, lead_s=0.2)
    sealed = await seal_day(pg, first, (0, 1))
    cursor = await pg.execute("SELECT count(*) FROM journal WHERE business_date = %s", (first,))
    at_seal = await cursor.fetchone()
    await until_booked(pg, second)
    await asyncio.sleep(0.3)
    stop.set()
    booked = sum([await writer for writer in writers])
    cursor = await pg.execute(
        "SELECT count(*) FILTER (WHERE j.business_date = %(first)s), count(*) FILTER (WHERE j.business_date = %(second)s),"
        " count(DISTINCT entry_no), count(*) FILTER (WHERE j.decided_at < d.begins_at OR j.decided_at >= d.ends_at)"
        "  FROM journal j JOIN business_day d USING (business_date)",
        {"first": first, "second": second},
    )
    row = await cursor.fetchone()
    assert row is not None
    assert at_seal == (row[0],), "no row of a day after its seal"
    assert row[0] > 0
    assert row[1] > 0
    assert row[0] + row[1] == row[2] == booked
    assert row[3] == 0
    assert sealed.sealed_at is not None
    assert sealed.sealed_at >= sealed.ends_at


async def test_a_clock_that_is_set_back_into_a_sealed_day_finds_no_day_to_book_on(pg: Pg) -> None:
    first, *_ = await ensure_days(pg)
    await cut_over(pg, first, lead_s=0.0)
    await seal_day(pg, first, (0, 1))
    queries = [
        load("switch.ledger")["read_instant"],
        load("switch.ledger", "terminal_batches.sql")["read_instant"],
        load("switch.clearing", "foreign.sql")["read_instant"],
        load("switch.clearing", "received.sql")["open_date"],
    ]
    for query in queries:
        assert await (await pg.execute(query.encode())).fetchone() is not None
    # As if the clock had been set back by a minute: every instant of the calendar is a minute later.
    await pg.execute(
        "UPDATE business_day SET begins_at = begins_at + interval '1 minute', ends_at = ends_at + interval '1 minute'"
    )
    for query in queries:
        assert await (await pg.execute(query.encode())).fetchone() is None
