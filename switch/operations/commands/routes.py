"""`cardswitch routes`: the routing table, in and out, in force or not, and why a card goes where it goes. Format: docs/routing.md."""

import getpass
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

from switch.domain.calendar import SHANGHAI
from switch.operations.commands.routes_explain import Question, answer_of, explain, lines_of
from switch.registry import route_versions as store
from switch.registry.exporting import PrivateFile
from switch.registry.import_files import Faults, ImportRefused
from switch.registry.issuers import read_participants
from switch.routing.destinations import RouteTable, Row
from switch.routing.host_names import HostNames
from switch.routing.route_check import Known, Warned, check
from switch.routing.route_format import ACCOUNTS, KINDS, NAMES, ROWS_MAX, read_file, read_rows, written
from switch.routing.routes import compiled
from switch.settings import load_settings
from switch.storage.embedded import open_database

app = typer.Typer(no_args_is_help=True, help="Where requests go: the routing table.")

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Actor = Annotated[str, typer.Option(help="Who answers for it; default: the login name.")]
File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="CSV.")]
Connection = psycopg.Connection[Any]

BUILT_IN = (
    ("a bank card bound to one of ours", "HOST: of its bank"),
    ("a card of ours", "LEDGER"),
    ("a card of another registered issuer", "CITY: its institution"),
    ("any other card", "REFUSE:15"),
)


@contextmanager
def _database() -> Iterator[tuple[Connection, frozenset[str]]]:
    """A connection, and the issuer ids that are ours by the settings."""
    settings = load_settings()
    with open_database(settings) as url, psycopg.connect(url, autocommit=True) as connection:
        yield connection, frozenset(settings.institution.issuer_ids)


def _hosts() -> HostNames:
    return HostNames(load_settings().hosts.links)


def _checked(
    connection: Connection, own_ids: frozenset[str], rows: Sequence[Row], faults: Faults, name: str
) -> tuple[RouteTable, list[Warned]]:
    """The table of these rows. ImportRefused when anything is wrong."""
    known = Known(
        read_participants(connection, own_ids),
        store.cities(connection),
        store.known_merchants(connection, {row.merchant for row in rows if row.merchant}),
        _hosts().names,
    )
    faults.refuse_if_any()
    table, warned = check(rows, known, faults, name=name, today=datetime.now(SHANGHAI).date())
    faults.refuse_if_any()
    assert table is not None
    return table, warned


def examine(connection: Connection, own_ids: frozenset[str]) -> tuple[int, list[str]]:
    """The version in force and what is wrong with it by the registry as it is now."""
    stored = store.active(connection)
    try:
        _checked(connection, own_ids, _rows(stored), Faults(), f"version {stored.version}")
    except ImportRefused as refusal:
        return stored.version, [str(fault) for fault in refusal.faults]
    return stored.version, []


def _stored(connection: Connection, version: int | None) -> store.Stored:
    return store.active(connection) if version is None else store.version_of(connection, version)


def _rows(stored: store.Stored) -> list[Row]:
    faults = Faults()
    rows = read_rows(stored.content, f"version {stored.version}", faults) if stored.version else []
    faults.refuse_if_any()
    return rows


@contextmanager
def _refusals(*, as_json: bool) -> Iterator[None]:
    """Tell every fault, and end with status 1."""
    try:
        yield
    except ImportRefused as refusal:
        if as_json:
            faults = [fault._asdict() for fault in refusal.faults]
            document = {"done": False, "faults": faults, "more": refusal.more}
            typer.echo(json.dumps(document, ensure_ascii=False))
        else:
            for fault in refusal.faults:
                typer.echo(str(fault), err=True)
            typer.echo(f"cardswitch: {refusal}", err=True)
        raise typer.Exit(1) from None


def _say(document: dict[str, Any], text: str, warned: Sequence[Warned], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document | {"warnings": [one._asdict() for one in warned]}, ensure_ascii=False))
        return
    for one in warned:
        typer.echo(f"warning: {one}", err=True)
    typer.echo(text)


