"""Lines written thousands at a time are those that write_line would have written one by one."""

import random
import struct
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from switch.clearing.columns import (
    COPY_END,
    COPY_HEAD,
    LOCAL_US,
    Column,
    Table,
    local_parts,
    number_lines,
    table_lines,
)
from switch.clearing.layouts import LAYOUTS, Form, Layout, Value, write_line

COUNT = 200


def _values(layout: Layout, chance: random.Random) -> list[dict[str, Value]]:
    """Lines with the smallest, the largest and any other values that fit."""

    def one(width: int, form: Form) -> Value:
        if form in (Form.SIGNED, Form.FEE):
            return chance.choice(
                (0, 1, -1, 10 ** (width - 1) - 1, -(10 ** (width - 1)) + 1, chance.randrange(-999, 999))
            )
        if form is Form.NUMBER:
            return chance.choice((0, 1, 10**width - 1, chance.randrange(10**width)))
        letters = "0123456789ABCDEF" if form is Form.HEX else "AZ09* z"
        text = "".join(chance.choice(letters) for _ in range(width))
        return text.rstrip(" ") if form is Form.TEXT else text

    fields = [field for field in layout.fields if field.form is not Form.BLANK and field.name != "mark"]
    return [{field.name: one(field.width, field.form) for field in fields} for _ in range(COUNT)]


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
def test_columns_become_the_lines_that_write_line_writes(kind: str) -> None:
    layout = LAYOUTS[kind]
    chance = random.Random(kind)
    lines = _values(layout, chance)
    columns: dict[str, Value | np.ndarray] = {}
    for field in layout.fields:
        if field.form is Form.BLANK or field.name == "mark":
            continue
        values = [line[field.name] for line in lines]
        if isinstance(values[0], int) and 10**field.width < 2**63:
            columns[field.name] = np.array(values, np.int64)
        elif isinstance(values[0], int):  # wider than eight bytes hold: no column of a day is
            for line in lines:
                line[field.name] = 7
            columns[field.name] = 7
        else:
            columns[field.name] = np.array(
                [str(value).ljust(field.width).encode() for value in values], f"S{field.width}"
            )
    made = table_lines(layout, columns, COUNT)
    expected = "".join(write_line(layout, line) + "\r\n" for line in lines)
    assert made.tobytes().decode() == expected


def test_what_is_the_same_in_all_lines_need_not_be_a_column() -> None:
    values = dict.fromkeys((field.name for field in LAYOUTS["NP"].fields), 1) | {"institution": "99993350"}
    lines = table_lines(LAYOUTS["NP"], values, 3)
    number_lines(lines, np.array([9, 10, 99_999_999]))
    expected = [write_line(LAYOUTS["NP"], values | {"line_no": number}) for number in (9, 10, 99_999_999)]
    assert lines.tobytes().decode().split("\r\n") == [*expected, ""]


@pytest.mark.parametrize(
    ("field", "column", "rule"),
    [
        ("amount", np.array([10**15]), "amount: does not fit into 15 characters"),
        ("net", np.array([-(10**15)]), "net: does not fit into 15 characters"),
        ("count", np.array([-1]), "count: digits only"),
        ("file", np.array([b"X" * 30]), "file: does not fit into 29 characters"),
        ("file", np.array([b"X" * 28]), "file: does not fit into 29 characters"),
    ],
)
def test_a_column_that_does_not_fit_is_refused_and_never_cut(
    field: str, column: np.ndarray, rule: str
) -> None:
    kind = "NP" if field == "net" else "NS"
    values = dict.fromkeys((one.name for one in LAYOUTS[kind].fields), 1)
    texts = {"institution": "99993350", "file": "F" * 29, "status": "00"}
    with pytest.raises(ValueError, match=rule):
        table_lines(LAYOUTS[kind], values | texts | {field: column}, 1)


def test_a_member_without_a_row_among_many_has_no_lines() -> None:
    layout = LAYOUTS["CM"]
    values = {field.name: np.empty(0, f"S{field.width}") for field in layout.fields}
    assert table_lines(layout, values, 0).shape == (0, layout.length + 2)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="line_no: missing"):
        table_lines(LAYOUTS["NS"], {}, 1)


def test_dates_and_times_are_those_of_the_calendar() -> None:
    epoch = datetime(2000, 1, 1, tzinfo=UTC)
    instants = [
        datetime(year, month, 28, 15, 59, 59, 999_999, UTC)
        for year in (1999, 2000, 2024, 2100)
        for month in (1, 2, 12)
    ]
    instants += [instant + timedelta(microseconds=1) for instant in instants]
    day, clock = local_parts(
        np.array([(one - epoch) // timedelta(microseconds=1) for one in instants]) + LOCAL_US
    )
    local = [one + timedelta(hours=8) for one in instants]
    assert [f"{one:%Y%m%d%H%M%S}" for one in local] == [
        f"{a:08d}{b:06d}" for a, b in zip(day, clock, strict=True)
    ]


TABLE = Table(
    (
        Column("stan", "c.stan", "int4", 4),
        Column("pan", "c.pan", "char", 3),
        Column("at", "c.at", "timestamptz"),
    )
)


def _row(stan: int, pan: bytes, at: int) -> bytes:
    return struct.pack(f">hii i{len(pan)}s iq", 3, 4, stan, len(pan), pan, 8, at)


def test_rows_of_a_binary_copy_are_read_whole_however_they_are_cut() -> None:
    stream = COPY_HEAD + _row(7, b"abc", -1) + _row(-8, b"d  ", 2**62) + COPY_END
    for size in (1, 5, len(stream)):
        rows = TABLE.read([stream[start : start + size] for start in range(0, len(stream), size)])
        assert rows[["stan", "pan", "at"]].tolist() == [(7, b"abc", -1), (-8, b"d  ", 2**62)]
    assert len(TABLE.read([COPY_HEAD + COPY_END])) == len(TABLE.read([COPY_END])) == 0


@pytest.mark.parametrize(
    "row",
    [
        struct.pack(">hii i iq", 3, 4, 7, -1, 8, 9) + b"pad",  # no pan
        _row(7, "né".encode() + b" ", 1),  # four bytes
        _row(7, b"abc", 1)[:-1],
    ],
)
def test_a_row_with_a_column_missing_or_of_another_width_is_never_read_as_another(row: bytes) -> None:
    with pytest.raises(AssertionError):
        TABLE.read([_row(7, b"abc", -1), row, COPY_END])
