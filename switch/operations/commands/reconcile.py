"""`cardswitch reconcile …`: partners' files against our books, and what becomes of the differences. docs/reconciliation.md explains."""

import asyncio
import csv
import getpass
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from switch.clearing.files import FileStatus
from switch.clearing.received import Receipt
from switch.clearing.reconcile.desk import (
    LISTED_MAX,
    OPEN_STATES,
    STATES,
    Decision,
    ageing,
    decide,
    list_differences,
    show_difference,
)
from switch.clearing.reconcile.expected import OVERDUE, Due, expectations
from switch.clearing.reconcile.run import Partner, compare
from switch.clearing.reconcile.take import TakeTerms, take_partner_file
from switch.clearing.settlement.resolving import EntryName
from switch.domain.calendar import UTC
from switch.domain.errors import DatabaseLost, InputRefused
from switch.ledger.load_desk import settle
from switch.ledger.load_states import LoadState
from switch.operations.commands import reconcile_text as text
from switch.operations.commands.asking import NUMBER_MAX
from switch.operations.commands.asking import actor as whoever
from switch.settings import Settings, load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import LOST, connect, connect_writer

app = typer.Typer(no_args_is_help=True, help="Partners' files against our books, and the differences.")

Number = Annotated[
    int, typer.Argument(min=1, max=NUMBER_MAX, help="Number of the difference, as `list` shows it.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Reason = Annotated[str, typer.Option(help="What was seen; kept for ever.")]
Checker = Annotated[str, typer.Option(help="The second person.")]
Actor = Annotated[str, typer.Option(help="Who decides; by default who runs this.")]
Day = typer.Option("--date", formats=["%Y-%m-%d", "%Y%m%d"], help="Business date.")
TELL_EVERY = 500_000  # lines


def _print(document: Any) -> None:
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def _said(line: str) -> None:
    typer.echo(line, err=True)


async def take_all(
    url: str, settings: Settings, paths: list[Path], tell: Callable[[int, int], None] = lambda *_: None
) -> list[Receipt]:
    """Take partners' files, one after the other; `files take` does so too."""
    partners = frozenset(partner.institution for partner in settings.reconcile.partners)
    terms = TakeTerms(partners, settings.institution.centre_id, whoever())
    try:
        async with await connect(url) as connection:
            return [await take_partner_file(connection, path, terms, tell) for path in paths]
    except LOST as error:
        raise DatabaseLost("the database was lost; run the same command again: it begins anew") from error


@app.command()
def take(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="CM files, under their names.")],
    as_json: Json = False,
) -> None:
    """Take in partners' files, whole or not at all. Exit 1 when one is refused."""
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if done - told >= TELL_EVERY:
            told = done
            _said(f"{done:,} of {total:,} lines")

    settings = load_settings()
    with open_database(settings) as url:
        receipts = asyncio.run(take_all(url, settings, paths, tell))
    if as_json:
        _print([receipt._asdict() for receipt in receipts])
    else:
        for receipt in receipts:
            typer.echo(text.receipt(receipt))
    if any(receipt.status != FileStatus.TAKEN for receipt in receipts):
        raise typer.Exit(1)


def _partner(settings: Settings, institution: str) -> Partner:
    for one in settings.reconcile.partners:
        if one.institution == institution:
            return Partner(institution, one.tolerance_fen, one.roll_days)
    known = ", ".join(one.institution for one in settings.reconcile.partners) or "none"
    raise InputRefused(f"partner: one of reconcile.partners: {known}")


@app.command()
def run(
    partner: Annotated[str, typer.Option(help="The partner's institution, 8 digits.")],
    day: Annotated[datetime, Day],
    as_json: Json = False,
) -> None:
    """Compare a partner's newest file of a date with our books, and the days behind it that this changes. Exit 1 when a difference is open."""
    settings = load_settings()
    terms = _partner(settings, partner)

    async def work(url: str) -> list[dict[str, Any]]:
        async with await connect(url) as connection:
            done = await compare(connection, terms, day.date(), whoever(), _said)
            return [text.compared(one) for one in done]

    with open_database(settings) as url:
        try:
            found = asyncio.run(work(url))
        except LOST as error:
            raise DatabaseLost("the database was lost; run the same command again") from error
    if as_json:
        _print(found)
    else:
        for one in found:
            typer.echo(text.comparison(one))
    if any(one["states"].get("OPEN") or one["left_open"] for one in found):
        raise typer.Exit(1)


