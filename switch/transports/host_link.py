"""The way to one host over TCP: several connections, one set of bounds, one breaker. Implements `routing.hosts.HostLink`.

What is decided where: `messages` (bytes), `matching` (which answer is whose), `host_session` (a connection's life),
`host_network` (what is said beside requests), `breaker` (whether to ask at all), `keys.zone` (MACs). This file moves bytes and
time between them. Each host has a link of its own and links share nothing, so a host that is dead costs the others nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from secrets import SystemRandom
from typing import NamedTuple

import structlog

from switch.domain.errors import FormatError, MacMismatch
from switch.domain.hosts import (
    HostAnswer,
    HostDown,
    HostKey,
    HostOutcome,
    HostRequest,
    HostStep,
    HostTimeout,
    LateAnswer,
    PinUnder,
    Refusal,
    Unknown,
    ZonePin,
)
from switch.keys.records import KeyMissingError
from switch.messages.dialect import HostMessage, UnreadableMessage, decode, encode
from switch.messages.framing import FrameReader, frame
from switch.messages.host_1987 import REQUEST_OF
from switch.messages.host_mapping import (
    ECHOED,
    AnswerKey,
    answer_key,
    read_answer,
    request_fields,
    request_key,
)
from switch.messages.message import Fields
from switch.routing.hosts import OnLate
from switch.transports.breaker import Breaker, BreakerState, RetryBudget
from switch.transports.host_line import HostLine
from switch.transports.host_network import HostNetwork
from switch.transports.host_oddities import Oddities
from switch.transports.host_session import HostSession, LineState
from switch.transports.host_terms import HostFigures, HostKeys, HostWatch, LinkTerms
from switch.transports.matching import Begin, Belongs, Matcher

log = structlog.get_logger(__name__)

TICK_S = 0.25  # precision of echoes and of sign-ons that get no answer; requests have a timer of their own
LEAST_ANSWER_S = 0.25  # with less left, a request would only make a reversal
_STORED = frozenset({HostStep.ADVICE, HostStep.REVERSAL_ADVICE})


class _Waiter(NamedTuple):
    future: asyncio.Future[HostOutcome]
    key: HostKey
    sent: Fields  # what an answer must repeat; no more, since a late one may be waited for for minutes
    line: HostLine
    ticket: int
    asked_s: float
    stored: bool


class TcpHostLink:
    """A host. Use: start(); ask(); stop(), which signs off and ends what is in flight as unknown."""

    def __init__(
        self,
        terms: LinkTerms,
        keys: HostKeys,
        watch: HostWatch,
        on_late: OnLate,
        *,
        now_s: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] | None = None,
    ) -> None:
        self.terms = terms
        self._keys = keys
        self._watch = watch
        self._on_late = on_late
        self._now_s = now_s
        self._uniform = uniform or SystemRandom().uniform
        self._rules = terms.dialect.frames
        self._matcher: Matcher[AnswerKey, _Waiter] = Matcher(
            terms.in_flight_max, terms.remembered_max, terms.remember_s
        )
        self._breaker = Breaker(terms.breaker)
        self._budget = RetryBudget(terms.retry_ratio, terms.retry_per_s, terms.retry_saved_max, now_s())
        self._stored = 0
        self._lines: list[HostLine] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._stopping = asyncio.Event()
        self._oddities = Oddities(terms.name, watch, now_s)
        self._network = HostNetwork(terms, keys, self._oddities, self._framed, now_s, self._stopping)
        self.on_usable: Callable[[str], None] = lambda _host: None  # called when a connection has signed on

    def __repr__(self) -> str:
        return f"<host link {self.terms.name}, {len(self._usable_lines())} lines, {len(self._matcher)} in flight>"

    # ------------------------------------------------------------------ for routing

    @property
    def name(self) -> str:
        """As the settings call the host."""
        return self.terms.name

    @property
    def usable(self) -> bool:
        """Whether a request would be sent now."""
        now_s = self._now_s()
        room = len(self._matcher) < self.terms.in_flight_max
        return room and bool(self._usable_lines()) and self._breaker.may_admit(now_s)

    async def ask(
        self, request: HostRequest, *, deadline_s: float, pin: PinUnder | None = None, repeat: bool = False
    ) -> HostOutcome:
        """Send a request and wait for its end; see `routing.hosts`."""
        now_s = self._now_s()
        admitted = self._admit(request, now_s, deadline_s, repeat=repeat)
        if isinstance(admitted, Refusal):
            return self._refused(request, admitted)
        line, ticket = admitted
        try:
            mti, fields = request_fields(request, self.terms.parties, self._zone_pin(pin))
            framed = self._framed(mti, fields)
        except KeyMissingError:
            self._breaker.withdrawn(ticket)
            return self._refused(request, Refusal.NO_KEYS)
        except BaseException:
            self._breaker.withdrawn(ticket)
            raise
        waiter = _Waiter(
            asyncio.get_running_loop().create_future(),
            request.key,
            {number: fields[number] for number in ECHOED if number in fields},
            line,
            ticket,
            now_s,
            request.step in _STORED,
        )
        key = request_key(request)
        until_s = min(deadline_s, now_s + self.terms.answer_s)
        begun = self._matcher.begin(key, waiter, until_s)
        assert begun is Begin.GOOD, "room and key were looked at before, and nothing ran in between"
        self._stored += waiter.stored
        line.waiting.add(key)
        line.send(framed)
        self._arm(now_s)
        # Cancelling who waits does not end the waiting: the answer is late then, and not lost.
        return await waiter.future

    def _refused(self, request: HostRequest, why: Refusal) -> HostDown:
        self._watch.host_ended(self.name, why.name.lower(), 0.0)
        return HostDown(request.key, why)

    def _admit(
        self, request: HostRequest, now_s: float, deadline_s: float, *, repeat: bool
    ) -> tuple[HostLine, int] | Refusal:
        """A connection and a breaker's ticket, or why not; what costs something is taken last."""
        if deadline_s - now_s < LEAST_ANSWER_S:
            return Refusal.TOO_LATE
        lines = self._usable_lines()
        if not lines or self._stopping.is_set():
            return Refusal.NO_LINE
        begun = self._matcher.may_begin(request_key(request))
        if begun is Begin.IN_USE:
            return Refusal.KEY_IN_USE
        open_lines = [line for line in lines if not line.full]
        # What was stored may wait longer than somebody at a till: half of the room is for those who do.
        too_many_stored = request.step in _STORED and 2 * self._stored >= self.terms.in_flight_max
        if begun is Begin.FULL or not open_lines or too_many_stored:
            return Refusal.FULL
        ticket = self._breaker.admit(now_s)
        if ticket is None:
            return Refusal.BREAKER
        if repeat and not self._budget.take(now_s):
            self._breaker.withdrawn(ticket)
            return Refusal.RETRY_BUDGET
        return min(open_lines, key=lambda line: len(line.waiting)), ticket

    def _zone_pin(self, pin: PinUnder | None) -> ZonePin | None:
        if pin is None:
            return None
        name, pin_format = self._keys.pin_key
        return ZonePin(pin(name, pin_format), pin_format)

    def _usable_lines(self) -> list[HostLine]:
        """Connections that may carry a request: those from which something was heard lately, else those in doubt."""
        signed_on = [line for line in self._lines if line.session.state is LineState.SIGNED_ON]
        return signed_on or [line for line in self._lines if line.session.state is LineState.PROBING]

    def _framed(self, mti: str, fields: Fields) -> bytes:
        mab = encode(self.terms.dialect, mti, fields)
        return frame(mab + self._keys.mac(mab), self._rules)

    # ------------------------------------------------------------------ ends

    def _end(self, key: AnswerKey, waiter: _Waiter, outcome: HostOutcome, end: str, now_s: float) -> None:
        """A request that no longer waits in the matcher has ended."""
        waiter.line.waiting.discard(key)
        self._stored -= waiter.stored
        answered = isinstance(outcome, HostAnswer)
        if answered:
            self._budget.answered()
        if isinstance(outcome, HostTimeout) and outcome.why is Unknown.LINE_LOST:
            self._breaker.withdrawn(waiter.ticket)  # counted once per connection, in `closed`
        else:
            self._breaker.ended(waiter.ticket, answered=answered, now_s=now_s)
        self._watch.host_ended(self.name, end, now_s - waiter.asked_s)
        if not waiter.future.done():
            waiter.future.set_result(outcome)

    def _unknown(self, key: AnswerKey, waiter: _Waiter, why: Unknown, now_s: float) -> None:
        self._end(key, waiter, HostTimeout(waiter.key, why), why.name.lower(), now_s)

    def _give_up(self, key: AnswerKey, why: Unknown, now_s: float) -> bool:
        """End a request whose answer cannot be used; False when nobody waits for it any more."""
        waiter = self._matcher.give_up(key, now_s)
        if waiter is not None:
            self._unknown(key, waiter, why, now_s)
        return waiter is not None

    def _arm(self, now_s: float) -> None:
        """Have a timer for the next deadline."""
        due_s = self._matcher.next_deadline_s
        if due_s is None or (self._timer is not None and self._timer_at_s <= due_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = due_s
        self._timer = asyncio.get_running_loop().call_later(max(due_s - now_s, 0.0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now_s = self._now_s()
        self._expire(now_s)
        self._arm(now_s)

    def _expire(self, now_s: float) -> None:
        for key, waiter in self._matcher.expire(now_s):
            self._unknown(key, waiter, Unknown.SILENT, now_s)

    # ------------------------------------------------------------------ what comes

    def take(self, line: HostLine, body: bytes) -> None:
        """A frame has come. FramingError when the connection must be closed."""
        now_s = self._now_s()
        try:
            message = decode(self.terms.dialect, body)
        except UnreadableMessage as error:
            self._oddities.met("unreadable", error)
            key = answer_key(error.readable)
            if key is not None:
                self._give_up(key, Unknown.UNUSABLE, now_s)
            return
        key = answer_key(message)
        try:
            self._keys.verify(message.mab, message.mac)
        except MacMismatch as error:
            self._oddities.met("mac", error)
            if key is not None:
                self._give_up(key, Unknown.MAC_WRONG, now_s)
            return
        self._network.act(line, line.session.heard(now_s))
        if message.mti == "0800":
            self._network.serve(line, message)
        elif message.mti in REQUEST_OF and key is not None:
            if key.mti == "0800":
                self._network.answer(line, key, message)
                if line.session.state is LineState.SIGNED_ON:  # an echo's answer too, which does no harm
                    self.on_usable(self.name)
            else:
                self._answer(key, message, now_s)
        else:
            self._oddities.met("request")

    def _answer(self, key: AnswerKey, message: HostMessage, now_s: float) -> None:
        waiter = self._matcher.waiter(key)
        if waiter is not None:
            try:
                answer = read_answer(waiter.sent, message)
            except FormatError as error:
                self._oddities.met("unusable", error)
                self._give_up(key, Unknown.UNUSABLE, now_s)
                return
        # A host that declined and then approves has done what we told the terminal it had not.
        keep = waiter is not None and not answer.approved
        belongs, waiter = self._matcher.answer(key, now_s, keep=keep)
        if waiter is None or belongs is Belongs.TWICE:
            self._oddities.met(belongs.name.lower())
            if waiter is not None and answer.approved:
                self._on_late(LateAnswer(self.name, answer))
            return
        deserted = waiter.future.done()  # who asked was cancelled
        if belongs is Belongs.WAITING:
            self._end(key, waiter, answer, answer.code, now_s)
        if belongs is Belongs.LATE or deserted:
            self._oddities.met("late")
            self._on_late(LateAnswer(self.name, answer))

    # ------------------------------------------------------------------ connections

    def session(self) -> HostSession:
        """The conversation of a new connection."""
        return HostSession(self.terms.quiet_s, self.terms.network_answer_s)

    def opened(self, line: HostLine) -> None:
        """A connection stands."""
        self._lines.append(line)
        self._network.act(line, line.session.opened(self._now_s()))

    def closed(self, line: HostLine, reason: str) -> None:
        """A connection is gone: what was asked on it may have been done."""
        now_s = self._now_s()
        self._watch.host_line_closed(self.name, reason)
        if line in self._lines:
            self._lines.remove(line)
        first = next((self._matcher.waiter(key) for key in line.waiting), None)
        if first is not None:  # one event, however many requests it met: other connections may be well
            self._breaker.ended(first.ticket, answered=False, now_s=now_s)
        for key in list(line.waiting):
            self._give_up(key, Unknown.LINE_LOST, now_s)

    async def start(self) -> None:
        """Begin to connect; returns at once. The link is usable when a sign-on has been answered."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep()) for _ in range(self.terms.connections)]
        self._tasks.append(loop.create_task(self._tick()))

    async def stop(self, within_s: float = 2.0) -> None:
        """Take no request any more, let what is in flight be answered, sign off, close; what is left ends as unknown."""
        self._stopping.set()
        waiting = [
            waiter.future
            for line in self._lines
            for key in line.waiting
            if (waiter := self._matcher.waiter(key)) is not None
        ]
        if waiting:
            await asyncio.wait(waiting, timeout=within_s)
        for line in list(self._lines):
            self._network.act(line, line.session.stop())
        keepers = self._tasks[:-1]
        if keepers:
            await asyncio.wait(keepers, timeout=within_s)
        for line in list(self._lines):
            line.close("stopping")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

    async def _keep(self) -> None:
        """Hold one connection: connect, wait until it ends, pause, again."""
        failures = 0
        while not self._stopping.is_set():
            line = HostLine(self, FrameReader(self._rules))
            if await self._connect(line):
                await line.ended.wait()
            failures = 0 if line.served else failures + 1
            ceiling = min(self.terms.reconnect_min_s * 2 ** min(failures, 20), self.terms.reconnect_max_s)
            with contextlib.suppress(
                TimeoutError
            ):  # with jitter, or all switches of a city come back at once
                await asyncio.wait_for(self._stopping.wait(), self._uniform(ceiling / 2, ceiling))

    async def _connect(self, line: HostLine) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.terms.connect_s):
                await loop.create_connection(lambda: line, self.terms.host, self.terms.port)
        except (OSError, TimeoutError):
            self._watch.host_line_closed(self.name, "connect")
            return False
        return True

    async def _tick(self) -> None:
        """Echoes, unanswered sign-ons, keys to be sent, and forgetting."""
        while True:
            await asyncio.sleep(TICK_S)
            now_s = self._now_s()
            for line in list(self._lines):
                self._network.act(line, line.session.due(now_s))
            self._network.offer_keys(self._usable_lines())
            self._expire(now_s)

    def figures(self) -> HostFigures:
        """What the link looks like now."""
        state: BreakerState = self._breaker.state(self._now_s())
        return HostFigures(len(self._usable_lines()), len(self._matcher), state, self._matcher.remembered)
