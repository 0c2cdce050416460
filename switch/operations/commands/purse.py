"""`cardswitch purse …`: shadow purses, what has not come, and alarms. What each number means: docs/purse_shadow.md."""

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import typer

from switch.domain.errors import InputRefused
from switch.operations.commands import purse_documents as documents
from switch.operations.commands import purse_text as text
from switch.operations.commands.purse_report import report_lines, write_report
from switch.purse import alarms as work_list
from switch.purse import completeness
from switch.purse.card_view import find_purse, view_card
from switch.purse.counters import BY_NAME, BY_NUMBER
from switch.purse.device_view import view_device
from switch.purse.shadow import Connection
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Shadow purses, missing records, alarms.")
alarms_app = typer.Typer(help="What somebody must look into.")
app.add_typer(alarms_app, name="alarms")

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Actor = Annotated[str, typer.Option(help="Who answers for it; by default who runs this.")]
Reason = Annotated[str, typer.Option(help="What was found; kept for ever.")]
Numbers = Annotated[list[int], typer.Argument(help="Numbers of alarms, as the list shows them.")]


def _ask(question: Callable[[Connection], Awaitable[T]]) -> T:
    async def ask(url: str) -> T:
        async with await connect(url) as connection:
            return await question(connection)

    with open_database(load_settings()) as url:
        return asyncio.run(ask(url))


def _say(document: Any, lines: Iterator[str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(document).decode())
        return
    for line in lines:
        typer.echo(line)


@app.command("card")
def card(
    card: Annotated[
        str,
        typer.Argument(help="Card number, or card_no as reports name it; - reads it from standard input."),
    ],
    last: Annotated[int, typer.Option(min=0, help="Records shown; breaks and holes are always shown.")] = 20,
    as_json: Json = False,
) -> None:
    """One card's shadow: balance and chain, expected counter, holes, collisions, grey records, loads, alarms."""
    number = sys.stdin.readline().strip() if card == "-" else card

    async def read(connection: Connection) -> Any:
        return await view_card(connection, await find_purse(connection, number))

    view = _ask(read)
    _say(documents.card(view), text.card(view, last), as_json=as_json)


@app.command("psam")
def psam(
    psam_no: Annotated[str, typer.Argument(help="PSAM number, 12 digits.")], as_json: Json = False
) -> None:
    """One PSAM: where it is, what is expected and what has come, holes, collisions."""

    async def read(connection: Connection) -> Any:
        return await view_device(connection, psam=await completeness.find_psam(connection, psam_no))

    view = _ask(read)
    _say(documents.device(view), text.device(view), as_json=as_json)


@app.command("terminal")
def terminal(
    terminal_id: Annotated[str, typer.Argument(help="Terminal id, 8 characters.")], as_json: Json = False
) -> None:
    """One terminal and its PSAMs: what is expected and what has come, holes, damaged records, alarms."""

    async def read(connection: Connection) -> Any:
        return await view_device(
            connection, terminal=await completeness.find_terminal(connection, terminal_id)
        )

    view = _ask(read)
    _say(documents.device(view), text.device(view), as_json=as_json)


@app.command("missing")
def missing(
    terminal: Annotated[
        list[str] | None, typer.Option(help="Only of this terminal and its PSAMs; may be repeated.")
    ] = None,
    older_than: Annotated[
        int, typer.Option(min=0, max=36_500, help="Only what has been missing for so many days.")
    ] = 0,
    counter: Annotated[
        list[str] | None, typer.Option(help="Only this kind of counter; may be repeated.")
    ] = None,
    cards: Annotated[bool, typer.Option("--cards", help="Cards too.")] = False,
    as_json: Json = False,
) -> None:
    """Expected and received by PSAM and terminal, and what is missing, as ranges with their age."""
    if unknown := [name for name in counter or () if name not in BY_NAME]:
        raise InputRefused(f"counter: {len(unknown)} unknown; one of {', '.join(BY_NAME)}")
    kinds = [BY_NAME[name].number for name in counter or ()]
    if not kinds:
        kinds = list(BY_NUMBER if cards else completeness.NOT_CARDS)

    async def read(connection: Connection) -> completeness.Missing:
        terminals = None
        if terminal:
            terminals = [await completeness.find_terminal(connection, name) for name in terminal]
        return await completeness.missing(connection, terminals=terminals, kinds=kinds, older_than=older_than)

    found = _ask(read)
    _say(documents.missing(found), text.missing(found), as_json=as_json)


@app.command("report")
def report(
    day: Annotated[
        datetime, typer.Option("--date", formats=["%Y-%m-%d", "%Y%m%d"], help="Business date of what came.")
    ],
    folder: Annotated[
        Path | None, typer.Option(help="Where to write missing-DATE.csv; without it: standard output.")
    ] = None,
    merchant: Annotated[
        list[str] | None, typer.Option(help="Only this merchant's devices; may be repeated.")
    ] = None,
) -> None:
    """A day's report of completeness as CSV, for a depot: what each device brought, and what is missing now. No card is in it."""
    found, came = _ask(lambda connection: completeness.report(connection, day.date()))
    lines = report_lines(day.date(), found, came, frozenset(merchant or ()))
    if folder is None:
        sys.stdout.write("".join(lines))
        return
    typer.echo(f"written: {write_report(folder, day.date(), lines)}")


# ---------------------------------------------------------------------- alarms


@alarms_app.callback(invoke_without_command=True)
def alarms(
    context: typer.Context,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind; may be repeated.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Acknowledged ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 100,
    as_json: Json = False,
) -> None:
    """Alarms that nobody has acknowledged, the newest last."""
    if context.invoked_subcommand is not None:
        return
    found = _ask(
        lambda connection: work_list.list_alarms(connection, kinds=kind or (), every=every, at_most=limit)
    )
    _say([documents.alarm(one) for one in found], text.alarms(found, limit), as_json=as_json)


@alarms_app.command("show")
def show(number: Annotated[int, typer.Argument(help="Number of the alarm.")], as_json: Json = False) -> None:
    """One alarm with the evidence of both records, and what people have said about it."""
    case = _ask(lambda connection: work_list.case_of(connection, number))
    _say(documents.case(case), text.case(case), as_json=as_json)


def _note(numbers: list[int], reason: str, actor: str, *, acknowledged: bool) -> None:
    who = actor or _user()
    _ask(
        lambda connection: work_list.note(
            connection, numbers, acknowledged=acknowledged, actor=who, reason=reason
        )
    )
    typer.echo(f"{len(set(numbers))} alarms {'acknowledged' if acknowledged else 'open again'}, by {who}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return f"uid {os.getuid()}"


@alarms_app.command("acknowledge")
def acknowledge(numbers: Numbers, reason: Reason, actor: Actor = "") -> None:
    """Note that alarms have been looked into. No book changes; all of them are noted, or none."""
    _note(numbers, reason, actor, acknowledged=True)


@alarms_app.command("reopen")
def reopen(numbers: Numbers, reason: Reason, actor: Actor = "") -> None:
    """Put acknowledged alarms back on the list."""
    _note(numbers, reason, actor, acknowledged=False)
