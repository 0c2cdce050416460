"""What terminals notice while a day is closed: latency of payments at a fixed rate before, during and after `cardswitch close`.

Everything is real: a town, its serving processes, generators in processes of their own, the command. The day is filled beforehand
(clearing_day.py), so that the close has work for some while; it cuts over under load, and the first piece of load begins with it.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from loadtests.clearing_day import Size, fill_day, settle_down
from loadtests.town import Serving, Town
from switch.ledger.days import open_day
from switch.storage.pool import connect

TRANSACTIONS: Final = 200_000
AUDITED_MAX: Final = 50_000
TERMINALS, CARDS = 1_000, 20_000
CONNECTIONS: Final = 64
PIECE_S: Final = 4.0  # of load: figures are taken piece by piece
PIECES_BEFORE, PIECES_AFTER = 4, 2
CLOSE_S: Final = 900.0  # given up after that


def measure(
    processes: int, rate: float, transactions: int, workers: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Close a day of so many transactions under `rate` payments a second, with `workers` of clearing.parallel_workers."""
    with tempfile.TemporaryDirectory() as name:
        town = Town(Path(name), terminals=TERMINALS, cards=CARDS, processes=processes)
        tell(f"cut-over: building a town and a day of {transactions} transactions")
        town.build()
        with town.serving() as serving:
            asyncio.run(_fill(serving.database_url, transactions))
            load = _Load(serving, rate)
            load.piece()  # warms up
            tell(f"cut-over: {rate:.0f} payments a second, before")
            before = [load.piece() for _ in range(PIECES_BEFORE)]
            tell("cut-over: closing")
            closing = _Closing(town, workers)
            during = [load.piece(closing.start)]
            while closing.running():
                during.append(load.piece())
            if len(during) > 1:
                during.pop()  # the close ended in it
            report = closing.end()
            tell("cut-over: after")
            after = [load.piece() for _ in range(PIECES_AFTER)]
        audited = (
            ("clean" if town.audit() else "FAILED") if transactions <= AUDITED_MAX else "left out: too large"
        )
    found = {
        "before": _shown(before),
        "cut_over": _shown(during[:1]),
        "during": _shown(during),
        "after": _shown(after),
    }
    return {
        "transactions": transactions,
        "payments_per_second": rate,
        "parallel_workers": workers,
        "close_s": round(closing.seconds, 1),
        "steps_s": report,
        **found,
        "cut_over_p99_ratio": round(found["cut_over"]["p99_ms"] / found["before"]["p99_ms"], 2),
        "p50_ratio": round(found["during"]["p50_ms"] / found["before"]["p50_ms"], 2),
        "p99_ratio": round(found["during"]["p99_ms"] / found["before"]["p99_ms"], 2),
        "audit": audited,
    }


async def _fill(url: str, transactions: int) -> None:
    size = Size.of(transactions)._replace(terminals=TERMINALS, cards=CARDS)
    async with await connect(url) as connection:
        day = await open_day(connection)
        assert day is not None
        past = datetime.now(day.begins_at.tzinfo) - day.begins_at
        await fill_day(connection, day.day, size, day.begins_at, past - timedelta(seconds=5))
        await settle_down(connection, day.day)


class _Load:
    """Pieces of load on a served town, each with trace numbers of its own."""

    def __init__(self, serving: Serving, rate: float) -> None:
        self._at = serving
        self._rate = rate
        self._seed = 0

    def piece(self, begun: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """PIECE_S of payments; its figures. begun: called when the first is sent."""
        self._seed += 1
        each = int(self._rate * PIECE_S / CONNECTIONS)
        words = (self._at.host, self._at.port, CONNECTIONS, 1, each, CARDS, self._rate, self._seed)
        command = [sys.executable, "-m", "loadtests.generator", *map(str, words)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as generator:
            assert generator.stdout is not None
            generator.stdout.readline()  # it measures from here on
            begun()
            said, complaint = generator.communicate()
        if generator.returncode:
            raise RuntimeError(f"the generator failed: {complaint[-800:]}")
        figures: dict[str, Any] = json.loads(said)
        if figures["answers"].keys() != {"00"} or figures["lost_connections"]:
            raise RuntimeError(f"not every payment was approved: {figures['answers']}")
        return figures


class _Closing:
    """`cardswitch close` beside the load."""

    def __init__(self, town: Town, workers: int) -> None:
        self._environment = town.environment | {"CARDSWITCH_CLEARING__PARALLEL_WORKERS": str(workers)}
        self._process: subprocess.Popen[str]
        self._started = 0.0
        self.seconds = 0.0

    def start(self) -> None:
        """Begin."""
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "switch", "close", "--yes", "--json"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def running(self) -> bool:
        """Whether it still works."""
        if self._process.poll() is None and time.monotonic() - self._started > CLOSE_S:
            self._process.kill()
        return self._process.poll() is None

    def end(self) -> dict[str, float]:
        """Seconds of its steps."""
        said, _ = self._process.communicate(timeout=60)
        if self._process.returncode:
            raise RuntimeError("the close failed")
        report = json.loads(said)
        steps = {}
        for step in report["steps"]:
            begun, ended = (datetime.fromisoformat(step[name]) for name in ("started_at", "finished_at"))
            steps[step["step"]] = round((ended - begun).total_seconds(), 2)
        self.seconds = sum(steps.values())
        return steps


def _shown(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Median over the pieces, and the worst p99."""
    return {
        "pieces": len(pieces),
        "p50_ms": round(statistics.median(piece["p50_ms"] for piece in pieces), 2),
        "p99_ms": round(statistics.median(piece["p99_ms"] for piece in pieces), 2),
        "p99_ms_worst": round(max(piece["p99_ms"] for piece in pieces), 2),
        "max_ms": round(max(piece["max_ms"] for piece in pieces), 2),
    }
