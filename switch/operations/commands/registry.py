"""`cardswitch registry import FILE...` and `export`: everybody who takes part, in and out. Format: docs/registry.md."""

import asyncio
import getpass
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from switch.domain.errors import ConfigurationError, InputRefused
from switch.domain.money import yuan
from switch.keys.opening import open_vault
from switch.keys.software_vault import SoftwareVault
from switch.ledger.card_states import FOLLOWING
from switch.ledger.days import ensure_days
from switch.ledger.gate import GATE, TAKE_SHARED
from switch.registry.exporting import PrivateFile, export_csv, export_json
from switch.registry.import_files import ImportRefused
from switch.registry.import_format import BINDINGS, BY_NAME, CARDS, KINDS
from switch.registry.importing import Report, import_registry
from switch.settings import Settings, load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(
    no_args_is_help=True, help="Merchants, terminals, cards, bindings and fee rules, in and out."
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Told = Callable[[str, int], None]
NUMBERED = (CARDS, BINDINGS)  # records that hold card numbers

# One instant for both comparisons: at the very end of a day two readings could lie on its two sides.
OPEN_DAY = """
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS instant)
SELECT business_date FROM clock JOIN business_day ON begins_at <= instant AND instant < ends_at AND sealed_at IS NULL
"""


def enter_day(cursor: psycopg.ClientCursor[Any], shards: Sequence[int]) -> date:
    """Take the gate of each shard, in order, until the end of the transaction; then read which day is open."""
    for shard in shards:
        cursor.execute(TAKE_SHARED, (GATE, shard))
    row = cursor.execute(OPEN_DAY).fetchone()  # a later statement than the gates
    if row is None:
        raise ConfigurationError("no business day is open: see `cardswitch doctor`")
    day: date = row[0]
    return day


@app.command("import")
def import_(
    files: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, readable=True, help="JSON or CSV files.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and count; change nothing.")] = False,
    actor: Annotated[str, typer.Option(help="Who answers for it, for the log of changes.")] = "",
    as_json: Json = False,
) -> None:
    """Take in files, checked as a whole before anything changes. The same files again change nothing."""
    settings = load_settings()
    try:
        with open_database(settings) as url:
            asyncio.run(_make_days(url, settings))
            with psycopg.connect(url, autocommit=True) as connection, _progress() as told:
                report = import_registry(
                    connection,
                    files,
                    shards=settings.database.shards,
                    actor=actor or getpass.getuser(),
                    enter_day=enter_day,
                    following=FOLLOWING,
                    pins=lambda: _rehearsal_vault(url, settings),
                    numbers=lambda: vault_of(url, settings),
                    dry_run=dry_run,
                    progress=told,
                )
                if sum(tally.created for tally in report.kinds.values()) > 10_000 and not dry_run:
                    told("analysing", 0)
                    connection.execute("ANALYZE card_route, card, account, purse, terminal")
    except ImportRefused as refusal:
        _show_refusal(refusal, as_json=as_json)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(_document(report), ensure_ascii=False))
    else:
        typer.echo(_summary(report))


async def _make_days(url: str, settings: Settings) -> None:
    async with await connect(url) as connection:
        await ensure_days(connection, settings.ledger.days_ahead, settings.clearing.cut_off)


def vault_of(url: str, settings: Settings) -> SoftwareVault:
    """The vault, opened."""
    with psycopg.connect(url) as connection:
        return open_vault(connection, settings.unlock)


def _rehearsal_vault(url: str, settings: Settings) -> SoftwareVault:
    vault = vault_of(url, settings)
    if not vault.rehearsal:
        raise InputRefused("a file holds clear PINs: only a vault marked for rehearsal takes them")
    return vault


def _show_refusal(refusal: ImportRefused, *, as_json: bool) -> None:
    if as_json:
        faults = [fault._asdict() for fault in refusal.faults]
        typer.echo(json.dumps({"done": False, "faults": faults, "more": refusal.more}, ensure_ascii=False))
        return
    for fault in refusal.faults:
        typer.echo(str(fault), err=True)
    typer.echo(f"cardswitch: {refusal}", err=True)


