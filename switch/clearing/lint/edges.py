"""Header and trailer: what each must be, and what the two and the lines between them must say together."""

import re
from datetime import datetime
from typing import Final, NamedTuple

from switch.clearing.layouts import LAYOUTS, Total
from switch.clearing.lint.faults import Findings
from switch.clearing.lint.patterns import is_date

HEADER_LENGTH: Final = 80
TRAILER_LENGTH: Final = 90

# Fields of a header: name, width, what it must be, the same in words.
_HEADER: Final = (
    ("mark", 1, rb"H", "H"),
    ("type", 2, rb"[A-Z]{2}", "a type of file"),
    ("version", 2, rb"01", "01"),
    ("sender", 8, rb"[0-9]{8}", "8 digits"),
    ("receiver", 8, rb"[0-9]{8}", "8 digits"),
    ("clearing_date", 8, rb"[1-9][0-9]{7}", "YYYYMMDD"),
    ("sequence", 3, rb"[0-9]{3}", "3 digits"),
    ("created", 14, rb"[1-9][0-9]{13}", "YYYYMMDDhhmmss"),
    ("count", 8, rb"[0-9]{8}", "8 digits, zeros in front"),
    ("total", 15, rb"[0-9]{15}", "15 digits, zeros in front"),
    ("line_length", 4, rb"[0-9]{4}", "4 digits"),
    ("spaces", 7, rb" {7}", "7 spaces"),
)
assert sum(part[1] for part in _HEADER) == HEADER_LENGTH
NAME: Final = re.compile(r"([A-Z]{2})([0-9]{8})([0-9]{8})([0-9]{8})([0-9]{3})")
_NAME_COLUMNS: Final = {"type": 2, "sender": 6, "receiver": 14, "clearing_date": 22, "sequence": 30}


class Read(NamedTuple):
    """What was read before the trailer. total_fen: None where it cannot be known; sm3: over those bytes, upper-case hex."""

    header: dict[str, bytes]
    line_count: int
    total_fen: int | None
    total_is: Total
    sm3: str


def read_header(body: bytes, name: str, findings: Findings) -> dict[str, bytes]:
    """The fields of a header that have their form. name: of the file."""
    add, header = findings.add, dict[str, bytes]()
    if len(body) != HEADER_LENGTH:
        column = min(len(body), HEADER_LENGTH) + 1
        add(
            "header",
            "the header has another length",
            f"{HEADER_LENGTH} characters, then CRLF",
            line=1,
            column=column,
        )
    at = 0
    for part, width, pattern, says in _HEADER:
        value = body[at : at + width]
        if re.fullmatch(pattern, value):
            header[part] = value
        elif len(body) >= at + width:
            hint = (
                "spaces in a number"
                if b" " in value and says.endswith("in front")
                else "a value that cannot be"
            )
            add("header", hint, says, line=1, column=at + 1, field=part)
        at += width
    _check_values(header, name, findings)
    return header


def _check_values(header: dict[str, bytes], name: str, findings: Findings) -> None:
    add = findings.add
    kind = header.get("type", b"").decode()
    if kind and kind not in LAYOUTS:
        add("header", "not a type of file", ", ".join(LAYOUTS), line=1, column=2, field="type")
    elif kind and header.get("line_length") not in (None, b"%04d" % LAYOUTS[kind].length):
        length = LAYOUTS[kind].length
        add(
            "header",
            "not the type's line length",
            f"{length:04d}",
            line=1,
            column=70,
            field="line_length",
        )
    if not is_date(header.get("clearing_date", b"00000000")):
        add("header", "not a day of the calendar", "YYYYMMDD", line=1, column=22, field="clearing_date")
    if "created" in header:
        try:
            datetime.strptime(header["created"].decode(), "%Y%m%d%H%M%S")  # noqa: DTZ007  only whether it is a time
        except ValueError:
            add("header", "not a time", "YYYYMMDDhhmmss", line=1, column=33, field="created")
    named = NAME.fullmatch(name)
    for part, value in zip(_NAME_COLUMNS, named.groups() if named else (), strict=False):
        if part in header and header[part].decode() != value:
            add(
                "name-header",
                "name and header differ",
                "the same in both",
                line=1,
                column=_NAME_COLUMNS[part],
                field=part,
            )


def read_trailer(body: bytes, kind: str, number: int, findings: Findings) -> dict[str, bytes] | None:
    """The fields of a trailer, empty where one has not its form; None when it has another length."""
    add = findings.add
    if len(body) != TRAILER_LENGTH:
        column = min(len(body), TRAILER_LENGTH) + 1
        add(
            "trailer",
            "the trailer has another length",
            f"{TRAILER_LENGTH} characters, then CRLF",
            line=number,
            column=column,
        )
        return None
    parts: dict[str, bytes] = {}
    for name, at, pattern, says in (
        ("mark", 0, rb"T", "T"),
        ("type", 1, re.escape(kind.encode()), "the header's type"),
        ("count", 3, rb"[0-9]{8}", "8 digits, zeros in front"),
        ("total", 11, rb"[0-9]{15}", "15 digits, zeros in front"),
        ("digest", 26, rb"[0-9A-F]{64}", "SM3 in upper-case hex"),
    ):
        width = {"mark": 1, "type": 2, "count": 8, "total": 15, "digest": 64}[name]
        parts[name] = body[at : at + width]
        if not re.fullmatch(pattern, parts[name]):
            rule = (
                "lower-case hex"
                if name == "digest" and re.fullmatch(rb"[0-9A-Fa-f]{64}", parts[name])
                else "a value that cannot be"
            )
            add("trailer", rule, says, line=number, column=at + 1, field=name)
            parts[name] = b""
    return parts


def compare(read: Read, parts: dict[str, bytes], where: int, findings: Findings) -> bool:
    """Header, lines and trailer against each other; whether the digest is right. where: the trailer's line."""
    add, header = findings.add, read.header
    for name, column in (("count", 4), ("total", 12)):
        if parts[name] and name in header and parts[name] != header[name]:
            add(
                f"{name}-differs",
                "header and trailer differ",
                "the same in both",
                line=where,
                column=column,
                field=name,
            )
    said = header.get("count") or parts["count"]
    missing = int(said) - read.line_count if said else 0
    stated = header.get("total") or parts["total"]
    off = None
    if stated and read.total_fen is not None and read.total_is is not Total.LIST_VERSION:
        off = int(stated) - read.total_fen
    if missing:
        add(
            "count",
            _lines_off(missing, off),
            "as many detail lines as the header counts",
            line=1,
            column=47,
            field="count",
        )
    if off and not missing:
        says = f"the lines come to {abs(off)} fen {'less' if off > 0 else 'more'} than the total"
        add(
            "total",
            says,
            f"the total is the {read.total_is.value}; an amount was changed",
            line=1,
            column=55,
            field="total",
        )
    if parts["digest"] and parts["digest"] != read.sm3.encode():
        alone = not findings.count
        says = (
            "a byte was changed where no other rule sees it"
            if alone
            else "which follows from what is said above"
        )
        add(
            "digest",
            "the digest is not that of the bytes before the trailer",
            says,
            line=where,
            column=27,
            field="digest",
        )
        return False
    return bool(parts["digest"])


def _lines_off(missing: int, off: int | None) -> str:
    lines = f"{abs(missing)} {'line' if abs(missing) == 1 else 'lines'}"
    if missing < 0:
        return f"{lines} too many" + (f", of {-off} fen together" if off else "")
    return f"{lines} missing" + (f", of {off} fen together" if off else "")
