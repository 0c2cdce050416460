"""Loads of the purse 圈存 as the ledger keeps them: states, where the money is, and what a move between states does with it.

    AUTHORISED --confirm with a good TAC--> CONFIRMED
        |------reversal, or the card proves that it was not credited--> REVERSED
        |------the card proves that it was credited--> LOADED
        |------a wrong TAC, the card gone, or no word until the cut-off + 1 day--> SUSPENSE
    SUSPENSE --the card, or two people--> LOADED or RETURNED; --a good TAC--> CONFIRMED
    REVERSED, RETURNED --a confirm after all--> SUSPENSE, the money still with its source

The money is in the float (2002) while it may be on the card, in suspense (2201) while nobody can know, else with its source.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum, StrEnum
from typing import NamedTuple

from switch.domain.transactions import LoadSource


class LoadState(IntEnum):
    """The numbers are stored. 0 in a move: the load was not there before."""

    AUTHORISED = 1
    CONFIRMED = 2
    REVERSED = 3
    SUSPENSE = 4
    LOADED = 5
    RETURNED = 6


class Held(IntEnum):
    """Where the money of a load is; the numbers are stored."""

    SOURCE = 0
    FLOAT = 1
    SUSPENSE = 2


class Reason(StrEnum):
    """Why a load moved; stored. Those of ALARMS are for people to look into."""

    REQUEST = "request"
    CONFIRM = "confirm"
    REVERSAL = "reversal"
    CARD_UNMOVED = "card_unmoved"  # its counter proves that it was not credited
    CARD_AHEAD = "card_ahead"  # its counter proves that it was
    CARD_GONE = "card_gone"  # the terminal cannot tell
    NO_WORD = "no_word"  # neither confirm nor reversal in time
    OPERATOR = "operator"
    TAC_WRONG = "tac_wrong"
    CONFIRM_AFTER_RETURN = "confirm_after_return"
    REVERSAL_CONTRADICTED = "reversal_contradicted"  # by the counter that the reversal itself brings


ALARMS = frozenset({Reason.TAC_WRONG, Reason.CONFIRM_AFTER_RETURN, Reason.REVERSAL_CONTRADICTED})
SOURCE_NO = {LoadSource.BOUND_BANK: 1, LoadSource.ONLINE: 2, LoadSource.OTHER_BANK: 3, LoadSource.CASH: 4}
SOURCE_NAME = {number: source.name.lower() for source, number in SOURCE_NO.items()}
PURSE_FLOAT = 2002
OPEN = frozenset({int(LoadState.AUTHORISED), int(LoadState.SUSPENSE)})
CREDITED = frozenset({int(LoadState.CONFIRMED), int(LoadState.LOADED)})


class Payer(NamedTuple):
    """Who pays a load: 1002 an agent, 1101 a bank, 2001 an online account."""

    code: int
    owner: int


@dataclass(slots=True)
class Purse:
    """A locked purse row. online_atc: the least counter with which its card can come."""

    card_no: int
    loaded_fen: int
    online_atc: int
    changed: bool = False


@dataclass(slots=True)
class PurseLoad:
    """A row of purse_load; see the migration for its columns."""

    entry_no: int
    business_date: date
    card_no: int
    online_atc: int
    psam: str
    issuer_id: bytes
    key_version: int
    algorithm_id: int
    key_index: int
    card_random: bytes
    amount_fen: int
    balance_before_fen: int
    authorised_at: datetime
    source: int
    debit_code: int
    debit_owner: int
    state: int
    reason: str
    held: int
    proven: bool = False
    claimed: bool = False  # in the float, and suspense has paid for it in the place of its source
    changed: bool = False


class LoadMove(NamedTuple):
    """What happened to a load in one entry. debit and credit, as (code, owner), are the same where no money moved."""

    load: PurseLoad
    entry_no: int
    line: int
    from_state: int
    to_state: int
    reason: str
    debit: tuple[int, int]
    credit: tuple[int, int]
    note: str = ""

    @property
    def moves_money(self) -> bool:
        """Whether it has a posting."""
        return self.debit != self.credit


class Loading(NamedTuple):
    """What the reception brings to a load or its confirm, since keys are no concern of the ledger.

    agent: who owes us cash taken at this terminal, as the owner of a posting. card_proven: MAC1 is the card's.
    credit: field 55 of the approval, for the instant that it tells the card; None when no key serves any more.
    tac_holds: whether the TAC of a confirm is that of this load.
    """

    agent: int = 0
    takes_cash: bool = False
    card_proven: bool = False
    credit: Callable[[datetime], bytes | None] = lambda _at: None
    tac_holds: Callable[[PurseLoad], bool] = lambda _load: False
