"""Why we said no, strongest first, and what an answer consists of."""

from datetime import date, datetime
from enum import Enum
from typing import NamedTuple

from switch.domain.money import Fen


class Decline(Enum):
    """Reasons in order of strength: when several apply, the first is the answer."""

    MALFUNCTION = "system malfunction"
    FORMAT = "format error"
    TERMINAL_MUST_SIGN_ON = "batch number is not the open batch's"
    BATCH_FROZEN = "the batch is being settled"
    DUPLICATE_KEY = "same key, other content"
    NOT_SUPPORTED = "function not supported"
    CASH_FORBIDDEN = "cash withdrawal is forbidden"
    TOMBSTONED = "a reversal of this request came first"
    CARD_UNKNOWN = "no such card"
    ISSUER_UNKNOWN = "no such issuer"
    CARD_OUT_OF_SCOPE = "card may not be used so far from home"
    ACQUIRER_OUT_OF_SCOPE = "acquirer takes no cards from so far"
    NO_ROUTE = "no host for this account"
    HOST_DOWN = "the host cannot be asked"
    HOST_SILENT = "the host gave no usable answer; what it may have done is undone"
    CARD_NOT_ACTIVE = "card not handed over"
    CARD_RESTRICTED = "card damaged, replaced or cancelled"
    CARD_LOST = "loss reported"
    CARD_EXPIRED = "after the valid-through day"
    TERMINAL_NO_CASH = "terminal takes no cash for loads"
    ACCOUNT_NOT_PERMITTED = "card has no such account, or it is frozen"
    AMOUNT_INVALID = "amount is zero"
    CARD_UNPROVEN = "the card's MAC1 is wrong, or its key version unknown"
    LOAD_REPLAYED = "the card's counter has been used for a load"
    ORIGINAL_UNKNOWN = "original not found"
    ORIGINAL_AMOUNT = "amount differs from or exceeds the original's"
    NOT_APPLICABLE = "original cannot be undone this way"
    PIN_BLOCKED = "PIN tries exceeded"
    PIN_UNREADABLE = "PIN block error"
    PIN_WRONG = "wrong or missing PIN"
    FUNDS_INSUFFICIENT = "insufficient funds"
    LIMIT_AMOUNT = "amount limit exceeded"
    LIMIT_COUNT = "count limit exceeded"


APPROVED = "00"


class BalanceFigure(NamedTuple):
    """One entry of field 54: account type (10, 40), amount type (1 ledger, 2 available), amount in fen, may be negative."""

    account: int
    amount_type: int
    amount_fen: Fen


class Outcome(NamedTuple):
    """The stored answer of a request: everything but what today's header and key add."""

    answer: str  # field 39
    rrn: str  # field 37, 12 characters
    decided_at: datetime  # the switch's instant, fields 12 and 13
    clearing_date: date | None = None  # field 15, when something was posted
    auth_code: str = ""  # field 38
    balances: tuple[BalanceFigure, ...] = ()  # field 54
    field48: str = ""  # digits, settlement and batch end
    field62: bytes = b""  # results of an upload, lists
    field55: bytes = b""  # DF21, DF22, DF23 of an approved purse load
