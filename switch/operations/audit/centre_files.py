"""Files of an interop centre on disk against lines made again from its records, as files.py does it for closed days."""

from collections.abc import Iterator
from datetime import date
from typing import Final

from switch.operations.audit.files import Day, File, FileAudit, net_line
from switch.operations.audit.generations import on_their_way
from switch.storage.sql import load

SQL: Final = load(__package__ or "", "centre_lines.sql")


class CentreFileAudit(FileAudit):
    """Compares the files of the centre's clearing dates; those that are not written yet are the next run's."""

    table = "interop_file"
    sql = SQL

    def run(self, only: date | None) -> None:
        """Compare the files of all clearing dates, or of one."""
        for clearing_date, centre_id, centre_fen in self._rows(
            "days", first=only or "-infinity", last=only or "infinity"
        ):
            for *fields, created_at in self._rows("files", day=clearing_date):
                day = Day(clearing_date, created_at, clearing_date, centre_id, centre_id, "")
                file = File(*fields)
                self._compare(day, file, self._centre_lines(day, file, centre_fen))
            folder = self._folder / f"{clearing_date:%Y%m%d}"
            for fault in on_their_way(folder, (), self._rows("signed", day=clearing_date)):
                self._fault(*fault)

    def _centre_lines(self, day: Day, file: File, centre_fen: int | None) -> Iterator[str]:
        kind = file.name[:2]
        if kind == "DF":
            for number, (raw,) in enumerate(self._rows("forwarded", day=day.day, party=file.party), 1):
                yield f"D{number:08d}{raw.hex().upper()}"
        elif kind == "DT":
            rows = self._rows("answered", day=day.day, party=file.party)
            for number, (raw, result, decided) in enumerate(rows, 1):
                yield f"D{number:08d}{raw.hex().upper()}{result}{decided}"
        else:
            rows = self._rows("positions", day=day.day)
            rows.append((day.centre_id, 0, 0, 0, 0, centre_fen or 0, 0, centre_fen or 0))
            for number, row in enumerate(rows, 1):
                yield net_line(number, row)
