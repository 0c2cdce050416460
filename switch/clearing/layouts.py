"""Lines of the clearing files, as data: the writers (one by one, by columns, in SQL) and the reader use these tables.

A line is `D`, an eight-digit line number (not in CM) and the fields below, without gaps. CM carries the 34 fields of the
bank-card networks' general detail file ACOM, separated by single spaces.
"""

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple


class Form(Enum):
    """How a value is written."""

    NUMBER = "right-aligned, zeros in front"
    TEXT = "left-aligned, spaces behind"
    CODE = "text of exactly this width"
    HEX = "upper-case hex of exactly this width"
    SIGNED = "C (receives, also zero) or D (pays), then digits"
    FEE = "C (receives) or D (pays, also zero), then digits"
    BLANK = "spaces"


class Field(NamedTuple):
    """One field of a line."""

    name: str
    width: int
    form: Form


class Total(Enum):
    """What the header's and the trailer's total amount is."""

    AMOUNTS = "sum of the lines' amounts"
    RECORDS = "sum of the amounts inside the records"
    NET_CREDITS = "sum of the nets marked C"
    AMOUNT_CREDITS = "sum of the amounts marked C"
    LIST_VERSION = "not a sum: the version of the list"


class Layout(NamedTuple):
    """The detail line of one type of file."""

    kind: str
    title: str
    fields: tuple[Field, ...]
    total: Total

    @property
    def length(self) -> int:
        """Characters of a line, without CRLF."""
        return sum(field.width for field in self.fields)


Value = int | str


class LineFault(ValueError):
    """A line breaks its layout. column: where in the line, from 1."""

    def __init__(self, rule: str, column: int) -> None:
        self.column = column
        super().__init__(rule)


def _n(name: str, width: int) -> Field:
    return Field(name, width, Form.NUMBER)


def _t(name: str, width: int) -> Field:
    return Field(name, width, Form.TEXT)


def _c(name: str, width: int) -> Field:
    return Field(name, width, Form.CODE)


def _s(name: str) -> Field:
    return Field(name, 16, Form.SIGNED)


def _blank(width: int) -> Field:
    return Field("", width, Form.BLANK)


_START = (_c("mark", 1), _n("line_no", 8))
_RECORD = (*_START, Field("record", 192, Form.HEX))

ACOM = (
    _t("acquiring_agent", 11),
    _t("forwarding_institution", 11),
    _n("trace", 6),
    _n("transmitted_at", 10),  # MMDDhhmmss
    _t("pan", 19),
    _n("amount", 12),
    _n("partial_amount", 12),
    _n("cardholder_fee", 12),
    _c("mti", 4),
    _c("processing_code", 6),
    _c("category", 4),
    _c("terminal", 8),
    _c("merchant", 15),
    _c("rrn", 12),
    _c("condition", 2),
    _t("auth_code", 6),
    _t("receiving_institution", 11),
    _n("original_trace", 6),
    _c("response", 2),
    _c("entry_mode", 3),
    Field("fee_receivable", 12, Form.FEE),
    Field("fee_payable", 12, Form.FEE),
    Field("switching_fee", 12, Form.FEE),
    _c("message_flag", 1),
    _n("card_sequence", 3),
    _c("read_capability", 1),
    _c("ic_condition", 1),
    _n("original_at", 10),  # MMDDhhmmss
    _t("issuing_institution", 11),
    _c("region", 1),
    _c("terminal_type", 2),
    _c("eci", 2),
    _n("instalment_fee", 12),
    _t("other", 14),
)


def _spaced(fields: tuple[Field, ...]) -> Iterator[Field]:
    for place, field in enumerate(fields):
        if place:
            yield _blank(1)
        yield field


