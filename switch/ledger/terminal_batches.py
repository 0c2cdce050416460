"""The end of a terminal's batch: settlement 批結算 (0500), detail upload 批上送 (0320/201), batch end (0320/202 and 207).

    open ──0500──> frozen ──207 when both flags were 1, or 202──> closed; the next sign-on opens a new batch

A settlement freezes the batch first, in a transaction of its own, and then has every gate exclusively once: whatever was on
its way has ended, and nothing new is booked in the batch (90). Only then are the figures summed. A batch end closes
first and sums once more, since reversals may have come in between. Terminals that settle at the same time share the
gates. If the process dies between the two transactions, the same message, or a new one, takes up where it stopped.

docs/purse_record.md and docs/iso8583.md show the flow to terminal makers.
"""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, Final, NamedTuple

import orjson

from switch.domain.decisions import APPROVED, Outcome
from switch.domain.transactions import (
    BatchEnd,
    Detail,
    DetailUpload,
    Kind,
    Settlement,
)
from switch.ledger.batch_messages import (
    CLOSED,
    FROZEN,
    OPEN,
    SIGN_ON_AGAIN,
    SQL,
    BatchState,
    Session,
    ask,
)
from switch.ledger.batch_report import (
    BALANCED,
    Difference,
    Figures,
    compare,
    count_difference,
    detail_differences,
    digits_of,
    group_differences,
)
from switch.ledger.gate import PURSE_GATE_SHARD, wait_for_all
from switch.ledger.serials import Serials
from switch.ledger.writer import CannotBookError, Connect, Connection, MessageWriter
from switch.storage.arrays import dates, int2s, int4s, int8s, texts

NOT_APPLICABLE: Final = "12"
BATCH_FROZEN: Final = "90"
UNBALANCED: Final = "95"
ACCOUNTS_FLAG_AT: Final = 30  # in the 62 digits of field 48
PURSE_FLAG_AT: Final = 61
END_COUNT_MAX: Final = 9999

MARKED_PER_ROUND_MAX: Final = 256


class BatchMessage(NamedTuple):
    """One message about a batch. The first eight say which message of whom it is (batch_messages.Keyed).

    done: called once with the stored answer, or with None when the system failed (96).
    """

    terminal_no: int
    merchant_no: int
    batch_no: int
    stan: int
    digest: bytes
    generation: int
    since: date | None
    content: Settlement | DetailUpload | BatchEnd
    done: Callable[[Outcome | None], None]

    def __repr__(self) -> str:
        return (
            f"BatchMessage(terminal_no={self.terminal_no}, stan={self.stan}, {type(self.content).__name__})"
        )


