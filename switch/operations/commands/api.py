"""`cardswitch api token …`: who may read over HTTP. docs/api.md."""

import asyncio
from typing import Annotated, Any

import orjson
import typer

from switch.ledger.card_states import shown
from switch.operations.api import tokens
from switch.operations.commands.asking import actor
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="The API under /api/v1.")
token = typer.Typer(no_args_is_help=True, help="Who may read over HTTP.")
app.add_typer(token, name="token")

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@token.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose it is, for people.")],
    role: Annotated[
        str, typer.Option(help="regulator, operator, auditor, member:<institution> or merchant:<merchant>.")
    ],
    days: Annotated[int, typer.Option(min=1, max=tokens.DAYS_MAX, help="It holds so long.")] = 365,
    as_json: Json = False,
) -> None:
    """Make a token and print it, this once: only its digest is kept."""
    chosen, party = tokens.parse_role(role)

    async def make(url: str) -> tokens.Made:
        async with await connect(url) as connection:
            return await tokens.add(connection, name, chosen, party, days=days, actor=actor())

    with open_database(load_settings()) as url:
        made = asyncio.run(make(url))
    if as_json:
        document = {"number": made.token_no, "token": made.text, "role": role, "expires_at": made.expires_at}
        typer.echo(orjson.dumps(document).decode())
    else:
        typer.echo(made.text)
        typer.echo(
            f"token {made.token_no} for {name}, {role}, until {shown(made.expires_at)}. It is kept nowhere: hand it over now.",
            err=True,
        )


@token.command("list")
def list_(as_json: Json = False) -> None:
    """Every token that was ever made; none of them can be read back."""

    async def read(url: str) -> list[dict[str, Any]]:
        async with await connect(url) as connection:
            return await tokens.listed(connection)

    with open_database(load_settings()) as url:
        found = asyncio.run(read(url))
    if as_json:
        typer.echo(orjson.dumps(found).decode())
        return
    for one in found:
        until = f"until {shown(one['expires_at'])}" if one["state"] == "valid" else one["state"]
        typer.echo(f"{one['token']:>6}  {one['role']:<25}  {until:<28}  {one['name']}")
    typer.echo(f"{len(found)} tokens")


@token.command("revoke")
def revoke(
    number: Annotated[int, typer.Argument(min=1, help="As `list` shows it.")], as_json: Json = False
) -> None:
    """End a token: from now on it is 401, in every process."""

    async def end(url: str) -> str:
        async with await connect(url) as connection:
            return await tokens.revoke(connection, number, actor())

    with open_database(load_settings()) as url:
        name = asyncio.run(end(url))
    if as_json:
        typer.echo(orjson.dumps({"number": number, "name": name, "state": "revoked"}).decode())
    else:
        typer.echo(f"token {number} of {name} holds no more")
