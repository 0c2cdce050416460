"""`cardswitch report …`: what a closed day came to, from the frozen tables that its report files are made of."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from switch.clearing.day_files import SQL, Connection
from switch.clearing.day_reports import BY_NAME, Lines, has_reports, read_lines, read_rows, report_folder
from switch.domain.errors import InputRefused
from switch.domain.money import yuan
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="Reports of a closed day.")

SHOWN_MAX = 100  # lines of a report for people
LINES_MAX = 100_000  # of a report as JSON; the file has all

Day = Annotated[
    datetime | None,
    typer.Option(
        "--date", formats=["%Y-%m-%d", "%Y%m%d"], help="Business date; default: the last closed one."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Csv = Annotated[
    bool, typer.Option("--csv", help="The report file's own lines; of several, one file after the other.")
]


@app.command("day")
def day_(day: Day = None, as_json: Json = False, as_csv: Csv = False) -> None:
    """Positions, merchants, account kinds, and what settles on one date."""
    _report(("institutions", "settlement", "kinds", "merchants"), day, as_json=as_json, as_csv=as_csv)


@app.command("float")
def float_(day: Day = None, as_json: Json = False, as_csv: Csv = False) -> None:
    """The float statement 備付金日報, the day's money by event, and the cover ratio."""
    _report(("float", "movements", "cover"), day, as_json=as_json, as_csv=as_csv)


@app.command("suspense")
def suspense_(day: Day = None, as_json: Json = False, as_csv: Csv = False) -> None:
    """Loads in suspense and account 2201 by age."""
    _report(("suspense", "suspense_loads"), day, as_json=as_json, as_csv=as_csv)


@app.command("gaps")
def gaps_(day: Day = None, as_json: Json = False, as_csv: Csv = False) -> None:
    """Numbers that have not come, alarms about offline records, and batches that nobody closed."""
    _report(("gaps", "collisions", "batches"), day, as_json=as_json, as_csv=as_csv)


def _report(names: Sequence[str], day: datetime | None, *, as_json: bool, as_csv: bool) -> None:
    if as_json and as_csv:
        raise typer.BadParameter("--json or --csv")
    settings = load_settings()
    with open_database(settings) as url:
        chosen, found = asyncio.run(_read(url, names, None if day is None else day.date()))
    if as_csv:
        folder = report_folder(settings.clearing_folder, chosen)
        for name in names:
            try:
                content = (folder / f"{name}-{chosen:%Y%m%d}.csv").read_bytes()
            except OSError as error:
                raise InputRefused(
                    f"{folder}: {error.strerror}; `cardswitch close --date {chosen}` writes missing reports again"
                ) from error
            sys.stdout.buffer.write(content)
    elif as_json:
        document: dict[str, Any] = {"day": chosen}
        for name, lines in found.items():
            document[name] = [dict(zip(lines.columns, line, strict=True)) for line in lines.lines]
        document["more"] = [name for name, lines in found.items() if lines.more]
        typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        _show(chosen, found)


async def _read(url: str, names: Sequence[str], chosen: date | None) -> tuple[date, dict[str, Lines]]:
    async with await connect(url) as connection:
        day = chosen or await _last_closed(connection)
        if not await has_reports(connection, day):
            raise InputRefused(
                f"business day {day} has no reports: it is not closed, or was closed before there were any"
            )
        if not all(row.sm3 for row in await read_rows(connection, day)):
            raise InputRefused(
                f"the reports of {day} are not written yet: `cardswitch close --status --date {day}`"
            )
        found = {
            name: await read_lines(connection, BY_NAME[name], day, offset=0, limit=LINES_MAX)
            for name in names
        }
    return day, found


async def _last_closed(connection: Connection) -> date:
    row = await (await connection.execute(SQL["last_closed"])).fetchone()
    if row is None or row[0] is None:
        raise InputRefused("no day has been closed yet")
    day: date = row[0]
    return day


def _show(day: date, found: dict[str, Lines]) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 140)
    for name, lines in found.items():
        table = Table(title=f"{BY_NAME[name].title}, {day}", title_justify="left")
        for column in lines.columns:
            table.add_column(column.removesuffix("_fen"), no_wrap=True)
        for line in lines.lines[:SHOWN_MAX]:
            table.add_row(*map(_cell, lines.columns, line))
        console.print(table)
        if len(lines.lines) > SHOWN_MAX or lines.more:
            console.print("and more; --csv has them all")


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    return yuan(value) if column.endswith("_fen") else str(value)
