"""A broker out of a wheel, for a city on one machine without a broker of its own: MQTT 5, loopback, in memory.

It runs in a process of its own and ends with the one that started it, however that ends: it holds the other end of a pipe. There is no
access list and nothing survives it, so it is for demonstrations; docs/mqtt.md says what a city needs.
"""

import socket
from pathlib import Path
from typing import Final, Self

from iotcore import Broker

from terminal_sim.mqtt import PACKET_BYTES_MAX, MqttLineError

STARTS_MAX: Final = 5  # a free port may be somebody else's a moment later
STARTED_S: Final = 20.0
_CONFIG: Final = """\
id = 0

[router]
id = 0
max_connections = 20000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "city"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 0

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {payload}
max_inflight_count = 1000
"""


class EmbeddedBroker:
    """Use as a context: listening on `port` inside, ended after."""

    def __init__(self, folder: Path) -> None:
        self._config = folder / "broker.toml"
        self._broker: Broker | None = None
        self.port = 0

    def start(self) -> int:
        """Listen; returns the port. MqttLineError when it does not come up."""
        for _ in range(STARTS_MAX):
            with socket.create_server(("127.0.0.1", 0)) as server:
                port: int = server.getsockname()[1]
            self._config.write_text(_CONFIG.format(port=port, payload=PACKET_BYTES_MAX), encoding="utf-8")
            broker = Broker(config_path=str(self._config))
            try:
                broker.start(STARTED_S)
            except (OSError, RuntimeError):
                continue
            self._broker, self.port = broker, port
            return port
        raise MqttLineError("the embedded broker does not start")

    def stop(self) -> None:
        """End it. What it held is gone."""
        broker, self._broker = self._broker, None
        if broker is not None:
            broker.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
