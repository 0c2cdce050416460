"""`cardswitch hosts …`: what hosts of other institutions are owed, and what they refused. Runbook: docs/operations.md, section 23."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import orjson
import typer

from switch.domain.hosts import HostService, HostStep
from switch.domain.identifiers import mask_pan
from switch.domain.money import yuan
from switch.ledger.card_states import shown
from switch.ledger.outbox import Figures, figures
from switch.ledger.outbox_desk import LISTED_MAX, Listed, listed, outstanding, retry, settle, stand_in_days
from switch.settings import Settings, load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="Hosts of banks and social security, and what they are owed.")

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Actor = Annotated[str, typer.Option(help="Who answers for it; default: the login name.")]
Host = Annotated[str, typer.Argument(help="As the settings call it.")]
Number = Annotated[int, typer.Argument(min=1, help="As `hosts outbox` shows it.")]
NOTHING: Final = Figures(0, 0, 0.0)
Connected = TypeVar("Connected")


def _with(work: Callable[[Any, Settings], Awaitable[Connected]]) -> Connected:
    """Run something with a connection to the database."""
    settings = load_settings()

    async def run(url: str) -> Connected:
        async with await connect(url) as connection:
            return await work(connection, settings)

    with open_database(settings) as url:
        return asyncio.run(run(url))


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Hosts of the settings, and others that are still owed something: open, refused, approved in their place."""

    async def work(connection: Any, settings: Settings) -> list[dict[str, Any]]:
        owed = await figures(connection, range(settings.database.shards))
        stood_in = await outstanding(connection)
        links = {link.name: link for link in settings.hosts.links}
        found = []
        for name in sorted(links.keys() | owed.keys() | {host for host, at in stood_in.items() if at[1]}):
            link, of = links.get(name), owed.get(name, NOTHING)
            fen, count = stood_in.get(name, (0, 0))
            found.append(
                {
                    "host": name,
                    "address": f"{link.host}:{link.port}" if link else None,
                    "institution": link.institution if link else None,
                    "open": of.open,
                    "oldest_s": round(of.oldest_s),
                    "refused": of.refused,
                    "stood_in_outstanding": count,
                    "stood_in_outstanding_fen": fen,
                }
            )
        return found

    hosts = _with(work)
    if as_json:
        typer.echo(orjson.dumps(hosts).decode())
        return
    for host in hosts:
        typer.echo(
            f"{host['host']}  {host['address'] or 'not in the settings'}  open {host['open']}"
            f" (oldest {host['oldest_s']} s)  refused {host['refused']}"
            f"  stood in {host['stood_in_outstanding']} ({yuan(host['stood_in_outstanding_fen'])} yuan)"
        )


def _document(one: Listed) -> dict[str, Any]:
    return {
        "outbox_no": one.outbox_no,
        "shard": one.shard,
        "host": one.host,
        "message": HostStep(one.step).name,
        "service": HostService(one.service).name,
        "reason": one.reason or None,
        "card": mask_pan(one.pan) if one.pan else None,
        "amount_fen": one.amount_fen,
        "reference": one.rrn,
        "transmitted": one.transmitted,
        "trace": one.trace,
        "leg_no": one.leg_no,
        "state": _state(one),
        "tries": one.tries,
        "last_end": one.last_end or None,
        "created_at": shown(one.created_at),
        "due_at": _instant(one.due_at if one.result is None else None),
        "refused_at": _instant(one.done_at),
    }


def _state(one: Listed) -> str:
    if one.result is not None:
        return "refused"
    return "sending" if one.sending else "open"


def _instant(at: datetime | None) -> str | None:
    return shown(at) if at is not None else None


@app.command("outbox")
def outbox(
    host: Annotated[str, typer.Option(help="Of one host only.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only what was refused.")] = False,
    as_json: Json = False,
) -> None:
    """Messages that a host has not confirmed, oldest first, the first thousand."""
    found = _with(lambda connection, _settings: listed(connection, host=host, refused=refused))
    documents = [_document(one) for one in found]
    if as_json:
        typer.echo(orjson.dumps(documents).decode())
        return
    for one in documents:
        typer.echo(
            f"{one['outbox_no']:>10}  {one['host']}  {one['state']:7}  {one['message']} {one['service']}"
            f" {one['reason'] or ''}  {one['card'] or '-'}  {yuan(one['amount_fen'])} yuan  {one['reference']}"
            f"  tries {one['tries']} {one['last_end'] or ''}  {one['created_at']}"
        )
    if len(documents) == LISTED_MAX:
        typer.echo(f"and perhaps more: these are {LISTED_MAX}", err=True)


@app.command("retry")
def retry_(host: Host, outbox_no: Number, actor: Actor = "") -> None:
    """Send a refused message again, with the key that it had."""
    _with(lambda connection, _settings: retry(connection, host, outbox_no, actor=actor or getpass.getuser()))
    typer.echo(f"message {outbox_no} to {host} is open again")


@app.command("settle")
def settle_(
    host: Host,
    outbox_no: Number,
    reason: Annotated[str, typer.Option(help="What was agreed with the host; kept for ever.")],
    actor: Actor = "",
) -> None:
    """Take a refused message off the list: it was put right with the host by people."""
    who = actor or getpass.getuser()
    _with(lambda connection, _settings: settle(connection, host, outbox_no, actor=who, reason=reason))
    typer.echo(f"message {outbox_no} to {host} is settled")


@app.command("stand-in")
def stand_in(
    host: Annotated[str, typer.Option(help="Of one host only.")] = "",
    as_json: Json = False,
) -> None:
    """What was approved in a host's place, by business day, and how much of it the host has been told."""
    days = _with(lambda connection, _settings: stand_in_days(connection, host))
    if as_json:
        rows = [day._asdict() | {"business_date": day.business_date.isoformat()} for day in days]
        typer.echo(orjson.dumps(rows).decode())
        return
    for day in days:
        typer.echo(
            f"{day.host}  {day.business_date}  approved {day.approved} ({yuan(day.approved_fen)} yuan)"
            f"  advised {day.advised} ({yuan(day.advised_fen)})  refused {day.refused} ({yuan(day.refused_fen)})"
            f"  outstanding {day.outstanding} ({yuan(day.outstanding_fen)})"
        )
