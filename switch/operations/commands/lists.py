"""`cardswitch lists …`: how far terminals' lists have been rolled out, and who may move them."""

import asyncio
import getpass
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final

import psycopg
import typer

from switch.domain.errors import InputRefused
from switch.keys.opening import open_vault
from switch.registry import city_list, hot_list, parameters
from switch.registry.list_publication import ListPublication, ListSigner
from switch.registry.list_rollout import (
    KINDS,
    Figures,
    Newest,
    Plan,
    advance,
    change_group,
    groups_of,
    history_of,
    read_plan,
    resume,
    status_of,
    stop,
)
from switch.registry.parameters import Scope, read_assignment, set_parameters
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(no_args_is_help=True, help="Terminals' lists: publish, roll out, stop, take back.")

LOG_MAX: Final = 1_000


class List(Enum):
    """Which list."""

    HOT = "hot"
    CITY = "city"
    PARAM = "param"


Which = Annotated[List, typer.Argument(help="hot, city (white list) or param.")]
Some = Annotated[List | None, typer.Argument(help="hot, city or param; without it: all.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Actor = Annotated[str, typer.Option(help="Who answers for it.")]
Stages = Annotated[
    str, typer.Option(help="Percentages that grow and names of groups, 100 last: `pilot,5,25,100`.")
]
Soak = Annotated[
    int, typer.Option("--soak", min=0, max=7 * 86_400, help="Seconds that a stage lasts at least.")
]
Coverage = Annotated[
    int, typer.Option("--coverage", min=1, max=100, help="Per cent of a stage's terminals that must have it.")
]


@contextmanager
def _database() -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with open_database(load_settings()) as url, psycopg.connect(url, autocommit=True) as connection:
        yield connection


def _kinds(which: List | None) -> tuple[str, ...]:
    return KINDS if which is None else (which.name,)


@app.command()
def status(which: Some = None, as_json: Json = False) -> None:
    """The newest version of each list, how far it has come, and what terminals make of it."""
    with _database() as connection:
        found = status_of(connection, _kinds(which))
    if as_json:
        typer.echo(json.dumps({"lists": [_document(at) for at in found]}))
        return
    typer.echo(
        f"{'list':6}{'version':>8}{'before':>8}  {'stage':16}{'state':11}{'have it':>15}{'cover':>8}{'to 95 %':>9}"
        f"{'refused':>9}{'restless':>9}{'silent':>8}"
    )
    for at in found:
        stage = f"{at.stages[at.stage - 1]} ({at.stage} of {len(at.stages)})"
        typer.echo(
            f"{at.kind.lower():6}{at.version:>8}{at.previous:>8}  {stage:16}{at.state:11}{f'{at.held} of {at.reached}':>15}"
            f"{at.coverage:>6.1f} %{_time(at.to_95_s):>9}{at.refused:>9}{at.restless:>9}{at.silent:>8}"
        )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _document(at: Figures) -> dict[str, Any]:
    instants = {"started_at": at.started_at.isoformat(), "staged_at": at.staged_at.isoformat()}
    return at._asdict() | instants | {"coverage_pct_now": round(at.coverage, 2)}


@app.command()
def publish(
    which: Which,
    content: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONTENT]...",
            help="city: a CSV file, the whole list; param: NAME=VALUE...; hot: nothing, the draft is published.",
        ),
    ] = None,
    stages: Stages = "100",
    soak: Soak = 3_600,
    coverage: Coverage = 95,
    terminal: Annotated[str, typer.Option("--terminal", help="param: for one terminal.")] = "",
    category: Annotated[str, typer.Option("--category", help="param: for a merchant category.")] = "",
    beyond_line: Annotated[
        bool,
        typer.Option(
            "--beyond-line", help="hot: it may be too long for terminals that fetch it by 0800/390."
        ),
    ] = False,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Publish the next version, in stages or to everybody at once. Nothing is published that changes nothing."""
    plan, who, words = read_plan(stages, soak, coverage), actor or getpass.getuser(), content or []
    make: dict[List, Callable[[psycopg.Connection[tuple[Any, ...]]], int | None]] = {
        List.HOT: lambda connection: _hot(connection, words, plan, who, beyond_line=beyond_line),
        List.CITY: lambda connection: _city(connection, words, plan, who),
        List.PARAM: lambda connection: _param(connection, words, plan, who, Scope(category, terminal)),
    }
    with _database() as connection:
        version = make[which](connection)
    if as_json:
        typer.echo(json.dumps({"list": which.value, "published": version}))
    elif version is None:
        typer.echo("nothing would change: nothing was published")
    else:
        typer.echo(f"{which.value} version {version}: {' > '.join(plan.stages)}")


def _hot(
    connection: psycopg.Connection[tuple[Any, ...]],
    words: list[str],
    plan: Plan,
    actor: str,
    *,
    beyond_line: bool,
) -> int | None:
    if words:
        raise typer.BadParameter("cards are drawn by `cardswitch hotlist import`", param_hint="CONTENT")
    made = hot_list.publish(connection, actor, plan, beyond_line=beyond_line)
    return made and made.version


def _city(
    connection: psycopg.Connection[tuple[Any, ...]], words: list[str], plan: Plan, actor: str
) -> int | None:
    if len(words) != 1 or not Path(words[0]).is_file():
        raise typer.BadParameter("a CSV file is wanted", param_hint="CONTENT")
    return city_list.publish(connection, city_list.read_file(Path(words[0])), actor, plan)


def _param(
    connection: psycopg.Connection[tuple[Any, ...]], words: list[str], plan: Plan, actor: str, scope: Scope
) -> int | None:
    if not words or (scope.category and scope.terminal_id):
        raise typer.BadParameter("NAME=VALUE... for all, a category or a terminal", param_hint="CONTENT")
    wanted = dict(map(read_assignment, words))
    if len(wanted) != len(words):
        raise InputRefused("a parameter is named twice")
    changed = set_parameters(connection, scope, wanted, actor, plan)
    return status_of(connection, ("PARAM",))[0].version if changed else None


@app.command()
def rollout(
    which: Which,
    resume_it: Annotated[
        bool, typer.Option("--resume", help="Go on where it was stopped, not to the next stage.")
    ] = False,
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Go to the next stage now, whatever the rules say."""
    go = resume if resume_it else advance
    with _database() as connection:
        at = go(connection, which.name, actor or getpass.getuser())
    _moved(which, at, "RUNNING", as_json=as_json)


