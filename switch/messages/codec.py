"""Bytes to Message and back.

A message has the fields that its bitmap says, so everything about where they lie that does not depend on lengths is worked
out once per bitmap and kept as a plan: neighbouring fields of one encoding are read with one slice, one check and one
cut. A message that a plan does not like, for whatever reason, is read again with care by `examine`, which has the last
word; the quick way may refuse what is right, never accept what is wrong.
"""

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from switch.domain.errors import FormatError, FramingError
from switch.messages.examine import examine, numbers_of
from switch.messages.kinds import NIBBLES, Encoding
from switch.messages.message import Fields, Message
from switch.messages.spec import FieldSpec
from switch.messages.terminal_1987 import FIELDS, FIELDS_AT, MAC_BYTES, MTI_OF_BYTES, WITHOUT_TRACE

PLANS_MAX = 1024  # bitmaps in use are about forty; the bound is against strangers
ECHOED = frozenset({3, 11, 41, 42, 60})
_NOT_A_LENGTH = 1 << 20
_BCD = tuple(
    byte // 16 * 10 + byte % 16 if byte // 16 < 10 and byte % 16 < 10 else _NOT_A_LENGTH
    for byte in range(256)
)


class UnsupportedMti(FramingError):
    """A message type that this dialect, or this side of it, does not know. The connection is closed."""


class MessageFormatError(FormatError):
    """A message that cannot be read to its end.

    readable: header parts, MTI and what an answer echoes (3, 11, 41, 42, 60) as far as it could be read, 11 and 41
    always. Nothing else: behind a fault, digits of a PAN may stand where another field is expected.
    offset counts from the first TPDU byte.
    """

    def __init__(self, rule: str, *, field: str, offset: int, readable: Message) -> None:
        self.readable = readable
        super().__init__(rule, field=field, offset=offset)


class _Shape(IntEnum):
    DIGITS = 0  # a run of fixed fields in BCD
    TEXT = 1  # a run of fixed fields in ASCII
    RAW = 2  # one fixed field of bytes
    LL_DIGITS = 3
    LLL_DIGITS = 4
    LL_TEXT = 5
    LLL_TEXT = 6
    LLL_RAW = 7


class _Step(NamedTuple):
    shape: int
    size: int  # bytes of a run; greatest length of a variable field
    cut: Callable[[str], Any]  # run text -> values
    single: bool
    pads: Callable[[str], Any] | None  # run digits -> the nibbles that must be zero
    zeros: Any
    alphanumeric: Callable[[str], Any] | None  # run text -> the parts that must be letters and digits


class _Plan(NamedTuple):
    numbers: tuple[int, ...]
    steps: tuple[_Step, ...]
    has_terminal: bool
    has_trace: bool
    has_mac: bool  # field 64, always the last; not among the steps


def decode(body: bytes) -> Message:
    """Read a frame body (without LEN).

    UnsupportedMti, FramingError when no answer is possible because the MTI, field 11 or field 41 cannot be read;
    MessageFormatError (30) for any other broken rule. Other errors do not escape, whatever the bytes.
    """
    mti = MTI_OF_BYTES.get(body[11:13])
    plan = _plan(body[13:21])
    if mti is None or plan is None or body[0] != 0x60 or body[7] > 0x19 or not body[5:11].hex().isdecimal():
        return _decode_with_care(body)
    if not (plan.has_terminal and (plan.has_trace or mti in WITHOUT_TRACE)):
        return _decode_with_care(body)
    fields = _fields(plan, body)
    if fields is None:
        return _decode_with_care(body)
    return Message(body[:5], body[5:11], mti, fields, body)


