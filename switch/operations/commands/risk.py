"""`cardswitch risk`: rules for risk on offline records, tried on history, put in force, and what they have marked. Format: docs/risk.md."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import psycopg
import typer
from psycopg import AsyncConnection

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.domain.money import yuan
from switch.operations.commands.risk_report import line_of_case, lines_of_trial
from switch.purse.risk import cases as desk
from switch.purse.risk import versions as store
from switch.purse.risk.bench import read_labels, try_rules
from switch.purse.risk.features import FEATURES
from switch.purse.risk.replay import STATEMENT_S_MAX
from switch.purse.risk.rules import FILE_BYTES_MAX, Rule, RulesRefused, read_rules
from switch.registry.exporting import PrivateFile
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="Rules for risk on offline records, and what they have marked.")

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Actor = Annotated[str, typer.Option(help="Who answers for it; default: the login name.")]
File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="TOML.")]
Days = ["%Y-%m-%d"]
Instants = ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
Begin = Annotated[
    datetime | None,
    typer.Option("--from", formats=Instants, help="In force from then on, Shanghai time; default: now."),
]
T = TypeVar("T")


def _with_database(work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
    async def run(url: str) -> T:
        async with await connect(url) as connection:
            try:
                return await work(connection)
            except psycopg.errors.QueryCanceled:
                raise InputRefused(
                    f"it took longer than {STATEMENT_S_MAX} s and was stopped: ask for fewer days or fewer figures"
                ) from None

    with open_database(load_settings()) as url:
        return asyncio.run(run(url))


def _say(document: dict[str, Any], text: str, *, as_json: bool) -> None:
    typer.echo(orjson.dumps(document).decode() if as_json else text)


def _read(file: Path, *, as_json: bool) -> tuple[bytes, tuple[Rule, ...]]:
    """The file and its rules; with status 1 when it breaks the format."""
    with file.open("rb") as stream:
        content = stream.read(FILE_BYTES_MAX + 1)
    try:
        return content, read_rules(content)
    except RulesRefused as refusal:
        if as_json:
            faults = [fault._asdict() for fault in refusal.faults]
            typer.echo(orjson.dumps({"done": False, "faults": faults}).decode())
        else:
            typer.echo(f"cardswitch: {file}: {refusal}", err=True)
        raise typer.Exit(1) from None


def _instant(local: datetime | None) -> datetime | None:
    return local.replace(tzinfo=SHANGHAI) if local is not None else None


def _shown(at: datetime) -> str:
    return f"{at.astimezone(SHANGHAI):%Y-%m-%d %H:%M:%S}"


@app.command("import")
def import_(
    file: File,
    note: Annotated[str, typer.Option(help="Why, for the history; at most 200 characters.")] = "",
    keep: Annotated[bool, typer.Option("--keep", help="Store it; `activate` puts it in force.")] = False,
    begins: Begin = None,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Check a file, store it as a new version and put it in force. The same as in force changes nothing."""
    if len(note) > 200 or not note.isprintable():
        raise typer.BadParameter("must be at most 200 printable characters", param_hint="--note")
    content, rules = _read(file, as_json=as_json)
    who = actor or getpass.getuser()

    async def work(connection: AsyncConnection[Any]) -> tuple[store.Stored, datetime | None]:
        async with connection.transaction():
            await store.hold(connection)
            before = await store.in_force(connection)
            if before.content.encode() == content:
                return before, before.begins_at
            made = await store.add(connection, content, rules=len(rules), actor=who, note=note)
            if keep:
                return made, None
            instant = _instant(begins)
            return made, await store.activate(connection, made.version, begins_at=instant, actor=who)

    stored, begins_at = _with_database(work)
    document = {
        "version": stored.version,
        "rules": len(rules),
        "digest": stored.digest,
        "begins_at": begins_at.isoformat() if begins_at else None,
    }
    force = f"in force from {_shown(begins_at)}" if begins_at else "stored, not in force"
    _say(document, f"version {stored.version}, {len(rules)} rules: {force}", as_json=as_json)


