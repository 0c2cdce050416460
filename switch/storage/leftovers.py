"""What is left of a server whose parent or whose first process was killed, and when it is safe to start the next one."""

import contextlib
import os
import signal
import time
from pathlib import Path

from switch.domain.errors import DependencyError

WAIT_S = 30.0
_KILL_AFTER_S = 10.0
_PAUSE_S = 0.02


def await_old_server(cluster: Path) -> None:
    """Wait until no process of PostgreSQL works in a cluster whose lock (holding.py) we have.

    Backends that lost their first process, the postmaster, are busy with a long statement, or they would have ended; they are
    ended. DependencyError: a postmaster does not go. Somebody started it by hand, so it is left alone.
    """
    started = time.monotonic()
    while left := server_processes(cluster):
        waited_s = time.monotonic() - started
        if _noted_pid(cluster) not in left and waited_s >= _KILL_AFTER_S:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if waited_s >= WAIT_S:
            raise DependencyError(
                f"the cluster {cluster} is in use by process {min(left)}; end it and start again"
            )
        time.sleep(_PAUSE_S)
    # The server itself would take a number that has gone to another process meanwhile, as happens in containers, for the old
    # server. In all other cases its own examination of this file is the better one.
    if Path(f"/proc/{_noted_pid(cluster)}").exists():
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def server_processes(cluster: Path) -> set[int]:
    """Processes of PostgreSQL that work in a cluster: each has it as its working directory."""
    try:
        here = cluster.stat()
    except FileNotFoundError:
        return set()
    found: set[int] = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if os.path.samestat((process / "cwd").stat(), here) and _is_postgres(process):
                found.add(int(process.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def _is_postgres(process: Path) -> bool:
    return (process / "comm").read_text(encoding="utf-8", errors="replace").strip() == "postgres"


def _noted_pid(cluster: Path) -> int:
    """The postmaster's number as it noted it itself; 0 when there is no note."""
    try:
        return int((cluster / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
    except (OSError, ValueError):
        return 0
