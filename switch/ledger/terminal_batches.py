"""The end of a terminal's batch: settlement 批結算 (0500), detail upload 批上送 (0320/201), batch end (0320/202 and 207).

    open ──0500──> frozen ──207 when both flags were 1, or 202──> closed; the next sign-on opens a new batch

A settlement freezes the batch first, in a transaction of its own, and then has every gate exclusively once: whatever was on
its way has ended, and nothing new is booked in the batch (90). Only then are the figures summed. A batch end closes
first and sums once more, since reversals may have come in between. Terminals that settle at the same time share the
gates. If the process dies between the two transactions, the same message, or a new one, takes up where it stopped.

docs/purse_record.md and docs/iso8583.md show the flow to terminal makers.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from switch.domain.decisions import Outcome
from switch.domain.transactions import (
    BatchEnd,
    DetailUpload,
    Settlement,
)
from switch.ledger.batch_messages import (
    CLOSED,
    FROZEN,
    SQL,
    MessageKey,
    Session,
    ask,
    key_of,
)
from switch.ledger.batch_report import (
    BALANCED,
    Difference,
    Figures,
    count_difference,
    detail_differences,
    group_differences,
)
from switch.ledger.batch_round import (
    ACCOUNTS_FLAG_AT,
    END_COUNT_MAX,
    BatchMessage,
    Round,
    Uploads,
    end_refusal,
    place_of,
)
from switch.ledger.gate import PURSE_GATE_SHARD, wait_for_all
from switch.ledger.serials import Serials
from switch.ledger.writer import Connect, Connection, MessageWriter
from switch.storage.arrays import dates, int2s, int4s

__all__ = ["BatchMessage", "TerminalBatches"]

MARKED_PER_ROUND_MAX: Final = 256


class TerminalBatches(MessageWriter[BatchMessage]):
    """The writer of these messages in one process.

    shards: number of shards that books are kept in. queue_max: messages that may wait; one more is refused.
    """

    def __init__(
        self,
        connect: Connect,
        shards: int,
        *,
        queue_max: int = 4_096,
        retry_for_s: float = 20.0,
        on_batch: Callable[[int, float], None] = lambda _weight, _seconds: None,
    ) -> None:
        super().__init__(
            connect,
            name="terminal batches",
            queue_max=queue_max,
            weight_max=MARKED_PER_ROUND_MAX,
            retry_for_s=retry_for_s,
            on_batch=on_batch,
        )
        self._shards = shards
        self._serials = Serials()
        self._marked: set[MessageKey] = set()  # of messages at hand whose batch is frozen or closed already

    def submit(self, message: BatchMessage) -> bool:
        """Queue a message; False when the queue is full, and then nothing was taken."""
        return self.enqueue(message)

    def answer(self, message: BatchMessage, outcome: Outcome | None) -> None:
        """Tell whoever waits."""
        self._marked.discard(key_of(message))
        message.done(outcome)

    def may_join(self, message: BatchMessage, batch: Sequence[BatchMessage]) -> bool:
        """One message of a terminal at a time: each must see what the one before it did."""
        return all(message.terminal_no != other.terminal_no for other in batch)

    # ------------------------------------------------------------------ one round

    async def write(self, connection: Connection, messages: Sequence[BatchMessage]) -> Sequence[Outcome]:
        """Freeze or close, have the gates once, then decide, sum and write; outcomes in the order of messages."""
        if any(not isinstance(message.content, DetailUpload) for message in messages):
            marked = await self._mark(connection, messages)
            if marked:
                await wait_for_all(connection, (*range(self._shards), PURSE_GATE_SHARD))
        return await self._decide_and_write(connection, messages)

    async def _mark(self, connection: Connection, messages: Sequence[BatchMessage]) -> bool:
        """Freeze the batches to be settled and close those to be ended; whether there were any."""
        session = Session(self._shards, self._serials)
        await session.begin(connection, messages)
        ends = [message for message in messages if isinstance(message.content, BatchEnd)]
        uploads = await self._uploads(connection, session, ends)
        marks: list[tuple[BatchMessage, int]] = []
        for message in messages:
            if session.earlier(message, heard=key_of(message) in self._marked) is not None:
                continue
            content = message.content
            batch = session.batches.get((message.terminal_no, message.batch_no))
            if isinstance(content, Settlement):
                if session.open_batch(message) is not None and batch is not None and batch.computed is None:
                    marks.append((message, FROZEN))
            elif isinstance(content, BatchEnd) and batch is not None:
                refusal = end_refusal(session, message, content, uploads.get(place_of(message), Uploads()))
                if not refusal:
                    marks.append((message, CLOSED))
        statements = []
        if marks:
            freeze = {
                "terminals": int4s([message.terminal_no for message, _ in marks]),
                "batches": int4s([message.batch_no for message, _ in marks]),
                "states": int2s([state for _, state in marks]),
            }
            statements.append((SQL["freeze_batches"], freeze))
        await session.finish(connection, statements)
        # A sign-on may put new keys in force before the second half: A0 would say that nothing has changed.
        self._marked.update(key_of(message) for message, _ in marks)
        return bool(marks)

    async def _decide_and_write(
        self, connection: Connection, messages: Sequence[BatchMessage]
    ) -> Sequence[Outcome]:
        session = Session(self._shards, self._serials)
        await session.begin(connection, messages)
        summed = [message for message in messages if not isinstance(message.content, DetailUpload)]
        uploads = await self._uploads(connection, session, summed)
        figures = await self._figures(connection, session, summed, uploads)
        book = Round(session)
        outcomes: list[Outcome] = []
        for message in messages:
            earlier = session.earlier(message, heard=key_of(message) in self._marked)
            if earlier is not None:
                outcomes.append(earlier)
            elif isinstance(message.content, Settlement):
                outcomes.append(book.settle(message, message.content, figures))
            elif isinstance(message.content, DetailUpload):
                outcomes.append(book.take_details(message, message.content))
            else:
                place = place_of(message)
                ours = figures.get(place)
                report = await self._report(connection, session, message, message.content, uploads, ours)
                end = uploads.get(place, Uploads())
                outcomes.append(book.end(message, message.content, end, ours, report))
        await session.finish(connection, book.statements())
        return outcomes

    # ------------------------------------------------------------------ what was booked

    async def _uploads(
        self, connection: Connection, session: Session, messages: Sequence[BatchMessage]
    ) -> dict[tuple[int, int], Uploads]:
        """What was uploaded in the batches of these messages."""
        known = [message for message in messages if place_of(message) in session.batches]
        if not known:
            return {}
        cursor = await ask(
            connection,
            SQL["sum_uploads"],
            batch_columns(session, known)
            | {"shards": int2s([session.shard_of(message) for message in known])},
        )
        uploads: dict[tuple[int, int], Uploads] = {}
        for at, amount_fen, decided_at, extra in await cursor.fetchall():
            place = place_of(known[at - 1])
            settled_at = session.batches[place].settled_at
            kept = orjson.loads(extra)
            results = bytes.fromhex(kept["62"])
            serials = frozenset(results[start : start + 4] for start in range(kept["head"], len(results), 6))
            before = uploads.get(place, Uploads())
            late = settled_at is not None and decided_at > settled_at
            uploads[place] = Uploads(
                before.taken + kept["taken"],
                before.taken_fen + amount_fen,
                before.serials | serials,
                before.records + kept["n"],
                before.after_settlement + (kept["n"] if late else 0),
            )
        return uploads

    async def _figures(
        self,
        connection: Connection,
        session: Session,
        messages: Sequence[BatchMessage],
        uploads: dict[tuple[int, int], Uploads],
    ) -> dict[tuple[int, int], Figures]:
        """The switch's own totals of the batches of these messages."""
        known = [message for message in messages if place_of(message) in session.batches]
        sums: dict[tuple[int, int], dict[int, tuple[int, int]]] = {place_of(message): {} for message in known}
        if known:
            cursor = await ask(
                connection,
                SQL["sum_batches"],
                batch_columns(session, known) | {"shards": int2s(range(self._shards))},
            )
            for at, kind, count, fen in await cursor.fetchall():
                sums[place_of(known[at - 1])][kind] = (count, fen)
        return {
            place: Figures.of(
                kinds, uploads.get(place, Uploads()).taken, uploads.get(place, Uploads()).taken_fen
            )
            for place, kinds in sums.items()
        }

    async def _report(
        self,
        connection: Connection,
        session: Session,
        message: BatchMessage,
        content: BatchEnd,
        uploads: dict[tuple[int, int], Uploads],
        ours: Figures | None,
    ) -> list[Difference]:
        """What differs in a batch that is being closed: totals, details against the journal, and the count of a 202."""
        batch = session.batches.get(place_of(message))
        if batch is None or not batch.ending or ours is None:
            return []
        assert batch.claimed is not None
        assert batch.computed is not None
        found = group_differences(batch.claimed, ours)
        if content.balanced:
            return found
        place: dict[str, Any] = {"terminal_no": message.terminal_no, "batch_no": message.batch_no}
        cursor = await ask(connection, SQL["list_details"], place)
        sent = await cursor.fetchall()
        if batch.computed[ACCOUNTS_FLAG_AT] != BALANCED:
            reach = {"since": batch.opened_on, "until": session.until, "shards": int2s(range(self._shards))}
            cursor = await ask(connection, SQL["list_booked"], place | reach)
            found += detail_differences(sent, await cursor.fetchall())
        again = uploads.get(place_of(message), Uploads()).after_settlement
        return found + count_difference(content.uploaded, min(len(sent) + again, END_COUNT_MAX))


def batch_columns(session: Session, messages: Sequence[BatchMessage]) -> dict[str, Any]:
    return {
        "terminals": int4s([message.terminal_no for message in messages]),
        "batches": int4s([message.batch_no for message in messages]),
        "sinces": dates([session.batches[place_of(message)].opened_on for message in messages]),
        "until": session.until,
    }
