"""What a terminal remembers of its open batch 批次: receipts, offline records and their results, its own totals.

Bounded like the flash of a device: when it is full the terminal must settle. Amounts in fen.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from switch.domain.transactions import Kind
from terminal_sim.frames import RECORD_BYTES, RECORDS_PER_UPLOAD, Detail, Fields, OriginalRef, Totals

RECEIPTS_MAX = 2_000
RECORDS_MAX = 3_000
COUNTED_RESULTS = frozenset(("10", "04", "11"))  # of an upload; what comes back as 03 was counted before
DEBITS = frozenset((Kind.PURCHASE, Kind.COMPLETION, Kind.COMPLETION_ADVICE))
CREDITS = frozenset((Kind.VOID, Kind.REFUND, Kind.COMPLETION_VOID))
COUNTED = DEBITS | CREDITS  # pre-authorisations never count in a batch
RESULT_BYTES = 6  # record serial 4, result 2 ASCII


class NotNowError(Exception):
    """The terminal itself refuses: not signed on, memory full, or a reversal must come first."""


@dataclass(slots=True, eq=False)
class Receipt:
    """An approved transaction as the terminal's memory holds it."""

    kind: Kind
    fields: Fields  # of the request
    rrn: str
    auth_code: str
    day: str  # MMDD, field 13 of the answer
    voided: bool = False

    @property
    def ref(self) -> OriginalRef:
        """Field 61 of what refers to it."""
        return OriginalRef(int(self.fields[60][2:8]), int(self.fields[11]), self.day)

    @property
    def amount_fen(self) -> int:
        """Field 4."""
        return int(self.fields[4])

    def __repr__(self) -> str:
        return f"Receipt({self.kind.name}, {self.amount_fen} fen, rrn={self.rrn})"


def _shifted(totals: Totals, *, debit: bool, amount_fen: int, count: int = 1) -> Totals:
    """Totals with an amount and a count added; both negative to take them back."""
    if debit:
        return totals._replace(
            debit_fen=totals.debit_fen + amount_fen, debit_count=totals.debit_count + count
        )
    return totals._replace(
        credit_fen=totals.credit_fen + amount_fen, credit_count=totals.credit_count + count
    )


class Batch:
    """One open batch. Records that were not answered yet outlive it: `carried` hands them to the next."""

    __slots__ = ("accounts", "answered", "purse", "receipts", "unsent")

    def __init__(self, carried: Sequence[bytes] = ()) -> None:
        self.accounts = Totals()
        self.purse = Totals()
        self.receipts: list[Receipt] = []
        self.unsent: deque[bytes] = deque(carried)  # offline records that no answer has named
        self.answered: dict[bytes, tuple[bytes, str]] = {}  # record serial -> record, result

    # --- online transactions ------------------------------------------------------------------------------------

    def book(self, receipt: Receipt) -> None:
        """An approved transaction that moved money counts."""
        self.receipts.append(receipt)
        debit = receipt.kind in DEBITS
        self.accounts = _shifted(self.accounts, debit=debit, amount_fen=receipt.amount_fen)

    def take_back(self, trace: str) -> None:
        """A transaction of this batch was reversed: it counts on neither side any more."""
        for place, receipt in enumerate(self.receipts):
            if receipt.fields[11] == trace:
                del self.receipts[place]
                debit = receipt.kind in DEBITS
                self.accounts = _shifted(self.accounts, debit=debit, amount_fen=-receipt.amount_fen, count=-1)
                return

    def details(self) -> list[Detail]:
        """Every online transaction, for a detail upload."""
        return [Detail(int(r.fields[11]), r.fields[2], r.amount_fen) for r in self.receipts]

    # --- offline records ----------------------------------------------------------------------------------------

    def store(self, record: bytes) -> None:
        """Keep a record. NotNowError when memory is full."""
        if len(record) != RECORD_BYTES:
            raise ValueError("an offline record has 96 bytes")
        if len(self.unsent) + len(self.answered) >= RECORDS_MAX:
            raise NotNowError("record memory is full: settle the batch")
        self.unsent.append(record)

    def oldest(self) -> list[bytes]:
        """What the next upload carries."""
        return [self.unsent[place] for place in range(min(RECORDS_PER_UPLOAD, len(self.unsent)))]

    def settle_records(self, sent: bytes, answer: bytes) -> None:
        """Note the results of the oldest records. `sent` and `answer` are fields 62 that belong together."""
        for record, result in zip(records_of(sent), results_of(answer), strict=True):
            self.answered[record[59:63]] = (record, result)
            if result in COUNTED_RESULTS:
                self.purse = _shifted(self.purse, debit=True, amount_fen=int.from_bytes(record[30:34]))
            self.unsent.popleft()

    def note_results(self, results: Sequence[tuple[bytes, str]]) -> None:
        """Records that were handed in by another way than field 62, and their results: they are this batch's all the same."""
        for record, result in results:
            self.answered[record[59:63]] = (record, result)
            if result in COUNTED_RESULTS:
                self.purse = _shifted(self.purse, debit=True, amount_fen=int.from_bytes(record[30:34]))


def records_of(field62: bytes) -> list[bytes]:
    """Offline records of an upload."""
    return [field62[at : at + RECORD_BYTES] for at in range(1, len(field62), RECORD_BYTES)]


def results_of(field62: bytes) -> list[str]:
    """Result codes of the answer to an upload, in its order."""
    return [
        field62[at + 4 : at + RESULT_BYTES].decode("ascii", "replace")
        for at in range(1, len(field62), RESULT_BYTES)
    ]


def answers_upload(sent: bytes, answer: bytes) -> bool:
    """Whether a field 62 names exactly the records of another, in their order."""
    named = [answer[at : at + 4] for at in range(1, len(answer), RESULT_BYTES)]
    whole = (len(answer) - 1) % RESULT_BYTES == 0
    return whole and answer[:1] == sent[:1] and named == [record[59:63] for record in records_of(sent)]