async def _stored(connection: AsyncConnection[Any], version: int | None) -> store.Stored:
    if version is not None:
        return await store.version_of(connection, version)
    found = await store.in_force(connection)
    if not found.version:
        raise InputRefused("no rules are in force: `cardswitch risk import FILE`")
    return found


VersionOption = Annotated[int | None, typer.Option(help="Another one than that in force.")]


@app.command("export")
def export(
    version: VersionOption = None,
    out: Annotated[Path | None, typer.Option(help="A file; without it standard output.")] = None,
    as_json: Json = False,
) -> None:
    """Write a version as it came, with its remarks."""
    stored = _with_database(lambda connection: _stored(connection, version))
    document = {"version": stored.version, "digest": stored.digest}
    if out is None:
        typer.echo(
            orjson.dumps(document | {"content": stored.content}).decode() if as_json else stored.content,
            nl=as_json,
        )
        return
    with PrivateFile(out) as stream:
        stream.write(stored.content)
    _say(document | {"out": str(out)}, f"{out}: version {stored.version}", as_json=as_json)


@app.command("show")
def show(version: VersionOption = None, as_json: Json = False) -> None:
    """Show the rules of a version."""
    stored = _with_database(lambda connection: _stored(connection, version))
    if as_json:
        rules = [
            {
                "name": rule.name,
                "matter": rule.matter,
                "when": [str(one) for one in rule.when],
                "note": rule.note,
            }
            for rule in stored.rules
        ]
        _say({"version": stored.version, "digest": stored.digest, "rules": rules}, "", as_json=True)
        return
    typer.echo(f"version {stored.version}, SM3 {stored.digest}")
    for rule in stored.rules:
        remark = f"   ({rule.note})" if rule.note else ""
        typer.echo(f"{rule.name:32} per {rule.matter:9} {' and '.join(map(str, rule.when))}{remark}")


@app.command("features")
def features(as_json: Json = False) -> None:
    """The figures that a rule may ask for."""
    if as_json:
        known = [{"name": one.name, "unit": one.unit, "says": one.says} for one in FEATURES.values()]
        typer.echo(orjson.dumps(known).decode())
        return
    for one in FEATURES.values():
        typer.echo(f"{one.name:30}{one.unit:10}{one.says}")


@app.command("versions")
def versions(as_json: Json = False) -> None:
    """Tell which versions there are, and what was put in force or taken back, when and by whom."""

    async def work(connection: AsyncConnection[Any]) -> tuple[list[store.Version], list[store.Activation]]:
        return await store.versions(connection), await store.activations(connection)

    stored, changes = _with_database(work)
    if as_json:
        document = {
            "versions": [one._asdict() for one in stored],
            "activations": [one._asdict() for one in changes],
        }
        _say(document, "", as_json=True)
        return
    for one in stored:
        typer.echo(
            f"version {one.version:>4}  {_shown(one.at)}  {one.actor}  {one.rules} rules  {one.digest[:16]}  {one.note}"
        )
    for change in changes:
        typer.echo(
            f"{_shown(change.at)}  {change.actor}  {change.action} version {change.version} from {_shown(change.begins_at)}"
        )


@app.command("activate")
def activate(version: int, begins: Begin = None, actor: Actor = "", as_json: Json = False) -> None:
    """Put a stored version in force, now or from a later instant on."""

    async def work(connection: AsyncConnection[Any]) -> datetime:
        async with connection.transaction():
            await store.hold(connection)
            stored = await store.version_of(connection, version)
            assert stored.rules
            return await store.activate(
                connection, version, begins_at=_instant(begins), actor=actor or getpass.getuser()
            )

    begins_at = _with_database(work)
    _say(
        {"version": version, "begins_at": begins_at.isoformat()},
        f"version {version}: in force from {_shown(begins_at)}",
        as_json=as_json,
    )


