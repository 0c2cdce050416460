"""The proxy does exactly the harm it was told to, and the same harm for the same seed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from terminal_sim.faults import FaultProxy, Faults


def packet(content: bytes) -> bytes:
    return len(content).to_bytes(2) + content


class Target:
    """Keeps what arrives on each connection and echoes it."""

    def __init__(self) -> None:
        self.received: list[bytearray] = []
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = bytearray()
        self.received.append(received)
        try:
            while data := await reader.read(4096):
                received += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    made = Target()
    server = await asyncio.start_server(made, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()


async def converse(proxy: FaultProxy, *packets: bytes) -> bytes:
    """Send everything, hang up the sending half, return what comes back until the end or a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    back = bytearray()
    try:
        for one in packets:
            writer.write(one)
        if writer.can_write_eof():
            writer.write_eof()
        while data := await reader.read(4096):
            back += data
    except ConnectionError:
        pass
    finally:
        writer.close()
    return bytes(back)


async def until_gone(proxy: FaultProxy) -> None:
    while proxy.open_connections:
        await asyncio.sleep(0.001)


THREE = (packet(b"one"), packet(b"two"), packet(b"three"))


async def test_without_faults_bytes_pass_unchanged(target: Target) -> None:
    async with FaultProxy("127.0.0.1", target.port) as proxy:
        assert await converse(proxy, *THREE) == b"".join(THREE)
    assert proxy.counts["up frames"] == 3
    assert proxy.open_connections == 0


async def test_frames_are_dropped_and_repeated_whole(target: Target) -> None:
    up = Faults(drop_frames=frozenset((2,)), repeat_frames=frozenset((3,)))
    async with FaultProxy("127.0.0.1", target.port, up=up) as proxy:
        assert await converse(proxy, *THREE) == THREE[0] + THREE[2] * 2
    assert (proxy.counts["up dropped"], proxy.counts["up repeated"]) == (1, 1)


async def test_answers_can_be_lost_while_requests_arrive(target: Target) -> None:
    async with FaultProxy("127.0.0.1", target.port, down=Faults(drop=1.0)) as proxy:
        assert await converse(proxy, *THREE) == b""
    assert bytes(target.received[0]) == b"".join(THREE)


async def test_a_mute_line_stays_open(target: Target) -> None:
    async with FaultProxy("127.0.0.1", target.port, up=Faults(mute=True)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(THREE[0])
        while not proxy.counts["up dropped"]:
            await asyncio.sleep(0.001)
        proxy.up = Faults()
        writer.write(THREE[1])
        assert await reader.readexactly(len(THREE[1])) == THREE[1]
        writer.close()


@pytest.mark.parametrize("size", range(len(b"".join(THREE)) + 1))
async def test_a_line_is_cut_after_exactly_so_many_bytes(target: Target, size: int) -> None:
    whole = b"".join(THREE)
    async with FaultProxy("127.0.0.1", target.port, up=Faults(cut_after_bytes=size)) as proxy:
        await converse(proxy, *THREE)
        await until_gone(proxy)
        assert proxy.counts["up cut"] == 1
        while not target.received or len(target.received[0]) < size:
            await asyncio.sleep(0.001)
    assert bytes(target.received[0]) == whole[:size]


async def test_answers_are_cut_after_exactly_so_many_bytes(target: Target) -> None:
    async with FaultProxy("127.0.0.1", target.port, down=Faults(cut_after_bytes=7)) as proxy:
        assert await converse(proxy, *THREE) == b"".join(THREE)[:7]


async def test_a_chance_cut_falls_inside_a_frame(target: Target) -> None:
    async with FaultProxy("127.0.0.1", target.port, up=Faults(cut=1.0)) as proxy:
        await converse(proxy, *THREE)
        await until_gone(proxy)
        while not target.received:  # it may not have taken the line yet
            await asyncio.sleep(0.001)
    assert len(target.received[0]) < len(THREE[0])


async def test_dripping_changes_no_byte(target: Target) -> None:
    slow = Faults(drip_bytes=1, drip_pause_s=0.0001)
    async with FaultProxy("127.0.0.1", target.port, up=slow, down=slow) as proxy:
        assert await converse(proxy, *THREE) == b"".join(THREE)


async def test_delays_keep_the_order(target: Target) -> None:
    up = Faults(delay=0.5, delay_s=(0.0, 0.005))
    async with FaultProxy("127.0.0.1", target.port, up=up, seed=3) as proxy:
        packets = [packet(bytes((n,))) for n in range(20)]
        assert await converse(proxy, *packets) == b"".join(packets)
    assert 0 < proxy.counts["up delayed"] < 20


async def test_the_same_seed_does_the_same_harm(target: Target) -> None:
    packets = [packet(bytes((n,))) for n in range(60)]
    faults = Faults(drop=0.3, repeat=0.3)
    results = []
    for seed in (1, 1, 2):
        async with FaultProxy("127.0.0.1", target.port, up=faults, seed=seed) as proxy:
            results.append(await converse(proxy, *packets))
    assert results[0] == results[1] != results[2]


async def test_what_is_left_of_a_frame_at_the_end_still_passes(target: Target) -> None:
    async with FaultProxy("127.0.0.1", target.port) as proxy:
        assert await converse(proxy, THREE[0], THREE[1][:3]) == THREE[0] + THREE[1][:3]


async def test_cut_all_breaks_every_line_and_new_ones_are_taken(target: Target) -> None:
    async with FaultProxy("127.0.0.1", target.port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(THREE[0])
        await reader.readexactly(len(THREE[0]))
        proxy.cut_all()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert await converse(proxy, *THREE) == b"".join(THREE)


async def test_a_target_that_is_not_there_ends_the_connection() -> None:
    async with FaultProxy("127.0.0.1", 1) as proxy:
        assert await converse(proxy, *THREE) == b""
        await until_gone(proxy)
        assert proxy.counts["connections lost"] == 1
