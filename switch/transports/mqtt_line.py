"""One connection to the broker, from connecting to its end: messages in, publications and acknowledgements out.

aiomqtt joins paho to the event loop; what it does not offer is taken from paho here and nowhere else: acknowledging later,
hearing of each publication's end, and handing messages over without a queue in between. The flow is bounded by ReceiveMaximum: the
broker sends no more than that many messages that are not acknowledged, and none that is larger than we said.

MQTT 5 acknowledges in order of arrival, so an acknowledgement waits for those before it (`Arrivals`).
"""

import contextlib
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers
from paho.mqtt.subscribeoptions import SubscribeOptions

from switch.domain.errors import DependencyError

QOS: Final = 1
PACKET_ROOM: Final = 1_024  # of a PUBLISH beside its payload: topic and properties
REFUSED: Final = 0x80  # reason codes from here on are failures
CONNECT_S: Final = 10.0  # for connecting, subscribing and leaving, each
_SENDING_MAX: Final = 65_535  # publications on their way where the broker sets no bound


class LineLostError(DependencyError):
    """There is no connection to the broker, or it ended."""


@dataclass(frozen=True, slots=True)
class LineTerms:
    """Where the broker is and what it may send us. session_s: how long it keeps what is for us when the line breaks."""

    host: str
    port: int
    client_id: str
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None
    receive_maximum: int = 256
    payload_bytes_max: int = 262_144
    keep_alive_s: int = 30
    session_s: int = 30

    def __repr__(self) -> str:
        return f"LineTerms({self.host}:{self.port}, client {self.client_id})"


class Incoming(NamedTuple):
    """A message as it came."""

    topic: str
    payload: bytes
    qos: int
    mid: int
    response_topic: str | None
    correlation: bytes | None

    def __repr__(self) -> str:
        return f"Incoming({self.topic!r}, {len(self.payload)} bytes)"


Published = Callable[[bool], None]  # told once whether the broker has it


class _Publication(NamedTuple):
    """Something to be published, and who is told."""

    topic: str
    payload: bytes
    told: Published
    retain: bool
    correlation: bytes | None


class Arrival:
    """A message that came and is not acknowledged yet. impatient: it is not to hold back the others for long."""

    __slots__ = ("arrived_s", "done", "impatient", "line", "mid")

    def __init__(self, line: "MqttLine", mid: int, arrived_s: float, *, impatient: bool) -> None:
        self.line = line
        self.mid = mid
        self.arrived_s = arrived_s
        self.impatient = impatient
        self.done = False


class Arrivals:
    """Acknowledges the messages of one line in order of arrival. on_acknowledged: told when each came."""

    def __init__(self, on_acknowledged: Callable[[float], None]) -> None:
        self._queue: deque[Arrival] = deque()
        self._on_acknowledged = on_acknowledged  # with the instant of its arrival

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def first(self) -> Arrival | None:
        """The one that all others wait for."""
        return self._queue[0] if self._queue else None

    def add(self, arrival: Arrival) -> None:
        """It came."""
        self._queue.append(arrival)

    def finish(self, arrival: Arrival) -> None:
        """It may be acknowledged, as soon as those before it are."""
        arrival.done = True
        queue = self._queue
        while queue and queue[0].done:
            first = queue.popleft()
            first.line.acknowledge(first.mid)
            self._on_acknowledged(first.arrived_s)