@app.command("rollback")
def rollback(actor: Actor = "", as_json: Json = False) -> None:
    """Take the newest activation back; again: the one before it."""

    async def work(connection: AsyncConnection[Any]) -> tuple[int, store.Stored]:
        async with connection.transaction():
            await store.hold(connection)
            taken = await store.roll_back(connection, actor=actor or getpass.getuser())
            return taken, await store.in_force(connection)

    taken, now = _with_database(work)
    what = f"version {now.version} is in force" if now.version else "no rules are in force"
    _say(
        {"taken_back": taken, "version": now.version},
        f"version {taken} is taken back: {what}",
        as_json=as_json,
    )


@app.command("try")
def try_(
    file: File,
    since: Annotated[datetime, typer.Option(formats=Days, help="First business day of receipt.")],
    until: Annotated[datetime | None, typer.Option(formats=Days, help="Last one; default: today.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            readable=True,
            help="CSV of a planted set; default: what people have said.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay history with rules that need not be stored, and tell what they would have marked. Changes nothing."""
    _, rules = _read(file, as_json=as_json)
    named = read_labels(labels) if labels is not None else None
    # One day more than today: after the cut-off the open business day is tomorrow's.
    last = until.date() if until is not None else date.fromordinal(datetime.now(SHANGHAI).toordinal() + 1)
    tried = _with_database(lambda connection: try_rules(connection, rules, since.date(), last, named))
    if as_json:
        document = tried._asdict() | {
            "rules": [score._asdict() | {"precision": score.precision} for score in tried.rules],
            "kinds": [kind._asdict() for kind in tried.kinds],
        }
        _say(document, "", as_json=True)
        return
    for line in lines_of_trial(tried):
        typer.echo(line)


@app.command("run")
def run(as_json: Json = False) -> None:
    """Mark what came since the last run, as the service does by itself every `purse.risk_every_s`."""

    async def work(connection: AsyncConnection[Any]) -> tuple[int, int, dict[str, int], list[str]]:
        records, hits, cut = 0, dict[str, int](), list[str]()
        while True:
            done = await desk.run(connection)
            records += done.records
            for rule, count in done.hits.items():
                hits[rule] = hits.get(rule, 0) + count
            cut += [rule for rule in done.cut if rule not in cut]
            if not done.more:
                return done.version, records, hits, cut

    version, records, hits, cut = _with_database(work)
    document = {"version": version, "records": records, "hits": hits, "cut": cut}
    text = f"rules of version {version}: {records} new records, {sum(hits.values())} hits"
    text += "".join(f"\n  {rule}: {count}" for rule, count in hits.items())
    text += "".join(
        f"\n  {rule}: more than {desk.HITS_PER_RULE} in one run, the rest was left out" for rule in cut
    )
    _say(document, text if version else "no rules are in force: nothing was marked", as_json=as_json)


@app.command("cases")
def cases(
    every: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    rule: Annotated[str | None, typer.Option(help="Of this rule only.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=desk.LISTED_MAX)] = 100,
    as_json: Json = False,
) -> None:
    """List cases, the newest first. Cards are shown masked."""
    found = _with_database(lambda connection: desk.cases(connection, closed=every, rule=rule, limit=limit))
    if as_json:
        typer.echo(orjson.dumps([case._asdict() for case in found]).decode())
        return
    for case in found:
        typer.echo(line_of_case(case))
    total_fen = sum(case.amount_fen for case in found)
    typer.echo(f"{len(found)} cases{', perhaps more' if len(found) == limit else ''}, {yuan(total_fen)} CNY")


@app.command("close")
def close(
    case_no: int,
    reason: Annotated[str, typer.Option(help="What was found; kept for ever.")],
    confirmed: Annotated[
        bool, typer.Option("--confirmed/--false", help="Whether there was something in it.")
    ],
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Close a case for good. The verdict is what `try` measures rules by."""
    verdict = desk.CONFIRMED if confirmed else desk.FALSE
    who = actor or getpass.getuser()
    rule = _with_database(
        lambda connection: desk.close(connection, case_no, verdict, actor=who, reason=reason)
    )
    document = {"case_no": case_no, "rule": rule, "verdict": verdict}
    _say(document, f"case {case_no} ({rule}) is closed: {verdict}", as_json=as_json)
