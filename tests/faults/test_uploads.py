"""Offline records and the end of a batch on bad days: each record counts once, each batch is closed once."""

import asyncio
import os
import signal

import psycopg
import pytest

from switch.messages.message import Message
from terminal_sim.pos_answers import Request
from terminal_sim.pos_client import Line
from tests.helpers.load import Load
from tests.helpers.rides import Bus
from tests.helpers.switch_process import SwitchProcess, postgres_pids, until
from tests.helpers.till import Seen, Till
from tests.helpers.town import Town

pytestmark = [pytest.mark.server, pytest.mark.slow]

FARE_FEN = 200


@pytest.fixture(scope="module")
def both(town: Town) -> list[SwitchProcess]:
    return [town.serve(), town.serve_beside()]


def content(answer: Message) -> tuple[object, ...]:
    """What a repeat must show again."""
    return tuple(answer.fields.get(number) for number in (12, 13, 15, 37, 39, 48, 62))


def accepted(town: Town, terminal_id: str) -> list[int]:
    """PSAM serials of a terminal's accepted records, in order."""
    with psycopg.connect(town.database_url) as connection:
        rows = connection.execute(
            "SELECT psam_serial FROM purse_record JOIN terminal USING (terminal_no)"
            " WHERE terminal_id = %s AND result = '10' ORDER BY 1",
            [terminal_id],
        ).fetchall()
    return [int(serial) for (serial,) in rows]


async def bus_of(town: Town, line: Line) -> tuple[Till, Bus]:
    terminal = town.new_bus()
    return await Till(terminal, Seen(), line).sign_on(), Bus(terminal)


async def everywhere(till: Till, request: Request, both: list[SwitchProcess]) -> set[tuple[object, ...]]:
    """The answers to a request sent again to each process, under old and new keys."""
    found = {content(await till.ask(request, process.line)) for process in both}
    await till.sign_on(both[1].line)
    return found | {content(await till.ask(request, process.line)) for process in both}


async def test_upload_settlement_and_batch_end_sent_again_get_their_answers_and_count_once(
    town: Town, both: list[SwitchProcess]
) -> None:
    till, bus = await bus_of(town, both[0].line)
    card, bought = town.new_card("purse"), town.new_card()
    assert (await till.buy(bought, 1_500)).fields[39] == "00"
    for atc in range(7):
        till.pos.store_record(bus.ride(card, atc, FARE_FEN))
    upload = till.pos.upload()
    assert upload is not None
    await till.send(upload, both[0].line)  # its answer is lost
    till.break_off()
    first = await till.ask(upload, both[1].line)
    assert first.fields[39] == "00"
    assert await everywhere(till, upload, both) == {content(first)}
    rest = till.pos.upload()
    assert rest is not None
    assert await till.code(rest, both[1].line) == "00"
    assert set(till.pos.results().values()) == {"10"}
    assert accepted(town, till.terminal.terminal_id) == list(range(1, 8))

    settlement = till.pos.settlement()
    balanced = await till.ask(settlement, both[1].line)
    assert balanced.fields[39] == "00"
    assert (balanced.fields[48][30], balanced.fields[48][61]) == ("1", "1")
    assert await everywhere(till, settlement, both) == {content(balanced)}
    assert await till.code(till.pos.settlement(), both[0].line) == "90"
    end = till.pos.batch_end(balanced=True)
    ended = await till.ask(end, both[0].line)
    assert ended.fields[39] == "00"
    assert await till.code(end, both[1].line) == "00"
    batch_no = till.pos.batch_no
    await till.sign_on(both[1].line)
    assert till.pos.batch_no == batch_no + 1
    for request, told in ((upload, first), (settlement, balanced), (end, ended)):
        for process in both:
            body = await (await till.wire(process.line)).ask(till.pos.pack(request))
            assert content(till.pos.take(request._replace(kind="told"), body).message) == content(told)
    assert accepted(town, till.terminal.terminal_id) == list(range(1, 8))


async def test_an_unbalanced_batch_is_closed_with_the_figures_of_the_switch_through_any_process(
    town: Town, both: list[SwitchProcess]
) -> None:
    till, bus = await bus_of(town, both[0].line)
    assert (await till.buy(town.new_card(), 1_500)).fields[39] == "00"
    lost = till.pos.purchase(town.new_card(), 700)
    await till.send(lost)  # booked, and the till never knows
    till.break_off()
    assert (await till.ask(lost, both[1].line)).fields[39] == "00"
    till.pos.batch.take_back(lost.fields[11])
    till.pos.store_record(bus.ride(town.new_card("purse"), 0, FARE_FEN))
    upload = till.pos.upload()
    assert upload is not None
    assert await till.code(upload, both[1].line) == "00"
    answer = await till.ask(till.pos.settlement(), both[0].line)
    assert (answer.fields[48][30], answer.fields[48][61]) == ("2", "1")
    for turn, details in enumerate(till.pos.details()):
        assert await till.code(details, both[turn % 2].line) == "00"
    assert await till.code(till.pos.batch_end(balanced=False), both[1].line) == "00"
    batch_no = till.pos.batch_no
    await till.sign_on()
    assert till.pos.batch_no == batch_no + 1


async def test_uploads_while_postgresql_and_a_switch_are_killed_count_every_record_once(
    town: Town, both: list[SwitchProcess]
) -> None:
    buses = [await bus_of(town, both[0].line) for _ in range(8)]
    load = Load([], [], lambda: [process.line for process in both], seed=1)  # only its patience is used
    sent = 0
    enough = asyncio.Event()

    async def drive(till: Till, bus: Bus, number: int) -> None:
        nonlocal sent
        card = town.new_card("purse")
        for atc in range(40):
            till.pos.store_record(bus.ride(card, atc, FARE_FEN))
            if atc % 2:
                upload = till.pos.upload()
                assert upload is not None
                assert await load.insist(till, upload, number + atc) == "00"
                sent += 1
                if sent == 24:
                    enough.set()
        assert set(till.pos.results().values()) == {"10"}

    async with asyncio.TaskGroup() as group:
        for number, (till, bus) in enumerate(buses):
            group.create_task(drive(till, bus, number))
        await enough.wait()
        os.kill(min(postgres_pids(town.data_dir)), signal.SIGKILL)
        both[1].kill()
        town.processes.remove(both[1])
        # A switch that starts without a database ends at once, and a supervisor starts it again.
        await asyncio.to_thread(until, both[0].ready, 180, "PostgreSQL's return")
        both[1] = await asyncio.to_thread(town.serve_beside)
    for till, _ in buses:
        assert accepted(town, till.terminal.terminal_id) == list(range(1, 41))
