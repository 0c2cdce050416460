"""A decision about a case in a process of its own, which dies behind the statement that has these words in it.

python -m tests.helpers.deciding_alone URL CASE WORDS
"""

import asyncio
import os
import signal
import sys
from typing import Any

from psycopg import AsyncConnection

from switch.clearing.disputes.deciding import decide
from switch.storage.pool import connect


async def run(url: str, case_no: int, words: str) -> None:
    """Decide, and die on the way."""

    async def opened() -> AsyncConnection[Any]:
        connection = await connect(url)
        execute = connection.execute

        async def mortal(query: Any, *rest: Any, **more: Any) -> Any:
            done = await execute(query, *rest, **more)
            if words in str(query):
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        connection.execute = mortal  # type: ignore[method-assign,assignment]  # where every statement goes through
        return connection

    await decide(opened, case_no, checker="wang fang")


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
