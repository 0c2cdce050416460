"""A small virtual city lives its day through the real thing: processes, database, wire, kill -9, close and audit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.server, pytest.mark.slow]

PURCHASES = "300"
PATIENCE_S = 240.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "switch", "sim", *arguments]


def alive(pid: int) -> bool:
    """Whether a process lives; one that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes_of(folder: Path) -> list[int]:
    """Processes that were started for a data directory, by their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"CARDSWITCH_DATA_DIR=" + bytes(folder) in environment.split(b"\0"):
                found.append(int(entry.name))
    return found


def wait_until(good: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not good():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.1)


def test_a_day_of_a_small_city_is_as_its_people_believe_and_the_audit_is_clean(tmp_path: Path) -> None:
    folder = tmp_path / "city"
    ran = subprocess.run(
        command("city", "--data-dir", str(folder), "--purchases", PURCHASES, "--seed", "7", "--json"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    told = json.loads(ran.stdout)
    assert told["good"] is True
    assert told["faults"] == []
    assert told["checks"] > 1_000
    assert told["balances_compared"] > 200
    assert told["audit"]["clean"] is True
    assert told["audit"]["totals"]["zero_sum_fen"] == 0
    happened = told["happenings"]
    for what in (
        "answers lost and reversed",
        "purchases sent again after the power cut",
        "strangers who got keys they cannot read",
        "uploads sent twice and answered alike",
        "batches unbalanced, details sent",
        "late purchases before the cut-over, in the closed day",
        "late purchases after it, in the next day",
    ):
        assert happened[what] > 0, what
    assert {"10", "04", "11", "03", "01", "02", "05", "06", "07"} <= told["offline_records"].keys()
    assert {"00", "51", "none"} <= told["answers"]["purchase"].keys()
    assert {entry["name"][:2] for entry in told["files"]["list"]} >= {"MR", "CM", "NP", "QS", "SS", "NS"}
    assert processes_of(folder) == []


def test_a_held_city_serves_a_single_pos_and_dies_with_its_parent(tmp_path: Path) -> None:
    folder = tmp_path / "city"
    output = tmp_path / "described.json"
    with output.open("w") as stream, (tmp_path / "told.txt").open("w") as told:
        city = subprocess.Popen(
            command("city", "--data-dir", str(folder), "--purchases", "100", "--hold", "--describe"),
            stdout=stream,
            stderr=told,
        )
    try:
        wait_until(
            lambda: city.poll() is not None or "goes on" in (tmp_path / "told.txt").read_text(), "the city"
        )
        assert city.poll() is None, (tmp_path / "told.txt").read_text()[-3000:]
        described = json.loads(output.read_text())
        assert described["rehearsal"] is True
        assert described["terminals_port"] > 0
        assert oct((folder / "city.json").stat().st_mode & 0o777) == "0o600"

        guest = described["guests"]["terminals"][2]
        steps = ("sign-on", "purchase:12.34", "repeat", "balance", "refund:2.00", "echo", "settle")
        ran = subprocess.run(
            command("pos", *steps, "--city", str(folder / "city.json"), "--mac", "3"),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
        assert ran.stdout.count(": 00\n") == len(steps)
        assert guest["tmk"] not in ran.stdout
        assert described["guests"]["cards"][1]["pan"] not in ran.stdout

        second = subprocess.run(
            command("city", "--data-dir", str(folder)), capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert second.returncode == 1
        assert "is alive" in second.stderr

        serving = processes_of(folder)
        assert serving
        os.kill(city.pid, signal.SIGKILL)
        city.wait()
        wait_until(lambda: not any(alive(pid) for pid in serving), "serve and its database end")
    finally:
        if city.poll() is None:
            city.kill()
            city.wait()
