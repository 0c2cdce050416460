"""`cardswitch files`: the clearing files of a day, checked against their digests; `files show NAME` reads one for people."""

import asyncio
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from switch.clearing.close import day_folder
from switch.clearing.day_files import SQL, FileState, inspect, read_rows
from switch.clearing.files import Checked, check_file, parse_name
from switch.clearing.layouts import LAYOUTS, Value
from switch.domain.errors import InputRefused
from switch.domain.identifiers import mask_pan
from switch.domain.money import yuan
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(help="List a day's clearing files and check them.")

_SHOWN_LINES_MAX = 100_000


@app.callback(invoke_without_command=True)
def files(
    context: typer.Context,
    day: Annotated[
        datetime | None,
        typer.Option(
            "--date", formats=["%Y-%m-%d", "%Y%m%d"], help="Business date; default: the last with files."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """List the files of a day and compare each with its stored digest. Exit 1 when one is missing or differs."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()
    with open_database(settings) as url:
        found, states = asyncio.run(
            _states(url, None if day is None else day.date(), settings.clearing_folder)
        )
    folder = day_folder(settings.clearing_folder, found)
    if as_json:
        typer.echo(orjson.dumps(_as_json(found, folder, states), option=orjson.OPT_INDENT_2).decode())
    else:
        _print(found, folder, states)
    if any(state.fault for state in states):
        raise typer.Exit(1)


async def _states(url: str, day: date | None, folder: Path) -> tuple[date, list[FileState]]:
    async with await connect(url) as connection:
        if day is None:
            cursor = await connection.execute(SQL["newest_with_files"])
            row = await cursor.fetchone()
            day = row[0] if row else None
        if day is None:
            raise InputRefused("no day has been closed yet")
        rows = await read_rows(connection, day)
    if not rows:
        raise InputRefused(f"business day {day} has no files: it is not closed")
    return day, [inspect(day_folder(folder, day), row) for row in rows]


def _as_json(day: date, folder: Path, states: list[FileState]) -> dict[str, Any]:
    return {
        "day": day,
        "folder": str(folder),
        "ok": not any(state.fault for state in states),
        "files": [{**state.row._asdict(), "fault": state.fault} for state in states],
    }


def _console() -> Console:
    """Wide enough that no name, digest or fault is cut, whatever reads it."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 160)
    return console


def _print(day: date, folder: Path, states: list[FileState]) -> None:
    console = _console()
    table = Table(title=f"Clearing files of {day} in {folder}", title_justify="left")
    for title in ("name", "for", "content"):
        table.add_column(title, no_wrap=True)
    for title in ("lines", "total"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("state", "SM3"):
        table.add_column(title, no_wrap=True)
    for state in states:
        row = state.row
        table.add_row(
            row.name,
            row.party,
            LAYOUTS[row.name[:2]].title,
            f"{row.line_count:,}",
            yuan(row.total_fen),
            state.fault or "ok",
            (row.sm3 or "")[:16],
        )
    console.print(table)
    bad = sum(bool(state.fault) for state in states)
    console.print(
        f"{len(states)} files, {bad} not as they should be" if bad else f"{len(states)} files, all whole"
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A file's name, or a path to one.")],
    lines: Annotated[
        int, typer.Option("--lines", min=0, max=_SHOWN_LINES_MAX, help="Detail lines to show.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Read one file field by field, with card numbers masked, and check it. Needs no database."""
    path = Path(name)
    if not path.is_file():
        path = day_folder(load_settings().clearing_folder, parse_name(path.name).day) / path.name
    shown: list[dict[str, Value]] = []

    def keep(_: int, values: dict[str, Value]) -> None:
        if len(shown) < lines:
            shown.append({field: _masked(field, value) for field, value in values.items()})

    try:
        with path.open("rb") as stream:
            checked = check_file(path.name, stream, keep)
    except OSError as error:
        raise InputRefused(f"{path}: {error.strerror}") from error
    if as_json:
        typer.echo(orjson.dumps(_described(checked, shown), option=orjson.OPT_INDENT_2).decode())
    else:
        _print_file(checked, shown)


def _masked(field: str, value: Value) -> Value:
    """Card numbers by first six and last four; raw records and lines inside lines only by their length."""
    if field == "pan":
        return mask_pan(str(value))
    if field == "asn":
        return mask_pan(str(value).removeprefix("0"))
    if field in ("record", "line"):
        return f"<{len(str(value))} characters>"
    return value


def _described(checked: Checked, shown: list[dict[str, Value]]) -> dict[str, Any]:
    head = checked.head
    return {
        "name": str(head.name),
        "type": head.name.kind,
        "title": LAYOUTS[head.name.kind].title,
        "sender": head.name.sender,
        "receiver": head.name.receiver,
        "clearing_date": head.name.day,
        "sequence": head.name.sequence,
        "created": head.created,
        "count": head.line_count,
        "total_fen": head.total_fen,
        "total_is": LAYOUTS[head.name.kind].total.value,
        "sm3": checked.sm3,
        "size_bytes": checked.size,
        "lines": shown,
    }


def _print_file(checked: Checked, shown: list[dict[str, Value]]) -> None:
    console = _console()
    described = _described(checked, [])
    del described["lines"]
    for label, value in described.items():
        console.print(f"{label.replace('_', ' '):14} {value}")
    console.print("name, header, lines, count, amount and digest agree")
    for number, values in enumerate(shown, 1):
        console.print(f"\nline {number}")
        for field, value in values.items():
            console.print(f"  {field.replace('_', ' '):22} {value}")
    if len(shown) < checked.head.line_count:
        console.print(f"\n{checked.head.line_count - len(shown):,} more lines (--lines)")
