"""Plays golden frames to a switch: terminals with the golden master keys, whose requests are made anew and whose answers are held against the golden ones."""

import subprocess
from collections.abc import Callable
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Final

from switch.domain.calendar import SHANGHAI
from switch.messages.codec import decode
from switch.messages.framing import frame
from switch.messages.message import Message
from terminal_sim import crypto
from terminal_sim.frames import PinPad, Terminal
from terminal_sim.pos_client import Line
from tests.golden.answers import Exchange, faults_of
from tests.golden.requests import (
    Today,
    Told,
    golden,
    is_sign_on,
    original_key,
    rebuilt,
    suite,
    vectors,
)
from tests.helpers.till import Wire

Command = Callable[..., str]  # cardswitch with these arguments; what it printed

MAC_IDS: Final = {"33500001": 1, "33500002": 3, "33500003": 5}  # as the seed begins


def golden_terminal(terminal_id: str, mac_id: int = 0) -> Terminal:
    """A terminal of the golden frames, with its master key."""
    tmk = bytes.fromhex(suite()["terminals"][terminal_id]["tmk"])
    return Terminal(terminal_id, suite()["merchant"], tmk, mac_id or MAC_IDS[terminal_id])


class NotSeededError(Exception):
    """The switch does not hold what the golden frames take for granted; says what it answered instead."""


class Sitting:
    """A golden terminal between sign-on and sign-off."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.pin_pad: PinPad | None = None
        self.batch = ""


class Replay:
    """One run. `faults` says what differed; `played` counts which golden frames had their turn."""

    def __init__(self, line: Line, say: Callable[[str], None] = lambda _: None) -> None:
        self.line = line
        self.faults: list[str] = []
        self.played: set[str] = set()
        self.originals: dict[tuple[str, str], Told] = {}
        self.sittings = {name: Sitting(golden_terminal(name)) for name in MAC_IDS}
        self.traces = count(900_001, 100)  # where what is played in between takes its traces
        self._say = say
        self._wire: Wire | None = None

    async def play(self, name: str, *, answer: str = "", beside: dict[int, str] | None = None) -> Exchange:
        """Send a golden request and compare what comes back.

        name: of the vectors without -REQ. answer: the golden answer, when it is not its namesake's. beside: fields of the golden answer
        that belong to another request of the same form.
        """
        request_id, answer_id = f"{name}-REQ", f"{answer or name}-RSP"
        body, sent = self._made(request_id)
        gold = golden(answer_id)
        gold = gold._replace(fields=gold.fields | (beside or {}))
        return self._take(request_id, answer_id, gold, sent, await self._ask(body))

    async def lose(self, name: str) -> None:
        """Send a golden request whose answer is lost: it came, but nobody looks at it."""
        request_id = f"{name}-REQ"
        body, sent = self._made(request_id)
        self._remember(request_id, sent, decode(await self._ask(body)))
        self.played.add(request_id)
        self._say(f"{request_id}: its answer is lost")

    async def play_twice(self, name: str, again: str) -> None:
        """Play a request, and send the same bytes again: the answer must be the same bytes, and the golden ones of `again`."""
        request_id = f"{name}-REQ"
        body, sent = self._made(request_id)
        first, second = await self._ask(body), await self._ask(body)
        self._take(request_id, f"{name}-RSP", golden(f"{name}-RSP"), sent, first)
        self._take(request_id, f"{again}-RSP", golden(f"{again}-RSP"), sent, second)
        if first != second:
            self._fault(f"{again}-RSP", "the answer to a repeat is not the same")

    def close(self) -> None:
        """Hang up."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    # ------------------------------------------------------------------ one request

    def _made(self, request_id: str) -> tuple[bytes, Message]:
        sitting = self._sitting(request_id)
        today = Today(sitting.pin_pad, sitting.batch, self.originals, datetime.now(SHANGHAI).date())
        body = rebuilt(request_id, today)
        return body, decode(body)

    def _sitting(self, request_id: str) -> Sitting:
        return self.sittings[vectors()[request_id]["terminal"]]

    async def _ask(self, body: bytes) -> bytes:
        if self._wire is None:
            self._wire = await Wire.open(self.line)
        return await self._wire.ask(frame(body))

    def _take(self, request_id: str, answer_id: str, gold: Message, sent: Message, body: bytes) -> Exchange:
        sitting, answer = self._sitting(request_id), decode(body)
        key = original_key(golden(request_id))
        exchange = Exchange(
            golden(request_id),
            gold,
            sent,
            answer,
            sitting.terminal,
            sitting.pin_pad,
            self.originals[key] if key else None,
        )
        if is_sign_on(sent) and answer.fields[39] == "00":
            self._signed_on(sitting, answer)
        self._remember(request_id, sent, answer)
        found = faults_of(answer_id, exchange)
        for fault in found:
            self._fault(answer_id, fault)
        self.played |= {request_id, answer_id}
        self._say(f"{request_id}: {answer.fields[39]}{'' if found else ', as the golden answer'}")
        return exchange

    def _signed_on(self, sitting: Sitting, answer: Message) -> None:
        terminal = sitting.terminal
        keys = crypto.unwrap_working_keys(terminal.algorithm, terminal.tmk, answer.fields[62])
        sitting.pin_pad = PinPad(terminal, keys)
        sitting.batch = answer.fields[60][2:8]

    def _remember(self, request_id: str, sent: Message, answer: Message) -> None:
        if sent.mti in ("0100", "0200"):
            asked = golden(request_id).fields
            self.originals[asked[60][2:8], asked[11]] = Told(sent, answer)

    def _fault(self, answer_id: str, fault: str) -> None:
        self.faults.append(f"{answer_id}: {fault}")
        self._say(f"{answer_id}: {fault}")


def commands_in(folder: Path) -> Command:
    """The operator's commands of the switch that is kept in a folder, with the settings of this process's environment."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            ["cardswitch", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode:
            raise SystemExit(f"cardswitch {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    return run
