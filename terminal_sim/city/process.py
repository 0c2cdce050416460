"""A `python -m switch …` that runs beside the city and says when it is ready. It ends with the city, however the city ends."""

import asyncio
import contextlib
import ctypes
import signal
import sys
from pathlib import Path

from switch.domain.errors import SwitchError

READY_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 120.0
LINE_BYTES_MAX = 1 << 22
ERROR_LINES_MAX = 12
_PR_SET_PDEATHSIG = 1


class HouseError(SwitchError):
    """A command of the switch failed, or a service did not come up."""


def end_with_parent() -> None:
    """In the new process: end when the city does."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Resident:
    """One service, at most one process of it at a time. log_file: what it says about itself."""

    def __init__(self, name: str, folder: Path, log_file: Path) -> None:
        self.name = name
        self.log_file = log_file
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str, environment: dict[str, str]) -> list[str]:
        """Start it and wait for its line that begins with `ready:`; the words behind that."""
        assert self._process is None
        with self.log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "switch", *arguments),
                cwd=self._folder,  # no cardswitch.toml of somebody else
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_BYTES_MAX,
                preexec_fn=end_with_parent,
            )
        self._process = process
        assert process.stdout is not None
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                words = (await process.stdout.readline()).decode("utf-8", "replace").split()
        except TimeoutError:
            await self.kill()
            raise HouseError(
                f"{self.name} was not ready in {READY_TIMEOUT_S:.0f} s: see {self.log_file}"
            ) from None
        if words[:1] != ["ready:"]:
            await self.stop()
            tail = self.log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise HouseError(f"{self.name} did not come up: " + " / ".join(tail[-ERROR_LINES_MAX:]))
        return words[1:]

    async def ended(self) -> int:
        """Wait for it to end by itself; its status."""
        assert self._process is not None
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Tell the process something."""
        assert self._process is not None
        self._process.send_signal(number)

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
            raise HouseError(f"{self.name} did not drain in {STOP_TIMEOUT_S:.0f} s") from None
        self._process = None
        return status
