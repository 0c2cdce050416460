"""`cardswitch settlement …`: from closed days to money. Course and rules: docs/settlement.md; files for the bank: docs/iso20022.md."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Annotated, Any, TypeVar

import orjson
import typer

from switch.clearing.calendar_cn import WorkdayCalendar
from switch.clearing.settlement import payouts
from switch.clearing.settlement.merchant_files import as_json as files_as_json
from switch.clearing.settlement.merchant_files import inspect_files, read_files, write_merchant_files
from switch.clearing.settlement.order import Ordered, OrderTerms, inspect_order, order, read_orders
from switch.clearing.settlement.prepare import Prepared, prepare
from switch.clearing.settlement.turn import Connection
from switch.domain.money import yuan
from switch.operations.commands import settlement_statement, settlement_terms
from switch.operations.commands.registry import vault_of
from switch.settings import Settings, load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="Payouts, payment orders and what the bank says of them.")
app.add_typer(settlement_terms.app, name="terms")
app.add_typer(settlement_statement.app, name="statement")

Date = Annotated[
    datetime, typer.Option("--date", formats=["%Y-%m-%d", "%Y%m%d"], help="The settlement date.")
]
AnyDate = Annotated[
    datetime | None, typer.Option("--date", formats=["%Y-%m-%d", "%Y%m%d"], help="The settlement date.")
]
Number = Annotated[str, typer.Argument(help="Number of the payout, as `list` shows it.")]
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Actor = Annotated[str, typer.Option(help="Who answers for it; by default who runs this.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
T = TypeVar("T")
_WHY = {
    "ACCOUNT": "another account is in force than was approved: approve it again",
    "BALANCE": "the merchant has less now, by refunds since: wait for sales, or cancel it",
    "OWES": "the institution has not paid us yet",
}


def _run(work: Callable[[Connection], Awaitable[T]]) -> T:
    async def doing(url: str) -> T:
        async with await connect(url) as connection:
            return await work(connection)

    with open_database(load_settings()) as url:
        return asyncio.run(doing(url))


def _tell(document: object) -> None:
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


@app.command("prepare")
def prepare_(day: AnyDate = None, actor: Actor = "", as_json: Json = False) -> None:
    """Make the payouts of a settlement date, by default that of the newest closed day. Again: the same, unchanged."""
    who = actor or getpass.getuser()
    made = _run(lambda connection: prepare(connection, day.date() if day else None, who))
    if as_json:
        _tell(made._asdict())
    else:
        typer.echo(_prepared(made))


def _prepared(made: Prepared) -> str:
    sums = made.figures
    again = " (it was prepared before; nothing was changed)" if made.again else ""
    stays = f"{sums['negative']} merchants below zero, {sums['without_account']} parties without an account"
    lines = [
        f"settlement date {made.settlement_date}, for the business days {made.first_day} to {made.last_day}{again}",
        f"  carried in {yuan(sums['carried_in_fen'])}, nets {yuan(sums['net_fen'])}, come back {yuan(sums['returned_fen'])}",
        f"  {sums['payouts']} payouts, {yuan(sums['payout_fen'])}; {sums['collections']} collections, {yuan(sums['collection_fen'])}",
        f"  held {yuan(sums['held_fen'])}, carried on {yuan(sums['carried_fen'])} ({stays})",
    ]
    return "\n".join(lines)


@app.command("approve")
def approve(
    day: Date,
    payout: Annotated[
        list[str] | None, typer.Argument(help="Numbers; by default all that are prepared.")
    ] = None,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Approve payouts, by another person than who prepared them."""
    who = actor or getpass.getuser()
    done = _run(lambda connection: payouts.approve(connection, day.date(), payout or None, actor=who))
    if as_json:
        _tell({"settlement_date": day.date(), "approved": done})
    else:
        typer.echo(f"{len(done)} payouts of {day.date()} approved by {who}")


