"""What terminals have last fetched and reported, and how it differs from what they should have: for operators."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from switch.domain.errors import ConfigurationError
from switch.registry.parameters import NAMES, on_the_line
from switch.storage.sql import load

_SQL = load("switch.registry", "upkeep.sql")

Connection = psycopg.Connection[tuple[Any, ...]]


class Difference(NamedTuple):
    """reported: empty when the terminal has not said."""

    name: str
    reported: str
    wanted: str


class TerminalStatus(NamedTuple):
    """One terminal. Instants are None for what never happened; parameters_current: None when it never fetched any."""

    terminal_id: str
    merchant_id: str
    signed_on_at: datetime | None
    seen_at: datetime | None  # last download or report
    reported_at: datetime | None
    values: dict[str, str]  # name to value as reported
    unsent_records: int | None
    hot_list_version: int | None
    parameters_current: bool | None
    differences: tuple[Difference, ...]


def read_status(connection: Connection, terminal_ids: Sequence[str]) -> tuple[datetime, list[TerminalStatus]]:
    """The database's clock, and every registered terminal that is active, or those that are named."""
    day = connection.execute(_SQL["end_of_day"].encode()).fetchone()
    clock = connection.execute(b"SELECT clock_timestamp()").fetchone()
    assert clock is not None
    if day is None:
        raise ConfigurationError("no business day is open: see `cardswitch doctor`")
    named = {"terminal_ids": list(terminal_ids) or None}
    rows = connection.execute(_SQL["statuses"].encode(), named)
    return clock[0], [_status(row, day[0]) for row in rows]


def _status(row: Sequence[Any], ends_at: datetime) -> TerminalStatus:
    (
        terminal_id,
        merchant_id,
        signed_on_at,
        seen_at,
        reported_at,
        reported,
        hot_list,
        current,
        wanted,
        newest,
    ) = row
    said: dict[str, str] = reported or {}
    differences = [
        Difference(NAMES[tag], said[tag], value)
        for tag, value in on_the_line(wanted, ends_at)
        if said.get(tag, value) != value
    ]
    if current is not True and not differences:
        differences.append(Difference("parameters", "" if current is None else "older", "newest"))
    if (hot_list or 0) != newest:
        held = "" if hot_list is None else str(hot_list)
        differences.append(Difference("hot_list_version", held, str(newest)))
    unsent = said.get("32")
    return TerminalStatus(
        terminal_id,
        merchant_id,
        signed_on_at,
        seen_at,
        reported_at,
        {NAMES[tag]: value for tag, value in said.items() if tag in NAMES},
        int(unsent) if unsent is not None else None,
        hot_list,
        current,
        tuple(differences),
    )
