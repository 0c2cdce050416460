"""The bank behind the golden loads: a simulated host with the bound card of ISO-09 and the card of ISO-11."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from switch.messages.host_1987 import BCD
from terminal_sim.crypto import Algorithm
from terminal_sim.host.book import Account, HostBook
from terminal_sim.host.keys import ZoneSecrets
from terminal_sim.host.server import SimulatedHost
from tests.golden.requests import root_key

BANK: Final = "01020000"
MAC_ID: Final = 5
OPENING_FEN: Final = 1_000_000
SIGN_ON_S: Final = 180.0  # the switch tries to connect every 30 s at the latest
ACCOUNTS: Final = (
    Account("6228480123456789007", OPENING_FEN, "123456"),  # bound to the card of ISO-09 by the seed
    Account("622848012345678900", OPENING_FEN, "123456"),
)


def links(port: int) -> str:
    """The setting `hosts.links` of a switch whose bank is on a port of this machine."""
    return json.dumps(
        [{"name": "bank", "institution": BANK, "host": "127.0.0.1", "port": port, "connections": 1}]
    )


@asynccontextmanager
async def bank(port: int) -> AsyncIterator[SimulatedHost]:
    """The bank; begins when the switch has signed on."""
    zmk, zak, zpk = (root_key(kind, Algorithm.SM4) for kind in ("ZMK", "ZAK", "ZPK"))
    host = SimulatedHost(BCD, ZoneSecrets(zmk, zak, zpk, MAC_ID), HostBook(ACCOUNTS))
    await host.start(port=port)
    try:
        async with asyncio.timeout(SIGN_ON_S):
            while not any(line.signed_on for line in host.connections):
                await asyncio.sleep(0.1)
        yield host
    finally:
        await host.close()
