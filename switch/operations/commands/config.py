"""`cardswitch config check|show`: what is set, where it comes from, and whether it holds together."""

import json
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr
from rich.console import Console
from rich.table import Table

from switch.keys.opening import unlock_secret
from switch.settings import load_with_origins

app = typer.Typer(no_args_is_help=True, help="Settings, explained and checked.")

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]


def flattened(section: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted name; secrets show only whether they are set."""
    flat: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            flat |= flattened(value, f"{name}.")
        elif isinstance(value, SecretStr):
            flat[prefix + name] = "(set)" if value.get_secret_value() else ""
        else:
            flat[prefix + name] = value if isinstance(value, bool | int | float | None) else _text(value)
    return flat


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@app.command("show")
def show(as_json: Json = False) -> None:
    """Every setting, its value and its source."""
    settings, origins = load_with_origins()
    flat = flattened(settings)
    if as_json:
        document = {
            name: {"value": value, "from": origins.get(name, "default")} for name, value in flat.items()
        }
        typer.echo(json.dumps(document, ensure_ascii=False, indent=1))
        return
    console = Console()
    if not console.is_terminal:
        for name, value in flat.items():
            typer.echo(f"{name} = {'' if value is None else value}  # {origins.get(name, 'default')}")
        return
    table = Table("setting", "value", "from")
    for name, value in flat.items():
        table.add_row(name, "" if value is None else str(value), origins.get(name, "default"))
    console.print(table)


@app.command("check")
def check(as_json: Json = False) -> None:
    """Exit 0 when the settings can be used, else 1 with the key and the rule."""
    settings, _ = load_with_origins()
    unlock_secret(settings.unlock)
    if as_json:
        typer.echo(json.dumps({"ok": True}))
    else:
        typer.echo("settings are in order")
