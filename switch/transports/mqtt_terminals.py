"""Terminals over MQTT: frames and batches from the broker to the rooms that take them, answers and receipts back.

One connection per process, shared subscriptions, so that the broker deals the messages out to all processes of a group. Of each message

    the room's answer (after its commit) > published, and the broker has it > PUBACK, in order of arrival

so whatever is lost in between comes again, and is a repeat like any other. A message that no terminal of ours can mean (topic, size,
noise, a frame of another terminal) is counted and acknowledged, or it would come back for ever.

The line is made again for as long as the service lives. Terminals on TCP do not notice.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from switch.domain.errors import FramingError
from switch.messages.framing import LEN_BYTES
from switch.messages.purse_batch import BATCH_BYTES_MAX
from switch.messages.terminal_1987 import BODY_BYTES_MAX, FIELDS_AT, TPDU_IDENTIFIER
from switch.routing.answering import Peer
from switch.routing.reception import OtherSenderError
from switch.transports.mqtt_line import Arrival, Incoming, LineLostError, LineTerms, MqttLine
from switch.transports.mqtt_topics import Channel, Source, down_topic, shared_subscriptions, source_of

log = structlog.get_logger(__name__)

PER_TERMINAL_MAX: Final = {
    Channel.ISO: 64,
    Channel.PURSE: 8,
}  # messages of one terminal that are not answered yet
CORRELATION_BYTES_MAX: Final = 1_024
PATIENCE_S: Final = 2.0  # a frame that a host decides holds back the acknowledgements behind it no longer
TICK_S: Final = 0.5
PAUSE_FIRST_S: Final = 0.2
PAUSE_MAX_S: Final = 30.0
STEADY_S: Final = 10.0  # a line that lived so long was good: the next pause is a short one
PUBLISH_S: Final = 10.0
LEAVE_S: Final = 2.0


class Receive(Protocol):
    """Where frames go (routing.reception)."""

    def __call__(self, body: bytes, peer: Peer, *, sender: str = "") -> None:
        """Take a frame body and see to its answer; FramingError when it can have none."""


TakeBatch = Callable[[str, bytes], Awaitable[bytes]]  # terminal id and EPB1 to EPA1 (routing.purse_batches)


class MqttWatch(Protocol):
    """What operators count about this channel."""

    def mqtt_refused(self, reason: str) -> None:
        """A message was turned away."""

    def mqtt_acknowledged(self, seconds: float) -> None:
        """A message was acknowledged so long after it came."""

    def mqtt_line_ended(self, reason: str) -> None:
        """The connection was `lost`, or could not be made: `connect`."""

    def mqtt_undelivered(self, channel: str) -> None:
        """An answer found no way to the broker: its terminal asks again."""


@dataclass(frozen=True, slots=True)
class MqttTerms:
    """The line, and the group of processes that share the load."""

    line: LineTerms
    group: str


class MqttTerminals:
    """The channel of one process. Use: run() in a task; on SIGTERM drain(). Also the Publisher of lists."""

    def __init__(self, receive: Receive, take_batch: TakeBatch, terms: MqttTerms, watch: MqttWatch) -> None:
        self._receive = receive
        self._take_batch = take_batch
        self._terms = terms
        self._watch = watch
        self._topics = shared_subscriptions(terms.group)
        self._line: MqttLine | None = None
        self._per_terminal: Counter[Source] = Counter()
        self._batches: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.problem = "not connected yet"
        self.lines = 0  # lines that have listened: another number, another line

    @property
    def connected(self) -> bool:
        """Whether there is a line that listens."""
        return not self.problem

    @property
    def in_flight(self) -> int:
        """Messages that are not answered yet."""
        return self._per_terminal.total()

    # ------------------------------------------------------------------ the line's life

    async def run(self) -> None:
        """Keep a line to the broker until cancelled."""
        pause_s = PAUSE_FIRST_S
        sweeper = asyncio.get_running_loop().create_task(self._sweep())
        try:
            while not self._leaving():
                began_s = time.monotonic()
                try:
                    reason = await self._live()
                except LineLostError as error:
                    self._watch.mqtt_line_ended("connect")
                    reason = str(error)
                except (
                    Exception
                ) as error:  # our own fault, and no reason to leave the terminals alone for ever
                    log.exception("the line to the MQTT broker failed")
                    reason = type(error).__name__
                else:
                    self._watch.mqtt_line_ended("lost")
                    if time.monotonic() - began_s > STEADY_S:
                        pause_s = PAUSE_FIRST_S
                if self._leaving():
                    return
                self.problem = reason
                log.warning("no line to the MQTT broker", reason=reason, again_in_s=round(pause_s, 1))
                # Not all processes at once, when it is back.
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - nobody gains by guessing it
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
        finally:
            sweeper.cancel()

    def _leaving(self) -> bool:
        return self._stopping

    async def _live(self) -> str:
        # What came by the last line is answered by this one, and acknowledged by none: the broker sends it again.
        line = self._line = MqttLine(self._terms.line, self._take, self._acknowledged)
        try:
            async with line:
                if self._leaving():
                    return "leaving"
                await line.subscribe(self._topics)
                self.problem = ""
                self.lines += 1
                log.info(
                    "listening at the MQTT broker", host=self._terms.line.host, port=self._terms.line.port
                )
                return await line.closed()
        finally:
            self._line = None
            self.problem = self.problem or "line lost"

    async def drain(self, within_s: float) -> int:
        """Take nothing new, let what is in flight be answered and acknowledged, leave. Returns what was still unanswered."""
        self._stopping = True
        line = self._line
        left = self.in_flight
        if line is not None:
            deadline = time.monotonic() + within_s
            if line.open:
                with contextlib.suppress(LineLostError, TimeoutError):
                    async with asyncio.timeout(within_s):
                        await line.unsubscribe(self._topics)
            # Looked at now and then, once in a process's life.
            while (left := self.in_flight) and line.open and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await line.leave()
        for task in self._batches:
            task.cancel()
        return left

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            if self._line is None:
                continue
            arrivals = self._line.arrivals
            while (first := arrivals.first) is not None and first.impatient:
                if now_s - first.arrived_s <= PATIENCE_S:
                    break
                arrivals.finish(first)

    # ------------------------------------------------------------------ a message in

    def _take(self, line: MqttLine, incoming: Incoming) -> None:
        """From the line, in order. The message is in flight until its answer is with the broker."""
        now_s = time.monotonic()
        source = source_of(incoming.topic)
        arrival = Arrival(
            line, incoming.mid, now_s, impatient=source is not None and source.channel is Channel.ISO
        )
        if incoming.qos:
            line.arrivals.add(arrival)
        reason = self._refusal(incoming, source)
        if reason:
            self._refuse(reason, incoming, arrival)
            return
        assert source is not None
        self._per_terminal[source] += 1
        message = _Message(self, source, incoming, arrival)
        if source.channel is Channel.PURSE:
            task = asyncio.get_running_loop().create_task(self._purse(message, incoming.payload))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)
            return
        try:
            self._receive(incoming.payload, message, sender=source.terminal_id)
        except OtherSenderError:
            self._refuse("sender", incoming, arrival)
            self._forget(source)
        except FramingError:
            self._refuse("framing", incoming, arrival)
            self._forget(source)
        except Exception:
            log.exception("frame failed", terminal=source.terminal_id)
            message.leave_unanswered()

    def _refusal(self, incoming: Incoming, source: Source | None) -> str:
        """Why a message goes to no room, if so."""
        payload = incoming.payload
        if source is None:
            return "topic"
        if not incoming.qos:  # it could not be sent again, and no ReceiveMaximum bounds it
            return "qos"
        if self._per_terminal[source] >= PER_TERMINAL_MAX[source.channel]:
            return "too_many"
        if source.channel is Channel.PURSE:
            return "size" if len(payload) > BATCH_BYTES_MAX else ""
        if not FIELDS_AT <= len(payload) <= BODY_BYTES_MAX:
            return "size"
        return "" if payload[0] == TPDU_IDENTIFIER else "framing"

    def _refuse(self, reason: str, incoming: Incoming, arrival: Arrival) -> None:
        self._watch.mqtt_refused(reason)
        log.debug("MQTT message refused", reason=reason, bytes=len(incoming.payload))
        if incoming.qos:
            arrival.line.arrivals.finish(arrival)

    async def _purse(self, message: "_Message", payload: bytes) -> None:
        try:
            receipt = await self._take_batch(message.source.terminal_id, payload)
        except BaseException:  # cancelled: it comes again
            message.finished = True
            self._forget(message.source)
            raise
        message.send(receipt)

    # ------------------------------------------------------------------ an answer out

    def send(self, message: "_Message", payload: bytes) -> None:
        """Publish an answer; when the broker has it, the message is acknowledged."""

        def told(published: bool) -> None:
            if not published:
                self._watch.mqtt_undelivered(message.source.channel.value)
            self.finish(message)

        line = self._line
        if line is None:
            told(False)
        else:
            line.publish(message.topic, payload, told, correlation=message.correlation)

    def finish(self, message: "_Message") -> None:
        """Nothing more is to be said to a message."""
        if message.finished:
            return
        message.finished = True
        self._forget(message.source)
        if not message.arrival.done:
            message.arrival.line.arrivals.finish(message.arrival)  # of no consequence where that line is gone

    def _forget(self, source: Source) -> None:
        self._per_terminal[source] -= 1
        if not self._per_terminal[source]:
            del self._per_terminal[source]

    def _acknowledged(self, arrived_s: float) -> None:
        # Of a line that is gone nothing is sent; it is counted all the same, when its answer is with the broker.
        self._watch.mqtt_acknowledged(time.monotonic() - arrived_s)

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """As domain.publishing.Publisher says."""
        line = self._line
        if line is None:
            raise LineLostError("there is no line to the broker")
        await publish_on(line, topic, payload, retain=retain)


async def publish_on(line: MqttLine, topic: str, payload: bytes, *, retain: bool) -> None:
    """Publish and wait until the broker has it. LineLostError when that is not known."""
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    line.publish(
        topic, payload, lambda published: None if told.done() else told.set_result(published), retain=retain
    )
    try:
        async with asyncio.timeout(PUBLISH_S):
            published = await told
    except TimeoutError:
        raise LineLostError("the broker did not confirm a publication") from None
    if not published:
        raise LineLostError("the broker did not take a publication")


class _Message:
    """A message on its way through a room. The Peer of a frame."""

    __slots__ = ("_channel", "arrival", "correlation", "finished", "source", "topic")

    def __init__(self, channel: MqttTerminals, source: Source, incoming: Incoming, arrival: Arrival) -> None:
        self._channel = channel
        self.source = source
        self.arrival = arrival
        self.finished = False
        self.topic = down_topic(source, incoming.response_topic)
        correlation = incoming.correlation
        self.correlation = (
            correlation if correlation is not None and len(correlation) <= CORRELATION_BYTES_MAX else None
        )

    def answer(self, framed: bytes, *, trusted: bool | None) -> None:
        """A frame's answer, without LEN on this line. Who may speak here is the broker's to know, so trust changes nothing."""
        self.send(framed[LEN_BYTES:])

    def leave_unanswered(self) -> None:
        """Nobody can say what became of it."""
        self._channel.finish(self)

    def send(self, payload: bytes) -> None:
        """To the terminal."""
        self._channel.send(self, payload)
