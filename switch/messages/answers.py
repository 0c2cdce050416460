"""Outcomes to answers: which fields go back, and the code in field 39.

An answer is made in two pieces, since its MAC is computed by whoever holds the key:
`frame(prefix + mab + field64)`, with field64 left out when the request came without one.
"""

from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache
from types import MappingProxyType

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import APPROVED, BalanceFigure, Decline, Outcome
from switch.domain.money import CURRENCY_CNY, FIELD4_MAX
from switch.messages.message import Message
from switch.messages.spec import LENGTHS
from switch.messages.structures import RESPONSES
from switch.messages.terminal_1987 import ANSWER_MTI

DE39: Mapping[Decline, str] = MappingProxyType(
    {
        Decline.MALFUNCTION: "96",
        Decline.FORMAT: "30",
        Decline.TERMINAL_MUST_SIGN_ON: "77",
        Decline.BATCH_FROZEN: "90",
        Decline.DUPLICATE_KEY: "94",
        Decline.NOT_SUPPORTED: "40",
        Decline.CASH_FORBIDDEN: "57",
        Decline.TOMBSTONED: "22",
        Decline.CARD_UNKNOWN: "14",
        Decline.ISSUER_UNKNOWN: "15",
        Decline.CARD_OUT_OF_SCOPE: "57",
        Decline.ACQUIRER_OUT_OF_SCOPE: "58",
        Decline.NO_ROUTE: "92",
        Decline.HOST_DOWN: "91",
        Decline.HOST_SILENT: "68",
        Decline.CARD_NOT_ACTIVE: "21",
        Decline.CARD_RESTRICTED: "62",
        Decline.CARD_LOST: "41",
        Decline.CARD_EXPIRED: "54",
        Decline.TERMINAL_NO_CASH: "58",
        Decline.ACCOUNT_NOT_PERMITTED: "57",
        Decline.AMOUNT_INVALID: "13",
        Decline.CARD_UNPROVEN: "A7",
        Decline.LOAD_REPLAYED: "34",
        Decline.ORIGINAL_UNKNOWN: "25",
        Decline.ORIGINAL_AMOUNT: "64",
        Decline.NOT_APPLICABLE: "12",
        Decline.PIN_BLOCKED: "75",
        Decline.PIN_UNREADABLE: "99",
        Decline.PIN_WRONG: "55",
        Decline.FUNDS_INSUFFICIENT: "51",
        Decline.LIMIT_AMOUNT: "61",
        Decline.LIMIT_COUNT: "65",
    }
)
assert DE39.keys() == set(Decline), "every reason has a code"
assert set(DE39.values()) <= RESPONSES.keys()


class Code:
    """Codes of field 39 that no decline of the ledger stands for: what is wrong with the message or its sender."""

    MERCHANT_INVALID = "03"
    FORMAT = "30"
    SIGN_ON_AGAIN = "77"
    MALFUNCTION = "96"
    TERMINAL_UNKNOWN = "97"
    MAC_WRONG = "A0"
    SECURITY_FAILED = "A7"


class Processing:
    """Header digit 6 of an answer: what the terminal should do next (處理要求)."""

    NONE = 0
    FETCH_PARAMETERS = 1
    UPLOAD_STATUS = 2
    SIGN_ON = 3
    FETCH_IC_PARAMETERS = 5
    FETCH_HOT_LIST = 7


_CARD_MTIS = frozenset({"0100", "0200", "0220", "0400"})
_WITH_AUTHORISATION_CODE = frozenset({"0100", "0200"})


def _bit(number: int) -> int:
    return 1 << (64 - number)


_B2, _B3, _B4, _B11, _B15, _B25, _B37, _B38 = map(_bit, (2, 3, 4, 11, 15, 25, 37, 38))
_B42, _B44, _B48, _B49, _B54, _B55, _B60, _B62, _B64 = map(_bit, (42, 44, 48, 49, 54, 55, 60, 62, 64))
_ALWAYS = _bit(12) | _bit(13) | _bit(32) | _bit(39) | _bit(41)
_ALWAYS_BARE = _bit(12) | _bit(13) | _bit(39) | _bit(41)


