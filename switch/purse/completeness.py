"""Expected against received, by counter: what is missing, as ranges with their age; figures for the metrics and for a day's report.

Everything is read from what the fold keeps. A hole is no proof of a lost record: one that was damaged on the way is in quarantine and
closes no hole, and a terminal that was set back numbers anew.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, NamedTuple, Protocol

import psycopg
import structlog

from switch.domain.errors import DependencyError, InputRefused
from switch.purse.counters import KINDS, CounterKind, kind_of
from switch.purse.shadow import Connect, Connection
from switch.storage.sql import load

log = structlog.get_logger(__name__)
SQL: Final = load("switch.purse", "completeness.sql")

COUNT_EVERY_S: Final = 30.0
LISTED_MAX: Final = 10_000  # counters, and holes, that one question returns
DAMAGED_MAX: Final = 1_000
CARDS: Final = 1  # kind of the cards' counters
NOT_CARDS: Final = tuple(kind.number for kind in KINDS if kind.number != CARDS)


class Counter(NamedTuple):
    """One counter. From first_no to before next_no all is expected."""

    kind: CounterKind
    owner: int
    first_no: int
    next_no: int
    missing: int

    @property
    def expected(self) -> int:
        """How many numbers have been given, as far as is known."""
        return self.next_no - self.first_no

    @property
    def received(self) -> int:
        """How many of them have come."""
        return self.expected - self.missing


class Gap(NamedTuple):
    """A hole, or one that has been closed. given_up: its alarm has been acknowledged."""

    gap_no: int
    kind: CounterKind
    owner: int
    lowest: int
    highest: int
    opened_at: datetime
    closed_at: datetime | None
    reported_at: datetime | None
    given_up: bool

    @property
    def size(self) -> int:
        """How many numbers."""
        return self.highest - self.lowest + 1


class Damaged(NamedTuple):
    """A record in quarantine that says to be one of those missing."""

    terminal_no: int
    entry_no: int
    serial: int
    reason: str
    received_at: datetime


class Owner(NamedTuple):
    """Who has a counter, as people know it: terminal id or PSAM number, and the merchant."""

    name: str
    merchant_id: str


class Came(NamedTuple):
    """What somebody brought on a business day. taken: of good form and counted; late: made on an earlier day."""

    records: int
    taken: int
    late: int


class Missing(NamedTuple):
    """An answer to "what is missing": counters, their holes, whose they are, and damaged records among them."""

    now: datetime
    counters: Sequence[Counter]
    gaps: Sequence[Gap]
    owners: Mapping[tuple[str, int], Owner]
    damaged: Sequence[Damaged]

    def owner(self, kind: CounterKind, number: int) -> Owner:
        """Whose counter it is; an unregistered one by its number."""
        return self.owners.get((kind.owner, number)) or Owner(plain_name(kind, number), "")

    def gaps_of(self, counter: Counter) -> list[Gap]:
        """The holes of one counter."""
        return [gap for gap in self.gaps if (gap.kind, gap.owner) == (counter.kind, counter.owner)]


def plain_name(kind: CounterKind, owner: int) -> str:
    """A PSAM as its twelve digits, everything else as a number."""
    return f"{owner:012d}" if kind.owner == "psam" else str(owner)


async def find_terminal(connection: Connection, terminal_id: str) -> int:
    """terminal_no. InputRefused: not registered."""
    rows = await _all(connection, "find_terminal", {"terminal_id": terminal_id})
    if not rows:
        raise InputRefused("terminal: not registered")
    return int(rows[0][0])


async def find_psam(connection: Connection, psam_no: str) -> int:
    """The PSAM's number as counters have it. InputRefused: not registered."""
    rows = await _all(connection, "find_psam", {"psam_no": psam_no.upper()})
    if not rows:
        raise InputRefused("psam: not registered")
    return int(rows[0][0])


async def counter_of(connection: Connection, kind: int, owner: int) -> Counter | None:
    """One counter; None when nothing of it has come yet."""
    rows = await _all(connection, "counter", {"kind": kind, "owner": owner})
    return _counter(rows[0]) if rows else None


async def gaps_of(
    connection: Connection,
    counters: Sequence[tuple[int, int]],
    *,
    closed: bool = False,
    older_than: int = 0,
    at_most: int = LISTED_MAX,
) -> list[Gap]:
    """Holes of counters by (kind, owner), by number; closed: also those that late records have closed, after the open ones."""
    asked = {
        "kinds": [kind for kind, _ in counters],
        "owners": [owner for _, owner in counters],
        "closed": closed,
        "older_than": older_than,
        "at_most": at_most,
    }
    return [
        Gap(gap_no, kind_of(kind), owner, lowest, highest, opened_at, closed_at, reported_at, bool(given_up))
        for gap_no, kind, owner, lowest, highest, opened_at, closed_at, reported_at, given_up in await _all(
            connection, "gaps_of", asked
        )
    ]


