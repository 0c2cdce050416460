"""`cardswitch files`: the clearing files of a day, checked; `show NAME` reads one for people; `take FILE…` takes files in; `lint FILE…` explains faults; `resend NAME` sends again."""

import asyncio
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import psycopg
import typer
from rich.console import Console
from rich.table import Table

from switch.clearing.close import day_folder
from switch.clearing.day_files import SQL, Connection, FileRow, FileState, inspect, read_rows
from switch.clearing.disputes.incoming import DISPUTES, decide_for_members
from switch.clearing.files import Checked, FileStatus, check_file, parse_name
from switch.clearing.layouts import LAYOUTS, Value
from switch.clearing.lint import FAULTS_SHOWN, lint_file
from switch.clearing.lint.__main__ import MOST_FAULTS, read_keys
from switch.clearing.lint.__main__ import as_json as lint_json
from switch.clearing.lint.__main__ import as_text as lint_text
from switch.clearing.received import Receipt, Terms, take_file
from switch.clearing.reconcile.blocks import KIND as COMPARED
from switch.clearing.resends import Resend, read_resends
from switch.clearing.resends import resend as make_resend
from switch.clearing.signatures import stored_signatures
from switch.clearing.taking import kinds
from switch.domain.errors import DatabaseLost, InputRefused
from switch.domain.identifiers import mask_pan
from switch.domain.money import yuan
from switch.keys.opening import open_vault
from switch.operations.commands.asking import actor
from switch.operations.commands.close import file_signer
from switch.operations.commands.interop_terms import centre_terms
from switch.operations.commands.reconcile import take_all as take_compared
from switch.purse.intake import inline_tacs
from switch.settings import Settings, load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import LOST, connect, connect_writer, plan_once

app = typer.Typer(help="List a day's clearing files and check them.")

_SHOWN_LINES_MAX = 100_000
_TELL_EVERY = 100_000  # lines


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
        rows += await _sent_again(connection, day, {row.name: row for row in rows})
    if not rows:
        raise InputRefused(f"business day {day} has no files: it is not closed")
    return day, [inspect(day_folder(folder, day), row) for row in rows]


async def _sent_again(connection: Connection, day: date, originals: dict[str, FileRow]) -> list[FileRow]:
    resends = await read_resends(connection, day)
    signed = await stored_signatures(connection, [again.name for again in resends])
    return [
        originals[again.original]._replace(
            name=again.name,
            sm3=again.sm3,
            size_bytes=again.size_bytes,
            signature=signed[again.name].hex() if again.name in signed else None,
        )
        for again in resends
    ]


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


@app.command()
def lint(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Clearing files of any type.")],
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key", help="Public key (PEM or hex) that checks the .sig beside a file; may be repeated."
        ),
    ] = None,
    faults: Annotated[
        int, typer.Option("--faults", min=1, max=MOST_FAULTS, help="Faults shown of a file.")
    ] = FAULTS_SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Say everything that is wrong with files, by line and column, and what was expected. Needs no settings and no database.

    Where this command is not installed, `python -m switch.clearing.lint` does the same with the standard library alone.
    """
    try:
        keys = read_keys(key or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--key") from error
    reports = [lint_file(path, most=faults, keys=keys) for path in paths]
    typer.echo(lint_json(reports) if as_json else "\n".join(map(lint_text, reports)))
    if not all(report.good for report in reports):
        raise typer.Exit(1)


@app.command()
def resend(
    name: Annotated[str, typer.Argument(help="The file, or an earlier generation of it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept for ever.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Send a closed day's file again: the same lines under the next sequence number. The file itself stays as it is.

    A run that was stopped is ended by the next one. Partners get the new file like any other (`cardswitch deliver`).
    """
    if not reason.strip():
        raise InputRefused("a reason must be given")
    settings = load_settings()
    folder = day_folder(settings.clearing_folder, parse_name(name).day)
    with open_database(settings) as url:
        done = asyncio.run(_resend(url, settings, folder, name, reason.strip()))
    if as_json:
        typer.echo(orjson.dumps(done._asdict(), option=orjson.OPT_INDENT_2).decode())
    else:
        said = "had been begun and is complete now" if done.finished else "is written"
        typer.echo(f"{done.name} {said}: {done.original} again, {folder / done.name}")


async def _resend(url: str, settings: Settings, folder: Path, name: str, reason: str) -> Resend:
    signer = file_signer(url, settings)
    async with await connect(url) as connection:
        return await make_resend(connection, folder, name, reason, actor(), signer)


@app.command()
def take(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files as they were sent, under their names.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Take in files of depots (XF), what comes from other cities (DF, DT; at a centre FH, DT), members' cases (ER) and items (CM), whole or not at all.

    Exit 1 when one is refused.

    Run again after a stop it goes on, and each line counts once; a file that was taken before gives its receipt again.
    """
    settings = load_settings()
    console = _console()
    console.stderr = True
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if done - told >= _TELL_EVERY or done == total:
            told = done
            console.print(f"{done:,} of {total:,} lines")

    with open_database(settings) as url:
        receipts = asyncio.run(take_all(url, settings, paths, tell))
    if as_json:
        document = [receipt._asdict() for receipt in receipts]
        typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        for receipt in receipts:
            typer.echo(_receipt_text(receipt))
    if any(receipt.status != FileStatus.TAKEN for receipt in receipts):
        raise typer.Exit(1)


async def take_all(
    url: str, settings: Settings, paths: list[Path], tell: Callable[[int, int], None]
) -> list[Receipt]:
    """Take files one after the other. Raises InputRefused for what is no file that is taken here; all else ends in a receipt."""
    with psycopg.connect(url) as plain:
        digest_all = inline_tacs(open_vault(plain, settings.unlock))
    at = settings.institution
    terms = Terms(at.own_id, at.centre_id, settings.database.shards, actor(), settings.interop.centre_id)
    try:
        # A run that stands still in the middle of a block holds the purse's gate, and the close would wait for it.
        async with await connect_writer(url) as connection:
            await plan_once(connection)
            kind_of = kinds(
                connection, terms, digest_all, centre_terms(settings) if settings.interop.serve else None
            )
            receipts: list[Receipt] = []
            for path in paths:
                if path.name.startswith(COMPARED):
                    receipts += await take_compared(url, settings, [path], tell)
                else:
                    receipts.append(await take_file(connection, path, terms, kind_of, tell))
        if settings.disputes.auto_accept and any(receipt.file.startswith(DISPUTES) for receipt in receipts):
            await decide_for_members(lambda: connect_writer(url))
    except LOST as error:
        raise DatabaseLost(
            "the database was lost; run the same command again: it goes on where it stopped"
        ) from error
    return receipts


def _receipt_text(receipt: Receipt) -> str:
    """A receipt for people: a line, and one for each result."""
    if receipt.status != FileStatus.TAKEN:
        return f"{receipt.file}: refused ({receipt.status}): {receipt.reason}"
    head = f"{receipt.file}: {receipt.lines:,} lines, {yuan(receipt.total_fen)}, taken on {receipt.business_date}"
    if receipt.repeated:
        head += ", before: nothing was done now"
    rows = [
        f"  {code:7}  {count:>10,}  {yuan(fen):>16}" for code, (count, fen) in sorted(receipt.results.items())
    ]
    if receipt.missing:
        rows.append(
            f"  missing before it: sequence {', '.join(f'{number:03d}' for number in receipt.missing)}"
        )
    return "\n".join((head, *rows))
