"""Judged records as COPY BINARY rows: the record tables are filled in three calls, whatever the number of records.

PostgreSQL's format: per row the number of columns, then each as its length and bytes; -1 is NULL; numbers high byte first;
dates and instants count from 2000-01-01. Most pieces of a row come with the record's digest.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from struct import Struct
from typing import Final, NamedTuple

from switch.purse.record import RECORD_BYTES
from switch.purse.verify import Candidate

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
_EPOCH_DAY = date(2000, 1, 1).toordinal()
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def day_number(day: date) -> int:
    """Days since 2000-01-01."""
    return day.toordinal() - _EPOCH_DAY


def instant_us(instant: datetime) -> int:
    """Microseconds since 2000-01-01 UTC of an aware instant."""
    delta = instant - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


class Judged(NamedTuple):
    """The records of one upload with their results; their serials; and who is owed for each.

    uploader: terminal_no, merchant_no, batch_no. credits: as `credit` makes them, empty where the PSAM is unknown.
    """

    uploader: tuple[int, int, int]
    candidates: Sequence[Candidate]
    entries: Sequence[int]
    credits: Sequence[bytes]


# The columns of purse_record in the order of the rows below: constants of the transaction, of the upload, of the record.
RECORD_COLUMNS: Final = (
    "business_date, received_at, txid, terminal_no, merchant_no, batch_no, entry_no, shard, result, raw,"
    " card, atc, amount_fen, balance_fen, psam, psam_serial, record_serial, happened_at, record_kind,"
    " card_no, credit_code, credit_owner"
)
_COLUMNS = len(RECORD_COLUMNS.split(","))
_CONSTANT = Struct(">hiiiqiq")
_UPLOADER = Struct(">iiiiii")
_PLACE = Struct(f">iqihi2si{RECORD_BYTES}s")
_CARD = Struct(">iq")
_CREDIT = Struct(">ihiq")
_NOT_PARSED = b"\xff\xff\xff\xff" * 9
_NOT_PAID = b"\xff\xff\xff\xff" * 3
_RESULTS = {f"{number:02d}": f"{number:02d}".encode() for number in range(100)}


def credit(code: int, owner: int) -> bytes:
    """The piece of a row that says who is owed: account code and owner."""
    return _CREDIT.pack(2, code, 8, owner)


def record_rows(judged: Judged, business_date: date, received_at: datetime, txid: int) -> bytes:
    """Rows of purse_record of one upload, in order, without header and trailer."""
    head = _CONSTANT.pack(
        _COLUMNS, 4, day_number(business_date), 8, instant_us(received_at), 8, txid
    ) + _UPLOADER.pack(*(part for number in judged.uploader for part in (4, number)))
    parts: list[bytes] = []
    append = parts.append
    for candidate, entry_no, owed in zip(judged.candidates, judged.entries, judged.credits, strict=True):
        append(head)
        raw, facts, result = candidate.raw, candidate.facts, _RESULTS[candidate.result]
        shard = 0 if facts is None else facts.shard
        if len(raw) == RECORD_BYTES:
            append(_PLACE.pack(8, entry_no, 2, shard, 2, result, RECORD_BYTES, raw))
        else:
            append(Struct(f">iqihi2si{len(raw)}s").pack(8, entry_no, 2, shard, 2, result, len(raw), raw))
        append(candidate.parsed if candidate.readable else _NOT_PARSED)
        if facts is not None and owed:
            append(_CARD.pack(8, facts.card_no))
            append(owed)
        else:
            append(_NOT_PAID)
    return b"".join(parts)


ATC_COLUMNS: Final = "card, atc, amount_fen, balance_fen, mark, entry_no, business_date"
_ATC_TAIL = Struct(">iqii")
SERIAL_COLUMNS: Final = "psam, psam_serial, card, atc"


def atc_rows(accepted: Iterable[tuple[Candidate, int]], business_date: date) -> bytes:
    """Rows of purse_atc of records and their serials, in key order: two writers wait for each other only one way."""
    day = day_number(business_date)
    pack = _ATC_TAIL.pack
    rows = [candidate.atc_head + pack(8, entry_no, 4, day) for candidate, entry_no in accepted]
    rows.sort()
    return b"".join((HEADER, *rows, TRAILER))


def serial_rows(accepted: Iterable[tuple[Candidate, int]]) -> bytes:
    """Rows of purse_serial, in key order."""
    return b"".join((HEADER, *sorted([candidate.serial_row for candidate, _ in accepted]), TRAILER))
