"""A town for scenario tests: registry, keys and cards made through the command line, served by real processes.

Making one takes some seconds, so a session makes one (`built_town`) and tests of bad days take copies of its data directory. Terminals and
cards are dealt out, each to one test.
"""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from switch.domain.identifiers import luhn_digit
from terminal_sim import crypto
from terminal_sim.card import PurseCard
from terminal_sim.crypto import KeyKind
from terminal_sim.frames import CardData, Terminal
from terminal_sim.personalisation import CardProfile, Issuer, RootSet
from tests.helpers.days import END_LATER
from tests.helpers.switch_process import SwitchProcess, cardswitch

TMMK: Final = {
    crypto.Algorithm.TRIPLE_DES: bytes.fromhex("A4D7E661662E98AEC9FA21FC69B456EF"),
    crypto.Algorithm.SM4: bytes.fromhex("9D9C28340E916865024D51F215B9A023"),
}
DTK: Final = {"3DES": "A4D7E661662E98AEC9FA21FC69B456EF", "SM4": "4736A0018A7E93FE7C6B3CA344C7D530"}
DLK: Final = {"3DES": "1F349C042DD1E92B62383F25ED15C37B", "SM4": "9193D5464F8CB9900FC29B64068573CF"}
MERCHANT: Final = "993350054110001"
OTHER_MERCHANT: Final = "993350054110002"
CLOSED_MERCHANT: Final = "993350054110003"
OPENING_FEN: Final = 10_000
RICH_FEN: Final = 1_000_000_000
PIN: Final = "123456"

# terminals by MAC algorithm; numbers of algorithm m run from m * 10 000
TERMINALS: Final = {1: 20, 2: 4, 3: 4, 4: 4, 5: 600}
CLOSED_TERMINAL: Final = 90_000
OF_CLOSED_MERCHANT: Final = 90_001
BUSES: Final = 60_000  # terminals of MAC algorithm 5 with a PSAM each
BUSES_MAX: Final = 16
KIOSKS: Final = 70_000  # terminals of MAC algorithm 5 that take cash for loads
KIOSKS_MAX: Final = 48
PSAM_OF_KIOSKS: Final = "335000000017"
ISSUER_ID: Final = bytes.fromhex("99993350FFFFFFFF")
KEY_INDEX: Final = {crypto.Algorithm.TRIPLE_DES: 0x01, crypto.Algorithm.SM4: 0x41}

# how many cards of each kind, and what is special about them
CARDS: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "plain": (320, {"online_opening_fen": OPENING_FEN}),
    "rich": (64, {"online_opening_fen": RICH_FEN}),
    "pin": (24, {"online_opening_fen": OPENING_FEN, "pin": PIN}),
    "not active": (2, {"online_opening_fen": OPENING_FEN, "state": "READY"}),
    "lost": (4, {"online_opening_fen": OPENING_FEN, "state": "LOSS_FORMAL"}),
    "damaged": (2, {"online_opening_fen": OPENING_FEN, "state": "DAMAGED"}),
    "expired": (2, {"online_opening_fen": OPENING_FEN, "valid_through": "2024-12-31"}),
    "medical only": (4, {"medical_opening_fen": OPENING_FEN}),
    "purse": (40, {"purse_opening_fen": OPENING_FEN}),
    "medical": (8, {"online_opening_fen": OPENING_FEN, "medical_opening_fen": OPENING_FEN}),
    "medical pin": (
        2,
        {"online_opening_fen": OPENING_FEN, "medical_opening_fen": OPENING_FEN, "pin": PIN},
    ),
    "loaded": (60, {"online_opening_fen": OPENING_FEN, "purse_opening_fen": 0}),
    "loaded pin": (4, {"online_opening_fen": OPENING_FEN, "purse_opening_fen": 0, "pin": PIN}),
    "loaded lost": (2, {"purse_opening_fen": 0, "state": "LOSS_FORMAL"}),
}


def years_around() -> list[int]:
    """Years of a calendar by which a day of now is settled: next year's is published late in this one."""
    first = date.today().year  # noqa: DTZ011  either year does
    return [first, first + 1]


def pan_of(number: int) -> str:
    """Number of the town's card `number`."""
    payload = f"31335001{number:010d}"
    return payload + luhn_digit(payload)


def terminal_of(number: int, mac_id: int = 5, **changes: Any) -> Terminal:
    """The town's terminal `number`, with its master key."""
    terminal_id = f"{33_600_000 + number:08d}"
    algorithm = crypto.MAC_ALGORITHM[mac_id]
    tmk = crypto.diversify(algorithm, TMMK[algorithm], terminal_id.encode())
    return Terminal(terminal_id, changes.pop("merchant_id", MERCHANT), tmk, mac_id, **changes)


def psam_of(terminal_id: str) -> str:
    """Number of the PSAM in a bus."""
    return f"3350{terminal_id}"


def _cards() -> Iterator[tuple[str, int, dict[str, Any]]]:
    number = 0
    for kind, (many, special) in CARDS.items():
        for _ in range(many):
            yield kind, number, special
            number += 1


