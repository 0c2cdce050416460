"""Every request is answered once, or left unanswered on purpose, whatever goes wrong behind the reception."""

import asyncio
import gc
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from switch.domain.decisions import BalanceFigure, Outcome
from switch.domain.money import Fen
from switch.keys.primitives import Algorithm
from switch.keys.terminal_keys import EngineRing, SoftwareTerminalKeys
from switch.ledger.items import IN_DOUBT, Item
from switch.messages.codec import decode, encode
from switch.registry.cards import CardRoute
from switch.registry.terminals import KeySet, TerminalEntry
from switch.routing.reception import Reception
from tests.helpers.frames import changed, frame_of, golden

PURCHASE = "ISO-04-PURCHASE-REQ"
BALANCE = "ISO-03-BALANCE-REQ"


class Wire:
    """Counts what a request gets."""

    def __init__(self, watch: "Watch") -> None:
        self.answers: list[str] = []
        self.left_unanswered = 0
        self.watch = watch

    def answer(self, framed: bytes, *, trusted: bool | None) -> None:
        self.answers.append(decode(framed[2:]).fields[39])

    def leave_unanswered(self) -> None:
        self.left_unanswered += 1


class Directory:
    """Knows one terminal and one card; stands for both directories."""

    def __init__(self, entry: TerminalEntry, shard: int) -> None:
        self._entry = entry
        self._shard = shard

    def get(self, key: Any) -> Any:
        return self._entry if isinstance(key, str) else CardRoute(self._shard, 1, 1)

    async def reload(self, _terminal_id: str) -> TerminalEntry:
        return self._entry


class Routes:
    """A table that has nothing to say about cards of ours."""

    may_move_own = False


class Books:
    """A ledger that does with an item what the test says."""

    def __init__(self, do: Callable[[Item], bool]) -> None:
        self.do = do

    def submit(self, shard: int, item: Item) -> bool:
        return [self.do][shard](item)

    def shard_of_terminal(self, terminal_no: int) -> int:
        return 0


class Vault:
    """Reads every PIN."""

    def pin_verifier(self, *_args: Any) -> bytes:
        return bytes(16)


class Watch:
    """Remembers which transactions were counted."""

    def __init__(self) -> None:
        self.transactions: list[str] = []

    def answered(self, _mti: str, transaction: str, _answer: str, _seconds: float) -> None:
        self.transactions.append(transaction)

    def mac_failed(self) -> None:
        """A MAC was wrong."""


def reception_for(
    vector: str, do: Callable[[Item], bool], *, shard: int, keyless: bool
) -> tuple[Reception, Wire]:
    """A reception that knows the sender of a golden frame, and the line that the sender is at."""
    mak = bytes.fromhex(golden()[vector]["mak"])
    keys = SoftwareTerminalKeys("33500001", bytes((Algorithm.TDES,)) + bytes(16) + mak, 1, EngineRing())
    message = decode(frame_of(vector)[2:])
    entry = TerminalEntry(
        1,
        message.fields[41],
        1,
        message.fields[42],
        "99993350",
        1,
        True,
        True,
        int(message.fields[60][2:8]),
        date(2024, 3, 15),
        1,
        () if keyless else (KeySet(1, keys, time.time() + 3600),),
    )
    directory: Any = Directory(entry, shard)
    vault: Any = Vault()
    watch = Watch()
    nobody: Any = None
    routes: Any = Routes()
    reception = Reception(
        vault=vault,
        terminals=directory,
        cards=directory,
        routes=routes,
        books=Books(do),
        desk=nobody,
        hosts=nobody,
        bindings=nobody,
        connect=nobody,
        watch=watch,
        acquirer="49993350",
    )
    return reception, Wire(watch)


def receive(vector: str, do: Callable[[Item], bool], *, shard: int = 0, body: bytes = b"") -> Wire:
    """What the sender of a golden frame gets; of a terminal without keys when it sends another body."""
    reception, wire = reception_for(vector, do, shard=shard, keyless=bool(body))
    reception.receive(body or frame_of(vector)[2:], wire)
    return wire


def telling(outcome: Outcome | None) -> Callable[[Item], bool]:
    def do(item: Item) -> bool:
        item.done(item, outcome)
        return True

    return do


def broken(_item: Item) -> bool:
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("shard", [0, 7])
def test_a_fault_behind_a_request_is_answered_96_and_does_not_end_its_connection(shard: int) -> None:
    wire = receive(
        PURCHASE, broken, shard=shard
    )  # shard 7 does not exist: a card imported for more shards than are served
    assert (wire.answers, wire.left_unanswered) == (["96"], 0)


def test_a_request_of_which_nothing_was_booked_is_answered_96() -> None:
    wire = receive(PURCHASE, telling(None))
    assert (wire.answers, wire.left_unanswered) == (["96"], 0)


def test_a_request_in_doubt_is_left_unanswered_so_that_its_terminal_asks_again_or_reverses() -> None:
    wire = receive(PURCHASE, telling(IN_DOUBT))
    assert (wire.answers, wire.left_unanswered) == ([], 1)


def test_an_answer_that_cannot_be_made_leaves_the_request_unanswered_and_no_longer_in_flight() -> None:
    figures = (BalanceFigure(10, 1, Fen(10**13)),)  # more than the twelve digits of field 54
    outcome = Outcome("00", "407508000004", datetime.now(UTC), balances=figures)
    wire = receive(BALANCE, telling(outcome))
    assert (wire.answers, wire.left_unanswered) == ([], 1)


def test_a_full_queue_is_answered_96_at_once() -> None:
    wire = receive(PURCHASE, lambda _item: False)
    assert (wire.answers, wire.left_unanswered) == (["96"], 0)


@pytest.mark.parametrize(("custom", "counted"), [("22", "22"), ("99", "other"), ("78", "other")])
async def test_digits_of_a_stranger_become_no_label(custom: str, counted: str) -> None:
    message = changed(PURCHASE, {60: custom + decode(frame_of(PURCHASE)[2:]).fields[60][2:]})
    wire = receive(PURCHASE, broken, body=encode(message))
    async with asyncio.timeout(60):  # another process may have drawn keys: that is looked up first
        while not wire.answers:
            await asyncio.sleep(0)
    assert (wire.answers, wire.watch.transactions) == (["77"], [counted])


def test_an_answered_request_leaves_nothing_behind_for_the_garbage_collector() -> None:
    """A circle in each would stop the process for a fifth of a second every few seconds, with all its terminals."""
    queued: list[Item] = []

    def queue(item: Item) -> bool:
        queued.append(item)
        return True

    reception, wire = reception_for(PURCHASE, queue, shard=0, keyless=False)
    body = frame_of(PURCHASE)[2:]

    def serve() -> None:
        reception.receive(body, wire)
        item = queued.pop()
        item.done(item, Outcome("00", "000000000001", datetime.now(UTC)))

    serve()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            serve()
        left = gc.collect()
    finally:
        gc.enable()
    assert wire.answers == ["00"] * 21
    assert left < 10  # fewer than one a request
