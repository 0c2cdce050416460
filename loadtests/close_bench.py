"""How long the close of a day takes, and what it takes: every step, as a ratio to the least that could be done with its bytes.

For each size a PostgreSQL of its own, a day made by clearing_day.py, and the real close in a process of its own whose memory is its own too. Then,
on the same server, what it is compared with: plain COPY of the day's entries to files on the server, and `openssl dgst -sm3` over the files
that the close wrote. Processor time is given beside wall time, for machines that do other things as well.

`python -m loadtests.close_bench URL FOLDER DAY [INTEROP_CENTRE]` is that process: it closes one day and prints what it found.
"""

import asyncio
import itertools
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg

from loadtests.clearing_day import SHARDS, Size, build_city, fill_day, settle_down
from switch.clearing.close import CloseTerms, Progress, close_day
from switch.domain.calendar import clearing_date, day_bounds
from switch.ledger.days import ensure_days
from switch.operations.audit import audit
from switch.storage.embedded import EmbeddedPostgres
from switch.storage.migrate import migrate
from switch.storage.pool import connect

SIZES: Final = (10_000, 100_000, 1_000_000)
AUDITED_MAX: Final = 100_000  # the audit of more takes longer than everything else
CENTRE: Final = "99990000"
SPAN: Final = timedelta(hours=22)
BYTES_EACH: Final = 2_200  # of disk: tables and indexes, files, sorting, and the copy to compare with
# Nothing is lost when a day that is being made is lost. What is measured runs on a server with its own settings.
WHILE_MADE: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "8GB",
    "maintenance_work_mem": "512MB",
}
ENTRIES: Final = ("journal", "purse_record")  # an accepted record is an entry and its posting at once


def measure_all(sizes: Iterable[int], tell: Callable[[str], None]) -> dict[str, Any]:
    """The close of days of these sizes, and how its time grows with them."""
    found = [measure(size, tell) for size in sorted(sizes)]
    return {"sizes": found, "growth": growth(found)}


