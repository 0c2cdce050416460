"""The virtual city closes a second day: a case, another city's answer, files over SFTP, money ordered, a proof without a database."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_the_day_after_everything_of_the_first_day_reaches_whom_it_concerns(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "switch", "sim", "city", "--data-dir", str(tmp_path / "city")]
    ran = subprocess.run(
        [*command, "--purchases", "100", "--seed", "11", "--json"],
        capture_output=True,
        text=True,
        timeout=1_800,
    )
    assert ran.stdout, ran.stderr[-3000:]
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["faults"], told["audit"]["clean"]) == (0, [], True)
    after = told["second_day"]
    assert after["business_date"] > told["business_date"]
    assert after["dispute"]["case"] > 0
    assert after["dispute"]["amount_fen"] > after["dispute"]["fee_fen"] >= 0
    assert after["foreign_records"]["10"] > 0
    assert after["files"]["sent"] == after["files"]["acknowledged"] > 0
    assert after["settlement"]["payouts"] > 0
    assert after["settlement"]["paid_fen"] > 0
    assert any(line.strip().startswith("ok") for line in after["proof"]["says"])
