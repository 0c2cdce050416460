"""Purchases that hosts decide: what the switch adds to the time of a host, and what a dead host costs everybody else.

The bank is a simulated host in a process of its own that answers after 20 ms; the fund is a port at which nobody listens, and one that
listens and never says a word.
"""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from loadtests.town import OPENING_FEN, Town, pan_of

BANK, FUND = "01020000", "09350000"
HOST_MS: Final = 20.0
RATE: Final = 1_000.0
QUIET_RATE: Final = (
    100.0  # at which processors have time to spare, so that what is added to the host's time is the switch's
)
SECONDS: Final = 10
ZONE_KEYS: Final = {
    "ZMK": "CB437418FDFDC062835272B424849C3E",
    "ZAK": "57B8095B45537849C2773301DFB990D7",
    "ZPK": "E24A0E05CC26CF8923899246CD3D934A",
}
INSTITUTIONS: Final = {
    "format": "citizen-card-registry",
    "version": 1,
    "institutions": [
        {"institution_id": BANK, "name": "Bank", "role": "BANK"},
        {"institution_id": FUND, "name": "Fund", "role": "BANK"},
    ],
}
BANK_ACCOUNT, MEDICAL_ACCOUNT = 20, 40
Load = Callable[..., dict[str, Any]]


def _keys(folder: Path) -> Path:
    path = folder / "zone-keys.json"
    keys = [
        {"type": kind, "algorithm": "SM4", "owner": owner, "level": "zone", "components": [value]}
        for owner in (BANK, FUND)
        for kind, value in ZONE_KEYS.items()
    ]
    path.write_text(json.dumps({"format": "cardswitch-rehearsal-keys/1", "keys": keys}), encoding="utf-8")
    return path


@contextlib.contextmanager
def _bank(folder: Path, keys: Path, cards: int) -> Iterator[int]:
    accounts = folder / "accounts.json"
    opened = [{"pan": pan_of(number), "balance_fen": OPENING_FEN} for number in range(cards)]
    accounts.write_text(json.dumps(opened), encoding="utf-8")
    words = ["sim", "host", "--institution", BANK, "--keys", str(keys), "--accounts", str(accounts)]
    habit = f"slow:{HOST_MS / 1000}"
    process = subprocess.Popen(
        [sys.executable, "-m", "switch", *words, "--habit", habit],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        yield int(process.stdout.readline().rsplit(":", 1)[1])
        process.terminate()
        process.stdout.read()


@contextlib.contextmanager
def _mute() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        lines: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    lines.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        for line in lines:
            line.close()


@contextlib.contextmanager
def beside(town: Town) -> Iterator[None]:
    """The hosts of a town that is built and not served yet."""
    keys = _keys(town.folder)
    with _bank(town.folder, keys, town.cards) as bank, _mute() as fund:
        links = [
            {"name": "bank", "institution": BANK, "host": "127.0.0.1", "port": bank},
            {"name": "fund", "institution": FUND, "host": "127.0.0.1", "port": fund},
        ]
        town.environment["CARDSWITCH_HOSTS__LINKS"] = json.dumps(links)
        town.run("keys", "ceremony", "--rehearsal", str(keys))
        registry = town.folder / "institutions.json"
        registry.write_text(json.dumps(INSTITUTIONS), encoding="utf-8")
        town.run("registry", "import", str(registry))
        table = town.folder / "routes.csv"
        table.write_text("precedence,account,to\n10,BANK,HOST:bank\n20,MEDICAL,HOST:fund\n", encoding="utf-8")
        town.run("routes", "import", str(table))
        yield


def measure(load: Load, scale: float) -> dict[str, Any]:
    """Routed purchases at a low and at a high rate, then own ones alone, with a live host's traffic, and with a dead host's."""
    seconds = max(2, int(SECONDS * scale))

    def own() -> dict[str, Any]:
        return load(128, int(RATE / 2 * seconds / 128), rate=RATE / 2)

    def beside_own(account: int, answers: str) -> dict[str, Any]:
        with ThreadPoolExecutor(2) as pool:
            other = pool.submit(
                load,
                128,
                int(RATE / 2 * seconds / 128),
                rate=RATE / 2,
                account=account,
                first=500,
                answers=frozenset({answers}),
            )
            found = own()
            other.result()
        return found

    load(128, 20, account=BANK_ACCOUNT)
    quiet = load(16, int(QUIET_RATE * seconds / 16), rate=QUIET_RATE, account=BANK_ACCOUNT)
    routed = load(128, int(RATE * seconds / 128), rate=RATE, account=BANK_ACCOUNT)
    return {
        "host_ms": HOST_MS,
        "routed": routed,
        "own_overhead_p50_ms": round(routed["p50_ms"] - HOST_MS, 3),
        "routed_quiet": quiet,
        "own_overhead_quiet_p50_ms": round(quiet["p50_ms"] - HOST_MS, 3),
        "own_alone": own(),
        "own_beside_a_live_host": beside_own(BANK_ACCOUNT, "00"),
        "own_beside_a_dead_host": beside_own(MEDICAL_ACCOUNT, "91"),
        "own_alone_again": own(),
    }
