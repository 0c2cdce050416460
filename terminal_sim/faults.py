"""A bad line: a TCP proxy that loses, delays, repeats, slows down and cuts what passes between terminals and the switch.

It knows frames only by their two length bytes, so that what it drops or repeats is a whole message. Every connection draws
from its own generator, seeded by the proxy's seed, the connection's number and the direction: the same traffic in the same
order meets the same faults. Faults may be changed while traffic flows.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Self

READ_BYTES_MAX = 65_536
CONNECTIONS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens in one direction. Chances are per frame, 0 to 1; ordinals count a connection's frames from 1."""

    drop: float = 0.0
    repeat: float = 0.0  # sent twice in a row
    cut: float = 0.0  # the connection breaks somewhere inside the frame
    delay: float = 0.0
    delay_s: tuple[float, float] = (0.0, 0.0)  # from, to; later frames of the connection wait too
    drop_frames: frozenset[int] = frozenset()
    repeat_frames: frozenset[int] = frozenset()
    cut_after_bytes: int | None = None  # the connection breaks when exactly so many bytes have passed
    drip_bytes: int = 0  # 0: whole frames; else pieces of this size
    drip_pause_s: float = 0.0
    mute: bool = False  # everything is swallowed, the connection stays

    @property
    def none(self) -> bool:
        """Whether bytes pass as they come."""
        return self == Faults()


class _Cut(Exception):
    """The connection shall break now."""


class FaultProxy:
    """Listens on a loopback port and forwards every connection to the target. Use as an async context manager.

    up: faults from terminal to switch; down: from switch to terminal. `counts` says what was done, by name and direction.
    """

    def __init__(
        self, host: str, port: int, *, up: Faults | None = None, down: Faults | None = None, seed: int = 1
    ) -> None:
        self._target = (host, port)
        self.up = up or Faults()
        self.down = down or Faults()
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0

    @property
    def port(self) -> int:
        """Where terminals connect to."""
        assert self._server is not None, "the proxy is not running"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def open_connections(self) -> int:
        """Pairs of connections now."""
        return len(self._tasks)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, backlog=1024)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Break every connection and stop listening."""
        if self._server is not None:
            self._server.close()
        self.cut_all()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def cut_all(self) -> None:
        """Break every connection now; new ones are taken."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._tasks.add(task)
        self._connections += 1
        try:
            await self._carry(reader, writer, self._connections)
        except (OSError, asyncio.CancelledError):
            self.counts["connections lost"] += 1
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        pair = {writer, there_writer}
        for one in pair:
            one.transport.set_write_buffer_limits(
                0
            )  # drain means: handed to the kernel, so a cut loses nothing sent
        self._writers |= pair
        ways = [
            asyncio.ensure_future(self._one_way(reader, there_writer, "up", number)),
            asyncio.ensure_future(self._one_way(there_reader, writer, "down", number)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for way in ways:
                way.cancel()
            results = await asyncio.gather(*ways, return_exceptions=True)
            broken = any(isinstance(result, _Cut | OSError) for result in results)
            for one in pair:
                if broken:
                    one.transport.abort()
                else:
                    one.close()
            self._writers -= pair

    async def _one_way(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str, number: int
    ) -> None:
        random = Random(f"{self.seed}/{number}/{direction}")
        passed = 0
        ordinal = 0
        async for frame in _frames(reader):
            faults = self.up if direction == "up" else self.down
            ordinal += 1
            self.counts[f"{direction} frames"] += 1
            copies = self._copies(faults, random, ordinal, direction)
            if copies and random.random() < faults.delay:
                self.counts[f"{direction} delayed"] += 1
                await asyncio.sleep(random.uniform(*faults.delay_s))
            cut_at = random.randrange(len(frame)) if copies and random.random() < faults.cut else None
            if cut_at is not None:
                self.counts[f"{direction} cut"] += 1
                await self._send(writer, frame[:cut_at], faults)
                raise _Cut
            data = frame * copies
            if faults.cut_after_bytes is not None and passed + len(data) >= faults.cut_after_bytes:
                self.counts[f"{direction} cut"] += 1
                await self._send(writer, data[: max(faults.cut_after_bytes - passed, 0)], faults)
                raise _Cut
            await self._send(writer, data, faults)
            passed += len(data)
        if writer.can_write_eof():
            writer.write_eof()

    def _copies(self, faults: Faults, random: Random, ordinal: int, direction: str) -> int:
        """How often this frame goes on: 0 dropped, 1, or 2 repeated. Draws the same numbers whatever the outcome."""
        dropped = random.random() < faults.drop or ordinal in faults.drop_frames or faults.mute
        repeated = random.random() < faults.repeat or ordinal in faults.repeat_frames
        if dropped:
            self.counts[f"{direction} dropped"] += 1
            return 0
        if repeated:
            self.counts[f"{direction} repeated"] += 1
            return 2
        return 1

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, data: bytes, faults: Faults) -> None:
        step = faults.drip_bytes or len(data) or 1
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
            await writer.drain()
            if faults.drip_bytes:
                await asyncio.sleep(faults.drip_pause_s)


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Whole frames with their length bytes; at the end of the stream whatever is left of one."""
    held = b""
    while data := await reader.read(READ_BYTES_MAX):
        held += data
        at = 0
        while len(held) - at >= 2:
            end = at + 2 + int.from_bytes(held[at : at + 2])
            if len(held) < end:
                break
            yield held[at:end]
            at = end
        held = held[at:]
    if held:
        yield held
