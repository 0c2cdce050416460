"""A depot's evening: thousands of terminals hand their rides in over MQTT while shops go on selling.

    python -m loadtests.run --only depot

The broker is mosquitto where it is installed, else the one of the demonstration. Two rushes. The first, of a fifth of the terminals, goes as fast as it can and gives the rate. The second is of all, at half of that rate: its
receipts, the memory of the serving processes, and what online payments beside it take, compared with the same payments alone.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from loadtests.town import Serving, Town
from terminal_sim.broker import EmbeddedBroker

TERMINALS: Final = 3_000
RECORDS: Final = 500
FIRST: Final = 256  # terminals before it pay online
CARDS_PER_RUSH: Final = 30_000
LIVE_CARDS: Final = 20_000
LIVE_S: Final = 4.0
SAMPLE_S: Final = 0.5
BROKER_SETTINGS: Final = """\
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 100000
persistence false
log_dest none
"""

Live = Callable[[float], dict[str, Any]]


class _Memory(threading.Thread):
    """Watches the serving processes' memory while a rush runs, KB."""

    def __init__(self, serving: Serving) -> None:
        super().__init__(daemon=True)
        self._serving = serving
        self._over = threading.Event()
        self.seen_kb: list[int] = []

    def run(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.seen_kb.append(self._serving.resident_kb())

    def __enter__(self) -> "_Memory":
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self.join()


@contextmanager
def broker(folder: Path) -> Iterator[tuple[str, int]]:
    """What it is, and its port."""
    program = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if program is None:
        with EmbeddedBroker(folder) as embedded:
            yield "iotcore", embedded.port
        return
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(BROKER_SETTINGS.format(port=port), encoding="utf-8")
    process = subprocess.Popen([program, "-c", str(config)], stdin=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield "mosquitto", port
    finally:
        process.terminate()
        process.wait(30)


def _rush(port: int, first: int, terminals: int, first_card: int, rate: float) -> subprocess.Popen[str]:
    words = ("127.0.0.1", port, first, terminals, RECORDS, first_card, CARDS_PER_RUSH, rate)
    return subprocess.Popen(
        [sys.executable, "-m", "loadtests.depot_rush", *map(str, words)], stdout=subprocess.PIPE, text=True
    )


def _figures(process: subprocess.Popen[str], said: str) -> dict[str, Any]:
    if process.returncode:
        raise RuntimeError("the rush failed, see above")
    figures: dict[str, Any] = json.loads(said.splitlines()[-1])
    # One TAC in two thousand million is 00000000 or FFFFFFFF by nature, and so its record is grey (04).
    if not figures["results"].keys() <= {"10", "04"} or figures["batches_refused"]:
        raise RuntimeError(f"not every record was taken: {figures['results']}, {figures['batches_refused']}")
    return figures


def measure(processes: int, scale: float, live: Callable[[Serving], Live]) -> dict[str, Any]:
    """Both rushes. live: of a served town, a load for so many seconds."""
    terminals = max(20, int(TERMINALS * scale))
    trial = max(10, terminals // 5)
    with tempfile.TemporaryDirectory() as name, broker(Path(name)) as (what, port):
        town = Town(
            Path(name),
            terminals=FIRST + trial + terminals,
            cards=max(LIVE_CARDS, 2 * CARDS_PER_RUSH),
            processes=processes,
        )
        town.environment |= {"CARDSWITCH_MQTT__HOST": "127.0.0.1", "CARDSWITCH_MQTT__PORT": str(port)}
        town.build()
        with town.serving() as serving:
            pay = live(serving)
            pay(LIVE_S)  # warms up
            alone = [pay(LIVE_S) for _ in range(3)]
            with _rush(port, FIRST, trial, 0, 0.0) as process:
                said, _ = process.communicate()
            fastest = _figures(process, said)
            with _rush(
                port, FIRST + trial, terminals, CARDS_PER_RUSH, fastest["records_per_s"] / 2
            ) as process:
                assert process.stdout is not None
                process.stdout.readline()  # measuring, or nothing when it failed before
                with _Memory(serving) as memory:
                    beside = [pay(LIVE_S)]
                    while process.poll() is None and len(beside) < 200:
                        beside.append(pay(LIVE_S))
                    said, _ = process.communicate()
            half = _figures(process, said)
        clean = town.audit()
    beside = beside[:-1] or beside  # the last went on when the rush was over
    return {
        "broker": what,
        "as_fast_as_it_can": fastest,
        "at_half_of_that": half,
        "memory_kb": {"first": memory.seen_kb[0], "largest": max(memory.seen_kb), "last": memory.seen_kb[-1]},
        "online_p99_ms": {
            "alone": [one["p99_ms"] for one in alone],
            "beside_the_rush": [one["p99_ms"] for one in beside],
        },
        "audit": "clean" if clean else "FAILED",
    }
