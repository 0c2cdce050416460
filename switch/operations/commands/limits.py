"""`cardswitch limits …`: what may be spent in a transaction, a day and a month. Meaning: docs/operations.md, section 18."""

import asyncio
import getpass
from datetime import date, datetime
from typing import Annotated, Any

import orjson
import typer

from switch.domain.errors import InputRefused
from switch.ledger.limit_desk import end_limit, set_limit, stored_limits
from switch.ledger.limits import LimitRule
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="Limits per transaction, day and month.")

KINDS = {"ONLINE": 10, "MEDICAL": 40}
Day = Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First business day.")]
LastDay = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last business day.")]
Fen = Annotated[int | None, typer.Option(min=0, help="In fen.")]
Count = Annotated[int | None, typer.Option(min=0, help="Number of transactions.")]
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Actor = Annotated[str, typer.Option(help="Who answers for it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@app.command("set")
def set_(
    account: Annotated[str, typer.Option(help="ONLINE or MEDICAL.")],
    begins: Day,
    reason: Reason,
    product: Annotated[
        str | None, typer.Option(help="Digits 7 and 8 of the card number; default: all.")
    ] = None,
    transaction_fen: Fen = None,
    day_fen: Fen = None,
    month_fen: Fen = None,
    day_count: Count = None,
    month_count: Count = None,
    ends: LastDay = None,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Set a limit from a later business day on. Again with the same words: goes on where it was stopped."""
    if account not in KINDS:
        raise typer.BadParameter("is ONLINE or MEDICAL", param_hint="--account")
    if product is not None and not (len(product) == 2 and product.isascii() and product.isdecimal()):
        raise InputRefused("product: two digits")
    last = ends.date() if ends else None
    rule = LimitRule(
        KINDS[account],
        product,
        transaction_fen,
        day_fen,
        month_fen,
        day_count,
        month_count,
        begins.date(),
        last,
    )

    async def work(url: str, shards: int) -> tuple[int, int]:
        async with await connect(url) as connection:
            return await set_limit(
                connection, rule, range(shards), actor=actor or getpass.getuser(), reason=reason
            )

    settings = load_settings()
    with open_database(settings) as url:
        number, accounts = asyncio.run(work(url, settings.database.shards))
    if as_json:
        typer.echo(orjson.dumps({"rule_no": number, "accounts": accounts}).decode())
    else:
        typer.echo(f"limit {number}: counted from {begins:%Y-%m-%d} on, new for {accounts} accounts")


@app.command("end")
def end(
    rule_no: int,
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last business day.")],
    reason: Reason,
    actor: Actor = "",
) -> None:
    """Let a limit end with a business day, the open one or a later."""

    async def work(url: str) -> None:
        async with await connect(url) as connection:
            await end_limit(connection, rule_no, last.date(), actor=actor or getpass.getuser(), reason=reason)

    with open_database(load_settings()) as url:
        asyncio.run(work(url))
    typer.echo(f"limit {rule_no} ends with {last:%Y-%m-%d}")


@app.command("show")
def show(as_json: Json = False) -> None:
    """All limits, with their numbers."""

    async def work(url: str) -> list[dict[str, Any]]:
        async with await connect(url) as connection:
            return [
                {"rule_no": one.rule_no, **_readable(one.rule)} for one in await stored_limits(connection)
            ]

    with open_database(load_settings()) as url:
        rules = asyncio.run(work(url))
    if as_json:
        typer.echo(orjson.dumps(rules).decode())
        return
    for rule in rules:
        typer.echo(" ".join(f"{name}={value}" for name, value in rule.items() if value is not None))


def _readable(rule: LimitRule) -> dict[str, Any]:
    names = {number: name for name, number in KINDS.items()}
    fields = {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in rule._asdict().items()
    }
    return fields | {"account_kind": names[rule.account_kind]}
