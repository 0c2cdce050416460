"""The gate between bookings and whoever must know that no more can come.

Every transaction that stamps a business date holds its shard's gate shared, from before it reads the clock until it
commits. Taking the gate exclusively once, after a day's end or a batch's freeze, therefore waits for all that were on
their way and stops nobody else. An advisory lock, because it queues fairly: with a row lock FOR SHARE, readers overtook
the waiting closer for seconds.
"""

from collections.abc import Iterable

from psycopg import AsyncConnection

GATE = 0x43435331  # the first key of the two-part advisory lock; the second is the shard
PURSE_GATE_SHARD = 1000  # offline records are booked across shards, behind one gate of their own

TAKE_SHARED = "SELECT pg_advisory_xact_lock_shared(%b::int, %b::int)"
TAKE_EXCLUSIVE = "SELECT pg_advisory_xact_lock(%b::int, %b::int)"


async def wait_for_all(connection: AsyncConnection[tuple[object, ...]], shards: Iterable[int]) -> None:
    """Return when every booking that had entered one of these gates before this call has ended.

    Gates are taken one after the other, each in a transaction of its own, so that none is held while waiting for the next.
    connection: in autocommit mode and not in a transaction.
    """
    for shard in shards:
        async with connection.transaction():
            await connection.execute(TAKE_EXCLUSIVE, (GATE, shard))
