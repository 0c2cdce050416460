"""What a host has booked, on the disk before it answers: a host that is killed comes back with the books that it had.

One line of JSON for each message that moved or refused something, appended in one write. The file holds account numbers, so only its owner
reads it; it holds no PIN, which no booking needs. A line without an end was never answered, and is cut off.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

from switch.domain.errors import InputRefused
from terminal_sim.host.book import Fields, HostBook

KEPT: Final = (2, 3, 4, 7, 11, 18, 37, 41, 42, 90)  # what booking and recognising need


class LedgerFile:
    """Lines go to the end; what stood there before is read by `replay`."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        cut_unfinished(path)

    def add(self, mti: str, fields: Fields, refused: str = "") -> None:
        """A message was booked, or refused with a code. Survives the process; a host that must survive the machine is no simulation."""
        kept: dict[str, Any] = {str(number): fields[number] for number in KEPT if number in fields}
        line = json.dumps({"mti": mti, "refused": refused, "fields": kept}) + "\n"
        os.write(self._handle, line.encode("ascii"))

    def close(self) -> None:
        """No more lines."""
        os.close(self._handle)


def cut_unfinished(path: Path) -> None:
    """Take away the line that a kill has left half-written."""
    raw = path.read_bytes()
    whole = raw.rfind(b"\n") + 1
    if whole < len(raw):
        os.truncate(path, whole)


def replay(path: Path, book: HostBook) -> HostBook:
    """Book all that stands in a file, in its order, into books with the accounts as they were opened. A half line at the end is passed over."""
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            fields = {int(name): value for name, value in entry["fields"].items()}
            if entry["refused"]:
                book.refuse(entry["mti"], fields, entry["refused"])
            else:
                book.settle(entry["mti"], fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputRefused(f"{path}: line {number} is no line of a host's books") from None
    return book
