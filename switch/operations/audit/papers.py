"""Files of settlements on disk against the digests that were stored: orders to the bank, and what merchants got with their payouts."""

from datetime import date
from hashlib import new as new_digest
from pathlib import Path
from types import MappingProxyType
from typing import Final

from switch.operations.audit.disk import DiskAudit

_BLOCK_BYTES: Final = 1 << 20
_WRITTEN: Final = """
SELECT 'settlement_order', settlement_date, order_id || '.xml', '', upper(encode(sm3, 'hex')), size_bytes FROM settlement_order WHERE sm3 IS NOT NULL
UNION ALL
SELECT 'settlement_file', settlement_date, name, 'merchants', upper(encode(sm3, 'hex')), size_bytes FROM settlement_file
"""


class PaperAudit(DiskAudit):
    """Finds each file of a settlement that is not as it was written."""

    table = "settlement_file"
    sql = MappingProxyType({"written": _WRITTEN})

    def run(self, only: date | None = None) -> None:
        """Look at all of them; of one business day there is nothing to look at, since a settlement has several."""
        if only is not None:
            return
        for table, day, name, below, sm3, size in self._rows("written"):
            self.rows += 1
            found = _found(self._folder / "settlement" / f"{day:%Y%m%d}" / below / name)
            if found != (sm3, size, f"{sm3}  {name}\n"):
                self._fault(name, f"{size} bytes, SM3 {sm3}, marked complete", _words(found), table)


def _found(path: Path) -> tuple[str, int, str] | None:
    digest = new_digest("sm3")
    size = 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        mark = path.with_name(f"{path.name}.ok")
        return digest.hexdigest().upper(), size, mark.read_text("ascii") if mark.exists() else ""
    except (OSError, UnicodeDecodeError):
        return None


def _words(found: tuple[str, int, str] | None) -> str:
    if found is None:
        return "no file that can be read"
    return f"{found[1]} bytes, SM3 {found[0]}, {'marked' if found[2] else 'not marked'}"
