"""Field kinds: an encoding, a length prefix and a padding (ISO 8583:1987, packed BCD as on Chinese POS terminals).

A kind reads and writes one value. Reading here is the careful way: it says which byte breaks which rule. The codec has
a quicker way for messages that are right and comes here for the others.
"""

from enum import Enum
from typing import NamedTuple

DIGITS = frozenset("0123456789")
_ASCII_DIGITS = range(0x30, 0x3A)
HEX_DIGITS = frozenset("0123456789ABCDEF")
TRACK_CHARACTERS = frozenset("0123456789ABC=EF")


class Encoding(Enum):
    """How the units of a value lie in bytes; the value is the abbreviation used in references."""

    BCD_LEFT = "n"  # packed BCD, left-aligned, an odd count is filled with a zero nibble behind
    BCD_RIGHT = "nr"  # packed BCD, right-aligned, an odd count is filled with a zero nibble in front
    DIGITS = "n "  # ASCII digits, a byte each
    TRACK = "z"  # as n; the separator `=` is nibble D; encrypted tracks may hold any nibble
    TRACK_TEXT = "z "  # the same alphabet, a byte each
    ALPHANUMERIC = "an"  # ASCII letters, digits and padding spaces, a byte each
    PRINTABLE = "ans"  # printable ASCII, a byte each
    GB18030 = "ans "  # GB18030 text, counted in bytes, no control characters
    BINARY = "b"  # bytes

    __hash__ = (
        object.__hash__
    )  # as good for what is only equal to itself; the one of enums is a call into Python, for every field


NIBBLES = frozenset({Encoding.BCD_LEFT, Encoding.BCD_RIGHT, Encoding.TRACK})


class KindError(Exception):
    """A value breaks a rule of its kind; `at` counts bytes from the first byte of the value."""

    def __init__(self, rule: str, at: int = 0) -> None:
        self.rule = rule
        self.at = at
        super().__init__(rule)


