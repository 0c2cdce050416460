"""The outbox for people: what is owed to hosts, what they refused, and what an operator does about that."""

from datetime import date, datetime
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from switch.domain.errors import InputRefused
from switch.domain.identifiers import mask_pan
from switch.ledger.card_states import with_reason
from switch.ledger.outbox import SQL, Verdict
from switch.storage.pool import end_if_idle

LISTED_MAX: Final = 1_000
Connection = AsyncConnection[Any]


class Listed(NamedTuple):
    """A message that is open or refused. result: None while open."""

    shard: int
    outbox_no: int
    host: str
    leg_no: int
    step: int
    service: int
    reason: str
    amount_fen: int
    rrn: str
    transmitted: str
    trace: int
    created_at: datetime
    due_at: datetime
    sending: bool
    tries: int
    last_end: str
    result: int | None
    done_at: datetime | None
    pan: str

    def __repr__(self) -> str:
        return f"Listed({self.host} {self.outbox_no} {mask_pan(self.pan)})"


class StandInDay(NamedTuple):
    """What was approved in a host's place on a business day, and how much of it the host was told."""

    host: str
    business_date: date
    approved: int
    approved_fen: int
    advised: int
    advised_fen: int
    refused: int
    refused_fen: int
    outstanding: int
    outstanding_fen: int


async def listed(
    connection: Connection, *, host: str = "", refused: bool = False, limit: int = LISTED_MAX
) -> list[Listed]:
    """Open and refused messages, or only the refused ones, oldest first."""
    which = {"host": host, "refused": refused, "limit": limit}
    cursor = await connection.execute(SQL["list_outbox"], which)
    return [Listed(*row) for row in await cursor.fetchall()]


async def outstanding(connection: Connection) -> dict[str, tuple[int, int]]:
    """By host: fen and number of what was approved in its place and it has not been told."""
    cursor = await connection.execute(SQL["stand_in_outstanding"])
    return {host: (fen, count) for host, fen, count in await cursor.fetchall()}


async def stand_in_days(connection: Connection, host: str = "") -> list[StandInDay]:
    """By host and business day."""
    cursor = await connection.execute(SQL["stand_in_days"], {"host": host})
    return [StandInDay(*row) for row in await cursor.fetchall()]


async def retry(connection: Connection, host: str, outbox_no: int, *, actor: str) -> None:
    """Let a refused message be sent again, with the key that it had. InputRefused when that cannot be."""
    async with connection.transaction():
        shard, row = await _refused(connection, host, outbox_no)
        _, leg_no, created_at, amount_fen, is_first = row
        # Told in order: what the host confirmed after it may rest on its refusal, as a reversal of an advice does.
        later = {"shard": shard, "leg_no": leg_no, "created_at": created_at, "outbox_no": outbox_no}
        cursor = await connection.execute(SQL["later_of_leg"], later)
        if await cursor.fetchone() is not None:
            raise InputRefused(
                "message: the host has been told something later of the same transaction; settle it"
            )
        await connection.execute(SQL["open_again"], {"shard": shard, "outbox_no": outbox_no})
        if is_first:
            change = {"shard": shard, "host": host, "fen": amount_fen, "count": 1}
            await connection.execute(SQL["change_stand_in"], change)
        await _note(connection, shard, host, outbox_no, actor, {"move": "retry"})


async def settle(connection: Connection, host: str, outbox_no: int, *, actor: str, reason: str) -> None:
    """Take a refused message off the list: people have put it right with the host. InputRefused when it is not refused."""
    reason = with_reason(reason)
    async with connection.transaction():
        shard, _ = await _refused(connection, host, outbox_no)
        await connection.execute(SQL["settle"], {"shard": shard, "outbox_no": outbox_no})
        await _note(connection, shard, host, outbox_no, actor, {"move": "settle", "reason": reason})


async def _refused(connection: Connection, host: str, outbox_no: int) -> tuple[int, tuple[Any, ...]]:
    """The shard of a refused message and its row, locked."""
    await end_if_idle(connection)
    cursor = await connection.execute(SQL["find_message"], {"host": host, "outbox_no": outbox_no})
    shards = [row[0] for row in await cursor.fetchall()]
    if not shards:
        raise InputRefused("message: this host has none of this number")
    for shard in shards:  # numbers come from one sequence, so there is one; else the refused one is meant
        await connection.execute(SQL["lock_stand_in"], {"shard": shard, "host": host})
        cursor = await connection.execute(SQL["lock_message"], {"shard": shard, "outbox_no": outbox_no})
        row = await cursor.fetchone()
        if row is not None and row[0] == Verdict.REFUSED:
            return shard, row
    raise InputRefused("message: it is not refused")


async def _note(
    connection: Connection, shard: int, host: str, outbox_no: int, actor: str, change: dict[str, str]
) -> None:
    note = {"actor": actor, "subject": f"host {host} outbox {shard}/{outbox_no}", "change": Jsonb(change)}
    await connection.execute(SQL["note_outbox"], note)
