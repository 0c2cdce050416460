"""Processes of the switch, forked from one that has imported it: importing takes longer than most of what they are started for.

    python -m tests.helpers.zygote FD    serves requests that come over the socket FD, until that is closed

What runs is the real program in a real process, with its own environment, folder and files, and it ends as any other. Only its
interpreter does not begin anew; what depends on that (memory, the command line itself) is tested with a process that does.
"""

import contextlib
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

_REQUEST_MAX: Final = 200_000  # bytes; an environment is most of it
_NUMBER: Final = struct.Struct("i")
_START_S: Final = 300.0
# Imported by some commands only when they run, and each takes as long as a whole command otherwise does.
_LATE_IMPORTS: Final = (
    "switch.app",
    "yoyo.backends.core.postgresql",
    "yoyo.connections",
    "yoyo.migrations",
    "rich.progress",
    "rich.table",
)


class Forked:
    """One process, much as subprocess.Popen gives it. stdout: what it says, where that was asked for."""

    def __init__(self, told: int, stdout: IO[str] | None) -> None:
        self._told = os.fdopen(told, "rb", buffering=0)
        self.stdout = stdout
        self.returncode: int | None = None
        pid = self._number(_START_S)
        assert pid is not None, "no process was forked"
        self.pid = pid

    def _number(self, within_s: float) -> int | None:
        readable, _, _ = select.select([self._told], [], [], within_s)
        if not readable:
            return None
        data = self._told.read(_NUMBER.size)
        assert data, "whoever forks processes is gone"
        (number,) = _NUMBER.unpack(data)
        return int(number)

    def poll(self) -> int | None:
        """Exit status if it has ended; minus the signal that ended it."""
        return self._ended(0.0)

    def wait(self, timeout: float) -> int:
        """Exit status when it has ended. subprocess.TimeoutExpired when it does not."""
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"forked {self.pid}", timeout)
        return status

    def _ended(self, within_s: float) -> int | None:
        if self.returncode is None:
            self.returncode = self._number(within_s)
            if self.returncode is not None:
                self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to it, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def _zygote() -> socket.socket:
    """The way to the process that forks, one for each process that asks; it ends with whoever started it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        os.set_inheritable(theirs.fileno(), True)
        # Not subprocess: it would warn of a process that is never waited for, which is what this one is.
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "tests.helpers.zygote", str(theirs.fileno())],
            os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        )
    return ours


def fork(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    stdout: IO[Any] | None = None,
    stderr: IO[Any],
    fail_at: str = "",
) -> Forked:
    """Run `cardswitch` with these arguments. stdout: None for a pipe, from which Forked.stdout reads. fail_at: of failing.POINTS."""
    request = json.dumps([list(arguments), dict(environment), str(folder or Path.cwd()), fail_at]).encode()
    assert len(request) <= _REQUEST_MAX
    told, tell = os.pipe()
    out: IO[str] | None = None
    if stdout is None:
        reads, writes = os.pipe()
        out = os.fdopen(reads, encoding="utf-8")
    else:
        writes = os.dup(stdout.fileno())
    try:
        socket.send_fds(_zygote(), [request], [writes, stderr.fileno(), tell])
    finally:
        os.close(writes)
        os.close(tell)
    return Forked(told, out)


# ---------------------------------------------------------------------- in the process that forks


class Asked(Exception):
    """Raised in a new process, with the arguments that it shall run."""

    def __init__(self, arguments: list[str], fail_at: str) -> None:
        self.arguments = arguments
        self.fail_at = fail_at


def serve(channel: socket.socket) -> None:
    """Fork for each request and tell how each process ended. Returns when nobody asks any more; raises Asked in a child."""
    children: dict[int, tuple[int, int]] = {}  # by pidfd: process, and where its end is told
    poll = select.poll()  # no descriptor of its own that a child would have to close
    poll.register(channel, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready != channel.fileno():
                poll.unregister(ready)
                pid, tell = children.pop(ready)
                _, status = os.waitpid(pid, 0)
                _tell(tell, os.waitstatus_to_exitcode(status))
                os.close(tell)
                os.close(ready)
                continue
            request, given, _, _ = socket.recv_fds(channel, _REQUEST_MAX, 3)
            if not request:
                return
            out, err, tell = given
            pid = os.fork()
            if pid == 0:
                channel.detach()
                _become(json.loads(request), out, err)
            os.close(out)
            os.close(err)
            _tell(tell, pid)
            pidfd = os.pidfd_open(pid)
            children[pidfd] = (pid, tell)
            poll.register(pidfd, select.POLLIN)


def _tell(where: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # who asked has gone
        os.write(where, _NUMBER.pack(number))


def _become(request: list[Any], out: int, err: int) -> None:
    arguments, environment, folder, fail_at = request
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    raise Asked(arguments, fail_at)


def _main() -> None:
    import gc
    import importlib

    from switch.__main__ import Everything, main

    for name in (*(module for module, _ in Everything.places.values()), *_LATE_IMPORTS):
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with whoever started it
    gc.collect()
    gc.freeze()  # or each child would copy all of it when it looks for rubbish
    fail_at = None
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    except Asked as asked:
        sys.argv, fail_at = ["cardswitch", *asked.arguments], asked.fail_at
    if fail_at:
        from tests.helpers.failing import POINTS, arm

        arm(POINTS[fail_at])
    if fail_at is not None:  # else nobody asks any more
        main()


if __name__ == "__main__":
    _main()
