"""`cardswitch parameters show|set|log`: what terminals are told to work by."""

import getpass
import json
from typing import Annotated

import psycopg
import typer

from switch.domain.errors import InputRefused
from switch.messages.structures import PARAMETERS
from switch.registry.parameters import (
    Scope,
    parameter_log,
    read_assignment,
    set_parameters,
    show_parameters,
)
from switch.settings import load_settings
from switch.storage.embedded import open_database

app = typer.Typer(no_args_is_help=True, help="What terminals are told to work by.")

Terminal = Annotated[str, typer.Option("--terminal", help="For one terminal, by its id.")]
Category = Annotated[str, typer.Option("--category", help="For the terminals of a merchant category.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
LOG_MAX = 1_000


def _scope(terminal: str, category: str) -> Scope:
    if terminal and category:
        raise typer.BadParameter("give one of them", param_hint="--terminal, --category")
    if category and not (len(category) == 4 and category.isascii() and category.isdecimal()):
        raise typer.BadParameter("a merchant category has four digits", param_hint="--category")
    return Scope(category, terminal)


@app.command()
def show(terminal: Terminal = "", category: Category = "", as_json: Json = False) -> None:
    """What is in force: for one terminal, for a category, or for all others."""
    scope = _scope(terminal, category)
    with open_database(load_settings()) as url, psycopg.connect(url, autocommit=True) as connection:
        values = show_parameters(connection, scope)
    if as_json:
        document = {"for": str(scope), "parameters": [value._asdict() for value in values]}
        typer.echo(json.dumps(document, ensure_ascii=False))
        return
    typer.echo(f"{'tag':5}{'name':26}{'value':>10}  {'set for':10}meaning")
    for tag, name, value, source in values:
        shown = value if name == "cut_off" else int(value)
        typer.echo(f"{tag:5}{name:26}{shown:>10}  {source:10}{PARAMETERS[tag].name}")


@app.command("set")
def set_(
    assignments: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE...", help="NAME=inherit: the wider scope counts again."),
    ],
    terminal: Terminal = "",
    category: Category = "",
    actor: Annotated[str, typer.Option(help="Who answers for it, for the log of changes.")] = "",
    as_json: Json = False,
) -> None:
    """Set parameters, all that are named or none. Serving processes go by them at once; terminals are asked to fetch them."""
    scope = _scope(terminal, category)
    wanted = dict(map(read_assignment, assignments))
    if len(wanted) != len(assignments):
        raise InputRefused("a parameter is named twice")
    with open_database(load_settings()) as url, psycopg.connect(url, autocommit=True) as connection:
        changed = set_parameters(connection, scope, wanted, actor or getpass.getuser())
    names = [rule.name for rule in changed]
    if as_json:
        typer.echo(json.dumps({"for": str(scope), "changed": names}))
    else:
        typer.echo(f"{scope}: {', '.join(names) if names else 'nothing'} changed")


@app.command()
def log(
    most: Annotated[int, typer.Option("--most", min=1, max=LOG_MAX, help="How many changes.")] = 20,
    as_json: Json = False,
) -> None:
    """Who set what and when, the last change first."""
    with open_database(load_settings()) as url, psycopg.connect(url, autocommit=True) as connection:
        changes = parameter_log(connection, most)
    if as_json:
        rows = [
            change._asdict() | {"at": change.at.isoformat(), "scope": str(change.scope)} for change in changes
        ]
        typer.echo(json.dumps({"changes": rows}, ensure_ascii=False))
        return
    for number, at, actor, scope, name, value in changes:
        typer.echo(
            f"{number:>6}  {at:%Y-%m-%d %H:%M:%S%z}  {actor:16}{scope!s:20}{name}="
            f"{'inherit' if value is None else value}"
        )