def registry() -> dict[str, Any]:
    """The town as an import document."""
    merchants = [(MERCHANT, "ACTIVE"), (OTHER_MERCHANT, "ACTIVE"), (CLOSED_MERCHANT, "CLOSED")]
    terminals = [
        {
            "terminal_id": terminal_of(mac_id * 10_000 + n, mac_id).terminal_id,
            "merchant_id": MERCHANT,
            "mac_algorithm": mac_id,
        }
        for mac_id, many in TERMINALS.items()
        for n in range(many)
    ]
    special = [(CLOSED_TERMINAL, MERCHANT, "CLOSED"), (OF_CLOSED_MERCHANT, CLOSED_MERCHANT, "ACTIVE")]
    terminals += [
        {
            "terminal_id": terminal_of(number).terminal_id,
            "merchant_id": merchant,
            "mac_algorithm": 5,
            "state": state,
        }
        for number, merchant, state in special
    ]
    buses = [terminal_of(BUSES + number).terminal_id for number in range(BUSES_MAX)]
    terminals += [
        {"terminal_id": terminal_id, "merchant_id": MERCHANT, "mac_algorithm": 5} for terminal_id in buses
    ]
    terminals += [
        {
            "terminal_id": terminal_of(KIOSKS + number).terminal_id,
            "merchant_id": MERCHANT,
            "mac_algorithm": 5,
            "cash_loads": True,
        }
        for number in range(KIOSKS_MAX)
    ]
    return {
        "format": "citizen-card-registry",
        "version": 1,
        "psams": [
            {"psam_no": psam_of(terminal_id), "merchant_id": MERCHANT, "terminal_id": terminal_id}
            for terminal_id in buses
        ],
        "institutions": [{"institution_id": "99993350", "name": "Test Town", "role": "ISSUER"}],
        "card_issuers": [{"issuer_id": "99993350FFFFFFFF", "institution_id": "99993350", "own": True}],
        "merchants": [
            {
                "merchant_id": merchant,
                "name": f"Shop {merchant[-1]}",
                "category": "5411",
                "acquirer_id": "99993350",
                "state": state,
            }
            for merchant, state in merchants
        ],
        "terminals": terminals,
        "fee_rules": [{"account_kind": "ONLINE", "rate_ppm": 6000, "valid_from": "2020-01-01"}],
        "cards": [
            {"pan": pan_of(number), "valid_from": "2024-01-01", "valid_through": "2044-01-01"} | special
            for _, number, special in _cards()
        ],
    }


def keys() -> dict[str, Any]:
    """The town's keys as a rehearsal file."""
    made = [
        {"type": "TMMK", "algorithm": name, "components": [TMMK[algorithm].hex().upper()]}
        for name, algorithm in (("3DES", crypto.Algorithm.TRIPLE_DES), ("SM4", crypto.Algorithm.SM4))
    ]
    for kind, values in (("DTK", DTK), ("DLK", DLK)):
        made += [{"type": kind, "algorithm": name, "components": [value]} for name, value in values.items()]
    return {"format": "cardswitch-rehearsal-keys/1", "keys": made}


def chip_of(pan: str, **history: Any) -> PurseCard:
    """The chip of a card of the town, with a key set of each algorithm."""
    sets = [
        RootSet(
            KEY_INDEX[algorithm],
            1,
            algorithm,
            {KeyKind.LOAD: bytes.fromhex(DLK[name]), KeyKind.TAC: bytes.fromhex(DTK[name])},
        )
        for name, algorithm in (("SM4", crypto.Algorithm.SM4), ("3DES", crypto.Algorithm.TRIPLE_DES))
    ]
    asn = pan.rjust(20, "0")
    return PurseCard(CardProfile(asn, ISSUER_ID), Issuer(ISSUER_ID, sets).card_keys(asn), **history)


