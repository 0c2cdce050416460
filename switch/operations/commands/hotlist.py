"""`cardswitch hotlist import|show|publish|discard`: the purses that offline terminals refuse or lock."""

import getpass
import json
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from switch.domain.identifiers import mask_asn
from switch.registry.hot_list import discard as discard_draft
from switch.registry.hot_list import draft_of, import_draft, listed, newest_versions
from switch.registry.hot_list import publish as publish_draft
from switch.settings import load_settings
from switch.storage.embedded import open_database

app = typer.Typer(no_args_is_help=True, help="The hot list: purses that offline terminals refuse or lock.")

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Actor = Annotated[str, typer.Option(help="Who answers for it.")]
VERSIONS_SHOWN = 20


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="CSV file.")],
    full: Annotated[bool, typer.Option("--full", help="The file is the whole list, not changes.")] = False,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Take changes into the draft, all lines or none. Nothing reaches a terminal before `publish`."""
    with open_database(load_settings()) as url, psycopg.connect(url, autocommit=True) as connection:
        draft = import_draft(connection, file, actor or getpass.getuser(), full=full)
    if as_json:
        typer.echo(json.dumps({"draft": draft._asdict()}))
    else:
        typer.echo(f"the draft adds {draft.added} and removes {draft.removed}; `cardswitch hotlist publish`")


@app.command()
def publish(actor: Actor = "", as_json: Json = False) -> None:
    """Make the draft the next version. Terminals are asked to fetch it in their next answers."""
    with open_database(load_settings()) as url, psycopg.connect(url, autocommit=True) as connection:
        version = publish_draft(connection, actor or getpass.getuser())
    if as_json:
        made = version._asdict() | {"published_at": version.published_at.isoformat()} if version else None
        typer.echo(json.dumps({"published": made}))
    elif version is None:
        typer.echo("the draft changes nothing: nothing was published")
    else:
        typer.echo(f"version {version.version}: {version.entries} cards")


@app.command()
def discard() -> None:
    """Forget the draft."""
    with open_database(load_settings()) as url, psycopg.connect(url, autocommit=True) as connection:
        discard_draft(connection)
    typer.echo("the draft is empty")


@app.command()
def show(
    entries: Annotated[
        bool, typer.Option("--entries", help="Every card on the newest list, masked.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The newest versions, and what the draft would change."""
    with open_database(load_settings()) as url, psycopg.connect(url, autocommit=True) as connection:
        versions, draft = newest_versions(connection, VERSIONS_SHOWN), draft_of(connection)
        cards = [
            {"asn": mask_asn(asn), "level": f"{level:02d}", "reason": reason, "since_version": since}
            for asn, level, reason, since in (listed(connection) if entries else ())
        ]
    if as_json:
        shown = [row._asdict() | {"published_at": row.published_at.isoformat()} for row in versions]
        document = {"versions": shown, "draft": draft._asdict()}
        typer.echo(json.dumps(document | ({"entries": cards} if entries else {}), ensure_ascii=False))
        return
    typer.echo(f"{'version':>8}{'cards':>8}{'added':>8}{'removed':>9}  published")
    for number, at, actor, count, added, removed in versions:
        typer.echo(f"{number:>8}{count:>8}{added:>8}{removed:>9}  {at:%Y-%m-%d %H:%M:%S%z} {actor}")
    typer.echo(f"{'draft':>8}{'':8}{draft.added:>8}{draft.removed:>9}")
    for card in cards:
        typer.echo(f"{card['asn']}  {card['level']}  {card['reason']:16}since {card['since_version']}")
