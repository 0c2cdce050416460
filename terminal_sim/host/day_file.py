"""A bank's file of a day: what it has booked, as the CM lines that it sends to the switch. Its own writing of docs/clearing_files.md.

Every message that moved money has a line, reversals too; what was declined and what moved nothing has none.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from switch.domain.errors import InputRefused
from terminal_sim.host.book import CODE_BALANCE, CODE_RETURN, HostBook, original_key

CRLF: Final = "\r\n"
CUT_OFF: Final = "230000"
REVERSALS: Final = ("0400", "0420")


class Item(NamedTuple):
    """One line. sent: field 7; original: fields 7 and 11 of what it undoes or gives back. offline: ATC and PSAM serial as 12 hex digits."""

    mti: str
    sent: str
    trace: int
    pan: str
    amount_fen: int
    rrn: str
    code: str = "002000"
    original: tuple[str, int] = ("0", 0)
    terminal: str = "33500001"
    merchant: str = "993350054110001"
    category: str = "5411"
    response: str = "00"
    offline: str = ""


def item_line(item: Item, institution: str) -> str:
    """A detail line of 300 characters: 34 fields with a blank between them."""
    sent, trace = item.original
    fields = (
        *("49993350".ljust(11), "49993350".ljust(11), f"{item.trace:06d}", item.sent.rjust(10, "0")),
        *(item.pan.ljust(19), f"{item.amount_fen:012d}", "0" * 12, "0" * 12, item.mti, item.code),
        *(item.category, item.terminal.ljust(8), item.merchant.ljust(15), item.rrn, "00", " " * 6),
        *(institution.ljust(11), f"{trace:06d}", item.response, "000", *(["D" + "0" * 11] * 3), "0", "001"),
        *("5", "0", sent.rjust(10, "0"), institution.ljust(11), "0", "01", "00", "0" * 12),
        item.offline.ljust(14),
    )
    line = "D" + " ".join(fields)
    assert len(line) == 300, len(line)
    return line


def file_name(sender: str, receiver: str, day: date, sequence: int) -> str:
    """Type, sender, receiver, date and sequence."""
    return f"CM{sender}{receiver}{day:%Y%m%d}{sequence:03d}"


def file_bytes(name: str, lines: Sequence[str], total_fen: int, created: str) -> bytes:
    """Header, details and trailer with the SM3 of all before it. created: YYYYMMDDhhmmss."""
    head = f"H{name[:2]}01{name[2:]}{created}{len(lines):08d}{total_fen:015d}0300{'':7}"
    body = "".join(line + CRLF for line in (head, *lines)).encode("ascii")
    digest = hashlib.new("sm3", body).hexdigest().upper()
    return body + f"T{name[:2]}{len(lines):08d}{total_fen:015d}{digest}{CRLF}".encode("ascii")


def write_file(
    folder: Path,
    sender: str,
    receiver: str,
    day: date,
    items: Iterable[Item],
    *,
    sequence: int = 1,
    created: str = "",
) -> Path:
    """Write a day's file; its path."""
    rows = list(items)
    path = folder / file_name(sender, receiver, day, sequence)
    lines = [item_line(item, sender) for item in rows]
    path.write_bytes(
        file_bytes(path.name, lines, sum(item.amount_fen for item in rows), created or f"{day:%Y%m%d}235900")
    )
    return path


def booked_items(path: Path, book: HostBook) -> list[Item]:
    """What a host's file of books says it has booked, in its order, brought into books with the accounts as they were opened."""
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            fields = {int(name): value for name, value in entry["fields"].items()}
            mti = entry["mti"]
            if entry["refused"]:
                book.refuse(mti, fields, entry["refused"])
                continue
            known = book.entries.get(original_key(fields.get(90, ""))) if mti in REVERSALS else None
            stood = known is not None and not known.undone and known.moved_fen != 0
            answer = book.settle(mti, fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputRefused(f"{path}: line {number} is no line of a host's books") from None
        code = str(fields.get(3, ""))
        if answer[39] != "00" or code[:2] == CODE_BALANCE or (mti in REVERSALS and not stood):
            continue
        back = mti in REVERSALS or code[:2] == CODE_RETURN
        _, trace, sent = original_key(fields[90]) if back else ("", "0", "0")
        found.append(
            Item(
                mti if mti != "0100" else "0200",
                fields[7],
                int(fields[11]),
                str(fields[2]),
                int(fields[4]),
                fields[37],
                code,
                (sent, int(trace)),
                fields[41],
                fields[42],
                fields.get(18, "0000"),
            )
        )
    return found


def counted_on(item: Item, day: date, cut_off: str = CUT_OFF) -> bool:
    """Whether a bank with this cut-off (hhmmss) counts an item under a date, by its transmission time, which has no year."""
    moment = datetime.strptime(f"{day.year}{item.sent}", "%Y%m%d%H%M%S")  # noqa: DTZ007  wall time of the line
    own = moment.date() + timedelta(days=item.sent[4:] >= cut_off)
    return (own.month, own.day) == (day.month, day.day)
