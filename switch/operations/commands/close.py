"""`cardswitch close`: the day's end, while traffic flows."""

import asyncio
import sys
from datetime import date, datetime
from functools import partial
from typing import Annotated, Any

import orjson
import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from switch.clearing.calendar_cn import WorkdayCalendar
from switch.clearing.close import Closed, CloseTerms, close_day
from switch.clearing.close import Progress as Step
from switch.clearing.evidence.sealing import SealSigner
from switch.clearing.foreign import Deadline
from switch.clearing.report import Figures, day_report
from switch.clearing.signatures import FileSigner
from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.domain.money import yuan
from switch.keys.opening import open_vault
from switch.keys.stores import DatabaseKeyStore
from switch.ledger.days import Day, day_of, ensure_days, oldest_not_closed
from switch.ledger.load_desk import suspend_unconfirmed
from switch.operations.commands.asking import actor
from switch.operations.commands.close_status import close_status, show_status
from switch.settings import Settings, load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect, connect_writer


def close(
    day: Annotated[
        datetime | None,
        typer.Option(
            "--date", formats=["%Y-%m-%d", "%Y%m%d"], help="Business date; default: the oldest not closed."
        ),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Only show how far the close of a day is; changes nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before an open day is ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document at the end.")] = False,
) -> None:
    """Close a business day: cut over, seal, fees, netting, postings, files, reports, evidence. Run again after a stop, it goes on.

    Of a closed day it checks the files and writes missing ones, byte for byte as they were.
    """
    settings = load_settings()
    chosen = None if day is None else day.date()
    if status:
        with open_database(settings) as url:
            found = asyncio.run(close_status(url, chosen))
        if as_json:
            typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        else:
            show_status(found)
        return
    with open_database(settings) as url:
        report = asyncio.run(_close(url, settings, chosen, yes=yes, as_json=as_json))
    if as_json:
        typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())


def close_terms(settings: Settings, url: str, signer: SealSigner | None = None) -> CloseTerms:
    """What these settings say about closing. url: of the database; signer: who signs the day's seal."""
    return CloseTerms(
        own_id=settings.institution.own_id,
        centre_id=settings.institution.centre_id,
        acquirer_code=settings.institution.acquirer_code,
        shards=tuple(range(settings.database.shards)),
        folder=settings.clearing_folder,
        is_workday=WorkdayCalendar(settings.clearing.calendar_file).is_workday,
        cut_off=settings.clearing.cut_off,
        interop_centre=settings.interop.centre_id,
        deadline=Deadline(settings.interop.answer_days, settings.interop.answer_by),
        signer=signer,
        parallel_workers=settings.clearing.parallel_workers,
        hot_list_for=settings.clearing.hot_list_for,
        connect=partial(connect, url) if settings.clearing.parallel_workers else None,
    )


def seal_signer(url: str, settings: Settings) -> SealSigner | None:
    """The vault's key for seals; None where no vault was made. A vault that does not open is an error: the seal of a day is made once."""
    with psycopg.connect(url) as plain:
        if not DatabaseKeyStore(plain).load_meta():
            return None
        return SealSigner(open_vault(plain, settings.unlock))


def file_signer(url: str, settings: Settings) -> FileSigner | None:
    """Who signs files, by these settings. KeyMissingError when they are to be signed and there is no key."""
    if not settings.clearing.sign_files:
        return None
    with psycopg.connect(url) as connection:
        return FileSigner(open_vault(connection, settings.unlock))


async def _close(url: str, settings: Settings, chosen: date | None, *, yes: bool, as_json: bool) -> Figures:
    console = Console(stderr=as_json, highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 110)  # so that no sum is cut, whatever reads it
    async with await connect(url) as connection:
        await ensure_days(connection, settings.ledger.days_ahead, settings.clearing.cut_off)
        row = await (day_of(connection, chosen) if chosen else oldest_not_closed(connection))
        if row is None:
            raise InputRefused(f"there is no business day {chosen}" if chosen else "there is no day to close")
        _warn_if_open(row, console, ask=not yes and sys.stdin.isatty() and sys.stdout.isatty())
        terms = close_terms(settings, url, seal_signer(url, settings) if row.state < 2 else None)
        terms = terms._replace(file_signer=file_signer(url, settings))
        with _Display(console) as display:
            closed = await close_day(connection, row.day, terms, actor(), display.tell)
        report = await day_report(connection, row.day)
    suspended = 0
    for shard in range(settings.database.shards):
        suspended += await suspend_unconfirmed(lambda: connect_writer(url), shard)
    if suspended:
        console.print(
            f"{suspended} loads that nobody confirmed are in suspense now: `cardswitch loads list`."
        )
    _tell_end(console, closed, report)
    return {
        **report,
        "loads_suspended": suspended,
        "was_closed": closed.was_closed,
        "folder": str(closed.folder),
        "written": closed.rewritten,
        "reports": closed.reports,
    }


