"""One question to the database, for commands that ask one: the settings, a server where it is embedded, a connection, and the answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from psycopg import AsyncConnection

from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

NUMBER_MAX: Final = 2**63 - 1  # of whatever the database numbers or counts
T = TypeVar("T")
Connection = AsyncConnection[tuple[Any, ...]]


def ask(work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do the work on a connection of its own, in autocommit mode."""

    async def run(url: str) -> T:
        async with await connect(url) as connection:
            return await work(connection)

    with open_database(load_settings()) as url:
        return asyncio.run(run(url))
