"""Reports of closed days on disk, against the digests that were stored when they were written."""

from datetime import date
from hashlib import file_digest
from types import MappingProxyType

from switch.operations.audit.disk import DiskAudit
from switch.operations.audit.files import SQL


class ReportAudit(DiskAudit):
    """Finds each report file that is not there, not as it was stored, or not marked complete."""

    table = "clearing_report"
    sql = MappingProxyType({"reports": SQL["reports"]})

    def run(self, only: date | None) -> None:
        """Look at the reports of all closed days, or of one."""
        for day, name, sm3, size in self._rows("reports", first=only or "-infinity", last=only or "infinity"):
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
