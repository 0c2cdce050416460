"""A small town for load: its keys, its registry files, and a switch of its own, all through the command line.

Everything is derived from fixed rehearsal keys, so that generators in other processes know it without being told.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from switch.domain.identifiers import luhn_digit
from terminal_sim import crypto
from terminal_sim.frames import Terminal

TMMK: Final = bytes.fromhex("9D9C28340E916865024D51F215B9A023")
DTK: Final = {"3DES": "A4D7E661662E98AEC9FA21FC69B456EF", "SM4": "4736A0018A7E93FE7C6B3CA344C7D530"}
MERCHANTS: Final = 50
STORE_FROM: Final = 1_000  # of the terminals from here on, seven of ten are in one shop
OPENING_FEN: Final = 100_000_000
READY_S: Final = 60.0


def pan_of(number: int) -> str:
    """Card number of the town's card `number`, from 0."""
    payload = f"31335001{number:010d}"
    return payload + luhn_digit(payload)


def terminal_of(number: int) -> Terminal:
    """The town's terminal `number`, from 0: SM4 keys, MAC algorithm 5."""
    terminal_id = f"{33_600_000 + number:08d}"
    tmk = crypto.diversify(crypto.Algorithm.SM4, TMMK, terminal_id.encode())
    shop = 0 if number >= STORE_FROM and number % 10 < 7 else number % MERCHANTS
    return Terminal(terminal_id, f"9933500541{shop:05d}", tmk, 5)


def registry_of(terminals: int, cards: int) -> dict[str, object]:
    """The town as an import document."""
    return {
        "format": "citizen-card-registry",
        "version": 1,
        "institutions": [{"institution_id": "99993350", "name": "Load Town", "role": "ISSUER"}],
        "card_issuers": [{"issuer_id": "99993350FFFFFFFF", "institution_id": "99993350", "own": True}],
        "merchants": [
            {
                "merchant_id": f"9933500541{number:05d}",
                "name": f"Shop {number}",
                "category": "5411",
                "acquirer_id": "99993350",
            }
            for number in range(MERCHANTS)
        ],
        "terminals": [
            {"terminal_id": one.terminal_id, "merchant_id": one.merchant_id, "mac_algorithm": one.mac_id}
            for one in map(terminal_of, range(terminals))
        ],
        "psams": [
            {"psam_no": f"{number + 1:012d}", "merchant_id": terminal_of(number).merchant_id}
            for number in range(terminals)
        ],
        "cards": [
            {
                "pan": pan_of(number),
                "valid_from": "2024-01-01",
                "valid_through": "2034-01-01",
                "online_opening_fen": OPENING_FEN,
            }
            for number in range(cards)
        ],
    }


def rehearsal_keys() -> dict[str, object]:
    """The town's keys as a rehearsal file."""
    keys = [{"type": "TMMK", "algorithm": "SM4", "components": [TMMK.hex().upper()]}]
    keys += [{"type": "DTK", "algorithm": name, "components": [value]} for name, value in DTK.items()]
    return {"format": "cardswitch-rehearsal-keys/1", "keys": keys}


def cardswitch(*arguments: str, environment: dict[str, str]) -> str:
    """Run a command to its end; CalledProcessError, with what it said, when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "switch", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"cardswitch {arguments[0]} failed: {done.stderr.strip()[-800:]}")
    return done.stdout


class Town:
    """A switch with the town's registry, in a folder of its own. Make it once, serve it as often as wanted."""

    def __init__(self, folder: Path, *, terminals: int, cards: int, processes: int) -> None:
        self.folder = folder
        self.terminals = terminals
        self.cards = cards
        self.processes = processes
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CARDSWITCH_")
        } | {
            "CARDSWITCH_DATA_DIR": str(folder / "var"),
            "CARDSWITCH_TERMINALS__PORT": "0",
            "CARDSWITCH_TERMINALS__PROCESSES": str(processes),
            "CARDSWITCH_TERMINALS__STRANGER_S": "3600",
            "CARDSWITCH_HTTP__PORT": "0",
            "CARDSWITCH_CLEARING__AUTO_CLOSE": "false",
            "CARDSWITCH_DATABASE__EMBEDDED_MEMORY_MB": "1024",
            "CARDSWITCH_TELEMETRY__LOG_LEVEL": "warning",
        }

    def build(self) -> None:
        """Make database, keys and registry."""
        keys, registry = self.folder / "keys.json", self.folder / "registry.json"
        keys.write_text(json.dumps(rehearsal_keys()), encoding="utf-8")
        registry.write_text(json.dumps(registry_of(self.terminals, self.cards)), encoding="utf-8")
        self.run("init")
        self.run("keys", "ceremony", "--rehearsal", str(keys))
        self.run("registry", "import", str(registry))

    def run(self, *arguments: str) -> str:
        """One command of this switch."""
        return cardswitch(*arguments, environment=self.environment)

    def audit(self) -> bool:
        """Whether the books are clean after the load."""
        try:
            self.run("audit")
        except RuntimeError:
            return False
        return True

    @contextlib.contextmanager
    def serving(self) -> Iterator["Serving"]:
        """The switch, serving; ended by SIGTERM."""
        with (self.folder / "serve.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "switch", "serve"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        started = time.monotonic()
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("ready: "):
                raise RuntimeError(f"serve did not start; see {self.folder / 'serve.log'}")
            yield Serving(process.pid, line, time.monotonic() - started, self.folder)
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()


class Serving:
    """Where the switch listens, and what it costs."""

    def __init__(self, pid: int, line: str, start_s: float, folder: Path) -> None:
        words = line.split()
        self.pid = pid
        self.host, port = words[2].rsplit(":", 1)
        self.port = int(port)
        self.http = words[4]
        self.start_s = start_s
        self.database_url = (folder / "var/postgres/url").read_text(encoding="utf-8").strip()

    def pids(self) -> list[int]:
        """The serving processes."""
        workers = subprocess.run(
            ["/usr/bin/pgrep", "-f", "-P", str(self.pid), "switch serve"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [self.pid, *map(int, workers.stdout.split())]

    def resident_kb(self) -> int:
        """Memory of all serving processes, without pages they share."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total

    def cpu_s(self) -> float:
        """Processor seconds of all serving processes so far."""
        ticks = os.sysconf("SC_CLK_TCK")
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / ticks


def main() -> None:
    """Build a town in a temporary folder and serve it until SIGINT or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        town = Town(Path(name), terminals=1_000, cards=20_000, processes=2)
        town.build()
        with town.serving() as serving:
            sys.stdout.write(f"tcp://{serving.host}:{serving.port}\n")
            sys.stdout.flush()
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


if __name__ == "__main__":
    main()