def build_answer(
    request: Message,
    outcome: Outcome,
    *,
    acquirer: str,
    processing: int = 0,
    batch_no: int | None = None,
    institutions: str = "",
) -> tuple[bytes, bytes]:
    """The answer to any request that could be read: (TPDU and header, MTI up to before field 64).

    acquirer: digits of field 32. processing: header digit 6. batch_no: replaces 60.2, in the answer to a sign-on.
    institutions: field 44, issuer and acquirer in 11 characters each, or nothing.
    Bit 64 is set when the request had it. The fields come from the outcome as stored and from the request at hand,
    so a repeat under new keys gets the answer it should have had.
    """
    fields = request.fields
    mti = request.mti
    bits = _ALWAYS
    clock = _clock(int(outcome.decided_at.timestamp()))
    early = ""
    by_card = mti in _CARD_MTIS
    if by_card:
        if 2 in fields:
            bits |= _B2
            pan = fields[2]
            size = len(pan)
            early = f"{size:02d}{pan}0" if size & 1 else f"{size:02d}{pan}"
        if 3 in fields:
            bits |= _B3
            early += fields[3]
        if 4 in fields:
            bits |= _B4
            early += fields[4]
    if 11 in fields:
        bits |= _B11
        early += fields[11]
    early += clock
    if outcome.clearing_date is not None:
        bits |= _B15
        early += _month_day(outcome.clearing_date)
    if by_card and 25 in fields:
        bits |= _B25
        early += fields[25]
    size = len(acquirer)
    early += f"{size:02d}{acquirer}0" if size & 1 else f"{size:02d}{acquirer}"

    middle = outcome.rrn
    if middle:
        bits |= _B37
    if outcome.auth_code and mti in _WITH_AUTHORISATION_CODE and outcome.answer == APPROVED:
        bits |= _B38
        middle += outcome.auth_code
    middle += outcome.answer + fields[41]
    if 42 in fields:
        bits |= _B42
        middle += fields[42]
    tail = middle.encode()
    if institutions:
        bits |= _B44
        tail += bytes.fromhex(f"{len(institutions):02d}") + institutions.encode()
    if outcome.field48:
        bits |= _B48
        tail += _length(len(outcome.field48)) + bytes.fromhex(
            outcome.field48 + "0" * (len(outcome.field48) & 1)
        )
    if 49 in fields and (by_card or mti == "0500"):
        bits |= _B49
        tail += fields[49].encode()
    if outcome.balances:
        bits |= _B54
        text = "".join(map(_balance, outcome.balances))
        tail += _length(len(text)) + text.encode()
    if outcome.field55:
        bits |= _B55
        tail += _length(len(outcome.field55)) + outcome.field55
    if 60 in fields:
        bits |= _B60
        tail += _custom_60(fields[60], batch_no)
    if outcome.field62:
        bits |= _B62
        tail += _length(len(outcome.field62)) + outcome.field62
    if 64 in fields:
        bits |= _B64
    return _prefix(request, processing), bytes.fromhex(f"{ANSWER_MTI[mti]}{bits:016x}{early}") + tail


def build_bare(
    request: Message, answer: str, decided_at: datetime, *, with_mac: bool, processing: int = 0
) -> tuple[bytes, bytes]:
    """An answer of which nothing is kept (A0, 30, 03, 97, 77, 96): only 3, 11, 12, 13, 39, 41, 42, 60 and perhaps 64.

    request: a message as decode returned it, or what a MessageFormatError could read. Returns like build_answer.
    """
    fields = request.fields
    bits = _ALWAYS_BARE | (_B64 if with_mac else 0)
    early = ""
    if 3 in fields:
        bits |= _B3
        early = fields[3]
    if 11 in fields:
        bits |= _B11
        early += fields[11]
    early += _clock(int(decided_at.timestamp()))
    tail = answer + fields[41]
    if 42 in fields:
        bits |= _B42
        tail += fields[42]
    custom = b""
    if 60 in fields:
        bits |= _B60
        custom = _custom_60(fields[60], None)
    return (
        _prefix(request, processing),
        bytes.fromhex(f"{ANSWER_MTI[request.mti]}{bits:016x}{early}") + tail.encode() + custom,
    )


def _prefix(request: Message, processing: int) -> bytes:
    """TPDU with its addresses swapped, header with digit 6 set."""
    tpdu, header = request.tpdu, request.header
    return (
        tpdu[:1]
        + tpdu[3:5]
        + tpdu[1:3]
        + header[:2]
        + _DIGITS_5_6[header[2] & 0xF0 | processing]
        + header[3:]
    )


_DIGITS_5_6 = tuple(bytes([byte]) for byte in range(256))


def _length(units: int) -> bytes:
    """An LLL prefix."""
    return LENGTHS[units].to_bytes(2, "big")


def _custom_60(digits: str, batch_no: int | None) -> bytes:
    if batch_no is not None:
        digits = f"{digits[:2]}{batch_no:06d}{digits[8:]}"
    return bytes.fromhex(f"{len(digits):04d}{digits}{'0' if len(digits) & 1 else ''}")


def _balance(figure: BalanceFigure) -> str:
    """20 characters of field 54."""
    assert abs(figure.amount_fen) <= FIELD4_MAX, "field 54 holds twelve digits"
    sign = "D" if figure.amount_fen < 0 else "C"
    return f"{figure.account:02d}{figure.amount_type:02d}{CURRENCY_CNY}{sign}{abs(figure.amount_fen):012d}"


@lru_cache(maxsize=256)
def _clock(second: int) -> str:
    """Fields 12 and 13, hhmmssMMDD in Shanghai, of a second since 1970."""
    return datetime.fromtimestamp(second, SHANGHAI).strftime("%H%M%S%m%d")


@lru_cache(maxsize=64)
def _month_day(day: date) -> str:
    return day.strftime("%m%d")
