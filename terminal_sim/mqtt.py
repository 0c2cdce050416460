"""MQTT as a small device speaks it, 5 or 3.1.1: packets out of bytes and bytes out of packets, and one connection.

Written out here, so that thousands of devices fit into one process and the switch's library cannot hide a mistake of its own.
Bounds: one unfinished packet of at most PACKET_BYTES_MAX; publications on their way as many as there are packet ids.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ssl import SSLContext
from typing import Final, NamedTuple, Self, cast

PACKET_BYTES_MAX: Final = 1 << 20
MQTT_311, MQTT_5 = 4, 5
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = (
    1,
    2,
    3,
    4,
    8,
    9,
    12,
    13,
    14,
)
RESPONSE_TOPIC, CORRELATION_DATA, SESSION_EXPIRY, RECEIVE_MAXIMUM = 0x08, 0x09, 0x11, 0x21
REFUSED: Final = 0x80
# Lengths of MQTT 5 properties by identifier: a number of bytes, or how they say it themselves.
_FIXED: Final = {
    0x01: 1, 0x02: 4, 0x11: 4, 0x13: 2, 0x17: 1, 0x18: 4, 0x19: 1, 0x21: 2, 0x22: 2, 0x23: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1,
    0x29: 1, 0x2A: 1,
}  # fmt: skip
_VARINT: Final = 0x0B
_PAIR: Final = 0x26


class MqttLineError(Exception):
    """The connection cannot be made, ended, or the broker said no."""


def varint(number: int) -> bytes:
    """A variable byte integer.

    >>> varint(321).hex()
    'c102'
    """
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def text(value: str | bytes) -> bytes:
    """A string or bytes with their length."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2) + raw


def packet(kind: int, flags: int, body: bytes) -> bytes:
    """Any packet."""
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


class Packets:
    """Bytes in pieces of any size; whole packets out, as kind, flags and body."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """MqttLineError when the stream is no MQTT, or a packet too long."""
        data = self._pending + data
        found: list[tuple[int, int, bytes]] = []
        at = 0
        while True:
            length, end = 0, at + 1
            for shift in (0, 7, 14, 21):
                if end >= len(data):
                    self._pending = data[at:]
                    return found
                byte = data[end]
                end += 1
                length |= (byte & 0x7F) << shift
                if not byte & 0x80:
                    break
            else:
                raise MqttLineError("a length has more than four bytes")
            if length > PACKET_BYTES_MAX:
                raise MqttLineError("a packet is too long")
            if end + length > len(data):
                self._pending = data[at:]
                return found
            found.append((data[at] >> 4, data[at] & 0x0F, data[end : end + length]))
            at = end + length


class Delivered(NamedTuple):
    """A message as it came down."""

    topic: str
    payload: bytes
    correlation: bytes | None
    retained: bool
    again: bool

    def __repr__(self) -> str:
        return f"Delivered({self.topic!r}, {len(self.payload)} bytes)"


def _properties(body: bytes, at: int) -> tuple[dict[int, bytes], int]:
    """The properties that begin at `at`, and where they end. Of those that may stand often, the last."""
    length = shift = 0
    while True:
        byte = body[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    end, found = at + length, {}
    while at < end:
        name = body[at]
        at += 1
        if name in _FIXED:
            size = _FIXED[name]
        elif name == _VARINT:
            size = next(n for n in range(1, 5) if not body[at + n - 1] & 0x80)
        elif name == _PAIR:
            first = 2 + int.from_bytes(body[at : at + 2])
            size = first + 2 + int.from_bytes(body[at + first : at + first + 2])
        else:
            size = 2 + int.from_bytes(body[at : at + 2])
        found[name] = body[at : at + size]
        at += size
    return found, end


def _delivered(flags: int, body: bytes, version: int) -> tuple[Delivered, int]:
    """A PUBLISH and its packet id (0 at QoS 0)."""
    at = 2 + int.from_bytes(body[:2])
    topic, mid = body[2:at].decode(), 0
    if flags >> 1 & 3:
        mid = int.from_bytes(body[at : at + 2])
        at += 2
    found: dict[int, bytes] = {}
    if version == MQTT_5:
        found, at = _properties(body, at)
    correlation = found.get(CORRELATION_DATA)
    return (
        Delivered(
            topic,
            body[at:],
            correlation[2:] if correlation is not None else None,
            bool(flags & 1),
            bool(flags & 8),
        ),
        mid,
    )


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it is, and as whom a device speaks to it. session_s: how long it keeps what is for the device (MQTT 5; else for ever)."""

    host: str
    port: int
    client_id: str
    username: str = ""
    password: str = ""
    tls: SSLContext | None = None
    version: int = MQTT_5
    session_s: int = 0
    keep_alive_s: int = 60
    timeout_s: float = 30.0

    def __repr__(self) -> str:
        return f"Broker({self.host}:{self.port}, client {self.client_id})"


