"""Lines of a partner's CM file as columns: checked and turned into rows for COPY, thousands in a few calls each.

`layouts.read_line` defines what a line is; a block that is not all good is read by it again, line by line, to say which line breaks which rule.
Nothing costs Python code per line. What no layout asks for but the comparison needs is checked here: the message type, and the characters of
what becomes a key.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from switch.clearing.files import CRLF, FileRefused, FileStatus
from switch.clearing.layouts import LAYOUTS, Form, LineFault, read_line

KIND: Final = "CM"
LAYOUT: Final = LAYOUTS[KIND]
LINE_BYTES: Final = LAYOUT.length + len(CRLF)
COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # binary format: signature, no flags, no extension
COPY_END: Final = b"\xff\xff"
MTIS: Final = ("0200", "0220", "0320", "0400", "0420")
OFFLINE: Final = 320  # its key is of card, counter and serial
REVERSALS_FROM: Final = 400
_SERIALS: Final = 1 << 48

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Rows(NamedTuple):
    """A block's lines for COPY ... (FORMAT binary), without head and end. total_fen: as the header counts; effect_fen: what they come to."""

    copy: bytes
    lines: int
    total_fen: int
    effect_fen: int


def _places() -> dict[str, slice]:
    places, at = {}, 0
    for field in LAYOUT.fields:
        if field.form is not Form.BLANK:
            places[field.name] = slice(at, at + field.width)
        at += field.width
    return places


AT: Final = _places()


_DIGITS, _LETTERS, _LOWER = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
_PRINTABLE = "".join(map(chr, range(32, 127)))
_CLASSES: Final = (_DIGITS, " ", "CD", _PRINTABLE, _DIGITS + _LETTERS + _LOWER, _DIGITS + " ", "\r", "\n")
_DIGIT, _BLANK, _SIGN, _TEXT, _REFERENCE, _PAN, _CR, _LF = (1 << bit for bit in range(len(_CLASSES)))
_IS: Final = bytes(
    sum((chr(byte) in test) << bit for bit, test in enumerate(_CLASSES)) for byte in range(256)
)  # for bytes.translate: to each character its classes


def _needed() -> Bytes:
    """By column, the class of characters that may stand there."""
    needs: list[int] = []
    for field in LAYOUT.fields:
        if field.form is Form.BLANK:
            needs += [_BLANK] * field.width
        elif field.form is Form.NUMBER:
            needs += [_DIGIT] * field.width
        elif field.form is Form.FEE:
            needs += [_SIGN] + [_DIGIT] * (field.width - 1)
        else:
            wanted = {"mark": _SIGN, "rrn": _REFERENCE, "pan": _PAN}.get(field.name, _TEXT)
            needs += [wanted] * field.width
    return np.array([*needs, _CR, _LF], np.uint8)


_NEEDED: Final = _needed()
assert len(_NEEDED) == LINE_BYTES
_MTI_NUMBERS: Final = np.array([int(mti) for mti in MTIS])
_HEX: Final = np.full(256, -1, np.int64)
for _value, _char in enumerate("0123456789ABCDEF"):
    _HEX[ord(_char)] = _value

_COLUMNS: Final = (
    ("k1", ">i8"),
    ("k2", ">i8"),
    ("amount_fen", ">i8"),
    ("effect_fen", ">i8"),
    ("line_no", ">i4"),
    ("mti", ">i2"),
    ("pan", "S19"),
    ("rrn", "S12"),
)
COLUMNS: Final = tuple(name for name, _ in _COLUMNS)
_ROW: Final = np.dtype(
    [("columns", ">i2")]
    + [part for name, form in _COLUMNS for part in ((f"{name} size", ">i4"), (name, form))]
)


