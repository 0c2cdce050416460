"""A switch of several processes on one port: each serves, one that is killed is started again, and all end with the first."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.helpers.switch_process import SwitchProcess, process_gone, until
from tests.helpers.till import Seen, Till, Wire, check_books
from tests.helpers.town import Town

pytestmark = pytest.mark.server

WITHIN_S = 60.0


@pytest.fixture(scope="module")
def process(town: Town) -> SwitchProcess:
    return town.serve(terminals__processes=2)


def workers(process: SwitchProcess) -> list[int]:
    """Process ids of the further processes that listen."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    return [int(child) for child in children if is_worker(Path("/proc") / child)]


def is_worker(folder: Path) -> bool:
    try:
        sockets = {str(entry.readlink()) for entry in (folder / "fd").iterdir()}
        command = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it is gone, or one of its files is
        return False
    table = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    listening = {f"socket:[{inode}]" for _, _, _, state, _, _, _, _, _, inode, *_ in table if state == "0A"}
    return b"--worker" in command and bool(sockets & listening)


async def worker_of(process: SwitchProcess) -> int:
    """The one further process, when it serves."""
    await asyncio.to_thread(until, lambda: bool(workers(process)), WITHIN_S, "a worker that listens")
    (worker,) = workers(process)
    return worker


async def test_one_that_is_killed_is_started_again_and_no_line_is_refused_meanwhile(
    town: Town, process: SwitchProcess
) -> None:
    seen = Seen()
    card = town.new_card("rich")
    first = await worker_of(process)
    os.kill(first, signal.SIGKILL)
    await asyncio.to_thread(until, lambda: process_gone(first), WITHIN_S, "its end")
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    assert (await till.buy(card, 1)).fields[39] == "00"
    assert await worker_of(process) != first
    for _ in range(16):  # the kernel deals the lines out, so that some come to each
        wire = await Wire.open(process.line)
        assert (await wire.answer(till.pos.pack(till.pos.echo()))).fields[39] == "00"
    assert "a worker ended and is started again" in [line["event"] for line in process.logged()]
    check_books(town.database_url, [seen])


async def test_they_end_with_the_first_however_it_ends(town: Town, process: SwitchProcess) -> None:
    worker = await worker_of(process)
    process.kill()
    town.processes.remove(process)
    await asyncio.to_thread(until, lambda: process_gone(worker), WITHIN_S, "the worker's end")
