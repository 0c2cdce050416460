"""The independent recomputation 稽核: what the switch has stored, computed again from the journal and compared.

It shares no code and no SQL with those who write: not the rules, not the fee arithmetic, not the views, not the layouts of
the files. Everything in the database is read in one read-only snapshot, so it runs while the switch serves and while days
are closed; files are compared for days that were closed in that snapshot.

What it cannot see: an amount that nothing else repeats, such as that of a declined request; a TAC, which takes keys.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from switch.operations.audit.centre_files import CentreFileAudit
from switch.operations.audit.checks import Check, read_checks
from switch.operations.audit.disk import DiskAudit
from switch.operations.audit.files import FileAudit
from switch.operations.audit.papers import PaperAudit
from switch.operations.audit.report_files import ReportAudit
from switch.operations.audit.seals import SealAudit

PLACES_MAX: Final = 20
CHECKS: Final = tuple(
    chain.from_iterable(
        read_checks(f"{part}.sql")
        for part in (
            "accounts",
            "journal",
            "postings",
            "holds",
            "limits",
            "medical",
            "hosts",
            "purse",
            "transit",
            "risk",
            "loads",
            "batches",
            "clearing",
            "settlement",
            "bookings",
            "fees",
            "reports",
            "interop",
            "payouts",
            "disputes",
            "reconcile",
            "lists",
            "deliveries",
        )
    )
)
assert len({check.name for check in CHECKS}) == len(CHECKS)

# What is made again in Python, from the rows of each closed day: name, what holds when nothing is found, and who does it.
DAYS_ANEW: Final[tuple[tuple[str, str, type[DiskAudit]], ...]] = (
    (
        "files",
        "every file of a closed day is on disk as it was stored, and its lines are the day's transactions",
        FileAudit,
    ),
    (
        "centre_disk",
        "every file of an interop centre is on disk as it was stored, and its lines are its records",
        CentreFileAudit,
    ),
    (
        "papers",
        "every order to the bank, and every file that a merchant got with a payout, is on disk as it was written",
        PaperAudit,
    ),
    ("reports", "every report of a closed day is on disk as it was stored", ReportAudit),
    (
        "seals",
        "the seal of a closed day, stored and on disk, is over all of its rows and files and follows the one before",
        SealAudit,
    ),
)

Connection = psycopg.Connection[tuple[Any, ...]]


class Place(NamedTuple):
    """Where something is wrong: table, key in words, what should be there and what is."""

    table: str
    key: str
    expected: str
    found: str


class Verdict(NamedTuple):
    """Outcome of one check. places: the first PLACES_MAX of fault_count."""

    name: str
    says: str
    rows: int
    fault_count: int
    places: tuple[Place, ...]
    seconds: float

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return self.fault_count == 0


class Totals(NamedTuple):
    """All postings and accepted offline records, in fen."""

    postings: int
    debits_fen: int
    credits_fen: int
    held_fen: int  # 1001, 1002, 1101, 1102, 1103
    owed_fen: int  # 2001, 2002, 2003, 2101, 2102, 2201
    codes: tuple[tuple[int, int], ...]  # balance of each code, debit positive
    negative_merchants: tuple[tuple[str, int], ...]  # below zero after refunds; carried, and no fault

    @property
    def zero_sum_fen(self) -> int:
        """Debit and credit balances of all codes together; a set of books has nothing here."""
        return sum(balance for _, balance in self.codes)


class Report(NamedTuple):
    """Everything an audit found."""

    day: date | None
    verdicts: tuple[Verdict, ...]
    totals: Totals

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return all(verdict.good for verdict in self.verdicts) and self.totals.zero_sum_fen == 0


_TOTALS: Final = """
SELECT count(*)::bigint, coalesce(sum(amount_fen), 0)::bigint, debit_code, credit_code
  FROM (SELECT debit_code, credit_code, amount_fen FROM posting
        UNION ALL
        SELECT 2002, credit_code, amount_fen FROM purse_record WHERE result IN ('10', '00') AND amount_fen > 0) AS every
 GROUP BY debit_code, credit_code
"""
_NEGATIVE_MERCHANTS: Final = """
SELECT m.merchant_id, sum(s.fen)::bigint
  FROM (SELECT debit_owner AS merchant_no, -amount_fen AS fen FROM posting WHERE debit_code = 2101
        UNION ALL
        SELECT credit_owner, amount_fen FROM posting WHERE credit_code = 2101
        UNION ALL
        SELECT credit_owner, amount_fen FROM purse_record WHERE credit_code = 2101 AND result IN ('10', '00')) AS s
  JOIN merchant m USING (merchant_no)
 GROUP BY m.merchant_id HAVING sum(s.fen) < 0 ORDER BY 2, 1 LIMIT 50
