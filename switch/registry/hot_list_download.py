"""The hot list on its way to one terminal: which list it gets, cut into blocks, the same to the last whatever is published meanwhile.

What a terminal asks for, mode and held version, does not name the version it is being given. So the first block settles that, in the database,
where any process finds it; the others come from there. The first block again begins anew, with the newest version.
"""

import asyncio
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.domain.transactions import HotListDownload
from switch.messages.hot_list import FULL, INCREMENT, pack_packed_block
from switch.messages.structures import HOT_LIST_ENTRIES_MAX, HOT_LIST_ENTRY_BYTES
from switch.registry.list_rollout import SQL as LISTS
from switch.storage.sql import load

_SQL = load("switch.registry", "hot_list.sql")

Connection = AsyncConnection[Any]
LISTS_MAX: Final = 8  # kept packed, per process; the longest has 12 MB
LINE_BYTES_MAX: Final = 9_999 * HOT_LIST_ENTRIES_MAX * HOT_LIST_ENTRY_BYTES  # four digits of block number
_BLOCK_BYTES: Final = HOT_LIST_ENTRIES_MAX * HOT_LIST_ENTRY_BYTES


class _List(NamedTuple):
    """base None: the full list."""

    base: int | None
    version: int


class HotLists:
    """Lists of published versions, packed. They never change, so what is kept is never wrong."""

    def __init__(self) -> None:
        self._packed: OrderedDict[_List, bytes] = OrderedDict()
        self._turn = asyncio.Lock()  # one list at a time is read: thousands of terminals want the same one

    async def block(self, connection: Connection, terminal_no: int, asked: HotListDownload) -> bytes | None:
        """Field 62 of the answer; None when there is no block of this number, or no download was begun with these words."""
        assert asked.block is not None
        if asked.block == 1:
            chosen = await self._choose(connection, terminal_no, asked)
            if chosen.version and chosen.base != chosen.version:
                fetched = {"kind": "HOT", "version": chosen.version, "terminal_no": terminal_no}
                await connection.execute(LISTS["note_fetch"], fetched, prepare=True)
            await _run(
                connection,
                "offer_list",
                terminal_no=terminal_no,
                mode=asked.mode,
                held=asked.held_version,
                base=chosen.base,
                version=chosen.version,
            )
        else:
            cursor = await _run(
                connection, "offered_list", terminal_no=terminal_no, mode=asked.mode, held=asked.held_version
            )
            row = await cursor.fetchone()
            if row is None:
                return None
            chosen = _List(*row)
        packed = await self._read(connection, chosen)
        if len(packed) > LINE_BYTES_MAX:  # it was published for topics only
            return None
        start = (asked.block - 1) * _BLOCK_BYTES
        if start and start >= len(packed):
            return None
        mode, base = (FULL, 0) if chosen.base is None else (INCREMENT, chosen.base)
        end = start + _BLOCK_BYTES
        return pack_packed_block(
            packed[start:end],
            more=end < len(packed),
            mode=mode,
            base=base,
            version=chosen.version,
            block_no=asked.block,
        )

    async def _choose(self, connection: Connection, terminal_no: int, asked: HotListDownload) -> _List:
        """The version that the roll-out has for this terminal.

        The full list where it was asked for, where an increment has nothing to stand on, and where one would be longer.
        """
        cursor = await _run(connection, "wanted", terminal_no=terminal_no, held=asked.held_version)
        row = await cursor.fetchone()
        assert row is not None
        version, entries = row
        full = _List(None, version)
        if asked.mode == FULL or not 0 < asked.held_version <= version:
            return full
        increment = _List(asked.held_version, version)
        if len(await self._read(connection, increment)) > entries * HOT_LIST_ENTRY_BYTES:
            return full
        return increment

    async def _read(self, connection: Connection, wanted: _List) -> bytes:
        async with self._turn:
            packed = self._packed.get(wanted)
            if packed is None:
                name = "full_list" if wanted.base is None else "increment"
                cursor = await _run(connection, name, base=wanted.base, version=wanted.version)
                row = await cursor.fetchone()
                assert row is not None
                packed = bytes(row[0])
                self._packed[wanted] = packed
                if len(self._packed) > LISTS_MAX:
                    self._packed.popitem(last=False)
            else:
                self._packed.move_to_end(wanted)
            return packed


async def confirm_list(connection: Connection, terminal_no: int) -> None:
    """The terminal has the list it was sent last."""
    await _run(connection, "confirm_list", terminal_no=terminal_no)


async def _run(connection: Connection, name: str, **values: Any) -> Any:
    return await connection.execute(_SQL[name], values, prepare=True)
