"""`cardswitch export`: a day of the books in forms of other people's tools."""

import asyncio
import sys
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer

from switch.clearing.evidence.plain_text import Tool, export_day
from switch.clearing.whole_files import written_whole
from switch.domain.errors import InputRefused
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(help="Write a day of the books for other people's tools.", no_args_is_help=True)


@app.callback()
def export() -> None:
    """Write a day of the books for other people's tools."""


@app.command()
def journal(
    day: Annotated[
        datetime, typer.Option("--date", formats=["%Y-%m-%d", "%Y%m%d"], help="A closed business date.")
    ],
    tool: Annotated[Tool, typer.Option("--format", help="Whose form.")] = Tool.HLEDGER,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; default: standard output.")
    ] = None,
    detail: Annotated[
        bool, typer.Option("--detail", help="A transaction for each posting, not for each kind of event.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document about the file; with -o.")
    ] = False,
) -> None:
    """Write a closed day as a plain-text accounting journal of hledger or beancount.

    It begins with the opening balances and ends with balance assertions from the float statement, which the tool checks.
    """
    if as_json and output is None:
        raise InputRefused("--json describes the file that -o names")
    with open_database(load_settings()) as url:
        if output is None:
            asyncio.run(_export(url, day.date(), tool, sys.stdout.write, detail=detail))
            return
        with written_whole(output.absolute()) as write:
            count = asyncio.run(
                _export(url, day.date(), tool, lambda text: write(text.encode()), detail=detail)
            )
    if as_json:
        document = {"file": str(output), "day": day.date(), "format": tool.value, "transactions": count}
        typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        typer.echo(f"{output}: {count:,} transactions of {day.date()}")


async def _export(url: str, day: date, tool: Tool, write: Callable[[str], object], *, detail: bool) -> int:
    async with await connect(url) as connection:
        return await export_day(connection, day, tool, write, detail=detail)