class Town:
    """A data directory, the processes that serve it, and the terminals and cards that nobody has taken yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "var"
        self.processes: list[SwitchProcess] = []
        self._terminals = {mac_id: count(mac_id * 10_000) for mac_id in TERMINALS}
        self._free = {kind: [n for name, n, _ in _cards() if name == kind] for kind in CARDS}
        self._buses = count(BUSES)
        self._kiosks = count(KIOSKS)
        self._starts = count(1)
        calendar = folder / "calendar.json"
        calendar.write_text(json.dumps({"years": years_around()}), encoding="utf-8")
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CARDSWITCH_")
        } | {
            "CARDSWITCH_DATA_DIR": str(self.data_dir),
            "CARDSWITCH_TERMINALS__PORT": "0",
            "CARDSWITCH_HTTP__PORT": "0",
            "CARDSWITCH_CLEARING__CALENDAR_FILE": str(calendar),
            "CARDSWITCH_CLEARING__AUTO_CLOSE": "false",  # tests end days, and say when one is closed
            "CARDSWITCH_DATABASE__EMBEDDED_MEMORY_MB": "128",
            "CARDSWITCH_TELEMETRY__LOG_LEVEL": "warning",
        }

    def build(self) -> Self:
        """Make database, keys and registry."""
        keys_file, registry_file = self.folder / "keys.json", self.folder / "registry.json"
        keys_file.write_text(json.dumps(keys()), encoding="utf-8")
        registry_file.write_text(json.dumps(registry()), encoding="utf-8")
        self.run("init")
        first = self.serve()  # so that each command need not start the database for itself
        with psycopg.connect(self.database_url) as connection:
            connection.execute(END_LATER)
        self.run("keys", "ceremony", "--rehearsal", str(keys_file))
        self.run("registry", "import", str(registry_file))
        self.stop(first)
        return self

    def copy(self, folder: Path) -> "Town":
        """The same town elsewhere. Nobody may be serving this one."""
        shutil.copytree(self.data_dir, folder / "var", symlinks=True, ignore=shutil.ignore_patterns(".s.PG*"))
        for source in (self.data_dir, *self.data_dir.rglob("*")):  # the database may run as another user
            status = source.lstat()
            target = folder / "var" / source.relative_to(self.data_dir)
            if target.exists() or target.is_symlink():
                os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
        return Town(folder)

    def run(self, *arguments: str) -> str:
        """One command of this town; what it printed."""
        return cardswitch(*arguments, environment=self.environment, folder=self.folder)

    @property
    def database_url(self) -> str:
        """Of the embedded server, while somebody serves."""
        return (self.data_dir / "postgres/url").read_text(encoding="utf-8").strip()

    def serve(self, *, fresh: bool = False, **settings: object) -> SwitchProcess:
        """Start the process that holds the embedded server. fresh: of SwitchProcess. settings: section__key=value."""
        return self._serve({}, settings, fresh=fresh)

    def serve_beside(self, fail_at: str = "", **settings: object) -> SwitchProcess:
        """Start another process, with a data directory of its own, on the same database. fail_at: where it is to die."""
        folder = self.folder / f"beside-{next(self._starts)}"
        folder.mkdir()
        changes = {
            "CARDSWITCH_DATA_DIR": str(folder),
            "CARDSWITCH_DATABASE__URL": self.database_url,
            "CARDSWITCH_VAULT__PASSPHRASE_FILE": str(self.data_dir / "vault.passphrase"),
        }
        return self._serve(changes, settings, fail_at)

    def _serve(
        self, changes: dict[str, str], settings: dict[str, object], fail_at: str = "", *, fresh: bool = False
    ) -> SwitchProcess:
        chosen = {f"CARDSWITCH_{name.upper()}": str(value) for name, value in settings.items()}
        log = self.folder / f"serve-{next(self._starts)}.log"
        process = SwitchProcess(self.environment | changes | chosen, log, fail_at, fresh=fresh)
        self.processes.append(process)
        return process

    def stop(self, process: SwitchProcess) -> None:
        """End a process by SIGTERM, if it still runs."""
        process.end()
        self.processes.remove(process)

    def stop_all(self) -> None:
        """End all, the one with the database last."""
        for process in reversed(list(self.processes)):
            self.stop(process)

    # ------------------------------------------------------------------ to be dealt out

    def new_terminal(self, mac_id: int = 5, **changes: Any) -> Terminal:
        """A terminal that no other test has."""
        number = next(self._terminals[mac_id])
        assert number < mac_id * 10_000 + TERMINALS[mac_id], "the town is out of terminals"
        return terminal_of(number, mac_id, **changes)

    def new_bus(self) -> Terminal:
        """A terminal with a PSAM that no other test has."""
        number = next(self._buses)
        assert number < BUSES + BUSES_MAX, "the town is out of buses"
        return terminal_of(number)

    def new_kiosk(self) -> Terminal:
        """A terminal that takes cash for loads, and that no other test has."""
        number = next(self._kiosks)
        assert number < KIOSKS + KIOSKS_MAX, "the town is out of kiosks"
        return terminal_of(number)

    def new_card(self, kind: str = "plain") -> CardData:
        """A card that no other test has."""
        return CardData(pan_of(self._free[kind].pop(0)), "001")

    def card_in_the_shard_of(self, subject: CardData | Terminal) -> CardData:
        """A plain card whose holder is in the same shard as another card, or as a terminal's messages without a card."""
        with psycopg.connect(self.database_url) as connection:
            if isinstance(subject, Terminal):
                query = (
                    "SELECT mod(terminal_no, 2)::smallint FROM terminal WHERE terminal_id = %s"  # two shards
                )
                name = subject.terminal_id
            else:
                query = "SELECT shard FROM card_route WHERE pan = %s"
                name = subject.pan
            shard = connection.execute(query, [name]).fetchone()
            found = connection.execute("SELECT pan FROM card_route WHERE shard = %s", shard).fetchall()
        together = {pan for (pan,) in found}
        free = self._free["plain"]
        number = next(number for number in free if pan_of(number) in together)
        free.remove(number)
        return CardData(pan_of(number), "001")
