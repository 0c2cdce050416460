"""A process that was started here is never left behind."""

import asyncio
import sys

import pytest

from switch.operations.child import end_child
from switch.storage.pool import CANCEL_AGAIN_S, end_tasks

DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
)


async def _deaf() -> asyncio.subprocess.Process:
    """A process that does not end when it is told."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", DEAF, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def test_a_process_that_does_not_end_is_killed_however_often_its_keeper_is_cancelled() -> None:
    process = await _deaf()

    async def keep() -> None:
        try:
            await process.wait()
        finally:
            await end_child(process, 3 * CANCEL_AGAIN_S)

    task = asyncio.get_running_loop().create_task(keep())
    await asyncio.sleep(0)
    async with asyncio.timeout(120):
        await end_tasks(task)  # which cancels again and again
    left = process.returncode is None
    if left:
        process.kill()
        await process.wait()
    assert not left
    assert task.cancelled()


async def test_who_is_cancelled_while_a_process_ends_is_cancelled_when_it_has() -> None:
    process = await _deaf()
    task = asyncio.get_running_loop().create_task(end_child(process, 0.2))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert process.returncode == -9
