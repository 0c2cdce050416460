"""What the process that closes a day says, whatever it says, is an answer to the service that began it."""

import asyncio
import subprocess
import sys
from datetime import date
from typing import Any

import pytest

from switch.clearing.close import CloseRunning
from switch.operations import closer
from switch.operations.closer import CloserFailed, close_elsewhere

DAY = date(2026, 11, 26)
STEP = '{"step":"seal","done":0,"total":1,"finished":false}\n'
CHILD = "import os, sys; sys.stdin.readline(); os.write(1, sys.argv[1].encode()); os.kill(os.getpid(), int(sys.argv[2]))"

#   what it says, the signal that ends it (0: none), what becomes of it
CASES: list[tuple[str, int, type[Exception] | None]] = [
    ("", 0, CloserFailed),
    ("", 9, CloserFailed),
    (STEP, 9, CloserFailed),
    (STEP + STEP, 9, CloserFailed),
    (STEP + '{"closed":true}\n', 9, None),
    ('{"closed":true}', 0, None),
    ('{"closed":false,"running":true,"error":"li wei"}\n', 0, CloseRunning),
    ("a library's words\n", 0, CloserFailed),
    ("5\n", 0, CloserFailed),
    ("null\n", 0, CloserFailed),
    ('["step"]\n', 0, CloserFailed),
    ('"step"\n', 0, CloserFailed),
    ('{"step":"seal"}\n', 0, CloserFailed),
    ("x" * 100_000 + "\n", 0, CloserFailed),
]


@pytest.mark.parametrize(("said", "signal", "becomes"), CASES)
async def test_whatever_the_child_says_and_wherever_it_dies_the_service_is_told(
    monkeypatch: pytest.MonkeyPatch, said: str, signal: int, becomes: type[Exception] | None
) -> None:
    real = asyncio.create_subprocess_exec

    async def child(*_: str, **options: Any) -> asyncio.subprocess.Process:
        return await real(sys.executable, "-c", CHILD, said, str(signal), **options)

    monkeypatch.setattr(closer.asyncio, "create_subprocess_exec", child)
    closing = close_elsewhere("postgresql://nobody", DAY, lambda _progress: None)
    if becomes is None:
        await closing
    else:
        with pytest.raises(becomes):
            await closing


def test_a_child_whose_parent_has_died_asks_no_database() -> None:
    command = (sys.executable, "-m", "switch.operations.closer", DAY.isoformat())
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
