"""Frames and fields of a terminal that somebody else makes, written from docs/iso8583.md alone.

Fields are kept as a dict from field number to value. Digit fields are `str` of digits, text fields `str` of ASCII, the others bytes. A value
of type bytes in any field travels as it is, with the length that the field's kind demands: that is how tests send nonsense.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

Value = str | bytes
Fields = Mapping[int, Value]

ANSWER_TIMEOUT_S = 60.0  # parameter 12
TPDU = bytes.fromhex("6000330000")
HEADER = "613100310001"


class Kind(NamedTuple):
    """How a field travels."""

    unit: str  # "n" digits, "a" ASCII, "b" bytes
    size: int = 0  # fixed length in units; 0 when the field says its length
    prefix: int = 0  # bytes of BCD length in front
    right: bool = False  # the pad nibble in front instead of behind


KINDS = {
    2: Kind("n", prefix=1),
    3: Kind("n", 6),
    4: Kind("n", 12),
    11: Kind("n", 6),
    12: Kind("n", 6),
    13: Kind("n", 4),
    14: Kind("n", 4),
    15: Kind("n", 4),
    22: Kind("n", 3),
    23: Kind("n", 3, right=True),
    25: Kind("n", 2),
    26: Kind("n", 2),
    32: Kind("n", prefix=1),
    35: Kind("n", prefix=1),
    36: Kind("n", prefix=2),
    37: Kind("a", 12),
    38: Kind("a", 6),
    39: Kind("a", 2),
    41: Kind("a", 8),
    42: Kind("a", 15),
    44: Kind("a", prefix=1),
    48: Kind("n", prefix=2),
    49: Kind("a", 3),
    52: Kind("b", 8),
    53: Kind("n", 16),
    54: Kind("a", prefix=2),
    55: Kind("b", prefix=2),
    60: Kind("n", prefix=2),
    61: Kind("n", prefix=2),
    62: Kind("b", prefix=2),
    63: Kind("b", prefix=2),
    64: Kind("b", 8),
}


def pack_field(number: int, value: Value) -> bytes:
    """One field as it travels."""
    kind = KINDS[number]
    if isinstance(value, bytes):
        data, length = value, len(value) * (2 if kind.unit == "n" else 1)
    elif kind.unit == "n":
        pad = "0" * (len(value) % 2)
        data, length = bytes.fromhex(pad + value if kind.right else value + pad), len(value)
    else:
        data, length = value.encode("ascii"), len(value)
    return (bytes.fromhex(f"{length:0{2 * kind.prefix}d}") if kind.prefix else b"") + data


def unpack_field(number: int, data: bytes) -> tuple[Value, bytes]:
    """One field at the start of data, and what is left."""
    kind = KINDS[number]
    length = int(data[: kind.prefix].hex()) if kind.prefix else kind.size
    size = (length + 1) // 2 if kind.unit == "n" else length
    value, rest = data[kind.prefix : kind.prefix + size], data[kind.prefix + size :]
    if len(value) != size:
        raise ValueError(f"field {number} is cut off")
    if kind.unit == "n":
        digits = value.hex()
        return (digits[-length:] if kind.right else digits[:length]), rest
    return (value.decode("ascii") if kind.unit == "a" else value), rest


@dataclass(frozen=True)
class Message:
    """One message. `mab` is what field 64 covers, filled in when it is packed or read."""

    mti: str
    fields: Fields
    header: str = HEADER
    tpdu: bytes = TPDU
    mab: bytes = b""

    def text(self, number: int) -> str:
        """A digit or text field."""
        value = self.fields[number]
        assert isinstance(value, str)
        return value

    def data(self, number: int) -> bytes:
        """A field of bytes."""
        value = self.fields[number]
        assert isinstance(value, bytes)
        return value

    @property
    def code(self) -> str:
        """Field 39."""
        return self.text(39)

    @property
    def numbers(self) -> frozenset[int]:
        """The fields that are there."""
        return frozenset(self.fields)


def pack(message: Message, sign: Callable[[bytes], bytes] | None = None) -> bytes:
    """The whole frame with its length. With `sign`, field 64 is what it returns for the MAB."""
    numbers = sorted(message.numbers | ({64} if sign else set()))
    bitmap = sum(1 << (64 - number) for number in numbers).to_bytes(8, "big")
    mab = bytes.fromhex(message.mti) + bitmap
    mab += b"".join(pack_field(number, message.fields[number]) for number in sorted(message.fields))
    body = message.tpdu + bytes.fromhex(message.header) + mab + (sign(mab) if sign else b"")
    return len(body).to_bytes(2, "big") + body


def unpack(body: bytes) -> Message:
    """A frame without its length. ValueError when it cannot be read."""
    bitmap, rest = int.from_bytes(body[13:21], "big"), body[21:]
    fields: dict[int, Value] = {}
    for number in range(1, 65):
        if bitmap >> (64 - number) & 1:
            fields[number], rest = unpack_field(number, rest)
    if rest:
        raise ValueError("bytes are left over after the last field")
    mab = body[11:-8] if 64 in fields else body[11:]
    return Message(body[11:13].hex(), fields, body[5:11].hex(), body[:5], mab)


class Line:
    """One TCP connection: frames out, frames in."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=ANSWER_TIMEOUT_S)
        self._stream = self._socket.makefile("rb")

    def send(self, frame: bytes) -> None:
        """Bytes as they are."""
        self._socket.sendall(frame)

    def receive(self) -> bytes | None:
        """The next frame without its length; None when the other side has closed."""
        try:
            head = self._stream.read(2)
        except ConnectionResetError:
            return None
        if len(head) < 2:
            return None
        size = int.from_bytes(head, "big")
        body = self._stream.read(size)
        return body if len(body) == size else None

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._socket.close()
