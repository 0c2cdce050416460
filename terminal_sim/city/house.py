"""The switch as its operator runs it: a data directory, commands and one `serve`, each a process of its own.

Nothing of the switch is imported; what is known is what is printed, written and answered on the wire. `serve` ends with
the city, however the city ends.
"""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Iterable
from fcntl import LOCK_EX, LOCK_NB, flock
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from switch.domain.errors import InputRefused
from terminal_sim.city.process import ERROR_LINES_MAX, HouseError, Resident, end_with_parent

MARKER = "city.json"  # what makes a folder ours to clear
LOCK = "city.lock"
COMMAND_TIMEOUT_S = 300.0
METRICS_TIMEOUT_S = 60.0
METRICS_BYTES_MAX = 1 << 24


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
        self._service = Resident("serve", folder, folder / "serve.log")
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
    def environment(self) -> dict[str, str]:
        """In which everything of this installation runs."""
        return dict(self._environment)

    def set(self, name: str, value: str) -> None:
        """A setting, for commands and services that start from now on."""
        self._environment[name] = value

    async def run(self, *arguments: str, may_fail: bool = False, words: str = "") -> Ran:
        """Run one command to its end. words: its standard input. HouseError with the end of what it said, unless it may fail."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "switch", *arguments),
            cwd=self.folder,  # no cardswitch.toml of somebody else
            env=self._environment,
            stdin=asyncio.subprocess.PIPE if words else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=end_with_parent,
        )
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                out, err = await process.communicate(words.encode() if words else None)
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
        environment = {**self._environment, "CARDSWITCH_TERMINALS__PORT": str(self.ready.port)}
        words = await self._service.start("serve", environment=environment)
        if len(words) != 4 or words[0] != "terminals":
            raise HouseError("serve did not say where terminals find it")
        host, _, port = words[1].rpartition(":")
        self.ready = Ready(host, int(port), words[3])
        return self.ready

    async def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric of `serve` that carry these labels."""
        try:
            text = await asyncio.to_thread(_metrics, self.ready.http)
        except OSError as error:
            raise HouseError("the switch does not show its metrics") from error
        return sample(text, name, **labels)

    async def ended(self) -> int:
        """Wait for `serve` to end by itself; its status."""
        return await self._service.ended()

    async def kill(self) -> None:
        """SIGKILL, as when the power goes."""
        await self._service.kill()

    async def stop(self) -> int:
        """SIGTERM, which drains; the status it ended with, 0 when nothing ran."""
        return await self._service.stop()


def _metrics(address: str) -> str:
    connection = HTTPConnection(address, timeout=METRICS_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read(METRICS_BYTES_MAX).decode("utf-8", "replace")
    finally:
        connection.close()


def sample(text: str, name: str, **labels: str) -> float:
    """Sum of the samples of a metric in its text form that carry these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    total = 0.0
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name and all(want in head for want in wanted):
            total += float(value)
    return total
