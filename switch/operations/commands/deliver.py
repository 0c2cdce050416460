"""`cardswitch deliver`: files to partners and from them; `cardswitch deliveries`: who has what."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from switch.clearing.deliveries import SQL, retry
from switch.domain.errors import InputRefused
from switch.settings import Settings, load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect
from switch.telemetry import logs

app = typer.Typer(
    no_args_is_help=True, help="What partners were sent, what they answered and what they sent."
)

_SHOWN_MAX = 10_000
_PARTNER = (
    "partner", "failures", "last_error", "tried_at", "good_at", "next_try_at", "waiting", "sent", "acknowledged", "rejected",
    "received", "alarms",
)  # fmt: skip
_FILE = (
    "number",
    "name",
    "state",
    "attempts",
    "queued_at",
    "sent_at",
    "ended_at",
    "last_error",
    "reason",
    "holds",
)
_INBOX = ("name", "state", "said", "fetched_at", "ended_at", "answered_at")
_ALARM = ("alarm_no", "partner", "kind", "name", "detail", "raised_at")

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Most = Annotated[int, typer.Option("--most", min=1, max=_SHOWN_MAX, help="Rows shown, the newest first.")]


def deliver(
    once: Annotated[
        bool, typer.Option("--once", help="One visit to each partner, at once; then end.")
    ] = False,
    partner: Annotated[
        list[str] | None, typer.Option("--partner", help="Only this one, once; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send partners their files over SFTP, read their receipts, take what they left for us. Until SIGTERM, or --once.

    With --once exit 1 when a visit failed. `serve` does the same in a process of its own (delivery.service).
    """
    settings = load_settings()
    with open_database(settings) as url:
        visits = run_deliverer(url, settings, partner or (), once=once or bool(partner))
    if as_json:
        typer.echo(orjson.dumps([visit._asdict() for visit in visits], option=orjson.OPT_INDENT_2).decode())
    else:
        for visit in visits:
            said = f"{len(visit.sent)} sent, {visit.receipts} receipts, {len(visit.fetched)} fetched"
            typer.echo(f"{visit.partner}: {said}{'; ' + visit.fault if visit.fault else ''}")
    if any(visit.fault for visit in visits):
        raise typer.Exit(1)


def run_deliverer(url: str, settings: Settings, names: Sequence[str], *, once: bool) -> list[Any]:
    """Visit once and say what came of it, or until SIGTERM or SIGINT."""
    from switch.operations.delivering import (
        Deliverer,
    )  # the SSH library takes half a second that no other command needs

    logs.configure(settings.telemetry.log_level)
    deliverer = Deliverer(url, settings)

    async def until_stopped() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await deliverer.keep_on(stopping)

    if once:
        return list(asyncio.run(deliverer.once(names)))
    asyncio.run(until_stopped())
    return []


async def _rows(url: str, queries: Mapping[str, tuple[str, Sequence[str], dict[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with await connect(url) as connection:
        for title, (query, columns, values) in queries.items():
            cursor = await connection.execute(SQL[query], values)
            found[title] = [dict(zip(columns, row, strict=True)) for row in await cursor.fetchall()]
    return found


def _read(queries: Mapping[str, tuple[str, Sequence[str], dict[str, Any]]]) -> dict[str, Any]:
    with open_database(load_settings()) as url:
        return asyncio.run(_rows(url, queries))


def _show(document: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 200)
    for title, rows in document.items():
        if not rows:
            console.print(f"{title}: none")
            continue
        table = Table(title=title, title_justify="left")
        for column in rows[0]:
            table.add_column(column.replace("_", " "), no_wrap=True)
        for row in rows:
            table.add_row(*(_cell(value) for value in row.values()))
        console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone():%Y-%m-%d %H:%M:%S}"
    return "" if value is None else str(value)


@app.command("list")
def list_partners(
    alarms: Annotated[bool, typer.Option("--alarms", help="Alarms of all partners instead.")] = False,
    most: Most = 100,
    as_json: Json = False,
) -> None:
    """Partners with what waits, what is not answered, and what went wrong last."""
    if alarms:
        _show(_read({"alarms": ("alarms_of", _ALARM, {"partner": "", "most": most})}), as_json=as_json)
    else:
        _show(_read({"partners": ("partners", _PARTNER, {})}), as_json=as_json)


@app.command()
def show(
    partner: Annotated[str, typer.Argument(help="A partner's name.")],
    every: Annotated[bool, typer.Option("--all", help="Also files that he has acknowledged.")] = False,
    most: Most = 100,
    as_json: Json = False,
) -> None:
    """A partner's files, which generation of each he holds, what he sent, and alarms about him."""
    known = {"partner": partner, "most": most}
    document = _read(
        {
            "files": ("deliveries_of", _FILE, {**known, "open": not every}),
            "received": ("inbox_of", _INBOX, known),
            "alarms": ("alarms_of", _ALARM, known),
        }
    )
    if not any(document.values()) and partner not in {at.name for at in load_settings().delivery.partners}:
        raise InputRefused(f"{partner} is not among delivery.partners, and nothing was ever sent to him")
    _show(document, as_json=as_json)


@app.command("retry")
def try_again(
    partner: Annotated[str, typer.Argument(help="A partner's name.")],
    name: Annotated[str, typer.Argument(help="A file: waiting, or rejected and to be sent once more.")] = "",
    as_json: Json = False,
) -> None:
    """Try a partner at once, and files that were given up; with a name, also one that he rejected. Then `deliver` sends them."""

    async def work(url: str) -> int:
        async with await connect(url) as connection:
            return await retry(connection, partner, name)

    with open_database(load_settings()) as url:
        count = asyncio.run(work(url))
    if as_json:
        typer.echo(orjson.dumps({"partner": partner, "files": count}).decode())
    else:
        typer.echo(f"{partner}: tried at the next visit, {count} files")
