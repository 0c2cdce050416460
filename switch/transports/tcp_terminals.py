"""Terminals over TCP, plain or TLS: bytes in, frames to the reception, answers out.

Every connection is bounded: the bytes it may hold half-read, the requests it may have in flight (then it is not read from), the
answers it may leave unread (likewise), the time it may idle, the time to its first good MAC, and the requests in a row that may be
turned away. A connection has no identity: terminals come by whichever they like, and a concentrator carries many. So sign-ons and
echoes, which have no MAC, are no offence in any number; a line that brings nothing else ends by the time to its first good MAC.
"""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import structlog

from switch.domain.errors import ConfigurationError, FramingError
from switch.messages.framing import FrameReader
from switch.routing.answering import Peer

log = structlog.get_logger(__name__)

WRITE_BUFFER_MAX = 64 * 1024  # unread answers; beyond, the connection is not read from
SWEEP_S = 1.0
LAST_WORDS_S = 10.0  # a closed connection may take so long to read its last answers; then it is cut


class Receive(Protocol):
    """Where complete frames go."""

    def __call__(self, body: bytes, peer: Peer) -> None:
        """Take a frame body and see to its answer; FramingError when the connection must be closed."""


class LineWatch(Protocol):
    """What operators count about lines."""

    def connected(self, count: int) -> None:
        """So many connections are open now."""

    def refused(self, reason: str) -> None:
        """A connection was turned away or ended by a rule."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a stranger may take of us."""

    connections_max: int = 20_000
    connections_per_address_max: int = 4_096
    in_flight_max: int = 64  # requests of one connection that are not answered yet
    idle_s: float = 900.0  # without a byte
    partial_frame_s: float = 30.0  # a frame once begun must end
    stranger_s: float = 60.0  # from connecting to the first good MAC
    stranger_frames_max: int = 32  # requests turned away (30, 03, 97, A0) without a good MAC between them


