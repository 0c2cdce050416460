"""Ending a process that was started here."""

import asyncio
from contextlib import suppress


async def end_child(process: asyncio.subprocess.Process, stop_s: float | None) -> None:
    """Whatever happened, nobody is left behind: ask it to end, and kill it when it has not within stop_s. None: wait for it."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    # Not asyncio.timeout: in a task that is being cancelled, as ours mostly is, it raises no TimeoutError before Python 3.11.4.
    ended = asyncio.get_running_loop().create_task(process.wait())
    await asyncio.wait((ended,), timeout=stop_s)
    if not ended.done():
        with suppress(ProcessLookupError):
            process.kill()
    await ended
