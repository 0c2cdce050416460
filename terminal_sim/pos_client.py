"""A POS on a TCP line: the shell around `Pos` that connects, waits, retries and pays back what it owes.

Bounds: requests in flight on one line, the wait for each answer, the tries of each message. Late answers and answers to
nobody are counted and dropped.
"""

import asyncio
from dataclasses import dataclass
from ssl import SSLContext
from typing import NamedTuple, Unpack, cast

from switch.domain.errors import FramingError
from switch.messages.framing import FrameReader
from switch.messages.terminal_1987 import MTI_AT
from terminal_sim.frames import CardData, Entry
from terminal_sim.pos import Pos
from terminal_sim.pos_answers import (
    NO_ANSWER,
    Answer,
    Balanced,
    Request,
    UnusableAnswerError,
    balance_flags,
)
from terminal_sim.pos_batch import NotNowError, Receipt

ANSWER_TIMEOUT_S = 60.0  # no answer within it counts as time-out
TRIES_MAX = 3
IN_FLIGHT_MAX = 64
_TRACE_BIT = 1 << (64 - 11)
_BEFORE_TRACE = ((2, 0), (3, 3), (4, 6))  # fields that may stand before 11; 2 has a length of its own


class NoAnswerError(Exception):
    """Nothing came in time, or the line broke."""


class RefusedError(Exception):
    """The switch refused something the terminal cannot work without. `code` is field 39."""

    def __init__(self, what: str, code: str) -> None:
        self.code = code
        super().__init__(f"{what} was answered {code}")


class Outcome(NamedTuple):
    """How a transaction ended. answer None: no usable one; then `reversal` is the code that ended its reversal, or empty."""

    answer: Answer | None
    reversal: str = ""

    @property
    def approved(self) -> bool:
        """Money has moved and the terminal knows it."""
        return self.answer is not None and self.answer.approved

    @property
    def receipt(self) -> Receipt | None:
        """Of an approved transaction."""
        return self.answer.receipt if self.answer is not None else None


def answer_key(body: bytes) -> tuple[str, int] | None:
    """MTI and trace of an answer, without decoding the rest; None when they cannot be found."""
    mti = body[MTI_AT : MTI_AT + 2].hex()
    bitmap = int.from_bytes(body[MTI_AT + 2 : MTI_AT + 10])
    if not bitmap & _TRACE_BIT:
        return mti, 0
    at = MTI_AT + 10
    for number, size in _BEFORE_TRACE:
        if bitmap >> (64 - number) & 1:
            if number == 2:
                digits = body[at : at + 1].hex()
                if not digits.isdecimal():
                    return None
                size = 1 + (int(digits) + 1) // 2
            at += size
    trace = body[at : at + 3].hex()
    return (mti, int(trace)) if len(trace) == 6 and trace.isdecimal() else None


