"""A closed day and a partner with a real sshd who gets its files."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection

from switch.clearing.close import CloseTerms, close_day
from switch.clearing.deliveries import PartnerTerms
from switch.clearing.lint import lint_file
from switch.settings import Settings
from switch.storage.pool import connect
from tests.conftest import AS_MIGRATED, database_url
from tests.helpers.clearing_day import CENTRE, OTHER, OWN, add_journal, add_participants
from tests.helpers.days import make_days
from tests.helpers.sshd import Sshd

TYPES = ("CM", "NP", "MR")
MERCHANT = "993310058120003"


class Closed(NamedTuple):
    """A database with a closed day, and the folder of clearing files."""

    url: str
    folder: Path
    day: date


@contextmanager
def closed_city(server_url: str, name: str, folder: Path) -> Iterator[Closed]:
    """Made once for the tests of a file, which forget what they have delivered."""
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} {AS_MIGRATED}".encode())
    url = database_url(server_url, name)

    async def close() -> date:
        async with await connect(url) as connection:
            return await closed_day(connection, folder)

    yield Closed(url, folder, asyncio.run(close()))
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def closed_day(pg: AsyncConnection[Any], folder: Path, purchases: int = 3) -> date:
    """A small day, closed; its files lie in a folder of the given one. CM, NP for OWN and OTHER, MR for each merchant."""
    day, *_ = await make_days(pg, 3)
    await add_participants(pg)
    await add_journal(pg, day, purchases)
    terms = CloseTerms(OWN, CENTRE, "49993350", (0, 1), folder, lambda one: one.weekday() < 5, lead_s=0.02)
    await close_day(pg, day, terms, "test")
    return day


def partner_terms(server: Sshd, since: date, **changes: Any) -> PartnerTerms:
    """The second acquirer and its merchant, as one partner."""
    terms = PartnerTerms(
        "second", (OTHER, MERCHANT), TYPES, since, str(server.inbox), str(server.outbox), ("XF",)
    )
    return terms._replace(**changes)


def partner_settings(server: Sshd, since: date, **changes: Any) -> dict[str, Any]:
    """The same as a table of settings."""
    return {
        "name": "second", "parties": [OTHER, MERCHANT], "types": list(TYPES), "since": since.isoformat(), "host": "127.0.0.1",
        "port": server.port, "user": server.user, "key_file": str(server.key_file), "host_key": server.host_key,
        "folder": str(server.inbox), "outbox": str(server.outbox), "sends": ["XF"], **changes,
    }  # fmt: skip


def settings_of(folder: Path, url: str, *partners: dict[str, Any]) -> Settings:
    """Settings with these partners; files lie below the folder."""
    return Settings.model_validate(
        {
            "database": {"url": url},
            "clearing": {"folder": str(folder)},
            "delivery": {"partners": list(partners)},
            "vault": {"key_file": str(folder.parent / "keyfile")},
        }
    )


async def states(pg: AsyncConnection[Any], partner: str = "second") -> list[tuple[str, str]]:
    """Name and state of his files, in their order."""
    cursor = await pg.execute(
        "SELECT name, state FROM delivery WHERE partner = %s ORDER BY number", (partner,)
    )
    return [(name, state) for name, state in await cursor.fetchall()]


async def alarms(pg: AsyncConnection[Any]) -> list[tuple[str, str]]:
    """Kind and name, in order."""
    cursor = await pg.execute("SELECT kind, name FROM delivery_alarm ORDER BY alarm_no")
    return [(kind, name) for kind, name in await cursor.fetchall()]


async def forget(pg: AsyncConnection[Any], server: Sshd) -> None:
    """As if nothing had ever been delivered or sent again."""
    async with pg.transaction():  # the rows of what was sent again are never changed but here
        await pg.execute("SET LOCAL session_replication_role = replica")
        await pg.execute("DELETE FROM clearing_resend")
    await pg.execute(
        "TRUNCATE delivery, delivery_day, delivery_partner, delivery_receipt, delivery_inbox, delivery_alarm"
    )
    for place in (server.inbox, server.outbox):
        for path in place.iterdir():
            path.unlink()


def check_whole(server: Sshd) -> set[str]:
    """Whatever is marked is whole, whatever has its name is too; returns the names that are marked."""
    marked = set()
    for path in server.inbox.iterdir():
        if path.suffix == ".ok":
            marked.add(path.name[:-3])
        elif not path.suffix:
            assert lint_file(path).faults == (), path
    for name in marked:
        assert lint_file(server.inbox / name).notes == ()
    return marked


def take_away(server: Sshd) -> list[str]:
    """As the partner does: the file first, then its mark; returns the names."""
    taken = []
    for mark in sorted(server.inbox.glob("*.ok")):
        (server.inbox / mark.name[:-3]).unlink()
        mark.unlink()
        taken.append(mark.name[:-3])
    return taken