def _document(report: Report) -> dict[str, object]:
    return {
        "done": not report.dry_run,
        "dry_run": report.dry_run,
        "kinds": {
            name: {"read": tally.read, "created": tally.created, "changed": tally.changed}
            for name, tally in report.kinds.items()
        },
        "openings": {str(code): opening._asdict() for code, opening in report.openings.items()},
        "kept": [kept._asdict() for kept in report.kept],
        "ended": report.ended,
        "business_date": report.business_date.isoformat() if report.business_date else None,
    }


def _summary(report: Report) -> str:
    lines = [f"{'':14}{'read':>10}{'new':>10}{'changed':>10}{'as before':>10}"]
    lines += [
        f"{name.replace('_', ' '):14}{tally.read:>10}{tally.created:>10}{tally.changed:>10}{tally.unchanged:>10}"
        for name, tally in report.kinds.items()
        if tally.read
    ]
    lines += [
        f"opening balances under {code}: {opening.postings} accounts, {yuan(opening.amount_fen)} CNY"
        for code, opening in report.openings.items()
    ]
    lines += [
        f"cards that stay {kept.state} where the files say {kept.in_files}: {kept.cards}"
        for kept in report.kept
    ]
    if report.ended:
        lines.append(f"bindings that stay ENDED where the files say ACTIVE: {report.ended}")
    if report.dry_run:
        lines.append("dry run: nothing was changed")
    return "\n".join(lines)


@app.command("export")
def export(
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .json file, or an existing folder for CSV; without it JSON goes to standard output."
        ),
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind; may be repeated.")] = None,
    with_cards: Annotated[
        bool,
        typer.Option(
            "--with-cards",
            help="Cards and bindings too, with full card numbers and balances; only to a file.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write what an import reads. PINs and numbers of bank cards are never written."""
    for name in kind or ():
        if name not in BY_NAME:
            raise typer.BadParameter("known kinds are " + ", ".join(BY_NAME), param_hint="--kind")
    kinds = [one for one in KINDS if (not kind or one.name in kind) and (with_cards or one not in NUMBERED)]
    if not kinds:
        raise typer.BadParameter("cards and bindings are written with --with-cards only", param_hint="--kind")
    if with_cards and out is None:
        raise typer.BadParameter("cards are written to a file only: give --out", param_hint="--with-cards")
    if out is not None and not out.is_dir() and out.suffix.lower() != ".json":
        raise typer.BadParameter("must be an existing folder or a name ending in .json", param_hint="--out")
    text = io.StringIO()
    with (
        open_database(load_settings()) as url,
        psycopg.connect(url, autocommit=True) as connection,
        _progress() as told,
    ):
        if out is None:
            export_json(connection, text, kinds, told)
        elif out.is_dir():
            counts = export_csv(connection, out, kinds, told)
        else:
            with PrivateFile(out) as stream:
                counts = export_json(connection, stream, kinds, told)
    if out is None:
        typer.echo(text.getvalue(), nl=False)
    elif as_json:
        typer.echo(json.dumps({"out": str(out), "records": counts}, ensure_ascii=False))
    else:
        typer.echo(
            f"{out}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        )


@contextmanager
def _progress() -> Iterator[Told]:
    """Tell how far long work is: a moving line on a terminal, else one line a step. Always on standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def told(step: str, rows: int) -> None:
            bar.update(task, description=f"{step} {rows:,}" if rows else step)

        yield told


def _plain_lines() -> Told:
    last = ""

    def told(step: str, rows: int) -> None:
        nonlocal last
        if step != last:
            last = step
            sys.stderr.write(f"{step} ...\n")
        elif rows and rows % 100_000 == 0:
            sys.stderr.write(f"{step} {rows:,}\n")

    return told
