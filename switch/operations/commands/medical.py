"""`cardswitch medical …`: where the medical account pays, and how much of it. Meaning: docs/medical.md."""

import asyncio
import getpass
from datetime import date, datetime
from typing import Annotated, Any

import orjson
import typer

from switch.ledger.medical import PolicyRule
from switch.ledger.medical_desk import end_policy, set_policy, stored_policies
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="The policy of the medical account.")

Fen = Annotated[int | None, typer.Option(min=0, help="Of what is covered, in fen; default: no limit.")]
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Actor = Annotated[str, typer.Option(help="Who answers for it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@app.command("set")
def set_(
    category: Annotated[str, typer.Option(help="Merchant category, four digits.")],
    begins: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First business day.")],
    reason: Reason,
    own_pay_ppm: Annotated[int, typer.Option(min=0, max=1_000_000, help="Never covered, in ppm.")] = 0,
    transaction_fen: Fen = None,
    day_fen: Fen = None,
    year_fen: Fen = None,
    splits: Annotated[
        bool,
        typer.Option(
            "--split/--refuse", help="What is not covered: from the online account, or refuse the whole."
        ),
    ] = True,
    ends: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last business day.")
    ] = None,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Let the medical account pay at a category, from a later business day on. From the first row's day on it pays nowhere else."""
    rule = PolicyRule(
        0,
        category,
        own_pay_ppm,
        transaction_fen,
        day_fen,
        year_fen,
        splits,
        begins.date(),
        ends.date() if ends else None,
    )

    async def work(url: str) -> int:
        async with await connect(url) as connection:
            return await set_policy(connection, rule, actor=actor or getpass.getuser(), reason=reason)

    with open_database(load_settings()) as url:
        number = asyncio.run(work(url))
    if as_json:
        typer.echo(orjson.dumps({"policy_no": number}).decode())
    else:
        typer.echo(f"medical policy {number}: category {category} from {begins:%Y-%m-%d} on")


@app.command("end")
def end(
    policy_no: int,
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last business day.")],
    reason: Reason,
    actor: Actor = "",
) -> None:
    """Let a row end with a business day, the open one or a later. Without another row its category is then refused."""

    async def work(url: str) -> None:
        async with await connect(url) as connection:
            await end_policy(
                connection, policy_no, last.date(), actor=actor or getpass.getuser(), reason=reason
            )

    with open_database(load_settings()) as url:
        asyncio.run(work(url))
    typer.echo(f"medical policy {policy_no} ends with {last:%Y-%m-%d}")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """All rows, with their numbers, by category and time."""

    async def work(url: str) -> list[dict[str, Any]]:
        async with await connect(url) as connection:
            return [_readable(rule) for rule in await stored_policies(connection)]

    with open_database(load_settings()) as url:
        rules = asyncio.run(work(url))
    if as_json:
        typer.echo(orjson.dumps(rules).decode())
        return
    for rule in rules:
        typer.echo(" ".join(f"{name}={value}" for name, value in rule.items() if value is not None))


def _readable(rule: PolicyRule) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in rule._asdict().items()
    }
