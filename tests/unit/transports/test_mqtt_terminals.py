"""The channel of one process at a real broker, with rooms that answer by themselves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from switch.routing.answering import Peer
from switch.transports import mqtt_line
from switch.transports.mqtt_line import LineTerms, without_properties
from switch.transports.mqtt_terminals import MqttTerminals, MqttTerms
from terminal_sim.mqtt import Broker
from tests.helpers.mosquitto import Mosquitto
from tests.helpers.mqtt import Station

pytestmark = pytest.mark.server  # a broker

WAIT_S = 60.0
TERMINAL = "33600001"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("broker")) as mosquitto:
        yield mosquitto


class Rooms:
    """Gives each batch back as its receipt, leaves frames unanswered, and keeps what is counted."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.refused: list[str] = []
        self.ended: list[str] = []

    def receive(self, body: bytes, peer: Peer, *, sender: str = "") -> None:
        peer.leave_unanswered()

    async def take_batch(self, terminal_id: str, payload: bytes) -> bytes:
        self.batches.append(payload)
        return payload

    def mqtt_refused(self, reason: str) -> None:
        self.refused.append(reason)

    def mqtt_acknowledged(self, seconds: float) -> None:
        pass

    def mqtt_line_ended(self, reason: str) -> None:
        self.ended.append(reason)

    def mqtt_undelivered(self, channel: str) -> None:
        raise AssertionError("the broker takes every answer")


def terms_of(port: int, client_id: str) -> MqttTerms:
    return MqttTerms(LineTerms("127.0.0.1", port, client_id), "group of " + client_id)


@contextlib.asynccontextmanager
async def serving(terms: MqttTerms, rooms: Rooms) -> AsyncIterator[MqttTerminals]:
    channel = MqttTerminals(rooms.receive, rooms.take_batch, terms, rooms)
    task = asyncio.create_task(channel.run())
    try:
        async with asyncio.timeout(WAIT_S):
            while not channel.connected:
                await asyncio.sleep(0.01)
        yield channel
    finally:
        await channel.drain(WAIT_S)
        await task


async def test_a_text_with_a_zero_width_no_break_space_does_not_cost_everybody_the_line(
    broker: Mosquitto,
) -> None:
    rooms = Rooms()
    async with (
        serving(terms_of(broker.port, "feff"), rooms),
        Station.at(Broker("127.0.0.1", broker.port, "hostile"), TERMINAL) as station,
    ):
        up = f"{station.prefix}/purse/up"
        await station.line.publish(up, b"first", response_topic=f"{station.prefix}/\ufeff/down")
        assert (await station.next()).topic == f"{station.prefix}/purse/down"
        await station.line.publish(up, b"second")
        assert (await station.next()).payload == b"second"
    assert (rooms.batches, rooms.refused, rooms.ended) == ([b"first", b"second"], [], ["lost"])


@pytest.mark.parametrize("greets", [False, True])
async def test_a_broker_that_says_nothing_any_more_does_not_hold_up_the_end_of_a_process(
    monkeypatch: pytest.MonkeyPatch, greets: bool
) -> None:
    monkeypatch.setattr(mqtt_line, "CONNECT_S", 1_000.0)
    asked = asyncio.Event()

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if greets:
            writer.write(bytes.fromhex("2003000000"))  # CONNACK
            while await reader.read(1) != b"\x82":  # SUBSCRIBE
                pass
        asked.set()
        while await reader.read(4_096):
            pass
        writer.close()

    server = await asyncio.start_server(broker, "127.0.0.1", 0)
    async with server:
        rooms = Rooms()
        terms = terms_of(server.sockets[0].getsockname()[1], "silent")
        channel = MqttTerminals(rooms.receive, rooms.take_batch, terms, rooms)
        task = asyncio.create_task(channel.run())
        await asked.wait()
        async with asyncio.timeout(WAIT_S):
            assert await channel.drain(0.1) == 0
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("command", "publish", "expected"),
    [
        (0x30, "0001 61 00 70", "0001 61 00 70"),
        (0x30, "0001 61 03 010203 70", "0001 61 00 70"),
        (0x32, "0001 61 0007 03 010203 70", "0001 61 0007 00 70"),
        (0x3A, f"0001 61 0007 8001 {'01' * 128} 70", "0001 61 0007 00 70"),
    ],
)
def test_properties_are_taken_out_of_a_publication_whole(command: int, publish: str, expected: str) -> None:
    assert without_properties(command, bytes.fromhex(publish)) == bytes.fromhex(expected)
