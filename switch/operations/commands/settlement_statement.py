"""`cardswitch settlement statement …`: statements (camt.053) and notifications (camt.054) of the custody bank. Format: docs/iso20022.md."""

import asyncio
import getpass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from switch.clearing.settlement.statements import (
    StatementTerms,
    Taken,
    list_odd,
    list_statements,
    take_statement,
)
from switch.domain.money import yuan
from switch.operations.commands.registry import vault_of
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="What the custody bank says.")
Actor = Annotated[str, typer.Option(help="Who answers for it; by default who runs this.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
ODD = ("AMOUNT", "TWICE", "UNEXPLAINED")


def _tell(document: object) -> None:
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


@app.command("take")
def take(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, readable=True)],
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Take statements in. Again: nothing happens twice. Exit 1 when an entry needs somebody to look into it."""
    settings = load_settings()
    terms = StatementTerms(
        settings.institution.own_id,
        tuple(range(settings.database.shards)),
        settings.settlement.statement_mb_max << 20,
    )

    async def doing(url: str) -> list[Taken]:
        vault = vault_of(url, settings)
        found = []
        async with await connect(url) as connection:
            for path in files:
                found += await take_statement(
                    connection, path, terms, vault, actor=actor or getpass.getuser()
                )
        return found

    with open_database(settings) as url:
        taken = asyncio.run(doing(url))
    if as_json:
        _tell([one._asdict() for one in taken])
    else:
        for one in taken:
            words = ", ".join(
                f"{count} {outcome} {yuan(fen)}" for outcome, (count, fen, _) in one.counts.items()
            )
            again = " (taken before)" if one.again else ""
            typer.echo(f"{one.kind} {one.statement_id}{again}: {words or 'no entries'}")
    if any(outcome in ODD for one in taken for outcome in one.counts):
        raise typer.Exit(1)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """The newest statements: balances, gaps between them, and how far the bank is from the books."""
    with open_database(load_settings()) as url:
        found = asyncio.run(_statements(url))
    if as_json:
        _tell(found)
        return
    for one in found:
        typer.echo(f"{one['kind']} {one['statement_id']}: {one['entry_count']} entries{_balances(one)}")
    typer.echo(f"{len(found)} statements")


def _balances(one: dict[str, Any]) -> str:
    if one["closing_fen"] is None:
        return ""
    words = f", opening {yuan(one['opening_fen'])}, closing {yuan(one['closing_fen'])}"
    if one["gap_fen"]:
        words += f"; GAP of {yuan(one['gap_fen'])} to the statement before: one is missing"
    if one["books_fen"] is not None:
        words += f"; by the books {yuan(one['books_fen'])}, difference {yuan(one['closing_fen'] - one['books_fen'])}"
    return words


async def _statements(url: str) -> list[dict[str, Any]]:
    async with await connect(url) as connection:
        return await list_statements(connection)


@app.command("odd")
def odd(
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Also what a notification said and no statement yet.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Entries that nobody can explain, the newest first: wrong amounts, second payments, strangers' money in suspense."""

    async def doing(url: str) -> list[dict[str, Any]]:
        async with await connect(url) as connection:
            return await list_odd(connection, waiting=waiting)

    with open_database(load_settings()) as url:
        found = asyncio.run(doing(url))
    if as_json:
        _tell(found)
        return
    for one in found:
        sign = "" if one["is_credit"] else "-"
        typer.echo(
            f"{one['statement_id']}/{one['line']}  {one['booked_on']}  {sign}{yuan(one['amount_fen'])}  {one['outcome']}"
            f"  {one['payout_id'] or one['end_to_end_id']}  in suspense {yuan(one['suspense_fen'])}"
        )
    typer.echo(f"{len(found)} entries")