@app.command("cancel")
def cancel(payout: Number, reason: Reason, actor: Actor = "", as_json: Json = False) -> None:
    """Take back a payout that is not ordered yet, or a collection: its amount is part of the next settlement date."""
    who = actor or getpass.getuser()
    before = _run(lambda connection: payouts.cancel(connection, payout, actor=who, reason=reason))
    if as_json:
        _tell({"payout": payout, "before": before, "state": "CANCELLED"})
    else:
        typer.echo(f"payout {payout} is CANCELLED (was {before})")


@app.command("resolve")
def resolve(
    payout: Number,
    state: Annotated[str, typer.Option("--as", help="paid or rejected.")],
    reason: Reason,
    checker: Annotated[str, typer.Option(help="The second person.")],
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Two people say what became of an ordered payout, where no statement says it: rejected money is due again."""
    who = actor or getpass.getuser()
    _run(
        lambda connection: payouts.resolve(
            connection, payout, state.upper(), actor=who, checker=checker, reason=reason
        )
    )
    if as_json:
        _tell({"payout": payout, "state": state.upper()})
    else:
        typer.echo(f"payout {payout} is {state.upper()}")


def order_terms(settings: Settings) -> OrderTerms:
    """What these settings say about ordering."""
    return OrderTerms(
        settings.institution.own_id,
        settings.clearing_folder,
        tuple(range(settings.database.shards)),
        WorkdayCalendar(settings.clearing.calendar_file).is_workday,
        awaited(settings),
    )


def awaited(settings: Settings) -> tuple[payouts.Awaited, ...]:
    """Partners whose comparison comes before any money of a date."""
    return tuple(
        payouts.Awaited(one.institution, one.since) for one in settings.reconcile.partners if one.holds_money
    )


@app.command("order")
def order_(
    day: Date,
    override: Annotated[
        str, typer.Option(help="Why money is released although something is not done; kept for ever.")
    ] = "",
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Order what is approved and write the file for the bank. Again: orders nothing twice, writes a missing file again.

    Exit 1 when an approved payout was left; it says which and why.
    """
    settings = load_settings()
    who = actor or getpass.getuser()

    async def doing(url: str) -> Ordered:
        vault = vault_of(url, settings)
        async with await connect(url) as connection:
            return await order(
                connection, day.date(), order_terms(settings), vault, actor=who, override=override
            )

    with open_database(settings) as url:
        done = asyncio.run(doing(url))
    if as_json:
        _tell({**done._asdict(), "left": [one._asdict() for one in done.left]})
    else:
        typer.echo(
            f"order {done.order_id}: {done.payout_count} payouts, {yuan(done.total_fen)}"
            if done.order_id
            else "nothing to order"
        )
        for name in done.written:
            typer.echo(f"  written: {name}")
        for one in done.left:
            typer.echo(f"  left: {one.payout_id} {one.party} {yuan(one.amount_fen)}: {_WHY[one.why]}")
    if done.left:
        raise typer.Exit(1)


@app.command("list")
def list_(
    day: AnyDate = None,
    state: Annotated[list[str] | None, typer.Option(help="States; by default all.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=payouts.LISTED_MAX, help="At most so many.")] = 1_000,
    after: Annotated[str, typer.Option(help="From behind this number on.")] = "",
    as_json: Json = False,
) -> None:
    """Payouts and collections; of one date also what stays, with its cause, and the orders. A late collection says so."""
    settings = load_settings()
    chosen = day.date() if day else None

    async def doing(connection: Connection) -> dict[str, Any]:
        return {
            "payouts": await payouts.list_payouts(
                connection,
                chosen,
                [name.upper() for name in state or []],
                settings.settlement.fund_by,
                after=after,
                most=limit,
            ),
            "left": await payouts.list_left(connection, chosen) if chosen else [],
            "orders": await _orders(connection, settings, chosen) if chosen else [],
            "waits_for": await payouts.not_compared(connection, chosen, awaited(settings)) if chosen else [],
        }

    found = _run(doing)
    if as_json:
        _tell(found)
        return
    for one in found["payouts"]:
        typer.echo(
            f"{one['payout_id']}  {one['party']:15}  {yuan(one['amount_fen']):>16}  {one['state']:9}"
            f"{'  LATE' if one['late'] else ''}  {one['name']}  {one['account'] or ''}"
        )
    for one in found["left"]:
        stays = yuan(one["held_fen"] + one["carried_fen"])
        typer.echo(f"{'stays':15}  {one['party']:15}  {stays:>16}  {one['cause']:9}  {one['name']}")
    for one in found["orders"]:
        typer.echo(
            f"order {one['order_id']}: {one['payout_count']} payouts, {yuan(one['total_fen'])}, executed on"
            f" {one['execution_date']}, {one['name']}: {one['fault'] or 'whole'}"
        )
    for business_day, partner in found["waits_for"]:
        typer.echo(f"waits for: the comparison of {business_day} with {partner}")
    typer.echo(f"{len(found['payouts'])} payouts")


async def _orders(connection: Connection, settings: Settings, day: date) -> list[dict[str, Any]]:
    return [
        {**row._asdict(), "name": row.name, "fault": inspect_order(settings.clearing_folder, row)}
        for row in await read_orders(connection, day)
    ]


@app.command("show")
def show(payout: Number, as_json: Json = False) -> None:
    """A payout: what it is made of, every step, and what the bank said of it."""
    found = _run(lambda connection: payouts.show_payout(connection, payout))
    if as_json:
        _tell(found)
        return
    line = found["line"]
    typer.echo(
        f"{found['payout_id']} of {found['settlement_date']} for {found['party']}: {yuan(found['amount_fen'])}, {found['state']}"
    )
    typer.echo(
        f"  carried in {yuan(line['carried_in_fen'])} + come back {yuan(line['returned_fen'])} + nets {yuan(line['net_fen'])}"
        f" = payout {yuan(line['payout_fen'])} + held {yuan(line['held_fen'])} + carried on {yuan(line['carried_fen'])}"
    )
    for one in found["days"]:
        typer.echo(f"  business day {one['business_date']}: {yuan(one['net_fen'])}")
    for one in found["moves"]:
        people = one["actor"] + (f", checked by {one['checker']}" if one["checker"] else "")
        typer.echo(
            f"  {one['at']:%Y-%m-%d %H:%M:%S%z}  {one['to_state']:9}  {people}  {one['reason']}".rstrip()
        )
    for one in found["bank"]:
        sign = "" if one["is_credit"] else "-"
        typer.echo(
            f"  {one['kind']} {one['statement_id']}/{one['line']}: {sign}{yuan(one['amount_fen'])} {one['outcome']} {one['bank_ref']}"
        )


@app.command("files")
def files(
    day: Date,
    check: Annotated[bool, typer.Option("--check", help="Only compare; write nothing.")] = False,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Write for each ordered payout of a merchant what it is made of, CSV and XLSX. Again: what is missing, byte for byte.

    Exit 1 when a file that was written before is missing or was changed (with --check).
    """
    settings = load_settings()
    folder = settings.clearing_folder
    who = actor or getpass.getuser()

    async def doing(connection: Connection) -> tuple[list[str], list[dict[str, Any]]]:
        written: list[str] = []
        if not check:
            _, written = await write_merchant_files(connection, day.date(), folder, actor=who)
        found = inspect_files(folder, day.date(), await read_files(connection, day.date()))
        return written, files_as_json(found)

    written, found = _run(doing)
    if as_json:
        _tell({"settlement_date": day.date(), "written": written, "files": found})
    else:
        for one in found:
            typer.echo(f"{one['name']:45}  {one['line_count']:>9,} lines  {one['fault'] or 'whole'}")
        typer.echo(f"{len(found)} files, {len(written)} written now")
    if any(one["fault"] for one in found):
        raise typer.Exit(1)
