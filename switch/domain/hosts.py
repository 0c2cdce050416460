"""What the switch asks of hosts of other institutions (banks, social security), and what may come of it.

A host owns the money, so three ends are kept apart, because different things follow: it answered; it was certainly not
asked; it may have done what it was asked, and nobody knows. Only the last one must be reversed until its end is known.
"""

from collections.abc import Callable
from datetime import date, datetime
from enum import Enum, IntEnum
from typing import NamedTuple

from switch.domain.calendar import SHANGHAI
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, PinFormat

TRACE_MAX = 999_999  # field 11


class HostStep(IntEnum):
    """Which kind of message it is; the numbers are stored."""

    AUTHORISATION = 1  # asks, and holds money
    FINANCIAL = 2  # asks, and moves money
    ADVICE = 3  # tells what is decided; sent until it is confirmed
    REVERSAL = 4  # undoes a request whose end is not known, or that was broken off
    REVERSAL_ADVICE = 5  # the same, stored and forwarded; sent until it is confirmed


class HostService(IntEnum):
    """What is asked for; the numbers are stored."""

    PURCHASE = 1
    RETURN = 2  # void or refund: money goes back to the account that paid
    BALANCE = 3
    PRE_AUTHORISATION = 4
    LOAD = 5  # the account pays for a load of the purse or of the online account


class HostKey(NamedTuple):
    """Which message it is, among all that we ever sent to this host within a year. A repeat has the key of the first."""

    transmitted: str  # MMDDhhmmss, Asia/Shanghai: when the message was first made
    trace: int  # 1 to 999999, once per transmitted second


def host_key(trace: int, at: datetime) -> HostKey:
    """The key of a message made at this instant."""
    return HostKey(at.astimezone(SHANGHAI).strftime("%m%d%H%M%S"), trace)


class HostOriginal(NamedTuple):
    """The earlier message that a reversal, a return or a completion is about."""

    step: HostStep
    key: HostKey


class ZonePin(NamedTuple):
    """A PIN block under the host's zone PIN key; shows nothing of itself."""

    block: bytes
    format: PinFormat

    def __repr__(self) -> str:
        return f"ZonePin({self.format.name})"


# Called with the name of the zone PIN key and the format of its blocks at the moment of sending, since keys may change
# while a request waits. Whoever asks closes over the terminal's block; the translation happens inside the vault.
PinUnder = Callable[[str, PinFormat], bytes]


class HostRequest(NamedTuple):
    """One message to a host. What is None or empty is not sent."""

    step: HostStep
    service: HostService
    key: HostKey
    at: datetime  # of the transaction, aware; becomes local time and date
    card: CardNumber
    account: AccountKind  # BANK or MEDICAL
    amount_fen: Fen | None  # None in a balance enquiry
    terminal_id: str
    merchant_id: str
    reference: str  # field 37, 12 characters: the retrieval reference of the whole transaction
    entry_mode: str  # 3 digits, as the terminal sent it
    condition: str = "00"
    merchant_type: str = ""  # 4 digits
    expiry: str = ""  # YYMM
    card_sequence: str = ""  # 3 digits
    track2: str = ""
    authorisation_code: str = ""
    original: HostOriginal | None = None
    reason: str = ""  # of a reversal: 98, 96, A0, 06
    business_date: date | None = None
    details: str = ""  # of a medical payment, as agreed with the centre

    def __repr__(self) -> str:  # a track must not be shown, and a card only masked
        return f"HostRequest({self.step.name} {self.service.name} {self.key} card={self.card} amount_fen={self.amount_fen})"


class HostAnswer(NamedTuple):
    """The host has decided. code: field 39; what it did not send is empty or None."""

    key: HostKey
    code: str
    authorisation_code: str
    reference: str
    amount_fen: Fen | None
    settlement_day: str  # MMDD: on which day the host counts it
    available_fen: Fen | None  # of a balance enquiry
    text: str

    @property
    def approved(self) -> bool:
        """Whether the host did what it was asked."""
        return self.code == "00"


class Unknown(Enum):
    """Why nobody knows whether the host did what it was asked; the value is the reason code of the reversal."""

    SILENT = "98"  # no answer in time
    LINE_LOST = "98 line"  # the connection broke after the request had been handed to it
    MAC_WRONG = "A0"
    UNUSABLE = "96"  # an answer that cannot be read, or about another amount, card data or terminal

    @property
    def reason(self) -> str:
        """Field 39 of the reversal."""
        return self.value[:2]


class Refusal(Enum):
    """Why a request was certainly not sent: nothing has to be undone."""

    NO_LINE = "no connection is signed on"
    BREAKER = "the circuit breaker is open"
    FULL = "too many requests are unanswered"
    KEY_IN_USE = "a request with this key is unanswered"
    RETRY_BUDGET = "too many repeats"
    TOO_LATE = "no time is left for an answer"
    NO_KEYS = "the host's keys may not be used"


class HostTimeout(NamedTuple):
    """The request may have been carried out: reverse it until its end is known. To the terminal: 68."""

    key: HostKey
    why: Unknown


class HostDown(NamedTuple):
    """The request was not sent. To the terminal: 91, or the next destination."""

    key: HostKey
    why: Refusal


HostOutcome = HostAnswer | HostTimeout | HostDown


class LateAnswer(NamedTuple):
    """An answer to a request that had been given up, or an approval of one that its host had declined before.

    An approval that is not reversed yet must be, exactly once.
    """

    host: str
    answer: HostAnswer
