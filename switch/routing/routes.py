"""The table in force, in a serving process: read when it changes, compiled beside the traffic, exchanged in one step.

A request takes the table once and decides by it to the end. While changes are not heard no table is kept: whoever needs one
then reads what is in force, and those who wait share the reading.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from psycopg import AsyncConnection, Error

from switch.domain.decisions import Decline
from switch.domain.errors import ConfigurationError, DependencyError
from switch.domain.identifiers import luhn_holds
from switch.domain.transactions import (
    Balance,
    CardRequest,
    Kind,
    Load,
    LoadSource,
    PreAuthorisation,
    Purchase,
)
from switch.registry.import_files import Faults
from switch.registry.issuers import Participants
from switch.registry.route_versions import NOTHING, Stored, read_active
from switch.registry.terminals import TerminalEntry
from switch.routing.destinations import LEDGER, Ask, Destination, RouteTable, number_of
from switch.routing.route_format import ACCOUNTS, read_rows
from switch.storage.pool import end_tasks

log = structlog.get_logger(__name__)

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]
RETRY_S: Final = 0.1
RETRY_MAX_S: Final = 5.0

Routed = Purchase | Balance | PreAuthorisation | Load
_ASKED: Final = (Purchase, Balance, PreAuthorisation, Load)  # what names no original
_KIND: Final = {
    Purchase: int(Kind.PURCHASE),
    Balance: int(Kind.BALANCE),
    PreAuthorisation: int(Kind.PRE_AUTHORISATION),
    Load: int(Kind.LOAD),
}


Has = Callable[[Destination], bool]
HostsOf = Callable[[str], tuple[Destination, ...]]


def _nothing(_destination: Destination) -> bool:
    return False


def _no_hosts(_institution_id: str) -> tuple[Destination, ...]:
    return ()


class Routes:
    """Keeps the table in force; a follower of the registry's notices.

    connect: gives a connection from a pool. own_ids: issuer ids that are ours by the settings.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        own_ids: Collection[str],
    ) -> None:
        self._connect = connect
        self._own_ids = frozenset(own_ids)
        self._has: Has = _nothing
        self._usable: Has = _nothing
        self._hosts_of: HostsOf = _no_hosts
        self._trusted = True
        self._changes = 0  # heard of
        self._hearing = 0  # how often that began or ended; what was read across such a moment is not kept
        self._last: RouteTable | None = (
            None  # compiled last; serves again while neither it nor the registry changed
        )
        self._reading: asyncio.Task[RouteTable] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self.table: RouteTable | None = None
        self.problem = ""  # why the table at hand may not be the one in force
        self.may_move_own = True  # whether a card of ours may have to go elsewhere than to the ledger

    def join(self, *, has: Has, usable: Has, hosts_of: HostsOf = _no_hosts) -> None:
        """Whether this switch has a link to a destination, and whether that would be asked now. Until then there are none.

        hosts_of: the hosts of an institution, for bound bank cards.
        """
        self._has, self._usable, self._hosts_of = has, usable, hosts_of

    # ------------------------------------------------------------------ what the reception asks

    def route(
        self, table: RouteTable, request: CardRequest, entry: TerminalEntry, *, own: bool, bank: str = ""
    ) -> Destination | Decline:
        """Where a request goes, or why it goes nowhere. bank: institution of the bound bank card that is to pay, if one is.

        One that names an original goes where that went, and a form that nothing could approve goes nowhere: the ledger knows both.
        So it does an amount of zero and a number with a wrong check digit, whose refusals come first.
        """
        if not isinstance(request, _ASKED) or (
            own and not bank and _account(request) not in table.own_accounts
        ):
            return LEDGER
        amount_fen = 0 if isinstance(request, Balance) else request.amount_fen
        if not amount_fen and not isinstance(request, Balance):
            return LEDGER
        digits = request.card.reveal()
        if not own and not luhn_holds(digits):
            return LEDGER
        ask = Ask(
            number_of(digits),
            own,
            _account(request),
            _KIND[type(request)],
            entry.merchant_id,
            entry.category,
            entry.acquirer_id,
            amount_fen,
            datetime.now(UTC),
            self._hosts_of(bank) if bank else None,
        )
        decision = table.decide(ask)
        chosen = decision.choose(self._usable)
        if chosen is Decline.NO_ROUTE:
            chosen = decision.choose(self._has)  # away: somebody may stand in for it, else 91
        if isinstance(chosen, Decline):
            log.info(
                "no way to go",
                terminal=entry.terminal_id,
                card=str(request.card),
                version=table.version,
                row=decision.row.precedence if decision.row is not None else 0,
                to=" > ".join(map(str, decision.to)),
                rule=chosen.value,
            )
        return chosen

    async def current(self) -> RouteTable:
        """The table in force, read now if none is at hand. Raises DependencyError, psycopg.Error or ConfigurationError."""
        if self.table is not None:
            return self.table
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._load())
            self._reading.add_done_callback(self._read)
        return await asyncio.shield(self._reading)  # a waiter who gives up takes nothing from the others

    def _read(self, task: asyncio.Task[RouteTable]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # otherwise asyncio complains when every waiter has given up

    # ------------------------------------------------------------------ keeping it

    async def start(self) -> None:
        """Read the table for the first time. ConfigurationError when the stored one cannot be used."""
        await self.current()

    def notice(self, payload: str) -> None:
        """Terminals, cards and bindings are no concern of the table; issuers and merchants are."""
        if not payload.startswith(("terminal:", "card", "binding")):
            self._changed()

    def distrust(self) -> None:
        """Changes are not heard: keep nothing."""
        self._trusted = False
        self._hearing += 1
        self._take(None)

    def trust(self) -> None:
        """Changes are heard again."""
        self._trusted = True
        self._hearing += 1
        self._changed()

    async def close(self) -> None:
        """End what is being read."""
        await end_tasks(self._reading, self._refreshing)

    def _changed(self) -> None:
        """The table at hand serves until the new one is there."""
        self._changes += 1
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    async def _refresh(self) -> None:
        """Read until what was read is what is in force. A change during a reading means another one."""
        pause_s = RETRY_S
        try:
            while self._trusted:
                seen, hearing = self._changes, self._hearing
                table = await self._try()
                if table is None:
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, RETRY_MAX_S)
                    continue
                if self._trusted and hearing == self._hearing:
                    # Newer than the one at hand, if not the newest: in a storm of changes that would never come.
                    self._take(table)
                if seen == self._changes:
                    return
        finally:
            self._refreshing = None

    async def _try(self) -> RouteTable | None:
        """What is in force, or None when it cannot be read."""
        try:
            table = await self._load()
        except (DependencyError, Error, OSError, ConfigurationError) as error:
            why = str(error) if isinstance(error, ConfigurationError) else type(error).__name__
            log.warning("the routing table in force cannot be read", error=why)
        except Exception:  # our own fault, and no reason never to try again
            log.exception("the routing table in force cannot be read")
        else:
            self.problem = ""
            return table
        self.problem = "the routing table in force cannot be read"
        return None

    async def _load(self) -> RouteTable:
        async with self._connect() as connection:
            stored, participants = await read_active(connection, self._own_ids)
        last = self._last
        if last is not None and (last.version, last.participants) == (stored.version, participants):
            return last
        # In a thread: ten thousand rows take a good part of a second, and terminals are served meanwhile.
        table = await asyncio.to_thread(compiled, stored, participants)
        if last is None or last.version != table.version:
            log.info("routing table read", version=table.version, rows=len(table.rows))
        self._last = table
        return table

    @property
    def version(self) -> int:
        """Of the table that serves, or while there is none at hand the one last read; 0 for only what is built in."""
        table = self.table or self._last
        return table.version if table is not None else 0

    def _take(self, table: RouteTable | None) -> None:
        self.table = table
        self.may_move_own = table is None or bool(table.own_accounts)


def compiled(stored: Stored, participants: Participants) -> RouteTable:
    """A stored version as a table. ConfigurationError when it is none: it was checked when it was stored, so by another release."""
    if stored.version == NOTHING.version:
        return RouteTable((), participants)
    faults = Faults()
    rows = read_rows(stored.content, f"version {stored.version}", faults)
    if faults.found:
        raise ConfigurationError(f"routing table: {faults.found[0]}")
    return RouteTable(rows, participants, version=stored.version, bounded=False)


def _account(request: Routed) -> int:
    """The account that pays; of cash, the one that is loaded."""
    if not isinstance(request, Load):
        return int(request.account)
    if request.source is LoadSource.CASH:
        return ACCOUNTS["ONLINE" if request.purse is None else "PURSE"]
    return ACCOUNTS["ONLINE" if request.source is LoadSource.ONLINE else "BANK"]