class Link(asyncio.Protocol):
    """One connection: frames out, answers matched to whoever waits for them."""

    def __init__(self) -> None:
        self._frames = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[tuple[str, int], asyncio.Future[bytes]] = {}
        self.unmatched = 0

    @property
    def is_open(self) -> bool:
        """Whether something can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not asyncio's by class

    def data_received(self, data: bytes) -> None:
        """From asyncio: settle what the bytes complete."""
        try:
            bodies = self._frames.feed(data)
        except FramingError:
            self.abort()
            return
        for body in bodies:
            key = answer_key(body)
            future = self._waiting.pop(key, None) if key is not None else None
            if future is None or future.done():
                self.unmatched += 1
            else:
                future.set_result(body)
        if self._frames.failure is not None:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio: nobody will be answered any more."""
        self._transport = None
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(NoAnswerError("the line broke"))

    async def ask(self, key: tuple[str, int], frame: bytes, timeout_s: float) -> bytes:
        """Send a frame; the answer's body. NoAnswerError after timeout_s or when the line breaks."""
        if not self.is_open or self._transport is None:
            raise NoAnswerError("the line is closed")
        if key in self._waiting or len(self._waiting) >= IN_FLIGHT_MAX:
            raise NotNowError("the same request, or too many, are in flight")
        future = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        self._transport.write(frame)
        try:
            async with asyncio.timeout(timeout_s):
                answered: bytes = await future
                return answered
        except TimeoutError:
            raise NoAnswerError("no answer in time") from None
        finally:
            if self._waiting.get(key) is future:
                del self._waiting[key]

    def close(self) -> None:
        """Close when what was written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


@dataclass(frozen=True, slots=True)
class Line:
    """Where the switch is."""

    host: str
    port: int
    tls: SSLContext | None = None


class PosClient:
    """One terminal at work. Connects and signs on by itself when it must; one task or several may use it."""

    __slots__ = ("_getting_ready", "_timeout_s", "_tries", "line", "link", "pos")

    def __init__(
        self, pos: Pos, line: Line, *, timeout_s: float = ANSWER_TIMEOUT_S, tries: int = TRIES_MAX
    ) -> None:
        """timeout_s and tries: for every message, before the terminal gives up or comes back to it later."""
        self.pos = pos
        self.line = line
        self.link: Link | None = None
        self._timeout_s = timeout_s
        self._tries = tries
        self._getting_ready = asyncio.Lock()

    async def connect(self) -> Link:
        """The open line, made anew if need be. NoAnswerError when the switch cannot be reached."""
        if self.link is not None and self.link.is_open:
            return self.link
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                _, link = await loop.create_connection(
                    Link, self.line.host, self.line.port, ssl=self.line.tls
                )
        except (OSError, TimeoutError) as error:
            raise NoAnswerError("the switch cannot be reached") from error
        self.link = link
        return link

    def close(self) -> None:
        """Hang up."""
        if self.link is not None:
            self.link.close()
            self.link = None

    async def exchange(self, request: Request) -> Answer:
        """Send once, wait once. NoAnswerError or UnusableAnswerError; the request is not settled then."""
        link = await self.connect()
        body = await link.ask(request.key, self.pos.pack(request), self._timeout_s)
        return self.pos.take(request, body)

    async def insist(self, request: Request) -> Answer:
        """Send the same request until it is answered, at most `tries` times; signs on in between if asked to.

        The last NoAnswerError or UnusableAnswerError escapes.
        """
        for left in range(self._tries - 1, -1, -1):
            try:
                answer = await self.exchange(request)
            except (NoAnswerError, UnusableAnswerError) as error:
                if isinstance(error, UnusableAnswerError):
                    self.pos.give_up(request, error.reason)
                if not left:
                    raise
            else:
                if answer.code != "A0" or not left:
                    return answer
            if self.pos.must_sign_on and request.with_mac:
                await self._try_to_sign_on()
        raise AssertionError("tries is at least 1")

    async def _try_to_sign_on(self) -> None:
        try:
            await self.sign_on()
        except (NoAnswerError, UnusableAnswerError, RefusedError):
            return  # the next try of the request shows what is wrong

    # --- session ------------------------------------------------------------------------------------------------

    async def sign_on(self, mode: str = "") -> Answer:
        """簽到. RefusedError unless 00."""
        for left in range(self._tries - 1, -1, -1):
            try:
                answer = await self.exchange(self.pos.sign_on(mode))
            except (NoAnswerError, UnusableAnswerError):
                if not left:
                    raise
            else:
                if not answer.approved:
                    raise RefusedError("sign-on", answer.code)
                return answer
        raise AssertionError("tries is at least 1")

    async def echo(self) -> Answer:
        """回響測試."""
        return await self.exchange(self.pos.echo())

    async def sign_off(self) -> Answer:
        """簽退."""
        return await self.insist(self.pos.sign_off())

    async def ready(self) -> None:
        """Signed on and nothing owed, or an error: NoAnswerError, UnusableAnswerError, RefusedError, NotNowError."""
        async with self._getting_ready:
            if self.pos.must_sign_on:
                await self.sign_on()
            if self.pos.reversals and not await self._finish_reversals():
                raise NotNowError("a reversal is not finished")

    async def finish_reversals(self) -> bool:
        """Send what is owed, each at most `tries` times; whether nothing is owed any more."""
        async with self._getting_ready:
            return await self._finish_reversals()

    async def _finish_reversals(self) -> bool:
        for owed in tuple(self.pos.reversals):
            if self.pos.must_sign_on:
                await self._try_to_sign_on()
            try:
                await self.insist(owed)
            except (NoAnswerError, UnusableAnswerError, NotNowError):
                break
        return not self.pos.reversals

    # --- transactions -------------------------------------------------------------------------------------------

    async def transact(self, request: Request) -> Outcome:
        """A request whose missing answer obliges the terminal to reverse it."""
        try:
            return Outcome(await self.exchange(request))
        except asyncio.CancelledError:  # whoever waited is gone, what was sent is not
            self.pos.give_up(request, NO_ANSWER)
            raise
        except NoAnswerError:
            owed = self.pos.give_up(request, NO_ANSWER)
        except UnusableAnswerError as error:
            owed = self.pos.give_up(request, error.reason)
        if owed is None:
            return Outcome(None)
        async with self._getting_ready:
            if self.pos.must_sign_on:
                await self._try_to_sign_on()
            if owed not in self.pos.reversals:
                return Outcome(None, "done")
            try:
                return Outcome(None, (await self.insist(owed)).code)
            except (NoAnswerError, UnusableAnswerError, NotNowError):
                return Outcome(None)

    async def purchase(self, card: CardData, amount_fen: int, **how: Unpack[Entry]) -> Outcome:
        """消費; reversed when the answer is lost."""
        await self.ready()
        return await self.transact(self.pos.purchase(card, amount_fen, **how))

    async def balance(self, card: CardData, **how: Unpack[Entry]) -> Answer:
        """餘額查詢."""
        await self.ready()
        return await self.exchange(self.pos.balance(card, **how))

    async def void(self, receipt: Receipt) -> Outcome:
        """消費撤銷; reversed when the answer is lost."""
        await self.ready()
        return await self.transact(self.pos.void(receipt))

    async def refund(self, receipt: Receipt, amount_fen: int) -> Answer:
        """退貨; sent again as it is when the answer is lost."""
        await self.ready()
        return await self.insist(self.pos.refund(receipt, amount_fen))

    # --- batch --------------------------------------------------------------------------------------------------

    async def upload_records(self) -> dict[int, str]:
        """脫機上送 of everything stored; results by record serial. RefusedError when a message is not taken."""
        await self.ready()
        while (request := self.pos.upload()) is not None:
            answer = await self.insist(request)
            if not answer.approved:
                raise RefusedError("offline upload", answer.code)
        return self.pos.results()

    async def settle(self) -> tuple[Balanced, Balanced]:
        """Upload, 批結算, details if the figures differ, batch end. Flags of accounts and purse.

        Afterwards the next `ready` signs on into a new batch. RefusedError when a step is not taken.
        """
        await self.upload_records()
        answer = await self._taken(self.pos.settlement(), "settlement")
        flags = balance_flags(answer)
        balanced = flags == (Balanced.YES, Balanced.YES)
        in_doubt = flags[1] is not Balanced.YES
        if not balanced:
            for request in self.pos.details():
                await self._taken(request, "detail upload")
            if in_doubt:
                for request in self.pos.records_again():
                    await self._taken(request, "offline upload")
        await self._taken(self.pos.batch_end(balanced=balanced, records_in_doubt=in_doubt), "batch end")
        return flags

    async def _taken(self, request: Request, what: str) -> Answer:
        answer = await self.insist(request)
        if not answer.approved:
            raise RefusedError(what, answer.code)
        return answer
