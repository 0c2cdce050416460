"""When the service closes a day by itself, and what it does when it cannot."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.clearing import schedule
from switch.clearing.close import CloseRefused, CloseTerms, Progress, close_day, day_folder
from switch.clearing.files import FolderError
from switch.clearing.schedule import PAUSE_FIRST_S, PAUSE_MAX_S, DayCloser, Waiting, at_the_latest, is_due
from switch.domain.calendar import SHANGHAI
from switch.domain.errors import DependencyError
from switch.ledger.days import ensure_days
from switch.storage.pool import connect
from tests.helpers.clearing_day import CENTRE, OWN

Pg = AsyncConnection[Any]
ONE = time(1)
DAY = date(2026, 11, 26)
END = datetime(2026, 11, 26, 23, tzinfo=SHANGHAI)


# switch time               batches   due
CASES = """
    2026-11-26 22:59:59.999  none     no
    2026-11-26 23:00:00.000  none     yes
    2026-11-26 23:00:00.000  open     no
    2026-11-27 00:59:59.999  open     no
    2026-11-27 01:00:00.000  open     yes
    2026-11-27 01:00:00.000  none     yes
    2026-11-30 00:30:00.000  open     yes
"""


@pytest.mark.parametrize("line", CASES.strip().splitlines())
def test_a_day_is_closed_when_its_batches_are_or_at_one_whichever_is_first(line: str) -> None:
    day, at, batches, due = line.split()
    now = datetime.fromisoformat(f"{day}T{at}+08:00")
    assert is_due(Waiting(DAY, END, batches == "open"), now, ONE) == (due == "yes")


def test_the_latest_time_is_the_first_that_comes_at_or_after_the_end_even_of_a_day_that_was_ended_early() -> (
    None
):
    assert at_the_latest(END, ONE) == datetime(2026, 11, 27, 1, tzinfo=SHANGHAI)
    assert at_the_latest(END.replace(hour=14), ONE) == datetime(2026, 11, 27, 1, tzinfo=SHANGHAI)
    assert at_the_latest(END.replace(hour=0, minute=30), ONE) == datetime(2026, 11, 26, 1, tzinfo=SHANGHAI)
    assert at_the_latest(END, time(23)) == END


# ---------------------------------------------------------------------- against a server


class Stop(Exception):
    """Ends a closer that would go on for ever."""


class Driven:
    """A closer whose pauses are the test's: `turns` of them, each noted."""

    def __init__(self, url: str, terms: CloseTerms, actor: str = "the service") -> None:
        self.url = url
        self.terms = terms._replace(may_end=False)
        self.actor = actor
        self.pauses: list[float] = []
        self.days: list[date] = []
        self.fails: list[Exception] = []
        self.closer = DayCloser(self.connected, self.close, ONE, self.pause)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Pg]:
        async with await connect(self.url) as connection:
            yield connection

    async def close(self, day: date, tell: Callable[[Progress], None]) -> None:
        self.days.append(day)
        if self.fails:
            raise self.fails.pop(0)
        async with await connect(self.url) as connection:
            await close_day(connection, day, self.terms, self.actor, tell)

    async def pause(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        if len(self.pauses) == self.turns:
            raise Stop

    async def run(self, turns: int) -> None:
        self.turns = len(self.pauses) + turns
        with pytest.raises(Stop):
            await self.closer.run()


@pytest.fixture
def driven(postgres_url: str, terms: CloseTerms) -> Driven:
    return Driven(postgres_url, terms)


async def days_ago(pg: Pg, days: int) -> None:
    """Let the database's clock be so many days later: every stored end moves back."""
    await pg.execute(
        "UPDATE business_day SET begins_at = begins_at - make_interval(days => %s), ends_at = ends_at - make_interval(days => %s)",
        (days, days),
    )


async def states(pg: Pg) -> dict[date, int]:
    return dict(await (await pg.execute("SELECT business_date, state FROM business_day")).fetchall())


@pytest.mark.server
async def test_an_open_day_is_left_alone_and_missed_days_are_closed_one_after_the_other(
    pg: Pg, day: date, driven: Driven
) -> None:
    await driven.run(1)
    assert driven.pauses == [schedule.LOOK_EVERY_S]
    assert driven.closer.closing.note() == ""
    await days_ago(pg, 3)
    await ensure_days(pg)
    await driven.run(4)
    missed = [day + timedelta(days=ahead) for ahead in range(3)]
    assert driven.days == missed
    assert driven.pauses[1:] == [0.0, 0.0, 0.0, schedule.LOOK_EVERY_S]
    assert {one for one, state in (await states(pg)).items() if state == 2} == set(missed)
    closing = driven.closer.closing
    assert (closing.last_closed, closing.day, closing.days_overdue, closing.note()) == (
        missed[-1],
        None,
        0,
        "",
    )
    assert closing.seconds.keys() >= {"cut-over", "seal", "fees", "files", "reports"}


@pytest.mark.server
async def test_it_waits_for_open_batches_and_not_longer_than_it_may(
    pg: Pg, day: date, driven: Driven
) -> None:
    await pg.execute(
        "INSERT INTO terminal_batch (terminal_no, batch_no, opened_on) VALUES (1, 1, %s), (2, 1, %s)",
        (day, day + timedelta(days=1)),
    )
    await pg.execute("SET TIME ZONE 'UTC'")
    # The day has just ended, and the latest time is an hour away.
    await end_a_moment_ago(pg, day)
    latest = (datetime.now(SHANGHAI) + timedelta(hours=1)).time().replace(microsecond=0)
    driven.closer = DayCloser(driven.connected, driven.close, latest, driven.pause)
    await driven.run(1)
    assert driven.days == []
    assert f"{day} waits for open batches until" in driven.closer.closing.note()
    # The time has come: an instant that has passed since the end.
    passed = (await scalar(pg, "SELECT ends_at FROM business_day WHERE business_date = %s", day)).astimezone(
        SHANGHAI
    )
    driven.closer = DayCloser(driven.connected, driven.close, passed.time(), driven.pause)
    await driven.run(1)
    assert driven.days == [day]
    (batch,) = await (await pg.execute("SELECT terminal FROM clearing_open_batch")).fetchall()
    assert batch == ("33500001",)


async def end_a_moment_ago(pg: Pg, day: date) -> None:
    async with pg.transaction():
        await pg.execute("SET CONSTRAINTS ALL DEFERRED")
        await pg.execute(
            "UPDATE business_day SET ends_at = date_trunc('milliseconds', clock_timestamp()) WHERE business_date = %s",
            (day,),
        )
        await pg.execute(
            "UPDATE business_day SET begins_at = (SELECT ends_at FROM business_day WHERE business_date = %s) WHERE business_date = %s",
            (day, day + timedelta(days=1)),
        )


async def scalar(pg: Pg, query: str, *values: object) -> Any:
    row = await (await pg.execute(query, values)).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.server
async def test_a_batch_that_is_closed_in_time_lets_the_day_be_closed_at_once(
    pg: Pg, day: date, driven: Driven
) -> None:
    await pg.execute(
        "INSERT INTO terminal_batch (terminal_no, batch_no, opened_on) VALUES (1, 1, %s)", (day,)
    )
    await end_a_moment_ago(pg, day)
    latest = (datetime.now(SHANGHAI) + timedelta(hours=1)).time()
    driven.closer = DayCloser(driven.connected, driven.close, latest, driven.pause)
    await driven.run(1)
    assert driven.days == []
    await pg.execute("UPDATE terminal_batch SET state = 2")
    await driven.run(1)
    assert driven.days == [day]
    assert (await states(pg))[day] == 2


@pytest.mark.server
async def test_a_clock_that_is_set_back_closes_nothing_early_and_nothing_twice(
    pg: Pg, day: date, driven: Driven, terms: CloseTerms
) -> None:
    await days_ago(pg, 1)
    await ensure_days(pg)
    ends_at = await scalar(pg, "SELECT ends_at FROM business_day WHERE business_date = %s", day)
    close = driven.close

    async def set_back(one: date, tell: Callable[[Progress], None]) -> None:
        await days_ago(pg, -1)  # between the look and the close the clock is set back by a day
        await close(one, tell)

    driven.closer = DayCloser(driven.connected, set_back, ONE, driven.pause)
    await driven.run(1)
    assert driven.pauses == [PAUSE_FIRST_S]
    assert "has not ended by the database's clock" in driven.closer.closing.last_error
    assert (await states(pg))[day] == 0
    assert await scalar(
        pg, "SELECT ends_at FROM business_day WHERE business_date = %s", day
    ) == ends_at + timedelta(days=1)
    assert await scalar(pg, "SELECT count(*) FROM clearing_day") == 0
    driven.closer = DayCloser(driven.connected, driven.close, ONE, driven.pause)
    await driven.run(1)
    assert driven.closer.closing.note() == ""  # it is an open day again, and nothing is to be done
    await days_ago(pg, 1)
    await driven.run(2)
    assert (await states(pg))[day] == 2
    before = driven.days.copy()
    await days_ago(pg, -1)  # set back after the close: the day is over all the same
    await driven.run(1)
    assert driven.days == before


@pytest.mark.server
async def test_of_two_services_at_once_one_closes_and_the_other_says_who(
    pg: Pg, day: date, postgres_url: str, terms: CloseTerms
) -> None:
    await days_ago(pg, 1)
    await ensure_days(pg)
    one, other = Driven(postgres_url, terms, "service A"), Driven(postgres_url, terms, "service B")
    told: list[str] = []

    async def hold(chosen: date, tell: Callable[[Progress], None]) -> None:
        async with await connect(postgres_url) as connection:

            def step(progress: Progress) -> None:
                tell(progress)
                if progress.step == "netting" and not progress.finished:
                    reached.set()

            closing = asyncio.create_task(close_day(connection, chosen, one.terms, one.actor, step))
            await reached.wait()
            await other.run(1)  # while A is at it
            told.append(other.closer.closing.note())
            await blocked.rollback()
            await closing

    reached = asyncio.Event()
    async with await connect(postgres_url) as blocked:
        await blocked.set_autocommit(False)
        await blocked.execute(
            "LOCK TABLE clearing_position IN EXCLUSIVE MODE"
        )  # so that A stands still in a step
        one.closer = DayCloser(one.connected, hold, ONE, one.pause)
        await one.run(1)
    assert "a close is running: close by service A" in told[0]
    assert other.closer.closing.failures.total() == 0
    assert other.days == []  # it need not try
    assert (await states(pg))[day] == 2
    assert await scalar(pg, "SELECT array_agg(DISTINCT actor) FROM clearing_step") == ["service A"]


@pytest.mark.server
async def test_failures_are_told_and_tried_again_with_growing_pauses_until_it_is_done(
    pg: Pg, day: date, driven: Driven
) -> None:
    await days_ago(pg, 1)
    await ensure_days(pg)
    ended = await scalar(pg, "SELECT ends_at FROM business_day WHERE business_date = %s", day)
    at_its_end = ended.astimezone(SHANGHAI).time()  # so that it is overdue, at whatever hour this runs
    driven.closer = DayCloser(driven.connected, driven.close, at_its_end, driven.pause)
    driven.fails = [
        *(DependencyError("away") for _ in range(7)),
        KeyError("a fault of ours"),
        FolderError("No space left on device"),
    ]
    await driven.run(9)
    closing = driven.closer.closing
    assert driven.pauses == [min(PAUSE_FIRST_S * 2**n, PAUSE_MAX_S) for n in range(9)]
    assert closing.failures == {"begin": 9}
    assert closing.note() == "1 days overdue; No space left on device; tried again in 300 s"
    await driven.run(1)
    assert (closing.last_error, closing.last_closed) == ("", day)


@pytest.mark.server
async def test_a_step_that_fails_leaves_its_reason_in_the_table_until_it_is_done(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    blocked = day_folder(terms.folder, day) / f"NP{CENTRE}{OWN}{day:%Y%m%d}001.tmp"
    blocked.mkdir(parents=True)  # where a file should be written
    with pytest.raises(FolderError):
        await close_day(pg, day, terms, "a tester")
    cursor = await pg.execute("SELECT state, tries, error FROM clearing_step WHERE step = 'files'")
    state, tries, error = (await cursor.fetchall())[0]
    assert (state, tries) == ("RUNNING", 1)
    assert "cannot write" in error
    blocked.rmdir()
    await close_day(pg, day, terms, "a tester")
    cursor = await pg.execute("SELECT state, tries, error FROM clearing_step WHERE step = 'files'")
    assert await cursor.fetchall() == [("DONE", 2, None)]


@pytest.mark.server
async def test_a_day_that_has_not_ended_is_refused_where_it_may_not_be_ended(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    with pytest.raises(CloseRefused, match="has not ended by the database's clock"):
        await close_day(pg, day, terms._replace(may_end=False), "the service")
    assert await scalar(pg, "SELECT count(*) FROM clearing_day") == 0
