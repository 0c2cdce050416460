"""`cardswitch cases`: errors and adjustments 差錯、調賬. Who may ask for what, until when, and what it moves: docs/disputes.md."""

import asyncio
import csv
import getpass
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import typer
from psycopg import AsyncConnection

from switch.clearing.disputes import deciding, views
from switch.clearing.disputes.cases import ask, open_case
from switch.clearing.disputes.evidence import Store, add_evidence
from switch.clearing.disputes.incoming import decide_for_members
from switch.clearing.disputes.originals import Original, find_load, find_transaction
from switch.clearing.disputes.states import Action
from switch.clearing.disputes.steps import Ask, Done
from switch.domain.errors import InputRefused
from switch.domain.money import yuan
from switch.ledger.card_states import shown
from switch.operations.commands.asking import NUMBER_MAX
from switch.settings import Settings, load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect_writer

app = typer.Typer(no_args_is_help=True, help="Cases about transactions: adjustments, chargebacks, evidence.")

MEGABYTE = 1 << 20
Number = Annotated[int, typer.Argument(min=1, max=NUMBER_MAX, help="Number of the case, as `list` shows it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Csv = Annotated[bool, typer.Option("--csv", help="CSV with a header line.")]
Actor = Annotated[str, typer.Option(help="Who does it; default: the login name.")]
Why = Annotated[str, typer.Option(help="What was seen; kept for ever.")]
Reason = Annotated[str, typer.Option(help="Reason code of two characters: docs/disputes.md.")]
Amount = Annotated[
    int | None, typer.Option("--amount", min=1, max=NUMBER_MAX, help="Fen; default: the whole.")
]
Outcome = Annotated[str, typer.Option("--as", help="Of a load (08): loaded or returned.")]
What = Annotated[Action, typer.Option("--action", help="01 to 08.")]
Limit = Annotated[int, typer.Option(min=1, max=views.LISTED_MAX, help="At most so many.")]
Days = ["%Y-%m-%d", "%Y%m%d"]
T = TypeVar("T")
Connection = AsyncConnection[Any]


def _run(work: Callable[[Connection, Settings, str], Awaitable[T]]) -> T:
    settings = load_settings()

    async def run(url: str) -> T:
        async with await connect_writer(url) as connection:
            return await work(connection, settings, url)

    with open_database(settings) as url:
        return asyncio.run(run(url))


def _say(document: object, text: str, *, as_json: bool) -> None:
    typer.echo(orjson.dumps(document).decode() if as_json else text)


def _told(done: Done, *, as_json: bool) -> None:
    text = f"case {done.case_no} is {done.state} since {shown(done.at)}, business date {done.business_date}"
    if done.waits:
        text += "; it waits for another person: `cardswitch cases approve` or `deny`"
    if done.entry_no is not None:
        text += f"; booked as {done.entry_no}"
    _say(done._asdict(), text, as_json=as_json)


@app.command("open")
def open_(
    action: What,
    reason: Reason,
    why: Why,
    day: Annotated[
        datetime | None, typer.Option("--date", formats=Days, help="Clearing date of the transaction.")
    ] = None,
    entry: Annotated[int, typer.Option(min=0, max=NUMBER_MAX, help="Its entry number.")] = 0,
    rrn: Annotated[str, typer.Option(help="Or its retrieval reference (field 37), of an online one.")] = "",
    load: Annotated[
        int, typer.Option(min=0, max=NUMBER_MAX, help="Or the number of a load in suspense.")
    ] = 0,
    amount: Amount = None,
    outcome: Outcome = "",
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Open a case with its first action. Nothing moves before another person approves it."""
    if (
        (bool(load) + bool(entry or rrn)) != 1
        or bool(entry) + bool(rrn) > 1
        or bool(load) == (day is not None)
    ):
        raise InputRefused("transaction: --date with --entry or --rrn, or --load")
    asked = Ask(action, reason, why, actor or getpass.getuser(), amount, outcome)

    async def work(connection: Connection, settings: Settings, _url: str) -> Done:
        own_id = settings.institution.own_id
        original: Original
        if load:
            original = await find_load(connection, load, own_id)
        else:
            assert day is not None
            original = await find_transaction(connection, day.date(), own_id, entry_no=entry, rrn=rrn)
        return await open_case(connection, original, asked)

    _told(_run(work), as_json=as_json)


@app.command("ask")
def ask_(
    case: Number,
    action: What,
    reason: Reason,
    why: Why,
    amount: Amount = None,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Ask for the next action of an open case, such as 05 after 04."""
    asked = Ask(action, reason, why, actor or getpass.getuser(), amount)
    _told(_run(lambda connection, _settings, _url: ask(connection, case, asked)), as_json=as_json)


@app.command()
def approve(case: Number, actor: Actor = "", as_json: Json = False) -> None:
    """Carry out what waits, as another person than the one who asked. The money moves on the open business day."""

    async def work(_connection: Connection, _settings: Settings, url: str) -> Done:
        return await deciding.decide(lambda: connect_writer(url), case, checker=actor or getpass.getuser())

    _told(_run(work), as_json=as_json)


@app.command()
def deny(case: Number, why: Why, actor: Actor = "", as_json: Json = False) -> None:
    """Refuse what waits, as another person than the one who asked. Nothing moves."""

    async def work(connection: Connection, _settings: Settings, _url: str) -> Done:
        return await deciding.deny(connection, case, checker=actor or getpass.getuser(), note=why)

    _told(_run(work), as_json=as_json)


@app.command()
def close(case: Number, why: Why, actor: Actor = "", as_json: Json = False) -> None:
    """End an open case for which nothing waits, without money: the evidence was enough, or nobody answers a chargeback."""

    async def work(connection: Connection, _settings: Settings, _url: str) -> Done:
        return await deciding.close(connection, case, actor=actor or getpass.getuser(), note=why)

    _told(_run(work), as_json=as_json)


@app.command()
def evidence(
    case: Number,
    why: Annotated[str, typer.Option(help="What it shows; kept for ever.")],
    file: Annotated[Path | None, typer.Option(help="PDF, PNG, JPEG, text or CSV.")] = None,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Add evidence to an open case: a text, and a file, which is copied into the evidence folder under its SM3."""

    async def work(connection: Connection, settings: Settings, _url: str) -> dict[str, Any]:
        bounds = settings.disputes
        store = Store(
            settings.evidence_folder,
            bounds.evidence_files_max,
            bounds.evidence_mb_max * MEGABYTE,
            bounds.evidence_total_mb_max * MEGABYTE,
        )
        kept = await add_evidence(
            connection, case, store, note=why, actor=actor or getpass.getuser(), path=file
        )
        return (
            {"case_no": case}
            if kept is None
            else {"case_no": case, **kept._asdict(), "sm3": kept.sm3.hex().upper()}
        )

    document = _run(work)
    text = f"case {case}: evidence added"
    if "sm3" in document:
        text += f", {document['size_bytes']} bytes with SM3 {document['sm3']}"
    _say(document, text, as_json=as_json)


@app.command("list")
def list_(
    merchant: Annotated[str, typer.Option(help="Merchant id: its cases only.")] = "",
    member: Annotated[str, typer.Option(help="Institution: cases in which it is issuer or acquirer.")] = "",
    state: Annotated[list[str] | None, typer.Option(help="States; default: the open ones.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False,
    limit: Limit = 1_000,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Cases, the newest first: all, a merchant's or a member's."""
    states = [one.upper() for one in state or []]
    found = _run(
        lambda connection, _settings, _url: views.list_cases(
            connection, merchant=merchant, member=member, states=states, every=every, limit=limit
        )
    )
    if as_csv:
        _print_csv(views.Line._fields, found)
    elif as_json:
        typer.echo(orjson.dumps([one._asdict() for one in found]).decode())
    else:
        for one in found:
            typer.echo(_line_of(one))
        typer.echo(f"{len(found)} cases")


def _line_of(one: views.Line) -> str:
    waits = (
        f"  waits: {one.asked_action} of {yuan(one.asked_fen)} by {one.asked_by}" if one.asked_action else ""
    )
    due = f"  due {one.due_on}" if one.due_on else ""
    return (
        f"{one.case_no:>8}  {one.state:12}  {one.merchant_id}  {one.about} {one.entry_no} of {one.cleared_on}"
        f"  {yuan(one.amount_fen):>12}{waits}{due}{'  OVERDUE' if one.overdue else ''}"
    )


@app.command()
def due(
    days: Annotated[int, typer.Option(min=0, max=365, help="Look so many days ahead.")] = 7,
    limit: Limit = 1_000,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """What must be done by then, overdue things first. Exit 1 when something is overdue."""
    found = _run(lambda connection, _settings, _url: views.due_cases(connection, days, limit))
    if as_csv:
        _print_csv(views.Due._fields, found)
    elif as_json:
        typer.echo(orjson.dumps([one._asdict() for one in found]).decode())
    else:
        for one in found:
            late = "  OVERDUE" if one.overdue else ""
            typer.echo(
                f"{one.due_on}  case {one.case_no}  {one.what:10}  {yuan(one.amount_fen):>12}  {one.merchant_id}{late}"
            )
        typer.echo(f"{len(found)} due within {days} days, {sum(one.overdue for one in found)} overdue")
    if any(one.overdue for one in found):
        raise typer.Exit(1)


@app.command()
def show(case: Number, as_json: Json = False) -> None:
    """Everything that happened to a case: steps with their people and postings, evidence, what was refused."""
    document = _run(lambda connection, _settings, _url: views.show_case(connection, case))
    if as_json:
        typer.echo(orjson.dumps(document).decode())
        return
    head = {name: value for name, value in document.items() if not isinstance(value, list)}
    for name, value in head.items():
        typer.echo(f"{name.replace('_', ' '):14} {'' if value is None else value}")
    for step in document["steps"]:
        people = step["actor"] + (f", checked by {step['checker']}" if step["checker"] else "")
        words = [step["reason"], step["note"], step["moved"]]
        told = "; ".join(word for word in words if word)
        what = f"{step['what']} {step['action']}".strip()
        amount = f" {yuan(step['amount_fen'])}" if step["amount_fen"] else ""
        typer.echo(f"{shown(step['at'])}  {what}{amount}  {step['after']}  by {people}: {told}")
    for piece in document["evidence"]:
        file = f" [{piece['name']}, {piece['size_bytes']} bytes, SM3 {piece['sm3']}]" if piece["name"] else ""
        typer.echo(f"{shown(piece['at'])}  evidence by {piece['actor']}: {piece['note']}{file}")
    for refused in document["refused"]:
        typer.echo(
            f"{shown(refused['at'])}  refused ({refused['rule']}) to {refused['actor']}: {refused['detail']}"
        )


@app.command()
def lapse(as_json: Json = False) -> None:
    """Close cases whose time for an answer is over. The service does it by itself every few minutes."""
    closed = _run(lambda connection, _settings, _url: deciding.lapse(connection))
    _say({"closed": closed}, f"{closed} cases closed", as_json=as_json)


@app.command("accept-members")
def accept_members(as_json: Json = False) -> None:
    """Carry out what members asked for by file, where `disputes.auto_accept` says that nobody need check it. `files take` does it too."""

    async def work(_connection: Connection, settings: Settings, url: str) -> dict[str, int]:
        if not settings.disputes.auto_accept:
            raise InputRefused("disputes.auto_accept is not set: each request of a member needs a checker")
        return await decide_for_members(lambda: connect_writer(url))

    results = _run(work)
    _say(results, ", ".join(f"{count} {what}" for what, count in results.items()), as_json=as_json)


def _print_csv(header: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    out = csv.writer(sys.stdout)
    out.writerow(header)
    for row in rows:
        out.writerow([_cell(value) for value in row])


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return shown(value)
    return value.isoformat() if isinstance(value, date) else value
