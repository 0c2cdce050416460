"""Lines that ask for too much: every bound of a connection, on real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from switch.domain.errors import FramingError
from switch.routing.answering import Peer
from switch.transports import tcp_terminals
from switch.transports.tcp_terminals import Limits, TerminalListener

BODY = b"\x60" + bytes(30)
FRAME = len(BODY).to_bytes(2) + BODY
ANSWER = FRAME


class Watch:
    """Remembers why lines were ended."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def connected(self, count: int) -> None:
        """So many are open."""

    def refused(self, reason: str) -> None:
        """A line was ended by a rule."""
        self.reasons.append(reason)


class Desk:
    """Receives frames; answers them when told to, or in another turn of the loop."""

    def __init__(self, *, trusted: bool = True, answer: bytes = ANSWER) -> None:
        self.waiting: list[Peer] = []
        self.most = 0
        self.received = 0
        self.by_itself = True
        self._trusted = trusted
        self._answer = answer

    def receive(self, _body: bytes, peer: Peer) -> None:
        self.received += 1
        self.waiting.append(peer)
        self.most = max(self.most, len(self.waiting))
        if self.by_itself:
            asyncio.get_running_loop().call_later(0.001, self.answer_one)

    def answer_one(self) -> None:
        self.waiting.pop(0).answer(self._answer, trusted=self._trusted)


@asynccontextmanager
async def listening(
    receive: Callable[[bytes, Peer], None], **limits: float
) -> AsyncIterator[tuple[TerminalListener, Watch, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A listener and one connection to it."""
    watch = Watch()
    listener = TerminalListener(receive, watch, Limits(**limits))  # type: ignore[arg-type]  # numbers as the fields have them
    port = await listener.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(60):
            yield listener, watch, reader, writer
    finally:
        writer.close()
        await listener.drain(0.1)


async def none_open(listener: TerminalListener) -> None:
    while listener.open_lines:
        await asyncio.sleep(0.01)


async def test_frames_that_come_in_one_piece_are_in_flight_only_as_many_as_may_be() -> None:
    desk = Desk()
    async with listening(desk.receive, in_flight_max=5) as (_, _, reader, writer):
        writer.write(FRAME * 500)
        assert await reader.readexactly(len(ANSWER) * 500) == ANSWER * 500
        assert desk.most == 5


async def test_a_stranger_gets_no_more_requests_in_than_his_limit_however_they_come() -> None:
    desk = Desk(trusted=False)
    async with listening(desk.receive, in_flight_max=8, stranger_frames_max=10) as (_, watch, reader, writer):
        writer.write(FRAME * 2_000)
        answers = await reader.read(-1)
        assert len(answers) // len(ANSWER) <= 10 + 8
        assert desk.received <= 10 + 8
        assert watch.reasons == ["strange"]


async def test_requests_left_unanswered_make_room_for_others() -> None:
    peers: list[Peer] = []
    async with listening(lambda _body, peer: peers.append(peer), in_flight_max=2) as (_, _, reader, writer):
        writer.write(FRAME * 3)
        while len(peers) < 2:
            await asyncio.sleep(0.01)
        peers[0].leave_unanswered()
        while len(peers) < 3:
            await asyncio.sleep(0.01)
        peers[2].answer(ANSWER, trusted=True)
        assert await reader.readexactly(len(ANSWER)) == ANSWER


async def test_a_peer_that_has_closed_its_side_gets_its_answers_and_then_the_end() -> None:
    desk = Desk()
    async with listening(desk.receive, in_flight_max=2) as (listener, _, reader, writer):
        writer.write(FRAME * 7)
        writer.write_eof()
        assert await reader.read(-1) == ANSWER * 7
        await none_open(listener)


async def test_a_peer_that_never_reads_cannot_keep_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_terminals, "SWEEP_S", 0.05)
    monkeypatch.setattr(tcp_terminals, "LAST_WORDS_S", 0.3)
    desk = Desk(answer=bytes(1_000_000))
    async with listening(desk.receive, idle_s=0.5, in_flight_max=4) as (listener, watch, _, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport reads
        writer.write(FRAME * 64)
        await none_open(listener)
        assert watch.reasons == ["idle"]
        assert desk.received < 64


async def test_a_byte_now_and_then_does_not_keep_a_frame_open_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcp_terminals, "SWEEP_S", 0.02)
    async with listening(Desk().receive, partial_frame_s=0.3) as (listener, watch, _, writer):
        for byte in FRAME[:-1]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
            if not listener.open_lines:
                break
        assert watch.reasons == ["partial"]


async def test_a_frame_that_the_listener_itself_does_not_read_to_its_end_is_not_held_against_its_sender(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcp_terminals, "SWEEP_S", 0.02)
    desk = Desk()
    desk.by_itself = False
    async with listening(desk.receive, partial_frame_s=0.3, in_flight_max=1) as (_, watch, reader, writer):
        writer.write(FRAME + FRAME[:10])
        while not desk.waiting:
            await asyncio.sleep(0.01)
        writer.write(FRAME[10:])  # all is sent; the first has its answer later than a frame may take
        await asyncio.sleep(0.6)
        desk.answer_one()
        while not desk.waiting:
            await asyncio.sleep(0.01)
        desk.answer_one()
        await reader.readexactly(2 * len(ANSWER))
        assert not watch.reasons


async def test_a_frame_that_cannot_be_answered_ends_the_connection_after_those_before_it() -> None:
    desk = Desk()

    def receive(body: bytes, peer: Peer) -> None:
        if desk.received == 2:
            raise FramingError("no place")
        desk.receive(body, peer)
        desk.answer_one()

    desk.by_itself = False
    async with listening(receive) as (_, watch, reader, writer):
        writer.write(FRAME * 5)
        assert await reader.read(-1) == ANSWER * 2
        assert watch.reasons == ["framing"]
