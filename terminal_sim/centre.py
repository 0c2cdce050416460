"""An interop centre, as a city sees it: it gets records of other cities' cards (FH) and says what their cities made of them (DT).

It reads and writes by docs/clearing_files.md alone, with no code of the switch.
"""

from collections.abc import Callable
from datetime import date, datetime
from hashlib import new as new_hash

HEADER_CHARS, TRAILER_CHARS = 80, 90
AMOUNT = slice(30, 34)  # of a record: bytes 31 to 34
ACCEPTED, TAC_WRONG = "10", "01"


def records_of(content: bytes) -> list[bytes]:
    """The records of an XF, FH or DF file. ValueError when the file is not whole."""
    lines = content.split(b"\r\n")
    if lines.pop() or len(lines[0]) != HEADER_CHARS or len(lines[-1]) != TRAILER_CHARS:
        raise ValueError("no header or trailer of the right length")
    if new_hash("sm3", content[: -TRAILER_CHARS - 2]).hexdigest().upper().encode() != lines[-1][26:]:
        raise ValueError("the digest in the trailer is not the file's")
    return [bytes.fromhex(line[9:].decode("ascii")) for line in lines[1:-1]]


def answer(
    name: str, content: bytes, result_of: Callable[[bytes], str], on: date, created: datetime
) -> tuple[str, bytes]:
    """Name and content of the DT that answers an FH, back to who sent that. result_of: what a record's city made of it."""
    sender, receiver, day, sequence = name[2:10], name[10:18], name[18:26], name[26:]
    records = records_of(content)
    total = sum(int.from_bytes(record[AMOUNT]) for record in records)
    details = [
        f"D{number:08d}{record.hex().upper()}{result_of(record)}{on:%Y%m%d}"
        for number, record in enumerate(records, 1)
    ]
    head = f"HDT01{receiver}{sender}{day}{sequence}{created:%Y%m%d%H%M%S}{len(records):08d}{total:015d}0211{' ' * 7}"
    body = "".join(f"{line}\r\n" for line in (head, *details)).encode("ascii")
    tail = f"TDT{len(records):08d}{total:015d}{new_hash('sm3', body).hexdigest().upper()}\r\n"
    return f"DT{receiver}{sender}{day}{sequence}", body + tail.encode("ascii")