@app.command("stop")
def stop_(
    which: Which,
    reason: Annotated[str, typer.Option(help="For the history.")],
    actor: Actor = "",
    as_json: Json = False,
) -> None:
    """Offer the newest version to nobody further. Terminals that have it keep it."""
    with _database() as connection:
        at = stop(connection, which.name, actor or getpass.getuser(), reason)
    _moved(which, at, "STOPPED", as_json=as_json)


def _moved(which: List, at: Newest, state: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(
            json.dumps({"list": which.value, "version": at.version, "stage": at.stage, "state": state})
        )
    else:
        typer.echo(
            f"{which.value} version {at.version}: stage {at.stage} of {at.stage_count}, {state.lower()}"
        )


@app.command()
def rollback(which: Which, actor: Actor = "", as_json: Json = False) -> None:
    """Publish what was in force before the newest version, under a new number, to everybody at once."""
    who = actor or getpass.getuser()
    with _database() as connection:
        if which is List.HOT:
            version = hot_list.roll_back(connection, who).version
        else:
            version = (city_list if which is List.CITY else parameters).roll_back(connection, who)
    if as_json:
        typer.echo(json.dumps({"list": which.value, "published": version}))
    else:
        typer.echo(f"{which.value} version {version} says what was said before")


@app.command()
def history(
    which: Some = None,
    most: Annotated[int, typer.Option("--most", min=1, max=LOG_MAX, help="How many lines.")] = 20,
    as_json: Json = False,
) -> None:
    """Who began, moved, stopped or took back what and when, the last first. `switch`: its rules did."""
    with _database() as connection:
        events = history_of(connection, _kinds(which), most)
    if as_json:
        rows = [event._asdict() | {"at": event.at.isoformat()} for event in events]
        typer.echo(json.dumps({"events": rows}, ensure_ascii=False))
        return
    for at, who, kind, version, action, stage, detail in events:
        typer.echo(
            f"{at:%Y-%m-%d %H:%M:%S%z}  {who:16}{kind.lower():6}version {version:<8} {action.lower():10} stage {stage:<3}{detail}"
        )


@app.command()
def group(
    name: Annotated[str, typer.Argument(help="Of a group; without it: show all.")] = "",
    add: Annotated[list[str] | None, typer.Option("--add", help="A terminal id.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="A terminal id.")] = None,
    as_json: Json = False,
) -> None:
    """Groups of terminals that stages can name. A roll-out that has begun keeps those it began with."""
    with _database() as connection:
        if add or remove:
            change_group(connection, name, add or (), remove or ())
        found = {one: members for one, members in groups_of(connection) if not name or one == name}
    if as_json:
        typer.echo(json.dumps({"groups": found}))
        return
    for one, members in found.items():
        typer.echo(f"{one}: {' '.join(members)}")


class _Folder:
    """Topics as files, for a memory stick or for somebody who wants to look. A Publisher."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files = 0

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        assert retain, "lists are always retained"
        path = self._folder / topic
        if not payload:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".tmp")
        part.write_bytes(payload)
        part.replace(path)
        self.files += 1


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to; topics become paths below it.")],
    as_json: Json = False,
) -> None:
    """Write every block and manifest that is in force, as terminals get them by topic, signed."""
    settings, target = load_settings(), _Folder(folder)

    async def write(url: str) -> None:
        with psycopg.connect(url) as opening:
            signer = ListSigner(open_vault(opening, settings.unlock))
        async with await connect(url) as connection:
            await ListPublication(signer, target).publish_due(connection)

    with open_database(settings) as url:
        asyncio.run(write(url))
    if as_json:
        typer.echo(json.dumps({"files": target.files}))
    else:
        typer.echo(f"{target.files} files below {folder}")