async def missing(
    connection: Connection,
    *,
    terminals: Collection[int] | None = None,
    kinds: Collection[int] = NOT_CARDS,
    older_than: int = 0,
) -> Missing:
    """What has not come, of these terminals (and their PSAMs) or of everybody.

    older_than: only holes that have been open for so many days. At most LISTED_MAX counters and holes.
    """
    asked = {
        "kinds": list(kinds),
        "terminals": None if terminals is None else list(terminals),
        "at_most": LISTED_MAX,
    }
    counters = [_counter(row) for row in await _all(connection, "counters_of", asked)]
    return await _with_gaps(connection, counters, older_than=older_than, every=terminals is not None)


async def report(connection: Connection, day: date) -> tuple[Missing, Mapping[tuple[int, int], Came]]:
    """Every counter that lacks something or that brought something on a business day; and what came, by (kind, owner).

    What came is of that day; what is missing is as of now, since whoever reads it is to look for it now.
    """
    came = {
        (kind, owner): Came(*figures)
        for kind, owner, *figures in await _all(connection, "came_on", {"day": day})
    }
    asked = {"kinds": [kind for kind, _ in came], "owners": [owner for _, owner in came]}
    counters = [_counter(row) for row in await _all(connection, "counters_for_report", asked)]
    return await _with_gaps(connection, counters, older_than=0, every=True, at_most=None), came


async def _with_gaps(
    connection: Connection,
    counters: list[Counter],
    *,
    older_than: int,
    every: bool,
    at_most: int | None = LISTED_MAX,
) -> Missing:
    asked = [(counter.kind.number, counter.owner) for counter in counters if counter.missing]
    ((now,),) = await (await connection.execute("SELECT clock_timestamp()")).fetchall()
    bound = 2**31 if at_most is None else at_most
    gaps = await gaps_of(connection, asked, older_than=older_than, at_most=bound)
    if not every:
        holed = {(gap.kind, gap.owner) for gap in gaps}
        counters = [counter for counter in counters if (counter.kind, counter.owner) in holed]
    owners: dict[tuple[str, int], Owner] = {}
    for owner in ("terminal", "psam"):
        numbers = sorted({counter.owner for counter in counters if counter.kind.owner == owner})
        for number, *names in await _all(connection, f"names_of_{owner}s", {"owners": numbers}):
            owners[owner, number] = Owner(*names)
    terminals = [
        counter.owner for counter in counters if counter.kind.name == "record_serial" and counter.missing
    ]
    damaged = await _all(connection, "damaged_among", {"terminals": terminals, "at_most": DAMAGED_MAX})
    return Missing(now, counters, gaps, owners, [Damaged(*row) for row in damaged])


def _counter(row: Sequence[Any]) -> Counter:
    kind, owner, first_no, next_no, count = row
    return Counter(kind_of(kind), owner, first_no, next_no, count)


# ---------------------------------------------------------------------- figures for the metrics


class GapFigures(NamedTuple):
    """Of one kind of counter: open holes, numbers missing in them, age of the oldest in seconds."""

    gaps: int
    missing: int
    oldest_s: float


class CompletenessWatch(Protocol):
    """Who shows the figures: by name of the counter, and by kind of alarm those that nobody has acknowledged."""

    def completeness(self, gaps: Mapping[str, GapFigures], alarms: Mapping[str, int]) -> None:
        """Replace what was shown."""


async def figures(connection: Connection) -> tuple[dict[str, GapFigures], dict[str, int]]:
    """Open holes by counter, zero where there are none; open alarms by kind."""
    gaps = {kind.name: GapFigures(0, 0, 0.0) for kind in KINDS}
    for kind, *numbers in await _all(connection, "count_gaps"):
        gaps[kind_of(kind).name] = GapFigures(*numbers)
    return gaps, dict(await _all(connection, "count_alarms"))


async def keep_counting_gaps(
    connect: Connect, watch: CompletenessWatch, every_s: float = COUNT_EVERY_S
) -> None:
    """Count for the metrics, until cancelled."""
    while True:
        try:
            async with connect() as connection:
                watch.completeness(*await figures(connection))
        except (psycopg.Error, OSError, DependencyError) as error:
            log.warning("gaps were not counted", error=type(error).__name__)
        await asyncio.sleep(every_s)


async def _all(
    connection: Connection, name: str, parameters: Mapping[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    return list(await (await connection.execute(SQL[name].encode(), parameters)).fetchall())
