"""`cardswitch sim host`: one bank or social-security host for engineers and rehearsals.

Keys come from the rehearsal file that the switch reads too, PINs from the file of accounts; neither is ever an argument,
where everybody who lists processes could read it.
"""

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

from switch.domain.errors import InputRefused
from switch.messages.host_1987 import DIALECTS
from terminal_sim.crypto import MAC_ALGORITHM, Algorithm
from terminal_sim.host.book import Account, HostBook
from terminal_sim.host.day_file import CUT_OFF, booked_items, counted_on, write_file
from terminal_sim.host.keys import ZoneSecrets
from terminal_sim.host.ledger_file import LedgerFile, replay
from terminal_sim.host.medical import MedicalBook
from terminal_sim.host.script import Behaviour, Script, Step, read_script
from terminal_sim.host.server import SimulatedHost

FILE_BYTES_MAX = 16 * 1024 * 1024
FORMAT = "cardswitch-rehearsal-keys/1"
BANK, SOCIAL_SECURITY = "bank", "social-security"


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise InputRefused(f"{path}: larger than {FILE_BYTES_MAX} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputRefused(f"{path}: cannot be read as JSON") from error


def read_secrets(path: Path, institution: str, mac_id: int) -> ZoneSecrets:
    """ZMK, ZAK and ZPK of an institution in a rehearsal file, of the cipher that the MAC id wants."""
    wanted = "SM4" if MAC_ALGORITHM[mac_id] is Algorithm.SM4 else "3DES"
    document = _read(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputRefused(f"{path}: not a file of rehearsal keys ({FORMAT})")
    found: dict[str, bytes] = {}
    for entry in document.get("keys", []):
        if (entry.get("owner"), entry.get("algorithm")) == (institution, wanted):
            combined = 0
            for component in entry.get("components", []):
                combined ^= int(component, 16)
            found[str(entry.get("type"))] = combined.to_bytes(16)
    missing = [name for name in ("ZMK", "ZAK", "ZPK") if name not in found]
    if missing:
        raise InputRefused(f"{path}: {institution} has no {' and no '.join(missing)} for {wanted}")
    return ZoneSecrets(found["ZMK"], found["ZAK"], found["ZPK"], mac_id)


def read_accounts(path: Path | None) -> list[Account]:
    """Accounts from JSON: a list of {"pan", "balance_fen", "pin"}; the PIN may be left out."""
    return [account for account, _ in _accounts(path)]


def read_book(path: Path | None, kind: str) -> HostBook:
    """The books of a kind of host. At a social-security centre an account may be {"suspended": true}."""
    found = _accounts(path)
    accounts = [account for account, _ in found]
    if kind == BANK:
        return HostBook(accounts)
    return MedicalBook(accounts, [account.pan for account, suspended in found if suspended])


def _accounts(path: Path | None) -> list[tuple[Account, bool]]:
    if path is None:
        return []
    try:
        return [
            (
                Account(str(entry["pan"]), int(entry["balance_fen"]), entry.get("pin")),
                entry.get("suspended", False) is True,
            )
            for entry in _read(path)
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputRefused(f"{path}: an account is {{pan, balance_fen, pin}}") from None


def host(
    institution: Annotated[str, typer.Option("--institution", help="Owner of its keys, 8 to 11 digits.")],
    keys: Annotated[
        Path, typer.Option("--keys", help="Rehearsal file with its ZMK, ZAK and ZPK.", dir_okay=False)
    ],
    kind: Annotated[str, typer.Option("--kind", help="bank or social-security: whose rules it has.")] = BANK,
    accounts: Annotated[
        Path | None, typer.Option("--accounts", help="JSON list of pan, balance_fen, pin.", dir_okay=False)
    ] = None,
    address: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 0,
    dialect: Annotated[str, typer.Option("--dialect", help="bcd or ascii.")] = "bcd",
    mac: Annotated[int, typer.Option("--mac", min=1, max=5, help="MAC algorithm, 1 to 5.")] = 5,
    script: Annotated[
        str,
        typer.Option("--script", help="What it does with the next requests: slow:0.5,silent*3,dies:2 ..."),
    ] = "",
    habit: Annotated[str, typer.Option("--habit", help="What it does with all others.")] = "normal",
    books: Annotated[
        Path | None,
        typer.Option("--books", help="File of what it has booked; goes on from there.", dir_okay=False),
    ] = None,
) -> None:
    """A host with books of its own, until Ctrl-C; then what came, as JSON. Says `ready: host ADDRESS:PORT` first.

    SIGUSR1: from now on it books and does not answer, as a host on its way down; it says `silent`.
    """
    if kind not in (BANK, SOCIAL_SECURITY):
        raise typer.BadParameter(f"--kind is {BANK} or {SOCIAL_SECURITY}")
    if dialect not in DIALECTS:
        raise typer.BadParameter(f"--dialect is one of {', '.join(DIALECTS)}")
    try:
        steps, habits = read_script(script), read_script(habit)
    except ValueError as error:
        raise typer.BadParameter(f"--script or --habit: {error}") from None
    if len(habits.steps) != 1:
        raise typer.BadParameter("--habit is one step")
    book = read_book(accounts, kind)
    if books is not None:
        _go_on(book, books)
    simulated = SimulatedHost(
        DIALECTS[dialect],
        read_secrets(keys, institution, mac),
        book,
        Script(*steps.steps, habit=habits.steps[0]),
        own_code=institution,
    )
    uvloop.run(_serve(simulated, address, port))
    sys.stdout.write(json.dumps({"counts": simulated.counts, "moved_fen": book.moved_fen}, indent=1) + "\n")


def bank_file(
    books: Annotated[Path, typer.Option("--books", help="File of what the host has booked.", dir_okay=False)],
    accounts: Annotated[
        Path, typer.Option("--accounts", help="Its accounts, as it was started with.", dir_okay=False)
    ],
    institution: Annotated[str, typer.Option("--institution", help="Who sends it, 8 digits.")],
    receiver: Annotated[str, typer.Option("--receiver", help="Who gets it, 8 digits.")],
    day: Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d", "%Y%m%d"], help="Which day.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where it is written.", file_okay=False)] = Path(),
    sequence: Annotated[int, typer.Option("--sequence", min=1, max=999, help="Generation.")] = 1,
    cut_off: Annotated[
        str, typer.Option("--cut-off", help="hhmmss, from which the next date counts; `none`: everything.")
    ] = CUT_OFF,
) -> None:
    """Write a bank's CM file of a day from its books: what it will settle. Says the path and the number of lines."""
    items = booked_items(books, read_book(accounts, BANK))
    if cut_off != "none":
        items = [item for item in items if counted_on(item, day.date(), cut_off)]
    path = write_file(folder, institution, receiver, day.date(), items, sequence=sequence)
    sys.stdout.write(f"{path}: {len(items)} lines\n")


def _go_on(book: HostBook, path: Path) -> None:
    """Take up the books where they were left, and keep them from here on."""
    try:
        keeper = LedgerFile(path)
    except OSError as error:
        raise InputRefused(f"{path}: cannot be written: {error.strerror}") from None
    replay(path, book)
    book.keeper = keeper


def _fall_silent(script: Script) -> None:
    script.habit = Step(Behaviour.SILENT)
    sys.stdout.write("silent\n")  # a signal may be heard later than a message that was sent after it
    sys.stdout.flush()


async def _serve(simulated: SimulatedHost, address: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _fall_silent, simulated.script)
    try:
        await simulated.start(address, port)
    except OSError as error:
        raise InputRefused(f"cannot listen on {address}:{port}: {error.strerror or error}") from None
    sys.stdout.write(f"ready: host {address}:{simulated.port}\n")
    sys.stdout.flush()
    with contextlib.suppress(asyncio.CancelledError):
        await stop.wait()
    await simulated.close()
