"""Many lines at once: columns of numbers and texts become lines of one length, with the widths and signs of `layouts.write_line`.

A line of a long file costs PostgreSQL ten times more to format than to find, and Python twenty times more one by one. So the server
sends a day's rows as they are (COPY in its binary format, every column of a fixed width, so that a block of rows is a table in
memory) and numpy writes thousands of lines in one go. A test holds these bytes against write_line's.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from switch.clearing.files import CRLF
from switch.clearing.layouts import Field, Form, Layout, Value, write_value

Texts = NDArray[np.bytes_]
Numbers = NDArray[np.int64]
Lines = NDArray[np.uint8]  # a row per line, CRLF included
Rows = NDArray[np.void]  # a field per column

COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END: Final = b"\xff\xff"
LOCAL_US: Final = 8 * 3_600_000_000  # Asia/Shanghai has no daylight saving
NO_INSTANT: Final = np.iinfo(np.int64).min  # -infinity, as PostgreSQL sends it
_EPOCH: Final = date(2000, 1, 1)  # PostgreSQL's
_DAY_US: Final = 86_400_000_000
_DIGITS: Final = {
    width: np.array([b"%0*d" % (width, number) for number in range(10**width)], f"S{width}")
    for width in range(1, 5)
}


class Column(NamedTuple):
    """A column of a day's rows. width: bytes of a number (2, 4, 8) or characters of a text; what is shorter gets spaces behind.

    An instant arrives as a number: microseconds since 2000. expression: SQL of this package, never anything from outside.
    """

    name: str
    expression: str
    kind: str = "int8"  # or int4, int2, char, timestamp, timestamptz
    width: int = 8

    @property
    def sql(self) -> str:
        """The expression with its type."""
        return f"({self.expression})::{self.kind}" + (f"({self.width})" if self.kind == "char" else "")


class Table:
    """The rows of a binary COPY with these columns."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = tuple(column.name for column in columns)
        self._lengths = np.array([column.width for column in columns], ">i4")
        fields: list[tuple[str, str]] = [("", ">i2")]
        for column in columns:
            kind = f"S{column.width}" if column.kind == "char" else f">i{column.width}"
            fields += [(f"{column.name} length", ">i4"), (column.name, kind)]
        self._row = np.dtype([(name or "columns", kind) for name, kind in fields])
        self.select = ", ".join(column.sql for column in columns)

    def read(self, messages: Sequence[bytes | bytearray | memoryview]) -> Rows:
        """Rows as COPY sends them. AssertionError where a column is missing or has another width: then no row has its place."""
        block = b"".join(messages).removeprefix(COPY_HEAD)
        if len(block) % self._row.itemsize == len(COPY_END):
            block = block.removesuffix(COPY_END)
        whole = len(block) // self._row.itemsize
        rows = np.frombuffer(block, self._row, whole)
        for name, width in zip(self._names, self._lengths, strict=True):
            wrong = rows[f"{name} length"] != width
            assert not wrong.any(), f"{name}: missing, or of another width, in a row of the day"
        assert len(block) == whole * self._row.itemsize, "the last row is not whole"
        return rows


def numbers(rows: Rows, name: str) -> Numbers:
    """A column of numbers or instants."""
    return rows[name].astype(np.int64)


def local_parts(instants: Numbers) -> tuple[Numbers, Numbers]:
    """Date as YYYYMMDD and time as hhmmss of local instants in microseconds."""
    days = instants // _DAY_US
    seconds = (instants - days * _DAY_US) // 1_000_000
    clock = seconds // 3600 * 10_000 + seconds // 60 % 60 * 100 + seconds % 60
    few, place = np.unique(days, return_inverse=True)
    dates = [_EPOCH + timedelta(days=int(one)) for one in few]
    numbered = np.array([one.year * 10_000 + one.month * 100 + one.day for one in dates], np.int64)
    return numbered[place], clock


def table_lines(layout: Layout, values: Mapping[str, Value | Texts | Numbers], count: int) -> Lines:
    """`count` detail lines with CRLF. values: per field a column, or one value for all lines. `mark` may be left out.

    Raises ValueError naming the field when a value is missing or does not fit; nothing is ever cut.
    """
    lines = np.empty((count, layout.length + len(CRLF)), np.uint8)
    if not count:
        return lines  # numpy makes no views of nothing
    lines[:] = np.frombuffer(b"".join(_line_for_all(layout, values)) + CRLF, np.uint8)
    at = 0
    for field in layout.fields:
        value = values.get(field.name) if field.form is not Form.BLANK else None
        if isinstance(value, np.ndarray) and value.dtype.kind == "S":
            _put(lines, at, field, cast("Texts", value))
        elif isinstance(value, np.ndarray):
            _put_number(lines, at, field, cast("Numbers", value))
        at += field.width
    return lines


def number_lines(lines: Lines, line_numbers: Numbers) -> None:
    """Write their numbers into lines that stood without, as they all begin: the mark, then eight digits."""
    _put_digits(lines, 1, 8, line_numbers, "line_no")


def _line_for_all(layout: Layout, values: Mapping[str, Any]) -> Iterator[bytes]:
    """What is the same in every line, with spaces where columns will stand."""
    for field in layout.fields:
        if field.form is Form.BLANK or isinstance(values.get(field.name), np.ndarray):
            yield b" " * field.width
        elif field.name == "mark":
            yield b"D"
        elif field.name not in values:
            raise ValueError(f"{field.name}: missing")
        else:
            yield write_value(field, values[field.name]).encode()


def _place(lines: Lines, at: int, width: int) -> Texts:
    """Characters of all lines, as texts that can be assigned."""
    return np.ndarray(len(lines), f"S{width}", lines, at, (lines.strides[0],))


def _put(lines: Lines, at: int, field: Field, texts: Texts) -> None:
    width = texts.dtype.itemsize
    if width > field.width or (width < field.width and field.form is not Form.TEXT):
        raise ValueError(f"{field.name}: does not fit into {field.width} characters")
    _place(lines, at, width)[:] = texts


def _put_number(lines: Lines, at: int, field: Field, values: Numbers) -> None:
    if field.form in (Form.SIGNED, Form.FEE):
        receives = values > 0 if field.form is Form.FEE else values >= 0
        _place(lines, at, 1)[:] = np.where(receives, b"C", b"D")
        _put_digits(lines, at + 1, field.width - 1, np.abs(values), field.name)
    else:
        _put_digits(lines, at, field.width, values, field.name)


def _put_digits(lines: Lines, at: int, width: int, values: Numbers, name: str) -> None:
    """Zeros in front. Four digits at a time, since a look-up costs less than four divisions."""
    if len(values) and values.min() < 0:
        raise ValueError(f"{name}: digits only")
    end = at + width
    while end > at:
        part = min(4, end - at)
        left = values // 10**part
        _place(lines, end - part, part)[:] = _DIGITS[part][values - left * 10**part]
        values = left
        end -= part
    if values.any():
        raise ValueError(f"{name}: does not fit into {width} characters")
