"""A switch for foreign terminals: institution, keys, merchants, terminals and cards of its own, made as docs/joining.md says."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.switch_process import SwitchProcess, cardswitch
from tests.helpers.town import years_around
from tests.scenarios.foreign_client import Terminal
from tests.scenarios.foreign_crypto import Algorithm, terminal_master_key

OWN = "88885800"
NEIGHBOUR = "88885900"
ISSUER, NEIGHBOUR_ISSUER = f"{OWN}FFFFFFFF", f"{NEIGHBOUR}FFFFFFFF"
ACQUIRER_CODE = "48885800"
SHOP, BUSES, MARKET, CLOSED_SHOP = "888858054110001", "888858041110001", "888858054110002", "888858054110009"
PSAMS = {BUSES: "580000000001", SHOP: "580000000002", MARKET: "580000000003"}
PIN = "135790"
ONLINE_PPM, PURSE_PPM = 6000, 3000


def luhn(digits: str) -> str:
    """The digits and their check digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return digits + str(-total % 10)


def pan(serial: int) -> str:
    """A card number of the city: 31, city 5800, product 01, serial."""
    return luhn(f"31580001{serial:010d}")


class ForeignCity:
    """One switch with its data below a folder; terminals and cards are numbered by their maker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots: dict[tuple[str, Algorithm], bytes] = {
            (kind, algorithm): secrets.token_bytes(16)
            for kind in ("TMMK", "DTK")
            for algorithm in ("3DES", "SM4")
        }
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CARDSWITCH")
        } | {
            "CARDSWITCH_DATA_DIR": str(folder / "data"),
            "CARDSWITCH_DATABASE__EMBEDDED_MEMORY_MB": "64",
            "CARDSWITCH_TERMINALS__PORT": "0",
            "CARDSWITCH_HTTP__PORT": "0",
            "CARDSWITCH_CLEARING__AUTO_CLOSE": "false",
            "CARDSWITCH_CLEARING__CALENDAR_FILE": str(folder / "calendar.json"),
            "CARDSWITCH_INSTITUTION__OWN_ID": OWN,
            "CARDSWITCH_INSTITUTION__ACQUIRER_CODE": ACQUIRER_CODE,
            "CARDSWITCH_INSTITUTION__CENTRE_ID": "88880000",
            "CARDSWITCH_INSTITUTION__ISSUER_IDS": ISSUER,
        }
        self.process: SwitchProcess | None = None
        self._terminals: dict[int, Terminal] = {}

    def run(self, *arguments: str) -> str:
        """A command, to its good end; what it printed."""
        return cardswitch(*arguments, environment=self.environment, folder=self.folder)

    def build(self) -> "ForeignCity":
        """Make the data directory, bring in keys and registry."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file("calendar", {"years": years_around()})
        self.run("init")
        keys = [
            {"type": kind, "algorithm": algorithm, "components": [root.hex().upper()]}
            for (kind, algorithm), root in self.roots.items()
        ]
        self.run(
            "keys",
            "ceremony",
            "--rehearsal",
            self._file("keys", {"format": "cardswitch-rehearsal-keys/1", "keys": keys}),
        )
        self.run("registry", "import", self._file("city", registry()))
        return self

    def bring_in(self, name: str, **kinds: list[dict[str, object]]) -> None:
        """One more import, while the switch serves."""
        document = {"format": "citizen-card-registry", "version": 1, **kinds}
        self.run("registry", "import", self._file(name, document))

    def _file(self, name: str, document: Mapping[str, object]) -> str:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return str(path)

    def serve(self) -> "ForeignCity":
        """Start the service; returns when terminals can come."""
        self.process = SwitchProcess(self.environment, self.folder / "serve.log")
        return self

    def stop(self) -> None:
        """End the service, if it runs."""
        if self.process is not None:
            self.process.end()
            self.process = None

    def terminal(self, number: int, *, mac_id: int = 1, merchant: str = SHOP) -> Terminal:
        """A terminal as its maker knows it: the same each time, since trace and batch outlive a power cut."""
        if number not in self._terminals:
            assert self.process is not None
            line = self.process.line
            algorithm: Algorithm = "3DES" if mac_id <= 3 else "SM4"
            terminal_id = f"58{number:06d}"
            tmk = terminal_master_key(algorithm, self.roots["TMMK", algorithm], terminal_id)
            terminal = Terminal((line.host, line.port), terminal_id, merchant, algorithm, mac_id, tmk)
            self._terminals[number] = terminal
        return self._terminals[number]

    def hang_up(self) -> None:
        """Close the lines of all terminals."""
        for terminal in self._terminals.values():
            terminal.hang_up()