class TerminalLine(asyncio.Protocol):
    """One connection. Also the Peer of its requests."""

    __slots__ = (
        "_address",
        "_begun_s",
        "_closed_s",
        "_connected_s",
        "_ended",
        "_last_s",
        "_listener",
        "_out",
        "_paused",
        "_reader",
        "_strange",
        "_transport",
        "_trusted",
        "_waiting",
        "_write_full",
        "in_flight",
    )

    def __init__(self, listener: "TerminalListener") -> None:
        self._listener = listener
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._address = ""
        self._out: list[bytes] = []
        self.in_flight = 0
        self._paused = False
        self._write_full = False
        self._strange = 0
        self._trusted = False
        self._waiting: list[
            bytes
        ] = []  # frames of the last piece that the bound of requests in flight keeps back
        self._ended = False  # the peer sends no more
        self._begun_s = self._closed_s = 0.0
        self._connected_s = self._last_s = listener.now_s

    # ------------------------------------------------------------------ what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or close it at once."""
        transport = cast("asyncio.Transport", transport)  # the loop's own class need not inherit from it
        self._transport = transport
        peername = transport.get_extra_info("peername")
        self._address = peername[0] if peername else ""
        transport.set_write_buffer_limits(high=WRITE_BUFFER_MAX)
        reason = self._listener.admit(self, self._address)
        if reason:
            self._listener.watch.refused(reason)
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes in pieces of any size."""
        self._last_s = now_s = self._listener.now_s
        try:
            bodies = self._reader.feed(data)
        except FramingError as error:
            self.close("framing", rule=str(error))
            return
        if not self._reader.pending_bytes:
            self._begun_s = 0.0
        elif bodies or not self._begun_s:  # a byte now and then does not begin a frame anew
            self._begun_s = now_s
        self._waiting = self._waiting + bodies if self._waiting else bodies
        self._hand_over()

    def _hand_over(self) -> None:
        """Frames to the reception, as many as may be in flight; the others wait, and nothing more is read."""
        bodies, self._waiting = self._waiting, []
        limits = self._listener.limits
        receive = self._listener.receive
        handed = 0
        try:
            for body in bodies:
                if (
                    self.in_flight >= limits.in_flight_max
                    or self._write_full
                    or self._strange > limits.stranger_frames_max
                ):
                    break
                handed += 1
                self.in_flight += 1
                try:
                    receive(body, self)
                except FramingError:
                    self.in_flight -= 1
                    raise
            if handed == len(bodies) and self._reader.failure is not None:
                raise self._reader.failure
        except FramingError as error:
            self.close("framing", rule=str(error))
            return
        if handed < len(bodies):
            self._waiting = bodies[handed:]
        if self._waiting or self.in_flight >= limits.in_flight_max:
            self._pace()

    def eof_received(self) -> bool:
        """The peer sends no more; it may still read what is in flight (not over TLS, which closes both ways at once)."""
        self._ended = True
        transport = self._transport
        return transport is not None and not transport.get_extra_info("sslcontext") and not self._idle

    @property
    def _idle(self) -> bool:
        return not (self.in_flight or self._waiting or self._out)

    def connection_lost(self, exc: Exception | None) -> None:
        """Requests in flight go on: what they book, their repeat will be told."""
        self._transport = None
        self._waiting = []
        self._listener.forget(self, self._address)

    def pause_writing(self) -> None:
        """The peer does not read its answers."""
        self._write_full = True
        self._pace()

    def resume_writing(self) -> None:
        """It reads again."""
        self._write_full = False
        if self._waiting:
            self._hand_over()
        self._pace()

    # ------------------------------------------------------------------ the peer of a request

    def answer(self, framed: bytes, *, trusted: bool | None) -> None:
        """Send an answer; those of one turn of the loop leave in one write."""
        self.in_flight -= 1
        if self._transport is None:
            return
        if not self._out:
            self._listener.call_soon(self._flush)
        self._out.append(framed)
        if trusted:
            self._strange = 0
            self._trusted = True
        elif trusted is False:
            self._strange += 1
        if self._paused:
            self._pace()

    def leave_unanswered(self) -> None:
        """A request gets no answer, and no longer counts."""
        self.in_flight -= 1
        self._listener.call_soon(self._flush)

    def _flush(self) -> None:
        """At the end of a turn: its answers leave, and what they made room for is handed over."""
        self._write_out()
        if self._strange > self._listener.limits.stranger_frames_max:
            self.close("strange", rule="too many requests turned away, and no good MAC between")
        elif self._waiting:
            self._hand_over()
        if self._paused:
            self._pace()
        if self._ended and self._idle:
            self.hang_up()

    def _write_out(self) -> None:
        out, self._out = self._out, []
        transport = self._transport
        if out and transport is not None and not transport.is_closing():
            transport.write(out[0] if len(out) == 1 else b"".join(out))

    # ------------------------------------------------------------------ limits

    def _pace(self) -> None:
        """Read from the peer only while it may have more in flight."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        full = (
            self._write_full or bool(self._waiting) or self.in_flight >= self._listener.limits.in_flight_max
        )
        if (full or self._listener.draining) and not self._paused:
            self._paused = True
            transport.pause_reading()
        elif not full and not self._listener.draining and self._paused:
            self._paused = False
            if self._begun_s:  # what the peer has sent of it meanwhile was not read
                self._begun_s = self._listener.now_s
            transport.resume_reading()

    def overdue(self, now_s: float) -> str:
        """Which limit of time has been passed, if one has."""
        limits = self._listener.limits
        if now_s - self._last_s > limits.idle_s:
            return "idle"
        if self._begun_s and not self._paused and now_s - self._begun_s > limits.partial_frame_s:
            return "partial"
        if not self._trusted and now_s - self._connected_s > limits.stranger_s:
            return "stranger"
        return ""

    def close(self, reason: str, *, rule: str = "") -> None:
        """End the connection by a rule; answers already given still leave."""
        if self._transport is not None and not self._transport.is_closing():
            self._write_out()  # of the turn that met the rule
            self._listener.watch.refused(reason)
            log.info("connection closed", reason=reason, rule=rule, address=self._address)
            self.hang_up()

    def stop_reading(self) -> None:
        """For draining: take no new request."""
        self._pace()

    def hang_up(self) -> None:
        """Close without a reason to count."""
        self._waiting = []
        if self._transport is not None and not self._transport.is_closing():
            self._closed_s = self._listener.now_s
            self._transport.close()

    def cut_if_stuck(self, now_s: float) -> None:
        """A peer that does not read its last answers would keep its connection for ever."""
        if self._closed_s and now_s - self._closed_s > LAST_WORDS_S and self._transport is not None:
            self._transport.abort()