def encode(message: Message) -> bytes:
    """The body of a frame (without LEN) made from header parts, MTI and fields; `message.body` is not looked at.

    ValueError for a value that does not fit its field: only our own fault can cause it.
    """
    if len(message.tpdu) != 5 or len(message.header) != 6:
        raise ValueError("a TPDU has 5 bytes, a header 6")
    bits = 0
    parts = [message.tpdu, message.header, bytes.fromhex(message.mti), b""]
    fields = message.fields
    for number in sorted(fields):
        if number not in _WRITERS:
            raise ValueError(f"field {number} is not a field of this dialect")
        bits |= 1 << (64 - number)
        try:
            parts.append(_WRITERS[number](fields[number]))
        except (AttributeError, TypeError, ValueError):  # the spec knows better or says what is wrong
            parts.append(FIELDS[number].encode(fields[number]))
    parts[3] = bits.to_bytes(8, "big")
    return b"".join(parts)


def _writer(spec: FieldSpec) -> Callable[[Any], bytes]:
    """The quick way to write one field; what it does not like goes to the spec, which raises or knows better."""
    careful = spec.encode
    size = spec.size
    encoding = spec.kind.encoding
    prefix = spec.kind.prefix_bytes
    fromhex = bytes.fromhex
    if encoding is Encoding.BCD_LEFT and not prefix:
        pad = "0" * (size % 2)
        return lambda value: (
            fromhex(value + pad) if len(value) == size and value.isdecimal() else careful(value)
        )
    if encoding is Encoding.BCD_LEFT:
        heads = tuple(str(units).rjust(2 * prefix, "0") for units in range(size + 1))
        return lambda value: (
            fromhex(heads[len(value)] + value + "0" * (len(value) & 1))
            if len(value) <= size and value.isdecimal()
            else careful(value)
        )
    if encoding in (Encoding.ALPHANUMERIC, Encoding.PRINTABLE) and not prefix:
        return lambda value: (
            value.encode() if len(value) == size and value.isascii() and value.isalnum() else careful(value)
        )
    return careful


_WRITERS = {number: _writer(spec) for number, spec in FIELDS.items()}


def _fields(plan: _Plan, body: bytes) -> Fields | None:
    """The fields, or None when something is not as the plan has it."""
    values: list[Any] = []
    append = values.append
    extend = values.extend
    at = FIELDS_AT
    try:
        for shape, size, cut, single, pads, zeros, alphanumeric in plan.steps:
            if (
                shape == 0
            ):  # _Shape.DIGITS; literals here, since looking a member up costs as much as the branch
                start, at = at, at + size
                text = body[start:at].hex()
                if not text.isdecimal() or (pads is not None and pads(text) != zeros):
                    return None
                if single:
                    append(cut(text))
                else:
                    extend(cut(text))
            elif shape == 1:  # TEXT
                start, at = at, at + size
                text = body[start:at].decode("ascii")
                if not text.isprintable() or (
                    alphanumeric is not None and not "".join(alphanumeric(text)).isalnum()
                ):
                    return None
                if single:
                    append(cut(text))
                else:
                    extend(cut(text))
            elif shape == 2:  # RAW
                start, at = at, at + size
                append(body[start:at])
            elif shape <= 4:  # LL_DIGITS, LLL_DIGITS
                if shape == 3:
                    length = _BCD[body[at]]
                    start = at + 1
                else:
                    length = _BCD[body[at]] * 100 + _BCD[body[at + 1]]
                    start = at + 2
                if length > size:
                    return None
                at = start + (length + 1 >> 1)
                text = body[start:at].hex()
                if length & 1:
                    if text[-1] != "0":
                        return None
                    text = text[:-1]
                if not text.isdecimal():
                    return None
                append(text)
            elif shape == 7:  # LLL_RAW
                length = _BCD[body[at]] * 100 + _BCD[body[at + 1]]
                if length > size:
                    return None
                start = at + 2
                at = start + length
                append(body[start:at])
            else:  # LL_TEXT, LLL_TEXT
                if shape == 5:
                    length = _BCD[body[at]]
                    start = at + 1
                else:
                    length = _BCD[body[at]] * 100 + _BCD[body[at + 1]]
                    start = at + 2
                if length > size:
                    return None
                at = start + length
                text = body[start:at].decode("ascii")
                if not text.isprintable() or (alphanumeric is not None and not alphanumeric(text)):
                    return None
                append(text)
    except (IndexError, UnicodeDecodeError):
        return None
    if plan.has_mac:
        append(body[at:])
        at += MAC_BYTES
    if at != len(body):
        return None
    return dict(zip(plan.numbers, values, strict=False))  # the plan made both; strict costs a quarter of it


