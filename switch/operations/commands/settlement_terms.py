"""`cardswitch settlement terms …`: where and how parties are paid. The account number is read from standard input and shown by its end only."""

import asyncio
import getpass
import sys
from datetime import date, datetime
from typing import Annotated, Any

import orjson
import typer

from switch.clearing.settlement.terms import (
    Terms,
    confirm_account,
    list_accounts,
    list_terms,
    propose_account,
    set_terms,
    terms_in_force,
)
from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.domain.money import yuan
from switch.operations.commands.asking import NUMBER_MAX
from switch.operations.commands.registry import vault_of
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(
    no_args_is_help=True, help="Where merchants and institutions are paid, how often, and what stays."
)

Party = Annotated[
    str, typer.Argument(help="Merchant id, or institution id; our own is the account that pays.")
]
Begins = Annotated[
    datetime | None,
    typer.Option("--from", formats=["%Y-%m-%d"], help="First settlement date; default: today."),
]
Ends = Annotated[
    datetime | None,
    typer.Option("--held-until", formats=["%Y-%m-%d"], help="Last settlement date of the hold."),
]
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Actor = Annotated[str, typer.Option(help="Who answers for it; by default who runs this.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Fen = Annotated[int | None, typer.Option(min=0, max=NUMBER_MAX, help="In fen.")]


def _day(chosen: datetime | None) -> date:
    return chosen.date() if chosen else datetime.now(SHANGHAI).date()


def _tell(document: object) -> None:
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


@app.command("account")
def account(
    party: Party,
    name: Annotated[str, typer.Option(help="The account's holder, as the bank has it.")],
    bank: Annotated[str, typer.Option(help="BIC of 8 or 11 characters, or CNAPS number of 12 digits.")],
    reason: Reason,
    begins: Begins = None,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Propose an account, whose number is read from standard input. Nothing is paid there before another person confirms it."""
    settings = load_settings()
    number = typer.prompt("account number", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()

    async def doing(url: str) -> int:
        vault = vault_of(url, settings)
        async with await connect(url) as connection:
            return await propose_account(
                connection,
                vault,
                party,
                account_name=name,
                number=number.strip(),
                bank_code=bank,
                valid_from=_day(begins),
                actor=actor or getpass.getuser(),
                reason=reason,
            )

    with open_database(settings) as url:
        account_no = asyncio.run(doing(url))
    if as_json:
        _tell({"account": account_no, "party": party, "state": "PROPOSED"})
    else:
        typer.echo(
            f"account {account_no} of {party} is proposed: `cardswitch settlement terms confirm {account_no}`"
        )


@app.command("confirm")
def confirm(
    account_no: Annotated[int, typer.Argument(min=1, max=NUMBER_MAX, help="Its number, as `list` shows it.")],
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Put a proposed account in force, by another person. Payouts that were approved for the one before must be approved again."""

    async def doing(url: str) -> str:
        async with await connect(url) as connection:
            return await confirm_account(connection, account_no, actor=actor or getpass.getuser())

    with open_database(load_settings()) as url:
        party = asyncio.run(doing(url))
    if as_json:
        _tell({"account": account_no, "party": party, "state": "CONFIRMED"})
    else:
        typer.echo(f"account {account_no} of {party} is confirmed")


@app.command("set")
def set_(
    party: Party,
    reason: Reason,
    begins: Begins = None,
    minimum_fen: Fen = None,
    cycle: Annotated[
        str | None, typer.Option(help="DAILY, WEEKLY:1 to :7 (Monday is 1), MONTHLY:1 to :28.")
    ] = None,
    held_fen: Fen = None,
    held_all: Annotated[bool, typer.Option("--held-all", help="Nothing is paid.")] = False,
    held_until: Ends = None,
    held_reason: Annotated[str, typer.Option(help="Why it is held.")] = "",
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Set minimum payout, cycle and holds from a settlement date on that is not prepared yet. What is not named stays as it is."""
    holds = held_all or held_fen is not None
    if release and holds:
        raise InputRefused("release: not together with a hold")

    def changed(before: Terms) -> Terms:
        terms = before
        if minimum_fen is not None:
            terms = terms._replace(minimum_fen=minimum_fen)
        if cycle is not None:
            word, _, number = cycle.upper().partition(":")
            if number and not (number.isascii() and number.isdecimal()):
                raise InputRefused("cycle: DAILY, WEEKLY:n or MONTHLY:n")
            terms = terms._replace(cycle=word, cycle_day=int(number) if number else None)
        if holds or release:
            until = held_until.date() if held_until else None
            terms = terms._replace(
                held_all=held_all, held_fen=held_fen or 0, held_until=until, held_reason=held_reason
            )
        elif held_until or held_reason:
            raise InputRefused("held: a reason or an end needs --held-fen or --held-all")
        return terms

    async def doing(url: str) -> tuple[int, Terms]:
        async with await connect(url) as connection:
            terms = changed(await terms_in_force(connection, party, _day(begins)))
            number = await set_terms(
                connection,
                party,
                terms,
                valid_from=_day(begins),
                actor=actor or getpass.getuser(),
                reason=reason,
            )
        return number, terms

    with open_database(load_settings()) as url:
        number, terms = asyncio.run(doing(url))
    if as_json:
        _tell({"terms": number, "party": party, "from": _day(begins), **terms._asdict()})
    else:
        typer.echo(f"terms {number} of {party} hold from the settlement date {_day(begins)} on")


@app.command("list")
def list_(
    party: Annotated[str, typer.Argument(help="Merchant id or institution id; default: all.")] = "",
    as_json: Json = False,
) -> None:
    """Accounts (proposed ones too) and terms, oldest first."""

    async def doing(url: str) -> dict[str, Any]:
        async with await connect(url) as connection:
            return {
                "accounts": await list_accounts(connection, party),
                "terms": await list_terms(connection, party),
            }

    with open_database(load_settings()) as url:
        found = asyncio.run(doing(url))
    if as_json:
        _tell(found)
        return
    for one in found["accounts"]:
        state = f"confirmed by {one['confirmed_by']}" if one["confirmed_by"] else "PROPOSED"
        typer.echo(
            f"account {one['account_no']} of {one['party']} from {one['valid_from']}: {one['account_name']}, {one['mask']} at"
            f" {one['bank_code']}; proposed by {one['proposed_by']}, {state}"
        )
    for one in found["terms"]:
        held = (
            "all held"
            if one["held_all"]
            else f"{yuan(one['held_fen'])} held"
            if one["held_fen"]
            else "nothing held"
        )
        until = f" until {one['held_until']}" if one["held_until"] else ""
        day = f" {one['cycle_day']}" if one["cycle_day"] else ""
        typer.echo(
            f"terms {one['terms_no']} of {one['party']} from {one['valid_from']}: at least {yuan(one['minimum_fen'])}, {one['cycle']}{day},"
            f" {held}{until} {one['held_reason']}".rstrip()
        )
    typer.echo(f"{len(found['accounts'])} accounts, {len(found['terms'])} terms")