_LAYOUTS = (
    Layout("XF", "offline records, acquirer to switch", _RECORD, Total.RECORDS),
    Layout("FH", "offline records of foreign cards, city to centre", _RECORD, Total.RECORDS),
    Layout("DF", "offline records, centre to the card's city", _RECORD, Total.RECORDS),
    Layout(
        "DT", "results of the card's city", (*_RECORD, _c("result", 2), _n("result_date", 8)), Total.RECORDS
    ),
    Layout(
        "NS",
        "files received",
        (*_START, _c("file", 29), _n("count", 8), _n("amount", 15), _c("status", 2)),
        Total.AMOUNTS,
    ),
    Layout(
        "SS",
        "refusals and adjustments",
        (
            *_START,
            _c("source_file", 29),
            _n("source_line", 8),
            _c("result", 2),
            _n("decided_on", 8),
            _c("merchant", 15),
            _c("terminal", 8),
            _c("asn", 20),
            _n("atc", 5),
            _c("psam", 12),
            _n("psam_serial", 10),
            _n("balance_before", 12),
            _n("amount", 12),
            _n("date", 8),
            _n("time", 6),
            _c("tti", 2),
            _c("tac", 8),
            _c("grey", 1),
            _blank(5),
        ),
        Total.AMOUNTS,
    ),
    Layout(
        "QS",
        "settlement of offline records",
        (
            *_START,
            _c("merchant", 15),
            _n("clearing_date", 8),
            _n("confirmed_count", 8),
            _n("confirmed", 15),
            _n("refused_count", 8),
            _n("refused", 15),
            _n("adjusted_count", 8),
            _n("adjusted", 15),
            _n("adjust_refused_count", 8),
            _n("adjust_refused", 15),
            _n("fee", 15),
            _s("net"),
            _n("settlement_date", 8),
            _blank(7),
        ),
        Total.NET_CREDITS,
    ),
    Layout("CM", "general detail", (_c("mark", 1), *_spaced(ACOM)), Total.AMOUNTS),
    Layout(
        "ER",
        "errors and adjustments",
        (
            *_START,
            _t("case_no", 16),
            _c("action", 2),
            _c("line", 299),
            _s("amount"),
            _t("reason", 2),
            _n("original_date", 8),
        ),
        Total.AMOUNT_CREDITS,
    ),
    Layout(
        "MR",
        "merchant's transactions",
        (
            *_START,
            _c("merchant", 15),
            _c("terminal", 8),
            _n("batch_no", 6),
            _n("trace", 6),
            _c("rrn", 12),
            _n("account_kind", 2),
            _t("card", 20),
            _s("amount"),
            _s("fee"),
            _s("net"),
            _n("date", 8),
            _n("time", 6),
            _n("clearing_date", 8),
            _c("response", 2),
        ),
        Total.NET_CREDITS,
    ),
    Layout(
        "NP",
        "net positions",
        (
            *_START,
            _c("institution", 8),
            _n("issuing_count", 8),
            _s("issuing"),
            _n("acquiring_count", 8),
            _s("acquiring"),
            _s("issuer_fee"),
            _s("fees_paid"),
            _s("net"),
        ),
        Total.NET_CREDITS,
    ),
    Layout(
        "TR",
        "rides of a merchant's lines",
        (
            *_START,
            _c("merchant", 15),
            _n("ride_date", 8),
            _c("industry", 2),
            _c("line", 4),
            _n("single_count", 8),
            _n("complete_count", 8),
            _n("incomplete_count", 8),
            _n("entry_count", 8),
            _n("open_count", 8),
            _n("transfer_count", 8),
            _n("amount", 15),
            _n("maximum", 15),
            _n("full_fare", 15),
            _n("transfer_discount", 15),
            _n("other_discount", 15),
            _n("clearing_date", 8),
        ),
        Total.AMOUNTS,
    ),
    *(
        Layout(
            kind,
            title,
            (*_START, _c("operation", 1), _c("asn", 20), _c("level", 2), _n("effective_date", 8)),
            Total.LIST_VERSION,
        )
        for kind, title in (("BF", "full hot list"), ("BI", "changes of the hot list"))
    ),
)

LAYOUTS: Mapping[str, Layout] = MappingProxyType({layout.kind: layout for layout in _LAYOUTS})
# fmt: off
_LENGTHS = {"XF": 201, "FH": 201, "DF": 201, "DT": 211, "NS": 63, "SS": 180, "QS": 170, "CM": 300, "ER": 352,
            "MR": 150, "NP": 113, "TR": 169, "BF": 40, "BI": 40}
# fmt: on
assert {kind: layout.length for kind, layout in LAYOUTS.items()} == _LENGTHS

_NOT_HEX = re.compile(r"[^0-9A-F]")
_CONSTANT = re.compile(r"'([^']*)'")
_READY_FEE = re.compile(r"[CD][0-9]+")


def write_value(field: Field, value: Value) -> str:
    """One field, in its width. Raises ValueError naming the field when the value does not fit."""
    name, width, form = field
    if form is Form.NUMBER:
        text = str(value).rjust(width, "0")
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(f"{name}: digits only")
    elif form in (Form.TEXT, Form.CODE, Form.HEX):
        text = str(value).ljust(width) if form is Form.TEXT else str(value)
        if not (text.isascii() and text.isprintable()):
            raise ValueError(f"{name}: printable ASCII only")
    elif isinstance(value, str):
        text = value
        if not _READY_FEE.fullmatch(text):
            raise ValueError(f"{name}: C or D and digits")
    else:
        receives = value > 0 if form is Form.FEE else value >= 0
        text = ("C" if receives else "D") + str(abs(value)).rjust(width - 1, "0")
    if len(text) != width:
        raise ValueError(f"{name}: does not fit into {width} characters")
    return text


