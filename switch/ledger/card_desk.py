"""Changes of a card's state, under the lock that every payment by its holder takes.

The effective instant of a loss is read from the database's clock after the lock: a payment that had it before was decided earlier,
one that gets it later sees the report. So exactly those are refused that come at or after the instant.
"""

from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from switch.domain.errors import InputRefused
from switch.domain.identifiers import mask_pan
from switch.ledger.card_states import CLOCK, Move, State, moved, with_reason
from switch.ledger.rules import CardStatus
from switch.storage.pool import end_if_idle
from switch.storage.sql import load

SQL = load("switch.ledger")
LAPSES_AT_ONCE: Final = 200
Connection = psycopg.AsyncConnection[Any]


class Place(NamedTuple):
    """Where a card lives."""

    pan: str
    shard: int
    holder_id: int
    card_no: int

    def __repr__(self) -> str:
        return f"Place({mask_pan(self.pan)})"


class Changed(NamedTuple):
    """A change that was made."""

    place: Place
    before: State
    after: State
    at: datetime


async def find_card(connection: Connection, number: str) -> Place:
    """By its 13 to 19 digits, or by the card_no under which logs, reports and the audit name it. InputRefused: no such card."""
    if number.isascii() and number.isdecimal() and len(number) <= 19:
        column = "pan" if len(number) >= 13 else "card_no"
        cursor = await connection.execute(SQL[f"find_card_by_{column}"], {"number": number})
        row = await cursor.fetchone()
        if row is not None:
            return Place(*row)
    raise InputRefused("card: no such card")


async def state_of(connection: Connection, place: Place) -> tuple[State, datetime]:
    """What the row says now, and the instant of the reading."""
    cursor = await connection.execute(SQL["read_card_state"], {"shard": place.shard, "pan": place.pan})
    row = await cursor.fetchone()
    if row is None:
        raise InputRefused("card: no such card")
    return State(CardStatus(row[0]), row[1], row[2]), row[3]


async def change_card(
    connection: Connection, place: Place, move: Move, *, actor: str, reason: str, evidence: str = ""
) -> Changed:
    """Make a move and note who made it, when and why. InputRefused when it is not allowed; nothing has changed then.

    connection: in autocommit mode and not in a transaction. evidence: which documents were seen.
    """
    reason = with_reason(reason)
    evidence = with_reason(evidence) if evidence else ""
    where = {"shard": place.shard, "pan": place.pan}
    async with connection.transaction():
        await end_if_idle(connection)
        # Accounts first and in id order, as the book does.
        await connection.execute(SQL["lock_holder"], {"shard": place.shard, "holder_id": place.holder_id})
        await connection.execute(SQL["lock_card"], where)
        before, now = await state_of(connection, place)
        after = moved(before, move, now, evidence=bool(evidence))
        await connection.execute(
            SQL["write_card_state"],
            {**where, "state": int(after.status), "lost_at": after.lost_at, "lapses_at": after.lapses_at},
        )
        note = {
            "move": move.value,
            "before": _noted(before),
            "after": _noted(after),
            "reason": reason,
            **({"evidence": evidence} if evidence else {}),
        }
        await connection.execute(
            SQL["note_card_state"],
            {"at": now, "actor": actor, "subject": f"card {place.card_no}", "change": Jsonb(note)},
        )
    return Changed(place, before, after, now)


def _noted(state: State) -> dict[str, object]:
    return {
        "state": int(state.status),
        "lost_at": state.lost_at.isoformat() if state.lost_at else None,
        "loss_lapses_at": state.lapses_at.isoformat() if state.lapses_at else None,
    }


async def lapse_losses(connection: Connection, shard: int) -> int:
    """Write down which temporary reports have lapsed; how many. They are void without this."""
    cursor = await connection.execute(SQL["find_lapsed"], {"shard": shard, "limit": LAPSES_AT_ONCE})
    places = [Place(*row) for row in await cursor.fetchall()]
    done = 0
    for place in places:
        try:
            await change_card(connection, place, Move.LAPSE, actor=CLOCK, reason="not confirmed in time")
        except InputRefused:  # confirmed or lifted a moment ago
            continue
        done += 1
    return done
