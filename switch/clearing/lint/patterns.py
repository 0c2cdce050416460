"""What each field may hold, as regular expressions made from the layouts: one for a whole line, one per field.

The first decides, the second explains. docs/clearing_files.md says the same in words.
"""

import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from typing import Final, NamedTuple

from switch.clearing.layouts import ACOM, LAYOUTS, Field, Form, Layout

_SIGNED: Final = rb"(?:C[0-9]{%(n)d}|D(?!0{%(n)d})[0-9]{%(n)d})"
_FEE: Final = rb"(?:D[0-9]{%(n)d}|C(?!0{%(n)d})[0-9]{%(n)d})"
_TIME: Final = rb"(?:[01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]"
_MONTH_DAY: Final = rb"(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
_DATE: Final = rb"[1-9][0-9]{3}" + _MONTH_DAY

# What a field may hold beyond its form, and how that is said. CM lines are also inside ER.
_SPECIAL: Final[dict[tuple[str, str], tuple[bytes, str]]] = {
    ("CM", "transmitted_at"): (_MONTH_DAY + _TIME, "MMDDhhmmss"),
    ("CM", "original_at"): (rb"(?:0{10}|" + _MONTH_DAY + _TIME + rb")", "MMDDhhmmss, or zeros"),
    ("CM", "pan"): (
        rb"(?:[0-9]{19}|[0-9]{18} |[0-9]{17}  |[0-9]{16} {3}|[0-9]{15} {4}|[0-9]{14} {5}|[0-9]{13} {6})",
        "13 to 19 digits, then spaces",
    ),
    ("CM", "mti"): (rb"0(?:200|220|320|400)", "0200, 0220, 0320 or 0400"),
    ("CM", "processing_code"): (rb"[02]0[0-9]{2}00", "00aa00 or 20aa00"),
    ("CM", "condition"): (rb"0[06]", "00 or 06"),
    ("CM", "entry_mode"): (rb"[0-9]{3}", "3 digits"),
    ("CM", "response"): (rb"[0-9A-Z]{2}", "2 digits or capitals"),
    ("CM", "category"): (rb"[0-9]{4}", "4 digits"),
    ("NS", "file"): (rb"[A-Z]{2}[0-9]{27}", "a file's name"),
    ("NS", "status"): (rb"0[0-4]", "00 to 04"),
    ("SS", "source_file"): (rb"[A-Z]{2}[0-9]{27}", "a file's name"),
    ("SS", "result"): (rb"[0-9]{2}", "2 digits"),
    ("SS", "decided_on"): (_DATE, "YYYYMMDD"),
    ("SS", "date"): (rb"(?:0{8}|[0-9]{4}" + _MONTH_DAY + rb")", "YYYYMMDD of a terminal's clock, or zeros"),
    ("SS", "time"): (_TIME, "hhmmss"),
    ("SS", "asn"): (rb"[0-9A-F]{20}", "20 hex digits"),
    ("SS", "psam"): (rb"[0-9A-F]{12}", "12 hex digits"),
    ("SS", "tti"): (rb"[0-9A-F]{2}", "2 hex digits"),
    ("SS", "tac"): (rb"[0-9A-F]{8}", "8 hex digits"),
    ("SS", "grey"): (rb"[01]", "0 or 1"),
    ("QS", "clearing_date"): (_DATE, "YYYYMMDD"),
    ("QS", "settlement_date"): (_DATE, "YYYYMMDD"),
    ("MR", "account_kind"): (rb"[0-9]{2}", "2 digits"),
    ("MR", "card"): (rb"(?=[ -~]{20})[0-9]{6}\*{3,9}[0-9]{4} *", "first six, asterisks, last four digits"),
    ("MR", "date"): (_DATE, "YYYYMMDD"),
    ("MR", "time"): (_TIME, "hhmmss"),
    ("MR", "clearing_date"): (_DATE, "YYYYMMDD"),
    ("NP", "institution"): (rb"[0-9]{8}", "8 digits"),
    ("TR", "ride_date"): (_DATE, "YYYYMMDD"),
    ("TR", "clearing_date"): (_DATE, "YYYYMMDD"),
    ("TR", "industry"): (rb"[0-9A-F]{2}", "2 hex digits"),
    ("TR", "line"): (rb"[0-9A-F]{4}", "4 hex digits"),
    ("DT", "result"): (rb"[0-9]{2}", "2 digits"),
    ("DT", "result_date"): (_DATE, "YYYYMMDD"),
    ("ER", "action"): (rb"0[1-8]", "01 to 08"),
    ("ER", "original_date"): (_DATE, "YYYYMMDD"),
    **{(kind, "operation"): (rb"[ADV]", "A, D or V") for kind in ("BF", "BI")},
    **{(kind, "asn"): (rb"[0-9]{20}", "20 digits") for kind in ("BF", "BI")},
    **{(kind, "level"): (rb"0[01]", "00 or 01") for kind in ("BF", "BI")},
    **{(kind, "effective_date"): (_DATE, "YYYYMMDD") for kind in ("BF", "BI")},
}
assert all(any(field.name == name for field in LAYOUTS[kind].fields) for kind, name in _SPECIAL)

