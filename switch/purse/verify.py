"""Whether an offline record is good: the nine checks in their order, and what becomes of grey records 灰記錄.

Pure: records, registry facts and the instant go in, result codes come out. A Judge is the running state of one
transaction: intake fills it with what the database knows, so that records of one upload, and of many uploads, are
judged one after the other in order of arrival. docs/purse_record.md shows the checks to terminal makers.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import FormatError
from switch.keys.purse import TacItem
from switch.purse.record import GREY, LOCKED, NO_TAC, TEST, Record, read_record

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
    """What the registry says about a card of ours. valid_*: None for one that it does not know."""

    shard: int
    card_no: int
    valid_from: date | None
    valid_through: date | None


class Candidate:
    """One record on its way: as it came, as read, and what has been found out. `fault` is set when it breaks a rule of form."""

    __slots__ = (
        "alarm",
        "asn",
        "card",
        "facts",
        "fault",
        "mark",
        "moment",
        "psam",
        "raw",
        "record",
        "result",
        "tac_good",
    )

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.record: Record | None
        self.fault = ""
        self.asn = ""  # 20 digits
        self.card = 0  # the card number in eight bytes, signed
        self.psam = 0
        self.moment = ""  # YYYYMMDDhhmmss
        self.mark = b""  # date, time, PSAM number, PSAM serial, TAC
        self.tac_good = False
        self.facts: Card | None = None
        self.result = ""
        self.alarm = ""
        try:
            record = self.record = read_record(raw)
        except FormatError as error:
            self.record = None
            self.fault = str(error)
            return
        digits = raw.hex()
        self.asn = asn = digits[12:32]
        card = int(asn)
        self.card = card if card < _TWO_63 else card - _TWO_64
        self.psam = int(digits[90:102])
        self.moment = digits[76:90]
        self.mark = raw[38:59]
        assert record.psam_no == raw[45:51]

    def __repr__(self) -> str:
        return f"Candidate({self.record!r}, result={self.result or 'none yet'})"

    @property
    def wants_tac(self) -> bool:
        """Whether a TAC check could matter."""
        record = self.record
        return record is not None and record.kind == 0 and record.tac not in NO_TAC

    def tac_item(self) -> TacItem:
        """What the vault needs to check the TAC; only of a record that was read."""
        raw, record = self.raw, self.record
        assert record is not None
        return TacItem(
            record.algorithm, record.key_version, record.issuer_id, raw[8:16], tac_input(raw), record.tac
        )


def tac_input(raw: bytes) -> bytes:
    """The 22 bytes under the TAC: amount ‖ TTI ‖ PSAM number ‖ PSAM serial ‖ date ‖ time."""
    return raw[30:34] + raw[2:3] + raw[45:55] + raw[38:45]


@lru_cache(maxsize=1024)
def _acquirer_bytes(acquirer_id: str) -> bytes:
    return bytes.fromhex(acquirer_id) + _FILLER


@lru_cache(maxsize=4096)
def _day_text(day: date) -> str:
    return day.strftime("%Y%m%d")


def registration_fault(record: Record, merchant_no: int, psam: Psam | None) -> str:
    """Why acquirer, merchant and PSAM of a record do not belong together; empty when they do."""
    if psam is None:
        return "PSAM is not registered"
    if psam.merchant_no != merchant_no:
        return "PSAM belongs to another merchant"
    if not psam.active:
        return "PSAM is closed"
    if record.acquirer != _acquirer_bytes(psam.acquirer_id):
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
        self._latest = (local + timedelta(hours=FUTURE_HOURS_MAX)).strftime("%Y%m%d%H%M%S")
        self._oldest = (local - timedelta(days=OVERDUE_DAYS)).strftime("%Y%m%d%H%M%S")
        self._issuers = issuers
        self.accepted: dict[tuple[int, int], Identity] = {}
        self.serials: set[tuple[int, int]] = set()
        self.waiting: set[tuple[int, int, int, bytes]] = set()

    def judge(self, candidate: Candidate, registration: str) -> str:
        """The result of one record; also kept in candidate.result, with its alarm or fault.

        registration: what registration_fault said. candidate.facts and tac_good must be filled in before.
        """
        candidate.alarm = ""
        result = self._judge(candidate, registration)
        candidate.result = result
        return result

    def _judge(self, candidate: Candidate, registration: str) -> str:
        record = candidate.record
        if record is None:
            return ILLEGAL
        candidate.fault = registration
        if registration:
            return ILLEGAL
        if record.kind == TEST:
            return TEST_RECORD
        card, atc, amount_fen, mark = candidate.card, record.atc, record.amount_fen, candidate.mark
        place = (card, atc)
        identity = (amount_fen, mark)
        holder = self.accepted.get(place)
        if holder == identity or (*place, *identity) in self.waiting:
            return DUPLICATE
        late = self._out_of_time(candidate.moment, candidate.facts)
        if late:
            return late
        own = self._issuers.get(record.issuer_id)
        if not own:
            if own is None:
                return ROUTE_UNKNOWN
            self.waiting.add((*place, *identity))
            return FOREIGN
        if record.kind == LOCKED:  # a notice: no purchase, so no TAC, and it uses nothing up
            self.waiting.add((*place, *identity))
            return ACCEPTED
        if record.kind == GREY or record.tac in NO_TAC:
            self.waiting.add((*place, *identity))
            return PENDING_GREY
        if not candidate.tac_good:
            return TAC_WRONG
        serial = (candidate.psam, record.psam_serial)
        if serial in self.serials:
            candidate.alarm = PSAM_COLLISION
            return ILLEGAL
        if holder is not None:
            candidate.alarm = ATC_COLLISION
            return ILLEGAL
        self.serials.add(serial)
        self.accepted[place] = identity
        return ACCEPTED

    def _out_of_time(self, moment: str, card: Card | None) -> str:
        if moment > self._latest:
            return TIME_INVALID
        if card is not None and card.valid_from is not None and card.valid_through is not None:
            day = moment[:8]
            if day < _day_text(card.valid_from) or day > _day_text(card.valid_through):
                return TIME_INVALID
        return OVERDUE if moment < self._oldest else ""


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


def adjudicate(grey: Trace, accepted: Collection[Trace], greys: Sequence[Trace] = ()) -> GreyVerdict:
    """Decide by the earliest other trustworthy evidence of the same card, at most one accepted record for each ATC.

    accepted: accepted records of the card. greys: its other grey records, which help to complete a balance chain.

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
        return GreyVerdict(REFUSED_GREY) if first.balance_fen == grey.balance_fen else CONTRADICTED
    expected_fen = grey.balance_fen - grey.amount_fen
    for atc in range(grey.atc + 1, first.atc):
        links = [other for other in greys if other.atc == atc and other.balance_fen == expected_fen]
        if len(links) != 1:
            return WAIT
        expected_fen -= links[0].amount_fen
    if first.balance_fen == expected_fen:
        return GreyVerdict(ADJUSTED)
    return CONTRADICTED if first.atc == grey.atc + 1 else WAIT
