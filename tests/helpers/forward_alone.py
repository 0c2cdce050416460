"""A forwarder in a process of its own that kills itself with signal 9 at a named point.

    python -m tests.helpers.forward_alone DATABASE_URL HOST_PORT FOLDER POINT

POINT: `claimed`, nothing has been sent; `answered`, the host has answered and nothing is written down; `recorded`, it is, and nobody has
been told.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from switch.routing import forwarding as module
from tests.helpers.hosts import linked
from tests.helpers.outbox import forwarding

LEASE_S = 5.5
ANSWER_S = 5.0  # whoever starts it waits for the end of its claims; a busy host still answers within it


def die(*_arguments: Any, **_more: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


async def run(url: str, port: int, folder: Path, point: str) -> None:
    module.LEASE_MARGIN_S = LEASE_S - ANSWER_S  # type: ignore[misc]
    if point == "claimed":
        module.Forwarder._send = die  # type: ignore[method-assign,assignment]
    elif point == "answered":
        module.record = die
    elif point == "recorded":
        module.Counter = die  # type: ignore[misc,assignment]
    async with linked(folder, port=port) as (link, _, _), forwarding(url, link, answer_s=ANSWER_S):
        await asyncio.sleep(60.0)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]))
