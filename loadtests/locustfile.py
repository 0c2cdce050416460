"""The same terminals, driven by locust for those who want its user interface.

    python -m loadtests.town                     builds and serves a town, prints its address
    locust -f loadtests/locustfile.py --host tcp://127.0.0.1:PORT

Each user is one terminal: it signs on, then buys. A decline counts as a failure; so does a wrong MAC. Locust patches the
standard library's sockets, so it runs in a process of its own and speaks plain blocking TCP.
"""

import itertools
import random
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from locust import User, constant, task
from locust.exception import StopUser

from loadtests.town import pan_of, terminal_of
from switch.messages.codec import decode
from switch.messages.message import Message
from terminal_sim import crypto
from terminal_sim.frames import CardData, PinPad, build_purchase, pack, sign_on_fields

CARDS = 20_000
TERMINALS = 1_000
TIMEOUT_S = 60.0
TRACE_MAX = 999_999

_numbers = itertools.count()


class TerminalUser(User):
    """One terminal of the town."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Connect and sign on; one user too many for the town stops."""
        number = next(_numbers)
        if number >= TERMINALS:
            raise StopUser
        address = urlsplit(str(self.host))
        self.chance = random.Random(number)
        self.terminal = terminal_of(number)
        self.line = socket.create_connection(
            (str(address.hostname or ""), address.port or 0), timeout=TIMEOUT_S
        )
        self.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fields = sign_on_fields(self.terminal, self.terminal.sign_on_mode, batch_no=0, trace=1)
        answer = self._timed("sign-on", pack(self.terminal, "0800", fields, None))
        keys = crypto.unwrap_working_keys(self.terminal.algorithm, self.terminal.tmk, answer.fields[62])
        self.pad = PinPad(self.terminal, keys)
        self.batch_no = int(answer.fields[60][2:8])
        self.trace = int(time.time()) % TRACE_MAX  # a town may be driven more than once

    @task
    def buy(self) -> None:
        """A purchase of one yuan."""
        self.trace = self.trace % TRACE_MAX + 1
        card = CardData(pan_of(self.chance.randrange(CARDS)), "001")
        frame = build_purchase(self.terminal, self.pad, card, 100, batch_no=self.batch_no, trace=self.trace)
        self._timed("purchase", frame)

    def on_stop(self) -> None:
        """Hang up."""
        self.line.close()

    def _timed(self, name: str, frame: bytes) -> Message:
        started = time.perf_counter()
        fault: Exception | None = None
        body = b""
        try:
            self.line.sendall(frame)
            body = self._read(int.from_bytes(self._read(2), "big"))
            answer = decode(body)
            if answer.fields[39] != "00":
                fault = ValueError(f"answered {answer.fields[39]}")
            elif answer.field64 and not self.pad.mac_holds(answer.mab, answer.field64):
                fault = ValueError("the answer's MAC is wrong")
        except OSError as error:
            fault = error
        self._report(name, started, len(body), fault)
        if isinstance(fault, OSError):
            raise StopUser
        return answer

    def _report(self, name: str, started: float, size: int, fault: Exception | None) -> None:
        event: dict[str, Any] = {
            "request_type": "TCP",
            "name": name,
            "response_time": (time.perf_counter() - started) * 1000,
            "response_length": size,
            "exception": fault,
            "context": {},
        }
        self.environment.events.request.fire(**event)

    def _read(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self.line.recv(size - len(parts))
            if not part:
                raise ConnectionResetError("the switch hung up")
            parts += part
        return parts