class TerminalListener:
    """All lines of one port.

    Use: start(); on SIGTERM drain(), which returns when nothing is in flight any more or its time is over.
    """

    def __init__(self, receive: Receive, watch: LineWatch, limits: Limits | None = None) -> None:
        self.receive: Callable[[bytes, Peer], None] = receive
        self.watch = watch
        self.limits = limits or Limits()
        self.draining = False
        self.now_s = (
            time.monotonic()
        )  # read once a second: limits of time are coarse, and a clock read per frame is not free
        self.call_soon = (
            asyncio.get_running_loop().call_soon
        )  # asking for the loop costs a system call each time
        self._lines: set[TerminalLine] = set()
        self._per_address: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, *, shared: bool = False
    ) -> int:
        """Listen; returns the port (which matters when 0 was asked for). OSError when it is taken.

        shared: other processes of ours listen on the same port, and the kernel deals the connections out.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: TerminalLine(self),
            host,
            port,
            ssl=tls,
            backlog=1024,
            reuse_port=shared or None,
            ssl_handshake_timeout=10.0 if tls is not None else None,
        )
        self._sweeper = loop.create_task(self._sweep())
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def admit(self, line: TerminalLine, address: str) -> str:
        """Count a connection in; a reason when there is no room for it."""
        if self.draining:
            return "draining"
        if len(self._lines) >= self.limits.connections_max:
            return "connections"
        if self._per_address[address] >= self.limits.connections_per_address_max:
            return "connections_per_address"
        self._lines.add(line)
        self._per_address[address] += 1
        self.watch.connected(len(self._lines))
        return ""

    def forget(self, line: TerminalLine, address: str) -> None:
        """Count a connection out."""
        if line in self._lines:
            self._lines.discard(line)
            self._per_address[address] -= 1
            if not self._per_address[address]:
                del self._per_address[address]
            self.watch.connected(len(self._lines))

    @property
    def open_lines(self) -> int:
        """Connections now."""
        return len(self._lines)

    async def drain(self, within_s: float = 15.0) -> int:
        """Take no connection and no request any more, let what is in flight be answered, then hang up.

        Returns how many requests were still unanswered when the time was over.
        """
        self.draining = True
        if self._server is not None:
            self._server.close()
        for line in list(self._lines):
            line.stop_reading()
        deadline = time.monotonic() + within_s
        # Looked at now and then, once in a process's life: an event would cost every answer.
        while (left := sum(line.in_flight for line in self._lines)) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await asyncio.sleep(0)  # answers of this turn are written in the next
        for line in list(self._lines):
            line.hang_up()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return left

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.now_s = now_s = time.monotonic()
            for line in list(self._lines):
                reason = line.overdue(now_s)
                if reason:
                    line.close(reason)
                line.cut_if_stuck(now_s)


def server_tls(certificate: str, key: str, client_authority: str = "") -> ssl.SSLContext:
    """TLS 1.2 or newer; with a client authority every terminal must show a certificate of it.

    ConfigurationError: a file cannot be read, is no PEM, or the key is not that of the certificate.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    at = "terminals.tls_certificate and tls_key"
    try:
        context.load_cert_chain(certificate, key)
        if client_authority:
            at = "terminals.tls_client_authority"
            context.load_verify_locations(client_authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:  # it is an OSError too, whose words are the library's
        raise ConfigurationError(f"{at}: no PEM, or the key is of another certificate") from error
    except OSError as error:
        raise ConfigurationError(f"{at}: {error.strerror}") from error
    return context
