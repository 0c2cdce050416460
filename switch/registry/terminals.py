"""Terminals as the hot path sees them: who they are, whom they belong to, and under which keys they speak.

An entry is of one moment. Keys are opened by the vault into handles; nothing here sees a key.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Any, Final, NamedTuple

import structlog
from psycopg import AsyncConnection

from switch.keys.sealing import SealError
from switch.keys.vault import TerminalKeys, Vault
from switch.messages.answers import Processing
from switch.registry.cache import Lookup
from switch.storage.sql import load

_SQL = load("switch.registry")

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]

log = structlog.get_logger(__name__)

TERMINALS_MAX = 50_000
MERCHANTS_MAX = 20_000
BATCHES_MAX = 20_000
KEY_AGE_S = 86_400.0  # working keys serve for at most a day

# The last columns of terminals_by_id.
NEEDED: Final = (Processing.FETCH_PARAMETERS, Processing.FETCH_HOT_LIST, Processing.UPLOAD_STATUS)

MERCHANT_UNKNOWN: Final = "03"
TERMINAL_UNKNOWN: Final = "97"


class KeySet(NamedTuple):
    """Working keys of one sign-on. `until_s`: seconds since the epoch after which they no longer serve."""

    generation: int
    keys: TerminalKeys
    until_s: float


class Need(NamedTuple):
    """Something that a terminal is to be asked for. requirement: header digit 6; wanted: which version, or since which report."""

    requirement: int
    wanted: int


class TerminalEntry(NamedTuple):
    """What the database said about a terminal at one moment."""

    terminal_no: int
    terminal_id: str  # 8 characters
    merchant_no: int
    merchant_id: str  # 15 characters
    acquirer_id: str  # 8 digits
    mac_algorithm: int  # 1 to 5
    terminal_active: bool
    merchant_active: bool
    batch_no: int  # of the last batch opened; 0 before the first sign-on
    batch_opened_on: date | None  # its business date
    generation: int  # of the key set that serves; may name one that is gone (signed off)
    key_sets: tuple[
        KeySet, ...
    ]  # the one that serves, then those waiting for their first good MAC, youngest first
    category: str = ""  # of the merchant, 4 digits
    needs: tuple[Need, ...] = ()
    cash_loads: bool = False  # its agent takes cash for loads

    def serves(self, merchant_id: str) -> bool:
        """Whether terminal and merchant are active and belong together."""
        return self.terminal_active and self.merchant_active and self.merchant_id == merchant_id

    def usable_keys(self, now_s: float) -> tuple[KeySet, ...]:
        """The key sets to try, in order, at `now_s` seconds since the epoch; none means: sign on again (77)."""
        key_sets = self.key_sets
        for key_set in key_sets:
            if key_set.until_s < now_s:
                return tuple(one for one in key_sets if one.until_s >= now_s)
        return key_sets


class Unknown(NamedTuple):
    """No terminal has this id."""


UNKNOWN: Final = Unknown()


class TerminalDirectory:
    """Entries by terminal id: at most `capacity` kept until somebody says that they changed.

    connect: gives a connection from a pool, as a context manager.
    """

    def __init__(
        self,
        connect: Connect,
        vault: Vault,
        *,
        capacity: int = TERMINALS_MAX,
        absent_s: float = 1.0,
        key_age_s: float = KEY_AGE_S,
    ) -> None:
        self._connect = connect
        self._vault = vault
        self._key_age_s = key_age_s
        self._entries: Lookup[str, TerminalEntry] = Lookup(self._fetch, capacity=capacity, absent_s=absent_s)
        self._merchants: Lookup[str, bool] = Lookup(
            self._fetch_merchants, capacity=MERCHANTS_MAX, absent_s=absent_s, queries_max=1
        )
        self._batches: Lookup[tuple[int, int], date] = Lookup(
            self._fetch_batches, capacity=BATCHES_MAX, absent_s=absent_s, queries_max=1
        )

    def get(self, terminal_id: str) -> TerminalEntry | None:
        """The entry if it is at hand; None means: ask `load`."""
        return self._entries.get(terminal_id)

    async def load(self, terminal_id: str) -> TerminalEntry | Unknown:
        """The entry from the cache or the database; many waiters share one query.

        Raises DatabaseLost or Overloaded.
        """
        return await self._entries.load(terminal_id) or UNKNOWN

    async def reload(self, terminal_id: str) -> TerminalEntry | Unknown:
        """The entry as the database has it now.

        To be asked once when a MAC fails under the keys at hand: the terminal may have signed on through another process a
        moment ago, and its first message can overtake the notice. Waiters share one query, so noise costs little.
        """
        return await self._entries.reload(terminal_id) or UNKNOWN

    async def refusal(self, entry: TerminalEntry | Unknown, merchant_id: str) -> str:
        """Why this pair may not speak: "03" unknown or closed merchant, "97" terminal not his or closed, "" when it may."""
        if isinstance(entry, TerminalEntry) and entry.merchant_id == merchant_id:
            if not entry.merchant_active:
                return MERCHANT_UNKNOWN
            return "" if entry.terminal_active else TERMINAL_UNKNOWN
        active = await self._merchants.load(merchant_id)
        return TERMINAL_UNKNOWN if active else MERCHANT_UNKNOWN

    async def batch_opened_on(self, terminal_no: int, batch_no: int) -> date | None:
        """The business date on which a batch, also an older one, was opened; None if it never was.

        No key of that batch can be older, so a repeat is looked for from that day on.
        """
        return await self._batches.load((terminal_no, batch_no))

    def invalidate(self, terminal_id: str) -> None:
        """Forget an entry: its keys, batch or attributes changed."""
        self._entries.invalidate(terminal_id)

    def notice(self, payload: str) -> None:
        """A change announced by some process; see registry/invalidation.py."""
        if payload.startswith("terminal:"):
            self._entries.invalidate(payload.removeprefix("terminal:"))
        elif not payload.startswith(("card", "routes", "binding")):
            self._entries.clear()
            self._merchants.clear()

    def distrust(self) -> None:
        """Changes are not heard: forget all, keep nothing."""
        self._entries.distrust()
        self._merchants.distrust()

    def trust(self) -> None:
        """Changes are heard again."""
        self._entries.trust()
        self._merchants.trust()

    async def close(self) -> None:
        """End look-ups that are on their way."""
        await self._entries.close()
        await self._merchants.close()
        await self._batches.close()

    def __len__(self) -> int:
        return len(self._entries)

    async def _fetch(self, terminal_ids: Sequence[str]) -> Mapping[str, TerminalEntry]:
        async with self._connect() as connection:
            cursor = await connection.execute(
                _SQL["terminals_by_id"], {"terminal_ids": list(terminal_ids)}, prepare=True, binary=True
            )
            rows = await cursor.fetchall()
        entries: dict[str, TerminalEntry] = {}
        for row in rows:
            terminal_id = row[0]
            entry = entries.get(terminal_id) or _entry_of(row)
            generation, stored, drawn_s = row[11:14]
            if stored is not None:
                try:
                    keys = self._vault.open_session(terminal_id, stored, entry.mac_algorithm)
                except (SealError, ValueError) as error:
                    # Sealed under another vault: as good as gone, and no reason to fail the others of this query.
                    log.warning(
                        "working keys cannot be opened", terminal=terminal_id, cause=type(error).__name__
                    )
                else:
                    key_set = KeySet(generation, keys, drawn_s + self._key_age_s)
                    entry = entry._replace(key_sets=(*entry.key_sets, key_set))
            entries[terminal_id] = entry
        return entries

    async def _fetch_merchants(self, merchant_ids: Sequence[str]) -> Mapping[str, bool]:
        async with self._connect() as connection:
            cursor = await connection.execute(
                _SQL["merchants_by_id"], {"merchant_ids": list(merchant_ids)}, prepare=True, binary=True
            )
            return dict(await cursor.fetchall())

    async def _fetch_batches(self, keys: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], date]:
        terminal_nos, batch_nos = zip(*keys, strict=True)
        async with self._connect() as connection:
            cursor = await connection.execute(
                _SQL["batches_opened_on"],
                {"terminal_nos": list(terminal_nos), "batch_nos": list(batch_nos)},
                prepare=True,
                binary=True,
            )
            rows = await cursor.fetchall()
        return {(terminal_no, batch_no): opened_on for terminal_no, batch_no, opened_on in rows}


def _entry_of(row: Sequence[Any]) -> TerminalEntry:
    return TerminalEntry(
        terminal_no=row[1],
        terminal_id=row[0],
        merchant_no=row[2],
        merchant_id=sys.intern(row[3]),  # thousands of terminals share one
        acquirer_id=sys.intern(row[4]),
        mac_algorithm=row[5],
        terminal_active=row[6],
        merchant_active=row[7],
        batch_no=row[8],
        batch_opened_on=row[9],
        generation=row[10],
        key_sets=(),
        category=sys.intern(row[14]),
        needs=tuple(
            Need(requirement, wanted)
            for requirement, wanted in zip(NEEDED, row[15:18], strict=True)
            if wanted is not None
        ),
        cash_loads=row[18],
    )