@lru_cache(maxsize=PLANS_MAX)
def _plan(bitmap: bytes) -> _Plan | None:
    """How to read messages of one bitmap; None when it names a field that only `examine` can speak about."""
    numbers = tuple(numbers_of(bitmap))
    if len(bitmap) != 8 or any(number not in FIELDS for number in numbers):
        return None
    steps: list[_Step] = []
    run: list[FieldSpec] = []
    for number in numbers:
        spec = FIELDS[number]
        if number == 64:
            break
        if spec.kind.encoding is Encoding.TRACK:
            return None  # rare, and its alphabet is its own: read with care
        if run and not (spec.fixed and _shape(spec) == _shape(run[0]) != _Shape.RAW):
            steps.append(_run_step(run))
            run = []
        if spec.fixed:
            run.append(spec)
        else:
            steps.append(_variable_step(spec))
    if run:
        steps.append(_run_step(run))
    return _Plan(numbers, tuple(steps), 41 in numbers, 11 in numbers, 64 in numbers)


def _shape(spec: FieldSpec) -> _Shape:
    prefix = spec.kind.prefix_bytes
    if spec.kind.encoding in NIBBLES:
        return (_Shape.DIGITS, _Shape.LL_DIGITS, _Shape.LLL_DIGITS)[prefix]
    if spec.kind.encoding is Encoding.BINARY:
        return _Shape.LLL_RAW if prefix else _Shape.RAW
    return (_Shape.TEXT, _Shape.LL_TEXT, _Shape.LLL_TEXT)[prefix]


def _run_step(run: list[FieldSpec]) -> _Step:
    """One step for neighbouring fixed fields: cut points in the text of the whole run."""
    cuts: list[slice] = []
    pads: list[int] = []
    alphanumeric: list[slice] = []
    at = 0
    for spec in run:
        width = spec.kind.width(spec.size) * (2 if spec.kind.encoding in NIBBLES else 1)
        start, end = at, at + width
        if width > spec.size and spec.kind.encoding is Encoding.BCD_RIGHT:
            pads.append(start)
            start += 1
        elif width > spec.size:
            end -= 1
            pads.append(end)
        cuts.append(slice(start, end))
        if spec.kind.encoding is Encoding.ALPHANUMERIC:
            alphanumeric.append(slice(start, end))
        at += width
    shape = _shape(run[0])
    return _Step(
        shape=int(shape),
        size=at // 2 if shape is _Shape.DIGITS else at,
        cut=itemgetter(*cuts),
        single=len(cuts) == 1,
        pads=itemgetter(*pads) if pads else None,
        zeros=("0",) * len(pads) if len(pads) > 1 else "0",
        alphanumeric=itemgetter(*alphanumeric) if alphanumeric else None,
    )


def _variable_step(spec: FieldSpec) -> _Step:
    alphanumeric = str.isalnum if spec.kind.encoding is Encoding.ALPHANUMERIC else None
    return _Step(int(_shape(spec)), spec.size, str, True, None, None, alphanumeric)


def _decode_with_care(body: bytes) -> Message:
    if body[:1] != b"\x60":
        raise FramingError("first TPDU byte is not 60")
    found = examine(body)
    if not found.message.mti:
        raise UnsupportedMti("message type is not one of this dialect")
    if not found.answerable:
        raise FramingError("field 11 or 41 cannot be read")
    if found.faults:
        field, rule, offset = found.faults[0]
        readable = found.message._replace(
            fields={n: v for n, v in found.message.fields.items() if n in ECHOED}, body=b""
        )
        raise MessageFormatError(rule, field=field, offset=offset, readable=readable)
    return found.message
