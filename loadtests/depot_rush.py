"""A depot's evening from a process of its own: terminals at a broker, each handing in a batch of rides, every receipt read and timed.

Closed loop (rate 0): so many batches are on their way at any moment. Open loop: batches leave at fixed instants, and a receipt's time counts
from the instant at which its batch should have left.

    python -m loadtests.depot_rush HOST PORT FIRST TERMINALS RECORDS FIRST_CARD CARDS RATE
"""

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

import uvloop

from loadtests.generator import BEAT_S, MEASURING, SETTLE_S, SIGN_ONS_AT_ONCE
from loadtests.intake_bench import make_records
from loadtests.town import DTK, terminal_of
from switch.keys.primitives import Algorithm
from switch.messages.codec import decode
from terminal_sim import crypto
from terminal_sim.frames import PinPad, Terminal, pack, sign_on_fields
from terminal_sim.mqtt import Broker, Delivered, MqttConnection
from terminal_sim.mqtt_batches import pack_batch, read_receipt
from terminal_sim.mqtt_device import prefix_of

IN_FLIGHT = 256
RUSH_MAX_S = 900.0


class Rush(NamedTuple):
    """first: number of the first terminal. records: of each terminal, one batch. rate: records a second over all, 0 for a closed loop."""

    host: str
    port: int
    first: int
    terminals: int
    records: int
    first_card: int
    cards: int
    rate: float


class _Bus:
    """One terminal at the broker, with one batch."""

    def __init__(self, run: "_Run", terminal: Terminal) -> None:
        self.run = run
        self.terminal = terminal
        self.prefix = prefix_of(terminal.terminal_id)
        self.sent_at = 0.0
        self.batch = b""
        self.line: MqttConnection
        self._answer: asyncio.Future[bytes]

    async def sign_on(self, broker: Broker) -> PinPad:
        """Connect, subscribe, sign on with a frame over the same line."""
        self.line = await MqttConnection.open(broker, self._take)
        await self.line.subscribe([f"{self.prefix}/+/down"])
        self._answer = asyncio.get_running_loop().create_future()
        terminal = self.terminal
        fields = sign_on_fields(terminal, terminal.sign_on_mode, batch_no=0, trace=1)
        self.line.publish_soon(f"{self.prefix}/iso/up", pack(terminal, "0800", fields, None)[2:])
        async with asyncio.timeout(RUSH_MAX_S):
            answer = decode(await self._answer)
        if answer.fields[39] != "00":
            raise RuntimeError(f"sign-on of {terminal.terminal_id} was answered {answer.fields[39]}")
        keys = crypto.unwrap_working_keys(terminal.algorithm, terminal.tmk, answer.fields[62])
        return PinPad(terminal, keys)

    def hand_in(self, at: float) -> None:
        """Publish the batch; at: when it is due."""
        self.sent_at = at
        self.line.publish_soon(f"{self.prefix}/purse/up", self.batch)

    def _take(self, message: Delivered, _mid: int) -> bool:
        if message.topic.endswith("/purse/down"):
            self.run.took(self, message.payload)
        elif not self._answer.done():
            self._answer.set_result(message.payload)
        return True


class _Run:
    """One measurement."""

    def __init__(self, rush: Rush) -> None:
        self.rush = rush
        self.waiting: list[_Bus] = []
        self.left = rush.terminals
        self.seconds: list[float] = []
        self.results: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.done = asyncio.Event()

    def took(self, bus: _Bus, payload: bytes) -> None:
        now = time.perf_counter()
        receipt = read_receipt(payload)
        self.seconds.append(now - bus.sent_at)
        if receipt.result == "00":
            self.results.update(result for _, result in receipt.results)
        else:
            self.refused[receipt.result] += 1
        self.left -= 1
        if not self.left:
            self.done.set()
        if not self.rush.rate and self.waiting:
            self.waiting.pop().hand_in(now)


def _rides(rush: Rush) -> list[bytes]:
    """Rides of all terminals, one after the other: number n is of terminal n % terminals."""
    roots = {Algorithm.TDES: bytes.fromhex(DTK["3DES"]), Algorithm.SM4: bytes.fromhex(DTK["SM4"])}
    return make_records(
        rush.records * rush.terminals,
        rush.cards,
        rush.terminals,
        first_card=rush.first_card,
        first_psam=rush.first,
        roots=roots,
    )


async def drive(rush: Rush) -> dict[str, Any]:
    """Run a rush; its figures."""
    rides = _rides(rush)
    run = _Run(rush)
    gate = asyncio.Semaphore(SIGN_ONS_AT_ONCE)

    async def prepare(number: int) -> _Bus:
        terminal = terminal_of(rush.first + number)
        bus = _Bus(run, terminal)
        async with gate:
            pad = await bus.sign_on(Broker(rush.host, rush.port, f"bus-{terminal.terminal_id}"))
        bus.batch = pack_batch(terminal, pad, 1, rides[number :: rush.terminals])
        return bus

    buses = await asyncio.gather(*(prepare(number) for number in range(rush.terminals)))
    rides.clear()
    await asyncio.sleep(SETTLE_S)  # word of the new keys goes round the processes
    gc.collect()
    gc.disable()
    sys.stdout.write(MEASURING)
    sys.stdout.flush()
    started = time.perf_counter()
    async with asyncio.timeout(RUSH_MAX_S):
        if rush.rate:
            await _paced(rush, buses, started)
        else:
            run.waiting = list(buses[IN_FLIGHT:])
            for bus in buses[:IN_FLIGHT]:
                bus.hand_in(started)
        await run.done.wait()
    return _figures(run, time.perf_counter() - started)


async def _paced(rush: Rush, buses: list[_Bus], started: float) -> None:
    sent = 0
    batches_per_s = rush.rate / rush.records
    while sent < len(buses):
        due = min(len(buses), int((time.perf_counter() - started) * batches_per_s) + 1)
        while sent < due:
            buses[sent].hand_in(started + sent / batches_per_s)
            sent += 1
        await asyncio.sleep(BEAT_S)


def _figures(run: _Run, seconds: float) -> dict[str, Any]:
    ordered = sorted(run.seconds)
    count = len(ordered)
    return {
        "terminals": run.rush.terminals,
        "records": run.rush.terminals * run.rush.records,
        "results": dict(run.results),
        "batches_refused": dict(run.refused),
        "seconds": round(seconds, 2),
        "records_per_s": round(sum(run.results.values()) / seconds),
        "receipt_p50_s": round(ordered[count // 2], 3),
        "receipt_p99_s": round(ordered[min(count - 1, int(count * 0.99))], 3),
    }


def main() -> None:
    """Run one rush and print its figures as JSON."""
    kinds = (str, int, int, int, int, int, int, float)
    rush = Rush(*(kind(word) for kind, word in zip(kinds, sys.argv[1:], strict=True)))
    sys.stdout.write(json.dumps(uvloop.run(drive(rush))) + "\n")


if __name__ == "__main__":
    main()
