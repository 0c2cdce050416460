"""A terminal on MQTT: a POS whose frames go to topics in place of a socket, and a validator that hands its batches in.

Sending again is the device's part: a frame is tried as on any line, a batch until its receipt comes. Bounds: one batch of a device on its
way, one connection, the tries of each.
"""

import asyncio
from typing import Final
from urllib.parse import quote

from switch.messages.framing import frame
from terminal_sim.frames import Terminal
from terminal_sim.mqtt import Broker, Delivered, MqttConnection, MqttLineError
from terminal_sim.mqtt_batches import TAKEN, Batches, ReceiptError
from terminal_sim.pos import Pos
from terminal_sim.pos_client import ANSWER_TIMEOUT_S, Line, Link, NoAnswerError, PosClient

LEN_BYTES: Final = 2
FRAME_BYTES_MIN, FRAME_BYTES_MAX = 21, 2_048
RECEIPT_S: Final = 60.0
TRIES_MAX: Final = 50
SILENT_MAX: Final = 2


def prefix_of(terminal_id: str) -> str:
    """The topics of a terminal begin so."""
    return f"ccs/v1/{quote(terminal_id, safe='')}"


class _Topic(asyncio.Transport):
    """What a link writes goes to a topic, a frame at a time."""

    def __init__(self, connection: MqttConnection, topic: str) -> None:
        super().__init__()
        self._connection = connection
        self._topic = topic

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """One frame, without its LEN."""
        self._connection.publish_soon(self._topic, bytes(data)[LEN_BYTES:])

    def is_closing(self) -> bool:
        """Whether nothing can be sent."""
        return not self._connection.is_open

    def close(self) -> None:
        """The connection belongs to the device, which closes it."""

    def abort(self) -> None:
        """A link that cannot read what comes gives the connection up."""
        self._connection.abort()


class MqttDevice(PosClient):
    """One terminal. All that a PosClient does, over MQTT alone; and `hand_in` for batches of offline records."""

    __slots__ = (
        "_connecting",
        "_prefix",
        "_receipt_s",
        "_receipts",
        "batches",
        "broker",
        "connection",
        "lists",
    )

    def __init__(
        self,
        terminal: Terminal,
        broker: Broker,
        *,
        batches: Batches | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
        receipt_s: float = RECEIPT_S,
    ) -> None:
        """receipt_s: a batch without a receipt is sent again so often."""
        super().__init__(Pos(terminal), Line(broker.host, broker.port), timeout_s=timeout_s)
        self.broker = broker
        self.batches = batches or Batches(terminal)
        self.connection: MqttConnection | None = None
        self.lists: dict[str, bytes] = {}  # what was published to all, the newest of each topic
        self._prefix = prefix_of(terminal.terminal_id)
        self._receipt_s = receipt_s
        self._receipts: asyncio.Queue[bytes] = asyncio.Queue(64)
        self._connecting = asyncio.Lock()

    async def connect(self) -> Link:
        """The link of frames; the connection is made when there is none. NoAnswerError when it cannot be."""
        async with self._connecting:
            if self.link is not None and self.link.is_open:
                return self.link
            try:
                connection = await MqttConnection.open(self.broker, self._take)
                await connection.subscribe([f"{self._prefix}/+/down", "ccs/v1/list/#"])
            except MqttLineError as error:
                raise NoAnswerError(str(error)) from error
            self.connection = connection
            link = Link()
            link.connection_made(_Topic(connection, f"{self._prefix}/iso/up"))
            self.link = link
            return link

    def close(self) -> None:
        """Hang up."""
        super().close()
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _take(self, message: Delivered, _mid: int) -> bool:
        if message.topic.startswith("ccs/v1/list/"):
            self.lists[message.topic] = message.payload
        elif message.topic == f"{self._prefix}/iso/down":
            if self.link is not None and FRAME_BYTES_MIN <= len(message.payload) <= FRAME_BYTES_MAX:
                self.link.data_received(frame(message.payload))
        elif message.topic == f"{self._prefix}/purse/down" and not self._receipts.full():
            self._receipts.put_nowait(message.payload)
        return True

    # ------------------------------------------------------------------ batches

    async def hand_in(self, tries: int = TRIES_MAX) -> dict[bytes, str]:
        """Send everything that waits, again and again, until receipts have named it all; the results by record serial.

        A line that has been silent for two sendings is given up: whatever is at its other end may have forgotten us. NoAnswerError when
        that many sendings were not enough.
        """
        silent = 0
        for _ in range(tries):
            if not self.batches.waiting:
                return self.batches.results
            try:
                await self.ready()
                if self.batches.must_sign_on:
                    await self.sign_on()
                    self.batches.must_sign_on = False
                await self.send_batch()
                silent = 0 if await self._receipt() else silent + 1
                if silent >= SILENT_MAX:
                    self.close()
                    silent = 0
            except (NoAnswerError, MqttLineError):
                self.close()
                await asyncio.sleep(min(1.0, self._receipt_s))
        if self.batches.waiting:
            raise NoAnswerError("no receipt")
        return self.batches.results

    async def send_batch(self) -> None:
        """Publish the batch that waits for its receipt, once."""
        await self.connect()
        pad = self.pos.pin_pad
        assert pad is not None, "signed on before"
        payload = self.batches.next_batch(pad)
        assert self.connection is not None
        if payload is not None:
            await self.connection.publish(f"{self._prefix}/purse/up", payload)

    async def _receipt(self) -> bool:
        """Wait for a receipt of the open batch, whatever it says; False when none came, and it is sent again."""
        try:
            async with asyncio.timeout(self._receipt_s):
                while not self._believed(await self._receipts.get()):
                    pass
        except TimeoutError:
            return False
        return True

    def _believed(self, payload: bytes) -> bool:
        try:
            result = self.batches.take(payload, self.pos.pin_pad)
        except ReceiptError:
            return False
        if result == TAKEN:
            self.pos.batch.note_results(self.batches.taken)
        return bool(result)
