"""Messages about a terminal's batch: uploads, settlement, details, batch ends. Where they go, and what a trainee is told."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import date

from switch.domain.decisions import Outcome
from switch.domain.transactions import BatchEnd, BatchRequest, OfflineUpload, Settlement
from switch.ledger.batch_report import BALANCED, digits_of
from switch.ledger.items import Key
from switch.ledger.terminal_batches import BatchMessage, TerminalBatches
from switch.purse.intake import IntakeLanes, Upload
from switch.registry.list_keeping import LastSeen
from switch.registry.terminals import TerminalEntry

TEST_RECORD = b"06"


class BatchDesk:
    """Takes batch messages of authenticated terminals to the writer that knows them."""

    def __init__(
        self,
        intake: IntakeLanes,
        batches: TerminalBatches,
        on_results: Callable[[Counter[str]], None] = lambda _results: None,
        seen: LastSeen | None = None,
    ) -> None:
        self._seen = seen  # told of each upload that was answered
        self._intake = intake
        self._batches = batches
        self._on_results = on_results  # told the results of each upload that was answered, repeats too

    def submit(
        self,
        entry: TerminalEntry,
        key: Key,
        digest: bytes,
        generation: int,
        since: date | None,
        content: BatchRequest,
        done: Callable[[Outcome | None], None],
    ) -> bool:
        """Queue a message; done is called once with the stored answer, or None for 96. False when the queue is full."""
        if isinstance(content, OfflineUpload):
            upload = Upload(
                key.terminal_no,
                entry.terminal_id,
                entry.merchant_no,
                entry.acquirer_id,
                key.batch_no,
                key.stan,
                digest,
                generation,
                since,
                content.records,
            )
            return self.take_in(upload, done)
        message = BatchMessage(
            key.terminal_no,
            entry.merchant_no,
            key.batch_no,
            key.stan,
            digest,
            generation,
            since,
            content,
            done,
        )
        return self._batches.submit(message)

    def take_in(self, upload: Upload, done: Callable[[Outcome | None], None]) -> bool:
        """Queue an upload; as submit."""
        head = 2 if upload.bulk else 1  # bytes of the count before the results

        def answered(outcome: Outcome | None) -> None:
            if outcome is not None and self._seen is not None:
                self._seen.uploaded(upload.terminal_no, time.monotonic(), upload.records[-1])
            if outcome is not None and outcome.field62:
                results = outcome.field62[head:]
                self._on_results(
                    Counter(results[at + 4 : at + 6].decode() for at in range(0, len(results), 6))
                )
            done(outcome)

        return self._intake.submit(upload, answered)

    @staticmethod
    def training(content: BatchRequest, outcome: Outcome) -> Outcome:
        """Complete an approved outcome for a training-mode terminal; nothing is stored."""
        if isinstance(content, OfflineUpload):
            results = b"".join(record[59:63] + TEST_RECORD for record in content.records)
            return outcome._replace(field62=bytes([len(content.records)]) + results)
        if isinstance(content, Settlement):
            groups = (content.accounts, content.purse)
            return outcome._replace(field48="".join(digits_of(group) + BALANCED for group in groups))
        if isinstance(content, BatchEnd):
            return outcome._replace(field48=f"{content.uploaded:04d}")
        return outcome
