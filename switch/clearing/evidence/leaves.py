"""The leaves of a day as PostgreSQL writes them, and the tree over them, with flat memory.

Rows are read by ranges of entry numbers that hold some ten thousand leaves: each is sorted in memory, by the server, while this process hashes the one
before. A single sort over millions of wide rows would go through the disk.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import date
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.clearing.evidence.merkle import BLOCK_LEAVES, leaf_hashes, root_of
from switch.domain.errors import InputRefused
from switch.storage.sql import load

SQL: Final = load(__package__ or "", "evidence.sql")
NUMBERS_WIDTH: Final = 8192  # entry numbers that are counted together
LEAVES_AT_ONCE: Final = 32_768  # and those of one more count: some 10 MB, of which two are in memory

Connection = AsyncConnection[tuple[Any, ...]]


class BooksChanged(InputRefused):
    """Rows of a sealed day are no longer what they were when it was sealed."""


class LeafKey(NamedTuple):
    """Where a leaf stands: the order of the tree."""

    entry_no: int
    shard: int
    line: int


class Block(NamedTuple):
    """A subtree of BLOCK_LEAVES leaves, or the last one of fewer."""

    first: LeafKey
    leaf_count: int
    root: bytes


class DayTree(NamedTuple):
    """The tree over a day. last_entry: number of the last leaf; None when there is none. shards: of its postings."""

    blocks: tuple[Block, ...]
    last_entry: int | None
    shards: tuple[int, ...]

    @property
    def leaves(self) -> int:
        """How many."""
        return sum(block.leaf_count for block in self.blocks)

    @property
    def root(self) -> bytes:
        """Over all of them."""
        return root_of([block.root for block in self.blocks])


class TreeBuilder:
    """Takes leaves in order and makes blocks of them; keeps the hashes of one block."""

    def __init__(self) -> None:
        self._hashes: list[bytes] = []
        self._first = LeafKey(0, 0, 0)
        self._blocks: list[Block] = []
        self._last_entry: int | None = None

    def add(self, leaves: list[bytes]) -> None:
        """The next leaves."""
        at = 0
        while at < len(leaves):
            if not self._hashes:
                self._first = key_of(leaves[at])
            part = leaves[at : at + BLOCK_LEAVES - len(self._hashes)]
            self._hashes += leaf_hashes(part)
            at += len(part)
            if len(self._hashes) == BLOCK_LEAVES:
                self._end_block()
        if leaves:
            self._last_entry = key_of(leaves[-1]).entry_no

    def _end_block(self) -> None:
        self._blocks.append(Block(self._first, len(self._hashes), root_of(self._hashes)))
        self._hashes = []

    def finish(self, shards: tuple[int, ...]) -> DayTree:
        """No more come."""
        if self._hashes:
            self._end_block()
        return DayTree(tuple(self._blocks), self._last_entry, shards)


def key_of(leaf: bytes) -> LeafKey:
    """Where a leaf stands. BooksChanged when it is a piece of one, as a line feed inside a row makes it."""
    try:
        _, entry_no, shard, line, _ = leaf.split(b"\t", 4)
        return LeafKey(int(entry_no), int(shard), int(line))
    except ValueError:
        raise BooksChanged(
            "a row holds a line feed, which none is booked with: run `cardswitch audit`"
        ) from None


class Outline(NamedTuple):
    """A day before it is read. ranges: first and last entry number; rows: an upper bound of its leaves."""

    ranges: tuple[tuple[int, int], ...]
    shards: tuple[int, ...]
    rows: int


async def outline(connection: Connection, day: date) -> Outline:
    """How to read a day."""
    index = f"journal_{day:%Y%m%d}_entry"
    await connection.execute(SQL["summarise_index"], {"index": index})
    counts: dict[int, int] = {}
    shards: set[int] = set()
    cursor = await connection.execute(SQL["outline"], {"day": day, "width": NUMBERS_WIDTH})
    async for number, shard, count in cursor:
        counts[number] = counts.get(number, 0) + count
        if shard is not None:
            shards.add(shard)
    ranges: list[tuple[int, int]] = []
    held = 0
    for number in sorted(counts):
        first, last = number * NUMBERS_WIDTH, (number + 1) * NUMBERS_WIDTH - 1
        if ranges and held + counts[number] <= LEAVES_AT_ONCE:
            ranges[-1] = (ranges[-1][0], last)
            held += counts[number]
        else:
            ranges.append((first, last))
            held = counts[number]
    return Outline(tuple(ranges), tuple(sorted(shards)), sum(counts.values()))


@contextlib.asynccontextmanager
async def reading(connection: Connection) -> AsyncIterator[None]:
    """Settings under which leaves have one form, and ranges are read by an index."""
    await connection.execute("SET TIME ZONE 'UTC'")
    await connection.execute("SET DateStyle = 'ISO'")
    await connection.execute("SET jit = off")
    await connection.execute("SET enable_seqscan = off")
    try:
        yield
    finally:
        if not connection.closed and not connection.broken:
            await connection.execute("RESET enable_seqscan")


async def read_leaves(
    connection: Connection, day: date, secret: bytes, shards: tuple[int, ...], first: int, last: int
) -> bytes:
    """The leaves of a range of entry numbers, with a line feed between them; inside `reading`."""
    values = {"day": day, "secret": secret, "shards": list(shards), "first": first, "last": last}
    # Never prepared: a plan for any range would not know how few rows of the day this one has.
    cursor = connection.cursor(binary=True)
    await cursor.execute(SQL["leaves"], values, prepare=False)
    row = await cursor.fetchone()
    return b"" if row is None or row[0] is None else bytes(row[0])


async def read_tree(
    connection: Connection,
    day: date,
    secret: bytes,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> DayTree:
    """Hash all leaves of a day. tell: called with leaves done and about how many there are."""
    builder = TreeBuilder()
    done = 0
    async with reading(connection):
        plan = await outline(connection, day)
        ahead: asyncio.Task[bytes] | None = None
        try:
            for number in range(len(plan.ranges)):
                if ahead is None:
                    ahead = asyncio.create_task(
                        read_leaves(connection, day, secret, plan.shards, *plan.ranges[number])
                    )
                content, ahead = await ahead, None
                if number + 1 < len(plan.ranges):
                    following = plan.ranges[number + 1]
                    ahead = asyncio.create_task(read_leaves(connection, day, secret, plan.shards, *following))
                # In a thread, so that the loop sends the next question before this answer is hashed, and serves whoever else it has.
                done += await asyncio.to_thread(_hash_lines, builder, content)
                tell(done, max(done, plan.rows))
        finally:
            if ahead is not None:
                ahead.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await ahead
    return builder.finish(plan.shards)


def _hash_lines(builder: TreeBuilder, content: bytes) -> int:
    leaves = content.split(b"\n") if content else []
    builder.add(leaves)
    return len(leaves)
