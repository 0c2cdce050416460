"""EPR1, the offline purse record 脫機交易記錄 of 96 bytes: its layout as data, and reading it.

docs/purse_record.md shows the layout to terminal makers. Reading checks form only (CRC, digits, ranges); whether a record
is good is for `verify`. A record holds a card number: nothing here prints one.
"""

from binascii import crc_hqx
from datetime import UTC, datetime
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from switch.domain.errors import FormatError
from switch.domain.identifiers import mask_asn

RECORD_BYTES: Final = 96
FORMAT: Final = 0x01
NORMAL, GREY, LOCKED, TEST = 0x00, 0x01, 0x02, 0x0F
KINDS: Final = frozenset({NORMAL, GREY, LOCKED, TEST})
TTIS: Final = frozenset({0x06, 0x09})  # purchase 消費, composite purchase 複合消費
ALGORITHMS: Final = frozenset({0x00, 0x04})  # 3DES, SM4
PHASE_MAX: Final = 3
NO_TAC: Final = frozenset({b"\xff\xff\xff\xff", b"\x00\x00\x00\x00"})
ATC_MAX: Final = 0xFFFF


class RecordField(NamedTuple):
    """One field of the layout: its first byte (counted from 1), its length, and how struct reads it."""

    name: str
    offset: int
    length: int
    code: str  # B, H, I: unsigned, high byte first; Ns: bytes


LAYOUT: Final = (
    RecordField("format", 1, 1, "B"),
    RecordField("kind", 2, 1, "B"),
    RecordField("tti", 3, 1, "B"),
    RecordField("algorithm", 4, 1, "B"),
    RecordField("key_version", 5, 1, "B"),
    RecordField("key_index", 6, 1, "B"),
    RecordField("asn", 7, 10, "10s"),  # 應用序列號, 20 digits
    RecordField("issuer_id", 17, 8, "8s"),
    RecordField("card_city", 25, 2, "2s"),
    RecordField("card_main_type", 27, 1, "B"),
    RecordField("card_sub_type", 28, 1, "B"),
    RecordField("atc", 29, 2, "H"),  # 脫機交易序號, as INITIALIZE returned it
    RecordField("amount_fen", 31, 4, "I"),
    RecordField("balance_fen", 35, 4, "I"),  # before the transaction
    RecordField("date", 39, 4, "4s"),
    RecordField("time", 43, 3, "3s"),
    RecordField("psam_no", 46, 6, "6s"),  # 終端機編號
    RecordField("psam_serial", 52, 4, "I"),
    RecordField("tac", 56, 4, "4s"),
    RecordField("record_serial", 60, 4, "I"),  # of the terminal, without gaps
    RecordField("acquirer", 64, 8, "8s"),
    RecordField("acquirer_city", 72, 2, "2s"),
    RecordField("full_fare_fen", 74, 4, "I"),
    RecordField("phase", 78, 1, "B"),
    RecordField("industry", 79, 1, "B"),
    RecordField("line", 80, 2, "2s"),
    RecordField("station", 82, 2, "2s"),
    RecordField("entry_station", 84, 2, "2s"),
    RecordField("vehicle", 86, 4, "4s"),
    RecordField("driver", 90, 4, "4s"),
    RecordField("flags", 94, 1, "B"),
    RecordField("crc", 95, 2, "H"),
)


class Record(NamedTuple):
    """A record as read, in the order of LAYOUT. Amounts in fen; digits as BCD bytes."""

    format: int
    kind: int
    tti: int
    algorithm: int
    key_version: int
    key_index: int
    asn: bytes
    issuer_id: bytes
    card_city: bytes
    card_main_type: int
    card_sub_type: int
    atc: int
    amount_fen: int
    balance_fen: int
    date: bytes
    time: bytes
    psam_no: bytes
    psam_serial: int
    tac: bytes
    record_serial: int
    acquirer: bytes
    acquirer_city: bytes
    full_fare_fen: int
    phase: int
    industry: int
    line: bytes
    station: bytes
    entry_station: bytes
    vehicle: bytes
    driver: bytes
    flags: int
    crc: int

    def __repr__(self) -> str:
        return f"Record(card={mask_asn(self.asn.hex())}, atc={self.atc}, record_serial={self.record_serial})"


_STRUCT: Final = Struct(">" + "".join(field.code for field in LAYOUT))
assert _STRUCT.size == RECORD_BYTES
assert Record._fields == tuple(field.name for field in LAYOUT)
assert all(
    field.offset == 1 + Struct(">" + "".join(before.code for before in LAYOUT[:place])).size
    for place, field in enumerate(LAYOUT)
), "fields follow each other without a hole"

