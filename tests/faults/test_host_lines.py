"""Bad lines to hosts: cut at every byte, noise, floods, a host that does not read. One connection suffers, nobody is lied to."""

import asyncio
import random
import socket

import pytest

from switch.domain.hosts import HostAnswer, HostTimeout, Unknown
from switch.messages.host_1987 import DIALECTS
from switch.transports.host_line import WRITE_BUFFER_MAX
from terminal_sim.faults import FaultProxy, Faults
from terminal_sim.host.script import Behaviour, Script, Step
from terminal_sim.host.server import SimulatedHost
from tests.helpers.hosts import OPENING_FEN, SECRETS, ask, balances, book, linked, request, reversal_of, until
from tests.unit.messages.test_host_dialect import frame_of

PRICE = 1234
SIGN_ON = {"up": len(frame_of("HOST-BCD-3DES-SIGNON-REQ")), "down": len(frame_of("HOST-BCD-3DES-SIGNON-RSP"))}


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_connection_cut_at_any_byte_leaves_an_unknown_end_that_a_reversal_settles(
    tmp_path, direction
):
    (tmp_path / "behind").mkdir()
    async with (
        linked(tmp_path, accounts=book(10**9)) as (direct, host, _),
        FaultProxy("127.0.0.1", host.port) as proxy,
        linked(tmp_path / "behind", port=proxy.port, reconnect_min_s=0.002) as (link, _, _),
    ):
        opening = host.book.balance_fen(request().card.reveal())
        cut = 1
        while True:
            setattr(proxy, direction, Faults(cut_after_bytes=SIGN_ON[direction] + cut))
            before = set(link._lines)
            proxy.cut_all()
            await until(lambda: link.usable and not before & set(link._lines))  # noqa: B023  awaited here
            asked = request(2 * cut + 1)
            outcome = await ask(link, asked)
            if isinstance(outcome, HostAnswer):
                break  # the cut is behind the whole message
            assert outcome.why is Unknown.LINE_LOST
            assert (await ask(direct, reversal_of(asked, 2 * cut + 2))).code in ("00", "25")
            cut += 1
        assert 100 < cut < 400
        assert host.book.balance_fen(request().card.reveal()) == opening - PRICE
        assert host.book.moved_fen == PRICE


@pytest.mark.parametrize("form", DIALECTS)
async def test_noise_from_a_host_ends_its_connection_and_the_next_one_serves(tmp_path, form):
    draw = random.Random(7)
    async with linked(tmp_path, dialect=DIALECTS[form]) as (link, host, watched):
        for trace in range(1, 20):
            lines = sum(watched.closed.values())
            for connection in tuple(host.connections):
                connection.send(b"\xff\xff" + draw.randbytes(50))
            await until(lambda: sum(watched.closed.values()) > lines)  # noqa: B023
            await until(lambda: link.usable)
            assert (await ask(link, request(trace))).code == "00"
        assert watched.closed["framing"] == 19


async def test_forged_answers_without_a_good_mac_move_nothing_and_are_counted(tmp_path):
    good = frame_of("HOST-BCD-SM4-PURCHASE-RSP")
    async with linked(tmp_path, Script(habit=Step(Behaviour.SLOW, 0.1))) as (link, host, watched):
        for connection in host.connections:
            connection.send(good * 500)
        answers = await asyncio.gather(*(ask(link, request(trace)) for trace in range(1, 11)))
        assert {answer.code for answer in answers} == {"00"}
        await until(lambda: watched.strange["mac"] == 500)
        assert watched.late == []


async def test_a_host_that_asks_and_does_not_read_is_closed_before_memory_grows(tmp_path):
    async with linked(tmp_path, quiet_s=1e6) as (link, host, watched):
        assert host._server is not None
        host._server.sockets[0].setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 8192
        )  # or megabytes fit in between
        for old in tuple(host.connections):
            old.abort()
        await until(lambda: watched.closed["lost"] == 1 and link.usable)
        [connection], [line] = host.connections, link._lines
        assert line._transport is not None
        line._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        assert connection.transport is not None
        connection.transport.pause_reading()
        highest = 0
        for _ in range(50_000):
            host.ask("301")
            await asyncio.sleep(0)
            if line._transport is None:
                break
            highest = max(highest, line._transport.get_write_buffer_size())
        assert watched.closed == {"lost": 1, "full": 1}
        assert highest < 2 * WRITE_BUFFER_MAX


async def test_a_host_that_dies_in_the_middle_of_many_leaves_each_with_one_end(tmp_path):
    script = Script(*[Step(Behaviour.NORMAL)] * 50, Step(Behaviour.DIES, 0.05))
    async with linked(tmp_path, script, accounts=book(10**9)) as (link, host, watched):
        asked = [request(trace) for trace in range(1, 201)]
        outcomes = await asyncio.gather(*(ask(link, one) for one in asked))
        answered = [outcome for outcome in outcomes if isinstance(outcome, HostAnswer)]
        unknown = [outcome for outcome in outcomes if isinstance(outcome, HostTimeout)]
        assert len(answered) + len(unknown) == 200
        assert unknown
        await until(lambda: link.usable)
        by_key = {one.key: one for one in asked}
        for trace, outcome in enumerate(unknown, start=1_000):
            assert (await ask(link, reversal_of(by_key[outcome.key], trace))).code in ("00", "25")
        assert host.book.moved_fen == PRICE * len(answered)
        assert sum(watched.ends.values()) == 200 + len(unknown)


async def test_frames_that_arrive_byte_by_byte_are_frames(tmp_path):
    async with SimulatedHost(DIALECTS["bcd"], SECRETS["3DES"], book()) as host:
        drip = Faults(drip_bytes=1)
        async with (
            FaultProxy("127.0.0.1", host.port, up=drip, down=drip) as proxy,
            linked(tmp_path, port=proxy.port) as (link, _, _),
        ):
            assert (await ask(link, request())).code == "00"
            assert balances(host) == [OPENING_FEN - PRICE]
