"""The careful reading of a message: every byte accounted for, every fault named, whatever can still be read kept.

The codec's quick reading gives up at the first thing it does not like; then this decides what it was. It goes on
behind a fault as long as it knows where the next field starts, so that a switch can answer 30 to a terminal whose amount
is wrong, and an engineer sees the rest of the frame.
"""

from typing import NamedTuple

from switch.messages.kinds import KindError
from switch.messages.message import Fields, Message
from switch.messages.spec import FieldSpec
from switch.messages.terminal_1987 import (
    BITMAP_AT,
    FIELDS,
    FIELDS_AT,
    MTI_AT,
    MTI_OF_BYTES,
    TPDU_BYTES,
    TPDU_IDENTIFIER,
    WITHOUT_TRACE,
)


class Fault(NamedTuple):
    """What is wrong: the field as references name it, the rule, and the byte counted from the first of the body."""

    field: str
    rule: str
    offset: int


class Slot(NamedTuple):
    """Where a field lies. value: None when it could not be read; value_at is behind the length prefix."""

    spec: FieldSpec
    start: int
    value_at: int
    end: int
    value: str | bytes | None


class Examination(NamedTuple):
    """Everything that could be found out. unread_at: where reading ended, len(body) when all was placed."""

    message: Message
    slots: tuple[Slot, ...]
    faults: tuple[Fault, ...]
    unread_at: int

    @property
    def answerable(self) -> bool:
        """Whether MTI, trace and terminal could be read (an echo has no trace), so that an answer can be sent."""
        fields = self.message.fields
        return self.message.mti != "" and 41 in fields and (11 in fields or self.message.mti in WITHOUT_TRACE)


def examine(body: bytes) -> Examination:
    """Read a frame body (without LEN) as far as it goes. Never raises, whatever the bytes."""
    faults: list[Fault] = []
    slots: list[Slot] = []
    fields: Fields = {}
    mti = MTI_OF_BYTES.get(body[MTI_AT:BITMAP_AT], "")
    message = Message(body[:TPDU_BYTES], body[TPDU_BYTES:MTI_AT], mti, fields, body)
    if len(body) < FIELDS_AT:
        faults.append(Fault("", "data ends before the fields", len(body)))
        return Examination(message, (), tuple(faults), len(body))
    if body[0] != TPDU_IDENTIFIER:
        faults.append(Fault("TPDU", "first byte is not 60", 0))
    faults += _header_faults(body[TPDU_BYTES:MTI_AT])
    if not mti:
        faults.append(Fault("MTI", "unknown message type", MTI_AT))
    if body[BITMAP_AT] & 0x80:
        faults.append(Fault("bitmap", "bit 1 is set: there is no secondary bitmap", BITMAP_AT))
    at = FIELDS_AT
    for number in numbers_of(body[BITMAP_AT:FIELDS_AT]):
        spec = FIELDS.get(number)
        if spec is None:
            if number == 1:
                continue
            rule = "not a field of this dialect: its length is unknown"
            faults.append(Fault(str(number), rule, BITMAP_AT + (number - 1) // 8))
            return Examination(message, tuple(slots), tuple(faults), at)
        slot, fault = read_field(spec, body, at)
        if fault is not None:
            faults.append(fault)
        if slot is None:
            return Examination(message, tuple(slots), tuple(faults), at)
        slots.append(slot)
        if slot.value is not None:
            fields[number] = slot.value
        at = slot.end
    if at < len(body):
        faults.append(Fault("", "bytes left over after the last field", at))
    return Examination(message, tuple(slots), tuple(faults), at)


def numbers_of(bitmap: bytes) -> list[int]:
    """The field numbers of a bitmap, ascending."""
    bits = int.from_bytes(bitmap, "big")
    return [number for number in range(1, 65) if bits >> (64 - number) & 1]


def _header_faults(header: bytes) -> list[Fault]:
    for place, byte in enumerate(header):
        if byte >> 4 > 9 or byte & 15 > 9:
            return [Fault("header", "nibble is not a decimal digit", TPDU_BYTES + place)]
    if header[2] >> 4 > 1:
        return [Fault("header", "terminal state is neither 0 nor 1", TPDU_BYTES + 2)]
    return []


def read_field(spec: FieldSpec, body: bytes, start: int) -> tuple[Slot | None, Fault | None]:
    """One field: its slot if its end is known, and its fault if it has one."""
    kind = spec.kind
    name = str(spec.number)
    value_at = start + kind.prefix_bytes
    fault: Fault | None = None
    units = spec.size
    if kind.prefix_bytes:
        if value_at > len(body):
            return None, Fault(name, "data ends inside the length", len(body))
        try:
            units = kind.read_prefix(body[start:value_at])
        except KindError as error:
            return None, Fault(name, error.rule, start + error.at)
        if units > spec.size:
            fault = Fault(name, f"length is above the maximum of {spec.size}", start)
    end = value_at + kind.width(units)
    if end > len(body):
        return None, fault or Fault(name, "data ends inside the field", len(body))
    if fault is not None:
        return Slot(spec, start, value_at, end, None), fault
    try:
        return Slot(spec, start, value_at, end, kind.read(body[value_at:end], units)), None
    except KindError as error:
        return Slot(spec, start, value_at, end, None), Fault(name, error.rule, value_at + error.at)
