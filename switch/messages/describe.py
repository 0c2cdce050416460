"""A frame explained to a terminal engineer: every field named and masked, and what is wrong with which byte.

Splits what people paste (several frames, with or without LEN, spaces anywhere), reads each with care, and, when its bytes are
right, asks mapping whether the switch would take it as a request.
"""

from typing import Any, NamedTuple

from switch.domain.errors import FormatError
from switch.domain.transactions import Refused
from switch.messages.examine import Examination, Fault, Slot, examine, numbers_of
from switch.messages.explain import HIDDEN_BYTE, PartLine, bytes_hex, explain
from switch.messages.framing import LEN_BYTES
from switch.messages.mapping import read_request
from switch.messages.spec import Secret
from switch.messages.terminal_1987 import (
    ANSWER_MTI,
    BITMAP_AT,
    BODY_BYTES_MAX,
    FIELDS_AT,
    MTI_AT,
    MTI_NAMES,
    TPDU_BYTES,
    TPDU_IDENTIFIER,
)
from switch.messages.tlv import read_tlvs

PAN_BYTES_MIN = 7  # 13 digits
WITH_PAN = frozenset({"01", "02", "04"})  # message classes that carry field 2
FRAMES_MAX = 1000
PROCESSING = {
    "0": "nothing 無",
    "1": "fetch parameters 下傳參數",
    "2": "upload status 上送狀態",
    "3": "sign on again 重新簽到",
    "5": "fetch IC parameters 下傳IC卡參數",
    "7": "fetch hot list 下載黑名單",
}
HIDDEN = "hidden: in a broken frame it may hold something else"


class FieldLine(NamedTuple):
    """One line of a description. offset and length: of the whole field with its prefix, in the bytes given."""

    field: str
    name: str
    chinese: str
    offset: int
    length: int
    value: str
    meaning: str = ""
    parts: tuple[PartLine, ...] = ()


class Description(NamedTuple):
    """A frame explained. hexes: every byte in two characters, hidden where needed; faults: offsets as in hexes."""

    mti: str
    lines: tuple[FieldLine, ...]
    faults: tuple[Fault, ...]
    hexes: tuple[str, ...]
    refusal: str  # the answer the switch would give whatever its books say, and why; mostly empty

    @property
    def malformed(self) -> bool:
        """Whether the switch would answer 30 or close."""
        return bool(self.faults)

    def as_json(self) -> dict[str, Any]:
        """Plain values for machines, masked like everything here."""
        return {
            "mti": self.mti,
            "malformed": self.malformed,
            "faults": [fault._asdict() for fault in self.faults],
            "refusal": self.refusal,
            "fields": [
                line._asdict() | {"parts": [part._asdict() for part in line.parts]} for line in self.lines
            ],
            "hex": " ".join(self.hexes),
        }


class Piece(NamedTuple):
    """Bytes taken for one frame, and whether LEN stands in front."""

    data: bytes
    with_len: bool


def split_frames(text: str) -> list[Piece]:
    """The frames in what somebody pasted. ValueError when it is not hexadecimal, empty, or more than 1000 frames.

    White space is ignored. A blank line ends a frame; where one line alone is a whole frame, every line is one.
    """
    pieces: list[Piece] = []
    for paragraph in text.replace("\r", "").split("\n\n"):
        lines = ["".join(line.split()) for line in paragraph.split("\n")]
        lines = [line.removeprefix("0x") for line in lines if line]
        runs = lines if any(map(_is_a_frame, lines)) else ["".join(lines)]
        for run in runs:
            if run:
                pieces += _pieces(_from_hex(run))
    if not pieces:
        raise ValueError("no frame given")
    if len(pieces) > FRAMES_MAX:
        raise ValueError(f"more than {FRAMES_MAX} frames")
    return pieces


