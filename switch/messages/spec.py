"""The words in which a dialect is written down: fields, parts of fields, and what may be shown of them."""

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from switch.messages.kinds import NIBBLES, FieldKind, KindError

LENGTHS = tuple(int(str(count), 16) for count in range(1000))  # a count as the BCD number that announces it


class Secret(Enum):
    """How much of a field people and logs may see."""

    NO = "shown"
    PAN = "first six and last four digits"
    PARTS = "its parts decide; as a whole its length only"
    HIDDEN = "its length only"


class FieldSpec(NamedTuple):
    """One row of a field table.

    size: digits or bytes, exact for a fixed kind, the maximum for a variable one.
    """

    number: int
    name: str
    chinese: str
    kind: FieldKind
    size: int
    secret: Secret = Secret.NO

    @property
    def fixed(self) -> bool:
        """Whether the length does not vary."""
        return self.kind.prefix_bytes == 0

    def encode(self, value: str | bytes) -> bytes:
        """The field as it travels, prefix included. ValueError names field and rule, never the value."""
        kind = self.kind
        try:
            raw = kind.write(value)
        except KindError as error:
            raise ValueError(f"field {self.number}: {error.rule}") from None
        units = len(value) if kind.encoding in NIBBLES else len(raw)
        prefix = kind.prefix_bytes
        if units > self.size or (not prefix and units != self.size):
            raise ValueError(f"field {self.number}: length must be {'at most ' if prefix else ''}{self.size}")
        if not prefix:
            return raw
        return kind.write_prefix(units) + raw


class Part(NamedTuple):
    """A run of characters inside a field, with the meaning of its values where they are a closed list."""

    name: str
    chinese: str
    size: int
    meanings: Mapping[str, str] = MappingProxyType({})
    secret: Secret = Secret.NO


class TagSpec(NamedTuple):
    """One row of the table of tags in field 55. size: bytes, exact."""

    tag: str
    name: str
    chinese: str
    size: int
    digits: bool = False  # packed BCD inside
    secret: Secret = Secret.NO


def field_table(*specs: FieldSpec, last: int = 64) -> Mapping[int, FieldSpec]:
    """A table by field number, checked: every field once, in order, of a size its prefix can say.

    last: 64, or 128 in a dialect with a secondary bitmap, whose first bit would announce a third one.
    """
    numbers = [spec.number for spec in specs]
    assert numbers == sorted(set(numbers)), "each field once, in order"
    assert all(2 <= number <= last and number != 65 for number in numbers), "1 and 65 announce bitmaps"
    for spec in specs:
        assert spec.size > 0, spec.name
        assert spec.fixed or spec.size < 10**spec.kind.prefix_digits, spec.name
    return MappingProxyType({spec.number: spec for spec in specs})


def tag_table(*specs: TagSpec) -> Mapping[str, TagSpec]:
    """A table by tag, checked: every tag once."""
    table = {spec.tag: spec for spec in specs}
    assert len(table) == len(specs), "each tag once"
    assert all(len(tag) == 4 and int(tag, 16) for tag in table), "two-byte tags"
    return MappingProxyType(table)


def slices(parts: Sequence[Part]) -> tuple[slice, ...]:
    """Where each part lies in the field's text."""
    at = 0
    found = []
    for part in parts:
        found.append(slice(at, at + part.size))
        at += part.size
    return tuple(found)


def total(parts: Sequence[Part]) -> int:
    """Characters that all parts take."""
    return sum(part.size for part in parts)
