"""What operators do with one card's bindings: look at them, and end one. Binding goes by the rules of an import."""

from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg

from switch.domain.errors import InputRefused
from switch.domain.money import Fen
from switch.storage.sql import load

_SQL: Final = load("switch.registry", "bindings.sql")
NUMBERS_MAX: Final = 2**63 - 1


class Stored(NamedTuple):
    """A binding as it is kept."""

    binding_no: int
    institution_id: str
    agreement_id: str
    sealed: bytes
    is_default: bool
    confirmed_at: datetime
    transaction_limit_fen: Fen | None
    day_limit_fen: Fen | None
    state: str
    bound_at: datetime
    bound_by: str
    ended_at: datetime | None
    ended_by: str | None

    def __repr__(self) -> str:
        return f"Stored({self.binding_no}, {self.institution_id})"


def bindings_of(connection: psycopg.Connection[Any], shard: int, card_no: int) -> list[Stored]:
    """All of a card, ended ones too, oldest first."""
    found = connection.execute(_SQL["bindings_of_card"], {"shard": shard, "card_no": card_no}).fetchall()
    return [Stored(*row) for row in found]


def bank_of(connection: psycopg.Connection[Any], pan: str) -> str:
    """The institution whose card is bound to a card by default; empty when none is."""
    row = connection.execute(_SQL["bank_of_card"], {"pan": pan}).fetchone()
    return row[0] if row is not None else ""


def end_binding(
    connection: psycopg.Connection[Any], binding_no: int, *, actor: str, reason: str, evidence: str
) -> datetime:
    """End it and let everybody know; the instant. InputRefused: no such binding, or it has ended before.

    connection: not in a transaction. Waits for no import: one that runs meanwhile finds the binding ended.
    """
    if not 0 < binding_no <= NUMBERS_MAX:
        raise InputRefused("binding: no such number")
    who = {"binding_no": binding_no, "actor": actor}
    with connection.transaction():
        ended = connection.execute(_SQL["end_binding"], who).fetchone()
        if ended is None:
            known = connection.execute(_SQL["state_of_binding"], who).fetchone()
            raise InputRefused("binding: has ended already" if known else "binding: no such number")
        shard, card_no, at = ended
        note = who | {"at": at, "card_no": card_no, "reason": reason, "evidence": evidence}
        connection.execute(_SQL["note_end"], note)
        connection.execute(_SQL["announce_binding"], {"payload": f"binding:{shard}:{card_no}"})
    instant: datetime = at
    return instant
