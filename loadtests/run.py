"""`make bench`: every figure of one run on the machine at hand, as JSON; ratios first, because machines differ and are noisy.

    python -m loadtests.run [--quick] [--processes N] [--only PART,...] [--transactions N,...]

Parts: disk, pgbench, codec, authorisations, hosts, idle, offline; and only when asked for memory, a million authorisations, outbox, a
host that comes back to 50 000 messages, lists, a hot list of 500 000 cards to its last signed block, depot, 3 000 terminals that hand
in 500 rides each over MQTT, close, the day's end at several sizes (--transactions), and cutover, what terminals notice of it. Progress
goes to stderr, the JSON document to stdout. It refuses to report when fsync or synchronous_commit is off. Nothing here asserts a
speed: the figures speak.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console

from loadtests import (
    close_bench,
    cutover,
    depot_bench,
    hosts_bench,
    intake_bench,
    lists_bench,
    outbox_bench,
    reconcile_bench,
)
from loadtests.town import STORE_FROM, Serving, Town, pan_of, terminal_of
from switch.domain.decisions import Outcome
from switch.keys.macs import mac_engine
from switch.keys.primitives import Algorithm, MacKey
from switch.messages.answers import build_answer
from switch.messages.codec import decode
from switch.messages.framing import frame
from switch.messages.mapping import read_request
from switch.storage.embedded import EmbeddedPostgres, binaries
from terminal_sim import crypto
from terminal_sim.frames import CardData, PinPad, build_purchase, management_fields, pack

CARDS = 20_000
STORE_TERMINALS = 256
PGBENCH_FLAGS = "-N -M prepared -s 10"
PGBENCH_CLIENTS = (8, 16, 32, 64)
IDLE_TERMINALS = 10_000
MEMORY_RUN = 1_000_000
WATCH_EVERY_S = 10.0
HOT = 0.7
APPROVALS = frozenset({"00"})
OUTBOX_MESSAGES = 50_000
LIVE_RATE = 200.0

console = Console(stderr=True)


def fdatasync_p50_ms(folder: Path, times: int = 300) -> float:
    """Median of so many fdatasyncs of 8 KB, in ms."""
    block = os.urandom(8192)
    taken: list[float] = []
    handle = os.open(folder / "fsync.probe", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for _ in range(times):
            os.write(handle, block)
            started = time.perf_counter()
            os.fdatasync(handle)
            taken.append(time.perf_counter() - started)
    finally:
        os.close(handle)
    return round(statistics.median(taken) * 1000, 3)


def server_facts(url: str) -> dict[str, Any]:
    """PostgreSQL's version and every setting that is not its default."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE source NOT IN ('default', 'override', 'client')"
        ).fetchall()
        version = connection.execute("SHOW server_version").fetchone()
        for name in ("fsync", "synchronous_commit"):
            value = connection.execute(f"SHOW {name}").fetchone()
            if value is None or value[0] != "on":
                raise SystemExit(f"{name} is not on: there is nothing to report")
    shown = {name: value for name, value in rows if "file" not in name and "director" not in name}
    return {"version": version[0] if version else "", "settings": shown}


def pgbench(seconds: int, processes: int) -> dict[str, Any]:
    """The best `pgbench -N -M prepared -s 10` over 8 to 64 clients, on a server with the settings of ours."""
    program = binaries() / "pgbench"
    by_clients: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder), memory_mb=1024) as url:
        subprocess.run([str(program), "-q", "-i", "-s", "10", url], check=True, capture_output=True)
        for clients in PGBENCH_CLIENTS:
            console.print(f"pgbench with {clients} clients")
            flags = f"-n -N -M prepared -c {clients} -j {processes} -T {seconds}"
            command = [str(program), *flags.split(), url]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = re.search(r"tps = ([0-9.]+)", done.stdout)
            assert found is not None, "pgbench prints its rate"
            by_clients[str(clients)] = round(float(found[1]), 1)
        facts = server_facts(url)
    return {
        "flags": PGBENCH_FLAGS,
        "seconds": seconds,
        "by_clients": by_clients,
        "best": max(by_clients.values()),
        "server": facts,
    }


