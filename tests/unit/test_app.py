"""The service as a process: what it says when it cannot start."""

import os
import subprocess
import sys
from pathlib import Path


def test_a_start_without_its_database_ends_in_one_line_that_does_not_show_where_it_is(tmp_path: Path) -> None:
    environment = os.environ | {
        "CARDSWITCH_DATA_DIR": str(tmp_path),
        "CARDSWITCH_DATABASE__URL": f"postgresql://somebody:a-password@/cards?host={tmp_path}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "switch", "serve"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr == "cardswitch: the database cannot be reached; start again when it can\n"
    assert done.stdout == ""
