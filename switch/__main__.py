"""The command `cardswitch`. Exit status: 0 done, 1 failed, 2 wrong use."""

import contextlib
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
        try:
            cli()
        finally:
            if sys.stdout is not None:  # it was closed before we began
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains once more at its end
        sys.exit(1)
    except Exception as error:
        said = _in_one_line(error)
        if not said:
            raise
        with contextlib.suppress(OSError):
            sys.stderr.write(f"cardswitch: {said}\n")
        if isinstance(error, OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)


def _in_one_line(error: Exception) -> str:
    """What went wrong, for operators; empty for a fault of ours, which shows where it happened."""
    import psycopg

    from switch.storage.pool import in_words

    if isinstance(error, SwitchError):
        return str(error)
    if isinstance(error, psycopg.Error):
        return in_words(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a file or the output'}: {error.strerror or type(error).__name__}"
    if isinstance(error, RecursionError):
        return "the input is nested too deeply"
    return ""


if __name__ == "__main__":
    main()