class FieldKind(NamedTuple):
    """Encoding plus the number of length bytes in front: in BCD 0 fixed, 1 LL, 2 LLL; in ASCII 0, 2, 3.

    Lengths count digits where the encoding is of nibbles, bytes elsewhere ("units").
    """

    encoding: Encoding
    prefix_bytes: int = 0
    ascii_prefix: bool = False

    @property
    def prefix_digits(self) -> int:
        """Digits that the length has: 0, 2 or 3."""
        if self.ascii_prefix or not self.prefix_bytes:
            return self.prefix_bytes
        return self.prefix_bytes + 1

    @property
    def label(self) -> str:
        """The kind as references write it: `n`, `n LLVAR`, `b LLLVAR`."""
        prefix = " " + "L" * self.prefix_digits + "VAR" if self.prefix_bytes else ""
        return self.encoding.value.strip() + prefix

    def width(self, units: int) -> int:
        """Bytes that `units` digits or characters take, without the prefix."""
        return (units + 1) // 2 if self.encoding in NIBBLES else units

    def read_prefix(self, prefix: bytes) -> int:
        """The announced count of units. KindError when a nibble, or a character, is not a digit."""
        if self.ascii_prefix:
            for place, byte in enumerate(prefix):
                if byte not in _ASCII_DIGITS:
                    raise KindError("length character is not a decimal digit", place)
            return int(prefix)
        for place, byte in enumerate(prefix):
            if byte >> 4 > 9 or byte & 15 > 9:
                raise KindError("length byte is not BCD", place)
        return int(prefix.hex())

    def write_prefix(self, units: int) -> bytes:
        """The length bytes that announce so many units, which the prefix can say; none for a fixed kind."""
        digits = (
            f"{units:0{self.prefix_bytes * (1 if self.ascii_prefix else 2)}d}" if self.prefix_bytes else ""
        )
        return digits.encode() if self.ascii_prefix else bytes.fromhex(digits)

    def read(self, raw: bytes, units: int) -> str | bytes:
        """The value in `raw`, which is exactly width(units) bytes. KindError names rule and byte."""
        if self.encoding is Encoding.BINARY:
            return raw
        if self.encoding in NIBBLES:
            return self._read_nibbles(raw, units)
        return self._read_text(raw)

    def write(self, value: str | bytes) -> bytes:
        """The value as bytes, without the prefix. KindError names the rule, never the value."""
        if self.encoding is Encoding.BINARY:
            if not isinstance(value, bytes):
                raise KindError("bytes expected")
            return value
        if not isinstance(value, str):
            raise KindError("text expected")
        if self.encoding in NIBBLES:
            return self._write_nibbles(value)
        if self.encoding in (Encoding.DIGITS, Encoding.TRACK_TEXT):
            allowed = DIGITS if self.encoding is Encoding.DIGITS else TRACK_CHARACTERS
            if not set(value) <= allowed:
                raise KindError("digits expected" if allowed is DIGITS else "track digits expected")
            return value.encode("ascii")
        if value.isascii() and value.isprintable():
            if self.encoding is Encoding.ALPHANUMERIC and not value.isalnum():
                self._read_text(value.encode("ascii"))
            return value.encode("ascii")
        if self.encoding is not Encoding.GB18030:
            raise KindError("character is not printable ASCII")
        try:
            raw = value.encode("gb18030")
        except UnicodeEncodeError as error:
            raise KindError("character outside the field's set", error.start) from None
        self._read_text(raw)
        return raw

    def _read_nibbles(self, raw: bytes, units: int) -> str:
        nibbles = raw.hex().upper()
        pad = units % 2
        if self.encoding is Encoding.BCD_RIGHT:
            digits, filler, filler_at = nibbles[pad:], nibbles[:pad], 0
        else:
            digits, filler, filler_at = (
                nibbles[: len(nibbles) - pad],
                nibbles[len(nibbles) - pad :],
                len(raw) - 1,
            )
        allowed = HEX_DIGITS if self.encoding is Encoding.TRACK else DIGITS
        shift = pad if self.encoding is Encoding.BCD_RIGHT else 0
        if allowed is DIGITS and not digits.isdecimal():  # one look at all of them, then at each to say which
            for place, nibble in enumerate(digits):
                if nibble not in allowed:
                    raise KindError("nibble is not a decimal digit", (place + shift) // 2)
        if filler not in ("", "0"):
            raise KindError("pad nibble is not 0", filler_at)
        return digits.replace("D", "=") if self.encoding is Encoding.TRACK else digits

    def _write_nibbles(self, value: str) -> bytes:
        nibbles = value
        if self.encoding is Encoding.TRACK:
            if not set(value) <= TRACK_CHARACTERS:
                raise KindError("track digits expected")
            nibbles = value.replace("=", "D")
        elif value and not (value.isascii() and value.isdecimal()):
            raise KindError("digits expected")
        if len(nibbles) % 2:
            nibbles = "0" + nibbles if self.encoding is Encoding.BCD_RIGHT else nibbles + "0"
        return bytes.fromhex(nibbles)

    def _read_text(self, raw: bytes) -> str:
        if self.encoding is Encoding.GB18030:
            try:
                text = raw.decode("gb18030")
            except UnicodeDecodeError as error:
                raise KindError("byte is not GB18030 text", error.start) from None
            if any(char < " " or char == "\x7f" for char in text):
                raise KindError(
                    "control character in text", next(i for i, b in enumerate(raw) if b < 32 or b == 127)
                )
            if text.encode("gb18030") != raw:
                raise KindError("text is not in its canonical form")
            return text
        if raw.isascii():
            text = raw.decode("ascii")
            if self.encoding is Encoding.PRINTABLE:
                right = text.isprintable()
            elif self.encoding is Encoding.ALPHANUMERIC:
                right = text.isalnum()
            else:
                right = self.encoding is Encoding.DIGITS and text.isdecimal()
            if (
                right
            ):  # one look at all characters; the others are looked at each, to say which breaks the rule
                return text
        for place, byte in enumerate(raw):
            if self.encoding is Encoding.DIGITS and byte not in _ASCII_DIGITS:
                raise KindError("character is not a decimal digit", place)
            if self.encoding is Encoding.TRACK_TEXT and chr(byte) not in TRACK_CHARACTERS:
                raise KindError("character is not a track digit", place)
            if not 32 <= byte <= 126:
                raise KindError("character is not printable ASCII", place)
            if self.encoding is Encoding.ALPHANUMERIC and byte != 32 and not chr(byte).isalnum():
                raise KindError("character is neither letter, digit nor space", place)
        return raw.decode("ascii")


N = FieldKind(Encoding.BCD_LEFT)
NR = FieldKind(Encoding.BCD_RIGHT)
N_LL = FieldKind(Encoding.BCD_LEFT, 1)
N_LLL = FieldKind(Encoding.BCD_LEFT, 2)
Z_LL = FieldKind(Encoding.TRACK, 1)
Z_LLL = FieldKind(Encoding.TRACK, 2)
AN = FieldKind(Encoding.ALPHANUMERIC)
AN_LL = FieldKind(Encoding.ALPHANUMERIC, 1)
AN_LLL = FieldKind(Encoding.ALPHANUMERIC, 2)
ANS = FieldKind(Encoding.PRINTABLE)
ANS_LLL = FieldKind(Encoding.GB18030, 2)
B = FieldKind(Encoding.BINARY)
B_LLL = FieldKind(Encoding.BINARY, 2)

# The same kinds a byte to a character, with lengths in ASCII digits.
N_ASCII = FieldKind(Encoding.DIGITS)
N_LL_ASCII = FieldKind(Encoding.DIGITS, 2, ascii_prefix=True)
Z_LL_ASCII = FieldKind(Encoding.TRACK_TEXT, 2, ascii_prefix=True)
Z_LLL_ASCII = FieldKind(Encoding.TRACK_TEXT, 3, ascii_prefix=True)
AN_LL_ASCII = FieldKind(Encoding.ALPHANUMERIC, 2, ascii_prefix=True)
AN_LLL_ASCII = FieldKind(Encoding.ALPHANUMERIC, 3, ascii_prefix=True)
PRINTABLE_LL = FieldKind(Encoding.PRINTABLE, 1)
PRINTABLE_LL_ASCII = FieldKind(Encoding.PRINTABLE, 2, ascii_prefix=True)
ANS_LLL_ASCII = FieldKind(Encoding.GB18030, 3, ascii_prefix=True)
B_LLL_ASCII = FieldKind(Encoding.BINARY, 3, ascii_prefix=True)
