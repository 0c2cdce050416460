"""Reports of a closed day: frozen once, written once, and written again with the same bytes. Columns: docs/reports.md.

What a report says that does not follow from the closed day alone (loads in suspense, holes, open batches, names of events) is frozen into tables by
the first run. The files are for the operator, its auditors and the regulator, so they lie in a folder of their own and never among those
that partners fetch. Lines are PostgreSQL's, so memory is one block, whatever the number of lines.
"""

from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

from switch.clearing.day_files import Connection
from switch.clearing.files import UNMARKED, WholeFile, Written, fault_of, mark_complete, on_disk, sync_folder
from switch.ledger.chart import COVER_ASSETS, COVER_DEBTS, RULES, Code, Event, Rule
from switch.storage.sql import load

SQL: Final = load("switch.clearing", "day_reports.sql")


class Report(NamedTuple):
    """One report. party: the columns that name whose line it is, for members and for merchants; empty: nobody's but the operator's."""

    name: str
    title: str
    member_column: str = ""
    merchant_column: str = ""


REPORTS: Final = (
    Report("institutions", "net positions of institutions", member_column="institution"),
    Report("settlement", "clearing days that settle on one date", member_column="institution"),
    Report("merchants", "what each merchant sold and is owed", merchant_column="merchant"),
    Report("kinds", "sums by account kind and issuer"),
    Report("float", "float statement 備付金日報"),
    Report("movements", "money of the day by event"),
    Report("cover", "what is held against what is owed 備付率"),
    Report("suspense", "suspense by age 掛賬賬齡"),
    Report("suspense_loads", "loads in suspense one by one"),
    Report("gaps", "numbers that have not come"),
    Report("collisions", "alarms about offline records"),
    Report("batches", "terminals' batches that are not closed"),
)
BY_NAME: Final = {report.name: report for report in REPORTS}


class ReportRow(NamedTuple):
    """A row of clearing_report. sm3: upper-case hex, None while not written."""

    report: str
    name: str
    row_count: int | None
    size_bytes: int | None
    sm3: str | None


def report_folder(folder: Path, day: date) -> Path:
    """Where the reports of a day lie: beside the folders of the days, not in them."""
    return folder / "reports" / f"{day:%Y%m%d}"


def _class_of(debit: Code, credit: Code, source: str) -> str:
    """What a movement is in the float statement. By its accounts, so that an event that is added to the chart has its place."""
    holders = {Code.ONLINE_ACCOUNTS, Code.PURSE_FLOAT, Code.MEDICAL_ACCOUNTS}
    payables = {Code.MERCHANTS_PAYABLE, Code.INTEROP_PAYABLE}
    pair = {debit, credit}
    if source == "DECISION":
        return "ADJUSTMENT"
    if Code.SUSPENSE in pair:
        return "SUSPENSE"
    if Code.FEE_INCOME in pair or pair <= payables:
        return "FEE"
    if pair <= holders:
        return "TRANSFER"
    if pair & holders and not pair & payables:
        return "LOAD"  # or what brings one back: then it stands with the other sign
    if Code.CUSTODY_DEPOSIT in pair:
        return "SETTLEMENT"
    return "PURCHASE" if credit in payables else "REFUND" if debit in payables else "OTHER"


def _sources(event: Event, rule: Rule) -> tuple[str, ...]:
    """How an event comes into the books: accepted offline records are postings of their own kind."""
    if rule.debit != Code.PURSE_FLOAT or rule.credit not in (Code.MERCHANTS_PAYABLE, Code.INTEROP_PAYABLE):
        return ("POSTING",)
    return ("DECISION",) if event == Event.GREY_ADJUSTED_PAID else ("RECORD",)


def classified() -> dict[str, list[Any]]:
    """For each pair of accounts and source what it is and which events it can be, as columns for SQL."""
    found: dict[tuple[Code, Code, str], list[str]] = {}
    for event, rule in RULES.items():
        if rule.debit is not None and rule.credit is not None:
            for source in _sources(event, rule):
                found.setdefault((rule.debit, rule.credit, source), []).append(event.value)
    return {
        "debits": [int(debit) for debit, _, _ in found],
        "credits": [int(credit) for _, credit, _ in found],
        "sources": [source for _, _, source in found],
        "classes": [_class_of(*key) for key in found],
        "events": [" ".join(names) for names in found.values()],
    }