def write_line(layout: Layout, values: Mapping[str, Value]) -> str:
    """One detail line without CRLF. `mark` may be left out.

    Raises ValueError naming the field when a value is missing or does not fit; nothing is ever cut.
    """
    parts = []
    for field in layout.fields:
        if field.form is Form.BLANK:
            parts.append(" " * field.width)
        elif field.name == "mark":
            parts.append("D")
        elif field.name not in values:
            raise ValueError(f"{field.name}: missing")
        else:
            parts.append(write_value(field, values[field.name]))
    return "".join(parts)


def _read(field: Field, text: str) -> Value:
    name, _, form = field
    if form in (Form.TEXT, Form.CODE):
        return text.rstrip(" ")
    if form is Form.HEX:
        wrong = _NOT_HEX.search(text)
        if wrong is not None:
            raise LineFault(f"{name}: upper-case hex only", wrong.start() + 1)
        return text
    digits = text if form is Form.NUMBER else text[1:]
    if not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"{name}: digits only")
    if form is Form.NUMBER:
        return int(digits)
    if text[0] not in "CD":
        raise ValueError(f"{name}: sign must be C or D")
    return int(digits) if text[0] == "C" else -int(digits)


def read_line(layout: Layout, line: str) -> dict[str, Value]:
    """The values of one detail line. Raises LineFault naming the field and the rule, never the value."""
    if len(line) != layout.length:
        raise LineFault(f"line must be {layout.length} characters", min(len(line), layout.length) + 1)
    values: dict[str, Value] = {}
    at = 0
    for field in layout.fields:
        text = line[at : at + field.width]
        at += field.width
        if field.form is Form.BLANK:
            if text.strip(" "):
                begin = at - field.width + 1
                raise LineFault(f"characters {begin} to {at} must be spaces", begin)
        else:
            try:
                values[field.name] = _read(field, text)
            except LineFault as error:
                raise LineFault(str(error), at - field.width + error.column) from None
            except ValueError as error:
                raise LineFault(str(error), at - field.width + 1) from None
    if values.pop("mark") != "D":
        raise LineFault("a detail line starts with D", 1)
    return values


def share_of_total(layout: Layout, values: Mapping[str, Value]) -> int:
    """What a line adds to the file's total amount, in fen."""
    if layout.total is Total.LIST_VERSION:
        return 0
    if layout.total is Total.RECORDS:
        return int(str(values["record"])[60:68], 16)  # bytes 31 to 34 of the offline record
    name = "net" if layout.total is Total.NET_CREDITS else "amount"
    amount = values[name]
    assert isinstance(amount, int)
    return amount if layout.total is Total.AMOUNTS else max(amount, 0)


def sql_line(layout: Layout, expressions: Mapping[str, str]) -> str:
    """An SQL expression that formats a row as this layout's line: the same widths and signs as `write_line`.

    expressions: per field an SQL expression of type bigint (numbers, signed) or text. Trusted text of this package, never
    anything from outside. Values must fit: SQL would cut them, so the caller bounds them (columns' CHECKs, field 4).
    """
    parts: list[str] = []
    literal = ""
    for field in layout.fields:
        if field.form is Form.BLANK or field.name == "mark":
            literal += "D" if field.name == "mark" else " " * field.width
            continue
        if literal:
            parts.append(f"'{literal}'")
            literal = ""
        parts.append(_sql(field, expressions[field.name]))
    if literal:
        parts.append(f"'{literal}'")
    return "concat(" + ", ".join(parts) + ")"


def _sql(field: Field, expression: str) -> str:
    width = field.width
    constant = _CONSTANT.fullmatch(expression)
    if constant is not None:  # written once instead of per row
        return f"'{write_value(field, constant[1])}'"
    if field.form is Form.NUMBER:
        return f"lpad(({expression})::text, {width}, '0')"
    if field.form is Form.TEXT:
        return f"rpad({expression}, {width})"
    if field.form in (Form.CODE, Form.HEX):
        return expression
    above = ">" if field.form is Form.FEE else ">="
    return f"CASE WHEN {expression} {above} 0 THEN 'C' ELSE 'D' END, lpad(abs({expression})::text, {width - 1}, '0')"
