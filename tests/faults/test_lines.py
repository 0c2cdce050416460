"""Bad lines: frames cut at every byte, noise, strangers, limits. The line ends, and nobody else notices."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from random import Random

import pytest

from switch.messages.codec import decode
from terminal_sim.faults import FaultProxy, Faults
from terminal_sim.frames import Terminal
from terminal_sim.pos_client import Line
from tests.helpers.switch_process import SwitchProcess
from tests.helpers.till import LineClosedError, Seen, Till, Wire, check_books, stored
from tests.helpers.town import Town, terminal_of

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def process(town: Town) -> SwitchProcess:
    return town.serve(fresh=True)


@pytest.fixture(scope="module")
def strict(town: Town, process: SwitchProcess) -> SwitchProcess:
    """A process with little patience, on the same database."""
    assert process.alive()
    return town.serve_beside(
        terminals__connections_max=12,
        terminals__connections_per_address_max=8,
        # Not less: a busy machine must keep within them where a test does not mean to pass them.
        terminals__idle_s=8,
        terminals__partial_frame_s=1,
        terminals__stranger_s=10,
        terminals__stranger_frames_max=32,
        terminals__in_flight_max=4,
    )


@pytest.fixture
async def neighbour(town: Town, process: SwitchProcess) -> AsyncIterator[Till]:
    """A till that works before, during and after what others do; its books are checked at the end."""
    seen = Seen()
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    till_card = town.new_card("rich")
    town._free["rich"].append(int(till_card.pan[8:18]))
    working = asyncio.Event()

    async def work() -> None:
        while not working.is_set():
            assert (await till.buy(till_card, 1)).fields[39] == "00"
            await asyncio.sleep(
                0.05
            )  # a till keeps 2 000 receipts of a batch at the most, and a test may take long

    task = asyncio.create_task(work())
    yield till
    working.set()
    await task
    assert seen.answers["00"] > 1
    check_books(town.database_url, [seen])


async def test_a_purchase_cut_at_every_byte_is_booked_once_or_not_at_all(
    town: Town, process: SwitchProcess, neighbour: Till
) -> None:
    seen = Seen()
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    card = town.new_card()
    size = len(till.pos.pack(till.pos.purchase(card, 1)))
    async with FaultProxy(process.line.host, process.line.port) as proxy:
        bad_line = Line("127.0.0.1", proxy.port)
        for cut_at in range(size + 1):
            proxy.up = Faults(cut_after_bytes=cut_at) if cut_at else Faults(mute=True)
            purchase = till.pos.purchase(card, 1)
            wire = await till.wire(bad_line)
            wire.send(till.pos.pack(purchase))
            if cut_at:
                assert await wire.closed_by_switch() == [] or cut_at == size
            till.break_off()
            assert await till.code(purchase) == "00"  # whether the first copy was whole or not
    assert (await till.buy(card, 10_000 - size - 1)).fields[39] == "00"
    assert (await till.buy(card, 1)).fields[39] == "51"
    check_books(town.database_url, [seen])


async def test_an_answer_cut_at_every_byte_is_told_again(
    town: Town, process: SwitchProcess, neighbour: Till
) -> None:
    seen = Seen()
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    card = town.new_card()
    size = 2 + len(await (await till.wire()).ask(till.pos.pack(till.pos.purchase(card, 1))))
    async with FaultProxy(process.line.host, process.line.port) as proxy:
        for cut_at in range(1, size):
            proxy.down = Faults(cut_after_bytes=cut_at)
            purchase = till.pos.purchase(card, 1)
            wire = await till.wire(Line("127.0.0.1", proxy.port))
            wire.send(till.pos.pack(purchase))
            assert await wire.closed_by_switch() == []
            till.break_off()
            first = await till.ask(purchase)
            assert first.fields[39] == "00"
            assert stored(await till.ask(purchase)) == stored(first)
    assert (await till.buy(card, 10_000 - size)).fields[39] == "00"
    assert (await till.buy(card, 1)).fields[39] == "51"
    check_books(town.database_url, [seen])


async def test_a_line_that_drops_delays_repeats_and_cuts_costs_time_and_no_money(
    town: Town, process: SwitchProcess, neighbour: Till
) -> None:
    seen = Seen()
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    card = town.new_card()
    faults = Faults(drop=0.1, repeat=0.2, cut=0.2, delay=0.2, delay_s=(0.0, 0.01))
    async with FaultProxy(process.line.host, process.line.port, up=faults, down=faults, seed=7) as proxy:
        line = Line("127.0.0.1", proxy.port)
        for _ in range(50):
            purchase = till.pos.purchase(card, 100)
            for _ in range(3):
                wire = await till.wire(line)
                wire.send(till.pos.pack(purchase))
                try:
                    async with asyncio.timeout(0.2):
                        await wire.body()
                except (TimeoutError, LineClosedError):
                    till.break_off()
            till.break_off()
            assert await till.code(purchase) == "00"
    assert (await till.buy(card, 5_000)).fields[39] == "00"
    assert (await till.buy(card, 1)).fields[39] == "51"
    check_books(town.database_url, [seen])


async def test_frames_arrive_whole_however_they_are_cut_into_packets(
    town: Town, process: SwitchProcess, neighbour: Till
) -> None:
    seen = Seen()
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    card = town.new_card("rich")
    requests = [till.pos.purchase(card, 1) for _ in range(12)]
    stream = b"".join(till.pos.pack(request) for request in requests)
    wire = await till.wire()
    random = Random(3)
    while stream:
        size = random.choice((1, 2, 3, 50, 400))
        wire.send(stream[:size])
        await wire.writer.drain()
        await asyncio.sleep(0)
        stream = stream[size:]
    assert [decode(await wire.body()).fields[39] for _ in requests] == ["00"] * 12
    check_books(town.database_url, [seen])


def _noise() -> list[bytes]:
    random = Random(20)
    made = [random.randbytes(random.choice((1, 2, 7, 100, 3_000))) for _ in range(60)]
    made += [b"\x00\x00" + b"\x60" * 50, b"\x08\x01\x60" + bytes(100), b"\xff\xff", b"\x00\x10\x61"]
    made += [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00\x05\x60aaaa"]
    return made


async def test_noise_closes_its_own_line_and_never_the_switch(
    town: Town, process: SwitchProcess, neighbour: Till
) -> None:
    before_kb = process.private_kb()
    for _ in range(3):
        for data in _noise():
            wire = await Wire.open(process.line)
            wire.send(data)
            with contextlib.suppress(OSError):  # it may have been closed already
                wire.writer.write_eof()
            assert await wire.closed_by_switch() == []
            wire.close()
    assert process.private_kb() - before_kb < 16_384
    assert process.metric("cardswitch_lines_refused_total", reason="framing") > 100


async def test_a_flood_without_end_is_cut_off_at_its_first_bad_byte(
    process: SwitchProcess, neighbour: Till
) -> None:
    before_kb = process.private_kb()
    wire = await Wire.open(process.line)
    for _ in range(200):
        wire.send(b"\xff" * 65_536)
        try:
            await wire.writer.drain()
        except OSError:
            break
    assert await wire.closed_by_switch() == []
    wire.abort()
    assert process.private_kb() - before_kb < 16_384


@pytest.mark.parametrize("kind", ["unknown MTI", "answer MTI", "no terminal", "no trace", "no bitmap"])
async def test_what_cannot_be_answered_closes_the_line_after_the_answers_before_it(
    town: Town, process: SwitchProcess, neighbour: Till, kind: str
) -> None:
    seen = Seen()
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    # Of a terminal that never signs on: after the word of a sign-on it would be looked up once more, and
    # what waits when a line ends is lost.
    other = Till(town.new_terminal(), seen, process.line).pos
    good = other.pack(other.echo())
    purchase = bytearray(till.pos.pack(till.pos.purchase(town.new_card("rich"), 1)))
    bitmap = int.from_bytes(purchase[15:23])
    if kind == "unknown MTI":
        purchase[13:15] = b"\x02\x99"
    elif kind == "answer MTI":
        purchase[13:15] = b"\x02\x10"
    elif kind == "no terminal":
        purchase[15:23] = (bitmap & ~(1 << (64 - 41))).to_bytes(8)
    elif kind == "no trace":
        purchase[15:23] = (bitmap & ~(1 << (64 - 11))).to_bytes(8)
    else:
        purchase[15:23] = bytes([0x80, *bytes(7)])
    wire = await Wire.open(process.line)
    wire.send(good)
    assert decode(await wire.body()).fields[39] == "00"  # looked up, and known from now on
    wire.send(good + bytes(purchase) + good)
    assert [decode(body).fields[39] for body in await wire.closed_by_switch()] == ["00"]


async def test_thirty_three_bad_macs_in_a_row_end_the_line_and_a_good_one_between_forgives(
    town: Town, process: SwitchProcess, neighbour: Till
) -> None:
    seen = Seen()
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    purchase = till.pos.purchase(town.new_card(), 1)
    good = till.pos.pack(purchase)
    bad = good[:-1] + bytes([good[-1] ^ 1])
    wire = await Wire.open(process.line)
    for count in (32, 32):
        for _ in range(count):
            assert (await wire.answer(bad)).fields[39] == "A0"
        assert (await wire.answer(good)).fields[39] == "00"
    for _ in range(33):
        assert (await wire.answer(bad)).fields[39] == "A0"
    assert await wire.closed_by_switch() == []
    assert await till.code(purchase) == "00"  # the terminal's session has nothing to do with the line


@pytest.mark.parametrize("pipelined", [False, True])
async def test_a_concentrator_signs_on_a_hundred_terminals_by_one_line(
    town: Town, process: SwitchProcess, *, pipelined: bool
) -> None:
    tills = [Till(town.new_terminal(), Seen(), process.line) for _ in range(100)]
    sign_ons = [(till, till.pos.sign_on()) for till in tills]
    wire = await Wire.open(process.line)
    if pipelined:
        wire.send(b"".join(till.pos.pack(request) for till, request in sign_ons))
        bodies = [await wire.body() for _ in sign_ons]
    else:
        bodies = [await wire.ask(till.pos.pack(request)) for till, request in sign_ons]
    answered = {decode(body).fields[41]: body for body in bodies}
    for till, request in sign_ons:
        assert till.pos.take(request, answered[till.terminal.terminal_id]).code == "00"
    for till in tills[:40]:  # and the line is as good as before
        assert (await wire.answer(till.pos.pack(till.pos.echo()))).fields[39] == "00"
        till.hang_up()


async def test_a_concentrator_whose_terminals_are_all_told_to_sign_on_again_keeps_its_line(
    town: Town, process: SwitchProcess
) -> None:
    wire = await Wire.open(process.line)
    card = town.new_card()
    tills = [Till(town.new_terminal(), Seen(), process.line) for _ in range(40)]
    for till in tills:
        await till.sign_on()
        pad = till.pos.pin_pad
        assert await till.code(till.pos.sign_off()) == "00"
        till.pos.pin_pad = pad
        refused = await wire.answer(till.pos.pack(till.pos.purchase(card, 1)))
        assert refused.fields[39] == "77"
        till.hang_up()
    till = tills[0]
    request = till.pos.sign_on()
    assert till.pos.take(request, await wire.ask(till.pos.pack(request))).code == "00"
    assert (await wire.answer(till.pos.pack(till.pos.purchase(card, 1)))).fields[39] == "00"


async def test_a_terminal_that_only_echoes_after_a_good_mac_keeps_its_line(
    town: Town, process: SwitchProcess, strict: SwitchProcess
) -> None:
    till = await Till(town.new_terminal(), Seen(), process.line).sign_on()
    wire = await Wire.open(strict.line)
    assert (await wire.answer(till.pos.pack(till.pos.purchase(town.new_card(), 1)))).fields[39] == "00"
    echo = till.pos.pack(till.pos.echo())
    for _ in range(130):  # more than strangers may send, for longer than strangers may stay
        assert (await wire.answer(echo)).fields[39] == "00"
        await asyncio.sleep(0.1)


async def test_a_line_that_never_brings_a_mac_ends_however_good_its_sign_ons_are(
    town: Town, strict: SwitchProcess
) -> None:
    till = Till(town.new_terminal(), Seen(), strict.line)
    wire = await Wire.open(strict.line)
    answers = 0
    try:
        while True:
            assert (await wire.answer(till.pos.pack(till.pos.sign_on()))).fields[39] == "00"
            answers += 1
            if answers > 32:  # at leisure from here on; the first had to come within the time of strangers
                await asyncio.sleep(0.05)
    except (LineClosedError, OSError):
        assert answers > 32


async def test_a_stranger_without_a_registered_terminal_is_cut_off_by_number(
    town: Town, process: SwitchProcess
) -> None:
    unknown = Till(terminal_of(99_999), Seen(), process.line)
    wire = await Wire.open(process.line)
    for _ in range(33):
        assert (await wire.answer(unknown.pos.pack(unknown.pos.sign_on()))).fields[39] == "97"
    assert await wire.closed_by_switch() == []


async def test_a_terminal_that_reads_no_answers_is_not_read_from_and_memory_stays_bounded(
    town: Town, process: SwitchProcess, neighbour: Till
) -> None:
    seen = Seen()
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    purchase = till.pos.pack(till.pos.purchase(town.new_card(), 1))
    before_kb = process.private_kb()
    wire = await Wire.open(process.line)
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket transport has it
    stuck = False
    for _ in range(400):
        wire.send(purchase * 500)
        try:
            async with asyncio.timeout(0.5):
                await wire.writer.drain()
        except TimeoutError:
            stuck = True
            break
    assert stuck, "the switch went on reading"
    assert process.private_kb() - before_kb < 16_384
    wire.abort()


# ---------------------------------------------------------------------- limits


async def lines_open(process: SwitchProcess) -> int:
    return int(await asyncio.to_thread(process.metric, "cardswitch_lines_open"))


async def signed_on(town: Town, process: SwitchProcess) -> Terminal:
    terminal = town.new_terminal()
    till = await Till(terminal, Seen(), process.line).sign_on()
    till.hang_up()
    return terminal


async def test_one_address_may_have_so_many_connections_and_room_is_given_back(
    town: Town, strict: SwitchProcess
) -> None:
    while await lines_open(strict):
        await asyncio.sleep(0.05)
    wires = [await Wire.open(strict.line) for _ in range(8)]
    echo = Till(town.new_terminal(), Seen(), strict.line).pos
    for wire in wires:
        assert (await wire.answer(echo.pack(echo.echo()))).fields[39] == "00"
    surplus = await Wire.open(strict.line)
    assert await surplus.closed_by_switch() == []
    assert (await wires[0].answer(echo.pack(echo.echo()))).fields[39] == "00"
    wires[0].close()
    while await lines_open(strict) > 7:
        await asyncio.sleep(0.05)
    again = await Wire.open(strict.line)
    assert (await again.answer(echo.pack(echo.echo()))).fields[39] == "00"
    assert strict.metric("cardswitch_lines_refused_total", reason="connections_per_address") >= 1


async def test_idle_half_and_nameless_lines_end_by_their_limits(town: Town, strict: SwitchProcess) -> None:
    while await lines_open(strict):
        await asyncio.sleep(0.05)
    till = await Till(town.new_terminal(), Seen(), strict.line).sign_on()
    frame = till.pos.pack(till.pos.purchase(town.new_card(), 1))
    idle, half, dripping = [await Wire.open(strict.line) for _ in range(3)]
    assert (await idle.answer(frame)).fields[39] == "00"
    half.send(frame[:30])

    async def drip() -> None:
        for byte in till.pos.pack(till.pos.echo()) * 40:
            dripping.send(bytes([byte]))
            await asyncio.sleep(0.1)

    task = asyncio.create_task(drip())
    for wire in (half, dripping, idle):
        await wire.closed_by_switch()
    task.cancel()
    nameless = await Wire.open(strict.line)
    echo = till.pos.pack(till.pos.echo())
    answers = 0
    try:
        while True:  # echoes need no MAC, so they prove nothing
            await nameless.answer(echo)
            answers += 1
            await asyncio.sleep(0.2)
    except (LineClosedError, OSError):
        assert answers
    for reason in ("idle", "partial", "stranger"):
        assert strict.metric("cardswitch_lines_refused_total", reason=reason) >= 1


async def test_more_requests_than_may_be_in_flight_wait_their_turn_and_all_are_answered(
    town: Town, strict: SwitchProcess
) -> None:
    while await lines_open(strict):
        await asyncio.sleep(0.05)
    seen = Seen()
    till = await Till(town.new_terminal(), seen, strict.line).sign_on()
    card = town.new_card("rich")
    requests = [till.pos.purchase(card, 1) for _ in range(100)]
    wire = await till.wire()
    wire.send(b"".join(till.pos.pack(request) for request in requests))
    answers = [decode(await wire.body()) for _ in requests]
    assert {answer.fields[39] for answer in answers} == {"00"}
    assert len({answer.fields[11] for answer in answers}) == 100
