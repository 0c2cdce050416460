"""A host and the way to it: simulated hosts with their keys, links with theirs, and requests to ask."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from switch.domain.calendar import SHANGHAI
from switch.domain.hosts import (
    HostKey,
    HostOriginal,
    HostRequest,
    HostService,
    HostStep,
    LateAnswer,
    host_key,
)
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind
from switch.keys.ceremony import Custodian, zone_spec
from switch.keys.opening import create_vault
from switch.keys.sealing import UnlockSecret
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import JsonKeyStore
from switch.keys.zone import ZoneKeys
from switch.messages.dialect import Dialect
from switch.messages.host_1987 import BCD
from switch.messages.host_mapping import Parties
from switch.transports.breaker import BreakerTerms
from switch.transports.host_link import TcpHostLink
from switch.transports.host_terms import LinkTerms
from terminal_sim.host.book import Account, HostBook
from terminal_sim.host.keys import ZoneSecrets
from terminal_sim.host.script import Script
from terminal_sim.host.server import SimulatedHost

BANK = "01020000"
UNLOCK = UnlockSecret(b"a key file for the tests, 32 bytes", "hkdf")  # a passphrase costs 0.1 s each time
OPERATORS = ("li wei", "wang fang")
SECRETS = {
    "3DES": ZoneSecrets(
        bytes.fromhex("1F349C042DD1E92B62383F25ED15C37B"),
        bytes.fromhex("B80F60B41DC46E779FB4BF4931DBCF44"),
        bytes.fromhex("1BEA9314407FB4395F2C97F56B1A4F33"),
        3,
    ),
    "SM4": ZoneSecrets(
        bytes.fromhex("CB437418FDFDC062835272B424849C3E"),
        bytes.fromhex("57B8095B45537849C2773301DFB990D7"),
        bytes.fromhex("E24A0E05CC26CF8923899246CD3D934A"),
        5,
    ),
}
CARD = CardNumber("6228480123456789006")
AT = datetime(2026, 11, 25, 10, 30, 15, tzinfo=SHANGHAI)
PARTIES = Parties("49993350", BANK)
OPENING_FEN = 1_000_000


def zone_vault(folder: Path) -> tuple[SoftwareVault, JsonKeyStore]:
    """A vault that shares SECRETS with the bank, and its store."""
    store = JsonKeyStore(folder / "zone-keys.json")
    vault = create_vault(store, UNLOCK, rehearsal=True)
    custodian = Custodian(vault, store)
    for algorithm, secrets in SECRETS.items():
        for kind, clear in (("ZMK", secrets.zmk), ("ZAK", secrets.zak), ("ZPK", secrets.zpk)):
            custodian.enter(zone_spec(kind, algorithm, 1, BANK), [clear, bytes(16)], OPERATORS)
    return vault, store


def book(balance_fen: int = OPENING_FEN, pin: str | None = None) -> HostBook:
    """A host's books with one card."""
    return HostBook([Account(CARD.reveal(), balance_fen, pin)])


def request(trace: int = 1, **changes: Any) -> HostRequest:
    """A purchase of 12.34 yuan, or what the changes make of it."""
    made = HostRequest(
        step=HostStep.FINANCIAL,
        service=HostService.PURCHASE,
        key=host_key(trace, AT),
        at=AT,
        card=CARD,
        account=AccountKind.BANK,
        amount_fen=Fen(1234),
        terminal_id="33500001",
        merchant_id="335000000000017",
        reference="632910A00001",
        entry_mode="051",
    )
    return made._replace(**changes)


def reversal_of(original: HostRequest, trace: int, *, step: HostStep = HostStep.REVERSAL) -> HostRequest:
    """The reversal of a request."""
    return original._replace(
        step=step,
        key=HostKey(original.key.transmitted, trace),
        original=HostOriginal(original.step, original.key),
        reason="98",
    )


class Watched:
    """Counts what a link tells its operators, and keeps late answers."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        self.strange: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.late: list[LateAnswer] = []

    def host_ended(self, host: str, end: str, seconds: float) -> None:
        self.ends[end] += 1

    def host_strange(self, host: str, what: str) -> None:
        self.strange[what] += 1

    def host_line_closed(self, host: str, reason: str) -> None:
        self.closed[reason] += 1


# As quick as a test can be. Tests of time-outs ask for their own, such as SHORT_S; the others must not
# meet one on a busy machine.
SHORT_S = 0.8
QUICK = LinkTerms(
    name="bank",
    host="127.0.0.1",
    port=0,
    dialect=BCD,
    parties=PARTIES,
    connections=1,
    answer_s=20.0,
    connect_s=20.0,
    network_answer_s=20.0,
    quiet_s=30.0,
    reconnect_min_s=0.02,
    reconnect_max_s=0.1,
    breaker=BreakerTerms(failures=1_000, open_s=0.3, open_max_s=1.2, probes=2),
)


async def until(condition: Any, within_s: float = 60.0) -> None:
    """Return when the condition holds; it depends on another task that signals nothing."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def ask(link: TcpHostLink, made: HostRequest, **more: Any) -> Any:
    """Ask with a deadline far away: the link's own time-out counts."""
    return await link.ask(made, deadline_s=time.monotonic() + 600.0, **more)


@asynccontextmanager
async def linked(
    folder: Path,
    script: Script | None = None,
    *,
    dialect: Dialect = BCD,
    algorithm: str = "3DES",
    accounts: HostBook | None = None,
    port: int | None = None,
    ready: bool = True,
    **terms: Any,
) -> AsyncIterator[tuple[TcpHostLink, SimulatedHost, Watched]]:
    """A link to a simulated host, signed on, with what its operators see."""
    vault, _ = zone_vault(folder)
    watched = Watched()
    async with SimulatedHost(dialect, SECRETS[algorithm], accounts or book(), script) as host:
        chosen = replace(QUICK, port=host.port if port is None else port, dialect=dialect, **terms)
        keys = ZoneKeys(vault, BANK, SECRETS[algorithm].mac_id)
        link = TcpHostLink(chosen, keys, watched, watched.late.append)
        await link.start()
        try:
            if ready:
                await until(lambda: link.figures().lines == chosen.connections)
            yield link, host, watched
        finally:
            await link.stop(0.2)


def balances(host: SimulatedHost, cards: Iterable[CardNumber] = (CARD,)) -> list[int]:
    """What the host says its accounts hold."""
    return [host.book.balance_fen(card.reveal()) for card in cards]
