"""Load from a process of its own: real sign-ons, frames built and MACed beforehand, every answer read and counted.

Closed loop: each connection keeps `in_flight` requests on the way. Open loop (`rate`): requests leave at fixed instants and a
latency counts from the instant at which its request should have left, so a stall is not hidden by waiting for it.

    python -m loadtests.generator HOST PORT CONNECTIONS IN_FLIGHT PER_CONNECTION CARDS RATE SEED [ACCOUNT FIRST HOT]
"""

import asyncio
import gc
import json
import random
import sys
import time
from collections import Counter, deque
from typing import Any, NamedTuple, cast

import uvloop

from loadtests.town import pan_of, terminal_of
from switch.domain.transactions import AccountKind
from switch.messages.codec import decode
from terminal_sim import crypto
from terminal_sim.frames import CardData, PinPad, Terminal, build_purchase, pack, sign_on_fields

SIGN_ONS_AT_ONCE = 32
FULL_CHECK_EVERY = (
    101  # one answer in so many is decoded and its MAC checked; of the others field 39 is read in place
)
SETTLE_S = 0.5
WARM_UPS = 2
BEAT_S = 0.001  # uvloop's timers know milliseconds only: anything less is no pause, and takes a core from the switch
MEASURING = "measuring\n"  # said when the sign-ons are over, so that what they cost is not counted


class Load(NamedTuple):
    """What to send. rate: requests a second over all connections, 0 for a closed loop.

    account: which pays, as in field 3. first: number of the first terminal. hot: share of requests that come with one and the same card.
    """

    host: str
    port: int
    connections: int
    in_flight: int
    per_connection: int
    cards: int
    rate: float
    seed: int
    account: int = 10
    first: int = 0
    hot: float = 0.0


