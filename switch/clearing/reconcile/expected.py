"""What is expected from partners: a file for each business date, due by a time of day, and compared. What is late is told to operators."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime, time, timedelta
from typing import Any, Final, NamedTuple

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.clearing.day_files import Connection
from switch.clearing.reconcile.desk import SQL
from switch.domain.calendar import SHANGHAI, UTC
from switch.domain.errors import DependencyError

log = structlog.get_logger(__name__)
DATES_MAX: Final = 400  # of one partner, the newest
LOOK_EVERY_S: Final = 60.0
COMPARED, TAKEN, WAITING, OVERDUE = "compared", "taken", "waiting", "overdue"
Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]


class Due(NamedTuple):
    """When a partner's file about a date must be there: so many days behind it, by this time in Shanghai. since: the first date of which one is owed."""

    institution: str
    since: date
    days: int = 1
    by: time = time(9)

    def at(self, day: date) -> datetime:
        """The instant for one date."""
        return datetime.combine(day + timedelta(days=self.days), self.by, SHANGHAI)


class Expectation(NamedTuple):
    """One date of one partner. state: compared; taken, and not compared yet; waiting; overdue: not there, or not compared, behind its time.

    carried: items of the day before that wait for this file.
    """

    partner: str
    day: date
    due_at: datetime
    state: str
    file: str
    carried: int


class Figures(NamedTuple):
    """Of one partner. oldest_days: age of its oldest open difference; open ones are those that people must do something about."""

    overdue: int
    open: int
    oldest_days: int


async def expectations(connection: Connection, partners: Collection[Due], now: datetime) -> list[Expectation]:
    """What each partner owes or owed, the newest date first."""
    found = []
    for due in partners:
        values = {"partner": due.institution, "since": due.since, "now": now, "limit": DATES_MAX}
        cursor = await connection.execute(SQL["expected"], values)
        for day, _, file, run_no, newest, carried in await cursor.fetchall():
            done = run_no is not None and newest
            late = now > due.at(day)
            state = COMPARED if done else OVERDUE if late else TAKEN if file else WAITING
            found.append(Expectation(due.institution, day, due.at(day), state, file or "", carried))
    return found


async def figures(connection: Connection, partners: Collection[Due], now: datetime) -> Mapping[str, Figures]:
    """Of each partner of the settings, and of each that has open differences."""
    cursor = await connection.execute(SQL["open_figures"])
    opened = {partner: (count, oldest) for partner, count, oldest in await cursor.fetchall()}
    overdue = dict.fromkeys((due.institution for due in partners), 0)
    for one in await expectations(connection, partners, now):
        overdue[one.partner] += one.state == OVERDUE
    return {
        partner: Figures(overdue.get(partner, 0), *opened.get(partner, (0, 0)))
        for partner in sorted({*overdue, *opened})
    }


def told(figures_now: Mapping[str, Figures]) -> str:
    """What is overdue, for whoever looks whether the service is well; empty for nothing."""
    return ", ".join(
        f"{one.overdue} files of {partner} overdue" for partner, one in figures_now.items() if one.overdue
    )


async def keep_expecting(
    connect: Connect,
    partners: Collection[Due],
    tell: Callable[[Mapping[str, Figures]], None],
    every_s: float = LOOK_EVERY_S,
) -> None:
    """Count for the metrics until cancelled."""
    while True:
        try:
            async with connect() as connection:
                tell(await figures(connection, partners, datetime.now(UTC)))
        except (psycopg.Error, OSError, DependencyError) as error:
            log.warning("partners' files were not counted", error=type(error).__name__)
        await asyncio.sleep(every_s)
