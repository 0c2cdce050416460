"""Arrays made by hand arrive as the driver's own would."""

import struct
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.storage.arrays import byteas, dates, int2s, int4s, int8s, texts

pytestmark = pytest.mark.server

CASES: list[tuple[Callable[[Sequence[Any]], bytes], str, list[Any]]] = [
    (int2s, "smallint[]", [0, 1, -1, -(2**15), 2**15 - 1]),
    (int4s, "integer[]", [0, 1, -1, -(2**31), 2**31 - 1]),
    (int8s, "bigint[]", [0, 1, -1, -(2**63), 2**63 - 1]),
    (dates, "date[]", [date(2000, 1, 1), date(1999, 12, 31), date(1, 1, 1), date(9999, 12, 31)]),
    (texts, "text[]", ["", "a", "市民卡", "NULL", '{"x",\\}', "a" * 10_000]),
    (byteas, "bytea[]", [b"", b"\0", b"\xff" * 3, bytes(range(256))]),
    (texts, "text[]", ["0200", "0210", "0400"]),  # all of one width go another way
    (byteas, "bytea[]", [bytes(8), b"\xff" * 8]),
]


@pytest.mark.parametrize(("make", "kind", "values"), CASES)
async def test_an_array_comes_back_as_it_was(
    pg: AsyncConnection[Any], make: Callable[[Sequence[Any]], bytes], kind: str, values: list[Any]
) -> None:
    cursor = await pg.execute(f"SELECT %b::{kind}, pg_typeof(%b)::text", (make(values), make(values)))

    assert await cursor.fetchone() == (values, kind)


@pytest.mark.parametrize(("make", "kind"), [(make, kind) for make, kind, _ in CASES[:6]])
async def test_an_empty_array_is_empty_and_not_null(
    pg: AsyncConnection[Any], make: Callable[[Sequence[Any]], bytes], kind: str
) -> None:
    cursor = await pg.execute(f"SELECT %b::{kind}, cardinality(%b::{kind})", (make([]), make([])))

    assert await cursor.fetchone() == ([], 0)


async def test_columns_of_a_thousand_rows_stay_side_by_side(pg: AsyncConnection[Any]) -> None:
    rows = [(number, f"{number:06}", bytes([number % 256]) * (number % 5)) for number in range(1000)]
    numbers, words, blobs = (list(column) for column in zip(*rows, strict=True))

    cursor = await pg.execute(
        "SELECT * FROM unnest(%b::bigint[], %b::text[], %b::bytea[])",
        (int8s(numbers), texts(words), byteas(blobs)),
    )

    assert await cursor.fetchall() == rows


@pytest.mark.parametrize(("make", "code", "oid"), [(int2s, "h", 21), (int4s, "i", 23), (int8s, "q", 20)])
def test_an_array_of_any_size_has_the_bytes_of_each_of_its_elements(
    make: Callable[[Sequence[int]], bytes], code: str, oid: int
) -> None:
    for count in range(1, 600):
        values = [place * 7_919 % 30_000 - 15_000 for place in range(count)]
        element = struct.Struct(f">i{code}")
        width = element.size - 4
        head = struct.pack(">iiIii", 1, 0, oid, count, 1)
        assert make(values) == head + b"".join(element.pack(width, value) for value in values)


@pytest.mark.parametrize(
    ("make", "value"),
    [(int2s, 2**15), (int2s, -(2**15) - 1), (int4s, 2**31), (int8s, 2**63), (int8s, -(2**63) - 1)],
)
def test_a_number_outside_its_range_is_an_error_and_not_another_number(
    make: Callable[[Sequence[int]], bytes], value: int
) -> None:
    with pytest.raises(struct.error):
        make([0, value])
