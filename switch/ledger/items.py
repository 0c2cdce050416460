"""What goes into a shard's queue, and the stored answer that comes out."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Final, NamedTuple

import orjson

from switch.domain.decisions import APPROVED, BalanceFigure, Outcome
from switch.domain.money import Fen
from switch.domain.transactions import (
    Balance,
    CardRequest,
    Completion,
    CompletionVoid,
    Kind,
    Load,
    LoadConfirm,
    PreAuthorisation,
    PreAuthorisationVoid,
    Purchase,
    Refund,
    Refused,
    RequestClass,
    Reversal,
    Void,
)
from switch.ledger.leg_state import HostAsk
from switch.ledger.legs import Asked, LegEnd
from switch.ledger.load_states import Loading
from switch.ledger.rules import Entry

KIND = {
    Purchase: Kind.PURCHASE,
    Balance: Kind.BALANCE,
    Void: Kind.VOID,
    Refund: Kind.REFUND,
    Reversal: Kind.REVERSAL,
    PreAuthorisation: Kind.PRE_AUTHORISATION,
    PreAuthorisationVoid: Kind.PRE_AUTHORISATION_VOID,
    Completion: Kind.COMPLETION,
    CompletionVoid: Kind.COMPLETION_VOID,
    Load: Kind.LOAD,
    LoadConfirm: Kind.LOAD_CONFIRM,
    Refused: Kind.REFUSED,
}
POSTS = frozenset(
    map(
        int,
        (
            Kind.PURCHASE,
            Kind.VOID,
            Kind.REFUND,
            Kind.COMPLETION,
            Kind.COMPLETION_VOID,
            Kind.COMPLETION_ADVICE,
            Kind.LOAD,
        ),
    )
)


# Told instead of an answer when a commit was sent and nobody can say what became of it. A 96 would be taken for a decline and the
# money would stay taken; silence makes the terminal ask again or reverse, and either finds the truth.
IN_DOUBT: Final = Outcome("", "", datetime.min.replace(tzinfo=UTC))

# Told to a repeat of a request that is with its host: the answer is not known yet.
IN_FLIGHT: Final = Outcome("", "", datetime.min.replace(tzinfo=UTC))

FINANCIAL = int(RequestClass.FINANCIAL)
REVERSAL = int(RequestClass.REVERSAL)


class Key(NamedTuple):
    """Names one message of one terminal for ever."""

    terminal_no: int
    batch_no: int
    stan: int
    rclass: int  # FINANCIAL or REVERSAL; plain numbers, because an enum's hash is slow


class Item(NamedTuple):
    """One request on its way to the book.

    digest: SM3 of the request without its secrets; a repeat has the same.
    generation: number of the key set its MAC was good under.
    since: first business date on which this key can have been booked, or None if its batch is unknown.
    holder_id: 0 for a card that is not ours. pin: the keyed verifier of the PIN that came, if one did.
    done: called once with this item and the stored answer, with None when the system failed and nothing was booked (96), or with IN_DOUBT; for a
    request with `ask` also with Asked, when its intent is committed, and for a repeat of one with IN_FLIGHT. It is handed the item, since
    one that held it would close a circle, and every request would wait for the collector.
    ask: which host decides, None for those that the ledger decides.
    loading: what the reception knows about a load or its confirm, and can compute for it.
    """

    key: Key
    merchant_no: int
    digest: bytes
    generation: int
    since: date | None
    request: CardRequest | LegEnd
    holder_id: int
    pin: bytes | None
    pin_unreadable: bool
    done: Callable[["Item", Outcome | Asked | None], None]
    ask: HostAsk | None = None
    loading: Loading | None = None


def outcome_of(entry: Entry) -> Outcome:
    """The answer that a journal row stores."""
    figures: tuple[BalanceFigure, ...] = ()
    field48, field55, field62 = "", b"", b""
    if entry.extra is not None:
        extra = orjson.loads(entry.extra)
        figures = tuple(BalanceFigure(account, kind, Fen(fen)) for account, kind, fen in extra.get("54", ()))
        field48 = extra.get("48", "")
        field55 = bytes.fromhex(extra.get("55", ""))
        field62 = bytes.fromhex(extra.get("62", ""))
    posted = entry.answer == APPROVED and entry.kind in POSTS
    return Outcome(
        entry.answer,
        entry.rrn,
        entry.decided_at,
        entry.business_date if posted else None,
        entry.auth_code,
        figures,
        field48,
        field62,
        field55,
    )


def extra_of(figures: tuple[BalanceFigure, ...], field55: bytes = b"") -> bytes | None:
    """What a journal row stores of an answer beside its columns."""
    if field55:
        return orjson.dumps({"55": field55.hex()})
    return orjson.dumps({"54": [list(figure) for figure in figures]}) if figures else None