async def _sign_on(load: Load, terminal: Terminal) -> tuple[PinPad, int]:
    reader, writer = await asyncio.open_connection(load.host, load.port)
    writer.write(
        pack(terminal, "0800", sign_on_fields(terminal, terminal.sign_on_mode, batch_no=0, trace=1), None)
    )
    answer = decode(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
    writer.close()
    if answer.fields[39] != "00":
        raise RuntimeError(f"sign-on of {terminal.terminal_id} was answered {answer.fields[39]}")
    keys = crypto.unwrap_working_keys(terminal.algorithm, terminal.tmk, answer.fields[62])
    return PinPad(terminal, keys), int(answer.fields[60][2:8])


class _Line(asyncio.Protocol):
    """One terminal's connection."""

    def __init__(self, run: "_Run", pad: PinPad, frames: list[bytes]) -> None:
        self.run = run
        self.pad = pad
        self.frames = frames
        self.next = 0
        self.got = 0
        self.sent_at: deque[float] = deque()
        self.rest = b""
        self.warm: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def send(self, at: float) -> None:
        if self.next < len(self.frames):
            self.sent_at.append(at)
            self.transport.write(self.frames[self.next])
            self.next += 1

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        data = self.rest + data if self.rest else data
        at, size, run = 0, len(data), self.run
        while size - at >= 2:
            end = at + 2 + (data[at] << 8 | data[at + 1])
            if size < end:
                break
            run.take(self, data[at + 2 : end], now - self.sent_at.popleft())
            at = end
            if self.warm is not None and not self.warm.done():
                self.warm.set_result(None)
                run.forget()
                continue
            self.got += 1
            if not run.load.rate:
                self.send(now)
            if self.got == len(self.frames) - WARM_UPS:
                run.finished()
        self.rest = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        if self.got < len(self.frames) - WARM_UPS:
            self.run.lost += 1
            self.run.finished()


class _Run:
    """One measurement."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.latencies: list[float] = []
        self.answers: Counter[str] = Counter()
        self.warmed: Counter[str] = Counter()
        self.lost = 0
        self.answer_at = -1  # offset of field 39, the same in every answer of one shape
        self.answer_size = 0
        self.left = load.connections
        self.done = asyncio.Event()

    def take(self, line: _Line, body: bytes, latency: float) -> None:
        self.latencies.append(latency)
        if len(self.latencies) % FULL_CHECK_EVERY == 1 or len(body) != self.answer_size:
            message = decode(body)
            if not line.pad.mac_holds(message.mab, message.field64):
                raise RuntimeError(f"an answer {message.fields[39]} has a wrong MAC")
            answer = cast("str", message.fields[39])
            self.answer_at = body.index(answer.encode() + cast("str", message.fields[41]).encode())
            self.answer_size = len(body)
            self.answers[answer] += 1
        else:
            self.answers[body[self.answer_at : self.answer_at + 2].decode()] += 1

    def forget(self) -> None:
        """The last answer was of the warm-up."""
        self.latencies.pop()
        self.warmed.update(self.answers)
        self.answers.clear()

    def finished(self) -> None:
        self.left -= 1
        if not self.left:
            self.done.set()


async def drive(load: Load) -> dict[str, Any]:
    """Run a load; returns its figures: answers, seconds, rate, latencies in ms."""
    chance = random.Random(load.seed)
    run = _Run(load)
    gate = asyncio.Semaphore(SIGN_ONS_AT_ONCE)
    loop = asyncio.get_running_loop()
    first_trace = 1 + load.seed % 90 * 10_000

    async def prepare(number: int) -> _Line:
        terminal = terminal_of(load.first + number)
        async with gate:
            pad, batch_no = await _sign_on(load, terminal)
        frames = [
            build_purchase(
                terminal,
                pad,
                CardData(pan_of(0 if chance.random() < load.hot else chance.randrange(load.cards)), "001"),
                100,
                batch_no=batch_no,
                trace=first_trace + place,
                account=AccountKind(load.account),
            )
            for place in range(load.per_connection + WARM_UPS)
        ]
        return _Line(run, pad, frames)

    lines = await asyncio.gather(*(prepare(number) for number in range(load.connections)))
    await asyncio.gather(*(_connect(line, load, gate, loop) for line in lines))
    for _ in range(WARM_UPS):
        await asyncio.gather(*(_warm(line, gate) for line in lines))
        await asyncio.sleep(SETTLE_S)  # word of the new keys goes round the processes and each looks again
    gc.collect()
    gc.disable()
    sys.stdout.write(MEASURING)
    sys.stdout.flush()
    processor = time.process_time()
    started = time.perf_counter()
    if load.rate:
        await _paced(run, lines, started)
    else:
        for line in lines:
            for _ in range(load.in_flight):
                line.send(started)
    await run.done.wait()
    seconds = time.perf_counter() - started
    return _figures(run, seconds, time.process_time() - processor)


async def _connect(line: _Line, load: Load, gate: asyncio.Semaphore, loop: asyncio.AbstractEventLoop) -> None:
    async with gate:
        await loop.create_connection(lambda: line, load.host, load.port)


async def _warm(line: _Line, gate: asyncio.Semaphore) -> None:
    """Send a frame whose answer is not measured: the first puts the new keys in force, the second finds them everywhere."""
    async with gate:
        line.warm = asyncio.get_running_loop().create_future()
        line.send(time.perf_counter())
        await line.warm


async def _paced(run: _Run, lines: list[_Line], started: float) -> None:
    total = run.load.connections * run.load.per_connection
    sent = 0
    while sent < total:
        due = min(total, int((time.perf_counter() - started) * run.load.rate) + 1)
        while sent < due:
            lines[sent % len(lines)].send(started + sent / run.load.rate)
            sent += 1
        await asyncio.sleep(BEAT_S)


def _figures(run: _Run, seconds: float, processor_s: float) -> dict[str, Any]:
    ordered = sorted(run.latencies)
    count = len(ordered)

    def ms(share: float) -> float:
        return round(ordered[min(count - 1, int(count * share))] * 1000, 3) if count else 0.0

    return {
        "connections": run.load.connections,
        "in_flight": run.load.in_flight,
        "answers": dict(run.answers),
        "lost_connections": run.lost,
        "seconds": round(seconds, 3),
        "per_second": round(count / seconds, 1),
        "p50_ms": ms(0.5),
        "p99_ms": ms(0.99),
        "max_ms": ms(1.0),
        "generator_cpu_us": round(processor_s / max(count, 1) * 1e6, 1),
    }


def main() -> None:
    """Run one load and print its figures as JSON."""
    kinds = (str, int, int, int, int, int, float, int, int, int, float)
    load = Load(*(kind(word) for kind, word in zip(kinds, sys.argv[1:], strict=False)))
    sys.stdout.write(json.dumps(uvloop.run(drive(load))) + "\n")


if __name__ == "__main__":
    main()
