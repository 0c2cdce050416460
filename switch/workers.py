"""The processes beside the first one: it starts them, starts one again that ended, and takes them along when it ends.

How a process serves is app.py's, and how files are delivered operations/delivering.py's; here is only that there are several.
"""

import asyncio
import contextlib
import ctypes
import signal
import sys
from collections.abc import AsyncIterator, Sequence

import structlog

from switch.operations.child import end_child
from switch.operations.commands.deliver import run_deliverer
from switch.settings import load_settings

log = structlog.get_logger(__name__)

RESTART_PAUSE_S = 1.0
DELIVERER_STOP_S = 5.0  # it may be killed at any step: the next one goes on
_PR_SET_PDEATHSIG = 1


@contextlib.asynccontextmanager
async def further_processes(processes: int, url: str, terminal_port: int) -> AsyncIterator[None]:
    """The other processes that share the terminals' port; one that dies is started again. processes: with the first."""
    tasks = [
        asyncio.get_running_loop().create_task(
            _keep(
                ("serve", "--worker", str(number), "--worker-port", str(terminal_port)),
                url,
                worker=str(number),
            )
        )
        for number in range(1, processes)
    ]
    try:
        yield
    finally:
        await _end(tasks)


@contextlib.asynccontextmanager
async def deliverer(url: str, *, wanted: bool) -> AsyncIterator[None]:
    """The process that delivers files, where it is wanted."""
    tasks = []
    if wanted:
        keeping = _keep(("deliver-beside",), url, worker="deliverer", stop_s=DELIVERER_STOP_S)
        tasks = [asyncio.get_running_loop().create_task(keeping)]
    try:
        yield
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _keep(arguments: tuple[str, ...], url: str, *, worker: str, stop_s: float | None = None) -> None:
    """stop_s: when told to stop it may take so long, then it is killed; None: as long as it takes, since terminals are answered first."""
    while True:
        command = (sys.executable, "-m", "switch", *arguments)
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        assert process.stdin is not None
        try:
            # Not in the arguments, where everybody can read them. It may have ended already.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(url.encode() + b"\n")
                await process.stdin.drain()
            status = await process.wait()
        finally:
            await end_child(process, stop_s)
        log.error("a worker ended and is started again", worker=worker, status=status)
        await asyncio.sleep(RESTART_PAUSE_S)


def deliver_beside() -> None:
    """Deliver until SIGTERM, as a process that the first one started; the database's URL comes on stdin."""
    die_with_parent()
    settings = load_settings()
    run_deliverer(sys.stdin.readline().strip(), settings, (), once=False)


def die_with_parent() -> None:
    """A worker ends when the first process does, however it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