def read_block(block: bytes, first_line: int) -> Rows:
    """Check and turn whole lines, each with its CRLF. first_line: number of the first, from 1.

    Raises FileRefused with line and column of the first rule that is broken.
    """
    count = len(block) // LINE_BYTES
    lines = np.frombuffer(block, np.uint8, count * LINE_BYTES).reshape(count, LINE_BYTES)
    classes = np.frombuffer(block.translate(_IS), np.uint8, count * LINE_BYTES).reshape(lines.shape)
    if len(block) % LINE_BYTES or not (classes & _NEEDED).all() or (lines[:, 0] != ord("D")).any():
        raise _fault(block, first_line)
    pans = lines[:, AT["pan"]]
    blank = pans == ord(" ")
    gaps = (blank[:, :-1] & ~blank[:, 1:]).any(axis=1) | blank[:, 12]
    mti = _number(lines, "mti")
    offline = mti == OFFLINE
    wrong = gaps | ~np.isin(mti, _MTI_NUMBERS)
    key, second = _message_key(lines, "transmitted_at", "trace"), np.zeros(count, np.int64)
    if offline.any():
        other = _HEX[lines[:, AT["other"]][:, :12]]
        wrong |= offline & (other < 0).any(axis=1)
        key = np.where(offline, _card_keys(pans, blank), key)
        second = np.where(offline, _SERIALS + other @ _powers(16, 12, np.int64), 0)
    if wrong.any():
        raise _fault(block, first_line)
    amount = _number(lines, "amount")
    reversal = mti >= REVERSALS_FROM
    returns = (lines[:, AT["processing_code"].start] == ord("2")) & (
        lines[:, AT["processing_code"].start + 1] == ord("0")
    )
    approved = (lines[:, AT["response"]] == ord("0")).all(axis=1)
    effect = np.where(approved, np.where(returns != reversal, -amount, amount), 0)
    rows = np.zeros(count, _ROW)
    rows["columns"] = len(_COLUMNS)
    for name, form in _COLUMNS:
        rows[f"{name} size"] = np.dtype(form).itemsize
    if reversal.any():
        key = np.where(reversal, _message_key(lines, "original_at", "original_trace"), key)
    rows["k1"] = key
    rows["k2"] = second
    rows["amount_fen"] = amount
    rows["effect_fen"] = effect
    rows["line_no"] = np.arange(first_line, first_line + count)
    rows["mti"] = mti
    rows["pan"] = np.ascontiguousarray(pans).view("S19").ravel()
    rows["rrn"] = np.ascontiguousarray(lines[:, AT["rrn"]]).view("S12").ravel()
    return Rows(rows.tobytes(), count, int(amount.sum()), int(effect.sum()))


def _powers(base: int, width: int, kind: type) -> NDArray[np.integer]:
    return np.array([base**power for power in range(width - 1, -1, -1)], kind)


def _number(lines: Bytes, name: str) -> Numbers:
    """A field of digits as numbers."""
    numbers = np.zeros(len(lines), np.int64)
    for place in range(AT[name].start, AT[name].stop):
        numbers *= 10
        numbers += lines[:, place]
    numbers -= ord("0") * (10 ** (AT[name].stop - AT[name].start) // 9)  # all their zeros at once
    return numbers


def _message_key(lines: Bytes, sent: str, trace: str) -> Numbers:
    """Fields 7 and 11 of a message as one number."""
    return _number(lines, sent) * 1_000_000 + _number(lines, trace)


def _card_keys(pans: Bytes, blank: Flags) -> Numbers:
    """Card numbers as the database's card_key has them: unsigned, in two's complement; blanks behind do not count."""
    digits = np.where(blank, 0, pans.astype(np.uint64) - ord("0"))
    whole = digits @ _powers(10, 19, np.uint64)
    keys: Numbers = (whole // (10 ** blank.sum(axis=1).astype(np.uint64))).view(np.int64)
    return keys


def _fault(block: bytes, first_line: int) -> FileRefused:
    """What is wrong with the first line that is."""
    for place in range(0, len(block), LINE_BYTES):
        line = block[place : place + LINE_BYTES]
        number = first_line + place // LINE_BYTES + 1  # the header is line 1
        fault = _fault_of(line)
        if fault is not None:
            return FileRefused(FileStatus.CONTENT, fault[0], line=number, column=fault[1])
    raise AssertionError("a block that is refused has a line that is")


def _fault_of(line: bytes) -> tuple[str, int] | None:
    if not line.isascii():
        return "ASCII only", next(place for place, byte in enumerate(line, 1) if byte > 0x7F)
    if len(line) != LINE_BYTES or line[-2:] != CRLF:
        return "detail line has the wrong length", min(len(line.rstrip(CRLF)), LAYOUT.length) + 1
    text = line[:-2].decode()
    try:
        values = read_line(LAYOUT, text)
    except LineFault as error:
        return str(error), error.column
    pan = text[AT["pan"]].rstrip(" ")
    rules = (
        ("pan", pan.isdecimal() and len(pan) >= 13, "13 to 19 digits, blanks behind"),
        ("mti", text[AT["mti"]] in MTIS, f"one of {', '.join(MTIS)}"),
        ("rrn", text[AT["rrn"]].isalnum(), "letters and digits"),
        (
            "other",
            values["mti"] != f"{OFFLINE:04d}"
            or all(char in "0123456789ABCDEF" for char in text[AT["other"]][:12]),
            "ATC and PSAM serial, 12 upper-case hex digits",
        ),
    )
    for name, good, rule in rules:
        if not good:
            return f"{name}: {rule}", AT[name].start + 1
    for place, char in enumerate(text, 1):
        if not char.isprintable():
            return "printable ASCII only", place
    return None
