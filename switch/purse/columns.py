"""Many records as columns: what `record` reads of one, here for thousands in a few calls each.

`record.check_form` and `verify.Judge` define what a record is and when it is good; the tests compare. Nothing here is faster for a
handful of records, and nothing costs Python code per record. A record of another length than 96 bytes is a row of zeros, which
no rule of form lets pass.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from switch.domain.errors import FormatError
from switch.keys.tac_columns import TacColumns
from switch.purse.record import (
    ALGORITHMS,
    FORMAT,
    KINDS,
    LAYOUT,
    LOCKED,
    PHASE_MAX,
    RECORD_BYTES,
    TTIS,
    check_form,
    crc_of_pair,
)

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]
Keys = NDArray[np.uint64]

COLUMNS_FROM: Final = 64
_CODES: Final = {"B": "u1", "H": ">u2", "I": ">u4"}
ROW: Final = np.dtype([(field.name, _CODES.get(field.code, f"({field.length},)u1")) for field in LAYOUT])
assert ROW.itemsize == RECORD_BYTES
_AT: Final = {field.name: slice(field.offset - 1, field.offset - 1 + field.length) for field in LAYOUT}

_CRC_PAIR: Final = np.array([crc_of_pair(pair) for pair in range(0x10000)], np.uint16)
_IS_BCD: Final = np.array([byte >> 4 < 10 and byte & 15 < 10 for byte in range(256)])
_TWO_DIGITS: Final = np.array([10 * (byte >> 4) + (byte & 15) for byte in range(256)], np.int64)
_DIGITS: Final = np.concatenate(  # bytes that hold two decimal digits each
    [
        np.arange(_AT[name].start, _AT[name].stop)
        for name in ("asn", "card_city", "date", "time", "psam_no", "acquirer_city")
    ]
    + [np.arange(_AT["acquirer"].start, _AT["acquirer"].start + 4)]
)
_ZERO = bytes(RECORD_BYTES)
_DAYS_BEFORE_2000 = 730_425  # from 0000-03-01
_DAY_US: Final = 86_400_000_000


def _one_of(numbers: frozenset[int]) -> Flags:
    return np.array([byte in numbers for byte in range(256)])


_IS_KIND, _IS_TTI, _IS_ALGORITHM = _one_of(KINDS), _one_of(TTIS), _one_of(ALGORITHMS)


def joined(records: Sequence[bytes]) -> bytes:
    """Records one behind the other, 96 bytes each."""
    if set(map(len, records)) <= {RECORD_BYTES}:
        return b"".join(records)
    return b"".join([raw if len(raw) == RECORD_BYTES else _ZERO for raw in records])


def rows_of(blob: bytes) -> Bytes:
    """Records one behind the other as rows of 96 bytes."""
    return np.frombuffer(blob, np.uint8).reshape(-1, RECORD_BYTES)


def _crc_is_right(rows: Bytes) -> Flags:
    # Two bytes at a time: the register has two, so one table says what becomes of it. Over data and CRC the end is 0.
    pairs = np.ascontiguousarray(rows.view(">u2").T, np.uint16)
    crc = np.full(len(rows), 0xFFFF, np.uint16)
    for pair in pairs:
        crc = _CRC_PAIR[crc ^ pair]
    return np.asarray(crc == 0)


def _days(date: Bytes) -> tuple[Numbers, Flags]:
    """Days from 2000-01-01 of dates in BCD, and which of them are in the calendar."""
    two = _TWO_DIGITS[date]
    year, month, day = two[:, 0] * 100 + two[:, 1], two[:, 2], two[:, 3]
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last = np.where(month == 2, 28 + leap, 30 + ((month + month // 8) & 1))
    good = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= last)
    # The year begun in March, so that the leap day is its last (Hinnant, "chrono-compatible low-level date algorithms").
    from_march = (month + 9) % 12
    era_year = year - (month <= 2)
    days = (
        365 * era_year
        + era_year // 4
        - era_year // 100
        + era_year // 400
        + (153 * from_march + 2) // 5
        + day
        - 1
    )
    return days - _DAYS_BEFORE_2000, good


def well_formed(rows: Bytes) -> Flags:
    """Which records `record.check_form` lets pass. A few are quicker asked one by one than in some two hundred calls."""
    if len(rows) < COLUMNS_FROM:
        return np.array([_passes(row.tobytes()) for row in rows], np.bool_)
    fields = rows.view(ROW).ravel()
    time = fields["time"]
    return np.asarray(
        _crc_is_right(rows)
        & (fields["format"] == FORMAT)
        & _IS_KIND[fields["kind"]]
        & _IS_TTI[fields["tti"]]
        & _IS_ALGORITHM[fields["algorithm"]]
        & (fields["phase"] <= PHASE_MAX)
        & _IS_BCD[rows[:, _DIGITS]].all(axis=1)
        & (rows[:, _AT["asn"].start] <= 0x09)
        & (fields["acquirer"][:, 4:] == 0xFF).all(axis=1)
        & _days(fields["date"])[1]
        & (time[:, 0] <= 0x23)
        & (time[:, 1] <= 0x59)
        & (time[:, 2] <= 0x59)
        & ((fields["kind"] != LOCKED) | (fields["amount_fen"] == 0))
    )


def _passes(raw: bytes) -> bool:
    try:
        check_form(raw)
    except FormatError:
        return False
    return True


def has_no_tac(rows: Bytes) -> Flags:
    """Whether the TAC field says that there is none: FFFFFFFF or 00000000."""
    tac = rows[:, _AT["tac"]]
    return np.asarray((tac == 0xFF).all(axis=1) | (tac == 0).all(axis=1))


def tac_columns(rows: Bytes) -> TacColumns:
    """What the vault needs to check the TACs of records that can be read: `digest.tac_item` for many."""
    group = np.concatenate([rows[:, 3:5], rows[:, _AT["issuer_id"]]], axis=1)
    data = np.concatenate(
        [
            rows[:, _AT["amount_fen"]],
            rows[:, _AT["tti"]],
            rows[:, _AT["psam_no"].start : _AT["psam_serial"].stop],
            rows[:, _AT["date"].start : _AT["time"].stop],
        ],
        axis=1,
    )
    return TacColumns(group, rows[:, 8:16], data, rows[:, _AT["tac"]])


def _decimal(digits: Bytes) -> Keys:
    """Numbers of up to ten BCD bytes, the first first."""
    number = np.zeros(len(digits), np.uint64)
    for column in digits.T:
        number = number * np.uint64(100) + _TWO_DIGITS[column].astype(np.uint64)
    return number


class Columns:
    """The columns that judging and storing need, of records one behind the other. Only rows of good form mean anything.

    card: the ASN as a number; as signed eight bytes it is what the tables hold. moment: date and time as their 14 digits, so
    that they can be compared. Amounts in fen; happened_us as record.happened_us; day: days from 2000-01-01.
    """

    __slots__ = (
        "acquirer",
        "amount_fen",
        "atc",
        "balance_fen",
        "card",
        "count",
        "day",
        "happened_us",
        "issuer_id",
        "kind",
        "moment",
        "psam",
        "psam_serial",
        "record_serial",
        "rows",
    )

    def __init__(self, rows: Bytes) -> None:
        fields = rows.view(ROW).ravel()
        self.rows = rows
        self.count = len(rows)
        self.kind: Bytes = fields["kind"]
        self.card = _decimal(fields["asn"])
        self.psam = _decimal(fields["psam_no"]).view(np.int64)
        self.moment = _decimal(rows[:, _AT["date"].start : _AT["time"].stop])
        self.atc: Numbers = fields["atc"].astype(np.int64)
        self.amount_fen: Numbers = fields["amount_fen"].astype(np.int64)
        self.balance_fen: Numbers = fields["balance_fen"].astype(np.int64)
        self.psam_serial: Numbers = fields["psam_serial"].astype(np.int64)
        self.record_serial: Numbers = fields["record_serial"].astype(np.int64)
        self.issuer_id = _opaque(fields["issuer_id"])
        self.acquirer = _opaque(fields["acquirer"])
        self.day = _days(fields["date"])[0]
        time = _TWO_DIGITS[fields["time"]]
        seconds = time[:, 0] * 3_600 + time[:, 1] * 60 + time[:, 2]
        self.happened_us = self.day * _DAY_US + seconds * 1_000_000

    @property
    def mark(self) -> Bytes:
        """Date, time, PSAM number, PSAM serial and TAC, 21 bytes a row."""
        return self.rows[:, _AT["date"].start : _AT["tac"].stop]


def _opaque(eight: Bytes) -> Keys:
    """Eight bytes as one number, which `eight_bytes` turns back."""
    return np.ascontiguousarray(eight).view(np.uint64).ravel()


def eight_bytes(number: Any) -> bytes:
    """The bytes of a number of `Columns.issuer_id` or `acquirer`."""
    return np.uint64(number).tobytes()
