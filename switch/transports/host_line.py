"""One TCP connection to a host: bytes and frames, writes of one turn of the loop in one piece, and the session on it."""

import asyncio
from typing import Protocol, cast

from switch.domain.errors import FramingError
from switch.messages.framing import FrameReader
from switch.messages.host_mapping import AnswerKey
from switch.transports.host_session import HostSession, LineState

WRITE_BUFFER_MAX = 256 * 1024  # what the host has not taken; beyond, nothing more is sent on this connection


class LineOwner(Protocol):
    """The link that a connection belongs to."""

    def session(self) -> HostSession:
        """A new conversation."""

    def opened(self, line: "HostLine") -> None:
        """The connection stands."""

    def take(self, line: "HostLine", body: bytes) -> None:
        """A frame has come. FramingError when the connection must be closed."""

    def closed(self, line: "HostLine", reason: str) -> None:
        """The connection is gone."""


class HostLine(asyncio.Protocol):
    """One connection. waiting: requests sent on it that have no answer; full: the host does not take what is sent."""

    def __init__(self, owner: LineOwner, reader: FrameReader) -> None:
        self._owner = owner
        self._reader = reader
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._reason = "lost"
        self.session = owner.session()
        self.waiting: set[AnswerKey] = set()
        self.full = False
        self.served = False  # was signed on at some time
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the conversation."""
        self._transport = cast(
            "asyncio.Transport", transport
        )  # the loop's own class need not inherit from it
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_MAX)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        """Bytes in pieces of any size."""
        try:
            for body in self._reader.feed(data):
                if self._transport is None or self._transport.is_closing():
                    return  # closed by what stood before it
                self._owner.take(self, body)
                self.served = self.served or self.session.state is LineState.SIGNED_ON
            if self._reader.failure is not None:
                raise self._reader.failure
        except FramingError:
            self.close("framing")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        self._transport = None
        self._out = []
        self.session.lost()
        self._owner.closed(self, self._reason)
        self.ended.set()

    def pause_writing(self) -> None:
        """The host does not take what is sent."""
        self.full = True

    def resume_writing(self) -> None:
        """It does again."""
        self.full = False

    def send(self, framed: bytes) -> None:
        """Send a frame; those of one turn of the loop leave in one write."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._write_out)
        self._out.append(framed)

    def _write_out(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def close(self, reason: str) -> None:
        """Close; what was sent in this turn still leaves, what the host does not take does not hold us up."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._write_out()
        self._reason = reason
        self.session.lost()  # at once, or requests of this turn would be sent into a closing connection
        if transport.get_write_buffer_size():
            transport.abort()
        else:
            transport.close()
