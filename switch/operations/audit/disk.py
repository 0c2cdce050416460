"""What the audits of files on disk have in common: where they look, and how faults are counted and kept."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import psycopg

from switch.operations.audit.checks import names

Row = tuple[Any, ...]
Fault = tuple[str, str, str, str]  # table, key, expected, found


class DiskAudit(ABC):
    """One kind of files, compared with what is stored. places beyond places_max are counted only.

    table: where a fault is, unless it says another. sql: everything that is asked; binary: whether answers come in that form.
    """

    table: ClassVar[str]
    sql: ClassVar[Mapping[str, str]]
    binary: ClassVar[bool] = False

    def __init__(
        self,
        connection: psycopg.Connection[Row],
        folder: Path,
        places_max: int,
        progress: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._places_max = places_max
        self._progress = progress
        self.rows = 0
        self.fault_count = 0
        self.places: list[Fault] = []

    @classmethod
    def reads(cls, table: str) -> bool:
        """Whether a change of this table could change what is found; see Check.reads."""
        return any(names(query, table) for query in cls.sql.values())

    @abstractmethod
    def run(self, only: date | None) -> None:
        """Compare the files of all closed days in the connection's snapshot, or of one of them."""

    def _fault(self, key: str, expected: object, found: object, table: str = "") -> None:
        self.fault_count += 1
        if len(self.places) < self._places_max:
            self.places.append((table or self.table, key, str(expected), str(found)))

    def _rows(self, query: str, **values: object) -> list[Row]:
        return self._connection.execute(self.sql[query], values, binary=self.binary).fetchall()
