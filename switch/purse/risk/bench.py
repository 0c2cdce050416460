"""Rules on history, before anybody goes live: what they would have marked, and how much of that was right. Changes nothing.

Right is what somebody has said: verdicts on closed cases, adjudications of grey records, or a file that names the faulty records of a
planted set; then every record that it does not name is a good one.
"""

import csv
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.domain.errors import InputRefused
from switch.purse.risk.features import LOOKBACK_DAYS
from switch.purse.risk.replay import bound, find
from switch.purse.risk.rules import Rule

LABELS_MAX: Final = 100_000
LABEL_COLUMNS: Final = ("terminal_id", "record_serial", "kind")
DAYS_MAX: Final = 92

Connection = AsyncConnection[Any]


class Label(NamedTuple):
    """A faulty record as its terminal wrote it, and what is wrong with it."""

    terminal_id: str
    record_serial: int
    kind: str


class RuleScore(NamedTuple):
    """What a rule would have marked. matters: cases, if nobody closed one. confirmed, false: of the records that have a label."""

    rule: str
    records: int = 0
    matters: int = 0
    cards: int = 0
    amount_fen: int = 0
    confirmed: int = 0
    false: int = 0

    @property
    def precision(self) -> float | None:
        """Confirmed ones among those with a label; None when none has one."""
        labelled = self.confirmed + self.false
        return self.confirmed / labelled if labelled else None


class KindScore(NamedTuple):
    """Labelled records of a kind, how many of them some rule marked, and which rules."""

    kind: str
    records: int
    marked: int
    rules: tuple[str, ...]


class Tried(NamedTuple):
    """The outcome. records: of the days in question. confirmed, false: labels there are of them."""

    first: date
    last: date
    records: int
    confirmed: int
    false: int
    rules: tuple[RuleScore, ...]
    kinds: tuple[KindScore, ...]


async def try_rules(
    connection: Connection,
    rules: Sequence[Rule],
    first: date,
    last: date,
    labels: Sequence[Label] | None = None,
) -> Tried:
    """Replay the records received on business dates from `first` to `last`. labels: of a planted set; None: what people have said.

    connection: in autocommit mode and not in a transaction.
    """
    if not 0 <= (last - first).days < DAYS_MAX:
        raise InputRefused(f"days: must be 1 to {DAYS_MAX}, the first not after the last")
    asked: dict[str, Any] = {"first": first, "last": last, "lookback": LOOKBACK_DAYS}
    if labels is not None:
        asked["terminals"] = [label.terminal_id for label in labels]
        asked["serials"] = [label.record_serial for label in labels]
        asked["kinds"] = [label.kind for label in labels]
    async with connection.transaction():
        await connection.execute("SET TRANSACTION READ ONLY")
        await bound(connection)
        source = "labels_said" if labels is None else "labels_named"
        found = await find(connection, rules, "scope_days", asked, "scores", labels=source)
    lines = [row[1:] for row in found if row[0] == "rule"]
    scores = {name: RuleScore(name, *figures[:6]) for name, *figures in lines}
    kinds = [KindScore(row[1], row[2], row[3], tuple(row[8])) for row in found if row[0] == "kind"]
    whole = found[0]  # "all" comes before "kind" and "rule"
    return Tried(
        first,
        last,
        whole[2],
        whole[6],
        whole[7],
        tuple(scores.get(rule.name, RuleScore(rule.name)) for rule in rules),
        tuple(kinds),
    )


def read_labels(path: Path) -> list[Label]:
    """A CSV file with the columns terminal_id, record_serial and kind. InputRefused names the line."""
    found: list[Label] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, strict=True)
            if tuple(next(rows, ())) != LABEL_COLUMNS:
                raise InputRefused(f"{path}: line 1: must read {','.join(LABEL_COLUMNS)}")
            for cells in rows:
                if len(found) == LABELS_MAX:
                    raise InputRefused(f"{path}: has more than {LABELS_MAX} labels")
                found.append(_label_of(cells, f"{path}: line {rows.line_num}"))
    except (UnicodeDecodeError, csv.Error):
        raise InputRefused(f"{path}: is no CSV in UTF-8") from None
    return found


def _label_of(cells: Sequence[str], place: str) -> Label:
    if len(cells) != len(LABEL_COLUMNS):
        raise InputRefused(f"{place}: must have {len(LABEL_COLUMNS)} cells")
    terminal_id, serial, kind = cells
    if not (len(terminal_id) == 8 and terminal_id.isascii() and terminal_id.isprintable()):
        raise InputRefused(f"{place}: terminal_id: must be 8 characters")
    if not (serial.isascii() and serial.isdecimal() and len(serial) <= 10):
        raise InputRefused(f"{place}: record_serial: must be a number of at most 10 digits")
    if not (1 <= len(kind) <= 40 and kind.isascii() and kind.isprintable()):
        raise InputRefused(f"{place}: kind: must be 1 to 40 printable ASCII characters")
    return Label(terminal_id, int(serial), kind)
