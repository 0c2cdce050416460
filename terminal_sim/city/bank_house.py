"""The city's bank as a process of its own, its line to the switch, and what it has in its books at the end."""

import asyncio
import json
import signal
from time import perf_counter as now
from typing import Any

from terminal_sim.city import bank
from terminal_sim.city.house import House
from terminal_sim.city.papers import write_private
from terminal_sim.city.plan import CityPlan
from terminal_sim.city.process import HouseError, Resident
from terminal_sim.host.book import HostBook
from terminal_sim.host.ledger_file import replay

ACCOUNTS, BOOKS = "bank-accounts.json", "bank-books.jsonl"
HABIT = "slow:0.02"  # it books at once, and its answer is 20 ms on the way
LINES_TIMEOUT_S = 300.0
TOLD_TIMEOUT_S = 300.0
POLL_S = 0.05
ASKED_MAX = 40


class BankHouse:
    """One host. Its port stays the same when it comes back, and so do its books."""

    def __init__(self, plan: CityPlan, house: House) -> None:
        self._plan = plan
        self._house = house
        self._process = Resident("the bank", house.folder, house.folder / "bank.log")
        self._port = 0

    async def open(self) -> int:
        """Begin, or come back. Returns its port."""
        folder = self._house.folder
        accounts = [
            {"pan": account.pan, "balance_fen": account.balance_fen} for account in bank.accounts(self._plan)
        ]
        write_private(folder / ACCOUNTS, accounts)
        words = await self._process.start(
            *("sim", "host", "--institution", bank.BANK, "--keys", "keys.json", "--accounts", ACCOUNTS),
            *("--books", BOOKS, "--mac", str(bank.MAC_ID), "--port", str(self._port), "--habit", HABIT),
            environment=self._house.environment,
        )
        if words[:1] != ["host"] or len(words) != 2:
            raise HouseError("the bank did not say where it listens")
        self._port = int(words[1].rpartition(":")[2])
        return self._port

    def fall_silent(self) -> None:
        """It goes on booking, and answers nobody."""
        self._process.signal(signal.SIGUSR1)

    async def kill(self) -> None:
        """SIGKILL, with whatever it was about to answer."""
        await self._process.kill()

    async def close(self) -> None:
        """End it."""
        await self._process.stop()

    async def linked(self) -> None:
        """Wait until the switch has a line to it."""
        end = now() + LINES_TIMEOUT_S
        while await self._house.metric("cardswitch_host_lines", host=bank.HOST) < 1:
            if now() > end:
                raise HouseError(f"the switch had no line to its bank within {LINES_TIMEOUT_S:.0f} s")
            await asyncio.sleep(POLL_S)

    async def wait_unanswered(self, count: int, within_s: float) -> None:
        """Wait until so many questions are with it, or for so long."""
        end = now() + within_s
        while await self._house.metric("cardswitch_host_in_flight", host=bank.HOST) < count:
            if now() > end:
                return
            await asyncio.sleep(POLL_S)

    async def told(self) -> int:
        """How many messages from store this `serve` has got to their end: confirmed, or refused, which the last reckoning finds."""
        name, host = "cardswitch_host_forwarded_total", bank.HOST
        confirmed = await self._house.metric(name, host=host, end="confirmed")
        return int(confirmed + await self._house.metric(name, host=host, end="refused"))

    async def wait_told(self, count: int) -> None:
        """Wait until it is so many."""
        end = now() + TOLD_TIMEOUT_S
        while await self.told() < count:
            if now() > end:
                raise HouseError(f"the bank was not told everything within {TOLD_TIMEOUT_S:.0f} s")
            await asyncio.sleep(POLL_S)

    async def owed(self) -> dict[str, Any]:
        """What `cardswitch hosts list` says of it."""
        for one in (await self._house.run("hosts", "list", "--json")).document:
            if one["host"] == bank.HOST:
                found: dict[str, Any] = one
                return found
        raise HouseError("cardswitch hosts list does not know the bank")

    async def settled(self) -> dict[str, Any]:
        """Wait until it is owed nothing any more; what `hosts list` said last."""
        owed = await self.owed()
        for _ in range(ASKED_MAX):
            if not owed["open"]:
                break
            await asyncio.sleep(POLL_S)
            owed = await self.owed()
        return owed

    def books(self) -> HostBook:
        """Its books as they are on its own disk."""
        return replay(self._house.folder / BOOKS, HostBook(bank.accounts(self._plan)))


def link(port: int) -> tuple[str, str]:
    """The setting with which the switch finds its bank."""
    return "CARDSWITCH_HOSTS__LINKS", json.dumps([bank.host_settings(port)])
