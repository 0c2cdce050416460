"""`cardswitch settlement statement …`: statements (camt.053) and notifications (camt.054) of the custody bank. Format: docs/iso20022.md."""

import asyncio
import getpass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from switch.clearing.settlement.resolving import EntryName, Part, Resolution, Resolved, resolve_entry
from switch.clearing.settlement.statements import (
    StatementTerms,
    Taken,
    list_odd,
    list_statements,
    take_statement,
)
from switch.clearing.settlement.turn import SettlementRefused
from switch.domain.money import yuan
from switch.operations.commands.registry import vault_of
from switch.settings import Settings, load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="What the custody bank says.")
Actor = Annotated[str, typer.Option(help="Who answers for it; by default who runs this.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
ODD = ("AMOUNT", "TWICE", "UNEXPLAINED")


def _tell(document: object) -> None:
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def _terms(settings: Settings) -> StatementTerms:
    return StatementTerms(
        settings.institution.own_id,
        tuple(range(settings.database.shards)),
        settings.settlement.statement_mb_max << 20,
    )


@app.command("take")
def take(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, readable=True)],
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Take statements in. Again: nothing happens twice. Exit 1 when an entry needs somebody to look into it."""
    settings = load_settings()
    terms = _terms(settings)

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
    """Entries of which something lies in suspense still, the newest first: wrong amounts, second payments, strangers' money."""

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
            f"  {one['payout_id'] or one['end_to_end_id']}  in suspense {yuan(one['rest_fen'])}"
        )
    typer.echo(f"{len(found)} entries")


def _part(text: str) -> Part:
    party, _, fen = text.partition(":")
    digits = fen.removeprefix("-")
    if not party or not (digits.isascii() and digits.isdecimal() and len(digits) <= 15):
        raise SettlementRefused("part: PARTY:FEN, as 99993310:120000; with a minus what went the other way")
    return Part(party, int(fen))


@app.command("resolve")
def resolve(
    statement: Annotated[str, typer.Argument(help="The bank's id of the statement, as `odd` shows it.")],
    line: Annotated[int, typer.Argument(min=1, help="The entry's place in it.")],
    action: Annotated[str, typer.Option("--as", help="paid-by, paid-to, collection or sent-back.")],
    reason: Annotated[str, typer.Option(help="Why; kept for ever.")],
    checker: Annotated[str, typer.Option(help="The second person.")],
    party: Annotated[
        str, typer.Option(help="Whose all of it was: an institution, a merchant, or FUND.")
    ] = "",
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="PARTY:FEN, again for each; together they are the entry."),
    ] = None,
    collection: Annotated[str, typer.Option(help="Number of the open collection that it pays.")] = "",
    entry: Annotated[str, typer.Option(help="STATEMENT/LINE of its way back.")] = "",
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Two people say whose an entry was that nobody could explain, and its money leaves suspense. Again: nothing happens twice."""
    settings = load_settings()
    if party and part:
        raise SettlementRefused("party: one for all of it, or parts")
    asked = Resolution(
        action,
        (Part(party),) if party else tuple(_part(one) for one in part or ()),
        collection or None,
        EntryName.parse(entry) if entry else None,
    )

    async def doing(url: str) -> Resolved:
        async with await connect(url) as connection:
            return await resolve_entry(
                connection,
                EntryName(statement, line),
                asked,
                _terms(settings),
                actor=actor or getpass.getuser(),
                checker=checker,
                reason=reason,
            )

    with open_database(settings) as url:
        done = asyncio.run(doing(url))
    if as_json:
        _tell(done._asdict())
    else:
        again = " (it was before; nothing was changed)" if done.again else ""
        typer.echo(
            f"{statement}/{line} is resolved as {done.action} on {done.business_date}: {yuan(done.fen)} left suspense{again}"
        )
