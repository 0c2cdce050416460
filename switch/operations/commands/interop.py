"""`cardswitch interop …`: clearing between cities, as a city and as the centre. Meaning: docs/interop.md."""

import asyncio
import getpass
from collections.abc import Callable, Coroutine
from datetime import date, datetime
from typing import Annotated, Any, TypeVar

import orjson
import typer

from switch.clearing.centre import CentreTerms
from switch.clearing.centre_run import Ran, rewrite, run_centre
from switch.clearing.close import day_folder
from switch.clearing.day_files import Connection
from switch.clearing.files import FileStatus
from switch.clearing.foreign import Deadline
from switch.clearing.interop_desk import (
    SQL,
    Figures,
    Times,
    fund,
    key_of,
    positions,
    set_tariff,
    tariffs,
    way_of_file,
    way_of_record,
    what_is_due,
)
from switch.domain.errors import InputRefused
from switch.operations.commands import interop_text
from switch.operations.commands.close import file_signer
from switch.operations.commands.files import take_all
from switch.operations.commands.interop_terms import centre_terms
from switch.settings import Settings, load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect, connect_writer

app = typer.Typer(no_args_is_help=True, help="Clearing between cities, as a city and as the interop centre.")
tariff_app = typer.Typer(help="What cities charge each other.")
app.add_typer(tariff_app, name="tariff")

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Day = Annotated[
    datetime | None,
    typer.Option("--date", formats=["%Y-%m-%d", "%Y%m%d"], help="Clearing date; default: the newest."),
]
Actor = Annotated[str, typer.Option(help="Who answers for it.")]
Fen = Annotated[int, typer.Option(min=0, max=10**12, help="In fen.")]


def _asked(work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
    async def ask(url: str) -> T:
        async with await connect(url) as connection:
            return await work(connection)

    with open_database(load_settings()) as url:
        return asyncio.run(ask(url))


def _tell(document: object, text: str, *, as_json: bool) -> None:
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() if as_json else text)