def _warn_if_open(row: Day, console: Console, *, ask: bool) -> None:
    now = datetime.now(SHANGHAI)
    if row.state == 2 or row.ends_at <= now:
        return
    end = row.ends_at.astimezone(SHANGHAI)
    console.print(
        f"Business day {row.day} is open until {end:%Y-%m-%d %H:%M:%S} (Asia/Shanghai). Closing it ends it now; "
        "whatever comes from then on belongs to the next day. This cannot be undone."
    )
    if ask and not typer.confirm("End it now?"):
        raise InputRefused("nothing was changed")


class _Display:
    """Progress for a person at a terminal, plain lines for everything else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: TaskID | None = None
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[lines]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> "_Display":
        if self._console.is_terminal:
            self._bar.start()
            self._task = self._bar.add_task("", total=None, lines="")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, step: Step) -> None:
        """Show one step's beginning, advance or end."""
        if step.finished:
            self._console.print(f"{step.step}: {_words(step.outcome or {})}".rstrip(": "))
        elif self._task is not None:
            lines = f"{step.done:,} of {step.total:,} lines" if step.total else ""
            self._bar.update(
                self._task, description=step.step, completed=step.done, total=step.total or None, lines=lines
            )


_SHOWN = {
    "ends_at": "day ends at {}",
    "sealed_at": "sealed at {}",
    "paid": "{} grey records accepted",
    "refused": "{} grey records refused",
    "unanswered": "{} records of other cities' cards accepted without an answer",
    "waiting": "{} grey records wait for evidence",
    "records": "{:,} offline records folded",
    "items": "{:,} transactions",
    "without_rule": "{} merchants and account kinds without a fee rule",
    "postings": "{} fee postings",
    "files": "{:,} files",
    "lines": "{:,} lines",
    "leaves": "{:,} leaves",
    "signed_by": "signed by {}",
    "rewritten": "{:,} files written again",
    "reports": "{:,} reports",
    "reports_rewritten": "{:,} reports written again",
}


def _local(instant: str) -> str:
    return f"{datetime.fromisoformat(instant).astimezone(SHANGHAI):%Y-%m-%d %H:%M:%S}"


def _words(outcome: dict[str, Any]) -> str:
    words = [
        text.format(_local(outcome[name]) if name.endswith("_at") else outcome[name])
        for name, text in _SHOWN.items()
        if name in outcome and (outcome[name] or name in ("items", "leaves", "rewritten"))
    ]
    if outcome.get("signed_by") == "":
        words.append("NOT SIGNED: the vault has no key for it (docs/keys.md, section 10)")
    if "volume_fen" in outcome:
        words.append(f"volume {yuan(outcome['volume_fen'])}, fees {yuan(outcome['fee_fen'])}")
    return ", ".join(text for text in words if text) if outcome else ""


def _tell_end(console: Console, closed: Closed, report: Figures) -> None:
    again = len(closed.rewritten) + len(closed.reports)
    if closed.was_closed and not again:
        console.print(f"Business day {report['day']} was closed already; all its files are there and whole.")
    elif closed.was_closed:
        console.print(f"Business day {report['day']} was closed already; {again} files written again.")
    else:
        _merchants(console, report)
        console.print(
            f"Business day {report['day']} is closed; money moves on {report['settlement_date']} (T+1)."
        )
    console.print(f"{len(report['files'])} files in {closed.folder}")


def _merchants(console: Console, report: Figures) -> None:
    table = Table(title=f"Merchants, {report['day']}", title_justify="left")
    for title in ("merchant", "name"):
        table.add_column(title, no_wrap=True)
    for title in ("transactions", "sales", "refunds", "fees", "payable"):
        table.add_column(title, justify="right", no_wrap=True)
    for line in report["merchants"][:50]:
        table.add_row(
            line["merchant"],
            line["name"],
            f"{line['items']:,}",
            *(yuan(line[name]) for name in ("debit_fen", "credit_fen", "fee_fen", "net_fen")),
        )
    console.print(table)
    if len(report["merchants"]) > 50:
        console.print(f"and {len(report['merchants']) - 50} more; --json has them all")