@app.command("import")
def import_(
    file: File,
    note: Annotated[str, typer.Option(help="Why, for the history; at most 200 characters.")] = "",
    keep: Annotated[
        bool, typer.Option("--keep", help="Store it; put it in force later by `activate`.")
    ] = False,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Check a file as a whole, store it as a new version and put it in force everywhere. The same as in force changes nothing."""
    if len(note) > 200 or not note.isprintable():
        raise typer.BadParameter("must be at most 200 printable characters", param_hint="--note")
    faults = Faults()
    who = actor or getpass.getuser()
    with _refusals(as_json=as_json), _database() as (connection, own_ids), connection.transaction():
        store.hold(connection)
        rows = read_file(file, faults)
        _, warned = _checked(connection, own_ids, rows, faults, str(file))
        content = written(rows)
        before = store.active(connection)
        if changed := content != before.content:
            stored = store.add(connection, content, rows=len(rows), actor=who, note=note)
            if not keep:
                store.activate(connection, stored.version, who)
        else:
            stored = before
    document = {
        "done": True,
        "changed": changed,
        "version": stored.version,
        "in_force": not (changed and keep),
        "rows": len(rows),
        "digest": stored.digest,
    }
    if not changed:
        text = f"version {stored.version} is in force and says the same: nothing was changed"
    elif keep:
        text = f"version {stored.version} is stored, {len(rows)} rows; in force is version {before.version}"
    else:
        text = f"version {stored.version} is in force, {len(rows)} rows, instead of version {before.version}"
    _say(document, text, warned, as_json=as_json)


@app.command("export")
def export(
    version: Annotated[int | None, typer.Option(help="Another one than that in force.")] = None,
    out: Annotated[Path | None, typer.Option(help="A file; without it standard output.")] = None,
    as_json: Json = False,
) -> None:
    """Write a version as `import` reads it."""
    with _database() as (connection, _):
        stored = _stored(connection, version)
    content = stored.content or written(())
    if out is None:
        document = {"version": stored.version, "digest": stored.digest, "content": content}
        typer.echo(json.dumps(document, ensure_ascii=False) if as_json else content, nl=as_json)
        return
    with PrivateFile(out) as stream:
        stream.write(content)
    document = {"version": stored.version, "digest": stored.digest, "out": str(out)}
    typer.echo(json.dumps(document, ensure_ascii=False) if as_json else f"{out}: version {stored.version}")


@app.command("show")
def show(
    version: Annotated[int | None, typer.Option(help="Another one than that in force.")] = None,
    as_json: Json = False,
) -> None:
    """Show the rows in the order in which they are tried, and what is built in behind them."""
    with _database() as (connection, _), _refusals(as_json=as_json):
        stored = _stored(connection, version)
        rows = sorted(_rows(stored), key=lambda row: row.precedence)
    if as_json:
        document = {
            "version": stored.version,
            "digest": stored.digest,
            "rows": [
                {name: cell for name, cell in zip(NAMES, row.cells, strict=True) if cell} for row in rows
            ],
            "built_in": [{"of": what, "to": where} for what, where in BUILT_IN],
        }
        typer.echo(json.dumps(document, ensure_ascii=False))
        return
    typer.echo(f"version {stored.version}, {len(rows)} rows" + (f", SM3 {stored.digest}" if rows else ""))
    to, note = NAMES.index("to"), NAMES.index("note")
    for row in rows:
        asked = [f"{NAMES[n]} {cell}" for n, cell in enumerate(row.cells) if cell and n not in (0, to, note)]
        remark = f"   ({row.cells[note]})" if row.cells[note] else ""
        typer.echo(f"{row.precedence:>9}  {row.cells[to]:30}  {', '.join(asked) or 'all'}{remark}")
    for what, where in BUILT_IN:
        typer.echo(f"{'built in':>9}  {where:30}  {what}")


@app.command("versions")
def versions(as_json: Json = False) -> None:
    """Tell which versions there are, and what was in force since when and by whose word."""
    with _database() as (connection, _):
        stored, changes = store.versions(connection), store.activations(connection)
    if as_json:
        document = {
            "versions": [one._asdict() | {"at": one.at.isoformat()} for one in stored],
            "activations": [one._asdict() | {"at": one.at.isoformat()} for one in changes],
        }
        typer.echo(json.dumps(document, ensure_ascii=False))
        return
    for one in stored:
        at = one.at.astimezone(SHANGHAI)
        typer.echo(
            f"version {one.version:>4}  {at:%Y-%m-%d %H:%M:%S}  {one.actor}  {one.rows} rows  {one.digest[:16]}  {one.note}"
        )
    for change in changes:
        at = change.at.astimezone(SHANGHAI)
        typer.echo(
            f"{at:%Y-%m-%d %H:%M:%S}  {change.actor}  {change.action} -> version {change.version or 0}"
        )


@app.command("activate")
def activate(version: int, actor: Actor = "", as_json: Json = False) -> None:
    """Put a stored version in force, checked against the registry as it is now."""
    with _refusals(as_json=as_json), _database() as (connection, own_ids), connection.transaction():
        store.hold(connection)
        before = store.active(connection)
        stored = store.version_of(connection, version)
        _, warned = _checked(connection, own_ids, _rows(stored), Faults(), f"version {version}")
        if changed := before.version != version:
            store.activate(connection, version, actor or getpass.getuser())
    text = f"version {version} is in force" + ("" if changed else " already: nothing was changed")
    _say({"done": True, "changed": changed, "version": version}, text, warned, as_json=as_json)


@app.command("rollback")
def rollback(actor: Actor = "", as_json: Json = False) -> None:
    """Put back in force what was before the last activation; again: what was before that."""
    with _refusals(as_json=as_json), _database() as (connection, own_ids), connection.transaction():
        store.hold(connection)
        version = store.step_back(connection)
        stored = store.version_of(connection, version) if version else store.NOTHING
        _, warned = _checked(connection, own_ids, _rows(stored), Faults(), f"version {version}")
        store.roll_back(connection, version, actor or getpass.getuser())
    what = (
        f"version {version} is in force again" if version else "no table is in force, only what is built in"
    )
    _say({"done": True, "changed": True, "version": version}, what, warned, as_json=as_json)


@app.command("check")
def check_(
    file: Annotated[
        Path | None,
        typer.Argument(
            exists=True, dir_okay=False, readable=True, help="CSV to check; else what is in force."
        ),
    ] = None,
    pan: Annotated[str, typer.Option(help="Explain for this card: its number, or its first 12 digits.")] = "",
    issuer: Annotated[str, typer.Option(help="Explain for a card of this issuer id.")] = "",
    account: Annotated[str, typer.Option(help=", ".join(ACCOUNTS))] = "ONLINE",
    kind: Annotated[str, typer.Option("--type", help=", ".join(KINDS))] = "PURCHASE",
    amount: Annotated[int, typer.Option(min=0, help="In fen.")] = 100,
    merchant: Annotated[str, typer.Option(help="A registered merchant.")] = "",
    at: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"], help="Shanghai time; default: now."),
    ] = None,
    version: Annotated[int | None, typer.Option(help="Another version than that in force.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Rows about other cards too.")] = False,
    as_json: Json = False,
) -> None:
    """Check a table and change nothing; for a given card, tell which row decides and why others do not."""
    if account not in ACCOUNTS or kind not in KINDS:
        known = ", ".join(ACCOUNTS if account not in ACCOUNTS else KINDS)
        raise typer.BadParameter(f"must be one of {known}")
    if pan and issuer:
        raise typer.BadParameter("give --pan or --issuer, not both")
    if file is not None and version is not None:
        raise typer.BadParameter("give a file or --version, not both")
    faults = Faults()
    with _refusals(as_json=as_json), _database() as (connection, own_ids):
        if file is not None:
            rows, name, number = read_file(file, faults), str(file), 0
        else:
            stored = _stored(connection, version)
            rows, name, number = _rows(stored), f"version {stored.version}", stored.version
        if not (pan or issuer):
            table, warned = _checked(connection, own_ids, rows, faults, name)
            document = {"done": True, "version": number or None, "rows": len(rows)}
            _say(
                document,
                f"{name}: {len(rows)} rows of at most {ROWS_MAX}, no faults",
                warned,
                as_json=as_json,
            )
            return
        if file is not None:
            table, _ = _checked(connection, own_ids, rows, faults, name)
        else:  # as it serves, whatever the registry has become since
            table = compiled(stored, read_participants(connection, own_ids))
        instant = at.replace(tzinfo=SHANGHAI) if at is not None else datetime.now(UTC)
        question = Question(pan, issuer, account, kind, amount, merchant, instant)
        explained = explain(connection, table, question, _hosts())
    if as_json:
        typer.echo(json.dumps(answer_of(explained, every=every), ensure_ascii=False))
    else:
        for line in lines_of(explained, every=every):
            typer.echo(line)