@app.command()
def run(
    again: Annotated[
        datetime | None,
        typer.Option(
            "--rewrite",
            formats=["%Y-%m-%d", "%Y%m%d"],
            help="Only compare the files of this clearing date with their digests, and write again what is missing.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """As the centre: do all that is due. Hand on files (DF), accept what nobody answered, net, answer (DT, NP), block who has not paid.

    Harmless at any time: what is done is not done again. A timer should run it every few minutes.
    """
    settings = load_settings()
    terms = centre_terms(settings)
    with open_database(settings) as url:
        terms = terms._replace(file_signer=file_signer(url, settings))
        if again is not None:
            written = asyncio.run(_rewrite(url, again.date(), terms))
            _tell({"written": written}, f"{len(written)} files written again", as_json=as_json)
            return
        came = _take_own(url, settings, "own_to_take")
        ran = asyncio.run(_run(url, terms))
        went = _take_own(url, settings, "own_to_give")
    _tell({**_document(ran), "taken": [*came, *went]}, interop_text.ran(ran, [*came, *went]), as_json=as_json)


async def _run(url: str, terms: CentreTerms) -> Ran:
    # A run that stands still would hold up those who bring files: its writer ends with it.
    async with await connect_writer(url) as connection:
        return await run_centre(connection, terms)


async def _rewrite(url: str, day: date, terms: CentreTerms) -> tuple[str, ...]:
    async with await connect(url) as connection:
        return await rewrite(connection, day, terms)


def _document(ran: Ran) -> Figures:
    return {
        "forwarded": ran.forwarded,
        "decided": [one._asdict() for one in ran.decided],
        "blocked": [
            {"clearing_date": day, "member": member, "net_fen": net} for day, member, net in ran.blocked
        ],
        "written": ran.written,
    }


def _take_own(url: str, settings: Settings, query: str) -> list[str]:
    """Where a city and the centre are one installation, its files need no carrier: take those that one has for the other."""
    at = {"own": settings.institution.own_id, "centre": settings.interop.centre_id}
    if at["own"] == at["centre"]:
        return []

    async def named() -> list[tuple[date, str]]:
        async with await connect(url) as connection:
            return await (await connection.execute(SQL[query], at)).fetchall()

    paths = [day_folder(settings.clearing_folder, day) / name for day, name in asyncio.run(named())]
    if not paths:
        return []
    receipts = asyncio.run(take_all(url, settings, paths, lambda _done, _total: None))
    for receipt in receipts:
        if receipt.status != FileStatus.TAKEN:
            raise InputRefused(f"our own {receipt.file} was refused ({receipt.status}): {receipt.reason}")
    return [receipt.file for receipt in receipts]


@app.command()
def due(as_json: Json = False) -> None:
    """What somebody waits for, with its time: answers that we owe or await, and at the centre what is to be forwarded, answered, paid."""
    settings = load_settings().interop
    times = Times(
        settings.forward_by,
        settings.deliver_by,
        Deadline(settings.answer_days, settings.answer_by),
        settings.fund_by,
    )
    found = _asked(lambda connection: what_is_due(connection, times, centre=settings.serve))
    _tell(found, interop_text.due(found), as_json=as_json)


@app.command()
def show(
    record: Annotated[
        str | None, typer.Option(metavar="PSAM:SERIAL", help="A record, by its PSAM's number and serial.")
    ] = None,
    file: Annotated[str | None, typer.Option(metavar="NAME", help="A file, by its name.")] = None,
    as_json: Json = False,
) -> None:
    """The way of a record (FH, DF, DT, DT) or of a file, as far as this installation knows it. Exit 1 when it knows nothing."""
    if (record is None) == (file is None):
        raise typer.BadParameter("one of --record and --file")
    if record is not None:
        key = key_of(record)
        found = _asked(lambda connection: way_of_record(connection, key))
    else:
        name = file or ""
        found = _asked(lambda connection: way_of_file(connection, name))
    _tell(found, interop_text.way(found), as_json=as_json)
    if not any(found[part] for part in found if part != "file"):
        raise typer.Exit(1)


@app.command("positions")
def positions_(day: Day = None, as_json: Json = False) -> None:
    """As the centre: the nets of a clearing date, and who has paid."""
    lines = _asked(lambda connection: positions(connection, day.date() if day else None))
    if not lines:
        raise InputRefused("no such clearing date is decided")
    _tell(lines, interop_text.positions(lines), as_json=as_json)


@app.command()
def funded(
    member: Annotated[str, typer.Argument(help="Institution number.")],
    day: Annotated[
        datetime, typer.Argument(formats=["%Y-%m-%d", "%Y%m%d"], help="Clearing date of its position.")
    ],
    who: Annotated[str, typer.Option("--actor", help="Who answers for it.")] = "",
    as_json: Json = False,
) -> None:
    """As the centre: note that a member's money for a clearing date has come. Again it changes nothing."""
    net_fen, changed = _asked(
        lambda connection: fund(connection, member, day.date(), who or getpass.getuser())
    )
    document = {"member": member, "clearing_date": day.date(), "net_fen": net_fen, "changed": changed}
    _tell(document, interop_text.funded(member, day.date(), net_fen, changed=changed), as_json=as_json)


@tariff_app.callback(invoke_without_command=True)
def tariff(context: typer.Context, as_json: Json = False) -> None:
    """What cities charge each other for a purchase, and since when."""
    if context.invoked_subcommand is not None:
        return
    lines = _asked(tariffs)
    _tell(lines, interop_text.tariffs(lines), as_json=as_json)


@tariff_app.command("set")
def tariff_set(
    begins: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First date of purchases it counts for.")
    ],
    rate_ppm: Annotated[int, typer.Option(min=0, max=1_000_000, help="Millionths of the amount.")],
    minimum_fen: Fen = 0,
    cap_fen: Annotated[int | None, typer.Option(min=0, max=10**12, help="In fen; default: none.")] = None,
    weights: Annotated[str, typer.Option(help="Shares of issuer, centre and acquirer.")] = "7:1:2",
    who: Annotated[str, typer.Option("--actor", help="Who answers for it.")] = "",
    as_json: Json = False,
) -> None:
    """Set the tariff from a date on. It must be the same in every city and at the centre, or their books differ. It stays for ever."""
    parts = weights.split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and len(part) <= 6 for part in parts):
        raise typer.BadParameter(
            "three whole numbers of at most six digits, like 7:1:2", param_hint="--weights"
        )
    issuer, centre, acquirer = map(int, parts)
    terms = {
        "valid_from": begins.date(),
        "rate_ppm": rate_ppm,
        "minimum_fen": minimum_fen,
        "cap_fen": cap_fen,
        "weight_issuer": issuer,
        "weight_centre": centre,
        "weight_acquirer": acquirer,
        "actor": who or getpass.getuser(),
    }
    settings = load_settings()
    if not settings.interop.centre_id:
        raise InputRefused("interop.centre_id is not set: there is nobody to share fees with")
    changed = _asked(lambda connection: set_tariff(connection, terms, settings.interop.centre_id))
    text = f"in force for purchases from {begins:%Y-%m-%d} on" if changed else "that was set before"
    _tell({**terms, "changed": changed}, text, as_json=as_json)
