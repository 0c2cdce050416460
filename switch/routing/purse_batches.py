"""One batch of offline records (EPB1) from its bytes to its receipt (EPA1).

    structure (30) > terminal known and its merchant's (97) > keys present (77) > MAC (A0) > intake: records one by one, or
    this serial with other content (94), or not now (96)

Whatever comes gets exactly one receipt, under a key of the terminal where there is one that serves; else with MAC id 00, which
proves nothing and lets a terminal forget nothing. The room waits for a place in the intake's queue: how many batches may wait
is for whoever brings them to bound.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog
from psycopg import Error

from switch.domain.decisions import APPROVED, Outcome
from switch.domain.errors import DependencyError, FormatError, MacMismatch
from switch.messages.answers import Code
from switch.messages.purse_batch import (
    MAC_BYTES,
    NO_MAC_ID,
    PurseBatch,
    read_batch,
    receipt_body,
    serial_named,
)
from switch.purse.batches import stan_of
from switch.purse.intake import Upload
from switch.registry.sessions import promote
from switch.registry.terminals import KeySet, TerminalDirectory, TerminalEntry
from switch.routing.answering import Connect

log = structlog.get_logger(__name__)

LOOK_UP_S: Final = 20.0  # look-ups before the intake may take so long; then 96
ROOM_S: Final = 0.02  # the queue may have been emptied by others: looked at again after so long
_COUNT_BYTES: Final = 2  # before the results of a bulk answer


class Intake(Protocol):
    """Where uploads go."""

    def take_in(self, upload: Upload, done: Callable[[Outcome | None], None]) -> bool:
        """Queue an upload; done is called once. False when the queue is full."""


class ReceiptWatch(Protocol):
    """What operators count."""

    def receipt(self, result: str) -> None:
        """A batch got a receipt with this result."""

    def mac_failed(self) -> None:
        """A MAC was wrong under every key that may be used."""


class PurseBatches:
    """Takes batches of all terminals of this process."""

    def __init__(
        self, terminals: TerminalDirectory, intake: Intake, connect: Connect, watch: ReceiptWatch
    ) -> None:
        self._terminals = terminals
        self._intake = intake
        self._connect = connect
        self._watch = watch
        self._turn = asyncio.Lock()  # who waits for a place waits in order of arrival

    async def receive(self, terminal_id: str, payload: bytes) -> bytes:
        """Take a batch that came under the name of a terminal; its receipt. Never raises but when cancelled."""
        now_s = time.time()
        visit = _Visit(terminal_id, payload)
        try:
            result, results = await self._decide(visit, now_s)
        except FormatError as error:
            log.info("batch refused", terminal=terminal_id, rule=str(error))
            visit.serial = serial_named(payload)
            result, results = Code.FORMAT, b""
            await self._find_key(visit, now_s)
        except (DependencyError, Error, TimeoutError) as error:
            log.warning("batch not taken", terminal=terminal_id, error=type(error).__name__)
            result, results = Code.MALFUNCTION, b""
        except Exception:  # our own fault: the terminal keeps its records
            log.exception("batch failed", terminal=terminal_id)
            result, results = Code.MALFUNCTION, b""
        self._watch.receipt(result)
        return visit.receipt(result, results)

    async def _decide(self, visit: "_Visit", now_s: float) -> tuple[str, bytes]:
        batch = read_batch(visit.payload)
        visit.serial = batch.serial
        if batch.terminal_id != visit.terminal_id:
            raise FormatError("terminal id is not the one of the topic", offset=4)
        async with asyncio.timeout(LOOK_UP_S):
            refusal = await self._admit(visit, batch, now_s)
        if refusal:
            return refusal, b""
        outcome = await self._book(visit, batch)
        if outcome is None:
            return Code.MALFUNCTION, b""
        if outcome.answer != APPROVED:
            return outcome.answer, b""
        return outcome.answer, outcome.field62[_COUNT_BYTES:]

    async def _admit(self, visit: "_Visit", batch: PurseBatch, now_s: float) -> str:
        """Find out who it is and under which keys; a result when the batch cannot be taken."""
        entry = self._terminals.get(visit.terminal_id) or await self._terminals.load(visit.terminal_id)
        if isinstance(entry, TerminalEntry) and not entry.serves(batch.merchant_id):
            entry = await self._terminals.reload(visit.terminal_id)
        if not isinstance(entry, TerminalEntry) or not entry.serves(batch.merchant_id):
            return Code.TERMINAL_UNKNOWN
        key_set = _fitting(entry, batch, now_s)
        if key_set is None:  # another process may know newer ones
            entry = await self._terminals.reload(visit.terminal_id)
            if not isinstance(entry, TerminalEntry):
                return Code.TERMINAL_UNKNOWN
            usable = entry.usable_keys(now_s)
            if not usable:
                return Code.SIGN_ON_AGAIN
            visit.key(entry, usable[0])
            key_set = _fitting(entry, batch, now_s)
            if key_set is None:
                self._watch.mac_failed()
                return Code.MAC_WRONG
        visit.key(entry, key_set)
        if key_set.generation == entry.generation:
            return ""
        async with self._connect() as connection:
            serves = await promote(connection, entry.terminal_no, key_set.generation)
        entry = await self._terminals.reload(visit.terminal_id)
        if not serves or not isinstance(entry, TerminalEntry):
            return Code.MAC_WRONG
        visit.key(entry, key_set)
        return ""

    async def _book(self, visit: "_Visit", batch: PurseBatch) -> Outcome | None:
        entry, key_set = visit.entry, visit.key_set
        assert entry is not None
        assert key_set is not None
        upload = Upload(
            entry.terminal_no,
            entry.terminal_id,
            entry.merchant_no,
            entry.acquirer_id,
            entry.batch_no,
            stan_of(batch.serial),
            batch.digest,
            key_set.generation,
            entry.batch_opened_on,
            batch.records,
            bulk=True,
            serial=batch.serial,
        )
        told: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome | None) -> None:
            if not told.done():  # nobody waits any more when the service has stopped
                told.set_result(outcome)

        async with self._turn:
            while not self._intake.take_in(upload, done):  # noqa: ASYNC110 - uploads of other lines empty the queue too
                await asyncio.sleep(ROOM_S)
        return await told

    async def _find_key(self, visit: "_Visit", now_s: float) -> None:
        """For the receipt of what could not be read: a key of the terminal in whose name it came, if one is at hand."""
        entry = self._terminals.get(visit.terminal_id)
        if entry is not None and (usable := entry.usable_keys(now_s)):
            visit.key(entry, usable[0])


class _Visit:
    """One batch and what has been found out about it."""

    __slots__ = ("entry", "key_set", "payload", "serial", "terminal_id")

    def __init__(self, terminal_id: str, payload: bytes) -> None:
        self.terminal_id = terminal_id
        self.payload = payload
        self.serial = 0
        self.entry: TerminalEntry | None = None
        self.key_set: KeySet | None = None

    def key(self, entry: TerminalEntry, key_set: KeySet) -> None:
        """Sign the receipt with this."""
        self.entry, self.key_set = entry, key_set

    def receipt(self, result: str, results: bytes) -> bytes:
        """EPA1."""
        body = receipt_body(self.terminal_id, self.serial, self.payload, result, results)
        if self.entry is None or self.key_set is None:
            return body + bytes([NO_MAC_ID]) + bytes(MAC_BYTES)
        return body + bytes([self.entry.mac_algorithm]) + self.key_set.keys.mac(body)


def _fitting(entry: TerminalEntry, batch: PurseBatch, now_s: float) -> KeySet | None:
    """The key set under which the MAC is good."""
    if batch.mac_id != entry.mac_algorithm:
        return None
    for key_set in entry.usable_keys(now_s):
        try:
            key_set.keys.verify(batch.signed, batch.mac)
        except MacMismatch:
            continue
        return key_set
    return None