@app.command("list")
def list_(
    partner: Annotated[str, typer.Option(help="Of one partner.")] = "",
    day: Annotated[datetime | None, Day] = None,
    state: Annotated[list[str] | None, typer.Option(help="States; by default those that are open.")] = None,
    overdue: Annotated[
        bool,
        typer.Option("--overdue", help="Files that should be there, instead; exit 1 when there are any."),
    ] = False,
    expected: Annotated[bool, typer.Option("--expected", help="All files that are owed, instead.")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write them to a file, too.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LISTED_MAX, help="At most so many.")] = 1_000,
    as_json: Json = False,
) -> None:
    """Differences, the oldest first."""
    states = [one.upper() for one in state or OPEN_STATES]
    if unknown := sorted(set(states) - set(STATES)):
        raise InputRefused(f"state: one of {', '.join(STATES)}, not {unknown[0]}")
    settings = load_settings()
    if overdue or expected:
        _list_files(settings, partner, overdue_only=overdue, as_json=as_json)
        return

    async def read(url: str) -> list[dict[str, Any]]:
        async with await connect(url) as connection:
            wanted = day.date() if day else None
            return await list_differences(connection, partner=partner, day=wanted, states=states, limit=limit)

    with open_database(settings) as url:
        found = asyncio.run(read(url))
    if csv_file is not None:
        _write_csv(csv_file, found)
    if as_json:
        _print(found)
        return
    for one in found:
        typer.echo(text.difference(one))
    typer.echo(f"{len(found)} differences")


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0].keys() if rows else ["difference"])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise InputRefused(f"{path}: {error.strerror}") from error


def _list_files(settings: Settings, partner: str, *, overdue_only: bool, as_json: bool) -> None:
    due = [
        Due(one.institution, one.since, one.file_days, one.file_by)
        for one in settings.reconcile.partners
        if partner in ("", one.institution)
    ]

    async def read(url: str) -> list[dict[str, Any]]:
        async with await connect(url) as connection:
            found = await expectations(connection, due, datetime.now(UTC))
            return [one._asdict() for one in found if not overdue_only or one.state == OVERDUE]

    with open_database(settings) as url:
        found = asyncio.run(read(url))
    if as_json:
        _print(found)
    else:
        for one in found:
            typer.echo(text.expectation(one))
        typer.echo(f"{len(found)} files")
    if overdue_only and found:
        raise typer.Exit(1)


@app.command("ageing")
def ageing_(as_json: Json = False) -> None:
    """Open differences of each partner by their age in days."""

    async def read(url: str) -> dict[str, Any]:
        async with await connect(url) as connection:
            return await ageing(connection)

    with open_database(load_settings()) as url:
        found = asyncio.run(read(url))
    if as_json:
        _print(found)
        return
    for line in text.ages(found):
        typer.echo(line)


@app.command()
def show(difference: Number, as_json: Json = False) -> None:
    """A difference with what the terminal, we and the partner say, and what was decided."""

    async def read(url: str) -> dict[str, Any]:
        async with await connect(url) as connection:
            return await show_difference(connection, difference)

    with open_database(load_settings()) as url:
        found = asyncio.run(read(url))
    if as_json:
        _print(found)
        return
    for line in text.whole(found):
        typer.echo(line)


def _decide(number: int, decision: Decision, as_json: bool) -> None:
    async def work(url: str) -> dict[str, Any]:
        async def settle_load(load_no: int, to: LoadState) -> object:
            return await settle(
                lambda: connect_writer(url),
                load_no,
                to,
                actor=decision.actor,
                checker=decision.checker,
                reason=f"difference {number}: {decision.reason}",
            )

        async with await connect_writer(url) as connection:
            return (await decide(connection, number, decision, settle_load))._asdict()

    with open_database(load_settings()) as url:
        done = asyncio.run(work(url))
    if as_json:
        _print(done)
    else:
        typer.echo(f"difference {number} is {done['state']} on {done['business_date']}")


@app.command()
def accept(
    difference: Number, reason: Reason, checker: Checker, actor: Actor = "", as_json: Json = False
) -> None:
    """Two people close a difference about which nothing is to be done."""
    _decide(difference, Decision("accept", actor or getpass.getuser(), checker, reason), as_json)


@app.command()
def resolve(
    difference: Number,
    outcome: Annotated[
        str, typer.Option("--as", help="suspense, sent-back, settled; of a load loaded, returned; case.")
    ],
    reason: Reason,
    checker: Checker,
    case: Annotated[str, typer.Option(help="Number of the dispute that takes it over.")] = "",
    entry: Annotated[
        str,
        typer.Option(help="STATEMENT/LINE of the bank, of suspense and sent-back: it has booked this money."),
    ] = "",
    although: Annotated[
        str, typer.Option(help="Why it is other money than the bank's entry of just this amount.")
    ] = "",
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Two people say what a difference was, and its money moves accordingly."""
    allowed = ("suspense", "sent-back", "settled", "loaded", "returned", "case")
    if outcome not in allowed:
        raise InputRefused(f"as: one of {', '.join(allowed)}")
    if bool(case) != (outcome == "case"):
        raise InputRefused("case: a number goes with --as case, and with nothing else")
    name = EntryName.parse(entry) if entry else None
    decision = Decision(
        outcome, actor or getpass.getuser(), checker, reason, case or None, name, although.strip()
    )
    _decide(difference, decision, as_json)
