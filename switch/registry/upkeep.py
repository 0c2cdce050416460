"""What a terminal has fetched and reported, kept beside it. Whether that is what it should have is judged where its entry is read (terminals_by_id).

Every step may come again, late or never: an offer stands until it is confirmed or replaced, and a report replaces what was believed before.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from switch.domain.errors import ConfigurationError
from switch.registry.list_rollout import SQL as LISTS
from switch.registry.parameters import on_the_line
from switch.storage.sql import load

_SQL = load("switch.registry", "upkeep.sql")

Connection = AsyncConnection[Any]
HOT_LIST_VERSION = "31"
LIST_REFUSED = "36"
VERSION_TAGS: Mapping[str, str] = MappingProxyType({"31": "HOT", "33": "CITY", "34": "PARAM"})
REFUSED: Mapping[str, str] = MappingProxyType(
    {"1": "HOT", "2": "CITY", "3": "PARAM"}
)  # first digit of tag 36


class Wanted(NamedTuple):
    """What a terminal should work by. values: tag and value as on the line."""

    version: int
    values: tuple[tuple[str, str], ...]


async def wanted_parameters(connection: Connection, terminal_no: int) -> Wanted:
    """What is in force for a terminal now."""
    cursor = await connection.execute(_SQL["wanted_parameters"], {"terminal_no": terminal_no}, prepare=True)
    rows = await cursor.fetchall()
    cursor = await connection.execute(_SQL["end_of_day"], prepare=True)
    day = await cursor.fetchone()
    if day is None:
        raise ConfigurationError("no business day is open: see `cardswitch doctor`")
    return Wanted(rows[0][3], on_the_line({tag: value for tag, value, _, _ in rows}, day[0]))


async def offer_parameters(connection: Connection, terminal_no: int) -> tuple[tuple[str, str], ...]:
    """The values to send; their version is remembered until the terminal says that it has them."""
    wanted = await wanted_parameters(connection, terminal_no)
    offer = {"terminal_no": terminal_no, "version": wanted.version}
    await connection.execute(_SQL["offer_parameters"], offer, prepare=True)
    return wanted.values


async def confirm_parameters(connection: Connection, terminal_no: int) -> None:
    """The terminal has what it was sent last."""
    await connection.execute(_SQL["confirm_parameters"], {"terminal_no": terminal_no}, prepare=True)
    await connection.execute(_SQL["receive_parameters"], {"terminal_no": terminal_no}, prepare=True)


async def store_status(connection: Connection, terminal_no: int, reported: Sequence[tuple[str, str]]) -> None:
    """Keep a report, and judge by it which parameters the terminal holds."""
    wanted = await wanted_parameters(connection, terminal_no)
    said = dict(reported)
    row = {
        "terminal_no": terminal_no,
        "version": wanted.version,
        "judged": _judged(said, wanted),
        "hot_list": int(said[HOT_LIST_VERSION]) if HOT_LIST_VERSION in said else None,
        "reported": Jsonb(said),
    }
    async with connection.transaction():
        await connection.execute(_SQL["store_status"], row, prepare=True)
        await connection.execute(_SQL["receive_parameters"], {"terminal_no": terminal_no}, prepare=True)
        for tag, kind in VERSION_TAGS.items():
            if tag in said:
                held = {"terminal_no": terminal_no, "kind": kind, "version": int(said[tag])}
                await connection.execute(LISTS["receive"], held, prepare=True)
        refused = REFUSED.get(said.get(LIST_REFUSED, "")[:1])
        if refused is not None:
            refusal = {"terminal_no": terminal_no, "kind": refused, "refusal": said[LIST_REFUSED]}
            await connection.execute(LISTS["note_refusal"], refusal, prepare=True)


def _judged(said: Mapping[str, str], wanted: Wanted) -> int:
    if any(said.get(tag, value) != value for tag, value in wanted.values):
        return -1
    return 1 if all(tag in said for tag, _ in wanted.values) else 0
