"""The books of all shards in one process."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from switch.domain.decisions import Decline
from switch.ledger.book import Connect, ShardBook
from switch.ledger.items import Item
from switch.ledger.load_rows import OnLoad
from switch.ledger.medical import MedicalPolicy, by_table


class Books:
    """One ShardBook for each shard, each with its own connection. Start, submit, stop."""

    def __init__(
        self,
        shards: int,
        connect: Connect,
        de39: Mapping[Decline, str],
        *,
        queue_max: int,
        batch_max: int,
        no_pin_limit_fen: int,
        on_batch: Callable[[int, float], None],
        on_load: OnLoad,
        medical_policy: MedicalPolicy = by_table,
    ) -> None:
        self._books = [
            ShardBook(
                shard,
                connect,
                de39,
                queue_max=queue_max,
                batch_max=batch_max,
                no_pin_limit_fen=no_pin_limit_fen,
                on_batch=on_batch,
                medical_policy=medical_policy,
                on_load=on_load,
            )
            for shard in range(shards)
        ]
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self) -> None:
        """Begin to serve the queues."""
        self._tasks = [asyncio.get_running_loop().create_task(book.run()) for book in self._books]

    def submit(self, shard: int, item: Item) -> bool:
        """Queue for a shard; False when its queue is full. LookupError for a shard that this switch does not have."""
        return self._books[shard].submit(item)

    def shard_of_terminal(self, terminal_no: int) -> int:
        """The shard of messages that have no card holder."""
        return terminal_no % len(self._books)

    @property
    def depth(self) -> int:
        """Requests waiting in all queues."""
        return sum(book.depth for book in self._books)

    async def stop(self) -> None:
        """Take no more, finish what is queued, close the connections."""
        for book in self._books:
            book.stop()
        await asyncio.gather(*self._tasks)
