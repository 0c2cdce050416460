"""Rows as arrays of composite types, read by the real server."""

import struct
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from switch.storage.arrays import day_number, instant_number
from switch.storage.pipeline import Pipeline
from switch.storage.pool import connect
from switch.storage.records import SHAPES_MAX, RecordKind, Records, bigint

pytestmark = pytest.mark.server

FIXED = RecordKind("hiqd")
INSTANTS = RecordKind("z", "Z")
LOOSE = RecordKind("i", "QtYD")


async def rows_of(url: str, columns: str, records: Records) -> list[tuple[Any, ...]]:
    async with await connect(url) as connection:
        await connection.execute(f"CREATE TYPE pg_temp.tried AS ({columns})")
        link = Pipeline(connection)
        await link.prepare({"read": "SELECT * FROM unnest(%(lines)b::pg_temp.tried[])"})
        link.queue("read", {"lines": records})
        (rows,) = await link.round_trip()
        await link.close()
        return rows


async def test_columns_of_fixed_width_at_both_ends_of_their_range(postgres_url: str) -> None:
    first, last = date(1, 1, 1), date(9999, 12, 31)
    rows = [
        (-(2**15), -(2**31), -(2**63), day_number(first)),
        (2**15 - 1, 2**31 - 1, 2**63 - 1, day_number(last)),
        (0, 0, 0, 0),
    ]
    read = await rows_of(postgres_url, "a smallint, b integer, c bigint, d date", FIXED.pack(rows))
    assert read == [(*rows[0][:3], first), (*rows[1][:3], last), (0, 0, 0, date(2000, 1, 1))]


async def test_columns_that_may_be_missing_and_of_any_length(postgres_url: str) -> None:
    day = date(2026, 11, 27)
    rows = [
        (1, bigint(-7), "圈存".encode(), b"", b""),
        (2, bigint(None), b"", b"\x00\xff" * 200, day_number(day).to_bytes(4, "big")),
        (3, bytes(8), b"x", b"y", bytes(4)),
    ]
    read = await rows_of(postgres_url, "a integer, b bigint, c text, d bytea, e date", LOOSE.pack(rows))
    assert read == [
        (1, -7, "圈存", None, None),
        (2, None, "", b"\x00\xff" * 200, day),
        (3, 0, "x", b"y", date(2000, 1, 1)),
    ]


async def test_rows_of_any_number_of_shapes(postgres_url: str) -> None:
    kind = RecordKind("i", "t")
    rows = [(size, b"x" * size) for size in range(2 * SHAPES_MAX)]
    read = await rows_of(postgres_url, "a integer, b text", kind.pack(rows))
    assert read == [(size, text.decode()) for size, text in rows]
    assert len(kind._shapes) <= SHAPES_MAX


async def test_instants_to_the_microsecond_and_none(postgres_url: str) -> None:
    at = datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    later = at + timedelta(days=10_000)
    rows = [(instant_number(at), bigint(instant_number(at))), (instant_number(later), bigint(None))]
    read = await rows_of(postgres_url, "a timestamptz, b timestamptz", INSTANTS.pack(rows))
    assert read == [(at, at), (later, None)]


async def test_no_rows_are_an_empty_array(postgres_url: str) -> None:
    assert await rows_of(postgres_url, "a smallint, b integer, c bigint, d date", FIXED.pack([])) == []


def test_a_number_outside_its_column_and_a_row_of_another_length_are_errors() -> None:
    for row in ((2**15, 0, 0, 0), (0, 0, 0), (0, 0, 0, 0, 0)):
        with pytest.raises((struct.error, ValueError, TypeError)):
            FIXED.pack([row])
    with pytest.raises(ValueError, match="zip"):
        LOOSE.pack([(1, b"", b"")])
