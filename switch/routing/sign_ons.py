"""Sign-ons of one terminal share one connection to the database.

A sign-on waits for the lock on its terminal's session, and anybody can send sign-ons. If each waited with a pooled connection in its
hands, a flood for one terminal would keep every other from the database. So one goes at a time, and all requests that came before it
began get its keys: handed out twice they are no harm, since only the terminal can read them. One that has begun is not
shared: it may have seen a batch that was closed since.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

from psycopg import AsyncConnection

from switch.domain.transactions import SignOn
from switch.keys.vault import Vault
from switch.registry.sessions import SignOnRefused, SignOnResult, sign_on
from switch.registry.terminals import TerminalDirectory, TerminalEntry

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]

SIGN_ONS_MAX: Final = (
    32  # requests of one terminal that wait; a real one has one, or two when it lost patience
)
TURN_S: Final = 20.0  # waiting for its turn, a connection and the lock


class _Kind(NamedTuple):
    """Sign-ons that can be answered with the same keys."""

    terminal_no: int
    sm4: bool
    with_track_key: bool


class SignOnDesk:
    """Sign-ons of this process. Use: admit(), and when it says yes, exactly one take()."""

    def __init__(self, connect: Connect, vault: Vault, terminals: TerminalDirectory) -> None:
        self._connect = connect
        self._vault = vault
        self._terminals = terminals
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()  # by terminal
        self._coming: dict[_Kind, asyncio.Task[SignOnResult | SignOnRefused]] = {}  # yet to begin
        self._waiting: Counter[int] = Counter()  # requests by terminal

    def admit(self, terminal_no: int) -> bool:
        """Count a request in; False when too many of its terminal wait."""
        if self._waiting[terminal_no] >= SIGN_ONS_MAX:
            return False
        self._waiting[terminal_no] += 1
        return True

    def dismiss(self, terminal_no: int) -> None:
        """Count a request out that nobody takes."""
        self._waiting[terminal_no] -= 1
        if not self._waiting[terminal_no]:
            del self._waiting[terminal_no]

    async def take(self, entry: TerminalEntry, content: SignOn) -> SignOnResult | SignOnRefused:
        """Do a request that was admitted, with all others that may share it. What sign_on raises, or TimeoutError."""
        kind = _Kind(entry.terminal_no, content.sm4, content.with_track_key)
        try:
            task = self._coming.get(kind)
            if task is None:
                task = asyncio.get_running_loop().create_task(self._in_turn(kind, entry, content))
                task.add_done_callback(_noticed)
                self._coming[kind] = task
            return await asyncio.shield(task)  # whoever gives up leaves it to the others
        finally:
            self.dismiss(entry.terminal_no)

    async def _in_turn(
        self, kind: _Kind, entry: TerminalEntry, content: SignOn
    ) -> SignOnResult | SignOnRefused:
        turn = self._turns.setdefault(kind.terminal_no, asyncio.Lock())
        try:
            async with asyncio.timeout(TURN_S), turn:
                del self._coming[kind]
                async with self._connect() as connection:
                    return await sign_on(connection, self._vault, entry, content)
        finally:
            if self._coming.get(kind) is asyncio.current_task():
                del self._coming[kind]
            self._terminals.invalidate(entry.terminal_id)


def _noticed(task: asyncio.Task[Any]) -> None:
    """Whoever waited was told or has given up: an error is no news for the loop."""
    if not task.cancelled():
        task.exception()
