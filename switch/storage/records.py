"""Rows as a PostgreSQL binary array of a composite type.

A statement that takes its rows as one such parameter reads them by one function, where a column each takes as many functions, each with
a store of its own: for the journal's nineteen columns that was a third of what the insertion cost the server, whatever the size of a batch.

Layout (PostgreSQL, array_send and record_send): of the array dimensions, has-null flag, element type, length and lower bound; of each
element its length, the number of columns, and of each column type, length (-1 for NULL) and bytes; all numbers four bytes, high byte first.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

_ARRAY: Final = struct.Struct(">iiIii")
_NO_ROWS: Final = struct.Struct(">iiI")
_LENGTH: Final = 4  # bytes of a length
# Type oid, and letter of struct.
_FIXED: Final = {"h": (21, "h"), "i": (23, "i"), "q": (20, "q"), "d": (1082, "i"), "z": (1184, "q")}
_LOOSE: Final = {"h": 21, "i": 23, "q": 20, "d": 1082, "z": 1184, "t": 25, "y": 17}
SHAPES_MAX: Final = 256  # of rows, by the lengths of their columns


class Records(NamedTuple):
    """Rows for one parameter; the element type is known to the connection only."""

    rows: int
    body: bytes

    def array(self, element_oid: int) -> bytes:
        """The parameter."""
        if not self.rows:
            return _NO_ROWS.pack(0, 0, element_oid)
        return _ARRAY.pack(1, 0, element_oid, self.rows, 1) + self.body


class RecordKind:
    """A composite type: first columns of fixed width that are never NULL, then others, all of which are given as bytes.

    fixed: a letter for each of the first: h smallint, i integer, q bigint, d date and z timestamptz as numbers (arrays.py). loose: of the
    others: t text, y bytea, and those as they travel. A capital letter says that no bytes at all mean NULL.
    """

    def __init__(self, fixed: str, loose: str = "") -> None:
        self._fixed = fixed
        self._loose = loose
        self._shapes: dict[tuple[int, ...], tuple[Callable[..., bytes], list[Any]]] = {}

    def pack(self, rows: Iterable[tuple[Any, ...]]) -> Records:
        """Rows, each in the order of the columns.

        struct.error for a number outside its column's range; ValueError or TypeError for a row of another length.
        """
        count, shapes = len(self._fixed), self._shapes
        parts = []
        for row in rows:
            # Rows of one shape differ in nothing but their values, so that one call makes each.
            shape = tuple(map(len, row[count:]))
            pack, form = shapes.get(shape) or self._learn(shape)
            line = form.copy()
            line[4::3] = row
            parts.append(pack(*line))
        return Records(len(parts), b"".join(parts))

    def _learn(self, shape: tuple[int, ...]) -> tuple[Callable[..., bytes], list[Any]]:
        layout = ">ii"
        line: list[Any] = [0, len(self._fixed) + len(self._loose)]
        for code in self._fixed:
            oid, letter = _FIXED[code]
            layout += "Ii" + letter
            line += (oid, struct.calcsize(">" + letter), 0)
        for code, size in zip(self._loose, shape, strict=True):
            layout += f"Ii{size}s"
            line += (_LOOSE[code.lower()], -1 if code.isupper() and not size else size, b"")
        made = struct.Struct(layout)
        line[0] = made.size - _LENGTH
        if len(self._shapes) >= SHAPES_MAX:
            self._shapes.clear()
        self._shapes[shape] = made.pack, line
        return made.pack, line


def bigint(value: int | None) -> bytes:
    """A loose q or z as it travels; nothing for None."""
    return b"" if value is None else value.to_bytes(8, "big", signed=True)
