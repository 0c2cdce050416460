"""A batch that finds no place or no database: it waits its turn, and then its terminal is told to send it again."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from psycopg import AsyncConnection

from switch.domain.decisions import Outcome
from switch.domain.errors import DatabaseLost, MacMismatch
from switch.keys.primitives import Algorithm
from switch.purse.intake import Upload
from switch.registry.terminals import KeySet, TerminalDirectory, TerminalEntry
from switch.routing.purse_batches import PurseBatches
from terminal_sim.crypto import WorkingKeys
from terminal_sim.frames import PinPad, Terminal
from terminal_sim.mqtt_batches import Receipt, pack_batch, read_receipt

TERMINAL = Terminal("33600001", "993350054110001", bytes(16), 5)
PAD = PinPad(TERMINAL, WorkingKeys(bytes(16), bytes(range(16)), None))
FOREVER_S = 4e9


class Keys:
    """Working keys of the terminal, by the simulator's cryptography."""

    terminal_id = TERMINAL.terminal_id
    algorithm = Algorithm.SM4

    def mac(self, mab: bytes) -> bytes:
        return PAD.field64(mab)

    def verify(self, mab: bytes, field64: bytes) -> None:
        if not PAD.mac_holds(mab, field64):
            raise MacMismatch("MAC is wrong")


ENTRY = TerminalEntry(
    1,
    "33600001",
    1,
    "993350054110001",
    "99993350",
    5,
    True,
    True,
    3,
    None,
    7,
    (KeySet(7, Keys(), FOREVER_S),),
)


class Directory:
    """Knows one terminal, or cannot ask."""

    def __init__(self, *, lost: bool = False) -> None:
        self.lost = lost

    def get(self, terminal_id: str) -> TerminalEntry | None:
        return None if self.lost else ENTRY

    async def load(self, terminal_id: str) -> TerminalEntry:
        raise DatabaseLost("gone")

    reload = load


class Counter:
    """The intake and what is counted. room: how many uploads it takes before it is full."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[tuple[Upload, Callable[[Outcome | None], None]]] = []
        self.receipts: list[str] = []

    def take_in(self, upload: Upload, done: Callable[[Outcome | None], None]) -> bool:
        if len(self.taken) >= self.room:
            return False
        self.taken.append((upload, done))
        return True

    def receipt(self, result: str) -> None:
        self.receipts.append(result)

    def mac_failed(self) -> None:
        raise AssertionError("no MAC is wrong here")


def no_connection() -> AbstractAsyncContextManager[AsyncConnection[Any]]:
    raise AssertionError("nothing is to be promoted")


def desk_of(counter: Counter, directory: Directory) -> PurseBatches:
    return PurseBatches(cast(TerminalDirectory, directory), counter, no_connection, counter)


async def receipt_of(desk: PurseBatches, serial: int) -> Receipt:
    return read_receipt(await desk.receive("33600001", pack_batch(TERMINAL, PAD, serial, [bytes(96)])))


async def test_batches_wait_for_a_place_in_their_order_and_what_could_not_be_booked_is_to_come_again() -> (
    None
):
    counter = Counter(room=1)
    desk = desk_of(counter, Directory())
    waiting = [asyncio.ensure_future(receipt_of(desk, serial)) for serial in range(1, 4)]
    while not counter.taken:
        await asyncio.sleep(0)
    counter.taken[0][1](None)
    first = await waiting[0]
    assert (first.result, first.results, PAD.mac_holds(first.signed, first.mac)) == ("96", (), True)
    counter.room = 3
    while len(counter.taken) < 3:
        await asyncio.sleep(0.01)
    assert [upload.serial for upload, _ in counter.taken] == [1, 2, 3]
    for task in waiting[1:]:
        assert not task.done()
    for _, done in counter.taken[1:]:
        done(None)
    assert [(await task).result for task in waiting] == ["96"] * 3
    assert counter.receipts == ["96"] * 3


async def test_without_a_database_to_ask_who_it_is_a_batch_is_to_come_again() -> None:
    receipt = await receipt_of(desk_of(Counter(room=1), Directory(lost=True)), 1)
    assert (receipt.result, receipt.mac_id) == ("96", 0)