def registry() -> dict[str, object]:
    """Everybody who takes part. Terminals end in their MAC id; those of the buses are 5800011N."""
    valid = {"valid_from": "2020-01-01", "valid_through": "2099-12-31"}
    rich = {**valid, "online_opening_fen": 1_000_000}
    terminals = [
        {"terminal_id": f"58{number:06d}", "merchant_id": SHOP, "mac_algorithm": number % 10}
        for number in [*range(1, 6), *range(11, 100, 10), *range(15, 100, 10)]
    ]
    terminals += [
        {"terminal_id": f"58{number:06d}", "merchant_id": BUSES, "mac_algorithm": number % 10}
        for number in (111, 115, 121)
    ]
    terminals += [
        {"terminal_id": f"58{number:06d}", "merchant_id": MARKET, "mac_algorithm": number % 10}
        for number in (201, 205)
    ]
    terminals.append({"terminal_id": "58000991", "merchant_id": SHOP, "mac_algorithm": 1, "state": "CLOSED"})
    terminals.append({"terminal_id": "58000981", "merchant_id": CLOSED_SHOP, "mac_algorithm": 1})
    cards: list[dict[str, object]] = [{"pan": pan(serial), **rich} for serial in range(1, 21)]
    cards += [{"pan": pan(serial), **rich, "pin": PIN} for serial in range(21, 31)]
    cards += [
        {"pan": pan(31), **rich, "valid_through": "2025-12-31"},
        {"pan": pan(32), **rich, "state": "LOSS_FORMAL"},
        {"pan": pan(33), **rich, "state": "DAMAGED"},
        {"pan": pan(34), **rich, "state": "READY"},
        {"pan": pan(35), **valid, "online_opening_fen": 50, "medical_opening_fen": 5000},
        {"pan": pan(36), **valid, "purse_opening_fen": 0},
    ]
    cards += [{"pan": pan(serial), **rich, "purse_opening_fen": 20_000} for serial in range(41, 50)]
    return {
        "format": "citizen-card-registry",
        "version": 1,
        "institutions": [
            {"institution_id": OWN, "name": "Elsewhere Card Company", "role": "ISSUER"},
            {"institution_id": NEIGHBOUR, "name": "Next Town", "role": "CITY"},
        ],
        "card_issuers": [
            {"issuer_id": ISSUER, "institution_id": OWN, "own": True},
            {"issuer_id": NEIGHBOUR_ISSUER, "institution_id": NEIGHBOUR, "own": False},
        ],
        "merchants": [
            {"merchant_id": SHOP, "name": "Shop", "category": "5411", "acquirer_id": OWN},
            {"merchant_id": BUSES, "name": "Buses", "category": "4111", "acquirer_id": OWN},
            {"merchant_id": MARKET, "name": "Market", "category": "5411", "acquirer_id": OWN},
            {
                "merchant_id": CLOSED_SHOP,
                "name": "Gone",
                "category": "5411",
                "acquirer_id": OWN,
                "state": "CLOSED",
            },
        ],
        "terminals": terminals,
        "psams": [{"psam_no": psam, "merchant_id": merchant} for merchant, psam in PSAMS.items()],
        "fee_rules": [
            {"account_kind": "ONLINE", "rate_ppm": ONLINE_PPM, "valid_from": "2020-01-01"},
            {"account_kind": "PURSE", "rate_ppm": PURSE_PPM, "valid_from": "2020-01-01"},
        ],
        "cards": cards,
    }