class _Uploads(NamedTuple):
    """Offline uploads of a batch: records taken (10, 04, 11) and their amount, all records, those after the settlement."""

    taken: int = 0
    taken_fen: int = 0
    serials: frozenset[bytes] = frozenset()
    records: int = 0
    after_settlement: int = 0


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

    def submit(self, message: BatchMessage) -> bool:
        """Queue a message; False when the queue is full, and then nothing was taken."""
        return self.enqueue(message)

    def answer(self, message: BatchMessage, outcome: Outcome | None) -> None:
        """Tell whoever waits."""
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
            if session.earlier(message) is not None:
                continue
            content = message.content
            batch = session.batches.get((message.terminal_no, message.batch_no))
            if isinstance(content, Settlement):
                if session.open_batch(message) is not None and batch is not None and batch.computed is None:
                    marks.append((message, FROZEN))
            elif isinstance(content, BatchEnd) and batch is not None:
                refusal = _end_refusal(session, message, content, uploads.get(_place(message), _Uploads()))
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
        return bool(marks)

    async def _decide_and_write(
        self, connection: Connection, messages: Sequence[BatchMessage]
    ) -> Sequence[Outcome]:
        session = Session(self._shards, self._serials)
        await session.begin(connection, messages)
        summed = [message for message in messages if not isinstance(message.content, DetailUpload)]
        uploads = await self._uploads(connection, session, summed)
        figures = await self._figures(connection, session, summed, uploads)
        book = _Round(session)
        outcomes: list[Outcome] = []
        for message in messages:
            earlier = session.earlier(message)
            if earlier is not None:
                outcomes.append(earlier)
            elif isinstance(message.content, Settlement):
                outcomes.append(book.settle(message, message.content, figures))
            elif isinstance(message.content, DetailUpload):
                outcomes.append(book.take_details(message, message.content))
            else:
                place = _place(message)
                ours = figures.get(place)
                report = await self._report(connection, session, message, message.content, uploads, ours)
                end = uploads.get(place, _Uploads())
                outcomes.append(book.end(message, message.content, end, ours, report))
        await session.finish(connection, book.statements())
        return outcomes

    # ------------------------------------------------------------------ what was booked

    async def _uploads(
        self, connection: Connection, session: Session, messages: Sequence[BatchMessage]
    ) -> dict[tuple[int, int], _Uploads]:
        """What was uploaded in the batches of these messages."""
        known = [message for message in messages if _place(message) in session.batches]
        if not known:
            return {}
        cursor = await ask(
            connection,
            SQL["sum_uploads"],
            _batch_columns(session, known)
            | {"shards": int2s([session.shard_of(message) for message in known])},
        )
        uploads: dict[tuple[int, int], _Uploads] = {}
        for at, amount_fen, decided_at, extra in await cursor.fetchall():
            place = _place(known[at - 1])
            settled_at = session.batches[place].settled_at
            kept = orjson.loads(extra)
            results = bytes.fromhex(kept["62"])
            serials = frozenset(results[start : start + 4] for start in range(kept["head"], len(results), 6))
            before = uploads.get(place, _Uploads())
            late = settled_at is not None and decided_at > settled_at
            uploads[place] = _Uploads(
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
        uploads: dict[tuple[int, int], _Uploads],
    ) -> dict[tuple[int, int], Figures]:
        """The switch's own totals of the batches of these messages."""
        known = [message for message in messages if _place(message) in session.batches]
        sums: dict[tuple[int, int], dict[int, tuple[int, int]]] = {_place(message): {} for message in known}
        if known:
            cursor = await ask(
                connection,
                SQL["sum_batches"],
                _batch_columns(session, known) | {"shards": int2s(range(self._shards))},
            )
            for at, kind, count, fen in await cursor.fetchall():
                sums[_place(known[at - 1])][kind] = (count, fen)
        return {
            place: Figures.of(
                kinds, uploads.get(place, _Uploads()).taken, uploads.get(place, _Uploads()).taken_fen
            )
            for place, kinds in sums.items()
        }

    async def _report(
        self,
        connection: Connection,
        session: Session,
        message: BatchMessage,
        content: BatchEnd,
        uploads: dict[tuple[int, int], _Uploads],
        ours: Figures | None,
    ) -> list[Difference]:
        """What differs in a batch that is being closed: totals, details against the journal, and the count of a 202."""
        batch = session.batches.get(_place(message))
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
        again = uploads.get(_place(message), _Uploads()).after_settlement
        return found + count_difference(content.uploaded, len(sent) + again)


def _place(message: BatchMessage) -> tuple[int, int]:
    return message.terminal_no, message.batch_no


def _batch_columns(session: Session, messages: Sequence[BatchMessage]) -> dict[str, Any]:
    return {
        "terminals": int4s([message.terminal_no for message in messages]),
        "batches": int4s([message.batch_no for message in messages]),
        "sinces": dates([session.batches[_place(message)].opened_on for message in messages]),
        "until": session.until,
    }


def _balanced(batch: BatchState) -> bool:
    computed = batch.computed
    return computed is not None and computed[ACCOUNTS_FLAG_AT] == computed[PURSE_FLAG_AT] == BALANCED


def _end_refusal(session: Session, message: BatchMessage, content: BatchEnd, uploads: _Uploads) -> str:
    """Why a batch end may not close its batch; empty when it may, or has begun to."""
    batch = session.batches.get(_place(message))
    if batch is not None and batch.ending:
        return ""
    batch = session.open_batch(message)
    if batch is None:
        return SIGN_ON_AGAIN
    if batch.state == OPEN or batch.computed is None:
        return NOT_APPLICABLE
    if not content.balanced:
        return ""
    counts = {min(count, END_COUNT_MAX) for count in (uploads.taken, len(uploads.serials), uploads.records)}
    # Closing here would let the terminal forget what we never got: it must send details and 202.
    return "" if _balanced(batch) and content.uploaded in counts else UNBALANCED


