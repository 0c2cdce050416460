"""A payout's three levels as CSV and as XLSX, row by row. Columns are a contract: docs/settlement.md, section 8.

Memory is flat whatever the number of rows: CSV goes through one buffer, XLSX through XlsxWriter's constant_memory mode. The same rows
give the same bytes: times in the workbook are the order's, those in its zip are fixed.
"""

import csv
import io
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import xlsxwriter
from xlsxwriter.exceptions import XlsxWriterException

from switch.clearing.files import FolderError, WholeFile, Written, on_disk
from switch.clearing.settlement.paper import adopt

Row = Sequence[str | int]

PAYOUT: Final = (
    "payout",
    "merchant",
    "settlement_date",
    "execution_date",
    "first_day",
    "last_day",
    "account",
    "bank",
    "carried_in_fen",
    "net_fen",
    "returned_fen",
    "held_fen",
    "carried_on_fen",
    "payout_fen",
)
BATCHES: Final = (
    "payout",
    "clearing_date",
    "terminal",
    "batch",
    "transactions",
    "amount_fen",
    "fee_fen",
    "net_fen",
)
TRANSACTIONS: Final = (
    "payout",
    "clearing_date",
    "terminal",
    "batch",
    "time",
    "trace",
    "reference",
    "kind",
    "account_kind",
    "card",
    "amount_fen",
    "fee_fen",
    "net_fen",
)
LEVELS: Final = {"payout": PAYOUT, "batches": BATCHES, "transactions": TRANSACTIONS}
SHEET_ROWS_MAX: Final = 1_048_575  # what Excel reads, less the header; then another sheet
ROOM: Final = ".making-"  # folders in which XlsxWriter keeps its rows
BUFFER_CHARACTERS: Final = 1 << 18
_COMPUTED: Final = ("=", "+", "-", "@")


def clear_rooms(folder: Path) -> None:
    """Remove what a killed run has left beside the files."""
    for room in folder.glob(f"{ROOM}*"):
        shutil.rmtree(room, ignore_errors=True)


def file_names(payout_id: str) -> list[str]:
    """The files of a payout."""
    return [*(f"{payout_id}-{level}.csv" for level in LEVELS), f"{payout_id}.xlsx"]


class Sheet(NamedTuple):
    """A finished file."""

    written: Written
    line_count: int


def _text(cell: str) -> str:
    """A text that a spreadsheet would compute gets an apostrophe before it: numbers of merchants and terminals may begin with any character."""
    return f"'{cell}" if cell.startswith(_COMPUTED) else cell


class _Csv:
    def __init__(self, folder: Path, name: str, columns: Row) -> None:
        self.paper = WholeFile(folder / name)
        self.lines = 0
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="\r\n")
        self._writer.writerow(columns)

    def add(self, row: Row) -> None:
        self._writer.writerow([_text(cell) if isinstance(cell, str) else cell for cell in row])
        self.lines += 1
        if self._text.tell() > BUFFER_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        self.paper.write(self._text.getvalue().encode())
        self._text.seek(0)
        self._text.truncate()

    def finish(self) -> Sheet:
        self._flush()
        return Sheet(self.paper.finish(), self.lines)


class _Workbook:
    def __init__(self, folder: Path, payout_id: str, created_at: datetime) -> None:
        self._folder = folder
        self._name = f"{payout_id}.xlsx"
        self._path = folder / f"{self._name}.tmp"
        self._rooms = Path(tempfile.mkdtemp(prefix=ROOM, dir=folder))
        options = {"constant_memory": True, "tmpdir": str(self._rooms), "in_memory": False}
        self._book: Any = xlsxwriter.Workbook(str(self._path), options)
        created = created_at.astimezone(UTC).replace(tzinfo=None)
        self._book.set_properties({"title": payout_id, "created": created})
        self._sheets: dict[str, tuple[Any, int]] = {}
        self._parts = dict.fromkeys(LEVELS, 0)
        self.lines = 0
        for level in LEVELS:
            self._begin(level)

    def _begin(self, level: str) -> None:
        self._parts[level] += 1
        part = self._parts[level]
        sheet = self._book.add_worksheet(level if part == 1 else f"{level} {part}")
        sheet.freeze_panes(1, 0)
        sheet.set_column(0, len(LEVELS[level]) - 1, 18)
        for column, text in enumerate(LEVELS[level]):
            sheet.write_string(0, column, text)
        self._sheets[level] = (sheet, 1)

    def add(self, level: str, row: Row) -> None:
        if self._sheets[level][1] > SHEET_ROWS_MAX:
            self._begin(level)
        sheet, place = self._sheets[level]
        for column, value in enumerate(row):
            if isinstance(value, int):
                sheet.write_number(place, column, value)
            elif value:
                sheet.write_string(place, column, value)
        self._sheets[level] = (sheet, place + 1)
        self.lines += level == "transactions"

    def finish(self) -> Sheet:
        path = self._folder / self._name
        with on_disk(path):
            try:
                self._book.close()
            except XlsxWriterException as error:
                raise FolderError(f"cannot write {path}: {error}") from error
        return Sheet(adopt(self._folder, self._name), self.lines)

    def drop(self) -> None:
        """Remove what is not finished."""
        self._book.fileclosed = True  # else XlsxWriter warns that nobody has closed it
        for sheet in self._book.worksheets():
            sheet.row_data_fh.close()  # closing the book would write a whole one first
        shutil.rmtree(self._rooms, ignore_errors=True)
        self._path.unlink(missing_ok=True)


class PayoutSheets:
    """All files of one payout in the making. `add` rows of any level in their order, then `finish`; `drop` in any case."""

    def __init__(self, folder: Path, payout_id: str, created_at: datetime) -> None:
        with on_disk(folder / payout_id):
            folder.mkdir(parents=True, exist_ok=True)
            self._book = _Workbook(folder, payout_id, created_at)
            self._files = {
                level: _Csv(folder, f"{payout_id}-{level}.csv", columns) for level, columns in LEVELS.items()
            }

    def add(self, level: str, row: Row) -> None:
        """Take the next row of a level."""
        assert len(row) == len(LEVELS[level])
        self._files[level].add(row)
        self._book.add(level, row)

    def finish(self) -> list[Sheet]:
        """Give the files their names."""
        return [*(file.finish() for file in self._files.values()), self._book.finish()]

    def drop(self) -> None:
        """Remove what was not finished."""
        for file in self._files.values():
            file.paper.__exit__()
        self._book.drop()