def codec_per_core(count: int) -> dict[str, Any]:
    """Decode, MAC check, typed request, answer, MAC: purchases a second on one core."""
    terminal = terminal_of(0)
    keys = crypto.WorkingKeys(bytes(range(16)), bytes(range(16, 32)), None)
    pad = PinPad(terminal, keys)
    bodies = [
        build_purchase(terminal, pad, CardData(pan_of(number), "001"), 100, batch_no=1, trace=number + 1)[2:]
        for number in range(1_000)
    ]
    engine = mac_engine(5, MacKey(keys.mac, Algorithm.SM4))
    now = datetime.now(UTC)
    outcome = Outcome("00", "632712000001", now, now.date(), "000001")

    def once(body: bytes) -> bytes:
        message = decode(body)
        if engine.field64(message.mab) != message.field64:
            raise RuntimeError("a MAC of our own is wrong")
        read_request(message)
        prefix, mab = build_answer(message, outcome, acquirer="49993350")
        return frame(prefix + mab + engine.field64(mab))

    best = 0.0
    for _ in range(5):
        started = time.process_time()
        for number in range(count):
            once(bodies[number % 1_000])
        best = max(best, count / (time.process_time() - started))
    return {"purchases_per_s": round(best), "us_each": round(1e6 / best, 2)}


