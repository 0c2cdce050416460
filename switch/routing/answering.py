"""What goes back to a terminal: answers with their MACs, the bare ones of which nothing is kept, and what a trainee is shown.

A request is a Visit while it is here; its Peer is where it came from and gets exactly one answer, or is told that there is none.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog
from psycopg import AsyncConnection, Error

from switch.domain.decisions import APPROVED, BalanceFigure, Outcome
from switch.domain.money import Fen
from switch.domain.transactions import (
    Balance,
    BatchEnd,
    DetailUpload,
    Load,
    OfflineUpload,
    Purchase,
    Refused,
    Request,
    Settlement,
)
from switch.ledger.serials import Serials, rrn_of
from switch.messages.answers import Code, Processing, build_answer, build_bare
from switch.messages.envelope import Envelope
from switch.messages.framing import frame
from switch.messages.message import Message
from switch.messages.structures import TRANSACTION_TYPES
from switch.registry.terminals import KeySet, TerminalEntry
from switch.routing.batches import BatchDesk
from switch.routing.downloads import DownloadDesk

log = structlog.get_logger(__name__)

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]
NOT_SUPPORTED = "40"
STRANGE = frozenset({Code.FORMAT, Code.MAC_WRONG, Code.MERCHANT_INVALID, Code.TERMINAL_UNKNOWN})
SERIALS_LOW = 1_000


class Peer(Protocol):
    """Where a request came from."""

    def answer(self, framed: bytes, *, trusted: bool | None) -> None:
        """Take the answer of one request, LEN included.

        trusted: True when its MAC was good; False when it was turned away as a stranger would be (STRANGE); None when it proved
        nothing and is no offence: what a registered terminal sends without a MAC, or without keys that serve.
        """

    def leave_unanswered(self) -> None:
        """Nobody can say what became of a request: it gets no answer. This or answer is called, exactly once."""


class Watch(Protocol):
    """What operators count."""

    def answered(self, mti: str, transaction: str, answer: str, seconds: float) -> None:
        """A request was answered after so many seconds."""

    def mac_failed(self) -> None:
        """A MAC was wrong under every key that may be used."""


class Visit:
    """One request and what has been found out about it."""

    __slots__ = ("answered", "content", "entry", "envelope", "keys", "message", "peer", "started_s")

    def __init__(self, peer: Peer, message: Message, envelope: Envelope) -> None:
        self.peer = peer
        self.message = message
        self.envelope = envelope
        self.started_s = time.monotonic()
        self.entry: TerminalEntry
        self.keys: KeySet | None = None
        self.content: Request | None = None
        self.answered = False


class Answers:
    """Makes and sends the answers of one process. acquirer: digits of field 32. log_answers: one line for each, with its story."""

    def __init__(
        self,
        connect: Connect,
        desk: BatchDesk,
        downloads: DownloadDesk,
        watch: Watch,
        *,
        acquirer: str,
        log_answers: bool,
    ) -> None:
        self._connect = connect
        self._desk = desk
        self._downloads = downloads
        self._watch = watch
        self._acquirer = acquirer
        self._log_answers = log_answers
        self._serials = Serials()
        self._refilling: asyncio.Task[None] | None = None

    def reply(
        self, visit: Visit, outcome: Outcome, *, sign_on_next: bool = False, batch_no: int | None = None
    ) -> None:
        """The answer that an outcome stores, with today's header digit and key. batch_no: replaces 60.2, after a sign-on."""
        sign_on_next = sign_on_next or outcome.answer == Code.SIGN_ON_AGAIN
        processing = Processing.SIGN_ON if sign_on_next else Processing.NONE
        if not processing and visit.entry.needs and visit.keys is not None and not visit.envelope.training:
            terminal_no, needs = visit.entry.terminal_no, visit.entry.needs
            processing = self._downloads.ask(terminal_no, needs, visit.content, visit.started_s)
        prefix, mab = build_answer(
            visit.message, outcome, acquirer=self._acquirer, processing=processing, batch_no=batch_no
        )
        self._send(visit, prefix, mab, outcome.answer)

    def bare(self, visit: Visit, answer: str, *, processing: int = Processing.NONE) -> None:
        """An answer of which nothing is kept. It has a MAC where there is a key to make one with."""
        if visit.keys is None and answer in (Code.MAC_WRONG, Code.FORMAT, Code.MALFUNCTION):
            usable = visit.entry.usable_keys(time.time()) if hasattr(visit, "entry") else ()
            visit.keys = usable[0] if usable and visit.envelope.mac_required else None
            proven = False
        else:
            proven = visit.keys is not None
        with_mac = visit.keys is not None
        now = datetime.now(UTC)
        prefix, mab = build_bare(visit.message, answer, now, with_mac=with_mac, processing=processing)
        self._send(visit, prefix, mab, answer, proven=proven)

    def _send(
        self, visit: Visit, prefix: bytes, mab: bytes, answer: str, *, proven: bool | None = None
    ) -> None:
        keys = visit.keys
        body = prefix + mab + keys.keys.mac(mab) if keys is not None else prefix + mab
        framed = frame(body)
        visit.answered = True
        if proven is None:
            proven = keys is not None
        visit.peer.answer(framed, trusted=True if proven else False if answer in STRANGE else None)
        envelope = visit.envelope
        seconds = time.monotonic() - visit.started_s
        # A stranger's digits must not become a label each.
        transaction = envelope.transaction_type if envelope.transaction_type in TRANSACTION_TYPES else "other"
        self._watch.answered(envelope.mti, transaction, answer, seconds)
        if self._log_answers:
            log.info(
                "answered",
                terminal=envelope.terminal_id,
                mti=envelope.mti,
                stan=envelope.stan,
                batch=envelope.batch_no,
                request=type(visit.content).__name__,
                amount_fen=getattr(visit.content, "amount_fen", None),
                answer=answer,
                ms=round(seconds * 1000, 2),
            )

    def fail(self, visit: Visit) -> None:
        """96, if nothing has been said yet."""
        if not visit.answered:
            self.bare(visit, Code.MALFUNCTION)

    def leave_unanswered(self, visit: Visit) -> None:
        """Silence, if nothing has been said yet: the terminal asks again or reverses, and either finds the truth."""
        if not visit.answered:
            visit.answered = True
            visit.peer.leave_unanswered()

    def outcome(self, answer: str, *, field62: bytes = b"") -> Outcome:
        """The answer of a message that has no journal entry."""
        now = datetime.now(UTC)
        if self._serials.short_of(SERIALS_LOW) and self._refilling is None:
            self._refilling = asyncio.get_running_loop().create_task(self.refill())
        rrn = "" if self._serials.short_of(1) else rrn_of(self._serials.take(), now)
        return Outcome(answer, rrn, now, field62=field62)

    def training(self, content: Request) -> Outcome:
        """What a trainee sees: a plausible answer, with nothing behind it."""
        if isinstance(content, Refused):
            return self.outcome(content.answer)
        if isinstance(content, Load) and content.purse is not None:
            return self.outcome(NOT_SUPPORTED)  # a card would be credited in earnest
        outcome = self.outcome(APPROVED)
        if isinstance(content, Purchase):
            return outcome._replace(auth_code="TRAIN0")  # no field 15: nothing is posted
        if isinstance(content, Balance):
            figures = tuple(BalanceFigure(int(content.account), kind, Fen(0)) for kind in (1, 2))
            return outcome._replace(balances=figures)
        if isinstance(content, OfflineUpload | Settlement | DetailUpload | BatchEnd):
            return self._desk.training(content, outcome)
        return outcome

    async def refill(self) -> None:
        """Fetch a block of serials."""
        try:
            async with self._connect() as connection:
                cursor = await connection.execute("SELECT nextval('entry_no_block')")
                row = await cursor.fetchone()
                assert row is not None
                self._serials.refill(row[0])
        except Error as error:
            log.warning("no serials to be had", error=type(error).__name__)
        finally:
            self._refilling = None