_FILLER = "ffffffff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def crc16(data: bytes) -> int:
    """CRC-16/CCITT-FALSE: polynomial 1021, start FFFF, nothing reflected.

    >>> f"{crc16(b'123456789'):04X}"
    '29B1'
    """
    return crc_hqx(data, 0xFFFF)


def crc_of_pair(pair: int) -> int:
    """What becomes of the register after two bytes, when it held `pair` XOR these bytes before (see columns)."""
    return crc_hqx(pair.to_bytes(2), 0)


def read_record(raw: bytes) -> Record:
    """Read 96 bytes. FormatError names the rule and the first byte of the field (from 0) that breaks it."""
    check_form(raw)
    return Record._make(_STRUCT.unpack(raw))


def check_form(raw: bytes) -> str:
    """Check the form of a record and return it as hex digits, lower case. FormatError as read_record says."""
    # One look for the usual case; which rule is broken is found out only when one is. A CRC over data and CRC gives 0.
    if (
        len(raw) != RECORD_BYTES
        or crc_hqx(raw, 0xFFFF)
        or raw[0] != FORMAT
        or raw[1] not in KINDS
        or raw[2] not in TTIS
        or raw[3] not in ALGORITHMS
        or raw[77] > PHASE_MAX
    ):
        raise _fault(raw)
    digits = raw.hex()
    if (
        not (digits[12:32] + digits[48:52] + digits[76:102] + digits[126:134] + digits[142:146]).isdecimal()
        or raw[6] > 0x09
        or digits[134:142] != _FILLER
        or day_us(digits[76:84]) is None
        or raw[42] > 0x23
        or raw[43] > 0x59
        or raw[44] > 0x59
        or (raw[1] == LOCKED and raw[30:34] != _ZERO)
    ):
        raise _fault(raw)
    return digits


_ZERO = bytes(4)
_DIGIT_FIELDS = ((6, 10), (24, 2), (38, 4), (42, 3), (45, 6), (63, 4), (71, 2))


def _fault(raw: bytes) -> FormatError:
    """The first rule that a record breaks."""
    if len(raw) != RECORD_BYTES:
        return FormatError("a record has 96 bytes")
    if crc_hqx(raw, 0xFFFF):
        return FormatError("CRC is wrong", offset=RECORD_BYTES - 2)
    if raw[0] != FORMAT:
        return FormatError("format is not 01", offset=0)
    if raw[1] not in KINDS:
        return FormatError("record kind is not 00, 01, 02 or 0F", offset=1)
    if raw[2] not in TTIS:
        return FormatError("transaction type is not 06 or 09", offset=2)
    if raw[3] not in ALGORITHMS:
        return FormatError("algorithm is not 00 or 04", offset=3)
    if raw[77] > PHASE_MAX:
        return FormatError("ride phase is above 03", offset=77)
    digits = raw.hex()
    for start, length in _DIGIT_FIELDS:
        if not digits[2 * start : 2 * (start + length)].isdecimal():
            return FormatError("not decimal digits", offset=start)
    if digits[12] != "0":
        return FormatError("application serial number does not begin with 0", offset=6)
    if digits[134:142] != _FILLER:
        return FormatError("acquirer is not filled with F", offset=67)
    if day_us(digits[76:84]) is None:
        return FormatError("date is not in the calendar", offset=38)
    if raw[42] > 0x23 or raw[43] > 0x59 or raw[44] > 0x59:
        return FormatError("time is not of this day", offset=42)
    assert raw[1] == LOCKED, "every other rule has been looked at"
    return FormatError("a lock record has an amount", offset=30)


@lru_cache(maxsize=4096)
def day_us(digits: str) -> int | None:
    """Microseconds from 2000-01-01 to a day given as YYYYMMDD, or None when there is no such day.

    >>> day_us("20000102"), day_us("20240230")
    (86400000000, None)
    """
    try:
        day = datetime.strptime(digits, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return (day - _EPOCH).days * 86_400_000_000


_TWO_DIGITS = tuple(10 * (byte >> 4) + (byte & 15) for byte in range(256))  # of a BCD byte
_HOUR_US = tuple(3_600_000_000 * number for number in _TWO_DIGITS)
_MINUTE_US = tuple(60_000_000 * number for number in _TWO_DIGITS)
_SECOND_US = tuple(1_000_000 * number for number in _TWO_DIGITS)


def happened_us(raw: bytes, digits: str) -> int:
    """Microseconds from 2000-01-01 to date and time of a record of good form, without a time zone."""
    day = day_us(digits[76:84])
    assert day is not None
    return day + _HOUR_US[raw[42]] + _MINUTE_US[raw[43]] + _SECOND_US[raw[44]]
