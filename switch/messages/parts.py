"""Readers of the sub-structures that requests share. FormatError names field and rule, never the value."""

from collections.abc import Mapping
from typing import Any

from switch.domain.errors import FormatError
from switch.domain.identifiers import CardNumber
from switch.domain.money import CURRENCY_CNY, Fen
from switch.domain.transactions import AccountKind, Original, PinEntry, PinFormat
from switch.messages.message import Fields
from switch.messages.structures import FIELD_22, FIELD_60_LONG, TAGS
from switch.messages.tlv import PIN_BLOCK_HEAD, tlv_values

MISSING = "mandatory field is missing"
ACCOUNTS: Mapping[str, AccountKind] = {
    "00": AccountKind.ONLINE,
    "10": AccountKind.ONLINE,
    "20": AccountKind.BANK,
    "40": AccountKind.MEDICAL,
    "50": AccountKind.PURSE,
}
ENTRY_MODES = frozenset(entry + pin for entry in FIELD_22[0].meanings for pin in FIELD_22[1].meanings)
# What may stand behind the batch number in a financial message: 60.3, 60.4 and 60.5.
FINANCIAL_60_TAILS = frozenset(
    "000" + read + ic for read in FIELD_60_LONG[3].meanings for ic in FIELD_60_LONG[4].meanings
)
FINANCIAL_60_DIGITS = 13
PIN_FORMATS = {"26": PinFormat.ISO_0, "16": PinFormat.NO_PAN}
PIN_FORMAT_SM4 = "23"
PIN_DIGITS = range(4, 13)
PIN_BLOCK_END = len(PIN_BLOCK_HEAD) + TAGS["DF51"].size
DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
NO_TAGS: Mapping[str, bytes] = {}


def need(fields: Fields, number: int) -> Any:
    """The value of a mandatory field."""
    if number not in fields:
        raise FormatError(MISSING, field=str(number))
    return fields[number]


def card_of(digits: str) -> CardNumber:
    """Field 2."""
    try:
        return CardNumber(digits)
    except ValueError:
        raise FormatError("a PAN has 13 to 19 digits", field="2") from None


def check_trace(digits: str, field: str = "11") -> None:
    """A trace is 000001 to 999999, in field 11 and wherever one is named."""
    if digits == "000000":
        raise FormatError("trace is 000000", field=field)


def check_head(fields: Fields) -> None:
    """What every card message shares: fields 11, 14, 22, 49 and the shape of 60. Mandatory ones have been seen."""
    custom = fields[60]
    if fields[49] != CURRENCY_CNY:
        raise FormatError(f"currency is not {CURRENCY_CNY}", field="49")
    if fields[22] not in ENTRY_MODES:
        raise FormatError("entry mode is not one of the table", field="22")
    if len(custom) != FINANCIAL_60_DIGITS:
        raise FormatError(f"financial messages carry {FINANCIAL_60_DIGITS} digits", field="60")
    if custom[8:] not in FINANCIAL_60_TAILS:
        raise FormatError("60.3 is not 000, or 60.4 or 60.5 not one of the table", field="60")
    check_trace(fields[11])
    if 14 in fields and not "01" <= fields[14][2:] <= "12":
        raise FormatError("month is not 01 to 12", field="14")


def amount_of(fields: Fields) -> Fen:
    """Field 4. Zero is for the ledger to judge."""
    return Fen(int(need(fields, 4)))


def tags_of(fields: Fields) -> Mapping[str, bytes]:
    """Field 55 taken apart; nothing when there is none."""
    raw = fields.get(55)
    return NO_TAGS if raw is None else tlv_values(raw)


def pin_of(fields: Fields, tags: Mapping[str, bytes]) -> PinEntry | None:
    """The PIN block of a request that may carry one, if 22, 26, 52, 53 and DF51 agree about it."""
    says = fields[22][2]
    block = fields.get(52)
    sm4_block = tags.get("DF51")
    control = fields.get(53)
    if control is not None:
        _check_control(control)
    if block is None and sm4_block is None:
        if says == "1":
            raise FormatError("no PIN block though 22 says that a PIN was entered", field="52")
        if 26 in fields:
            raise FormatError("without a PIN", field="26")
        if control is not None and control[0] != "0":
            raise FormatError("announces a PIN block, none came", field="53")
        return None
    if says == "2":
        raise FormatError("says that no PIN was entered, a PIN block came", field="22")
    if block is not None and sm4_block is not None:
        raise FormatError("PIN block in 52 and in DF51", field="52")
    if int(need(fields, 26)) not in PIN_DIGITS:
        raise FormatError("maximum PIN length is not 4 to 12", field="26")
    leading = need(fields, 53)[:2]
    if block is not None:
        layout = PIN_FORMATS.get(leading)
        if layout is None:
            raise FormatError("field 52 goes with 16 or 26 only", field="53")
        return PinEntry(block, layout)
    assert sm4_block is not None
    if leading != PIN_FORMAT_SM4:
        raise FormatError("DF51 goes with 23 only", field="53")
    return PinEntry(sm4_block, PinFormat.SM4_PAN)


def check_no_pin(fields: Fields, tags: Mapping[str, bytes]) -> None:
    """Voids, refunds, completions, confirms and reversals repeat 22 of their original and carry no PIN."""
    for number in (26, 52):
        if number in fields:
            raise FormatError("this message carries no PIN", field=str(number))
    if "DF51" in tags:
        raise FormatError("this message carries no PIN", field="DF51")
    control = fields.get(53)
    if control is not None:
        _check_control(control)
        if control[0] != "0":
            raise FormatError("announces a PIN block, none came", field="53")


def original_of(fields: Fields) -> Original:
    """Field 61, 16 digits: batch, trace, date MMDD."""
    digits = need(fields, 61)
    if len(digits) != 16:
        raise FormatError("an original takes 16 digits", field="61")
    month, day = int(digits[12:14]), int(digits[14:])
    if not 1 <= month <= 12 or not 1 <= day <= DAYS_IN_MONTH[month - 1]:
        raise FormatError("original date is not a date", field="61")
    if digits[6:12] == "000000":
        raise FormatError("original trace is 000000", field="61")
    return Original(int(digits[:6]), int(digits[6:12]), month, day)


def tracks_encrypted(fields: Fields) -> bool:
    """Digit 3 of field 53."""
    return str(fields.get(53, "000"))[2] == "1"


def check_track2(fields: Fields) -> None:
    """Field 35, where there is one: PAN = expiry and so on; in the clear its PAN must be field 2."""
    if tracks_encrypted(fields):
        return
    pan, separator, rest = str(fields[35]).partition("=")
    if not separator or not pan.isdecimal() or not rest.isdecimal():
        raise FormatError("not PAN, separator and digits", field="35")
    if pan != fields[2]:
        raise FormatError("PAN differs from field 2", field="35")


def _check_control(control: str) -> None:
    if (
        control[0] not in "012"
        or control[1] not in "036"
        or control[2] not in "01"
        or control[3:] != "0" * 13
    ):
        raise FormatError("security control is not one of the table", field="53")
