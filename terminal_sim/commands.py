"""`cardswitch sim ...`: the virtual city, single devices and hosts."""

import asyncio
import contextlib
import json
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console

from switch.domain.calendar import SHANGHAI
from terminal_sim import bank_command, device
from terminal_sim.city import summary
from terminal_sim.city.day import Day, Result
from terminal_sim.city.house import claim
from terminal_sim.city.narrative import Narrator
from terminal_sim.city.papers import describe as described
from terminal_sim.city.plan import PURCHASES_DEFAULT, PURCHASES_MAX, draw_city
from terminal_sim.host import command

DEFAULT_FOLDER = Path("var/city")
PURCHASES_MIN = 100

app = typer.Typer(no_args_is_help=True, help="The virtual city, and single devices.")
app.command("pos")(device.pos)
app.command("host")(command.host)
app.command("bank-file")(command.bank_file)
app.command("bank")(bank_command.bank)


@app.callback()
def sim() -> None:
    """Simulated devices; they share no cryptography with the switch."""


@app.command()
def city(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", help="Where the city lives; an older city there is cleared away.")
    ] = DEFAULT_FOLDER,
    purchases: Annotated[
        int,
        typer.Option("--purchases", min=PURCHASES_MIN, max=PURCHASES_MAX, help="How busy the day is."),
    ] = PURCHASES_DEFAULT,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same city.")] = 20120420,
    hold: Annotated[bool, typer.Option("--hold", help="Leave it running until Ctrl-C.")] = False,
    describe: Annotated[
        bool,
        typer.Option(
            "--describe",
            help="Print keys, terminals and cards as JSON: with --hold when it runs, else nothing is run.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document at the end.")] = False,
) -> None:
    """Two business days of a virtual city on the real wire, with --hold one, closed, audited and counted. Exit 1 when anything differs.

    A real switch with a real database, run and killed as an operator would; keys and PINs are a rehearsal's.
    """
    if describe and not hold:
        plan = draw_city(seed, purchases, datetime.now(SHANGHAI).date())
        _print_json(described(plan))
        return
    if describe and as_json:
        raise typer.BadParameter("--describe --hold prints one JSON document, --json another: choose one")
    folder = data_dir.absolute()
    with claim(folder):
        good = uvloop.run(_live(seed, purchases, folder, hold=hold, describe=describe, as_json=as_json))
        if not good:
            raise typer.Exit(1)


async def _live(
    seed: int, purchases: int, folder: Path, *, hold: bool, describe: bool, as_json: bool
) -> bool:
    day = Day(seed, purchases, folder, narrator := Narrator(), second_day=not hold)
    narrator.say(f"The virtual city, seed {seed}, {purchases:,} purchases, in {folder}")
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _stopping, stop, task)
    try:
        with narrator:
            result = await day.live()
        _tell(result, day, describe=describe, as_json=as_json)
        if hold:
            await _hold(day, stop)
    except asyncio.CancelledError:
        sys.stderr.write("the city was stopped\n")
        raise typer.Exit(130) from None
    finally:
        await day.end()
    return result.good


def _stopping(stop: asyncio.Event, task: "asyncio.Task[Any]") -> None:
    """Ctrl-C: a city that is held ends by itself, one that still lives its day is broken off."""
    stop.set()
    task.cancel()


def _tell(result: Result, day: Day, *, describe: bool, as_json: bool) -> None:
    if as_json:
        _print_json(summary.document(result))
    else:
        summary.show(result, Console(highlight=False, markup=False, stderr=describe))
    if describe:
        ready = day.house.ready
        _print_json(
            described(day.plan, host=ready.host, port=ready.port, http=ready.http, mqtt_port=day.broker.port)
        )


async def _hold(day: Day, stop: asyncio.Event) -> None:
    ready = day.house.ready
    sys.stderr.write(
        f"\nThe city goes on: terminals {ready.host}:{ready.port}, http://{ready.http}/readyz?verbose, "
        f"data and keys in {day.folder} (city.json). Ctrl-C ends it.\n"
    )
    ended = asyncio.ensure_future(day.house.ended())
    stopped = asyncio.ensure_future(stop.wait())
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiting in (ended, stopped):
            waiting.cancel()


def _print_json(document: dict[str, Any]) -> None:
    json.dump(document, sys.stdout, ensure_ascii=False, indent=1, default=str)
    sys.stdout.write("\n")
    sys.stdout.flush()
