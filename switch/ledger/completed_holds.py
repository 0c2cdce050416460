"""Holds that only the reversal of a completion void asks for.

The void names the completion, and the completion the hold. Where the hold is open again, the batch has read it with its account;
where its last day is over, nothing that was read leads to it.
"""

from collections.abc import Sequence
from typing import Final

from switch.domain.transactions import Kind
from switch.ledger.batch import Batch
from switch.ledger.items import FINANCIAL, Item, Key
from switch.ledger.rules import Entry, Hold
from switch.storage.arrays import dates, int4s, int8s
from switch.storage.pipeline import Pipeline
from switch.storage.sql import load

SQL: Final = dict(load("switch.ledger", "completed_holds.sql"))


def _voids(batch: Batch, items: Sequence[Item]) -> dict[Key, Entry]:
    """The completion voids that are to be reversed and whose hold was not read, by their keys."""
    known = {hold.completed_by for hold in batch.holds.values()}
    found = {}
    for item in items:
        if item.key.rclass:
            key = item.key._replace(rclass=FINANCIAL)
            entry = batch.by_key.get(key)
            if entry is not None and entry.kind == Kind.COMPLETION_VOID and entry.original_entry not in known:
                found[key] = entry
    return found


async def read_completed_holds(link: Pipeline, shard: int, batch: Batch, items: Sequence[Item]) -> None:
    """Add to what a batch has read; a round trip only where such a reversal came. Holds that were read stand as they are."""
    voids = {
        key: (entry.original_date, entry.original_entry)
        for key, entry in _voids(batch, items).items()
        if entry.original_date is not None and entry.original_entry is not None
    }
    if not voids:
        return
    days = [day for day, _ in voids.values()]
    link.queue(
        "read_completed_holds",
        {
            "shard": shard,
            "terminals": int4s([key.terminal_no for key in voids]),
            "batches": int4s([key.batch_no for key in voids]),
            "dates": dates(days),
            "oldest": min(days),
            "newest": max(days),
            "entries": int8s([entry_no for _, entry_no in voids.values()]),
        },
    )
    (rows,) = await link.round_trip()
    for row in rows:
        batch.holds.setdefault(row[0], Hold(*row))
