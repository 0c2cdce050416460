"""A town whose terminals come over MQTT: a mosquitto, the settings of the switch for it, and devices with their passwords."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import psycopg

from switch.transports.mqtt_line import LineTerms, MqttLine
from switch.transports.mqtt_terminals import publish_on
from switch.transports.mqtt_topics import encoded
from terminal_sim.frames import Terminal
from terminal_sim.mqtt import Broker, Delivered, MqttConnection
from terminal_sim.mqtt_batches import Batches, Receipt, read_receipt
from terminal_sim.mqtt_device import MqttDevice, prefix_of
from tests.helpers.mosquitto import SWITCH_PASSWORD, SWITCH_USER, Mosquitto
from tests.helpers.switch_process import SwitchProcess, until
from tests.helpers.town import BUSES, BUSES_MAX, TERMINALS, Town, terminal_of

ANSWER_S = 60.0  # no test waits longer for anything; reaching it is a failure


def passwords() -> dict[str, str]:
    """Of the town's buses and its first terminals of each MAC algorithm."""
    numbers = [BUSES + n for n in range(BUSES_MAX)]
    numbers += [mac_id * 10_000 + n for mac_id, many in TERMINALS.items() for n in range(min(many, 8))]
    names = [encoded(terminal_of(number).terminal_id) for number in numbers]
    return {name: password_of(name) for name in names} | {"STRANGER": password_of("STRANGER")}


def password_of(name: str) -> str:
    return f"of {name}"


class MqttTown(NamedTuple):
    """A town and its broker."""

    town: Town
    broker: Mosquitto

    def settings(self, client_id: str, **more: object) -> dict[str, object]:
        """Of a switch that serves at the broker."""
        password = self.town.folder / "switch.password"
        password.write_text(SWITCH_PASSWORD + "\n", encoding="utf-8")
        return {
            "mqtt__host": "127.0.0.1",
            "mqtt__port": self.broker.port,
            "mqtt__username": SWITCH_USER,
            "mqtt__password_file": password,
            "mqtt__client_id": client_id,
        } | more

    def serve(self, client_id: str = "one", **more: object) -> SwitchProcess:
        """The process that holds the database, listening at the broker when this returns."""
        return listening(self.town.serve(**self.settings(client_id, **more)))

    def serve_beside(self, client_id: str, fail_at: str = "", **more: object) -> SwitchProcess:
        """Another process of the same group."""
        return listening(self.town.serve_beside(fail_at, **self.settings(client_id, **more)))

    def line_of(self, terminal_id: str, **changes: Any) -> Broker:
        """How a terminal speaks to the broker."""
        name = encoded(terminal_id)
        line = Broker(
            "127.0.0.1", self.broker.port, f"terminal-{name}", name, password_of(name), timeout_s=ANSWER_S
        )
        return replace(line, **changes)

    def device(
        self, terminal: Terminal, *, batch: int = 500, receipt_s: float = ANSWER_S, **changes: Any
    ) -> MqttDevice:
        """A terminal at its broker."""
        line = self.line_of(terminal.terminal_id, **changes)
        return MqttDevice(
            terminal,
            line,
            batches=Batches(terminal, records_max=batch),
            timeout_s=ANSWER_S,
            receipt_s=receipt_s,
        )


class LinePublisher:
    """The Publisher of a line that listens to nothing."""

    def __init__(self, line: MqttLine) -> None:
        self._line = line

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        await publish_on(self._line, topic, payload, retain=retain)


@contextlib.asynccontextmanager
async def publishing(terms: LineTerms) -> AsyncIterator[LinePublisher]:
    """Somebody who publishes over a line of the switch's kind. LineLostError when there is none to be had."""
    async with MqttLine(replace(terms, session_s=0), lambda _line, _incoming: None) as line:
        yield LinePublisher(line)


def listening(process: SwitchProcess) -> SwitchProcess:
    until(lambda: process.metric("cardswitch_mqtt_connected") == 1, 60, "the line to the broker")
    return process


class Station:
    """A terminal whose every message the test makes and sees."""

    def __init__(self, terminal_id: str) -> None:
        self.terminal_id = terminal_id
        self.prefix = prefix_of(terminal_id)
        self.came: asyncio.Queue[Delivered] = asyncio.Queue()
        self.line: MqttConnection

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, line: Broker, terminal_id: str) -> AsyncIterator["Station"]:
        """Connected, listening to its topics down."""
        station = cls(terminal_id)
        station.line = await MqttConnection.open(line, station.take)
        try:
            await station.line.subscribe([f"{station.prefix}/+/down"])
            yield station
        finally:
            station.line.close()

    def take(self, message: Delivered, _mid: int) -> bool:
        self.came.put_nowait(message)
        return True

    async def next(self) -> Delivered:
        async with asyncio.timeout(ANSWER_S):
            return await self.came.get()

    async def receipt_of(self, payload: bytes) -> Receipt:
        """Send a batch; its receipt, whatever it says."""
        await self.line.publish(f"{self.prefix}/purse/up", payload)
        return await self.next_receipt()

    async def next_receipt(self) -> Receipt:
        """Of whichever batch."""
        return read_receipt((await self.next()).payload)


def booked(town: Town, terminal: Terminal) -> list[tuple[str, int]]:
    """Results of a terminal's records, with how many have each."""
    with psycopg.connect(town.database_url) as connection:
        rows = connection.execute(
            "SELECT result, count(*) FROM purse_record JOIN terminal USING (terminal_no) WHERE terminal_id = %s"
            " GROUP BY 1 ORDER BY 1",
            [terminal.terminal_id],
        ).fetchall()
    return [(result, count) for result, count in rows]


def accepted_once(town: Town, terminal: Terminal) -> Sequence[int]:
    """PSAM serials of a terminal's accepted records; each must stand once."""
    with psycopg.connect(town.database_url) as connection:
        rows = connection.execute(
            "SELECT psam_serial FROM purse_record JOIN terminal USING (terminal_no)"
            " WHERE terminal_id = %s AND result = '10' ORDER BY 1",
            [terminal.terminal_id],
        ).fetchall()
    return [int(serial) for (serial,) in rows]
