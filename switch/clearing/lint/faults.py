"""What a check says: faults with their place, and the report of one file. Values are never shown: they may be card numbers."""

from typing import Any, NamedTuple

FAULTS_SHOWN = 20  # of one file, unless more are asked for; the rest is counted


class Fault(NamedTuple):
    """One thing that is wrong. code: a stable word for programs; line, column: from 1, 0 where it has none."""

    code: str
    line: int
    column: int
    field: str
    rule: str
    expected: str

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else "file"
        if self.column:
            place += f", column {self.column}"
        if self.field:
            place += f", {self.field}"
        return f"{place}: {self.rule}. {self.expected}" if self.expected else f"{place}: {self.rule}"


class Report(NamedTuple):
    """What was found in one file. lines: detail lines read; total_fen: their sum, None where it cannot be known.

    fault_count: all of them, of which `faults` are the first. notes: what is no fault and worth knowing.
    """

    path: str
    kind: str
    lines: int
    total_fen: int | None
    sm3: str
    faults: tuple[Fault, ...]
    fault_count: int
    notes: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault_count == 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self._asdict(),
            "ok": self.good,
            "faults": [fault._asdict() for fault in self.faults],
            "notes": list(self.notes),
        }


class Findings:
    """Faults as they come, of which the first are kept."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: list[Fault] = []
        self.count = 0
        self.notes: list[str] = []

    @property
    def full(self) -> bool:
        """Whether further faults are only counted: then nobody need find out how to explain them."""
        return len(self.kept) >= self.most

    def add(
        self, code: str, rule: str, expected: str = "", *, line: int = 0, column: int = 0, field: str = ""
    ) -> None:
        """Take a fault."""
        self.count += 1
        if not self.full:
            self.kept.append(Fault(code, line, column, field, rule, expected))