class MqttConnection(asyncio.Protocol):
    """One connection. Use: `connection = await MqttConnection.open(broker, take)`; `close()` or `abort()` in the end.

    take: called with each message; the PUBACK leaves when it returns True, else whoever took it calls acknowledge.
    """

    def __init__(self, broker: Broker, take: Callable[[Delivered, int], bool]) -> None:
        self._broker = broker
        self._take = take
        self._packets = Packets()
        self._transport: asyncio.Transport | None = None
        self._ids = 0
        self._waiting: dict[tuple[int, int], asyncio.Future[int]] = {}
        self._pinger: asyncio.TimerHandle | None = None
        self.session_present = False
        self.ended_with = 0  # reason code of a DISCONNECT that the broker sent

    @classmethod
    async def open(cls, broker: Broker, take: Callable[[Delivered, int], bool]) -> Self:
        """Connected and accepted. MqttLineError otherwise."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(broker.timeout_s):
                _, connection = await loop.create_connection(
                    lambda: cls(broker, take), broker.host, broker.port, ssl=broker.tls
                )
                await connection.greet()
        except (OSError, TimeoutError) as error:
            raise MqttLineError(f"the broker cannot be reached: {type(error).__name__}") from error
        return connection

    async def greet(self) -> None:
        """CONNECT; part of open."""
        code = await self._request(CONNECT, 0, self._connect())
        if code:
            self.abort()
            raise MqttLineError(f"the broker refuses the connection: {code:#04x}")
        self._ping()

    @property
    def is_open(self) -> bool:
        """Whether something can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def _connect(self) -> bytes:
        broker = self._broker
        flags = 0 if broker.session_s else 2
        body = text("MQTT") + bytes([broker.version])
        payload = text(broker.client_id)
        if broker.username:
            flags |= 0x80
            payload += text(broker.username)
            if broker.password:
                flags |= 0x40
                payload += text(broker.password)
        body += bytes([flags]) + broker.keep_alive_s.to_bytes(2)
        if broker.version == MQTT_5:
            properties = bytes([SESSION_EXPIRY]) + broker.session_s.to_bytes(4)
            body += varint(len(properties)) + properties
        return packet(CONNECT, 0, body + payload)

    def _ping(self) -> None:
        if self.is_open:
            self._write(packet(PINGREQ, 0, b""))
            half_s = self._broker.keep_alive_s / 2
            self._pinger = asyncio.get_running_loop().call_later(half_s, self._ping)

    # ------------------------------------------------------------------ what it can ask

    async def subscribe(self, topics: Sequence[str], qos: int = 1) -> None:
        """MqttLineError when one is refused."""
        mid = self._next_id()
        body = mid.to_bytes(2) + (b"\0" if self._broker.version == MQTT_5 else b"")
        body += b"".join(text(topic) + bytes([qos]) for topic in topics)
        code = await self._timely(SUBSCRIBE, mid, packet(SUBSCRIBE, 2, body))
        if code >= REFUSED:
            raise MqttLineError(f"a subscription is refused: {code:#04x}")

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
    ) -> int:
        """At QoS 1; the reason code of the PUBACK. MqttLineError when none comes."""
        mid = self._next_id()
        properties = b""
        if self._broker.version == MQTT_5:
            if response_topic is not None:
                properties += bytes([RESPONSE_TOPIC]) + text(response_topic)
            if correlation is not None:
                properties += bytes([CORRELATION_DATA]) + text(correlation)
        return await self._timely(
            PUBLISH, mid, self._publication(topic, payload, mid, properties, retain=retain)
        )

    def publish_soon(self, topic: str, payload: bytes) -> None:
        """At QoS 1, without waiting for the broker: who wants an answer sends again anyway."""
        self._write(self._publication(topic, payload, self._next_id(), b"", retain=False))

    def _publication(self, topic: str, payload: bytes, mid: int, properties: bytes, *, retain: bool) -> bytes:
        body = text(topic) + mid.to_bytes(2)
        if self._broker.version == MQTT_5:
            body += varint(len(properties)) + properties
        return packet(PUBLISH, 2 | retain, body + payload)

    def publish_unsafely(self, topic: str, payload: bytes) -> None:
        """At QoS 0, which no switch of ours takes."""
        properties = b"\0" if self._broker.version == MQTT_5 else b""
        self._write(packet(PUBLISH, 0, text(topic) + properties + payload))

    def acknowledge(self, mid: int) -> None:
        """PUBACK."""
        self._write(packet(PUBACK, 0, mid.to_bytes(2)))

    def close(self) -> None:
        """Say good-bye and hang up."""
        self._write(packet(DISCONNECT, 0, b""))
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Break the connection."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------ beneath

    def _next_id(self) -> int:
        self._ids = self._ids % 0xFFFF + 1
        return self._ids

    async def _timely(self, kind: int, mid: int, data: bytes) -> int:
        try:
            async with asyncio.timeout(self._broker.timeout_s):
                return await self._request(kind, mid, data)
        except TimeoutError:
            raise MqttLineError("the broker does not answer") from None

    async def _request(self, kind: int, mid: int, data: bytes) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if not self.is_open:
            raise MqttLineError("the connection is closed")
        self._waiting[kind, mid] = future
        self._write(data)
        try:
            return await future
        finally:
            self._waiting.pop((kind, mid), None)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From asyncio."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """From asyncio."""
        try:
            for kind, flags, body in self._packets.feed(data):
                self._received(kind, flags, body)
        except (MqttLineError, IndexError, ValueError):  # no MQTT: the stream has lost its place
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio: nobody will be answered any more."""
        self._transport = None
        if self._pinger is not None:
            self._pinger.cancel()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(MqttLineError("the connection broke"))

    def _received(self, kind: int, flags: int, body: bytes) -> None:
        if kind == PUBLISH:
            message, mid = _delivered(flags, body, self._broker.version)
            if self._take(message, mid) and mid:
                self.acknowledge(mid)
        elif kind == CONNACK:
            self.session_present = bool(body[0] & 1)
            self._settle(CONNECT, 0, body[1])
        elif kind == PUBACK:
            self._settle(PUBLISH, int.from_bytes(body[:2]), body[2] if len(body) > 2 else 0)
        elif kind == SUBACK:
            self._settle(SUBSCRIBE, int.from_bytes(body[:2]), body[-1])
        elif kind == DISCONNECT:
            self.ended_with = body[0] if body else 0
            self.abort()

    def _settle(self, kind: int, mid: int, code: int) -> None:
        future = self._waiting.get((kind, mid))
        if future is not None and not future.done():
            future.set_result(code)
