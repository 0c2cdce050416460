"""The broker of the demonstration: shared subscriptions, batches of full size, loopback only, and no orphan."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from switch.transports.mqtt_topics import shared_subscriptions
from terminal_sim.broker import EmbeddedBroker
from terminal_sim.mqtt import Broker, Delivered, MqttConnection
from tests.helpers.switch_process import until


def reachable(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


async def test_it_deals_the_messages_of_a_group_out_and_takes_the_largest_batch(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        came: list[tuple[int, Delivered]] = []
        done = asyncio.Event()

        def taking(number: int) -> Callable[[Delivered, int], bool]:
            def take(message: Delivered, _mid: int) -> bool:
                came.append((number, message))
                if len(came) == 6:
                    done.set()
                return True

            return take

        members = []
        for number in (1, 2):
            line = Broker("127.0.0.1", broker.port, f"member-{number}")
            members.append(await MqttConnection.open(line, taking(number)))
            await members[-1].subscribe(["$share/group/ccs/v1/+/purse/up"])
        sender = await MqttConnection.open(Broker("127.0.0.1", broker.port, "sender"), taking(0))
        for _ in range(6):
            await sender.publish("ccs/v1/33600001/purse/up", bytes(192_042))
        async with asyncio.timeout(60):
            await done.wait()
        assert {number for number, _ in came} == {1, 2}
        for connection in (sender, *members):
            connection.close()
    assert not reachable(broker.port)


async def test_it_deals_out_frames_and_batches_of_the_switch_and_keeps_none_back(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        came: asyncio.Queue[bytes] = asyncio.Queue()

        def take(message: Delivered, _mid: int) -> bool:
            came.put_nowait(message.payload)
            return True

        switch = await MqttConnection.open(Broker("127.0.0.1", broker.port, "switch"), take)
        await switch.subscribe(shared_subscriptions("cardswitch"))
        bus = await MqttConnection.open(Broker("127.0.0.1", broker.port, "bus"), take)
        async with asyncio.timeout(60):
            for number in range(6):
                await bus.publish(f"ccs/v1/33600001/{('iso', 'purse')[number % 2]}/up", bytes((number,)))
                assert await came.get() == bytes((number,))
        bus.close()
        switch.close()


def test_it_ends_with_the_process_that_started_it_however_that_ends(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from terminal_sim.broker import EmbeddedBroker\n"
        "print(EmbeddedBroker(pathlib.Path(sys.argv[1])).start(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert reachable(port)
        parent.send_signal(signal.SIGKILL)
        parent.wait(30)
    until(lambda: not reachable(port), 30, "the end of the broker")
