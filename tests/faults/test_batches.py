"""Batches of the book in trouble: one bad request among good ones, a deadlock, a full queue, and SIGTERM in the middle."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.messages.codec import decode
from terminal_sim.frames import CardData
from terminal_sim.pos_answers import Request
from tests.helpers.switch_process import SwitchProcess, postgres_pids, until
from tests.helpers.till import Seen, Till, Wire, check_books
from tests.helpers.town import Town

pytestmark = pytest.mark.server

CROWD = 64
LOCK = "SELECT account_id FROM account JOIN card_route r USING (shard, holder_id) WHERE r.pan = %s FOR NO KEY UPDATE OF account"


@pytest.fixture(scope="module")
def process(town: Town) -> SwitchProcess:
    return town.serve()


@pytest.fixture
async def seen(town: Town) -> AsyncIterator[Seen]:
    told = Seen()
    yield told
    check_books(town.database_url, [told])


def holders(town: Town, count: int) -> list[CardData]:
    """Cards of one shard, in the order in which a batch locks their accounts."""
    first = town.new_card()
    cards = {
        card.pan: card for card in (first, *(town.card_in_the_shard_of(first) for _ in range(count - 1)))
    }
    with psycopg.connect(town.database_url) as connection:
        ordered = connection.execute(
            "SELECT pan FROM card_route WHERE pan = ANY(%s) ORDER BY holder_id", [list(cards)]
        ).fetchall()
    return [cards[pan] for (pan,) in ordered]


async def deadlocks(town: Town) -> int:
    """How many the server has broken up so far."""
    async with await AsyncConnection.connect(town.database_url, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


@contextlib.asynccontextmanager
async def holding(town: Town, card: CardData) -> AsyncIterator[AsyncConnection[Any]]:
    """The lock on an account: the next batch that needs it waits until the block ends."""
    async with await AsyncConnection.connect(town.database_url) as connection:
        await connection.execute(LOCK, [card.pan])
        yield connection
        await connection.rollback()


async def waiting_for_locks(town: Town, count: int = 1) -> None:
    """Return when so many sessions wait for a lock."""
    async with asyncio.timeout(60), await AsyncConnection.connect(town.database_url, autocommit=True) as look:
        while True:
            cursor = await look.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            )
            row = await cursor.fetchone()
            if row is not None and row[0] >= count:
                return
            await asyncio.sleep(0.02)


async def queued(process: SwitchProcess, count: int) -> None:
    """Return when so many requests wait for a batch."""
    async with asyncio.timeout(60):
        while await asyncio.to_thread(process.metric, "cardswitch_queue_depth") < count:
            await asyncio.sleep(0.02)


async def send_all(till: Till, requests: Sequence[Request]) -> Wire:
    wire = await Wire.open(till.line)
    wire.send(b"".join(till.pos.pack(request) for request in requests))
    await wire.writer.drain()
    return wire


async def answers(till: Till, requests: Sequence[Request], wire: Wire) -> dict[int, str]:
    """Field 39 by trace."""
    codes = {}
    by_trace = {int(request.fields[11]): request for request in requests}
    for _ in requests:
        body = await wire.body()
        message = decode(body)
        trace = int(message.fields[11])
        codes[trace] = message.fields[39]
        till.seen.note(till.terminal, by_trace[trace], message)
    return codes


async def test_one_request_that_cannot_be_booked_gets_96_alone_and_the_rest_of_its_batch_is_approved(
    town: Town, process: SwitchProcess, seen: Seen
) -> None:
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    cards = holders(town, 5)
    first = till.pos.purchase(cards[0], 1)
    crowd = [till.pos.purchase(cards[number % 4 + 1], 1) for number in range(CROWD - 2)]
    bad = crowd[CROWD // 3]
    async with await AsyncConnection.connect(town.database_url, autocommit=True) as connection:
        poison = f"ALTER TABLE journal ADD CONSTRAINT poison CHECK (stan <> {int(bad.fields[11])}) NOT VALID"
        await connection.execute(poison)
        batches = process.metric("cardswitch_batch_size_count")
        async with holding(town, cards[0]):
            wire = await send_all(till, [first])
            await waiting_for_locks(town)
            crowd_wire = await send_all(till, crowd)
            await queued(process, len(crowd))
        assert await answers(till, [first], wire) == {int(first.fields[11]): "00"}
        codes = await answers(till, crowd, crowd_wire)
        assert process.metric("cardswitch_batch_size_count") - batches == 2  # all of them were one batch
        await connection.execute("ALTER TABLE journal DROP CONSTRAINT poison")
    assert codes.pop(int(bad.fields[11])) == "96"
    assert Counter(codes.values()) == {"00": len(crowd) - 1}
    assert await till.code(bad) == "00"  # nothing was kept of the 96


async def test_a_96_for_what_cannot_be_booked_is_bare_and_has_a_mac(
    town: Town, process: SwitchProcess, seen: Seen
) -> None:
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    purchase = till.pos.purchase(town.new_card(), 1)
    async with await AsyncConnection.connect(town.database_url, autocommit=True) as connection:
        poison = (
            f"ALTER TABLE journal ADD CONSTRAINT poison CHECK (stan <> {int(purchase.fields[11])}) NOT VALID"
        )
        await connection.execute(poison)
        answer = await till.ask(purchase)
        await connection.execute("ALTER TABLE journal DROP CONSTRAINT poison")
    assert answer.fields[39] == "96"
    assert answer.fields.keys() == {3, 11, 12, 13, 39, 41, 42, 60, 64}


async def test_a_batch_that_loses_a_deadlock_is_run_again_and_all_of_it_approved(
    town: Town, process: SwitchProcess, seen: Seen
) -> None:
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    gate, low, high = holders(town, 3)
    before = await deadlocks(town)
    first = till.pos.purchase(gate, 1)
    pair = [till.pos.purchase(card, 1) for card in (low, high)]
    async with holding(town, high) as other:
        await other.execute("SET LOCAL deadlock_timeout = '600s'")  # so that the batch finds it, and loses
        async with holding(town, low):
            async with holding(town, gate):
                wire = await send_all(till, [first])
                await waiting_for_locks(town)
                pair_wire = await send_all(till, pair)
                await queued(process, 2)
            assert await answers(till, [first], wire) == {int(first.fields[11]): "00"}
            # Both wait for `low`, the batch before the other: it looks for a deadlock but once, so there must
            # be one as soon as it waits for `high`.
            await waiting_for_locks(town)
            crossing = asyncio.create_task(other.execute(LOCK, [low.pan]))
            await waiting_for_locks(town, 2)
        await crossing
    assert set((await answers(till, pair, pair_wire)).values()) == {"00"}
    async with asyncio.timeout(60):
        while await deadlocks(town) == before:  # counted when the loser's connection next rests
            await asyncio.sleep(0.1)


async def test_a_full_queue_answers_96_at_once_and_what_was_taken_is_approved(
    town: Town, process: SwitchProcess, seen: Seen
) -> None:
    small = town.serve_beside(ledger__queue_max=2)
    till = await Till(town.new_terminal(), seen, small.line).sign_on()
    (card,) = holders(town, 1)
    assert (await till.buy(card, 1)).fields[39] == "00"
    requests = [till.pos.purchase(card, 1) for _ in range(6)]
    first, *rest = requests
    async with holding(town, card):
        wire = await send_all(till, [first])
        await waiting_for_locks(town)
        rest_wire = await send_all(till, rest)
        refused = [decode(await rest_wire.body()) for _ in range(3)]  # at once, while the others wait
        assert {answer.fields[39] for answer in refused} == {"96"}
        assert all(answer.fields.keys() == {3, 11, 12, 13, 39, 41, 42, 60, 64} for answer in refused)
        assert till.pos.pin_pad is not None
        assert all(till.pos.pin_pad.mac_holds(answer.mab, answer.field64) for answer in refused)
    assert await answers(till, [first], wire) == {int(first.fields[11]): "00"}
    turned_away = {int(answer.fields[11]) for answer in refused}
    taken = [request for request in rest if int(request.fields[11]) not in turned_away]
    assert set((await answers(till, taken, rest_wire)).values()) == {"00"}
    for request in rest:  # the terminal comes again: booked now, or told what was booked
        assert await till.code(request) == "00"
    town.stop(small)


async def test_sigterm_says_draining_takes_no_connection_answers_what_is_in_flight_and_exits_0(
    town: Town, process: SwitchProcess, seen: Seen
) -> None:
    leaving = town.serve_beside()
    till = await Till(town.new_terminal(), seen, leaving.line).sign_on()
    (card,) = holders(town, 1)
    requests = [till.pos.purchase(card, 1) for _ in range(5)]
    async with holding(town, card):
        wire = await send_all(till, requests)
        await waiting_for_locks(town)
        assert leaving.ready()
        leaving.terminate()
        await asyncio.to_thread(until, lambda: "draining" in leaving.get("/readyz")[1], 30, "draining")
        assert leaving.get("/readyz")[0] == 503
        assert leaving.get("/livez")[0] == 200
        with pytest.raises(OSError, match=r"refused|failed"):
            await Wire.open(leaving.line)
    assert set((await answers(till, requests, wire)).values()) == {"00"}
    assert await wire.closed_by_switch() == []
    assert await asyncio.to_thread(leaving.wait) == 0
    town.processes.remove(leaving)
    assert (await till.buy(card, 1, process.line)).fields[39] == "00"


async def test_sigterm_of_the_process_with_the_database_stops_that_too_and_nothing_is_lost(
    town: Town, process: SwitchProcess
) -> None:
    town.stop_all()
    alone = town.serve()
    seen = Seen()
    till = await Till(town.new_terminal(), seen, alone.line).sign_on()
    card = town.new_card()
    purchase = till.pos.purchase(card, 10_000)
    assert await till.code(purchase) == "00"
    alone.terminate()
    assert await asyncio.to_thread(alone.wait) == 0
    town.processes.remove(alone)
    assert postgres_pids(town.data_dir) == []
    again = await asyncio.to_thread(town.serve)
    till.hang_up()
    assert await till.code(purchase, again.line) == "00"
    assert (await till.buy(card, 1, again.line)).fields[39] == "51"
    check_books(town.database_url, [seen])
