"""Columns as PostgreSQL binary arrays, made in a few C calls each.

The driver's own list dumper walks every element in Python, which cost more than all rules of the ledger together. These hold
no NULL: a column that may be empty sends 0 or '' and the statement says NULLIF.

Layout (PostgreSQL, array_send): dimensions, has-null flag, element type, then per dimension length and lower bound, then
each element as its length and bytes; all numbers four bytes, high byte first.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from psycopg import adapters, pq
from psycopg.adapt import Dumper

_HEADER = struct.Struct(">iiIii")
_EPOCH = date(2000, 1, 1).toordinal()
_EPOCH_INSTANT = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INFINITY = 2**63 - 1


class Int2Array(bytes):
    """A smallint[]."""


class Int4Array(bytes):
    """An integer[]."""


class Int8Array(bytes):
    """A bigint[]."""


class DateArray(bytes):
    """A date[]."""


class InstantArray(bytes):
    """A timestamptz[]."""


class TextArray(bytes):
    """A text[]."""


class ByteaArray(bytes):
    """A bytea[]."""


def array_header(count: int, element_oid: int) -> bytes:
    if count == 0:
        return struct.pack(">iiI", 0, 0, element_oid)
    return _HEADER.pack(1, 0, element_oid, count, 1)


@lru_cache(maxsize=256)
def _fixed(count: int, code: str) -> struct.Struct:
    return struct.Struct(">" + f"i{code}" * count)


def _numbers(values: Sequence[int], width: int, code: str, element_oid: int) -> bytes:
    # With room for a few more, which are cut off: a struct takes 64 bytes for each element, so one for every size of batch
    # would come to megabytes that a process seems to leak, size by size.
    count = len(values)
    step = 1 << max(0, count.bit_length() - 4)  # four significant bits: at most an eighth too much
    room = -(-count // step) * step
    flat: list[int] = [width] * (2 * room)
    flat[1 : 2 * count : 2] = values
    return array_header(count, element_oid) + _fixed(room, code).pack(*flat)[: count * (4 + width)]


def int2s(values: Sequence[int]) -> Int2Array:
    """A smallint[] of numbers; struct.error outside its range."""
    return Int2Array(_numbers(values, 2, "h", 21))


def int4s(values: Sequence[int]) -> Int4Array:
    """An integer[] of numbers; struct.error outside its range."""
    return Int4Array(_numbers(values, 4, "i", 23))


def int8s(values: Sequence[int]) -> Int8Array:
    """A bigint[] of numbers; struct.error outside its range."""
    return Int8Array(_numbers(values, 8, "q", 20))


def day_number(day: date) -> int:
    """A date as it travels: days since 2000-01-01."""
    return day.toordinal() - _EPOCH


def instant_number(at: datetime | None) -> int:
    """An aware instant as it travels: microseconds since 2000; 'infinity' stands for None."""
    return _INFINITY if at is None else (at - _EPOCH_INSTANT) // _MICROSECOND


def dates(values: Sequence[date]) -> DateArray:
    """A date[]."""
    return DateArray(_numbers([day_number(day) for day in values], 4, "i", 1082))


def instants(values: Sequence[datetime | None]) -> InstantArray:
    """A timestamptz[] of aware instants; 'infinity' stands for None."""
    return InstantArray(_numbers([instant_number(at) for at in values], 8, "q", 1184))


def texts(values: Sequence[str]) -> TextArray:
    """A text[]."""
    return TextArray(array_header(len(values), 25) + _elements([value.encode() for value in values]))


def byteas(values: Sequence[bytes]) -> ByteaArray:
    """A bytea[]."""
    return ByteaArray(array_header(len(values), 17) + _elements(values))


def _elements(values: Sequence[bytes]) -> bytes:
    if not values:
        return b""
    lengths = set(map(len, values))
    if len(lengths) == 1:  # fixed width, the usual case: one join
        prefix = lengths.pop().to_bytes(4, "big")
        return prefix + prefix.join(values)
    parts: list[bytes] = [b""] * (2 * len(values))
    parts[0::2] = [len(value).to_bytes(4, "big") for value in values]
    parts[1::2] = values
    return b"".join(parts)


def _register(kind: type[bytes], array_oid: int) -> None:
    class _AsIs(Dumper):
        oid = array_oid
        format = pq.Format.BINARY

        def dump(self, obj: Any) -> bytes:
            return bytes(obj)

    adapters.register_dumper(kind, _AsIs)


for _kind, _oid in (
    (Int2Array, 1005),
    (Int4Array, 1007),
    (Int8Array, 1016),
    (DateArray, 1182),
    (InstantArray, 1185),
    (TextArray, 1009),
    (ByteaArray, 1001),
):
    _register(_kind, _oid)
