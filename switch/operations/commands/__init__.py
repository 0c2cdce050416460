"""The commands of operators, by name. Each is imported when it is asked for: all of them together take more than a second."""

from importlib import import_module
from typing import Any, ClassVar, Final

import typer
from typer.core import TyperGroup

# Where each is: a module, and what is there, a command or an app of several. `serve` and `sim` join them in switch/__main__.py.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "init": (f"{__name__}.setup", "init"),
    "migrate": (f"{__name__}.setup", "migrate"),
    "doctor": (f"{__name__}.doctor", "doctor"),
    "vectors": (f"{__name__}.vectors", "vectors"),
    "close": (f"{__name__}.close", "close"),
    "deliver": (f"{__name__}.deliver", "deliver"),
    "audit": (f"{__name__}.audit", "audit"),
    "fleet": (f"{__name__}.fleet", "fleet"),
    "verify": (f"{__name__}.verify", "verify"),
    "api": (f"{__name__}.api", "app"),
    "bindings": (f"{__name__}.bindings", "app"),
    "card": (f"{__name__}.card", "app"),
    "cases": (f"{__name__}.cases", "app"),
    "config": (f"{__name__}.config", "app"),
    "fees": (f"{__name__}.fees", "app"),
    "export": (f"{__name__}.export", "app"),
    "hosts": (f"{__name__}.hosts", "app"),
    "interop": (f"{__name__}.interop", "app"),
    "iso8583": (f"{__name__}.iso8583", "app"),
    "keys": (f"{__name__}.keys", "app"),
    "limits": (f"{__name__}.limits", "app"),
    "lists": (f"{__name__}.lists", "app"),
    "loads": (f"{__name__}.loads", "app"),
    "medical": (f"{__name__}.medical", "app"),
    "mqtt": (f"{__name__}.mqtt", "app"),
    "purse": (f"{__name__}.purse", "app"),
    "reconcile": (f"{__name__}.reconcile", "app"),
    "registry": (f"{__name__}.registry", "app"),
    "report": (f"{__name__}.report", "app"),
    "risk": (f"{__name__}.risk", "app"),
    "routes": (f"{__name__}.routes", "app"),
    "seal": (f"{__name__}.seal", "app"),
    "settlement": (f"{__name__}.settlement", "app"),
    "parameters": (f"{__name__}.parameters", "app"),
    "terminals": (f"{__name__}.terminals", "app"),
    "hotlist": (f"{__name__}.hotlist", "app"),
    "files": (f"{__name__}.files", "app"),
    "deliveries": (f"{__name__}.deliver", "app"),
    "trips": (f"{__name__}.trips", "app"),
}


class Commands(TyperGroup):
    """A group whose commands are imported by their names."""

    places: ClassVar[dict[str, tuple[str, str]]] = COMMANDS

    def list_commands(self, ctx: Any) -> list[str]:
        """What is defined beside them, then the names of the table."""
        return [*super().list_commands(ctx), *self.places]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; None when there is none."""
        if cmd_name not in self.places:
            return super().get_command(ctx, cmd_name)
        module, name = self.places[cmd_name]
        return _command(cmd_name, getattr(import_module(module), name))


def _command(name: str, found: Any) -> Any:
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_group(found)
    else:
        one = typer.Typer(add_completion=False)
        one.command(name)(found)
        command = typer.main.get_command(one)
    command.name = name
    return command
