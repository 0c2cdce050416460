"""Batch and management messages: uploads, settlement, sign-on, downloads (0320, 0500, 0800, 0820)."""

from collections.abc import Callable, Mapping
from typing import Any

from switch.domain.errors import FormatError
from switch.domain.money import CURRENCY_CNY, Fen
from switch.domain.transactions import (
    BatchEnd,
    Detail,
    DetailUpload,
    Echo,
    GroupTotals,
    HotListDownload,
    MasterKeyConfirm,
    MasterKeyDownload,
    OfflineUpload,
    ParameterDownload,
    Refused,
    Request,
    Settlement,
    SignOff,
    SignOn,
    StatusUpload,
)
from switch.messages.envelope import SIGN_ON_CODES, WITHOUT_MAC
from switch.messages.message import Fields
from switch.messages.parts import MISSING, check_trace, need
from switch.messages.spec import Part, slices, total
from switch.messages.structures import (
    BATCH_END,
    DETAIL,
    DETAILS_MAX,
    FIELD_60_SHORT,
    HOT_LIST_REQUEST,
    KCV_BYTES,
    PARAMETER_BLOCK,
    PARAMETERS,
    PUBLIC_KEY_BYTES,
    RECORD_BYTES,
    RECORDS_MAX,
    SERIAL_MARK,
    SETTLEMENT_DIGITS,
    SETTLEMENT_GROUP,
)

DETAIL_SLICES = slices(DETAIL)
GROUP_SLICES = slices(SETTLEMENT_GROUP)
HOT_LIST_SLICES = slices(HOT_LIST_REQUEST)
ECHO_CODE = "301"


def read_upload(fields: Fields) -> Request:
    """0320: offline records (203), details (201), batch end (202, 207)."""
    code = _code("0320", fields)
    if code == "203":
        return _offline_upload(need(fields, 62))
    if code == "201":
        return _detail_upload(need(fields, 48))
    if code in ("202", "207"):
        digits = need(fields, 48)
        if len(digits) != total(BATCH_END):
            raise FormatError("a batch end takes 4 digits", field="48")
        return BatchEnd(code == "207", int(digits))
    return _not_supported()


def read_settlement(fields: Fields) -> Request:
    """0500."""
    code = _code("0500", fields)
    if code != "201":
        return _not_supported()
    digits = need(fields, 48)
    if need(fields, 49) != CURRENCY_CNY:
        raise FormatError(f"currency is not {CURRENCY_CNY}", field="49")
    _operator(fields)
    if len(digits) != SETTLEMENT_DIGITS:
        raise FormatError(f"settlement totals take {SETTLEMENT_DIGITS} digits", field="48")
    half = SETTLEMENT_DIGITS // 2
    return Settlement(_group(digits[:half]), _group(digits[half:]))


def read_management(fields: Fields) -> Request:
    """0800: sign-on, master key, parameters, hot list."""
    code = _code("0800", fields)
    if code in SIGN_ON_CODES:
        serial = _serial(need(fields, 62))
        return SignOn(code, serial, _operator(fields))
    if code == "811":
        raw = need(fields, 62)
        if len(raw) <= PUBLIC_KEY_BYTES or raw[0] != 0x04:
            raise FormatError(
                "65 bytes of an uncompressed public key and the serial number expected", field="62"
            )
        rest = raw[PUBLIC_KEY_BYTES:]
        return MasterKeyDownload(
            raw[:PUBLIC_KEY_BYTES], _serial(rest) if rest.startswith(SERIAL_MARK) else _ascii(rest)
        )
    if code == "812":
        raw = need(fields, 62)
        if len(raw) != KCV_BYTES:
            raise FormatError(f"a check value has {KCV_BYTES} bytes", field="62")
        return MasterKeyConfirm(raw)
    if code == "360":
        return ParameterDownload(int(_digits(_text(need(fields, 62), PARAMETER_BLOCK))))
    if code == "361":
        return ParameterDownload(None)
    if code == "390":
        mode, version, block = (_text(need(fields, 62), HOT_LIST_REQUEST)[part] for part in HOT_LIST_SLICES)
        if mode not in HOT_LIST_REQUEST[0].meanings:
            raise FormatError("list mode is neither F nor I", field="62")
        if int(_digits(block)) == 0:
            raise FormatError("the first block is 0001", field="62")
        return HotListDownload(mode, int(_digits(version)), int(block))
    if code == "391":
        return HotListDownload("", 0, None)
    return _not_supported()


def read_advice(fields: Fields) -> Request:
    """0820: echo, sign-off, status."""
    code = _code("0820", fields)
    if code == ECHO_CODE:
        return Echo()
    if code == "002":
        return SignOff()
    if code == "362":
        return StatusUpload(read_parameters(_ascii(need(fields, 62))))
    return _not_supported()


