"""Files as depots and other cities send them, made by the layouts' own description in docs/clearing_files.md."""

import hashlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path

OWN = "99993350"
CENTRE = "99990000"


def file_bytes(name: str, details: Sequence[str], total_fen: int, created: str = "20240315233000") -> bytes:
    """Header, details and trailer, each with its CRLF."""
    length = {"XF": 201, "FH": 201, "DF": 201, "DT": 211, "ER": 352}[name[:2]]
    head = f"H{name[:2]}01{name[2:]}{created}{len(details):08d}{total_fen:015d}{length:04d}{'':7}"
    body = "".join(line + "\r\n" for line in (head, *details)).encode()
    digest = hashlib.new("sm3", body).hexdigest().upper()
    return body + f"T{name[:2]}{len(details):08d}{total_fen:015d}{digest}\r\n".encode()


def fen_of(record: bytes) -> int:
    return int.from_bytes(record[30:34])


def depot_file(
    folder: Path,
    records: Sequence[bytes],
    day: date,
    *,
    sequence: int = 1,
    sender: str = OWN,
    receiver: str = CENTRE,
) -> Path:
    """An XF file of these records."""
    return record_file("XF", folder, records, day, sequence=sequence, sender=sender, receiver=receiver)


def record_file(
    kind: str,
    folder: Path,
    records: Sequence[bytes],
    day: date,
    *,
    sender: str,
    receiver: str,
    sequence: int = 1,
) -> Path:
    """A file of records: XF, FH or DF."""
    name = f"{kind}{sender}{receiver}{day:%Y%m%d}{sequence:03d}"
    lines = [f"D{number:08d}{raw.hex().upper()}" for number, raw in enumerate(records, 1)]
    path = folder / name
    path.write_bytes(file_bytes(name, lines, sum(map(fen_of, records))))
    return path


def answer_file(
    folder: Path,
    answers: Sequence[tuple[bytes, str]],
    day: date,
    *,
    sequence: int = 1,
    sender: str = CENTRE,
    receiver: str = OWN,
    answered: date | None = None,
) -> Path:
    """A DT file: records with the results of their city."""
    name = f"DT{sender}{receiver}{day:%Y%m%d}{sequence:03d}"
    lines = [
        f"D{number:08d}{raw.hex().upper()}{result}{answered or day:%Y%m%d}"
        for number, (raw, result) in enumerate(answers, 1)
    ]
    path = folder / name
    path.write_bytes(file_bytes(name, lines, sum(fen_of(raw) for raw, _ in answers)))
    return path