def measure(transactions: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Make a day of so many transactions, close it, and compare."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < transactions * BYTES_EACH + 2**30:
        raise SystemExit(
            f"{tempfile.gettempdir()}: {free >> 20} MB free, too little for {transactions} transactions"
        )
    size = Size.of(transactions)
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as work:
        tell(f"close: making a day of {transactions} transactions")
        started = time.perf_counter()
        with EmbeddedPostgres(Path(data), memory_mb=1024, settings=WHILE_MADE) as url:
            migrate(url)
            day = asyncio.run(_make(url, size))
        made_s = time.perf_counter() - started
        with EmbeddedPostgres(Path(data), memory_mb=1024) as url:
            tell(f"close: closing a day of {transactions} transactions")
            server = Server(url)
            before = server.used()
            found = _close(url, Path(work) / "out", day)
            found["postgres"] = server.used_since(before)
            found["yardstick"] = _yardstick(server, day, Path(found.pop("folder")), tell)
            if transactions <= AUDITED_MAX:
                tell(f"close: audit of {transactions} transactions")
                found["audit"] = _audit(url, Path(work) / "out")
    total, yard = found["seconds"], found["yardstick"]
    least = yard["copy_entries_s"] + yard["sm3_s"]
    used = found["python_cpu_s"] + found["postgres"]["cpu_s"]
    return {
        "transactions": size.online + size.offline,
        "made_s": round(made_s, 1),
        "ratio": round(total / least, 2),
        "ratio_with_postings": round(total / (least + yard["copy_postings_s"]), 2),
        "ratio_of_processor_time": round(used / yard["cpu_s"], 2),
        "us_each": round(total / transactions * 1e6, 1),
        "cpu_us_each": round(used / transactions * 1e6, 1),
        **found,
    }


def growth(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Between each size and the next: time grows with the size to this power. 1: linear."""
    steps = []
    for smaller, larger in itertools.pairwise(found):
        by = math.log(larger["transactions"] / smaller["transactions"])
        cpu = [one["python_cpu_s"] + one["postgres"]["cpu_s"] for one in (smaller, larger)]
        steps.append(
            {
                "from": smaller["transactions"],
                "to": larger["transactions"],
                "exponent": round(math.log(larger["seconds"] / smaller["seconds"]) / by, 2),
                "exponent_of_processor_time": round(math.log(cpu[1] / cpu[0]) / by, 2),
            }
        )
    return steps


async def _make(url: str, size: Size) -> date:
    """The day before the open one, full."""
    async with await connect(url) as connection:
        day = clearing_date(datetime.now().astimezone()) - timedelta(days=1)
        begins_at, ends_at = day_bounds(day)
        await connection.execute(
            "INSERT INTO business_day (business_date, begins_at, ends_at) VALUES (%s, %s, %s)",
            (day, begins_at, ends_at),
        )
        await ensure_days(connection)
        await build_city(connection, size, day)
        await fill_day(connection, day, size, begins_at, SPAN)
        await settle_down(connection, day)
    return day


def _close(url: str, folder: Path, day: date) -> dict[str, Any]:
    command = [sys.executable, "-m", "loadtests.close_bench", url, str(folder), day.isoformat()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the close failed: {done.stderr.strip()[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Server:
    """The server's processor time, log and temporary files so far."""

    def __init__(self, url: str) -> None:
        self.url = url

    def used(self) -> dict[str, float]:
        """Processor seconds of all its processes, those that have ended included; bytes written to log and temporary files."""
        with psycopg.connect(self.url, autocommit=True) as link:
            row = link.execute(
                "SELECT pg_backend_pid(), (SELECT sum(temp_bytes) FROM pg_stat_database)::bigint,"
                " pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
            ).fetchone()
            assert row is not None
            head = int(_stat(row[0])[1])
            ticks = sum(map(int, _stat(head)[11:15]))  # its own, and of children that have ended
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal() and (fields := _stat(int(entry.name))) and int(fields[1]) == head:
                    ticks += int(fields[11]) + int(fields[12])
        return {
            "cpu_s": ticks / os.sysconf("SC_CLK_TCK"),
            "temporary_mb": row[1] / 2**20,
            "wal_mb": row[2] / 2**20,
        }

    def used_since(self, before: dict[str, float]) -> dict[str, float]:
        """The same, as a difference."""
        return {name: round(value - before[name], 2) for name, value in self.used().items()}


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; nothing when the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _yardstick(server: Server, day: date, files: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    tell("close: plain COPY and openssl, to compare with")
    found: dict[str, Any] = {}
    before = server.used()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (
        psycopg.connect(server.url, autocommit=True) as link,
        tempfile.TemporaryDirectory() as name,
    ):
        folder = Path(name)
        folder.chmod(0o777)  # the server writes as its own user
        link.execute("CHECKPOINT")
        for label, tables in (("copy_entries", ENTRIES), ("copy_postings", ("posting",))):
            started = time.perf_counter()
            for table in tables:
                link.execute(f"COPY {table}_{day:%Y%m%d} TO '{folder / table}'".encode())
            found[f"{label}_s"] = round(time.perf_counter() - started, 3)
            found[f"{label}_mb"] = round(sum((folder / table).stat().st_size for table in tables) / 2**20, 1)
            if label == "copy_entries":
                found["cpu_s"] = server.used_since(before)["cpu_s"]
    written = sorted(path for path in files.iterdir() if path.suffix != ".ok")
    started = time.perf_counter()
    for batch in _batches(written, 1_000):
        subprocess.run(["openssl", "dgst", "-sm3", *map(str, batch)], check=True, stdout=subprocess.DEVNULL)
    found["sm3_s"] = round(time.perf_counter() - started, 3)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["cpu_s"] += after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    found["cpu_s"] = round(found["cpu_s"], 3)
    return found


def _batches(paths: list[Path], size: int) -> Iterable[list[Path]]:
    return (paths[start : start + size] for start in range(0, len(paths), size))


def _audit(url: str, folder: Path) -> str:
    with psycopg.connect(url, autocommit=True) as link:
        report = audit(link, folder)
    bad = {verdict.name: verdict.places[:2] for verdict in report.verdicts if not verdict.good}
    return "clean" if report.good else f"FAILED: {bad}"


class _Clock:
    """Seconds of each step, as the close tells of them."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self._at = time.perf_counter()

    def tell(self, progress: Progress) -> None:
        if progress.finished and progress.step != "done":
            now = time.perf_counter()
            self.steps[progress.step] = round(now - self._at, 3)
            self._at = now


async def _run(url: str, folder: Path, day: date) -> dict[str, Any]:
    terms = CloseTerms(
        own_id="99993350",
        centre_id=CENTRE,
        acquirer_code="49993350",
        shards=SHARDS,
        folder=folder,
        is_workday=lambda one: one.weekday() < 5,
        interop_centre=CENTRE,
        connect=partial(connect, url),
    )
    started = time.perf_counter()
    async with await connect(url) as connection:
        clock = _Clock()
        closed = await close_day(connection, day, terms, "benchmark", clock.tell)
    seconds = time.perf_counter() - started
    sizes = [path.stat().st_size for path in closed.folder.iterdir() if path.suffix != ".ok"]
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(seconds, 2),
        "steps_s": clock.steps,
        "files": len(sizes),
        "files_mb": round(sum(sizes) / 2**20, 1),
        "python_peak_mb": round(used.ru_maxrss / 1024, 1),
        "python_cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "folder": str(closed.folder),
    }


def main() -> None:
    """Close the day that the command line names."""
    found = asyncio.run(_run(sys.argv[1], Path(sys.argv[2]), date.fromisoformat(sys.argv[3])))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
