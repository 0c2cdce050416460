"""The command `cardswitch`. Exit status: 0 done, 1 failed, 2 wrong use."""

import os
import sys
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from switch.domain.errors import SwitchError
from switch.operations.commands import Commands
from switch.settings import FILE_VARIABLE


class Everything(Commands):
    """Those of operators, and the simulator."""

    places: ClassVar = {**Commands.places, "sim": ("terminal_sim.commands", "app")}


cli = typer.Typer(
    name="cardswitch",
    cls=Everything,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Payment switch and clearing engine of a city's citizen card.",
)


@cli.callback()
def root(
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file (TOML).", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Settings come from --config, else CARDSWITCH_CONFIG, else ./cardswitch.toml; environment variables go before."""
    if config is not None:
        os.environ[FILE_VARIABLE] = str(config)


@cli.command("serve")
def serve(
    worker: Annotated[int, typer.Option(hidden=True)] = 0,
    worker_port: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Serve terminals until SIGTERM, which drains: what is in flight is answered first."""
    from switch.app import (
        serve as serve_until_stopped,
    )  # the web server's modules take a second that no other command needs

    serve_until_stopped(worker, worker_port)


@cli.command("deliver-beside", hidden=True)
def deliver_beside() -> None:
    """Deliver files in a process that `serve` started."""
    from switch.workers import deliver_beside as until_stopped

    until_stopped()


def main() -> None:
    """Run a command; what is wrong is said in one line."""
    try:
        cli()
    except SwitchError as error:
        sys.stderr.write(f"cardswitch: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
