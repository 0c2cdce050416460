"""The fleet 終端車隊: every active terminal, when it was last heard, what it holds and owes, and which bus has not come home."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time, timedelta
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import psycopg

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.storage.sql import load

_SQL = load("switch.registry", "fleet.sql")

Connection = psycopg.Connection[tuple[Any, ...]]

EVENING: Final = time(20, 0)  # buses that have ridden are expected to upload after it
SKEW_MAX_S: Final = 300  # more is shown as a fault
RODE_WITHIN: Final = timedelta(hours=16)  # of the evening: it was on the road that day
IN_SERVICE: Final = timedelta(days=7)  # it uploaded within that time, so it is not laid up


class Member(NamedTuple):
    """One terminal. None: it has never said. *_behind: versions between what it holds and what it should. Counts of missing serials."""

    terminal_id: str
    merchant_id: str
    category: str
    slot: int
    seen_at: datetime | None
    uploaded_at: datetime | None
    reported_at: datetime | None
    hot_held: int | None
    hot_wanted: int
    hot_behind: int
    city_held: int | None
    city_wanted: int
    parameters_current: bool
    unsent: int | None
    skew_s: int | None
    missing_records: int
    missing_psam: int
    bus: bool
    away: bool  # a bus that rode and has not come home


class Fleet(NamedTuple):
    """now, evening: by the database's clock."""

    now: datetime
    evening: datetime
    members: tuple[Member, ...]


def read_fleet(connection: Connection, shards: int, evening: time = EVENING) -> Fleet:
    """Every active terminal of an active merchant, by id."""
    row = connection.execute(_SQL["evening"].encode(), {"evening": evening}).fetchone()
    assert row is not None
    now, since = row
    rows = connection.execute(_SQL["fleet"].encode(), {"since": since, "shards": shards})
    return Fleet(now, since, tuple(_member(row, since) for row in rows))


def _member(row: Sequence[Any], evening: datetime) -> Member:
    (
        terminal_id,
        merchant_id,
        category,
        slot,
        seen_at,
        uploaded_at,
        reported_at,
        reported,
        hot_held,
        hot_wanted,
        city_wanted,
        current,
        record_ahead,
        missing_records,
        bus,
        missing_psam,
    ) = row
    said: dict[str, str] = reported or {}
    unsent = int(said["32"]) if "32" in said else None
    return Member(
        terminal_id,
        merchant_id,
        category,
        slot,
        seen_at,
        uploaded_at,
        reported_at,
        hot_held,
        hot_wanted,
        max(hot_wanted - (hot_held or 0), 0),
        int(said["33"]) if "33" in said else None,
        city_wanted,
        bool(current),
        unsent,
        _skew_s(said.get("35"), reported_at, record_ahead),
        missing_records or 0,
        missing_psam or 0,
        bool(bus),
        bool(bus) and _away(seen_at, uploaded_at, unsent, evening),
    )


def _skew_s(clock: str | None, reported_at: datetime | None, record_ahead: timedelta | None) -> int | None:
    """How far a terminal's clock goes ahead of ours. A record is older than its upload, so it only shows a clock that is fast."""
    if clock is not None and reported_at is not None:
        try:
            said = datetime.strptime(clock, "%Y%m%d%H%M%S").replace(tzinfo=SHANGHAI)
            return round((said - reported_at).total_seconds())
        except ValueError:
            pass  # it is no time; what its records say counts
    if record_ahead is not None and record_ahead > timedelta():
        return round(record_ahead.total_seconds())
    return None


def _away(
    seen_at: datetime | None, uploaded_at: datetime | None, unsent: int | None, evening: datetime
) -> bool:
    """Whether a bus that rode has not uploaded since the evening. One that nobody has heard of for a week is laid up."""
    if uploaded_at is not None and uploaded_at >= evening:
        return False
    rode = seen_at is not None and seen_at >= evening - RODE_WITHIN
    rides = uploaded_at is not None and uploaded_at >= evening - IN_SERVICE
    return rode or rides or bool(unsent)


Filter = Callable[[Member, datetime], bool]
FILTERS: Final[Mapping[str, Filter]] = MappingProxyType(
    {
        "all": lambda member, now: True,
        "behind": lambda member, now: member.hot_behind > 0 or (member.city_held or 0) < member.city_wanted,
        "away": lambda member, now: member.away,
        "unsent": lambda member, now: bool(member.unsent),
        "skewed": lambda member, now: abs(member.skew_s or 0) > SKEW_MAX_S,
        "gaps": lambda member, now: member.missing_records + member.missing_psam > 0,
        "silent": lambda member, now: member.seen_at is None or now - member.seen_at > timedelta(days=1),
        "parameters": lambda member, now: not member.parameters_current,
    }
)
_EARLY: Final = datetime(1970, 1, 1, tzinfo=SHANGHAI)
ORDERS: Final[Mapping[str, Callable[[Member], Any]]] = MappingProxyType(
    {  # the worst first
        "id": lambda member: member.terminal_id,
        "seen": lambda member: member.seen_at or _EARLY,
        "behind": lambda member: -member.hot_behind,
        "unsent": lambda member: -(member.unsent or 0),
        "skew": lambda member: -abs(member.skew_s or 0),
        "gaps": lambda member: -(member.missing_records + member.missing_psam),
    }
)


def chosen(fleet: Fleet, only: Sequence[str], merchant: str, order: str) -> list[Member]:
    """Those that every filter lets through, in order. InputRefused for a filter or an order that there is not."""
    for name in only:
        if name not in FILTERS:
            raise InputRefused(f"only: one of {', '.join(FILTERS)}")
    if order not in ORDERS:
        raise InputRefused(f"order: one of {', '.join(ORDERS)}")
    found = [
        member
        for member in fleet.members
        if (not merchant or member.merchant_id == merchant)
        and all(FILTERS[name](member, fleet.now) for name in only)
    ]
    return sorted(found, key=ORDERS[order])