def read_parameters(text: str) -> tuple[tuple[str, str], ...]:
    """A list of two-digit tags, each with a value of the tag's own length, every tag at most once."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        tag = text[at : at + 2]
        if tag not in PARAMETERS:
            raise FormatError("unknown tag: the length of its value is not known", field="62")
        if tag in found:
            raise FormatError("tag comes twice", field="62")
        value = text[at + 2 : at + 2 + PARAMETERS[tag].size]
        if len(value) != PARAMETERS[tag].size:
            raise FormatError("data ends inside a value", field="62")
        found[tag] = _digits(value)
        at += 2 + len(value)
    return tuple(found.items())


ADMINISTRATIVE_READERS: Mapping[str, Callable[[Fields], Request]] = {
    "0320": read_upload,
    "0500": read_settlement,
    "0800": read_management,
    "0820": read_advice,
}


def _not_supported() -> Refused:
    return Refused(None, Fen(0), "40", "network management code not supported")


def _code(mti: str, fields: Fields) -> str:
    """60.3, after the fields that all administrative messages share."""
    need(fields, 42)
    custom = need(fields, 60)
    if len(custom) != total(FIELD_60_SHORT):
        raise FormatError("administrative messages carry 11 digits", field="60")
    if custom[:2] != "00":
        raise FormatError("60.1 of an administrative message is 00", field="60")
    code = str(custom[8:])
    if (mti, code) != ("0820", ECHO_CODE):
        need(fields, 11)
    if 11 in fields:
        check_trace(fields[11])
    if (mti, code) not in WITHOUT_MAC and 64 not in fields:
        raise FormatError(MISSING, field="64")
    return code


def _operator(fields: Fields) -> str:
    """Field 63: the operator's two digits and a space; text may follow."""
    text = str(need(fields, 63))
    if len(text) < 3 or not (text[:2].isascii() and text[:2].isdecimal()) or text[2] != " ":
        raise FormatError("operator code is not two digits and a space", field="63")
    return text[:2]


def _ascii(raw: bytes) -> str:
    if not raw or not raw.isascii() or not raw.decode("ascii").isprintable():
        raise FormatError("not printable ASCII", field="62")
    return raw.decode("ascii")


def _digits(text: str) -> str:
    if not (text.isascii() and text.isdecimal()):
        raise FormatError("digits expected", field="62")
    return text


def _text(raw: bytes, parts: tuple[Part, ...]) -> str:
    if len(raw) != total(parts):
        raise FormatError(f"{total(parts)} characters expected", field="62")
    return _ascii(raw)


def _serial(raw: bytes) -> str:
    """`Sequence No`, two digits of length, and as many characters of serial number."""
    text = _ascii(raw)
    mark = SERIAL_MARK.decode()
    if not text.startswith(mark):
        raise FormatError("does not start with Sequence No", field="62")
    size, serial = _digits(text[len(mark) : len(mark) + 2]), text[len(mark) + 2 :]
    if len(size) != 2 or int(size) != len(serial) or not serial:
        raise FormatError("length of the serial number is wrong", field="62")
    return serial


def _offline_upload(raw: bytes) -> OfflineUpload:
    if not raw or not 1 <= raw[0] <= RECORDS_MAX:
        raise FormatError(f"record count is not 01 to {RECORDS_MAX:02d}", field="62")
    if len(raw) != 1 + raw[0] * RECORD_BYTES:
        raise FormatError(f"length is not 1 + count x {RECORD_BYTES}", field="62")
    return OfflineUpload(tuple(raw[at : at + RECORD_BYTES] for at in range(1, len(raw), RECORD_BYTES)))


def _detail_upload(digits: str) -> DetailUpload:
    width = total(DETAIL)
    count = int(digits[:2]) if len(digits) >= 2 else 0
    if not 1 <= count <= DETAILS_MAX:
        raise FormatError(f"detail count is not 01 to {DETAILS_MAX:02d}", field="48")
    if len(digits) != 2 + count * width:
        raise FormatError(f"length is not 2 + count x {width}", field="48")
    return DetailUpload(tuple(_detail(digits[at : at + width]) for at in range(2, len(digits), width)))


def _detail(digits: str) -> Detail:
    card_class, trace, card, amount = (digits[part] for part in DETAIL_SLICES)
    check_trace(trace, field="48")
    return Detail(card_class, int(trace), card, Fen(int(amount)))


def _group(digits: str) -> GroupTotals:
    figures: list[Any] = [digits[part] for part in GROUP_SLICES]
    if figures[4] != "0":
        raise FormatError("result of a request is 0", field="48")
    return GroupTotals(Fen(int(figures[0])), int(figures[1]), Fen(int(figures[2])), int(figures[3]))
