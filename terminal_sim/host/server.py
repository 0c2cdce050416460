"""A host on a TCP port: takes requests of a switch, books them, and answers as its script says."""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Self, cast

from switch.domain.errors import FramingError
from switch.messages.dialect import Dialect, HostMessage, UnreadableMessage, decode, encode
from switch.messages.framing import FrameReader, frame
from switch.messages.host_1987 import ANSWER_MTI, ECHO, KEY_CHANGE, SIGN_OFF, SIGN_ON
from terminal_sim.crypto import CheckValueError
from terminal_sim.host.book import HostBook
from terminal_sim.host.keys import Generation, HostKeyRing, ZoneSecrets
from terminal_sim.host.script import NORMAL, Behaviour, Script, Step

READ_BYTES_MAX = 65_536
DELAYED_MAX = 100_000
ECHOED = (2, 3, 4, 7, 11, 32, 33, 37, 41, 42, 49, 70, 100)
SM4_PIN_TAG = b"\xdf\x51\x10"
REMEMBERED_ANSWERS = 1_000


class _Connection(asyncio.Protocol):
    """One connection of the switch."""

    def __init__(self, host: "SimulatedHost") -> None:
        self._host = host
        self._reader = FrameReader(host.dialect.frames)
        self.transport: asyncio.Transport | None = None
        self.swallows = False
        self.signed_on = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # the loop's own class need not inherit from it
        self._host.connections.add(self)
        if len(self._host.connections) > self._host.connections_max:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.connections.discard(self)
        self.transport = None

    def data_received(self, data: bytes) -> None:
        if self.swallows:
            return
        try:
            for body in self._reader.feed(data):
                if not self.swallows:
                    self._host.take(self, body)
        except FramingError:
            self._host.counts["framing"] += 1
            self.abort()

    def send(self, framed: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing() and not self.swallows:
            self.transport.write(framed)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class SimulatedHost:
    """Use as an async context manager. `counts` says what came and what was done about it."""

    def __init__(
        self,
        dialect: Dialect,
        secrets: ZoneSecrets,
        book: HostBook,
        script: Script | None = None,
        *,
        own_code: str = "",
        connections_max: int = 1_000,
    ) -> None:
        self.dialect = dialect
        self.keys = HostKeyRing(secrets)
        self.book = book
        self.script = script or Script()
        self.connections_max = connections_max
        self.connections: set[_Connection] = set()
        self.counts: Counter[str] = Counter()
        self.sign_on_code = "00"  # what a sign-on is answered
        self.scripted: frozenset[str] | None = None  # message types that the script is about; None: all
        self._own_code = own_code
        self._server: asyncio.Server | None = None
        self._port = 0
        self._timers: set[asyncio.TimerHandle] = set()
        self._answers: deque[bytes] = deque(maxlen=REMEMBERED_ANSWERS)
        self._trace = 0

    @property
    def port(self) -> int:
        """Where the switch connects to."""
        return self._port

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), host, port or self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def die(self) -> None:
        """Be gone: no port, no connection. `start` comes back on the same port, with the same books."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self.connections):
            connection.abort()

    async def close(self) -> None:
        """End for good."""
        self.die()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    # ------------------------------------------------------------------ what comes

    def take(self, connection: _Connection, body: bytes) -> None:
        """A frame of the switch."""
        try:
            message = decode(self.dialect, body)
        except UnreadableMessage as error:
            self.counts["unreadable"] += 1
            readable = error.readable
            if {7, 11} <= readable.fields.keys() and readable.mti in ANSWER_MTI:
                connection.send(self._answer(readable, {39: "30"}, self.keys.current))
            return
        if message.mti not in ANSWER_MTI:
            self.counts[f"answer {message.mti} {message.fields.get(70, '')}"] += 1
            return
        generation = self.keys.verify(message.mab, message.mac, self._now_s())
        if generation is None:
            self.counts["wrong mac"] += 1
            connection.send(self._answer(message, {39: "A0"}, self.keys.current))
            return
        self.counts[message.mti if message.mti != "0800" else f"0800 {message.fields.get(70, '')}"] += 1
        if message.mti == "0800":
            self._network(connection, message, generation)
        else:
            meant = self.scripted is None or message.mti in self.scripted
            self._act(connection, message, generation, self.script.next() if meant else NORMAL)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _act(self, connection: _Connection, message: HostMessage, generation: Generation, step: Step) -> None:
        behaviour = step.behaviour
        self.counts[behaviour.value] += 1
        if behaviour is Behaviour.HALF_OPEN:
            connection.swallows = True
        if behaviour in (Behaviour.HALF_OPEN, Behaviour.DEAF):
            return
        if not connection.signed_on or behaviour is Behaviour.REFUSES:
            connection.send(self._answer(message, {39: "91"}, generation))
            return
        if behaviour is Behaviour.WAVERS:
            connection.send(self._answer(message, {39: "51"}, generation))
        answer = self._settle(message, generation)
        if behaviour is Behaviour.SILENT:
            return
        if behaviour is Behaviour.DIES:
            self.die()
            self._later(step.seconds, self._come_back)
            return
        if behaviour is Behaviour.OTHER_AMOUNT and 4 in message.fields:
            answer = answer | {4: f"{int(message.fields[4]) + 100:012d}"}
        framed = self._answer(message, answer, generation)
        if behaviour is Behaviour.WRONG_MAC:
            framed = framed[:-1] + bytes([framed[-1] ^ 1])
        elif behaviour is Behaviour.GARBLED:
            framed = (int.from_bytes(framed[:2]) - 1).to_bytes(2) + framed[2:-1]
        if behaviour is Behaviour.OLD_SEQUENCE and self._answers:
            connection.send(self._answers[0])
        self._answers.append(framed)
        if behaviour in (Behaviour.SLOW, Behaviour.WAVERS):
            self._later(step.seconds, connection.send, framed)
            return
        connection.send(framed)
        if behaviour is Behaviour.DUPLICATE:
            connection.send(framed)

    def _settle(self, message: HostMessage, generation: Generation) -> dict[int, Any]:
        fields = message.fields
        before = self.book.stored(message.mti, fields)
        if before is not None:
            self.counts["repeat"] += 1
            return before
        pan = fields.get(2, "")
        pin = self.book.pin_of(pan) if message.mti in ("0100", "0200") else None
        if pin is not None:
            block = fields.get(52) or fields.get(55, b"").removeprefix(SM4_PIN_TAG)
            if not block or not self.keys.pin_is(generation, block, pin, pan):
                return self.book.refuse(message.mti, fields, "55")
        return self.book.settle(message.mti, fields)

    def _later(self, seconds: float, call: Any, *arguments: Any) -> None:
        if len(self._timers) >= DELAYED_MAX:
            self.counts["not delayed"] += 1
            return

        def run() -> None:
            self._timers.discard(timer)
            call(*arguments)

        timer = asyncio.get_running_loop().call_later(seconds, run)
        self._timers.add(timer)

    def _come_back(self) -> None:
        self._coming = asyncio.ensure_future(self.start())

    def _answer(self, message: HostMessage, answer: Mapping[int, Any], generation: Generation) -> bytes:
        fields = {number: message.fields[number] for number in ECHOED if number in message.fields}
        return self._framed(ANSWER_MTI[message.mti], fields | dict(answer), generation)

    def _framed(self, mti: str, fields: Mapping[int, Any], generation: Generation) -> bytes:
        mab = encode(self.dialect, mti, fields)
        return frame(mab + generation.mac.field64(mab), self.dialect.frames)

    # ------------------------------------------------------------------ network management

    def _network(self, connection: _Connection, message: HostMessage, generation: Generation) -> None:
        code = message.fields.get(70, "")
        response = "00"
        if code == SIGN_ON:
            response = self.sign_on_code
            connection.signed_on = response == "00"
        elif code == SIGN_OFF:
            connection.signed_on = False
        elif code == KEY_CHANGE:
            try:
                generation = self.keys.receive(message.fields.get(62, b""))
            except CheckValueError:
                response = "A7"
        elif code != ECHO:
            response = "40"
        connection.send(self._answer(message, {39: response}, generation))

    def ask(self, code: str) -> int:
        """Send a network management request on every connection; returns on how many."""
        for connection in self.connections:
            self._trace += 1
            fields = {7: "0101000000", 11: f"{self._trace % 1_000_000:06d}", 70: code}
            if self._own_code:
                fields[33] = self._own_code
            connection.signed_on = code == SIGN_ON or (connection.signed_on and code != SIGN_OFF)
            connection.send(self._framed("0800", fields, self.keys.current))
        return len(self.connections)
