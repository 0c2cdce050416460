"""Lists to a broker, or a roll-out's next move, in a process of its own, for tests that kill it.

    python -m tests.helpers.publishing_lists URL KEYS FOLDER publish|move [QUERY | published:N]

The broker is a folder: a file for each topic that has a retained message. Kills itself (SIGKILL) when it comes to a query of that name
(add_form, add_manifest, withdraw, announce), or when N messages are with the broker. Prints how many manifests, or moves, it made.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

from psycopg import AsyncConnection

from switch.keys.opening import open_stored_vault
from switch.keys.stores import JsonKeyStore
from switch.registry.list_keeping import look
from switch.registry.list_publication import ListPublication, ListSigner
from switch.registry.list_rollout import SQL
from switch.storage.pool import connect
from switch.storage.sql import load
from tests.helpers.closing import die
from tests.unit.keys.helpers import UNLOCK

QUERIES = SQL | load("switch.registry", "list_publication.sql")


class Folder:
    """What a broker retains. A message is there whole or not at all. left: until death."""

    def __init__(self, root: Path, left: int = 0) -> None:
        self._root = root
        self._left = left

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        assert retain
        path = self._root / topic
        if payload:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_bytes(payload)
            part.replace(path)
        else:
            path.unlink(missing_ok=True)
        self._left -= 1
        if self._left == 0:
            die()


class Mortal:
    """A connection whose process does not live to send one query."""

    def __init__(self, connection: AsyncConnection[Any], query: str) -> None:
        self._connection = connection
        self._query = query

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, query: Any, *arguments: Any, **more: Any) -> Any:
        if query == self._query:
            die()
        return await self._connection.execute(query, *arguments, **more)


async def run(url: str, keys: Path, folder: Path, work: str, at: str = "") -> None:
    name, _, left = at.partition(":")
    async with await connect(url) as connection:
        mortal = cast("AsyncConnection[Any]", Mortal(connection, QUERIES.get(name, "")))
        if work == "publish":
            vault = open_stored_vault(JsonKeyStore(keys), UNLOCK, production=False)
            done = await ListPublication(ListSigner(vault), Folder(folder, int(left or 0))).publish_due(
                mortal
            )
        else:
            before = await connection.execute("SELECT count(*) FROM list_event")
            (events,) = await before.fetchone() or (0,)
            await look(mortal)
            after = await connection.execute("SELECT count(*) FROM list_event")
            done = (await after.fetchone() or (0,))[0] - events
    sys.stdout.write(str(done))


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:]))
