"""Versions of the routing table: kept for ever, one of them in force, changed under one lock. What a row means is not known here.

A change and the word of it are one transaction, under the lock that a registry import takes: a table is checked against the
registry that is there when it takes effect.
"""

import hashlib
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg

from switch.domain.errors import InputRefused
from switch.registry.issuers import READ_ISSUERS, READ_SCOPES, Participants, participants_of
from switch.storage.sql import load

_SQL: Final = load("switch.registry", "route_versions.sql")


class Stored(NamedTuple):
    """A version and its text. version 0 with no text: only what is built in."""

    version: int
    content: str
    digest: str  # SM3 of the text, hexadecimal; empty for version 0


NOTHING: Final = Stored(0, "", "")


class Version(NamedTuple):
    """A line of the history."""

    version: int
    rows: int
    digest: str
    at: datetime
    actor: str
    note: str


class Activation(NamedTuple):
    """A change of what is in force. version: None for only what is built in."""

    version: int | None
    action: str  # ACTIVATE or ROLLBACK
    at: datetime
    actor: str


async def read_active(
    connection: psycopg.AsyncConnection[Any], own_ids: Collection[str]
) -> tuple[Stored, Participants]:
    """The table in force and everybody whom it is compiled against, of one moment."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        stored = await (await connection.execute(_SQL["active"])).fetchone()
        issuers = await (await connection.execute(READ_ISSUERS)).fetchall()
        scopes = await (await connection.execute(READ_SCOPES)).fetchall()
    return Stored(*stored) if stored else NOTHING, participants_of(issuers, scopes, own_ids)


def active(connection: psycopg.Connection[Any]) -> Stored:
    """The table in force."""
    row = connection.execute(_SQL["active"]).fetchone()
    return Stored(*row) if row else NOTHING


def version_of(connection: psycopg.Connection[Any], version: int) -> Stored:
    """A stored version. InputRefused when there is none of that number."""
    row = connection.execute(_SQL["version"], {"version": version}).fetchone()
    if row is None:
        raise InputRefused(
            f"there is no version {version} of the routing table: see `cardswitch routes versions`"
        )
    return Stored(*row)


def cities(connection: psycopg.Connection[Any]) -> frozenset[str]:
    """Institutions that a link to a city can lead to."""
    return frozenset(name for (name,) in connection.execute(_SQL["cities"]))


def known_merchants(connection: psycopg.Connection[Any], merchants: Collection[str]) -> frozenset[str]:
    """Those of these ids that are registered."""
    found = connection.execute(_SQL["known_merchants"], {"merchants": list(merchants)})
    return frozenset(name for (name,) in found)


def merchant(connection: psycopg.Connection[Any], merchant_id: str) -> tuple[str, str]:
    """Category and acquirer of a merchant. InputRefused when there is no such one."""
    row = connection.execute(_SQL["merchant"], {"merchant": merchant_id}).fetchone()
    if row is None:
        raise InputRefused("merchant: is not registered")
    return row[0], row[1]


def has_card(connection: psycopg.Connection[Any], pan: str) -> bool:
    """Whether a card is ours."""
    row = connection.execute(_SQL["has_card"], {"pan": pan}).fetchone()
    assert row is not None
    return bool(row[0])


def versions(connection: psycopg.Connection[Any]) -> list[Version]:
    """Every version, oldest first."""
    return [Version(*row) for row in connection.execute(_SQL["history"])]


def activations(connection: psycopg.Connection[Any]) -> list[Activation]:
    """Every change of what is in force, oldest first."""
    return [Activation(*row) for row in connection.execute(_SQL["activations"])]


def hold(connection: psycopg.Connection[Any]) -> None:
    """Keep other changes of the table and of the registry away until the end of this transaction."""
    connection.execute(_SQL["one_change"])


def add(connection: psycopg.Connection[Any], content: str, *, rows: int, actor: str, note: str) -> Stored:
    """Store a new version. It is not in force yet."""
    digest = hashlib.new("sm3", content.encode()).digest()
    values = {"rows": rows, "content": content, "digest": digest, "actor": actor, "note": note}
    row = connection.execute(_SQL["add_version"], values).fetchone()
    assert row is not None
    return Stored(row[0], content, digest.hex())


def activate(connection: psycopg.Connection[Any], version: int, actor: str) -> None:
    """Put a version in force with the commit, and tell every process. The caller has checked it under `hold`."""
    _put(connection, version, "ACTIVATE", actor)


def step_back(connection: psycopg.Connection[Any]) -> int:
    """The version that a roll-back would put in force, 0 for only what is built in. InputRefused when nothing is in force."""
    in_force: list[int] = []
    for one in activations(connection):
        if one.action == "ROLLBACK":
            in_force.pop()
        else:
            assert one.version is not None
            in_force.append(one.version)
    if not in_force:
        raise InputRefused("there is nothing to go back from: no routing table is in force")
    return in_force[-2] if len(in_force) > 1 else 0


def roll_back(connection: psycopg.Connection[Any], version: int, actor: str) -> None:
    """Take the last activation back; `version` is what step_back said under `hold`."""
    _put(connection, version or None, "ROLLBACK", actor)


def _put(connection: psycopg.Connection[Any], version: int | None, action: str, actor: str) -> None:
    connection.execute(_SQL["activate"], {"version": version, "action": action, "actor": actor})
    connection.execute(_SQL["announce_routes"])