def describe(piece: Piece) -> Description:
    """Explain one frame; never raises, whatever the bytes."""
    shift = LEN_BYTES if piece.with_len else 0
    body = piece.data[shift:]
    found = examine(body)
    faults = list(found.faults)
    refusal = ""
    if piece.with_len:
        faults = _length_faults(piece.data) + faults
    if not faults and found.message.mti in ANSWER_MTI:
        faults, refusal = _judge(found)
    hexes = [HIDDEN_BYTE] * len(body)
    lines = _head_lines(body, hexes, sure=bool(found.message.mti) and body[0] == TPDU_IDENTIFIER)
    sure_until = _sure_until(found, faults, body)
    for slot in found.slots:
        sure = slot.end <= sure_until[0] and slot.spec.number <= sure_until[1]
        lines.append(_field_line(found, slot, body, hexes, sure=sure))
    if found.unread_at < len(body):
        rest = len(body) - found.unread_at
        lines.append(FieldLine("", "not read", "未解析", found.unread_at, rest, f"<{rest} bytes>"))
    if piece.with_len:
        hexes = list(bytes_hex(piece.data[:shift])) + hexes
        lines = [line._replace(offset=line.offset + shift) for line in lines]
        length = int.from_bytes(piece.data[:shift], "big")
        lines.insert(
            0,
            FieldLine(
                "LEN", "length", "報文長度", 0, len(piece.data[:shift]), str(length), "bytes that follow"
            ),
        )
        end = len(piece.data)
        faults = [f if f.field == "LEN" else f._replace(offset=min(f.offset + shift, end)) for f in faults]
    return Description(found.message.mti, tuple(lines), tuple(faults), tuple(hexes), refusal)


def _from_hex(run: str) -> bytes:
    try:
        return bytes.fromhex(run)
    except ValueError:
        raise ValueError("not hexadecimal: digits 0-9, A-F, two for each byte") from None


def _is_a_frame(line: str) -> bool:
    """Whether a line is one frame by itself: its LEN fits, or it is a body without fault."""
    try:
        data = bytes.fromhex(line)
    except ValueError:
        return False
    return int.from_bytes(data[:LEN_BYTES], "big") == len(data) - LEN_BYTES > 0 or not examine(data).faults


def _pieces(data: bytes) -> list[Piece]:
    """With LEN while the bytes look so; what starts with a TPDU is one body, since no LEN is that great."""
    pieces: list[Piece] = []
    at = 0
    while at < len(data):
        if data[at] == TPDU_IDENTIFIER:
            return [*pieces, Piece(data[at:], with_len=False)]
        length = int.from_bytes(data[at : at + LEN_BYTES], "big")
        end = at + LEN_BYTES + length
        if (
            end > len(data)
            or not FIELDS_AT <= length <= BODY_BYTES_MAX
            or data[end + 2 : end + 3] not in (b"", b"\x60")
        ):
            end = len(data)  # a LEN that does not fit belongs to one broken frame
        pieces.append(Piece(data[at:end], with_len=True))
        at = end
    return pieces


def _length_faults(data: bytes) -> list[Fault]:
    if len(data) < LEN_BYTES:
        return [Fault("LEN", "data ends inside LEN", 0)]
    length = int.from_bytes(data[:LEN_BYTES], "big")
    present = len(data) - LEN_BYTES
    if length == 0:
        return [Fault("LEN", "LEN is 0", 0)]
    if length > BODY_BYTES_MAX:
        return [Fault("LEN", f"LEN is above {BODY_BYTES_MAX}", 0)]
    if length < FIELDS_AT:
        return [Fault("LEN", f"LEN is below {FIELDS_AT}: no room for TPDU, header, MTI and bitmap", 0)]
    if length != present:
        return [Fault("LEN", f"LEN says {length}, {present} bytes follow", 0)]
    return []


def _judge(found: Examination) -> tuple[list[Fault], str]:
    """What mapping has to say to a request whose bytes are right."""
    try:
        request = read_request(found.message)
    except FormatError as error:
        return [Fault(error.field, error.rule, _place(found, error))], ""
    if isinstance(request, Refused):
        return [], f"{request.answer}: {request.rule}"
    return [], ""


def _place(found: Examination, error: FormatError) -> int:
    """The byte that a broken rule of a sub-structure is about: of its field or tag; the bitmap for a missing field."""
    by_number = {str(slot.spec.number): slot for slot in found.slots}
    if error.field in by_number:
        return by_number[error.field].value_at + (error.offset or 0)
    if error.field.startswith("DF") and "55" in by_number:
        slot = by_number["55"]
        if error.offset is not None:
            return slot.value_at + error.offset
        assert isinstance(slot.value, bytes)
        at = next((item.start for item in read_tlvs(slot.value) if item.tag == error.field), 0)
        return slot.value_at + at
    if error.field.isdecimal():
        return BITMAP_AT + (int(error.field) - 1) // 8
    return FIELDS_AT


