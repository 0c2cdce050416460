"""A server of the distribution on a port of loopback, for tests: waited for at its start, ended by its own process id."""

import contextlib
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

STARTED_S = 60.0
_kept: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody else is given until this process ends. Whoever shares addresses may listen on it."""
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    _kept.append(kept)
    port: int = kept.getsockname()[1]
    return port


class LocalServer(ABC):
    """One server; what it says goes into `log` in its folder. Use as a context, or start and stop."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments, with everything ready that it reads."""

    def start(self) -> Self:
        """Listening when this returns."""
        command = self.command()
        with (self.folder / "log").open("ab") as stream:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        deadline = time.monotonic() + STARTED_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            said = (self.folder / "log").read_text()[-800:]
            assert self.process.poll() is None, f"{command[0]} did not start: {said}"
            assert time.monotonic() < deadline, f"{command[0]} did not listen"
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9, and gone when this returns."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it. A connection that a process of its own serves may go on until its client ends it."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()
