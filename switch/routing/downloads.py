"""What terminals fetch and report (0800/360, 361, 390, 391; 0820/362), and the digit in answers by which they are asked to.

A terminal whose parameters, hot list or report are out of date is asked in the header of whatever it is answered (處理要求). It may be one that
cannot, or will not: so each need is asked for once, then after a minute, after ten, and then once a day, and different
needs take turns. A new version is a new need.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.domain.decisions import APPROVED
from switch.domain.transactions import HotListDownload, ParameterDownload, StatusUpload
from switch.messages.answers import Processing
from switch.messages.parameters import pack_parameters
from switch.registry.cache import RecentMap
from switch.registry.hot_list_download import HotLists, confirm_list
from switch.registry.terminals import NEEDED, Need, TerminalDirectory, TerminalEntry
from switch.registry.upkeep import confirm_parameters, offer_parameters, store_status

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]
Content = ParameterDownload | HotListDownload | StatusUpload

ASKED_MAX: Final = 100_000  # needs remembered as asked for; forgetting one asks once too often
PAUSES_S: Final = (60.0, 600.0, 86_400.0)  # after the first, the second, and every further asking
AT_ONCE_MAX: Final = (
    2  # of the pooled connections: sign-ons and look-ups must not wait behind a list that thousands fetch
)
NO_SUCH_BLOCK: Final = "12"


class Downloaded(NamedTuple):
    """Fields 39 and 62 of the answer, the terminal as it is known now, and the rule for the log when it is a refusal."""

    answer: str
    entry: TerminalEntry
    field62: bytes = b""
    rule: str = ""


class _Asked(NamedTuple):
    wanted: int
    times: int
    not_before_s: float


class DownloadDesk:
    """Downloads and status of this process's terminals."""

    def __init__(self, connect: Connect, terminals: TerminalDirectory) -> None:
        self._connect = connect
        self._terminals = terminals
        self._hot_lists = HotLists()
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)
        self._asked: RecentMap[tuple[int, int], _Asked] = RecentMap(ASKED_MAX)

    def ask(self, terminal_no: int, needs: tuple[Need, ...], content: object, now_s: float) -> int:
        """Header digit 6 of an answer to `content`: the first need whose turn it is, or nothing. now_s: monotonic seconds."""
        about = _ABOUT.get(type(content))
        for requirement, wanted in needs:
            if requirement == about:  # it is at it
                continue
            key = (terminal_no, requirement)
            asked = self._asked.get(key)
            times = asked.times if asked is not None and asked.wanted == wanted else 0
            if asked is not None and times and now_s < asked.not_before_s:
                continue
            pause_s = PAUSES_S[min(times, len(PAUSES_S) - 1)]
            self._asked.put(key, _Asked(wanted, times + 1, now_s + pause_s))
            return requirement
        return Processing.NONE

    async def take(self, entry: TerminalEntry, content: Content) -> Downloaded:
        """Answer one request. What the world raises, escapes."""
        number = entry.terminal_no
        async with self._turns, self._connect() as connection:
            if isinstance(content, StatusUpload):
                await store_status(connection, number, content.values)
            elif isinstance(content, HotListDownload):
                if content.block is not None:
                    return _block(entry, await self._hot_lists.block(connection, number, content))
                await confirm_list(connection, number)
            elif content.block is not None:
                blocks = dict(enumerate(pack_parameters(await offer_parameters(connection, number))))
                return _block(entry, blocks.get(content.block))
            else:
                await confirm_parameters(connection, number)
        return Downloaded(APPROVED, await self._known_anew(entry))

    async def _known_anew(self, entry: TerminalEntry) -> TerminalEntry:
        """The entry with what it needs now; other processes are told when that has changed."""
        fresh = await self._terminals.reload(entry.terminal_id)
        if not isinstance(fresh, TerminalEntry):
            return entry
        for requirement in set(NEEDED) - {need.requirement for need in fresh.needs}:
            self._asked.pop(
                (entry.terminal_no, requirement)
            )  # met: should it come back, it is asked for at once
        if fresh.needs != entry.needs:
            async with self._turns, self._connect() as connection:
                payload = f"terminal:{entry.terminal_id}"
                await connection.execute("SELECT pg_notify('registry', %s)", (payload,), prepare=True)
        return fresh


def _block(entry: TerminalEntry, field62: bytes | None) -> Downloaded:
    if field62 is None:
        return Downloaded(NO_SUCH_BLOCK, entry, rule="field 62: there is no block of this number")
    return Downloaded(APPROVED, entry, field62)


_ABOUT: Final[dict[type, int]] = {
    ParameterDownload: Processing.FETCH_PARAMETERS,
    HotListDownload: Processing.FETCH_HOT_LIST,
    StatusUpload: Processing.UPLOAD_STATUS,
}
