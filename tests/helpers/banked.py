"""A town whose bank cards and medical accounts are with hosts: two processes, and simulated hosts that tests start on known ports."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from switch.domain.identifiers import luhn_digit
from switch.domain.transactions import AccountKind
from switch.messages.host_1987 import BCD
from terminal_sim.frames import CardData
from terminal_sim.host.book import Account, HostBook
from terminal_sim.host.ledger_file import LedgerFile
from terminal_sim.host.script import Script
from terminal_sim.host.server import SimulatedHost
from tests.helpers.hosts import SECRETS
from tests.helpers.local_server import free_port
from tests.helpers.switch_process import SwitchProcess
from tests.helpers.till import Till
from tests.helpers.town import Town
from tests.unit.routing.tables import write

BANK, FUND, CITY = "01020000", "09350000", "99993310"
HOSTS = {"bank": BANK, "fund": FUND, "city": CITY}
ANSWER_S = 5.0  # some tests wait for it; the others must not meet it on a busy machine
OPENING_FEN = 100_000

REGISTRY: dict[str, Any] = {
    "format": "citizen-card-registry",
    "version": 1,
    "institutions": [
        {"institution_id": BANK, "name": "First Bank", "role": "BANK"},
        {"institution_id": CITY, "name": "Next City", "role": "CITY"},
    ],
    "card_issuers": [
        {"issuer_id": f"{CITY}FFFFFFFF", "institution_id": CITY, "own": False, "circle": "HANGZHOU"}
    ],
}


class Banked(NamedTuple):
    """Two processes on one database, and where their hosts are expected."""

    town: Town
    one: SwitchProcess
    other: SwitchProcess
    ports: dict[str, int]


def neighbour(number: int) -> CardData:
    """A card of the next city."""
    payload = f"313310{number:012d}"
    return CardData(payload + luhn_digit(payload), "001")


def keys_file(folder: Path) -> Path:
    """The keys that the switch shares with its hosts."""
    secrets = SECRETS["SM4"]
    keys = [
        {
            "type": kind,
            "algorithm": "SM4",
            "owner": owner,
            "level": "zone",
            "components": [clear.hex().upper()],
        }
        for owner in HOSTS.values()
        for kind, clear in (("ZMK", secrets.zmk), ("ZAK", secrets.zak), ("ZPK", secrets.zpk))
    ]
    path = folder / "zone-keys.json"
    path.write_text(json.dumps({"format": "cardswitch-rehearsal-keys/1", "keys": keys}))
    return path


@contextmanager
def banked(town: Town, **more: Any) -> Iterator[Banked]:
    """Serve a copy of the town with hosts: account 20 is the bank's, 40 the fund's. more: of every host's settings."""
    ports = {name: free_port() for name in HOSTS}
    links = [
        {
            "name": name,
            "institution": institution,
            "host": "127.0.0.1",
            "port": ports[name],
            "answer_s": ANSWER_S,
            "connections": 1,
            "reconnect_min_s": 0.05,
            "reconnect_max_s": 0.2,
            "breaker_failures": 1_000,
        }
        | more
        for name, institution in HOSTS.items()
    ]
    town.environment["CARDSWITCH_HOSTS__LINKS"] = json.dumps(links)
    one = town.serve()
    try:
        town.run("keys", "ceremony", "--rehearsal", str(keys_file(town.folder)))
        path = town.folder / "hosts.json"
        path.write_text(json.dumps(REGISTRY))
        town.run("registry", "import", str(path))
        rows = ("10 account=BANK HOST:bank", "20 account=MEDICAL HOST:fund")
        town.run("routes", "import", write(town.folder, *rows))
        town.stop(one)  # the keys are opened at the start
        one = town.serve()
        yield Banked(town, one, town.serve_beside(), ports)
        town.run("audit")
    finally:
        town.stop_all()


@asynccontextmanager
async def host_of(
    city: Banked,
    name: str,
    cards: Iterable[CardData],
    script: Script | None = None,
    *,
    pin: str | None = None,
    balance_fen: int = OPENING_FEN,
    processes: Iterable[SwitchProcess] = (),
    books: Path | None = None,
) -> AsyncIterator[SimulatedHost]:
    """A host where the switch expects it, with an account for each card; begins when every process has signed on. books: where it writes down what it books."""
    book = HostBook([Account(card.pan, balance_fen, pin) for card in cards])
    book.keeper = None if books is None else LedgerFile(books)
    host = SimulatedHost(BCD, SECRETS["SM4"], book, script)
    host.scripted = frozenset({"0100", "0200"})  # not what the outbox still has for it from before
    await host.start(port=city.ports[name])
    try:
        await signed_on(city, name, *processes)
        yield host
    finally:
        await host.close()


async def signed_on(city: Banked, name: str, *processes: SwitchProcess) -> None:
    """Wait until processes (both, if none is named) have a line to a host."""
    for process in processes or (city.one, city.other):
        async with asyncio.timeout(60):
            while await asyncio.to_thread(process.metric, "cardswitch_host_lines", host=name) < 1:
                await asyncio.sleep(0.02)


def rows(city: Banked, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What the database says."""
    with psycopg.connect(city.town.database_url) as connection:
        return connection.execute(query.encode(), parameters).fetchall()


async def being_asked(city: Banked, card: CardData) -> None:
    """Wait until there is a question about a card that has not ended."""
    async with asyncio.timeout(60):
        while all(state for state, _ in await asyncio.to_thread(legs, city, card)):
            await asyncio.sleep(0.02)


def legs(city: Banked, card: CardData) -> list[tuple[Any, ...]]:
    """State and amount of a card's legs, oldest first."""
    return rows(city, "SELECT state, amount_fen FROM host_leg WHERE pan = %s ORDER BY leg_no", card.pan)


def outbox(city: Banked, card: CardData) -> list[tuple[Any, ...]]:
    """Step, service, reason and amount of what a card's hosts are to be told."""
    return rows(
        city,
        "SELECT o.step, o.service, o.reason, o.amount_fen FROM host_outbox o JOIN host_leg USING (shard, leg_no)"
        " WHERE pan = %s ORDER BY outbox_no",
        card.pan,
    )


async def buy_and_undo(till: Till, card: CardData) -> None:
    """Four purchases that the bank approves: one stays, one is voided, one is refunded in part, one is reversed."""
    bank = AccountKind.BANK
    for fen, back in ((10_000, 0), (2_000, 2_000), (3_000, 1_234)):
        await till.ask(till.pos.purchase(card, fen, account=bank))
        receipt = till.pos.batch.receipts[-1]
        if back:
            undo = till.pos.void(receipt) if back == fen else till.pos.refund(receipt, back)
            assert await till.code(undo) == "00"
    request = till.pos.purchase(card, 700, account=bank)
    assert await till.code(request) == "00"
    assert await till.code(till.pos.reversal(request, "98")) == "00"
