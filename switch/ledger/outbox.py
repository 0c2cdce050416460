"""What hosts must still be told (host_outbox): taken for sending, and what became of it.

Whoever fills it does so in the transaction that makes it necessary. Two processes may empty it: a message that one has claimed is
nobody else's until its lease is over. The lease is only there to save work; that a message counts once is its key's doing, at the host.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from enum import IntEnum
from typing import Any, Final, NamedTuple

import structlog
from psycopg import AsyncConnection

from switch.domain.hosts import HostAnswer, HostStep
from switch.domain.identifiers import mask_pan
from switch.ledger.leg_state import LegState
from switch.ledger.serials import BLOCK
from switch.storage.arrays import instants, int2s, int4s, int8s, texts
from switch.storage.pool import end_if_idle
from switch.storage.sql import load

log = structlog.get_logger(__name__)

SQL: Final = load("switch.ledger", "outbox.sql")
Connection = AsyncConnection[Any]


class Verdict(IntEnum):
    """What became of a message; the numbers are those of host_outbox.result, and 0 for what stays open."""

    LATER = 0
    CONFIRMED = 1
    REFUSED = 2


class Leg(NamedTuple):
    """What the host was asked at first, and what of it every later message repeats."""

    step: int
    transmitted: str
    trace: int
    service: int
    account_kind: int
    pan: str
    terminal_id: str
    merchant_id: str
    entry_mode: str
    authorisation_code: str
    asked_at: datetime
    business_date: date

    def __repr__(self) -> str:
        return f"Leg({self.transmitted} {self.trace} {mask_pan(self.pan)})"


class Due(NamedTuple):
    """A message that was claimed. held_until: the claim's end, and its token."""

    shard: int
    outbox_no: int
    leg_no: int
    step: int
    service: int
    reason: str
    amount_fen: int
    rrn: str
    transmitted: str
    trace: int
    created_at: datetime
    tries: int
    held_until: datetime
    leg: Leg | None  # None: there is none, and nothing can be sent

    @property
    def is_first(self) -> bool:
        """Whether it tells of the leg itself, which was approved in the host's place: it has the leg's own key."""
        leg = self.leg
        return (
            leg is not None
            and self.step == leg.step == HostStep.ADVICE
            and (self.transmitted, self.trace) == (leg.transmitted, leg.trace)
        )


class End(NamedTuple):
    """What became of a claimed message. wait_s: LATER, not before so long. tried: it was sent."""

    message: Due
    verdict: Verdict
    said: str
    tried: bool
    wait_s: float = 0.0


async def claim(connection: Connection, shard: int, host: str, *, limit: int, lease_s: float) -> list[Due]:
    """Up to so many messages that are due, each nobody else's for lease_s. connection: in autocommit mode."""
    cursor = await connection.execute(
        SQL["claim_due"], {"shard": shard, "host": host, "limit": limit, "lease_s": lease_s}, prepare=True
    )
    return [
        Due._make((*row[:13], Leg(*row[13:]) if row[13] is not None else None))
        for row in await cursor.fetchall()
    ]


async def record(connection: Connection, shard: int, host: str, ends: Sequence[End]) -> list[int]:
    """Write down many ends of messages of one host and shard at once; returns the numbers of those for which it counted.

    One that has ended already keeps its first end, so this may be repeated. An end of a stand-in's advice takes its amount out
    of what is outstanding. connection: in autocommit mode and not in a transaction.
    """
    which = {"shard": shard, "host": host}
    rows = {
        "shard": shard,
        "numbers": int8s([end.message.outbox_no for end in ends]),
        "results": int2s([end.verdict for end in ends]),
        "said": texts([end.said for end in ends]),
        "tried": int4s([end.tried for end in ends]),
        "waits_ms": int8s([round(end.wait_s * 1000) for end in ends]),
        "held_until": instants([end.message.held_until for end in ends]),
    }
    advices = {
        end.message.outbox_no: end.message.amount_fen
        for end in ends
        if end.verdict is not Verdict.LATER and end.message.is_first
    }
    if not advices:
        cursor = await connection.execute(SQL["record_ends"], rows, prepare=True)
        return [row[0] for row in await cursor.fetchall()]
    async with connection.transaction():
        await end_if_idle(connection)
        cursor = await connection.execute(SQL["lock_stand_in"], which)
        outstanding = await cursor.fetchone() or (0, 0)
        cursor = await connection.execute(SQL["record_ends"], rows, prepare=True)
        counted = [row[0] for row in await cursor.fetchall()]
        told = [advices[number] for number in counted if number in advices]
        if told:
            if outstanding[0] < sum(told) or outstanding[1] < len(told):
                log.error("more is advised than was outstanding", host=host, shard=shard)
            change = {**which, "fen": -sum(told), "count": -len(told)}
            await connection.execute(SQL["change_stand_in"], change)
    return counted


class Late(NamedTuple):
    """The leg that a late answer is about. first: nothing had been noted of it before. due: a reversal has become due."""

    state: int
    first: bool
    due: bool


async def note_late(connection: Connection, host: str, answer: HostAnswer) -> Late | None:
    """Note what a host said too late; None when no leg was asked under this key.

    An approval of a leg that was given up makes its reversal due now. There is one already, or it has been confirmed: it was
    stored when the leg was given up, and nothing here makes a second. An approval of a leg that the host had declined has its
    reversal made here, by whoever noted that approval. connection: in autocommit mode and not in a transaction.
    """
    key = {"host": host, "transmitted": answer.key.transmitted, "trace": answer.key.trace}
    async with (
        connection.transaction()
    ):  # noted and reversed together, or a crash would leave an approval that nobody undoes
        await end_if_idle(connection)
        cursor = await connection.execute(SQL["note_late"], {**key, "code": answer.code}, prepare=True)
        row = await cursor.fetchone()
        if row is None:
            return None
        shard, leg_no, state, first = row
        due = 0
        if answer.approved and state == LegState.UNKNOWN:
            cursor = await connection.execute(SQL["hasten_reversal"], {"shard": shard, "leg_no": leg_no})
            due = cursor.rowcount
        elif answer.approved and state == LegState.DECLINED and first:
            cursor = await connection.execute(
                SQL["reverse_declined"], {"shard": shard, "leg_no": leg_no, "block": BLOCK}
            )
            due = cursor.rowcount
    return Late(state, first, bool(due))


class Figures(NamedTuple):
    """Of one host: messages that are open and the age of the oldest, and those that were refused."""

    open: int
    refused: int
    oldest_s: float


async def figures(connection: Connection, shards: Iterable[int]) -> dict[str, Figures]:
    """By host, of those that have any."""
    cursor = await connection.execute(SQL["outbox_figures"], {"shards": list(shards)})
    return {row[0]: Figures(*row[1:]) for row in await cursor.fetchall()}
