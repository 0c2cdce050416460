"""Judged records as COPY BINARY rows: the record tables are filled in three calls, whatever the number of records.

PostgreSQL's format: per row the number of columns, then each as its length and bytes; -1 is NULL; numbers high byte first;
dates and instants count from 2000-01-01.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from struct import Struct
from typing import Final, NamedTuple

from switch.purse.record import RECORD_BYTES, happened_us
from switch.purse.verify import Candidate

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
_EPOCH_DAY = date(2000, 1, 1).toordinal()
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

MERCHANTS_PAYABLE: Final = 2101
INTEROP_PAYABLE: Final = 2102


def day_number(day: date) -> int:
    """Days since 2000-01-01."""
    return day.toordinal() - _EPOCH_DAY


def instant_us(instant: datetime) -> int:
    """Microseconds since 2000-01-01 UTC of an aware instant."""
    delta = instant - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


class Credit(NamedTuple):
    """Who is owed for an accepted record: account code and owner."""

    code: int
    owner: int


class Judged(NamedTuple):
    """A record with its result, its serial and who brought it. credit: None where its PSAM is unknown."""

    candidate: Candidate
    entry_no: int
    terminal_no: int
    merchant_no: int
    batch_no: int
    credit: Credit | None


# The columns of purse_record in the order of the rows below. Constants of the transaction first, then per upload, then per record.
RECORD_COLUMNS: Final = (
    "business_date, received_at, txid, terminal_no, merchant_no, batch_no, entry_no, shard, result, raw,"
    " card, atc, amount_fen, balance_fen, psam, psam_serial, record_serial, happened_at, record_kind,"
    " card_no, credit_code, credit_owner"
)
_COLUMNS = len(RECORD_COLUMNS.split(","))
_CONSTANT = Struct(">hiiiqiq")
_UPLOADER = Struct(">iiiiii")
_PLACE = Struct(f">iqihi2si{RECORD_BYTES}s")
_PARSED = Struct(">iqiiiqiqiqiqiqiqih")
_PAID = Struct(">iqihiq")
_NOT_PARSED = b"\xff\xff\xff\xff" * 9
_NOT_PAID = b"\xff\xff\xff\xff" * 3
_RESULTS = {f"{number:02d}": f"{number:02d}".encode() for number in range(100)}


def record_rows(rows: Iterable[Judged], business_date: date, received_at: datetime, txid: int) -> bytes:
    """Rows of purse_record, in order, without header and trailer: a transaction may make them in slices."""
    constant = _CONSTANT.pack(_COLUMNS, 4, day_number(business_date), 8, instant_us(received_at), 8, txid)
    parts: list[bytes] = []
    append = parts.append
    uploader_key: tuple[int, int, int] | None = None
    head = b""
    for candidate, entry_no, terminal_no, merchant_no, batch_no, credit in rows:
        facts = candidate.facts
        shard = facts.shard if facts is not None else 0
        if uploader_key != (terminal_no, merchant_no, batch_no):
            uploader_key = (terminal_no, merchant_no, batch_no)
            head = constant + _UPLOADER.pack(4, terminal_no, 4, merchant_no, 4, batch_no)
        append(head)
        raw = candidate.raw
        result = _RESULTS[candidate.result]
        if len(raw) == RECORD_BYTES:
            append(_PLACE.pack(8, entry_no, 2, shard, 2, result, RECORD_BYTES, raw))
        else:
            append(_odd_place(entry_no, shard, result, raw))
        record = candidate.record
        if record is None:
            append(_NOT_PARSED)
        else:
            append(
                _PARSED.pack(
                    8,
                    candidate.card,
                    4,
                    record.atc,
                    8,
                    record.amount_fen,
                    8,
                    record.balance_fen,
                    8,
                    candidate.psam,
                    8,
                    record.psam_serial,
                    8,
                    record.record_serial,
                    8,
                    happened_us(candidate.moment),
                    2,
                    record.kind,
                )
            )
        if facts is not None and credit is not None:
            append(_PAID.pack(8, facts.card_no, 2, credit.code, 8, credit.owner))
        else:
            append(_NOT_PAID)
    return b"".join(parts)


def _odd_place(entry_no: int, shard: int, result: bytes, raw: bytes) -> bytes:
    return Struct(f">iqihi2si{len(raw)}s").pack(8, entry_no, 2, shard, 2, result, len(raw), raw)


ATC_COLUMNS: Final = "card, atc, amount_fen, balance_fen, entry_no, business_date, mark"
_ATC = Struct(">hiqiiiqiqiqiii21s")
SERIAL_COLUMNS: Final = "psam, psam_serial, card, atc"
_SERIAL = Struct(">hiqiqiqii")


def atc_rows(rows: Iterable[Judged], business_date: date) -> bytes:
    """Rows of purse_atc in key order: two writers then wait for each other and never both at once."""
    day = day_number(business_date)
    packed = []
    for candidate, entry_no, *_ in sorted(rows, key=_by_atc):
        record = candidate.record
        assert record is not None
        packed.append(
            _ATC.pack(
                7,
                8,
                candidate.card,
                4,
                record.atc,
                8,
                record.amount_fen,
                8,
                record.balance_fen,
                8,
                entry_no,
                4,
                day,
                21,
                candidate.mark,
            )
        )
    return b"".join((HEADER, *packed, TRAILER))


def _by_atc(row: Judged) -> tuple[int, int]:
    record = row[0].record
    assert record is not None
    return row[0].card, record.atc


def serial_rows(rows: Iterable[Judged]) -> bytes:
    """Rows of purse_serial in key order."""
    keyed = []
    for candidate, *_ in rows:
        record = candidate.record
        assert record is not None
        keyed.append((candidate.psam, record.psam_serial, candidate.card, record.atc))
    keyed.sort()
    packed = [_SERIAL.pack(4, 8, psam, 8, serial, 8, card, 4, atc) for psam, serial, card, atc in keyed]
    return b"".join((HEADER, *packed, TRAILER))
