"""Word from other processes that something in the registry changed: LISTEN on channel `registry`.

Payloads: `terminal:<id>` (its attributes, keys or batch), `card` (cards were added), `binding:<shard>:<card_no>` (of one card) or
`bindings` (of many), `routes` (another routing table is in force), `all`. A writer sends them inside its
transaction, so they arrive after the commit and only if there was one. Whoever does not hear them must not trust a cache:
while the listening connection is down, nothing is kept.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import psycopg
import structlog

CHANNEL = "registry"

log = structlog.get_logger(__name__)


class Follower(Protocol):
    """A cache that wants to hear of changes."""

    def notice(self, payload: str) -> None:
        """Something changed; unknown payloads count as `all`."""

    def distrust(self) -> None:
        """Forget everything and keep nothing from now on."""

    def trust(self) -> None:
        """Changes are heard again from now on."""


class RegistryListener:
    """Listens on a connection of its own for as long as `run` runs.

    connect: opens a connection in autocommit mode.
    retry_s, retry_max_s: first and longest pause between attempts; each is doubled and jittered.
    check_s: after this long without word the connection is tried, so that a dead one is noticed.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[psycopg.AsyncConnection[Any]]],
        followers: Sequence[Follower],
        *,
        retry_s: float = 0.1,
        retry_max_s: float = 5.0,
        check_s: float = 10.0,
    ) -> None:
        self._connect = connect
        self._followers = tuple(followers)
        self._retry_s = retry_s
        self._retry_max_s = retry_max_s
        self._check_s = check_s
        self.listening = asyncio.Event()
        for follower in self._followers:
            follower.distrust()  # until the first LISTEN stands

    async def run(self) -> None:
        """Listen until cancelled; reconnect whenever the connection is lost."""
        pause_s = self._retry_s
        while True:
            try:
                connection = await self._connect()
                try:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._heard_again()
                    pause_s = self._retry_s
                    await self._listen(connection)
                finally:
                    self._lost()
                    await connection.close()
            except (OSError, psycopg.Error) as error:
                log.warning(
                    "registry changes are not heard", cause=type(error).__name__, retry_s=round(pause_s, 2)
                )
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects, no secret
            pause_s = min(pause_s * 2, self._retry_max_s)

    async def _listen(self, connection: psycopg.AsyncConnection[Any]) -> None:
        while True:
            async for notice in connection.notifies(timeout=self._check_s):
                for follower in self._followers:
                    follower.notice(notice.payload)
            async with asyncio.timeout(self._check_s):  # wait_for can swallow a cancellation
                await connection.execute("SELECT 1")

    def _heard_again(self) -> None:
        for follower in self._followers:
            follower.trust()
        self.listening.set()

    def _lost(self) -> None:
        self.listening.clear()
        for follower in self._followers:
            follower.distrust()
