"""A dialect as data, and the codec for any of them: MTI, bitmap, fields. Used for hosts.

Terminals send ten times as much and have a codec with plans of its own; what a field is, is read and written by the same
kinds in both. Nothing in here knows which dialect it reads.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from switch.domain.errors import FormatError, FramingError
from switch.messages.examine import read_field
from switch.messages.framing import FrameRules
from switch.messages.message import Fields, masked
from switch.messages.spec import FieldSpec

BITMAP_BYTES = 8


class Dialect(NamedTuple):
    """Everything in which one dialect differs from another.

    mti_of: what stands on the wire for each message type; all of one length. mac: the number of the MAC, always last.
    told: what may be told of a message that cannot be read to its end, because it says which message it was.
    """

    name: str
    fields: Mapping[int, FieldSpec]
    mti_of: Mapping[bytes, str]
    mti_bytes: int
    mac: int
    told: frozenset[int]

    @property
    def frames(self) -> FrameRules:
        """What frames of it look like."""
        first = bytes(sorted({raw[0] for raw in self.mti_of}))
        return FrameRules(self.mti_bytes + BITMAP_BYTES, first, "first byte begins no message type")

    def wire_mti(self, mti: str) -> bytes:
        """A message type as it travels. ValueError for one that is not of this dialect."""
        for raw, known in self.mti_of.items():
            if known == mti:
                return raw
        raise ValueError(f"{mti} is not a message type of this dialect")


class HostMessage(NamedTuple):
    """mti: 4 digits; fields by number; body: the bytes it was read from, empty when it was made here."""

    dialect: Dialect
    mti: str
    fields: Fields
    body: bytes = b""

    @property
    def mac(self) -> bytes:
        """The MAC as it came; empty when there is none."""
        found: bytes = self.fields.get(self.dialect.mac, b"")
        return found

    @property
    def mab(self) -> bytes:
        """What the MAC is computed over: everything before it, MTI and bitmap included. Only of a message that was read."""
        assert self.body, "a message made here gets its bytes from encode"
        return self.body[: len(self.body) - len(self.mac)]

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{number}={masked(self.dialect.fields[number], value)}" for number, value in self.fields.items()
        )
        return f"HostMessage({self.mti}: {shown})"


class UnreadableMessage(FormatError):
    """A message that cannot be read to its end.

    readable: the MTI, and of the fields those that say which message it is, as far as they were read before the fault.
    """

    def __init__(self, rule: str, *, field: str, offset: int, readable: HostMessage) -> None:
        self.readable = readable
        super().__init__(rule, field=field, offset=offset)


@lru_cache(maxsize=1_024)
def _numbers(bits: int) -> tuple[int, ...]:
    """The fields that a bitmap of 128 bits announces, in order. Messages of a kind share a few bitmaps."""
    return tuple(number for number in range(2, 129) if bits >> (128 - number) & 1)


def decode(dialect: Dialect, body: bytes) -> HostMessage:
    """Read a frame body. FramingError when not even the MTI can be read, UnreadableMessage for any other broken rule."""
    mti = dialect.mti_of.get(body[: dialect.mti_bytes])
    if mti is None:
        raise FramingError("message type is not one of this dialect")
    fields: Fields = {}

    def refuse(rule: str, field: str, offset: int) -> UnreadableMessage:
        told = {number: value for number, value in fields.items() if number in dialect.told}
        return UnreadableMessage(rule, field=field, offset=offset, readable=HostMessage(dialect, mti, told))

    at = dialect.mti_bytes + BITMAP_BYTES
    bits = int.from_bytes(body[dialect.mti_bytes : at], "big") << 64
    if len(body) >= at and bits >> 127:
        at += BITMAP_BYTES
        bits |= int.from_bytes(body[at - BITMAP_BYTES : at], "big")
    if len(body) < at:
        raise refuse("data ends inside the bitmap", "bitmap", len(body))
    for number in _numbers(bits):
        spec = dialect.fields.get(number)
        if spec is None:
            place = dialect.mti_bytes + (number - 1) // 8
            raise refuse("not a field of this dialect: its length is unknown", str(number), place)
        slot, fault = read_field(spec, body, at)
        if fault is not None or slot is None or slot.value is None:
            assert fault is not None, "a field without a value has a fault"
            raise refuse(fault.rule, fault.field, fault.offset)
        fields[number] = slot.value
        at = slot.end
    if at < len(body):
        raise refuse("bytes left over after the last field", "", at)
    return HostMessage(dialect, mti, fields, body)


def encode(dialect: Dialect, mti: str, fields: Mapping[int, str | bytes]) -> bytes:
    """The body of a frame up to the MAC; that is, all of it but the last 8 bytes of a message that gets one.

    The bitmap names the MAC, since the MAC covers the bitmap. ValueError for a value that does not fit its field.
    """
    bits = 1 << (128 - dialect.mac)
    parts = []
    for number in sorted(fields):
        spec = dialect.fields.get(number)
        if spec is None or number == dialect.mac:
            raise ValueError(f"field {number} is not a field of this dialect, or the MAC, which comes last")
        bits |= 1 << (128 - number)
        parts.append(spec.encode(fields[number]))
    if bits & (1 << 64) - 1:
        bitmap = (bits | 1 << 127).to_bytes(2 * BITMAP_BYTES, "big")
    else:
        bitmap = (bits >> 64).to_bytes(BITMAP_BYTES, "big")
    return dialect.wire_mti(mti) + bitmap + b"".join(parts)