"""
_COUNTED: Final = """
SELECT p.*, count(*) OVER () FROM (
{query}
) AS p (place, key, expected, found) LIMIT {limit}
"""
_SETTINGS: Final = (
    "SET TIME ZONE 'UTC'",
    "SET DateStyle = 'ISO'",
    "SET work_mem = '64MB'",
    "SET jit = off",
    # Partitions of an open day have no statistics yet, and a nested loop over them would never end.
    "SET enable_nestloop = off",
)


@contextmanager
def _snapshot(connection: Connection) -> Iterator[None]:
    """One view of everything; nothing can be changed through it."""
    for setting in _SETTINGS:
        connection.execute(setting.encode())
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    with connection.transaction():
        connection.execute("SELECT count(*) FROM business_day")
        yield


class _Audit:
    """One run in one snapshot."""

    def __init__(self, connection: Connection, day: date | None) -> None:
        self._connection = connection
        self._days = {"first": day or "-infinity", "last": day or "infinity"}
        self._counts: dict[tuple[str, bool], int] = {}
        self._dated = {
            row[0]
            for row in connection.execute(
                "SELECT table_name FROM information_schema.columns"
                " WHERE table_schema = current_schema() AND column_name = 'business_date'"
            )
        }

    def _rows(self, check: Check) -> int:
        """How many rows of its tables a check has looked at."""
        return sum(self._count(table, by_day=check.by_day and table in self._dated) for table in check.tables)

    def _count(self, table: str, *, by_day: bool) -> int:
        if (table, by_day) not in self._counts:
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            if by_day:
                query += sql.SQL(" WHERE business_date BETWEEN %(first)s AND %(last)s")
            row = self._connection.execute(query, self._days).fetchone()
            assert row is not None
            self._counts[table, by_day] = row[0]
        return self._counts[table, by_day]

    def run(self, check: Check) -> Verdict:
        """Run one check. What it cannot read is a fault too; the database's words are left out, for they may hold a card number."""
        started = time.monotonic()
        wrapped = _COUNTED.format(query=check.query, limit=PLACES_MAX)
        try:
            with self._connection.transaction():
                found = self._connection.execute(wrapped.encode(), self._days).fetchall()
            rows = self._rows(check)
        except psycopg.DataError as error:
            place = Place(
                check.tables[0],
                "unknown",
                "values that can be read",
                f"{type(error).__name__} {error.sqlstate}",
            )
            return Verdict(check.name, check.says, 0, 1, (place,), time.monotonic() - started)
        places = tuple(Place(*(str(text) for text in row[:4])) for row in found)
        return Verdict(
            check.name, check.says, rows, found[0][4] if found else 0, places, time.monotonic() - started
        )

    def totals(self) -> Totals:
        """What all postings come to."""
        balances: dict[int, int] = {}
        count = debits_fen = credits_fen = 0
        for lines, fen, debit, credit in self._connection.execute(_TOTALS.encode()):
            count += lines
            debits_fen += fen
            credits_fen += fen
            balances[debit] = balances.get(debit, 0) + fen
            balances[credit] = balances.get(credit, 0) - fen
        negative = tuple(self._connection.execute(_NEGATIVE_MERCHANTS.encode()).fetchall())
        codes = tuple(sorted(balances.items()))
        held = sum(fen for code, fen in codes if code < 2000)
        owed = -sum(fen for code, fen in codes if 2000 <= code < 3000)
        return Totals(count, debits_fen, credits_fen, held, owed, codes, negative)


def audit(
    connection: Connection,
    folder: Path,
    day: date | None = None,
    tell: Callable[[Verdict], None] = lambda _verdict: None,
    progress: Callable[[str], None] = lambda _text: None,
    *,
    reading: str = "",
) -> Report:
    """Recompute and compare everything; of one business date where `day` is given, but sums over all days always whole.

    connection: its own, in autocommit mode, not in a transaction; its session settings are changed. folder: where the folders
    of closed days lie. tell: called with each verdict as it comes; progress: with a line now and then. reading: only what reads this
    table, for whoever has changed nothing else. psycopg.OperationalError when the database goes away.
    """
    checks = [check for check in CHECKS if check.reads(reading)] if reading else CHECKS
    verdicts: list[Verdict] = []

    def add(verdict: Verdict) -> None:
        verdicts.append(verdict)
        tell(verdict)

    with _snapshot(connection):
        run = _Audit(connection, day)
        for number, check in enumerate(checks, 1):
            progress(f"{number} of {len(checks) + len(DAYS_ANEW)}: {check.name}")
            add(run.run(check))
        for number, (name, says, anew) in enumerate(DAYS_ANEW, len(checks) + 1):
            if reading and not anew.reads(reading):
                continue
            progress(f"{number} of {len(checks) + len(DAYS_ANEW)}: {name}")
            started = time.monotonic()
            made = anew(connection, folder, PLACES_MAX, progress)
            made.run(day)
            places = tuple(Place(*place) for place in made.places)
            add(Verdict(name, says, made.rows, made.fault_count, places, time.monotonic() - started))
        totals = run.totals()
    return Report(day, tuple(verdicts), totals)
