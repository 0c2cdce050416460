"""What a field's value means, part by part, and which of its bytes people may see.

Masking fails closed: a field whose parts must be told apart before it may be shown, and cannot be, shows its length.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from switch.domain.errors import FormatError
from switch.domain.identifiers import mask_asn, mask_pan
from switch.domain.money import Fen, yuan
from switch.messages.administration import read_parameters
from switch.messages.envelope import SIGN_ON_CODES
from switch.messages.kinds import NIBBLES
from switch.messages.message import Message, masked
from switch.messages.spec import Part, Secret, slices, total
from switch.messages.structures import (
    BALANCE_ENTRY,
    BATCH_END,
    DETAIL,
    FIELD_3,
    FIELD_22,
    FIELD_25_MEANINGS,
    FIELD_53,
    FIELD_60_LONG,
    FIELD_60_SHORT,
    FIELD_61,
    HOT_LIST_ANSWER,
    HOT_LIST_ENTRY_BYTES,
    HOT_LIST_REQUEST,
    KCV_BYTES,
    OFFLINE_RECORD,
    OFFLINE_RECORD_ASN,
    PARAMETER_BLOCK,
    PARAMETERS,
    PUBLIC_KEY_BYTES,
    RECORD_BYTES,
    RESPONSES,
    REVERSAL_REASONS,
    SERIAL_MARK,
    SETTLEMENT_DIGITS,
    SETTLEMENT_GROUP,
    TAGS,
    UPLOAD_RESULT_BYTES,
    WORKING_KEY_BYTES,
)
from switch.messages.terminal_1987 import FIELDS
from switch.messages.tlv import read_tlvs

HIDDEN_BYTE = "··"
PAN_LIKE = re.compile(r"\d{13,}")


class PartLine(NamedTuple):
    """One part of a field as shown: name, Chinese name, masked value, what the value means."""

    name: str
    chinese: str
    value: str
    meaning: str = ""


class Explanation(NamedTuple):
    """A field as shown. hexes: two characters for every byte of the value, hidden where it must be."""

    value: str
    meaning: str
    parts: tuple[PartLine, ...]
    hexes: tuple[str, ...]


def explain(message: Message, number: int, raw: bytes) -> Explanation:
    """Explain one field that could be read. raw: the bytes of its value as they travelled, without the prefix."""
    spec = FIELDS[number]
    value = message.fields[number]
    shown = masked(spec, value)
    if spec.secret is Secret.PAN:
        return Explanation(shown, "", (), pan_hexes(value, raw))
    if spec.secret is Secret.HIDDEN:
        return Explanation(shown, "never shown", (), hidden(raw))
    if spec.secret is Secret.PARTS:
        return _PARTS[number](message, value, raw, shown)
    if number == 63:
        shown = PAN_LIKE.sub(lambda found: mask_pan(found[0]), value)
        return Explanation(shown, "", (), bytes_hex(raw) if shown == value else hidden(raw))
    parts = _STRUCTURES[number](value) if number in _STRUCTURES else ()
    return Explanation(shown, _meaning(message, number, value), tuple(parts), bytes_hex(raw))


def bytes_hex(raw: bytes) -> tuple[str, ...]:
    """Every byte in two digits."""
    return tuple(f"{byte:02X}" for byte in raw)


def hidden(raw: bytes) -> tuple[str, ...]:
    """Every byte hidden."""
    return (HIDDEN_BYTE,) * len(raw)


def pan_hexes(digits: str, raw: bytes) -> tuple[str, ...]:
    """The bytes of a PAN, with only the digits that a mask leaves."""
    shown = mask_pan(digits)
    if len(shown) != len(digits) or "*" not in shown:
        return hidden(raw)
    nibbles = shown.replace("*", "·") + "0" * (len(digits) % 2)
    return tuple(nibbles[at : at + 2] for at in range(0, len(nibbles), 2))


def _meaning(message: Message, number: int, value: str | bytes) -> str:
    if isinstance(value, bytes):
        return ""
    if number == 4:
        return f"{yuan(int(value))} CNY"
    if number == 12:
        return f"{value[:2]}:{value[2:4]}:{value[4:]}"
    if number in (13, 15):
        return f"month {value[:2]}, day {value[2:]}"
    if number == 14:
        return f"year {value[:2]}, month {value[2:]}"
    if number == 25:
        return FIELD_25_MEANINGS.get(value, "unknown")
    if number == 39 and message.mti == "0400":
        return REVERSAL_REASONS.get(value, "unknown")
    if number == 39:
        return " ".join(RESPONSES.get(value, ("unknown",)))
    return ""


def _run(parts: Sequence[Part], text: str) -> list[PartLine]:
    """Lines of a text that is cut into parts."""
    lines = []
    for part, where in zip(parts, slices(parts), strict=True):
        value = text[where]
        meaning = part.meanings.get(value, "unknown" if part.meanings else "")
        if "amount" in part.name and value.isdecimal() and part.size == 12:
            meaning = f"{yuan(int(value))} CNY"
        lines.append(PartLine(part.name, part.chinese, value, meaning))
    return lines


def _exactly(*shapes: Sequence[Part]) -> Callable[[str], list[PartLine]]:
    """Explain a text by the first of the shapes that has its length."""

    def lines(text: str) -> list[PartLine]:
        return next((_run(parts, text) for parts in shapes if total(parts) == len(text)), [])

    return lines


def _balances(text: str) -> list[PartLine]:
    size = total(BALANCE_ENTRY)
    if len(text) % size:
        return []
    return [line for at in range(0, len(text), size) for line in _run(BALANCE_ENTRY, text[at : at + size])]


_STRUCTURES: dict[int, Callable[[str], list[PartLine]]] = {
    3: _exactly(FIELD_3),
    22: _exactly(FIELD_22),
    53: _exactly(FIELD_53),
    54: _balances,
    60: _exactly(FIELD_60_SHORT, FIELD_60_LONG),
    61: _exactly(FIELD_61),
}


def _field48(_message: Message, value: str, raw: bytes, shown: str) -> Explanation:
    size = total(DETAIL)
    if len(value) == SETTLEMENT_DIGITS:
        half = SETTLEMENT_DIGITS // 2
        lines = [
            line._replace(name=f"{name}: {line.name}")
            for name, text in (("accounts", value[:half]), ("purse", value[half:]))
            for line in _run(SETTLEMENT_GROUP, text)
        ]
        return Explanation(value, "settlement totals 批結算總額", tuple(lines), bytes_hex(raw))
    if len(value) == total(BATCH_END):
        return Explanation(value, "batch end 批上送結束", tuple(_run(BATCH_END, value)), bytes_hex(raw))
    if len(value) < 2 or len(value) != 2 + int(value[:2]) * size:
        return Explanation(shown, "", (), hidden(raw))
    details: list[PartLine] = []
    hexes = list(bytes_hex(raw))
    for at in range(2, len(value), size):
        details += [
            line._replace(value=_mask_card20(line.value)) if part.secret is Secret.PAN else line
            for part, line in zip(DETAIL, _run(DETAIL, value[at : at + size]), strict=True)
        ]
        first = (at + 8) // 2
        hexes[first : first + 10] = [HIDDEN_BYTE] * 10
    return Explanation(shown, f"{value[:2]} details 批上送明細", tuple(details), tuple(hexes))


def _mask_card20(text: str) -> str:
    return mask_pan(text.lstrip("0"))


def _field55(_message: Message, value: bytes, raw: bytes, shown: str) -> Explanation:
    try:
        items = read_tlvs(value)
    except FormatError:
        return Explanation(shown, "", (), hidden(raw))
    hexes = list(bytes_hex(raw))
    lines = []
    for item in items:
        spec = TAGS.get(item.tag)
        if spec is None or spec.secret is not Secret.NO:
            end = item.value_at + len(item.value)
            hexes[item.value_at : end] = [HIDDEN_BYTE] * len(item.value)
        name, chinese, text, meaning = (
            "unknown tag",
            "未知標籤",
            f"<{len(item.value)} bytes>",
            "kept and ignored",
        )
        if spec is not None:
            name, chinese, meaning = spec.name, spec.chinese, ""
            if spec.secret is Secret.NO:
                text = item.value.hex().upper()
                if "balance" in spec.name:
                    meaning = f"{yuan(int.from_bytes(item.value, 'big'))} CNY"
            elif spec.secret is Secret.PAN:
                text = mask_asn(item.value.hex())
        lines.append(PartLine(f"{item.tag} {name}", chinese, text, meaning))
    return Explanation(shown, f"{len(items)} tags", tuple(lines), tuple(hexes))


def _field62(message: Message, value: bytes, raw: bytes, shown: str) -> Explanation:
    code = str(message.fields.get(60, ""))[8:11]
    try:
        found = _explain62(message.mti, code, value)
    except (FormatError, ValueError, IndexError):
        found = None
    if found is None:
        return Explanation(shown, "", (), hidden(raw))
    meaning, lines, hexes = found
    assert len(hexes) == len(raw)
    return Explanation(shown, meaning, tuple(lines), hexes)


def _explain62(mti: str, code: str, value: bytes) -> tuple[str, list[PartLine], tuple[str, ...]] | None:
    """Meaning, parts and hex by message and network code; None for what is not known or not in its form."""
    kind = (mti, code)
    if mti == "0800" and code in SIGN_ON_CODES:
        text = value.decode("ascii")
        mark = len(SERIAL_MARK)
        if not value.startswith(SERIAL_MARK) or len(text) != mark + 2 + int(text[mark : mark + 2]):
            return None
        return (
            "terminal serial number",
            [PartLine("serial", "終端序列號", text[mark + 2 :])],
            bytes_hex(value),
        )
    if mti == "0810" and code in SIGN_ON_CODES:
        return _working_keys(value)
    if kind == ("0320", "203"):
        return _records(value)
    if kind == ("0330", "203"):
        return _results(value)
    if kind == ("0800", "390"):
        return "hot list wanted", _whole(HOT_LIST_REQUEST, value), bytes_hex(value)
    if kind == ("0810", "390"):
        return _hot_list(value)
    if kind == ("0800", "360"):
        return "parameters wanted", _whole(PARAMETER_BLOCK, value), bytes_hex(value)
    if kind == ("0810", "360"):
        more = PartLine("more", "後續標誌", value[:1].decode("ascii"))
        return "parameters", [more, *_parameters(value[1:])], bytes_hex(value)
    if kind == ("0820", "362"):
        return "terminal status", _parameters(value), bytes_hex(value)
    if kind == ("0800", "811") and len(value) > PUBLIC_KEY_BYTES:
        key = PartLine("SM2 public key", "公鑰", f"<{PUBLIC_KEY_BYTES} bytes>")
        serial = PartLine("serial", "終端序列號", value[PUBLIC_KEY_BYTES:].decode("ascii"))
        return "master key wanted", [key, serial], bytes_hex(value)
    if kind == ("0800", "812") and len(value) == KCV_BYTES:
        return "master key check value", [PartLine("KCV", "校驗值", value.hex().upper())], bytes_hex(value)
    return None


def _whole(parts: Sequence[Part], value: bytes) -> list[PartLine]:
    text = value.decode("ascii")
    if len(text) != total(parts):
        raise ValueError("length")
    return _run(parts, text)


def _parameters(value: bytes) -> list[PartLine]:
    return [
        PartLine(f"{tag} {PARAMETERS[tag].name}", PARAMETERS[tag].chinese, text)
        for tag, text in read_parameters(value.decode("ascii"))
    ]


def _working_keys(value: bytes) -> tuple[str, list[PartLine], tuple[str, ...]] | None:
    size = WORKING_KEY_BYTES + KCV_BYTES
    if len(value) not in (2 * size, 3 * size):
        return None
    lines: list[PartLine] = []
    hexes: list[str] = []
    for name, at in zip(("PIK", "MAK", "TDK"), range(0, len(value), size), strict=False):
        kcv = value[at + WORKING_KEY_BYTES : at + size]
        lines += [
            PartLine(f"{name} under TMK", "工作密鑰密文", f"<{WORKING_KEY_BYTES} bytes>"),
            PartLine(f"{name} KCV", "校驗值", kcv.hex().upper()),
        ]
        hexes += [HIDDEN_BYTE] * WORKING_KEY_BYTES + list(bytes_hex(kcv))
    return "working keys", lines, tuple(hexes)


def _records(value: bytes) -> tuple[str, list[PartLine], tuple[str, ...]] | None:
    if not value or len(value) != 1 + value[0] * RECORD_BYTES:
        return None
    lines: list[PartLine] = []
    hexes = list(bytes_hex(value))
    for at in range(1, len(value), RECORD_BYTES):
        record = value[at : at + RECORD_BYTES]
        hexes[at + OFFLINE_RECORD_ASN.start : at + OFFLINE_RECORD_ASN.stop] = [HIDDEN_BYTE] * 10
        for name, chinese, offset, size, digits in OFFLINE_RECORD:
            raw = record[offset : offset + size]
            text = raw.hex().upper() if digits else str(int.from_bytes(raw, "big"))
            if slice(offset, offset + size) == OFFLINE_RECORD_ASN:
                text = mask_asn(text)
            money = name in ("amount", "balance before")
            meaning = f"{yuan(Fen(int.from_bytes(raw, 'big')))} CNY" if money else ""
            lines.append(PartLine(f"record {at // RECORD_BYTES + 1}: {name}", chinese, text, meaning))
    return f"{value[0]} offline records", lines, tuple(hexes)


def _results(value: bytes) -> tuple[str, list[PartLine], tuple[str, ...]] | None:
    if not value or len(value) != 1 + int(value[:1].hex()) * UPLOAD_RESULT_BYTES:
        return None
    lines = [
        PartLine(
            f"record serial {int.from_bytes(value[at : at + 4], 'big')}",
            "記錄序號",
            value[at + 4 : at + UPLOAD_RESULT_BYTES].decode("ascii"),
        )
        for at in range(1, len(value), UPLOAD_RESULT_BYTES)
    ]
    return "results", lines, bytes_hex(value)


def _hot_list(value: bytes) -> tuple[str, list[PartLine], tuple[str, ...]] | None:
    head = total(HOT_LIST_ANSWER)
    lines = _whole(HOT_LIST_ANSWER, value[:head])
    if len(value) != head + int(lines[-1].value) * HOT_LIST_ENTRY_BYTES:
        return None
    hexes = list(bytes_hex(value))
    for at in range(head, len(value), HOT_LIST_ENTRY_BYTES):
        operation, asn, level = value[at : at + 1], value[at + 1 : at + 11], value[at + 11]
        hexes[at + 1 : at + 11] = [HIDDEN_BYTE] * 10
        action = {"A": "add 新增", "D": "delete 刪除"}.get(operation.decode("ascii"), "unknown")
        what = {0: "refuse 拒絕", 1: "lock the purse application 鎖定應用"}.get(level, "unknown level")
        lines.append(PartLine("entry", "名單條目", mask_asn(asn.hex()), f"{action}, {what}"))
    return "hot list block", lines, tuple(hexes)


_PARTS: dict[int, Callable[..., Explanation]] = {48: _field48, 55: _field55, 62: _field62}
assert _PARTS.keys() == {number for number, spec in FIELDS.items() if spec.secret is Secret.PARTS}
assert all(FIELDS[n].kind.encoding in NIBBLES for n, s in FIELDS.items() if s.secret is Secret.PAN)
