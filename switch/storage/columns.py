"""Columns of numbers as PostgreSQL binary arrays and back, without Python code per element. `arrays` has the layout.

What the database sends as an array comes through `array_send(array_agg(...))`: one value for thousands of rows, which the driver
would otherwise make objects of one by one. Such an array has no NULL.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from switch.storage.arrays import Int4Array, Int8Array, TextArray, array_header

_ARRAY_HEADER_BYTES = 20


def _packed(column: NDArray[Any], code: str, element_oid: int) -> bytes:
    elements = np.empty(len(column), [("length", ">i4"), ("value", code)])
    elements["length"] = elements.dtype.itemsize - 4
    elements["value"] = column
    return array_header(len(column), element_oid) + elements.tobytes()


def int4_column(column: NDArray[Any]) -> Int4Array:
    """An integer[]."""
    return Int4Array(_packed(column, ">i4", 23))


def int8_column(column: NDArray[Any]) -> Int8Array:
    """A bigint[]."""
    return Int8Array(_packed(column, ">i8", 20))


def text_column(column: NDArray[np.uint8]) -> TextArray:
    """A text[] of ASCII texts of one length, a row of bytes each."""
    return TextArray(_packed(column, f"({column.shape[1]},)u1", 25))


def column_of(sent: bytes | None, code: str) -> NDArray[Any]:
    """An array as `array_send` made it, of elements of one length: numbers (`>i2`, `>i8`), or rows of bytes (`(19,)u1`). None: empty."""
    layout = np.dtype([("length", ">i4"), ("value", code)])
    if sent is None or len(sent) < _ARRAY_HEADER_BYTES:
        return np.empty(0, layout)["value"]
    elements = np.frombuffer(sent, layout, offset=_ARRAY_HEADER_BYTES)
    assert (elements["length"] == layout.itemsize - 4).all(), "the statement says what it sends"
    return elements["value"]
