"""Decisions about one round of batch messages, and what they write: the rules of settlement, details and batch end.

The writer (terminal_batches) locks, reads and sums; nothing here touches the database.
"""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, Final, NamedTuple

from switch.domain.decisions import APPROVED, Outcome
from switch.domain.transactions import BatchEnd, Detail, DetailUpload, Kind, Settlement
from switch.ledger.batch_messages import OPEN, SIGN_ON_AGAIN, SQL, BatchState, Session
from switch.ledger.batch_report import BALANCED, Difference, Figures, compare, digits_of
from switch.ledger.writer import CannotBookError
from switch.storage.arrays import int2s, int4s, int8s, texts

NOT_APPLICABLE: Final = "12"
BATCH_FROZEN: Final = "90"
UNBALANCED: Final = "95"
ACCOUNTS_FLAG_AT: Final = 30  # in the 62 digits of field 48
PURSE_FLAG_AT: Final = 61
END_COUNT_MAX: Final = 9999


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


class Uploads(NamedTuple):
    """Offline uploads of a batch: records taken (10, 04, 11) and their amount, all records, those after the settlement."""

    taken: int = 0
    taken_fen: int = 0
    serials: frozenset[bytes] = frozenset()
    records: int = 0
    after_settlement: int = 0


def place_of(message: BatchMessage) -> tuple[int, int]:
    return message.terminal_no, message.batch_no


def _balanced(batch: BatchState) -> bool:
    computed = batch.computed
    return computed is not None and computed[ACCOUNTS_FLAG_AT] == computed[PURSE_FLAG_AT] == BALANCED


def end_refusal(session: Session, message: BatchMessage, content: BatchEnd, uploads: Uploads) -> str:
    """Why a batch end may not close its batch; empty when it may, or has begun to."""
    batch = session.batches.get(place_of(message))
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


class Round:
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
        ours = figures[place_of(message)]
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
        uploads: Uploads,
        ours: Figures | None,
        report: Sequence[Difference],
    ) -> Outcome:
        """0320/202 and 207: close with our figures and a report of what differs. Field 48 comes back as it was."""
        repeated = {"48": f"{content.uploaded:04d}"}
        batch = self._session.batches.get(place_of(message))
        if batch is None or not batch.ending or ours is None:
            refusal = end_refusal(self._session, message, content, uploads)
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
