"""Ending a process that was started here."""

import asyncio
from contextlib import suppress


async def end_child(process: asyncio.subprocess.Process, stop_s: float | None) -> None:
    """Whatever happened, nobody is left behind: ask it to end, and kill it when it has not within stop_s. None: wait for it.

    Who is cancelled meanwhile, and again, as end_tasks does it, is cancelled when the process has ended, and not before.
    """
    ending = asyncio.get_running_loop().create_task(_end(process, stop_s))
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.wait((ending,))
        except asyncio.CancelledError as error:
            cancelled = error
    ending.result()
    if cancelled is not None:
        raise cancelled


async def _end(process: asyncio.subprocess.Process, stop_s: float | None) -> None:
    """In a task of its own, which nobody cancels: there asyncio.timeout would do too, whatever whoever waits for it is told."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    ended = asyncio.get_running_loop().create_task(process.wait())
    await asyncio.wait((ended,), timeout=stop_s)
    if not ended.done():
        with suppress(ProcessLookupError):
            process.kill()
    await ended