async def freeze_movements(connection: Connection, day: date) -> None:
    """Sum up the day's postings by accounts, once. In the caller's transaction, after the last of them."""
    await connection.execute(SQL["freeze_movements"], {"day": day, **classified()})


async def freeze(connection: Connection, day: date) -> None:
    """Keep what cannot be found again, and plan the files; once per day. In the caller's transaction."""
    await freeze_movements(connection, day)
    for name in ("freeze_suspense", "freeze_gaps", "freeze_alarms", "freeze_batches"):
        await connection.execute(SQL[name], {"day": day})
    await connection.execute(
        SQL["plan_reports"],
        {
            "day": day,
            "reports": [report.name for report in REPORTS],
            "ordinals": list(range(1, len(REPORTS) + 1)),
            "names": [f"{report.name}-{day:%Y%m%d}.csv" for report in REPORTS],
        },
    )
    await connection.execute(SQL["note_reports"], {"day": day})


async def has_reports(connection: Connection, day: date) -> bool:
    """Whether the day's reports were planned; days closed by a version without reports have none."""
    row = await (await connection.execute(SQL["has_reports"], {"day": day})).fetchone()
    return row is not None and bool(row[0])


async def read_rows(connection: Connection, day: date) -> list[ReportRow]:
    """The reports of a day in their order."""
    cursor = await connection.execute(SQL["planned"], {"day": day})
    return [ReportRow(*row) for row in await cursor.fetchall()]


def _asked(day: date) -> dict[str, Any]:
    return {
        "day": day,
        "assets": [int(code) for code in COVER_ASSETS],
        "debts": [int(code) for code in COVER_DEBTS],
    }


class Lines(NamedTuple):
    """Lines of a report. more: there are others behind them."""

    columns: tuple[str, ...]
    lines: list[tuple[Any, ...]]
    more: bool


async def read_lines(
    connection: Connection,
    report: Report,
    day: date,
    *,
    offset: int,
    limit: int,
    column: str = "",
    party: str = "",
) -> Lines:
    """A part of a report as values. column, party: only lines with this in that column, which is one of the report's own."""
    assert column in ("", report.member_column, report.merchant_column)
    query = f"SELECT * FROM ({SQL[report.name]}) AS report"  # noqa: S608  queries of ours, and a column that one of them names
    if column:
        query += f" WHERE {column} = %(party)s"
    query += " OFFSET %(offset)s LIMIT %(limit)s"
    asked = {**_asked(day), "party": party, "offset": offset, "limit": limit + 1}
    cursor = await connection.execute(query.encode(), asked)
    lines = await cursor.fetchall()
    assert cursor.description is not None
    return Lines(tuple(column.name for column in cursor.description), lines[:limit], len(lines) > limit)


async def write_missing(connection: Connection, folder: Path, day: date) -> list[str]:
    """Write the day's reports that are not on disk as they should be; their names. Raises FolderError when the disk refuses."""
    target = report_folder(folder, day)
    written = []
    for row in await read_rows(connection, day):
        fault = fault_of(target / row.name, row.sm3, row.size_bytes)
        if not fault:
            continue
        if fault == UNMARKED:
            assert row.sm3 is not None
            mark_complete(target, [Written(row.name, row.sm3, 0)])
            continue
        with on_disk(target):
            target.joinpath(f"{row.name}.ok").unlink(missing_ok=True)
            with WholeFile(target / row.name) as file:
                rows = await _stream(connection, BY_NAME[row.report], day, file)
                made = file.finish()
            sync_folder(target)
        if row.sm3 is None:
            await connection.execute(
                SQL["store_report"],
                {"day": day, "report": row.report, "rows": rows, "size": made.size, "sm3": made.sm3},
            )
        else:
            assert row.sm3 == made.sm3, f"{row.name}: the same day has given other bytes"
        mark_complete(target, [made])
        written.append(row.name)
    return written


async def _stream(connection: Connection, report: Report, day: date, file: WholeFile) -> int:
    """Copy a report's lines into a file; how many, without the head."""
    query = f"COPY ({SQL[report.name]}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')"
    rows = -1
    async with connection.cursor() as cursor, cursor.copy(query.encode(), _asked(day)) as lines:
        async for line in lines:
            file.write(bytes(line).removesuffix(b"\n") + b"\r\n")
            rows += 1
    return rows
