"""How late a process is for its own appointments: whatever holds its loop up holds up every terminal at once."""

import asyncio
from collections.abc import Callable

EVERY_S = 0.1


async def keep_time(note: Callable[[float], None], *, every_s: float = EVERY_S) -> None:
    """Until cancelled, sleep and note by how many seconds it was more than that."""
    now = asyncio.get_running_loop().time
    while True:
        due = now() + every_s
        await asyncio.sleep(every_s)
        note(max(0.0, now() - due))
