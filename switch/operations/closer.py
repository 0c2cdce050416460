"""One close in a process of its own, begun by the service: `python -m switch.operations.closer DAY`, the database's URL on standard input.

Millions of lines pass through a close, and its disk may be slow; in the process that serves terminals each of them would wait behind that. What it
tells is one JSON object per line on standard output, the last of them how it ended. It ends with the service, and yields the processor to it.
"""

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any, Final

import orjson
import psycopg

from switch.clearing.close import CloseRunning, Progress, close_day, told
from switch.domain.errors import DependencyError, SwitchError
from switch.operations.child import end_child
from switch.operations.commands.asking import actor
from switch.operations.commands.close import close_terms, file_signer, seal_signer
from switch.settings import load_settings
from switch.storage.pool import connect
from switch.telemetry import logs

SILENT_S_MAX: Final = 3_600.0  # a step that says nothing for so long hangs
TOLD_EVERY_S: Final = 1.0
LINE_BYTES_MAX: Final = 65_536
STOP_S: Final = 2.0
_NICE: Final = 5
_PR_SET_PDEATHSIG: Final = 1


class CloserFailed(DependencyError):
    """The process that closed a day has failed; the text is its own."""


async def close_elsewhere(url: str, day: date, tell: Callable[[Progress], None]) -> None:
    """Close a day in a process of its own. Raises CloseRunning when somebody else is closing, CloserFailed with the reason otherwise."""
    command = (sys.executable, "-m", "switch.operations.closer", day.isoformat())
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES_MAX
    )
    try:
        await _follow(process, url, tell)
    except (ValueError, TypeError, LookupError, BrokenPipeError, ConnectionResetError) as error:
        # Something else than we say stood on its standard output, or it has died: either way it is begun again.
        raise CloserFailed(f"the process that closes the day: {type(error).__name__}") from error
    finally:
        await end_child(process, STOP_S)  # what a killed close has not done, the next one does


async def _follow(process: asyncio.subprocess.Process, url: str, tell: Callable[[Progress], None]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(url.encode() + b"\n")  # not in the arguments, where everybody can read them
    await process.stdin.drain()
    process.stdin.close()
    end: dict[str, Any] = {}
    while True:
        try:
            async with asyncio.timeout(SILENT_S_MAX):
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise CloserFailed(f"said nothing for {SILENT_S_MAX:.0f} s and was ended") from error
        if not line:
            break
        said = orjson.loads(line)
        if "step" in said:
            tell(Progress(said["step"], said["done"], said["total"], said["finished"]))
        else:
            end = said
    status = await process.wait()
    if end.get("running"):
        raise CloseRunning(end["error"])
    if not end.get("closed"):
        raise CloserFailed(end.get("error") or f"the process that closes the day ended with status {status}")


class _Teller:
    """Says each step's beginning and end, and what lies between once a second."""

    def __init__(self) -> None:
        self._said_s = 0.0
        self._step = ""

    def tell(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if progress.step == self._step and not progress.finished and now_s < self._said_s + TOLD_EVERY_S:
            return
        self._said_s, self._step = now_s, progress.step
        say(
            {
                "step": progress.step,
                "done": progress.done,
                "total": progress.total,
                "finished": progress.finished,
            }
        )


def say(document: dict[str, Any]) -> None:
    """One line to whoever began this."""
    sys.stdout.buffer.write(orjson.dumps(document) + b"\n")
    sys.stdout.buffer.flush()


async def _close(url: str, day: date) -> None:
    settings = load_settings()
    # A day that a clock set back has made open again is not ended by us.
    terms = close_terms(settings, url, seal_signer(url, settings))
    terms = terms._replace(may_end=False, file_signer=file_signer(url, settings))
    async with await connect(url) as connection:
        await close_day(connection, day, terms, f"the service, {actor()}", _Teller().tell)


def main() -> int:
    """Close the day that the arguments name; the exit status."""
    day = date.fromisoformat(sys.argv[1])
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    url = sys.stdin.readline().strip()
    # Whoever began this has died already; an empty URL would be the database of whoever runs it.
    if not url:
        return 1
    os.nice(_NICE)
    logs.configure()  # to stderr: standard output is what its service reads
    try:
        asyncio.run(_close(url, day))
    except (psycopg.Error, SwitchError, OSError, AssertionError) as error:
        say({"closed": False, "running": isinstance(error, CloseRunning), "error": told(error)})
        return 1
    say({"closed": True})
    return 0


if __name__ == "__main__":
    sys.exit(main())
