"""What commands share: who runs one, and one question to the database (settings, a server where it is embedded, a connection, the answer)."""

import asyncio
import getpass
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from psycopg import AsyncConnection

from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

NUMBER_MAX: Final = 2**63 - 1  # of whatever the database numbers or counts
T = TypeVar("T")
Connection = AsyncConnection[tuple[Any, ...]]


def actor() -> str:
    """Who runs this, as others will read it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()} pid {os.getpid()}"


def ask(work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do the work on a connection of its own, in autocommit mode."""

    async def run(url: str) -> T:
        async with await connect(url) as connection:
            return await work(connection)

    with open_database(load_settings()) as url:
        return asyncio.run(run(url))
