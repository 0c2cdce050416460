"""Field 55: BER-TLV with tags of one or two bytes and lengths of one byte, definite form (ISO/IEC 8825-1)."""

from collections.abc import Mapping
from typing import NamedTuple

from switch.domain.errors import FormatError
from switch.messages.structures import TAGS

PIN_BLOCK_HEAD = b"\xdf\x51\x10"  # tag and length


class Tlv(NamedTuple):
    """One data object. start: its first tag byte, value_at: its first value byte, both within the field."""

    tag: str
    start: int
    value_at: int
    value: bytes


def read_tlvs(raw: bytes) -> list[Tlv]:
    """All data objects in order. FormatError (field 55 or the tag) with the offset within the field.

    Refused: a tag of three bytes, a length byte above 127, data ending inside an object, a tag that comes twice, and
    for tags of the table another length than its own or a nibble that is not a digit. Unknown tags are kept.
    """
    found: list[Tlv] = []
    seen: set[str] = set()
    at = 0
    size = len(raw)
    while at < size:
        start = at
        at += 1
        if raw[start] & 0x1F == 0x1F:
            if at == size:
                raise FormatError("data ends inside a tag", field="55", offset=size)
            if raw[at] & 0x80:
                raise FormatError("tag of more than two bytes", field="55", offset=at)
            at += 1
        tag = raw[start:at].hex().upper()
        if at == size:
            raise FormatError("data ends before a length", field="55", offset=size)
        length = raw[at]
        if length > 127:
            raise FormatError("length of more than one byte", field="55", offset=at)
        spec = TAGS.get(tag)
        if spec is not None and spec.size != length:
            raise FormatError(f"length must be {spec.size}", field=tag, offset=at)
        at += 1
        value = raw[at : at + length]
        if len(value) < length:
            raise FormatError("data ends inside a value", field="55", offset=size)
        if spec is not None and spec.digits and not value.hex().isdecimal():
            raise FormatError("nibble is not a decimal digit", field=tag, offset=at)
        if tag in seen:
            raise FormatError("tag comes twice", field=tag if spec is not None else "55", offset=start)
        seen.add(tag)
        found.append(Tlv(tag, start, at, value))
        at += length
    return found


def tlv_values(raw: bytes) -> Mapping[str, bytes]:
    """Value by tag; raises like read_tlvs."""
    return {item.tag: item.value for item in read_tlvs(raw)}


def without_pin_block(raw: bytes) -> bytes:
    """The field without DF51, for digests. Bytes that cannot be taken apart lose what looks like DF51."""
    found = raw.find(PIN_BLOCK_HEAD)
    if found < 0:
        return raw
    end = found + len(PIN_BLOCK_HEAD) + TAGS["DF51"].size
    if found == 0 and end == len(raw):
        return b""
    try:
        items = read_tlvs(raw)
    except FormatError:
        return raw[:found] + raw[end:]
    return b"".join(raw[item.start : item.value_at + len(item.value)] for item in items if item.tag != "DF51")


def write_tlvs(values: Mapping[str, bytes]) -> bytes:
    """Data objects in the order of the mapping. ValueError when a value is longer than 127 bytes."""
    parts = []
    for tag, value in values.items():
        if len(value) > 127:
            raise ValueError(f"tag {tag}: a value has at most 127 bytes")
        parts.append(bytes.fromhex(tag) + bytes([len(value)]) + value)
    return b"".join(parts)