SAYS: Final = {
    Form.NUMBER: "digits only, zeros in front",
    Form.TEXT: "printable ASCII, spaces behind",
    Form.CODE: "printable ASCII of exactly this width",
    Form.HEX: "upper-case hex",
    Form.SIGNED: "C (receives, also zero) or D (pays), then digits",
    Form.FEE: "C (receives) or D (pays, also zero), then digits",
    Form.BLANK: "spaces",
}


def field_pattern(kind: str, field: Field) -> bytes:
    """What a field may hold, as a regular expression."""
    name, width, form = field
    if name == "mark":
        return b"D"
    if (kind, name) in _SPECIAL:
        return _SPECIAL[kind, name][0]
    if (kind, name) == ("ER", "line"):
        return b"".join(field_pattern("CM", inner) for inner in LAYOUTS["CM"].fields[1:])
    if form is Form.NUMBER:
        return b"[0-9]{%d}" % width
    if form is Form.HEX:
        return b"[0-9A-F]{%d}" % width
    if form is Form.BLANK:
        return b" {%d}" % width
    if form in (Form.SIGNED, Form.FEE):
        return (_SIGNED if form is Form.SIGNED else _FEE) % {b"n": width - 1}
    return b"[ -~]{%d}" % width


def expected(kind: str, field: Field) -> str:
    """The same in words."""
    if field.name == "mark":
        return "a detail line starts with D"
    if (kind, field.name) in _SPECIAL:
        return _SPECIAL[kind, field.name][1]
    return SAYS[field.form]


def line_pattern(layout: Layout, wanted: tuple[str, ...]) -> re.Pattern[bytes]:
    """A whole detail line without its line end, for fullmatch. Its groups are the wanted fields, in their order in the line."""
    parts = []
    for field in layout.fields:
        pattern = field_pattern(layout.kind, field)
        parts.append(b"(%b)" % pattern if field.name in wanted else pattern)
    return re.compile(b"".join(parts))


class Placed(NamedTuple):
    """A field with its column, from 1, and the kind whose rules it follows."""

    kind: str
    column: int
    field: Field


def placed_fields(layout: Layout) -> Iterator[Placed]:
    """Every field of a line with its place; of the line inside an ER line, the fields of that."""
    column = 1
    for field in layout.fields:
        if (layout.kind, field.name) == ("ER", "line"):
            inner = column
            for place, part in enumerate(ACOM):
                yield Placed("CM", inner, part)
                inner += part.width
                if place < len(ACOM) - 1:
                    yield Placed("CM", inner, Field("", 1, Form.BLANK))
                    inner += 1
        else:
            yield Placed(layout.kind, column, field)
        column += field.width


@lru_cache(maxsize=4096)
def is_date(digits: bytes) -> bool:
    """Whether YYYYMMDD is a day of the calendar; zeros count where the pattern lets them through."""
    if digits == b"00000000":
        return True
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return False
    return True
