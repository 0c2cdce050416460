"""The shadow purse of one card for operators and auditors: figures, chain, holes, collisions, grey records, loads.

It is made of what the tables say now, with the rules by which the fold raises alarms and the day's end decides, so it may know more
than an alarm did: a load that came to its end later explains a break.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from switch.domain.errors import InputRefused
from switch.domain.identifiers import mask_pan
from switch.ledger.load_states import LoadState
from switch.purse.alarms import Alarm, list_alarms
from switch.purse.chain import Loaded, Spent, Step, Verdict, walk
from switch.purse.completeness import CARDS, Counter, Gap, counter_of, gaps_of
from switch.purse.shadow import Connection
from switch.purse.verify import (
    ADJUSTED,
    ATC_COLLISION,
    GREY_DAYS_MAX,
    PSAM_COLLISION,
    REFUSED_GREY,
    Trace,
    adjudicate,
)
from switch.storage.sql import load

SQL: Final = load("switch.purse", "card_view.sql")
GAPS_SHOWN: Final = 1_000
LOADS_SHOWN: Final = 1_000
ALARMS_SHOWN: Final = 1_000


class Place(NamedTuple):
    """Where a card's purse lives. card: card_key. registered: False for a card that is known by its records only."""

    card: int
    pan: str
    shard: int
    card_no: int
    registered: bool

    def __repr__(self) -> str:
        return f"Place({mask_pan(self.pan)})"


class Figures(NamedTuple):
    """The purse row. next_atc, online_atc: counters expected next."""

    loaded_fen: int = 0
    spent_fen: int = 0
    balance_fen: int = 0
    next_atc: int = 0
    online_atc: int = 0


class Grey(NamedTuple):
    """A grey record and what becomes of it. verdict: 00, 94, or empty while it waits; evidence: in words."""

    entry_no: int
    business_date: date
    trace: Trace
    verdict: str
    decided_on: date | None
    evidence: str


class LoadLine(NamedTuple):
    """A load as the shadow sees it."""

    load: Loaded
    reason: str
    at: datetime


class CardView(NamedTuple):
    """All that is known. entries: the record of each accepted counter."""

    place: Place
    figures: Figures
    counter: Counter | None
    steps: Sequence[Step]
    entries: Mapping[int, tuple[int, date]]
    gaps: Sequence[Gap]
    greys: Sequence[Grey]
    loads: Sequence[LoadLine]
    alarms: Sequence[Alarm]

    @property
    def breaks(self) -> list[Step]:
        """Steps whose balance does not follow from the one before by itself."""
        return [step for step in self.steps if step.link and step.link.verdict is not Verdict.FOLLOWS]

    @property
    def collisions(self) -> list[Alarm]:
        """Records that were refused because another one has their counter or serial."""
        return [alarm for alarm in self.alarms if alarm.kind in (ATC_COLLISION, PSAM_COLLISION)]

    @property
    def suspected_clone(self) -> bool:
        """Whether two good records have had one counter: one card cannot do that."""
        return any(alarm.kind == ATC_COLLISION for alarm in self.alarms)


async def find_purse(connection: Connection, number: str) -> Place:
    """By the 13 to 19 digits of a card, or by the card_no under which logs and reports name it. InputRefused: no such card."""
    if number.isascii() and number.isdecimal() and len(number) <= 19:
        query = "card_by_number" if len(number) >= 13 else "card_by_no"
        rows = await _all(connection, query, {"number": number})
        if rows:
            return Place(*rows[0])
    raise InputRefused("card: no such card")


async def view_card(connection: Connection, place: Place) -> CardView:
    """Read everything in one snapshot. connection: in autocommit mode and not in a transaction."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        where = {"shard": place.shard, "card_no": place.card_no, "card": place.card}
        purse = await _all(connection, "purse", where)
        accepted = await _all(connection, "accepted", where)
        rows = await _all(connection, "loads", {**where, "at_most": LOADS_SHOWN})
        loads = [LoadLine(Loaded(*row[:5]), row[5], row[6]) for row in rows]
        counter = await counter_of(connection, CARDS, place.card)
        gaps = await gaps_of(connection, [(CARDS, place.card)], closed=True, at_most=GAPS_SHOWN)
        found = await list_alarms(connection, every=True, card=place.card, at_most=ALARMS_SHOWN)
        greys = await _all(connection, "greys", where)
    on_card = [line.load for line in loads]
    first_atc = counter.first_no if counter is not None else 0
    return CardView(
        place,
        Figures(*purse[0]) if purse else Figures(),
        counter,
        walk([Spent(*row[:3]) for row in accepted], on_card, first_atc),
        {row[0]: (row[3], row[4]) for row in accepted},
        gaps,
        _greys(greys, [Trace(*row[:3]) for row in accepted], on_card),
        loads,
        found,
    )


def _greys(rows: Sequence[Sequence[Any]], accepted: Sequence[Trace], loads: Sequence[Loaded]) -> list[Grey]:
    waiting = [Trace(*row[2:5]) for row in rows if row[5] is None]
    made = []
    for entry_no, day, atc, amount_fen, balance_fen, verdict, decided_on, age_days in rows:
        trace = Trace(atc, amount_fen, balance_fen)
        if verdict is None:
            others = list(waiting)
            others.remove(trace)
            text = _expected(trace, accepted, others, loads, age_days)
        else:
            text = _evidence(trace, verdict, accepted)
        made.append(Grey(entry_no, day, trace, verdict or "", decided_on, text))
    return made


def _expected(
    grey: Trace, accepted: Sequence[Trace], others: Sequence[Trace], loads: Sequence[Loaded], age_days: int
) -> str:
    """What the next close will say, and why."""
    result, contradiction = adjudicate(grey, accepted, others, loads)
    if contradiction:
        return f"{_evidence(grey, '', accepted)}: it contradicts itself, somebody must decide"
    if result:
        return f"{_evidence(grey, result, accepted)}: {result} at the next close"
    left = max(0, GREY_DAYS_MAX - age_days)
    return f"waits for evidence; {REFUSED_GREY} in {left} days without any"


def _evidence(grey: Trace, verdict: str, accepted: Sequence[Trace]) -> str:
    later = [trace for trace in accepted if trace.atc >= grey.atc]
    # Its own acceptance uses its counter up: what decided it is the record behind it.
    if verdict == ADJUSTED:
        later = [trace for trace in later if trace.atc > grey.atc]
    if not later:
        return f"none within {GREY_DAYS_MAX} days"
    first = min(later)
    return f"ATC {first.atc} found {first.balance_fen} fen on the card"


def state_name(state: int) -> str:
    """A load's state as lists show it."""
    return LoadState(state).name


async def _all(connection: Connection, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return list(await (await connection.execute(SQL[name].encode(), parameters)).fetchall())
