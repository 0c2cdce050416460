"""A message as the room holds it: header parts, MTI, fields by number. Shows nothing that is secret."""

from typing import Any, NamedTuple

from switch.domain.identifiers import mask_pan
from switch.messages.spec import FieldSpec, Secret
from switch.messages.terminal_1987 import FIELDS, MAC_BYTES, MTI_AT

# str for every kind but `b`, which is bytes. The type checker cannot see which from the number, and a cast at every use
# would cost more than it finds: the spec's kind decides, and tests hold the codec to it.
Fields = dict[int, Any]


def masked(spec: FieldSpec, value: str | bytes) -> str:
    """A value for people and logs, as far as the spec allows."""
    if spec.secret is Secret.PAN and isinstance(value, str):
        return mask_pan(value)
    if spec.secret is not Secret.NO:
        return f"<{len(value)} {'bytes' if isinstance(value, bytes) else 'characters'}>"
    return value.hex().upper() if isinstance(value, bytes) else value


class Message(NamedTuple):
    """tpdu: 5 bytes; header: 6 bytes; mti: 4 digits; body: the bytes it was read from, empty when it was made here."""

    tpdu: bytes
    header: bytes
    mti: str
    fields: Fields
    body: bytes = b""

    @property
    def mab(self) -> bytes:
        """What the MAC is computed over: the MTI up to, not including, field 64. Only of a message that was read."""
        assert self.body, "a message made here gets its bytes from codec.encode"
        return self.body[MTI_AT:-MAC_BYTES] if 64 in self.fields else self.body[MTI_AT:]

    @property
    def field64(self) -> bytes:
        """The MAC as it came, 8 bytes; empty when there is none."""
        found: bytes = self.fields.get(64, b"")
        return found

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{number}={masked(FIELDS[number], value) if number in FIELDS else '?'}"
            for number, value in self.fields.items()
        )
        return f"Message({self.mti}: {shown})"
