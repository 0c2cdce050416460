"""Who may read over HTTP: tokens with a role, shown once when they are made, and kept as digests.

A token is `csw_`, its number, `_`, and 256 random bits as 43 characters. The number finds the row and the whole is compared by its SHA-256 in constant time,
so that neither the database nor how long an answer takes tells anything about it. A random token of that length needs no slow digest.
"""

import hmac
import re
import secrets
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.domain.errors import InputRefused
from switch.storage.sql import load

SQL: Final = load("switch.operations.api")
DAYS_MAX: Final = 1_000
NAME_MAX: Final = 100
LISTED_MAX: Final = 1_000
_TOKEN: Final = re.compile(r"csw_([1-9][0-9]{0,8})_[A-Za-z0-9_-]{43}")
_PARTY: Final = {"member": re.compile(r"[0-9]{8}"), "merchant": re.compile(r"[0-9A-Za-z]{15}")}
_NOBODY: Final = bytes(32)

Connection = AsyncConnection[Any]


class Role(StrEnum):
    """What a token lets read."""

    REGULATOR = "regulator"  # every day and report; no files, for those of members hold card numbers in full
    OPERATOR = "operator"
    AUDITOR = "auditor"
    MEMBER = "member"  # of one institution
    MERCHANT = "merchant"


class Reader(NamedTuple):
    """Whose token it is. party: institution or merchant id, of these two roles."""

    token_no: int
    role: Role
    party: str
    name: str

    @property
    def sees_all(self) -> bool:
        """Whether it is nobody's in particular."""
        return self.role not in (Role.MEMBER, Role.MERCHANT)


class Made(NamedTuple):
    """A new token. text: this once."""

    token_no: int
    text: str
    role: Role
    party: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"Made(token_no={self.token_no})"


def parse_role(text: str) -> tuple[Role, str]:
    """A role as people write it: `auditor`, `member:99993310`, `merchant:993350054110001`. InputRefused otherwise."""
    name, _, party = text.partition(":")
    if name not in Role.__members__.values():
        raise InputRefused("role: regulator, operator, auditor, member:<institution> or merchant:<merchant>")
    form = _PARTY.get(name)
    if form is None and party:
        raise InputRefused(f"role: {name} is nobody's in particular")
    if form is not None and not form.fullmatch(party):
        raise InputRefused("role: member:<8 digits> or merchant:<15 characters>")
    return Role(name), party


async def add(connection: Connection, name: str, role: Role, party: str, *, days: int, actor: str) -> Made:
    """Make a token. InputRefused: nobody has that number. connection: in autocommit mode."""
    name = name.strip()
    if not 1 <= len(name) <= NAME_MAX:
        raise InputRefused(f"name: 1 to {NAME_MAX} characters")
    if party:
        query = SQL["known_institution" if role == Role.MEMBER else "known_merchant"]
        if not await _one(connection, query, party=party):
            raise InputRefused(
                f"role: no {'institution' if role == Role.MEMBER else 'merchant'} has that number"
            )
    token_no = await _one(connection, SQL["next_token_no"])
    text = f"csw_{token_no}_{secrets.token_urlsafe(32)}"
    expires_at = await _one(
        connection,
        SQL["add_token"],
        token_no=token_no,
        name=name,
        role=role.value,
        party=party,
        digest=sha256(text.encode()).digest(),
        actor=actor,
        days=days,
    )
    return Made(token_no, text, role, party, expires_at)


async def find(connection: Connection, text: str) -> Reader | None:
    """Whose token it is; None for one that is unknown, revoked or over."""
    form = _TOKEN.fullmatch(text)
    if form is None:
        return None
    cursor = await connection.execute(SQL["find_token"].encode(), {"token_no": int(form[1])})
    row = await cursor.fetchone()
    stored, role, party, name = row if row is not None else (_NOBODY, Role.MEMBER.value, "", "")
    if not hmac.compare_digest(sha256(text.encode()).digest(), bytes(stored)):
        return None
    return Reader(int(form[1]), Role(role), party, name)


async def listed(connection: Connection) -> list[dict[str, Any]]:
    """All tokens that were ever made, without what would open anything."""
    cursor = await connection.execute(SQL["list_tokens"].encode(), {"limit": LISTED_MAX})
    found = []
    for (
        no,
        name,
        role,
        party,
        made_at,
        made_by,
        expires_at,
        revoked_at,
        revoked_by,
        over,
    ) in await cursor.fetchall():
        found.append(
            {
                "token": no,
                "name": name,
                "role": f"{role}:{party}" if party else role,
                "created_at": made_at,
                "created_by": made_by,
                "expires_at": expires_at,
                "revoked_at": revoked_at,
                "revoked_by": revoked_by,
                "state": "revoked" if revoked_at else "expired" if over else "valid",
            }
        )
    return found


async def revoke(connection: Connection, token_no: int, actor: str) -> str:
    """End a token at once, in every process; its name. InputRefused: there is none that holds."""
    name = await _one(connection, SQL["revoke_token"], token_no=token_no, actor=actor)
    if name is None:
        raise InputRefused("token: no such token, or it was revoked before")
    return str(name)


async def _one(connection: Connection, query: str, **values: object) -> Any:
    row = await (await connection.execute(query.encode(), values or None)).fetchone()
    return row[0] if row is not None else None
