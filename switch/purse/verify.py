"""Whether an offline record is good: the nine checks in their order, and what becomes of grey records 灰記錄.

Pure: records, registry facts and the instant go in, result codes come out. A Judge is the running state of one
transaction: intake fills it with what the database knows, so that records of one upload, and of many uploads, are
judged one after the other in order of arrival. docs/purse_record.md shows the checks to terminal makers.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import FormatError
from switch.keys.purse import TacItem
from switch.purse.chain import Loaded, follows
from switch.purse.digest import NO_TAC_YET, TAC_BAD, TAC_GOOD, UNREADABLE, tac_item, unchecked, wants_tac
from switch.purse.digest import tac_input as tac_input  # whoever checks a TAC by itself finds it here
from switch.purse.record import LOCKED, RECORD_BYTES, TEST, Record, check_form, read_record

ACCEPTED: Final = "10"
ADJUSTED: Final = "00"
TAC_WRONG: Final = "01"
ILLEGAL: Final = "02"
DUPLICATE: Final = "03"
PENDING_GREY: Final = "04"
OVERDUE: Final = "05"
TEST_RECORD: Final = "06"
TIME_INVALID: Final = "07"
ROUTE_UNKNOWN: Final = "08"
FOREIGN: Final = "11"
REFUSED_GREY: Final = "94"
TAKEN: Final = frozenset({ACCEPTED, PENDING_GREY, FOREIGN})  # these count in the batch in which they came

OVERDUE_DAYS: Final = 90
FUTURE_HOURS_MAX: Final = 24
GREY_DAYS_MAX: Final = 60

ATC_COLLISION: Final = "ATC_COLLISION"
PSAM_COLLISION: Final = "PSAM_COLLISION"
CARD_UNREGISTERED: Final = "CARD_UNREGISTERED"

_FILLER = bytes.fromhex("FFFFFFFF")
_EPOCH = date(2000, 1, 1)
_FIELDS = Struct(">16x8s4xHI17xI8x8s")  # issuer id, ATC, amount, PSAM serial, acquirer
assert _FIELDS.size == 71
_TWO_63 = 1 << 63
_TWO_64 = 1 << 64

Identity = tuple[int, bytes]  # amount and mark: with (card, ATC) what makes a record the same record


class Psam(NamedTuple):
    """What the registry says about a PSAM and the merchant it was handed to."""

    merchant_no: int
    active: bool
    acquirer_id: str  # 8 digits
    acquirer_foreign: bool  # another city's: it is paid by interop clearing


class Card(NamedTuple):
    """What the registry says about a card of ours. Dates as BCD bytes; empty for a card that it does not know."""

    shard: int
    card_no: int
    valid_from: bytes = b""
    valid_through: bytes = b""

    def valid_at(self, moment: bytes) -> bool:
        """Whether a card may be used at a moment (date and time as in a record), as far as is known."""
        return not self.valid_from or self.valid_from <= moment[:4] <= self.valid_through


@lru_cache(maxsize=32_768)
def day_bytes(days: int | None) -> bytes:
    """A day, counted from 2000-01-01, as in a record; empty for none.

    >>> day_bytes(366).hex()
    '20010101'
    """
    return b"" if days is None else bytes.fromhex((_EPOCH + timedelta(days)).strftime("%Y%m%d"))


class Candidate:
    """One record on its way: what it says, and what has been found out. `fault`: the rule of form it breaks.

    moment, mark: raw date and time (7 bytes); those with PSAM number, PSAM serial and TAC (21). tac: its digest; without one the form
    is checked here and the TAC is not: set tac_good then.
    """

    __slots__ = (
        "acquirer",
        "alarm",
        "amount_fen",
        "atc",
        "card",
        "facts",
        "fault",
        "issuer_id",
        "kind",
        "mark",
        "moment",
        "psam",
        "psam_serial",
        "raw",
        "readable",
        "result",
        "tac",
    )

    def __init__(self, raw: bytes, tac: int | None = None) -> None:
        self.raw = raw
        self.fault = ""
        self.facts: Card | None = None
        self.result = ""
        self.alarm = ""
        if tac is None:
            try:
                check_form(raw)
            except FormatError:
                tac = UNREADABLE
            else:
                tac = unchecked(raw)
        self.tac = tac
        self.readable = tac != UNREADABLE
        if not self.readable:
            raw = bytes(RECORD_BYTES)
        issuer_id, self.atc, self.amount_fen, self.psam_serial, self.acquirer = _FIELDS.unpack_from(raw)
        digits = raw.hex()
        card = int(digits[12:32]) if self.readable else 0
        self.card = card if card < _TWO_63 else card - _TWO_64
        self.psam = int(digits[90:102]) if self.readable else 0
        self.issuer_id: bytes = issuer_id
        self.kind = raw[1]
        self.moment = raw[38:45]
        self.mark = raw[38:59]

    def __repr__(self) -> str:
        what = repr(self.record) if self.readable else "unreadable"
        return f"Candidate({what}, result={self.result or 'none yet'})"

    @property
    def record(self) -> Record | None:
        """The record with all its fields, read anew; None when its form is bad."""
        return read_record(self.raw) if self.readable else None

    @property
    def asn(self) -> str:
        """Application serial number, 20 digits."""
        return self.raw[6:16].hex()

    @property
    def wants_tac(self) -> bool:
        """Whether a TAC check could matter."""
        return bool(self.readable) and wants_tac(self.raw)

    @property
    def tac_good(self) -> bool:
        """Whether the TAC has been checked and is right."""
        return bool(self.tac == TAC_GOOD)

    @tac_good.setter
    def tac_good(self, good: bool) -> None:
        self.tac = TAC_GOOD if good else TAC_BAD

    def tac_item(self) -> TacItem:
        """What the vault needs to check the TAC; only of a record that can be read."""
        return tac_item(self.raw)

    def why_unreadable(self) -> str:
        """The rule of form that the record breaks."""
        try:
            read_record(self.raw)
        except FormatError as error:
            return str(error)
        return ""


@lru_cache(maxsize=1024)
def _acquirer_bytes(acquirer_id: str) -> bytes:
    return bytes.fromhex(acquirer_id) + _FILLER


def _moment(local: datetime) -> bytes:
    """Date and time as in a record."""
    return bytes.fromhex(local.strftime("%Y%m%d%H%M%S"))


def registration_fault(acquirer: bytes, merchant_no: int, psam: Psam | None) -> str:
    """Why acquirer, merchant and PSAM of a record do not belong together; empty when they do.

    acquirer: 8 bytes as in the record. merchant_no: of the terminal that brought it.
    """
    if psam is None:
        return "PSAM is not registered"
    if psam.merchant_no != merchant_no:
        return "PSAM belongs to another merchant"
    if not psam.active:
        return "PSAM is closed"
    if acquirer != _acquirer_bytes(psam.acquirer_id):
        return "acquirer is not the merchant's"
    return ""


class Judge:
    """Judges records one after the other. What one uses up, the next finds used.

    received_at: the instant of receipt. issuers: for each known issuer id whether it is ours.
    accepted: (card, ATC) → identity. serials: (PSAM, PSAM serial) of accepted records. waiting: (card, ATC, amount, mark) of
    records that were stored and use nothing up (04, 11, notices of locked cards).
    """

    def __init__(self, received_at: datetime, issuers: Mapping[bytes, bool]) -> None:
        local = received_at.astimezone(SHANGHAI)
        self._latest = _moment(local + timedelta(hours=FUTURE_HOURS_MAX))
        self._oldest = _moment(local - timedelta(days=OVERDUE_DAYS))
        self._issuers = issuers
        self.accepted: dict[tuple[int, int], Identity] = {}
        self.serials: set[tuple[int, int]] = set()
        self.waiting: set[tuple[int, int, int, bytes]] = set()

    @property
    def window(self) -> tuple[int, int]:
        """The first and the last moment that are allowed, as numbers of 14 digits."""
        return int(self._oldest.hex()), int(self._latest.hex())

    def judge(self, candidate: Candidate, registration: str) -> str:
        """The result of one record; also kept in candidate.result, with its alarm or fault.

        registration: what registration_fault said. candidate.facts and tac_good must be filled in before.
        """
        candidate.alarm = ""
        result = self._judge(candidate, registration)
        candidate.result = result
        return result

    def _judge(self, candidate: Candidate, registration: str) -> str:
        if not candidate.readable:
            candidate.fault = candidate.why_unreadable()
            return ILLEGAL
        candidate.fault = registration
        if registration:
            return ILLEGAL
        kind = candidate.kind
        if kind == TEST:
            return TEST_RECORD
        place = (candidate.card, candidate.atc)
        identity = (candidate.amount_fen, candidate.mark)
        holder = self.accepted.get(place)
        if holder == identity or (self.waiting and (*place, *identity) in self.waiting):
            return DUPLICATE
        moment, facts = candidate.moment, candidate.facts
        if moment > self._latest or (facts is not None and not facts.valid_at(moment)):
            return TIME_INVALID
        if moment < self._oldest:
            return OVERDUE
        own = self._issuers.get(candidate.issuer_id)
        if own is None:
            return ROUTE_UNKNOWN
        if not own:
            self.waiting.add((*place, *identity))
            return FOREIGN
        if kind == LOCKED:  # a notice: no purchase, so no TAC, and it uses nothing up
            self.waiting.add((*place, *identity))
            return ACCEPTED
        if candidate.tac == NO_TAC_YET:
            self.waiting.add((*place, *identity))
            return PENDING_GREY
        if candidate.tac != TAC_GOOD:
            return TAC_WRONG
        serial = (candidate.psam, candidate.psam_serial)
        if serial in self.serials:
            candidate.alarm = PSAM_COLLISION
            return ILLEGAL
        if holder is not None:
            candidate.alarm = ATC_COLLISION
            return ILLEGAL
        self.serials.add(serial)
        self.accepted[place] = identity
        return ACCEPTED


class Trace(NamedTuple):
    """What one record says about its card's purse. Amounts in fen; balance before the transaction."""

    atc: int
    amount_fen: int
    balance_fen: int


