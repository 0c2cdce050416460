"""What commonly happens to files on their way, recognised by its traces and called by its name."""

from typing import Final

from switch.clearing.lint.faults import Findings
from switch.clearing.lint.patterns import Placed

UTF8_BOM: Final = b"\xef\xbb\xbf"
_WIDE: Final = ((b"\xff\xfe", "UTF-16 (little-endian)"), (b"\xfe\xff", "UTF-16 (big-endian)"))
_PACKED: Final = ((b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))
_PLAIN: Final = "a clearing file is ASCII without a byte-order mark, CRLF after every line"


def unreadable(start: bytes, findings: Findings) -> bool:
    """Whether the first bytes show something of which no line could be read; says what it is."""
    if not start:
        findings.add("empty", "the file is empty", "at least a header and a trailer")
        return True
    for mark, name in _WIDE:
        if start.startswith(mark):
            findings.add("encoding", f"the file is {name}", _PLAIN, line=1, column=1)
            return True
    for mark, name in _PACKED:
        if start.startswith(mark):
            findings.add("packed", f"the file is packed with {name}", "unpack it first", line=1, column=1)
            return True
    if start[1:2] == b"\0" or start[:1] == b"\0":
        name = "UTF-16 without a byte-order mark" if start.count(0) * 3 >= len(start) else "binary"
        findings.add("encoding", f"the file is {name}", _PLAIN, line=1, column=1 + start.index(0))
        return True
    if b"\n" not in start and start.count(b"\r") > 1:
        findings.add("line-end", "lines end with CR alone", _PLAIN, line=1, column=1 + start.index(b"\r"))
        return True
    return False


def not_ascii(line: bytes, number: int, findings: Findings) -> None:
    """A line with bytes above 7F: in which encoding they would be text."""
    column = next(place for place, byte in enumerate(line, 1) if byte > 0x7F)
    said = "a byte that is not ASCII"
    for encoding, name in (("utf-8", "UTF-8"), ("gbk", "GBK")):
        try:
            line.decode(encoding)
        except UnicodeDecodeError:
            continue
        said = f"text that is not ASCII, in {name} as it seems"
        break
    findings.add(
        "encoding", said, "ASCII only; nothing in these files is in Chinese", line=number, column=column
    )


def odd_length(line: bytes, width: int, number: int, findings: Findings) -> None:
    """A line of another length than its type's."""
    expected = f"{width} characters, then CRLF"
    column = min(len(line), width) + 1
    if not line.strip():
        findings.add(
            "line-empty",
            "an empty line",
            "only detail lines between header and trailer",
            line=number,
            column=1,
        )
    elif line[:1] == b"H" and len(line) == 80:
        findings.add("header-twice", "another header", "one file in one file", line=number, column=1)
    elif len(line) < width:
        findings.add(
            "line-length", f"{width - len(line)} characters too short", expected, line=number, column=column
        )
    elif not line[width:].strip():
        findings.add("line-length", "spaces at the end", expected, line=number, column=column)
    else:
        findings.add(
            "line-length", f"{len(line) - width} characters too long", expected, line=number, column=column
        )


def odd_field(placed: Placed, value: bytes, number: int, expected: str, findings: Findings) -> None:
    """A field that its pattern refused: where in it, and what it looks like."""
    rule, at = _why(placed, value)
    column = placed.column + at
    findings.add("field", rule, expected, line=number, column=column, field=placed.field.name or "spaces")


def _why(placed: Placed, value: bytes) -> tuple[str, int]:
    form = placed.field.form.name
    unprintable = next((at for at, byte in enumerate(value) if not 0x20 <= byte <= 0x7E), None)
    if unprintable is not None:
        return "a control character", unprintable
    if form in ("SIGNED", "FEE") and value[:1] in b"+-0123456789 ":
        return "no sign letter", 0
    if form in ("SIGNED", "FEE") and value[:1] not in b"CD":
        return "the sign is neither C nor D", 0
    if form in ("SIGNED", "FEE") and value[1:].isdigit():
        return "zero with the other sign", 0
    if form in ("NUMBER", "SIGNED", "FEE") and b" " in value:
        at = value.index(b" ")
        return ("blank" if not value.strip() else "spaces in a number"), at
    if form in ("NUMBER", "SIGNED", "FEE"):
        start = 0 if form == "NUMBER" else 1
        at = next((at for at, byte in enumerate(value) if at >= start and not 0x30 <= byte <= 0x39), 0)
        return ("a value that cannot be" if value[start:].isdigit() else "not a digit"), at
    if form == "HEX" or placed.field.name in ("asn", "psam", "tac", "tti"):
        at = next((at for at, byte in enumerate(value) if byte not in b"0123456789ABCDEF"), 0)
        return ("lower-case hex" if value[at : at + 1] in b"abcdef" else "not a hex digit"), at
    if form == "BLANK":
        return "a character where a space must be", next(at for at, byte in enumerate(value) if byte != 0x20)
    return "a value that cannot be", 0


def after_trailer(rest: bytes, number: int, findings: Findings) -> None:
    """What follows the trailer. rest: its first bytes."""
    if not rest.strip(b"\r\n"):
        what = "empty lines"
    elif not rest.strip(b"\x1a\r\n"):
        what = "the end mark of old editors (1A)"
    elif not rest.strip(b"\0"):
        what = "zero bytes"
    elif rest[:1] == b"H":
        what = "another file"
    else:
        what = "bytes"
    findings.add(
        "after-trailer", f"{what} after the trailer", "the trailer is the end", line=number, column=1
    )