def _sure_until(found: Examination, faults: list[Fault], body: bytes) -> tuple[int, int]:
    """The byte and the field number up to which fields are what they seem, and may be shown as such.

    In a broken frame a piece of a PAN, track or PIN block may lie where another field is expected. When every field was
    placed and the last ends where the frame does, they lie right; otherwise nothing is sure behind the first fault or
    from field 52 on, nor from 35 on unless what was read there looks like letters and digits, which a track in BCD does
    not; and nothing at all when a PAN should be there and is not.
    """
    if not faults:
        return len(body), 64
    pan = next((slot for slot in found.slots if slot.spec.number == 2), None)
    if pan is not None and pan.end - pan.value_at < PAN_BYTES_MIN:
        return 0, 0
    if pan is None and (not found.message.mti or found.message.mti[:2] in WITH_PAN):
        return 0, 0
    placed = {slot.spec.number for slot in found.slots} == set(numbers_of(body[BITMAP_AT:FIELDS_AT])) - {1}
    if placed and found.unread_at == len(body):
        return len(body), 64
    first = min((fault.offset for fault in found.faults), default=len(body))
    texts = [slot.value for slot in found.slots if 35 <= slot.spec.number < 52 and slot.end <= first]
    return first, 51 if all(isinstance(text, str) and text.isalnum() for text in texts) else 34


def _head_lines(body: bytes, hexes: list[str], *, sure: bool) -> list[FieldLine]:
    """TPDU to bitmap. Not sure: what stands there may be a PAN, as when somebody pastes what a MAC is made over."""
    lines = []
    shown = range(min(FIELDS_AT, len(body))) if sure else range(MTI_AT, min(BITMAP_AT, len(body)))
    for at in shown:
        hexes[at] = f"{body[at]:02X}"
    for start, end, name, chinese in (
        (0, TPDU_BYTES, "TPDU", "傳輸協議數據單元"),
        (TPDU_BYTES, MTI_AT, "header", "報文頭"),
        (MTI_AT, BITMAP_AT, "MTI", "報文類型"),
        (BITMAP_AT, FIELDS_AT, "bitmap", "位圖"),
    ):
        raw = body[start:end]
        if not raw:
            break
        meaning = ""
        text = raw.hex().upper()
        if not sure and name != "MTI":
            lines.append(FieldLine(name, name, chinese, start, len(raw), f"<{len(raw)} bytes>", HIDDEN))
            continue
        if name == "TPDU" and len(raw) == TPDU_BYTES:
            meaning = f"to {text[2:6]}, from {text[6:]}"
        elif name == "header" and len(text) == 12:
            state = {"0": "normal 正常", "1": "training 培訓"}.get(text[4], "unknown state")
            meaning = f"state {state}; processing {PROCESSING.get(text[5], 'unknown')}"
        elif name == "MTI":
            meaning = " ".join(MTI_NAMES.get(text, ("unknown",)))
        elif name == "bitmap":
            bits = int.from_bytes(raw.ljust(8, b"\0"), "big")
            meaning = "fields " + " ".join(str(n) for n in range(1, 65) if bits >> (64 - n) & 1)
        lines.append(FieldLine(name, name, chinese, start, len(raw), text, meaning))
    return lines


def _field_line(found: Examination, slot: Slot, body: bytes, hexes: list[str], *, sure: bool) -> FieldLine:
    spec = slot.spec
    length = slot.end - slot.start
    size = slot.end - slot.value_at
    line = FieldLine(str(spec.number), spec.name, spec.chinese, slot.start, length, f"<{size} bytes>")
    fault = next(
        (f for f in found.faults if f.field == line.field and slot.start <= f.offset < slot.end), None
    )
    if fault is not None and spec.secret is Secret.NO:
        hexes[fault.offset] = f"{body[fault.offset]:02X}"
    if not sure:
        return line._replace(meaning=HIDDEN)
    hexes[slot.start : slot.value_at] = bytes_hex(body[slot.start : slot.value_at])
    raw = body[slot.value_at : slot.end]
    if slot.value is None:
        return line._replace(meaning="unreadable")
    shown = explain(found.message, spec.number, raw)
    hexes[slot.value_at : slot.end] = shown.hexes
    return line._replace(value=shown.value, meaning=shown.meaning, parts=shown.parts)
