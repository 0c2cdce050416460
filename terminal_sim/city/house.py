"""The switch as its operator runs it: a data directory, commands and one `serve`, each a process of its own.

Nothing of the switch is imported; what is known is what is printed, written and answered on the wire. `serve` ends with
the city, however the city ends.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Iterable
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from switch.domain.errors import InputRefused, SwitchError

MARKER = "city.json"  # what makes a folder ours to clear
LOCK = "city.lock"
COMMAND_TIMEOUT_S = 300.0
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
ERROR_LINES_MAX = 12
LINE_BYTES_MAX = 1 << 22
_PR_SET_PDEATHSIG = 1


class HouseError(SwitchError):
    """A command of the switch failed, or the service did not come up."""


class Ready(NamedTuple):
    """Where the service is."""

    host: str
    port: int
    http: str


class Ran(NamedTuple):
    """A command that ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What a command printed with --json."""
        return orjson.loads(self.out)


def _end_with_parent() -> None:
    """In the new process: end when the city does."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def claim(folder: Path) -> IO[str]:
    """Take a folder for a new city and empty it; hold what is returned. InputRefused when it is not ours, or in use."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = (folder / MARKER).exists() or not any(entry.name != LOCK for entry in folder.iterdir())
    if not ours:
        raise InputRefused(f"{folder} holds something else than a virtual city; choose another --data-dir")
    lock = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        flock(lock, LOCK_EX | LOCK_NB)
    except OSError:
        lock.close()
        raise InputRefused(f"a virtual city is alive in {folder}; choose another --data-dir") from None
    for entry in folder.iterdir():
        if entry.name == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return lock


class House:
    """One installation. `port` 0 until the first `serve`; afterwards it stays the same, as terminals would want."""

    def __init__(self, folder: Path, settings: Iterable[tuple[str, str]] = ()) -> None:
        self.folder = folder
        self.ready = Ready("127.0.0.1", 0, "")
        self._process: asyncio.subprocess.Process | None = None
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CARDSWITCH_")}
        self._environment = {
            **kept,
            "CARDSWITCH_DATA_DIR": str(folder),
            "CARDSWITCH_DATABASE__EMBEDDED_MEMORY_MB": "128",
            "CARDSWITCH_TERMINALS__PORT": "0",
            "CARDSWITCH_HTTP__PORT": "0",
            "CARDSWITCH_TELEMETRY__LOG_LEVEL": "warning",
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "200",
            **dict(settings),
        }

    @property
    def log_file(self) -> Path:
        """What `serve` says about itself."""
        return self.folder / "serve.log"

    async def run(self, *arguments: str, may_fail: bool = False) -> Ran:
        """Run one command to its end. HouseError with the end of what it said, unless it may fail."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "switch", *arguments),
            cwd=self.folder,  # no cardswitch.toml of somebody else
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=_end_with_parent,
        )
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise HouseError(f"cardswitch {arguments[0]} did not end in {COMMAND_TIMEOUT_S:.0f} s") from None
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        status = process.returncode
        assert status is not None
        ran = Ran(status, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))
        if status and not may_fail:
            said = (ran.err or ran.out).strip().splitlines()[-ERROR_LINES_MAX:]
            raise HouseError(f"cardswitch {' '.join(arguments)} ended with {status}: " + " / ".join(said))
        return ran

    async def serve(self) -> Ready:
        """Start the service and wait until terminals can come."""
        assert self._process is None
        environment = {**self._environment, "CARDSWITCH_TERMINALS__PORT": str(self.ready.port)}
        with self.log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "switch", "serve"),
                cwd=self.folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_BYTES_MAX,
                preexec_fn=_end_with_parent,
            )
        self._process = process
        assert process.stdout is not None
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                line = (await process.stdout.readline()).decode("utf-8", "replace").split()
        except TimeoutError:
            await self.kill()
            raise HouseError(f"serve was not ready in {READY_TIMEOUT_S:.0f} s: see {self.log_file}") from None
        if len(line) != 5 or line[:2] != ["ready:", "terminals"]:
            await self.stop()
            tail = self.log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise HouseError("serve did not come up: " + " / ".join(tail[-ERROR_LINES_MAX:]))
        host, _, port = line[2].rpartition(":")
        self.ready = Ready(host, int(port), line[4])
        return self.ready

    @property
    def is_running(self) -> bool:
        """Whether `serve` lives."""
        return self._process is not None and self._process.returncode is None

    async def ended(self) -> int:
        """Wait for `serve` to end by itself; its status."""
        assert self._process is not None
        return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL, as when the power goes."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def stop(self) -> int:
        """SIGTERM, which drains; the status it ended with, 0 when nothing ran."""
        process = self._process
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                status = await process.wait()
        except TimeoutError:
            await self.kill()
            raise HouseError(f"serve did not drain in {STOP_TIMEOUT_S:.0f} s") from None
        self._process = None
        return status
