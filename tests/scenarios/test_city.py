"""A small virtual city lives its day through the real thing: processes, database, wire, kill -9, close and audit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = [pytest.mark.server, pytest.mark.slow]

PURCHASES = "300"
PATIENCE_S = 1_800.0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=PATIENCE_S)


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


class Held(NamedTuple):
    """A city that has lived its day and goes on."""

    process: subprocess.Popen[bytes]
    folder: Path
    told: dict[str, Any]
    described: dict[str, Any]


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """One for all tests here; the last of them kills it."""
    around = tmp_path_factory.mktemp("city")
    folder, summary, story = around / "city", around / "summary.json", around / "story.txt"
    arguments = ("--data-dir", str(folder), "--purchases", PURCHASES, "--seed", "7", "--hold", "--json")
    with summary.open("wb") as stdout, story.open("wb") as stderr:
        process = subprocess.Popen(command("city", *arguments), stdout=stdout, stderr=stderr)
    try:
        wait_until(lambda: process.poll() is not None or "goes on" in story.read_text(), "the city's day")
        assert process.poll() is None, story.read_text()[-3000:]
        described = json.loads((folder / "city.json").read_text())
        yield Held(process, folder, json.loads(summary.read_text()), described)
    finally:
        process.kill()
        process.wait()


def test_a_day_of_a_small_city_is_as_its_people_believe_and_the_audit_is_clean(city: Held) -> None:
    told = city.told
    assert told["faults"] == []
    assert told["good"] is True
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
        "next morning, at the hospital: paid by medical and online account together",
    ):
        assert happened[what] > 0, what
    assert {"10", "04", "11", "03", "01", "02", "05", "06", "07"} <= told["offline_records"].keys()
    assert {"00", "51", "none"} <= told["answers"]["purchase"].keys()
    assert {entry["name"][:2] for entry in told["files"]["list"]} >= {"MR", "CM", "NP", "QS", "SS", "NS"}


def test_loads_end_as_their_kiosks_believe_and_torn_cards_settle_their_own(city: Held) -> None:
    loads = city.told["loads"]
    assert loads["authorised"] == loads["confirmed"] + loads["reversed"] + loads["suspense"] > 20
    assert (loads["suspense_loaded"], loads["suspense_returned"]) >= (1, 1)
    waiting = loads["suspense"] - loads["suspense_loaded"] - loads["suspense_returned"]
    assert loads["suspense_waiting"] == waiting == 1
    assert min(loads["reversed"], loads["declined"], loads["top_ups"]) >= 1
    assert loads["by_source"].keys() == {"CASH", "ONLINE", "BOUND_BANK"}
    balances = city.told["audit"]["totals"]["balances_fen"]
    assert balances["1002"] == loads["cash_fen"] > 0
    assert balances["2201"] == -loads["suspense_waiting_fen"] < 0


def test_a_bank_that_died_in_the_middle_of_the_day_agrees_to_the_fen_in_the_evening(city: Held) -> None:
    outage, bank = city.told["outage"], city.told["bank"]
    assert outage["refused"] > 0
    assert outage["unknown"] > 0
    assert 0 < outage["stood_in"] <= 60
    assert 0 < outage["stood_in_fen"] <= 80_000
    undone = outage["unknown"] + outage["unknown_loads"]
    assert outage["messages_owed"] == outage["stood_in"] + undone
    assert outage["refused_loads"] > 0
    assert outage["unknown_loads"] > 0
    assert outage["others_meanwhile"] > 0
    assert bank["purchases"] > outage["stood_in"]
    assert bank["moved_fen"] == bank["owed_fen"] == city.told["audit"]["totals"]["balances_fen"]["1101"] > 0
    assert {"00", "68", "91"} <= city.told["answers"]["bank purchase"].keys()


def test_a_single_pos_joins_the_held_city_and_shows_no_secret(city: Held) -> None:
    steps = ("sign-on", "purchase:12.34", "repeat", "balance", "refund:2.00", "echo", "settle")
    ran = run("pos", *steps, "--city", str(city.folder / "city.json"), "--mac", "3")
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert ran.stdout.count(": 00\n") == len(steps)
    guests = city.described["guests"]
    for secret in (guests["terminals"][2]["tmk"], guests["cards"][1]["pan"], guests["cards"][1]["asn"]):
        assert secret not in ran.stdout


def test_what_a_city_describes_is_for_its_owner_only(city: Held) -> None:
    assert city.described["rehearsal"] is True
    for name in ("city.json", "keys.json", "registry.json", "bank-accounts.json", "bank-books.jsonl"):
        assert (city.folder / name).stat().st_mode & 0o777 == 0o600


def test_a_second_city_is_refused_where_one_lives(city: Held) -> None:
    second = run("city", "--data-dir", str(city.folder))
    assert second.returncode == 1
    assert "is alive" in second.stderr


def test_a_city_that_is_killed_leaves_no_switch_no_database_and_no_bank_behind(city: Held) -> None:
    serving = processes_of(city.folder)
    assert any(b"\0host\0" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in serving)
    os.kill(city.process.pid, signal.SIGKILL)
    city.process.wait()
    wait_until(lambda: not any(alive(pid) for pid in serving), "serve, its database and its bank end")
