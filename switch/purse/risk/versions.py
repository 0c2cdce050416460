"""Versions of the rules: kept for ever as they came, each in force from an instant on, changed under one lock."""

import hashlib
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.domain.errors import InputRefused
from switch.purse.risk.replay import ask
from switch.purse.risk.rules import Rule, read_rules

Connection = AsyncConnection[Any]


class Stored(NamedTuple):
    """A version and its text. begins_at: of the activation that put it in force; None where nobody asked for that."""

    version: int
    content: str
    digest: str  # SM3 of the text, hexadecimal; empty for version 0
    begins_at: datetime | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Its rules. RulesRefused when this build does not know a figure of it any more."""
        return read_rules(self.content.encode()) if self.version else ()


NOTHING: Final = Stored(0, "", "")


class Version(NamedTuple):
    """A line of the history."""

    version: int
    rules: int
    digest: str
    at: datetime
    actor: str
    note: str


class Activation(NamedTuple):
    """A change of what is in force. action: ACTIVATE or ROLLBACK; version: that which it puts in force, or takes back."""

    activation_no: int
    version: int
    action: str
    begins_at: datetime
    at: datetime
    actor: str


async def in_force(connection: Connection, at: datetime | None = None) -> Stored:
    """The version in force, now or at an instant; NOTHING when there was none."""
    rows = await ask(connection, "in_force", {"at": at})
    return Stored(*rows[0]) if rows else NOTHING


async def version_of(connection: Connection, version: int) -> Stored:
    """A stored version. InputRefused when there is none of that number."""
    rows = await ask(connection, "version", {"version": version})
    if not rows:
        raise InputRefused(f"there is no version {version} of the rules: see `cardswitch risk versions`")
    return Stored(*rows[0])


async def hold(connection: Connection) -> None:
    """Keep other changes away until the end of this transaction."""
    await ask(connection, "one_change")


async def add(connection: Connection, content: bytes, *, rules: int, actor: str, note: str) -> Stored:
    """Store a new version. It is not in force yet. content: as read_rules has accepted it."""
    digest = hashlib.new("sm3", content).digest()
    text = content.decode()
    values = {"rules": rules, "content": text, "digest": digest, "actor": actor, "note": note}
    rows = await ask(connection, "add_version", values)
    return Stored(rows[0][0], text, digest.hex())


async def activate(
    connection: Connection, version: int, *, begins_at: datetime | None, actor: str
) -> datetime:
    """Put a version in force from an instant on, by default now; returns it. InputRefused when it is past."""
    if begins_at is not None:
        (now,) = (await ask(connection, "now"))[0]
        if begins_at < now:
            raise InputRefused(
                "from: must not be past, since what was in force then is told by what was known then"
            )
    rows = await ask(connection, "activate", {"version": version, "begins_at": begins_at, "actor": actor})
    instant: datetime = rows[0][0]
    return instant


async def roll_back(connection: Connection, *, actor: str) -> int:
    """Take the newest activation back that was not taken back; returns the version that it had put in force."""
    rows = await ask(connection, "newest_activation")
    if not rows:
        raise InputRefused("there is nothing to go back from: no rules are in force")
    activation_no, version, _ = rows[0]
    await ask(connection, "take_back", {"activation_no": activation_no, "actor": actor})
    return int(version)


async def versions(connection: Connection) -> list[Version]:
    """Every version, oldest first."""
    return [Version(*row) for row in await ask(connection, "history")]


async def activations(connection: Connection) -> list[Activation]:
    """Every change of what is in force, oldest first."""
    return [Activation(*row) for row in await ask(connection, "activations")]