class _Round:
    """Decisions of one round and what they write."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._settled: list[tuple[BatchMessage, str, str]] = []
        self._ended: list[tuple[BatchMessage, str]] = []
        self._details: list[tuple[BatchMessage, int, int, Detail]] = []
        self._differences: list[tuple[BatchMessage, int, Difference]] = []

    def _refuse(self, message: BatchMessage, kind: Kind, answer: str) -> Outcome:
        return self._session.enter(message, kind, answer)[1]

    def settle(
        self, message: BatchMessage, content: Settlement, figures: dict[tuple[int, int], Figures]
    ) -> Outcome:
        """0500: compare, keep, answer with the request's figures and our flags."""
        batch = self._session.open_batch(message)
        if batch is None:
            return self._refuse(message, Kind.SETTLEMENT, SIGN_ON_AGAIN)
        if batch.computed is not None:
            return self._refuse(message, Kind.SETTLEMENT, BATCH_FROZEN)
        if batch.state == OPEN:  # became possible between the two halves of the round
            raise CannotBookError
        ours = figures[_place(message)]
        flags = (compare(content.accounts, ours.accounts), compare(content.purse, ours.purse))
        claimed = digits_of(content.accounts) + "0" + digits_of(content.purse) + "0"
        answered = digits_of(content.accounts) + flags[0] + digits_of(content.purse) + flags[1]
        self._settled.append((message, claimed, ours.digits(*flags)))
        return self._session.enter(message, Kind.SETTLEMENT, APPROVED, extra={"48": answered})[1]

    def take_details(self, message: BatchMessage, content: DetailUpload) -> Outcome:
        """0320/201: keep them until the batch end; only of a settled batch."""
        batch = self._session.open_batch(message)
        if batch is None:
            return self._refuse(message, Kind.DETAIL_UPLOAD, SIGN_ON_AGAIN)
        if batch.state == OPEN or batch.computed is None:
            return self._refuse(message, Kind.DETAIL_UPLOAD, NOT_APPLICABLE)
        entry_no, outcome = self._session.enter(message, Kind.DETAIL_UPLOAD, APPROVED)
        for line, detail in enumerate(content.details):
            self._details.append((message, entry_no, line, detail))
        return outcome

    def end(
        self,
        message: BatchMessage,
        content: BatchEnd,
        uploads: _Uploads,
        ours: Figures | None,
        report: Sequence[Difference],
    ) -> Outcome:
        """0320/202 and 207: close with our figures and a report of what differs. Field 48 comes back as it was."""
        repeated = {"48": f"{content.uploaded:04d}"}
        batch = self._session.batches.get(_place(message))
        if batch is None or not batch.ending or ours is None:
            refusal = _end_refusal(self._session, message, content, uploads)
            if not refusal:  # became possible between the two halves of the round
                raise CannotBookError
            return self._session.enter(message, Kind.BATCH_END, refusal, extra=repeated)[1]
        assert batch.computed is not None
        self._differences += [(message, line, difference) for line, difference in enumerate(report)]
        flags = batch.computed[ACCOUNTS_FLAG_AT], batch.computed[PURSE_FLAG_AT]
        self._ended.append((message, ours.digits(*flags)))
        return self._session.enter(message, Kind.BATCH_END, APPROVED, extra=repeated)[1]

    def statements(self) -> list[tuple[str, dict[str, Any]]]:
        """What is to be written beside the journal rows."""
        made: list[tuple[str, dict[str, Any]]] = []
        if self._settled:
            made.append(
                (
                    SQL["write_settlements"],
                    {
                        "settled_at": self._session.now,
                        "terminals": int4s([message.terminal_no for message, _, _ in self._settled]),
                        "batches": int4s([message.batch_no for message, _, _ in self._settled]),
                        "claims": texts([claimed for _, claimed, _ in self._settled]),
                        "figures": texts([figures for _, _, figures in self._settled]),
                    },
                )
            )
        if self._details:
            made.append((SQL["write_details"], self._detail_columns()))
        if self._ended:
            made.append(
                (
                    SQL["write_ends"],
                    {
                        "closed_at": self._session.now,
                        "terminals": int4s([message.terminal_no for message, _ in self._ended]),
                        "batches": int4s([message.batch_no for message, _ in self._ended]),
                        "figures": texts([figures for _, figures in self._ended]),
                    },
                )
            )
        if self._differences:
            made.append((SQL["write_differences"], self._difference_columns()))
        return made

    def _detail_columns(self) -> dict[str, Any]:
        rows = self._details
        return {
            "terminals": int4s([message.terminal_no for message, _, _, _ in rows]),
            "batches": int4s([message.batch_no for message, _, _, _ in rows]),
            "entries": int8s([entry_no for _, entry_no, _, _ in rows]),
            "lines": int2s([line for _, _, line, _ in rows]),
            "classes": texts([detail.card_class for _, _, _, detail in rows]),
            "stans": int4s([detail.stan for _, _, _, detail in rows]),
            "pans": texts([detail.card_number.lstrip("0") for _, _, _, detail in rows]),
            "amounts": int8s([detail.amount_fen for _, _, _, detail in rows]),
        }

    def _difference_columns(self) -> dict[str, Any]:
        rows = self._differences
        return {
            "business_date": self._session.today,
            "terminals": int4s([message.terminal_no for message, _, _ in rows]),
            "batches": int4s([message.batch_no for message, _, _ in rows]),
            "lines": int4s([line for _, line, _ in rows]),
            "matters": texts([difference.matter for _, _, difference in rows]),
            "stans": int4s([difference.stan for _, _, difference in rows]),
            "claims": texts([difference.claimed for _, _, difference in rows]),
            "bookings": texts([difference.booked for _, _, difference in rows]),
        }
