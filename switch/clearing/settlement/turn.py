"""One settlement step at a time, over all processes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from psycopg import AsyncConnection

from switch.domain.errors import InputRefused
from switch.ledger.fold import fold_all

Connection = AsyncConnection[tuple[Any, ...]]
SETTLEMENT_LOCK: Final = 0x43435354  # advisory, two-part, second part 1: a close (part 0) may run beside it
ACTOR_MAX: Final = 100

_WHO = """
SELECT a.application_name, a.backend_start
  FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s AND l.objid = 1
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class SettlementRefused(InputRefused):
    """A step that cannot be done now. Nothing was changed."""


@asynccontextmanager
async def only_one(connection: Connection, actor: str) -> AsyncIterator[None]:
    """Hold the settlement's lock; it ends with the connection, so a killed step leaves nothing behind.

    connection: its own, in autocommit mode. Raises SettlementRefused, which says who holds it.
    """
    if not 0 < len(actor) <= ACTOR_MAX:
        raise SettlementRefused(f"actor: 1 to {ACTOR_MAX} characters")
    await connection.execute("SET TIME ZONE 'UTC'")
    await connection.execute(
        "SELECT set_config('application_name', %s, false)", (f"settlement by {actor}"[:63],)
    )
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, 1)", (SETTLEMENT_LOCK,))
    if await cursor.fetchone() != (True,):
        who = await (await connection.execute(_WHO, (SETTLEMENT_LOCK,))).fetchone()
        text = f"{who[0]}, connected since {who[1]:%Y-%m-%d %H:%M:%S%z}" if who else "it has just ended"
        raise SettlementRefused(f"another settlement step is running: {text}")
    try:
        yield
    finally:
        if not connection.closed:
            await connection.execute("SELECT pg_advisory_unlock(%s, 1)", (SETTLEMENT_LOCK,))


async def fold_now(connection: Connection, shards: Sequence[int]) -> None:
    """Bring the folded balances up to date, so that a decision sees what has been booked until now. Not in a transaction."""
    await fold_all(connection, (0, *(shard for shard in shards if shard)))
