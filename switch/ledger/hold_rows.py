"""Holds between the tables and the running state of a batch: which are read, and how they are written."""

from collections.abc import Iterable, Sequence

from switch.domain.transactions import CardRequest, Kind, Reversal
from switch.ledger.holds import FAMILY, KINDS
from switch.ledger.rules import Account, Entry, Hold
from switch.storage.arrays import dates, instants, int2s, int8s
from switch.storage.pipeline import Parameter

STATEMENTS = ("read_holds", "write_held_accounts", "write_holds")
_NAMES_HOLD = frozenset(
    map(int, (Kind.PRE_AUTHORISATION_VOID, Kind.COMPLETION, Kind.COMPLETION_ADVICE))
)  # entries whose original is the pre-authorisation
_NONE = -1  # stands for NULL in the arrays; 0 means expired


def concerned(request: CardRequest) -> bool:
    """Whether a request can only be decided by the holds of its account."""
    return isinstance(request, FAMILY) or (isinstance(request, Reversal) and int(request.of) in KINDS)


def entries_wanted(entries: Iterable[Entry]) -> set[int]:
    """Entry numbers of the holds that these journal entries are about."""
    wanted = set()
    for entry in entries:
        if entry.kind == Kind.PRE_AUTHORISATION:
            wanted.add(entry.entry_no)
        elif entry.kind in _NAMES_HOLD and entry.original_entry is not None:
            wanted.add(entry.original_entry)
    return wanted


def held_columns(shard: int, accounts: Sequence[Account]) -> dict[str, Parameter]:
    """Parameters of write_held_accounts."""
    return {
        "shard": shard,
        "account_ids": int8s([a.account_id for a in accounts]),
        "balances": int8s([a.balance_fen for a in accounts]),
        "failures": int2s([a.pin_failures for a in accounts]),
        "held": int8s([a.held_fen for a in accounts]),
        "dues": instants([a.holds_due for a in accounts]),
    }


def hold_columns(shard: int, holds: Sequence[Hold]) -> dict[str, Parameter]:
    """Parameters of write_holds."""
    return {
        "shard": shard,
        "entries": int8s([hold.entry_no for hold in holds]),
        "dates": dates([hold.business_date for hold in holds]),
        "accounts": int8s([hold.account_id for hold in holds]),
        "amounts": int8s([hold.amount_fen for hold in holds]),
        "frozen": int8s([hold.frozen_fen for hold in holds]),
        "expiries": instants([hold.expires_at for hold in holds]),
        "ended": int8s([_NONE if hold.ended_by is None else hold.ended_by for hold in holds]),
        "completed": int8s([_NONE if hold.completed_by is None else hold.completed_by for hold in holds]),
    }
