"""`cardswitch iso8583`: frames of terminals, for people."""

import sys
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from switch.messages.describe import Description, describe, split_frames
from switch.messages.terminal_1987 import MTI_NAMES

STDIN_CHARACTERS_MAX = 4_000_000
ROW_BYTES = 16

app = typer.Typer(no_args_is_help=True, help="Frames of terminals, explained.")


@app.callback()
def iso8583() -> None:
    """Frames of terminals, explained."""


@app.command("describe")
def describe_command(
    frames: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[HEX]...",
            help="Frames in hexadecimal, with or without LEN; standard input when left out.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Plain JSON, one list of frames.")] = False,
) -> None:
    """Name every field of a frame, masked, and say which byte is wrong and why. Exit 1 when a frame is malformed."""
    text = "\n\n".join(frames) if frames else sys.stdin.read(STDIN_CHARACTERS_MAX + 1)
    if len(text) > STDIN_CHARACTERS_MAX:
        raise typer.BadParameter(f"more than {STDIN_CHARACTERS_MAX} characters")
    try:
        found = [describe(piece) for piece in split_frames(text)]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if as_json:
        typer.echo(orjson.dumps([one.as_json() for one in found], option=orjson.OPT_INDENT_2).decode())
    else:
        console = Console()
        for number, one in enumerate(found, 1):
            if console.is_terminal:
                _show(console, number, one)
            else:
                typer.echo("\n".join(plain_lines(number, one)))
    if any(one.malformed for one in found):
        raise typer.Exit(1)


def plain_lines(number: int, one: Description) -> list[str]:
    """A description as lines of text without colour."""
    lines = [_title(number, one)]
    for line in one.lines:
        name = f"{line.name} {line.chinese}"
        field = f"F{line.field}" if line.field.isdecimal() else line.field
        meaning = f"  ({line.meaning})" if line.meaning else ""
        lines.append(f"  {line.offset:04d} +{line.length:<3d} {field:<6} {name}: {line.value}{meaning}")
        for part in line.parts:
            meaning = f"  ({part.meaning})" if part.meaning else ""
            lines.append(f"  {'':16} - {part.name} {part.chinese}: {part.value}{meaning}")
    lines += verdict_lines(one)
    return [*lines, ""]


def verdict_lines(one: Description) -> list[str]:
    """What is wrong, with the bytes around it and a caret; or that nothing is."""
    lines: list[str] = []
    for fault in one.faults:
        where = f"{'field ' if fault.field[:1].isdecimal() else ''}{fault.field}: " if fault.field else ""
        lines.append(f"  ERROR at byte {fault.offset}: {where}{fault.rule}")
        lines += _caret(one.hexes, fault.offset)
    if one.refusal:
        lines.append(f"  well formed; the switch answers {one.refusal}")
    elif not one.faults:
        lines.append("  well formed")
    return lines


def _caret(hexes: tuple[str, ...], offset: int) -> list[str]:
    """The row of bytes before the one that holds the fault, that row, and a caret; hidden bytes stay hidden."""
    row = min(offset, max(len(hexes) - 1, 0)) // ROW_BYTES * ROW_BYTES
    if offset == len(hexes) and offset % ROW_BYTES == 0:
        row = max(offset - ROW_BYTES, 0)
    lines = [
        f"    {start:04d}  {' '.join(hexes[start : start + ROW_BYTES])}"
        for start in (row - ROW_BYTES, row)
        if start >= 0
    ]
    return [*lines, f"    {'':4}  {'':{3 * (offset - row)}}^^"]


def _title(number: int, one: Description) -> str:
    name = " ".join(MTI_NAMES.get(one.mti, ("unknown message type",)))
    return f"Frame {number}: {one.mti or '????'} {name}"


def _show(console: Console, number: int, one: Description) -> None:
    table = Table(title=_title(number, one), title_justify="left", box=None, pad_edge=False)
    for heading in ("byte", "field", "name", "value", "meaning"):
        table.add_column(heading, overflow="fold")
    for line in one.lines:
        table.add_row(
            str(line.offset),
            line.field,
            f"{line.name} {line.chinese}",
            escape(line.value),
            escape(line.meaning),
        )
        for part in line.parts:
            table.add_row(
                "", "", f"  {part.name} {part.chinese}", escape(part.value), escape(part.meaning), style="dim"
            )
    console.print(table)
    style = "bold red" if one.malformed else "green"
    for text in verdict_lines(one):
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
    console.print()
