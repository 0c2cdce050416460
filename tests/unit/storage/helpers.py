"""What the tests of the embedded server share: a program that runs one, and looking at what became of it."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import SecretStr

from switch.storage.pool import connect_now

PROGRAM = Path(__file__).with_name("serve_alone.py")
PROJECT = PROGRAM.parents[3]
PACKAGES = [path for path in sys.path if path.endswith("-packages")]
WITHIN_S = 60.0

Serve = Callable[..., "subprocess.Popen[str]"]


def until(reached: Callable[[], Any]) -> None:
    """Wait for something that happens soon; the bound is for a test that has failed."""
    deadline = time.monotonic() + WITHIN_S
    while not reached():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}/cwd").exists()


def settings(data_dir: Path, url: str = "") -> Any:
    return SimpleNamespace(
        data_dir=data_dir, database=SimpleNamespace(url=SecretStr(url), embedded_memory_mb=16)
    )


def one(url: str, query: str) -> Any:
    """The first value that the last statement of a query returns."""
    with connect_now(url) as connection:
        cursor = connection.execute(query.encode())
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        return row[0] if row else None


def said(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """The server's process and URL, as the program announces them."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "it ended instead of serving"
    pid, url = line.split()
    return int(pid), url
