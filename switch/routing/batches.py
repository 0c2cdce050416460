"""Messages about a terminal's batch: uploads, settlement, details, batch ends. Where they go, and what a trainee is told."""

from collections.abc import Callable
from datetime import date
from typing import Protocol

from switch.domain.decisions import Outcome
from switch.domain.transactions import BatchRequest
from switch.ledger.items import Key
from switch.registry.terminals import TerminalEntry


class BatchDesk(Protocol):
    """Takes batch messages of authenticated terminals."""

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

    def training(self, content: BatchRequest, outcome: Outcome) -> Outcome:
        """Complete an approved outcome for a training-mode terminal; nothing is stored."""