class GreyVerdict(NamedTuple):
    """Outcome of an adjudication. result: 00, 94, or empty to wait. contradiction: evidence that cannot be."""

    result: str
    contradiction: bool = False


WAIT: Final = GreyVerdict("")
CONTRADICTED: Final = GreyVerdict("", contradiction=True)


def adjudicate(
    grey: Trace, accepted: Collection[Trace], greys: Sequence[Trace] = (), loads: Collection[Loaded] = ()
) -> GreyVerdict:
    """Decide by the earliest other trustworthy evidence of the same card, at most one accepted record for each ATC.

    accepted: accepted records of the card. greys: its other grey records, which help to complete a balance chain. loads: of the
    card; credited ones in between explain that a balance is higher than the record before left it.

        evidence has the same ATC and the same balance before       never debited        94
        the next ATC and the balance less this amount               debited              00
        a later ATC, every record between known, balances linked    debited              00
        anything else                                               wait
    """
    later = [trace for trace in accepted if trace.atc >= grey.atc]
    if not later:
        return WAIT
    first = min(later)
    if first.atc == grey.atc:
        never = follows(grey.balance_fen, first.balance_fen, loads)
        return GreyVerdict(REFUSED_GREY) if never else CONTRADICTED
    expected_fen = grey.balance_fen - grey.amount_fen
    for atc in range(grey.atc + 1, first.atc):
        links = [
            other for other in greys if other.atc == atc and follows(expected_fen, other.balance_fen, loads)
        ]
        if len(links) != 1:
            return WAIT
        expected_fen = links[0].balance_fen - links[0].amount_fen
    if follows(expected_fen, first.balance_fen, loads):
        return GreyVerdict(ADJUSTED)
    return CONTRADICTED if first.atc == grey.atc + 1 else WAIT
