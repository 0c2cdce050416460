"""A switch and a host as processes of their own: the link stands, survives the host's death, and changes its keys."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.hosts import BANK, SECRETS
from tests.helpers.local_server import free_port
from tests.helpers.switch_process import SwitchProcess, cardswitch, until

pytestmark = [pytest.mark.server, pytest.mark.slow]


def rehearsal_file(folder: Path) -> Path:
    secrets = SECRETS["SM4"]
    keys = [
        {
            "type": kind,
            "algorithm": "SM4",
            "owner": BANK,
            "level": "zone",
            "components": [clear.hex().upper()],
        }
        for kind, clear in (("ZMK", secrets.zmk), ("ZAK", secrets.zak), ("ZPK", secrets.zpk))
    ]
    path = folder / "rehearsal.json"
    path.write_text(json.dumps({"format": "cardswitch-rehearsal-keys/1", "keys": keys}))
    return path


def host_process(folder: Path, port: int) -> "subprocess.Popen[str]":
    """A bank."""
    keys = str(folder / "rehearsal.json")
    arguments = ["sim", "host", "--institution", BANK, "--keys", keys, "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "switch", *arguments],
        stdout=subprocess.PIPE,
        cwd=folder,
        text=True,
    )
    assert process.stdout is not None
    ready = process.stdout.readline()
    assert ready.startswith("ready: host "), ready
    return process


def ended(process: "subprocess.Popen[str]") -> dict[str, int]:
    """What came, of a host that is told to end."""
    assert process.stdout is not None
    with process:
        process.send_signal(signal.SIGTERM)
        counts: dict[str, int] = json.loads(process.stdout.read())["counts"]
    return counts


def test_a_link_stands_comes_back_and_changes_its_keys(tmp_path):
    path, port = rehearsal_file(tmp_path), free_port()
    bank = host_process(tmp_path, port)
    links = [
        {"name": "bank", "institution": BANK, "host": "127.0.0.1", "port": port, "reconnect_max_s": 0.5},
        {"name": "no-keys", "institution": "09990000", "host": "127.0.0.1", "port": port},
    ]
    environment = os.environ | {
        "CARDSWITCH_DATA_DIR": str(tmp_path / "data"),
        "CARDSWITCH_TERMINALS__PORT": "0",
        "CARDSWITCH_HTTP__PORT": "0",
        "CARDSWITCH_CLEARING__AUTO_CLOSE": "false",
        "CARDSWITCH_HOSTS__LINKS": json.dumps(links),
    }
    cardswitch("init", environment=environment)
    cardswitch("keys", "ceremony", "--rehearsal", str(path), environment=environment)
    for kind in ("ZAK", "ZPK"):
        cardswitch(
            "keys",
            "rotate",
            f"{kind}/SM4/v1/{BANK}",
            "--operator",
            "a",
            "--operator",
            "b",
            environment=environment,
        )
    switch = SwitchProcess(environment, tmp_path / "serve.log")
    try:
        until(lambda: switch.metric("cardswitch_host_lines", host="bank") == 2, 30, "sign-on")
        assert switch.ready()

        def states() -> dict[str, str]:
            listed = json.loads(cardswitch("keys", "list", "--json", environment=environment))
            records = listed if isinstance(listed, list) else listed["keys"]
            return {record["name"]: record["state"] for record in records if record["owner"] == BANK}

        until(lambda: states()[f"ZAK/SM4/v2/{BANK}"] == "active", 30, "the change of keys")
        assert states()[f"ZPK/SM4/v2/{BANK}"] == "active"
        assert states()[f"ZAK/SM4/v1/{BANK}"] == "verify-only"
        counts = ended(bank)
        assert (counts["0800 001"], counts["0800 101"]) == (2, 1)
        until(lambda: switch.metric("cardswitch_host_lines", host="bank") == 0, 30, "the loss of the host")
        assert switch.ready()  # a dead host is no reason to send terminals elsewhere
        bank = host_process(tmp_path, port)  # knows the first keys only: it was restored
        until(
            lambda: switch.metric("cardswitch_host_lines_closed_total", host="bank", reason="session") > 0,
            30,
            "A0",
        )
        assert switch.metric("cardswitch_host_lines", host="bank") == 0
        assert [
            line["host"]
            for line in switch.logged()
            if line["event"] == "a host has no usable keys and no link"
        ] == ["no-keys"]
        switch.terminate()
        assert switch.wait() == 0
    finally:
        switch.end()
        bank.kill()
        bank.wait()
        assert bank.stdout is not None
        bank.stdout.close()