class MqttLine:
    """Use: `async with MqttLine(terms, take) as line:`, then subscribe; `closed()` returns when it is over.

    take: called for each message, in order, also before the context has been entered: what was left of an earlier line comes at
    once. It must not raise. on_acknowledged: see Arrivals.
    """

    def __init__(
        self,
        terms: LineTerms,
        take: Callable[["MqttLine", Incoming], None],
        on_acknowledged: Callable[[float], None] = lambda _arrived_s: None,
    ) -> None:
        self._take = take
        self.arrivals = Arrivals(on_acknowledged)
        self._sent: dict[int, Published] = {}
        self._to_send: deque[_Publication] = deque()
        self._sending_max = _SENDING_MAX
        self.open = False
        self._client = aiomqtt.Client(
            terms.host,
            terms.port,
            identifier=terms.client_id,
            username=terms.username or None,
            password=terms.password or None,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=not terms.session_s,
            keepalive=terms.keep_alive_s,
            tls_context=terms.tls,
            timeout=CONNECT_S,
            properties=_connect_properties(terms),
        )
        inner = self._inner = self._client._client  # noqa: SLF001 - aiomqtt has no word for what follows
        inner.manual_ack_set(True)
        inner.max_inflight_messages_set(
            0
        )  # the broker's bound is known only when it has answered: `_send` keeps it
        inner.on_message = self._on_message
        self._handle_publish_there: Any = inner._handle_publish  # noqa: SLF001 - as above
        setattr(inner, "_handle_publish", self._handle_publish)  # noqa: B010 - a method, so the type checker would not have it
        self._on_publish_there: Any = inner.on_publish
        inner.on_publish = self._on_publish
        self._on_connect_there: Any = inner.on_connect
        inner.on_connect = self._on_connect

    async def __aenter__(self) -> Self:
        try:
            await self._client.__aenter__()
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            self.open = False
            self._inner.disconnect()  # or its socket would stay, and the next line would find itself there
            self._give_up()
            raise LineLostError(f"broker: {_said(error)}") from error
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Say good-bye."""
        self.open = False
        try:
            with contextlib.suppress(aiomqtt.MqttError, OSError):
                await self._client.__aexit__(None, None, None)
        finally:
            self._give_up()

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Listen to these. LineLostError when the broker refuses one."""
        try:
            granted = await self._client.subscribe([(topic, SubscribeOptions(qos=QOS)) for topic in topics])
        except (aiomqtt.MqttError, OSError) as error:
            raise LineLostError(f"subscription: {_said(error)}") from error
        if any(code_of(code) >= REFUSED for code in granted):
            raise LineLostError("the broker refuses a subscription")

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        """Get no new messages; what is on its way still comes."""
        try:
            await self._client.unsubscribe(list(topics))
        except (aiomqtt.MqttError, OSError) as error:
            raise LineLostError(f"subscription: {_said(error)}") from error

    async def closed(self) -> str:
        """Return when the line is over, with the reason."""
        try:
            await anext(self._client.messages)  # messages go to take(), so this ends only with the line
        except (aiomqtt.MqttError, OSError) as error:
            return _said(error)
        finally:
            self.open = False
            self._give_up()
        return "closed"

    def publish(
        self,
        topic: str,
        payload: bytes,
        told: Published,
        *,
        retain: bool = False,
        correlation: bytes | None = None,
    ) -> None:
        """Hand over; told is called once, perhaps before this returns."""
        if not self.open:
            told(False)
            return
        self._to_send.append(_Publication(topic, payload, told, retain, correlation))
        self._send()

    def _send(self) -> None:
        """What waits, as far as the broker takes more."""
        while self._to_send and len(self._sent) < self._sending_max:
            topic, payload, told, retain, correlation = self._to_send.popleft()
            properties = None
            if correlation is not None:
                properties = _properties(PacketTypes.PUBLISH)
                properties.CorrelationData = correlation
            info = self._inner.publish(topic, payload, QOS, retain, properties)
            if info.rc != paho.MQTT_ERR_SUCCESS:
                told(False)
            else:
                self._sent[info.mid] = told

    def acknowledge(self, mid: int) -> None:
        """PUBACK, in the order in which the messages came."""
        if self.open:
            self._inner.ack(mid, QOS)

    def _give_up(self) -> None:
        sent, self._sent = self._sent, {}
        waiting, self._to_send = self._to_send, deque()
        for told in (*sent.values(), *(one.told for one in waiting)):
            told(False)

    # ------------------------------------------------------------------ what paho calls, in the loop's thread

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        """A broker that takes fewer publications at a time than we would send says so."""
        if properties is not None:
            self._sending_max = getattr(properties, "ReceiveMaximum", _SENDING_MAX)
        self.open = code_of(reason) < REFUSED
        self._on_connect_there(client, userdata, flags, reason, properties)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        told = self._sent.pop(mid, None)
        if told is None:
            self._on_publish_there(client, userdata, mid, reason, properties)
        else:
            told(code_of(reason) < REFUSED)
            self._send()

    def _handle_publish(self) -> Any:
        """Here paho would end the line over properties that it will not read, such as a text with U+FEFF, which MQTT allows.

        The broker would send that message again on every line to come, so it is read without them.
        """
        try:
            return self._handle_publish_there()
        except (MQTTException, UnicodeDecodeError):
            packet: Any = self._inner._in_packet  # noqa: SLF001 - as above
            packet["packet"] = without_properties(packet["command"], packet["packet"])
            return self._handle_publish_there()

    def _on_message(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # no broker lets that through, and it is no reason to lose the line
            topic = ""
        properties = message.properties
        self._take(
            self,
            Incoming(
                topic,
                bytes(message.payload),
                message.qos,
                message.mid,
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
            ),
        )


def without_properties(command: int, publish: bytes) -> bytes:
    """A PUBLISH of MQTT 5 behind its fixed header, of which command is the first byte, with no properties."""
    at = 2 + int.from_bytes(publish[:2])
    if command & 0x06:  # QoS: it has a packet id
        at += 2
    read: Any = VariableByteIntegers.decode  # it has no types
    length, size = read(publish[at:])
    return bytes(publish[:at]) + b"\0" + bytes(publish[at + size + length :])


def code_of(reason: Any) -> int:
    """The number of a reason code, which MQTT 5 gives as an object."""
    return int(getattr(reason, "value", reason))


def _properties(packet: int) -> Properties:
    make: Any = Properties  # it has no types
    made: Properties = make(packet)
    return made


def _connect_properties(terms: LineTerms) -> Properties:
    properties = _properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = terms.receive_maximum
    properties.MaximumPacketSize = terms.payload_bytes_max + PACKET_ROOM
    properties.SessionExpiryInterval = terms.session_s
    return properties


def _said(error: BaseException) -> str:
    """What went wrong, in few words: texts of a broker are strangers' texts."""
    return str(error)[:120] or type(error).__name__
