"""ER files of members, made of the lines that they had in CM."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from tests.helpers.depots import file_bytes

CENTRE = "99990000"


class Said(NamedTuple):
    """A line of an ER: the member's number for the case, what it asks for, its line in CM, and its amount (signed, from its side)."""

    case_text: str
    action: str
    line: str
    amount_fen: int
    reason: str
    original: date

    def text(self, number: int) -> str:
        """As it is written."""
        signed = f"{'D' if self.amount_fen < 0 else 'C'}{abs(self.amount_fen):015d}"
        return f"D{number:08d}{self.case_text:16}{self.action}{self.line}{signed}{self.reason:2}{self.original:%Y%m%d}"


def dispute_file(
    folder: Path, sender: str, said: Sequence[Said], day: date, sequence: int = 1, receiver: str = CENTRE
) -> Path:
    """An ER file of these lines."""
    name = f"ER{sender}{receiver}{day:%Y%m%d}{sequence:03d}"
    lines = [one.text(number) for number, one in enumerate(said, 1)]
    path = folder / name
    path.write_bytes(file_bytes(name, lines, sum(max(one.amount_fen, 0) for one in said)))
    return path


def details(path: Path) -> list[str]:
    """The detail lines of a file."""
    return path.read_text("ascii").splitlines()[1:-1]


def lines_in_cm(folder: Path, member: str, day: date) -> dict[int, str]:
    """The lines of a member's CM without their marks, by amount; the first of each."""
    found: dict[int, str] = {}
    for line in details(folder / f"{day:%Y%m%d}" / f"CM{CENTRE}{member}{day:%Y%m%d}001"):
        found.setdefault(int(line[63:75]), line[1:])
    return found