class Authorisations:
    """Loads on a served town, each by a generator in a process of its own."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.seed = 0

    def load(
        self,
        connections: int,
        per_connection: int,
        *,
        in_flight: int = 1,
        rate: float = 0.0,
        account: int = 10,
        first: int = 0,
        hot: float = 0.0,
        answers: frozenset[str] = APPROVALS,
        watch: Callable[[], object] = lambda: None,
    ) -> dict[str, Any]:
        """One load; fails when an answer is none of `answers`. watch: is called every WATCH_EVERY_S while it runs."""
        self.seed += 1
        at = self.serving
        shape = (connections, in_flight, per_connection, CARDS, rate, self.seed, account, first, hot)
        words = (at.host, at.port, *shape)
        command = [sys.executable, "-m", "loadtests.generator", *map(str, words)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as generator:
            assert generator.stdout is not None
            generator.stdout.readline()  # MEASURING, or nothing when it failed before
            before = at.cpu_s()
            while True:
                try:
                    said, complaint = generator.communicate(timeout=WATCH_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    watch()
            used_s = at.cpu_s() - before
        if generator.returncode:
            raise RuntimeError(f"the generator failed: {complaint[-800:]}")
        figures: dict[str, Any] = json.loads(said)
        count = sum(figures["answers"].values())
        if not answers >= figures["answers"].keys() or figures["lost_connections"]:
            raise RuntimeError(f"not every request was answered as it should be: {figures['answers']}")
        figures["switch_cpu_us"] = round(used_s / count * 1e6, 1)
        return figures

    def measure(self, scale: float) -> dict[str, Any]:
        """1, 64, 256 and 1 000 connections, 64 x 8, and half of the 256 x 1 rate on a fixed beat."""

        def each(count: int) -> int:
            return max(20, int(count * scale))

        console.print("authorisations: warming up")
        self.load(256, each(100))
        found: dict[str, Any] = {}
        shapes = (
            ("1x1", 1, 1, 3_000),
            ("64x1", 64, 1, 1_000),
            ("256x1", 256, 1, 500),
            ("1000x1", 1_000, 1, 120),
            ("64x8", 64, 8, 1_500),
        )
        for name, connections, in_flight, count in shapes:
            console.print(f"authorisations: {name}")
            found[name] = self.load(connections, each(count), in_flight=in_flight)
        half = found["256x1"]["per_second"] / 2
        console.print(f"authorisations: half of the rate at 256x1, {half:.0f}/s")
        found["half_load"] = self.load(256, max(20, int(half * 10 * scale / 256)), rate=half)
        console.print("authorisations: 256x1, seven of ten with one card")
        found["hot_card"] = self.load(256, each(500), hot=HOT)
        console.print("authorisations: 256x1, seven of ten in one shop")
        found["hot_merchant"] = self.load(STORE_TERMINALS, each(500), first=STORE_FROM)
        for name in ("hot_card", "hot_merchant"):
            found[name]["to_normal"] = round(found[name]["per_second"] / found["256x1"]["per_second"], 2)
        return found


def memory(serving: Serving, count: int) -> dict[str, Any]:
    """Resident memory of the serving processes over a run of so many authorisations in the same sessions, KB as time goes by."""
    load = Authorisations(serving)
    load.load(256, 400)  # connections, caches and prepared statements are there
    seen_kb = [serving.resident_kb()]

    def look() -> None:
        seen_kb.append(serving.resident_kb())
        console.print(f"memory: {seen_kb[-1]} KB, {seen_kb[0]} before the first of {count} authorisations")

    found = load.load(256, max(20, count // 256), watch=look)
    look()
    return {"authorisations": count, "resident_kb": seen_kb, "per_second": found["per_second"]}


async def _hold_idle(serving: Serving, count: int) -> dict[str, Any]:
    before_kb = serving.resident_kb()
    gate = asyncio.Semaphore(200)

    async def dial() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with gate:
            return await asyncio.open_connection(serving.host, serving.port)

    lines = await asyncio.gather(*(dial() for _ in range(count)))
    terminal = terminal_of(0)
    echo = pack(terminal, "0820", management_fields(terminal, "301", batch_no=0, trace=None), None)
    await asyncio.sleep(1.0)
    after_kb = serving.resident_kb()
    answered = 0
    started = time.perf_counter()
    for reader, writer in lines:
        writer.write(echo)
        size = int.from_bytes(await reader.readexactly(2), "big")
        answered += decode(await reader.readexactly(size)).fields[39] == "00"
    seconds = time.perf_counter() - started
    for _, writer in lines:
        writer.close()
    return {
        "terminals": count,
        "kb_each": round((after_kb - before_kb) / count, 2),
        "echoes_answered": answered,
        "echo_seconds": round(seconds, 2),
    }


def idle(serving: Serving, count: int) -> dict[str, Any]:
    """Memory of so many connected terminals, and that each is served."""
    console.print(f"{count} idle terminals")
    return asyncio.run(_hold_idle(serving, count))


def offline(scale: float) -> list[dict[str, Any]]:
    """Offline records a second: large and small uploads."""
    cases: list[dict[str, int]] = [
        {"size": 1_000, "records": int(200_000 * scale)},
        {"size": 1_000, "records": int(200_000 * scale), "workers": 1},
        {"size": 5, "records": int(50_000 * scale)},
    ]
    found = []
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder), memory_mb=1024) as url:
        for case in cases:
            console.print(f"offline records: uploads of {case['size']}, {case.get('workers', 0)} TAC workers")
            found.append(intake_bench.measure(url, **case))
    return found


def outbox(processes: int, scale: float) -> dict[str, Any]:
    """A host comes back to its outbox while terminals pay."""
    console.print("outbox: building a town, and what its bank must be told")

    return outbox_bench.measure(processes, int(OUTBOX_MESSAGES * scale), LIVE_RATE, live_load)


def depot(processes: int, scale: float) -> dict[str, Any]:
    """Thousands of terminals hand their rides in over MQTT while terminals pay."""
    console.print("depot: building a town and its buses")
    return depot_bench.measure(processes, scale, live_load)


def live_load(serving: Serving) -> Callable[[float], dict[str, Any]]:
    """Payments at a fixed rate, for so many seconds at a time."""
    authorisations = Authorisations(serving)
    return lambda seconds: authorisations.load(64, int(LIVE_RATE * seconds / 64), rate=LIVE_RATE)


def with_town(
    processes: int,
    use: Callable[[Serving], dict[str, Any]],
    beside: Callable[[Town], AbstractContextManager[None]] = lambda _town: nullcontext(),
) -> dict[str, Any]:
    """Build a town, serve it, use it, audit it. beside: what else must run."""
    with tempfile.TemporaryDirectory() as name:
        town = Town(Path(name), terminals=STORE_FROM + STORE_TERMINALS, cards=CARDS, processes=processes)
        console.print(f"building a town of {town.terminals} terminals and {CARDS} cards")
        town.build()
        with beside(town), town.serving() as serving:
            found = use(serving)
            found["start_to_ready_s"] = round(serving.start_s, 2)
        found["audit"] = "clean" if town.audit() else "FAILED"
        with town.serving() as serving:
            found["start_again_s"] = round(serving.start_s, 2)
    return found


def main() -> None:
    """Run the parts and print one JSON document."""
    parser = argparse.ArgumentParser(description="Measure this switch on this machine.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the load: to see that it runs")
    parser.add_argument("--processes", type=int, default=2, help="serving processes")
    parser.add_argument("--only", default="", help="parts, separated by commas")
    parser.add_argument(
        "--transactions",
        type=lambda words: [int(word) for word in words.split(",")],
        default=list(close_bench.SIZES),
        help="sizes of the days that are closed, or compared, separated by commas; 10000000 takes 25 GB of disk",
    )
    options = parser.parse_args()
    parts = (
        set(options.only.split(","))
        if options.only
        else {"disk", "pgbench", "codec", "authorisations", "hosts", "idle", "offline"}
    )
    scale = 0.1 if options.quick else 1.0
    document: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "kernel": platform.release(),
        },
        "switch": {"processes": options.processes, "shards": 2},
    }
    with tempfile.TemporaryDirectory() as name:
        if "disk" in parts:
            document["fdatasync_p50_ms"] = fdatasync_p50_ms(Path(name))
    if "codec" in parts:
        console.print("codec and MAC on one core")
        document["codec_and_mac"] = codec_per_core(int(20_000 * max(scale, 0.2)))
    if "pgbench" in parts:
        document["pgbench"] = pgbench(3 if options.quick else 10, 2)
    if "authorisations" in parts:
        document["authorisations"] = with_town(
            options.processes, lambda serving: Authorisations(serving).measure(scale)
        )
        if "pgbench" in parts:
            ratio = document["authorisations"]["256x1"]["per_second"] / document["pgbench"]["best"]
            document["ratio_256x1_to_pgbench"] = round(ratio, 2)
    if "hosts" in parts:
        document["hosts"] = with_town(
            options.processes,
            lambda serving: hosts_bench.measure(Authorisations(serving).load, scale),
            hosts_bench.beside,
        )
    if "idle" in parts:
        document["idle"] = with_town(
            options.processes, lambda serving: idle(serving, int(IDLE_TERMINALS * scale))
        )
    if "memory" in parts:
        document["memory"] = with_town(
            options.processes, lambda serving: memory(serving, int(MEMORY_RUN * scale))
        )
    if "offline" in parts:
        document["offline"] = offline(scale)
    if "depot" in parts:
        document["depot"] = depot(options.processes, scale)
    if "close" in parts:
        document["close"] = close_bench.measure_all(options.transactions, console.print)
    if "cutover" in parts:
        day = int(cutover.TRANSACTIONS * scale)
        document["cutover"] = [
            cutover.measure(options.processes, LIVE_RATE, day, workers, console.print)
            for workers in (0, 1, 2)
        ]
    if "outbox" in parts:
        document["outbox"] = outbox(options.processes, scale)
    if "lists" in parts:
        console.print("lists: a hot list to its last signed block")
        document["lists"] = lists_bench.measure(int(lists_bench.CARDS * scale))
    if "reconcile" in parts:
        document["reconcile"] = []
        for items in options.transactions:
            console.print(f"reconcile: a bank's file of {items:,} items against our books")
            document["reconcile"].append(reconcile_bench.measure(items))
    if "disk" in parts:
        with tempfile.TemporaryDirectory() as name:
            document["fdatasync_p50_ms_after"] = fdatasync_p50_ms(Path(name))
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
