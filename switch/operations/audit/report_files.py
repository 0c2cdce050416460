"""Reports of closed days on disk, against the digests that were stored when they were written."""

from collections.abc import Callable
from datetime import date
from hashlib import file_digest
from pathlib import Path

import psycopg

from switch.operations.audit.checks import names
from switch.operations.audit.files import SQL, Fault, Row


class ReportAudit:
    """Finds each report file that is not there, not as it was stored, or not marked complete. places beyond places_max are counted only."""

    def __init__(
        self,
        connection: psycopg.Connection[Row],
        folder: Path,
        places_max: int,
        _progress: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._places_max = places_max
        self.rows = 0
        self.fault_count = 0
        self.places: list[Fault] = []

    @staticmethod
    def reads(table: str) -> bool:
        """Whether a change of this table could change what is found; see Check.reads."""
        return names(SQL["reports"], table)

    def run(self, only: date | None = None) -> None:
        """Look at the reports of all closed days, or of one."""
        asked = {"first": only or "-infinity", "last": only or "infinity"}
        for day, name, sm3, size in self._connection.execute(SQL["reports"], asked).fetchall():
            self.rows += 1
            path = self._folder / "reports" / f"{day:%Y%m%d}" / name
            try:
                with path.open("rb") as file:
                    found = (file_digest(file, "sm3").hexdigest(), path.stat().st_size)
                mark = path.with_name(f"{name}.ok").read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                self._fault(name, "a file and its mark", error.strerror or "unreadable")
                continue
            if found != (sm3, size):
                self._fault(name, f"SM3 {sm3}, {size} bytes", f"SM3 {found[0]}, {found[1]} bytes")
            elif mark != f"{sm3.upper()}  {name}\n":
                self._fault(f"{name}.ok", "the SM3 and name of its file", "something else")

    def _fault(self, key: str, expected: str, found: str) -> None:
        self.fault_count += 1
        if len(self.places) < self._places_max:
            self.places.append(("clearing_report", key, expected, found))
