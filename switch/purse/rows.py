"""Judged records as COPY BINARY rows: the record tables are filled in three calls, whatever the number of records.

PostgreSQL's format: per row the number of columns, then each as its length and bytes; -1 is NULL; numbers high byte first;
dates and instants count from 2000-01-01. Rows without NULL are all of one layout, so they are made column by column.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from struct import Struct
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from switch.purse.batch import Batch, Places
from switch.purse.columns import Numbers
from switch.purse.record import RECORD_BYTES
from switch.purse.verify import Candidate

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_EPOCH_DAY = date(2000, 1, 1).toordinal()
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def day_number(day: date) -> int:
    """Days since 2000-01-01."""
    return day.toordinal() - _EPOCH_DAY


def instant_us(instant: datetime) -> int:
    """Microseconds since 2000-01-01 UTC of an aware instant."""
    delta = instant - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


class Stamp(NamedTuple):
    """What all records of a transaction have in common."""

    business_date: date
    received_at: datetime
    txid: int


class Verdicts(NamedTuple):
    """What has been found out about each record of a batch. card_no 0: the card is not ours; credit_code 0: nobody is owed."""

    result: NDArray[np.bytes_]
    entry_no: Numbers
    shard: Numbers
    card_no: Numbers
    credit_code: Numbers
    credit_owner: Numbers


# Columns and how they are packed.
_RECORD: Final = {
    "business_date": ">i4",
    "received_at": ">i8",
    "txid": ">i8",
    "terminal_no": ">i4",
    "merchant_no": ">i4",
    "batch_no": ">i4",
    "entry_no": ">i8",
    "shard": ">i2",
    "result": "S2",
    "raw": f"({RECORD_BYTES},)u1",
    "card": ">i8",
    "atc": ">i4",
    "amount_fen": ">i8",
    "balance_fen": ">i8",
    "psam": ">i8",
    "psam_serial": ">i8",
    "record_serial": ">i8",
    "happened_at": ">i8",
    "record_kind": ">i2",
    "card_no": ">i8",
    "credit_code": ">i2",
    "credit_owner": ">i8",
}
_ATC: Final = {
    "card": ">i8",
    "atc": ">i4",
    "amount_fen": ">i8",
    "balance_fen": ">i8",
    "mark": "(21,)u1",
    "entry_no": ">i8",
    "business_date": ">i4",
}
_SERIAL: Final = {"psam": ">i8", "psam_serial": ">i8", "card": ">i8", "atc": ">i4"}
RECORD_COLUMNS: Final = ", ".join(_RECORD)
ATC_COLUMNS: Final = ", ".join(_ATC)
SERIAL_COLUMNS: Final = ", ".join(_SERIAL)


def _layout(columns: dict[str, str]) -> np.dtype[Any]:
    parts: list[tuple[str, str]] = [("columns", ">i2")]
    for name, code in columns.items():
        parts += [(f"{name} length", ">i4"), (name, code)]
    return np.dtype(parts)


def _template(layout: np.dtype[Any], columns: dict[str, str]) -> NDArray[Any]:
    row = np.zeros(1, layout)
    row["columns"] = len(columns)
    for name, code in columns.items():
        row[f"{name} length"] = np.dtype(code).itemsize
    return row


_RECORD_ROW, _ATC_ROW, _SERIAL_ROW = _layout(_RECORD), _layout(_ATC), _layout(_SERIAL)
_RECORD_TEMPLATE = _template(_RECORD_ROW, _RECORD)
_ATC_TEMPLATE = _template(_ATC_ROW, _ATC)
_SERIAL_TEMPLATE = _template(_SERIAL_ROW, _SERIAL)


def _rows(template: NDArray[Any], count: int) -> NDArray[Any]:
    return np.repeat(template, count)


def record_rows(batch: Batch, verdicts: Verdicts, places: Places, stamp: Stamp) -> bytes:
    """Rows of purse_record without any NULL, without header and trailer: readable records of cards of ours, somebody is owed."""
    columns = batch.columns
    every = slice(None) if len(places) == batch.count else places
    rows = _rows(_RECORD_TEMPLATE, len(places))
    rows["business_date"] = day_number(stamp.business_date)
    rows["received_at"] = instant_us(stamp.received_at)
    rows["txid"] = stamp.txid
    for name in ("terminal_no", "merchant_no", "batch_no", "raw"):
        rows[name] = getattr(batch, name)[every]
    for name in ("entry_no", "shard", "result", "card_no", "credit_code", "credit_owner"):
        rows[name] = getattr(verdicts, name)[every]
    for name in ("atc", "amount_fen", "balance_fen", "psam", "psam_serial", "record_serial"):
        rows[name] = getattr(columns, name)[every]
    rows["card"] = columns.card.view(np.int64)[every]
    rows["happened_at"] = columns.happened_us[every]
    rows["record_kind"] = columns.kind[every]
    return rows.tobytes()


_HEAD = Struct(">hiiiqiqiiiiiiiqihi2si")
_PARSED = Struct(">iqiiiqiqiqiqiqiqih")
_CARD = Struct(">iq")
_CREDIT = Struct(">ihiq")


def odd_rows(
    batch: Batch, verdicts: Verdicts, candidates: Iterable[tuple[int, Candidate]], stamp: Stamp
) -> list[bytes]:
    """Rows of the others, each by itself, with NULL where a record cannot be read, its card is not ours, or nobody is owed."""
    columns = batch.columns
    common = (4, day_number(stamp.business_date), 8, instant_us(stamp.received_at), 8, stamp.txid)
    made: list[bytes] = []
    for place, candidate in candidates:
        raw = candidate.raw
        uploader = (int(of[place]) for of in (batch.terminal_no, batch.merchant_no, batch.batch_no))
        parts = [
            _HEAD.pack(
                len(_RECORD),
                *common,
                *(part for number in uploader for part in (4, number)),
                *(8, int(verdicts.entry_no[place]), 2, int(verdicts.shard[place])),
                *(2, verdicts.result[place], len(raw)),
            ),
            raw,
            _NULL * 9,
            _NULL * 3,
        ]
        if candidate.readable:
            numbers = (
                *(columns.amount_fen, columns.balance_fen, columns.psam, columns.psam_serial),
                *(columns.record_serial, columns.happened_us),
            )
            parts[2] = _PARSED.pack(
                *(8, candidate.card, 4, candidate.atc),
                *(part for column in numbers for part in (8, int(column[place]))),
                *(2, candidate.kind),
            )
        if verdicts.card_no[place] and verdicts.credit_code[place]:
            parts[3] = _CARD.pack(8, int(verdicts.card_no[place])) + _CREDIT.pack(
                2, int(verdicts.credit_code[place]), 8, int(verdicts.credit_owner[place])
            )
        made += parts
    return made


def atc_rows(batch: Batch, verdicts: Verdicts, places: Places, business_date: date) -> bytes:
    """purse_atc of accepted purchases, in the order of places (Batch.guard_order)."""
    columns = batch.columns
    rows = _rows(_ATC_TEMPLATE, len(places))
    rows["card"] = columns.card.view(np.int64)[places]
    for name in ("atc", "amount_fen", "balance_fen", "mark"):
        rows[name] = getattr(columns, name)[places]
    rows["entry_no"] = verdicts.entry_no[places]
    rows["business_date"] = day_number(business_date)
    return whole([rows.tobytes()])


def serial_rows(batch: Batch, places: Places) -> bytes:
    """purse_serial of accepted purchases, in the order of places."""
    columns = batch.columns
    rows = _rows(_SERIAL_TEMPLATE, len(places))
    rows["card"] = columns.card.view(np.int64)[places]
    for name in ("psam", "psam_serial", "atc"):
        rows[name] = getattr(columns, name)[places]
    return whole([rows.tobytes()])


def whole(rows: Sequence[bytes]) -> bytes:
    """Rows with what goes before and behind them."""
    return b"".join((HEADER, *rows, TRAILER))
