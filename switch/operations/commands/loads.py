"""`cardswitch loads …`: loads of purses that need somebody to look at them. States: docs/loads.md."""

import asyncio
import getpass
from datetime import datetime
from typing import Annotated, Any

import orjson
import typer

from switch.clearing.reconcile.desk import evidence_of_load
from switch.domain.errors import InputRefused
from switch.domain.money import yuan
from switch.ledger.card_states import shown
from switch.ledger.load_desk import list_loads, load_history, settle
from switch.ledger.load_states import LoadState
from switch.operations.commands.asking import NUMBER_MAX
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect, connect_writer

app = typer.Typer(no_args_is_help=True, help="Loads of purses, and what is in suspense.")

Number = Annotated[int, typer.Argument(min=1, max=NUMBER_MAX, help="Number of the load, as `list` shows it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
_DECISIONS = {"loaded": LoadState.LOADED, "returned": LoadState.RETURNED}


@app.command("list")
def list_(
    state: Annotated[list[str] | None, typer.Option(help="States; by default SUSPENSE.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=NUMBER_MAX, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """Loads by state, the oldest first."""
    try:
        states = [LoadState[name.upper()] for name in state or ["SUSPENSE"]]
    except KeyError as error:
        raise InputRefused(f"state: one of {', '.join(LoadState.__members__)}") from error

    async def read(url: str) -> list[dict[str, Any]]:
        async with await connect(url) as connection:
            return await list_loads(connection, states, limit)

    with open_database(load_settings()) as url:
        found = asyncio.run(read(url))
    if as_json:
        typer.echo(orjson.dumps(found).decode())
        return
    for one in found:
        at = shown(datetime.fromisoformat(one["authorised_at"]))
        typer.echo(
            f"{one['load']:>10}  {at}  card_no {one['card_no']}  {yuan(one['amount_fen']):>12}  {one['source']:10}"
            f"  {one['state']:10}  {one['reason']}, money in {one['money']}"
        )
    typer.echo(f"{len(found)} loads")


@app.command("show")
def show(load: Number, as_json: Json = False) -> None:
    """Everything that happened to a load."""

    async def read(url: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        async with await connect(url) as connection:
            return await load_history(connection, load), await evidence_of_load(connection, load)

    with open_database(load_settings()) as url:
        steps, evidence = asyncio.run(read(url))
    if not steps:
        raise InputRefused("load: no such load")
    if as_json:
        typer.echo(orjson.dumps(steps).decode())
        return
    for step in steps:
        at = shown(datetime.fromisoformat(step["at"]))
        words = [step["reason"], step["note"], step["posting"]]
        typer.echo(f"{at}  {step['to']:10}  {'; '.join(word for word in words if word)}")
    for said in evidence:
        typer.echo(
            f"{said['partner']} on {said['business_date']}: {said['says']} (difference {said['difference']})"
        )


@app.command("settle")
def settle_(
    load: Number,
    outcome: Annotated[str, typer.Option("--as", help="loaded or returned.")],
    reason: Annotated[str, typer.Option(help="What was seen; kept for ever.")],
    checker: Annotated[str, typer.Option(help="The second person.")],
    actor: Annotated[str, typer.Option(help="Who decides; by default who runs this.")] = "",
    as_json: Json = False,
) -> None:
    """調賬: two people settle a load in suspense, within 30 days. The card's own proof, should it come, counts more."""
    to = _DECISIONS.get(outcome)
    if to is None:
        raise InputRefused(f"as: one of {', '.join(_DECISIONS)}")
    with open_database(load_settings()) as url:
        done = asyncio.run(
            settle(
                lambda: connect_writer(url),
                load,
                to,
                actor=actor or getpass.getuser(),
                checker=checker,
                reason=reason,
            )
        )
    if as_json:
        document = {"load": done.entry_no, "state": done.state.name, "at": done.at.isoformat()}
        typer.echo(orjson.dumps(document).decode())
    else:
        typer.echo(f"load {done.entry_no} is {done.state.name} since {shown(done.at)}")
