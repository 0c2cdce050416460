"""A switch with one terminal and no rules, for tests of the terminal: it knows the keys and answers what it is told to."""

import asyncio
from collections.abc import Callable
from typing import Any

from switch.messages.codec import decode, encode
from switch.messages.framing import FrameReader, frame
from switch.messages.message import Message
from switch.messages.terminal_1987 import ANSWER_MTI
from terminal_sim import crypto
from terminal_sim.crypto import Block, WorkingKeys
from terminal_sim.frames import PinPad, Terminal

TERMINAL = Terminal("33500001", "993350054110001", bytes(range(16)), 5)
ECHOED = (2, 3, 4, 11, 25, 41, 42, 49, 60)
Fields = dict[int, Any]


class FalseSwitch:
    """`answers` changes the fields of an answer by MTI and 60.3 (`0200`, `0320/203`); None: no answer at all."""

    def __init__(self, terminal: Terminal = TERMINAL) -> None:
        self.terminal = terminal
        self.requests: list[Message] = []
        self.batch_no = 1
        self.sessions = 0
        self.pin_pad: PinPad | None = None
        self.answers: dict[str, Callable[[Message, Fields], Fields | None]] = {}
        self.processing = 0
        self.spoil_mac = False

    def seen(self, mti: str) -> list[Message]:
        return [message for message in self.requests if message.mti == mti]

    def answer(self, body: bytes) -> bytes | None:
        """The body of the answer to a body."""
        message = decode(body)
        self.requests.append(message)
        fields: Fields = {n: message.fields[n] for n in ECHOED if n in message.fields}
        fields |= {12: "081530", 13: "0315", 32: "49993350", 37: f"4075080{len(self.requests):05d}", 39: "00"}
        code = message.fields[60][8:11]
        with_mac = 64 in message.fields
        if message.mti == "0800" and code in ("003", "005"):
            fields |= self._sign_on(message)
        elif message.mti == "0320" and code == "203":
            sent = message.fields[62]
            records = [sent[at : at + 96] for at in range(1, len(sent), 96)]
            fields[62] = sent[:1] + b"".join(record[59:63] + b"10" for record in records)
        elif message.mti == "0500":
            text = message.fields[48]
            fields[48] = text[:30] + "1" + text[31:61] + "1"
        elif message.mti == "0320" and code in ("202", "207"):
            fields[48] = message.fields[48]
            self.batch_no += 1
        for key in (message.mti, f"{message.mti}/{code}"):
            if key in self.answers:
                changed = self.answers[key](message, fields)
                if changed is None:
                    return None
                fields = changed
        header = (
            message.header[:2] + bytes((message.header[2] & 0xF0 | self.processing,)) + message.header[3:]
        )
        return self._packed(message, header, fields, with_mac=with_mac)

    def _sign_on(self, message: Message) -> Fields:
        self.sessions += 1
        algorithm = self.terminal.algorithm
        keys = [self.sessions.to_bytes(2) + bytes(12) + n.to_bytes(2) for n in (1, 2)]
        self.pin_pad = PinPad(self.terminal, WorkingKeys(keys[0], keys[1], None))
        master = Block(algorithm, self.terminal.tmk)
        bundle = b"".join(master.encrypt(key) + crypto.check_value(algorithm, key) for key in keys)
        sixty = message.fields[60]
        return {60: f"{sixty[:2]}{self.batch_no:06d}{sixty[8:]}", 62: bundle}

    def _packed(self, message: Message, header: bytes, fields: Fields, *, with_mac: bool) -> bytes:
        tpdu = message.tpdu[:1] + message.tpdu[3:5] + message.tpdu[1:3]
        mti = ANSWER_MTI[message.mti]
        if not with_mac or fields.pop(0, False):  # a test's mark: no MAC
            return encode(Message(tpdu, header, mti, fields))
        body = encode(Message(tpdu, header, mti, {**fields, 64: bytes(8)}))[:-8]
        assert self.pin_pad is not None
        mac = self.pin_pad.field64(body[11:])
        return body + (crypto.inverted(mac) if self.spoil_mac else mac)

    async def serve(self) -> asyncio.Server:
        """Listen on a free loopback port."""
        return await asyncio.start_server(self._conversation, "127.0.0.1", 0)

    async def _conversation(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        try:
            while data := await reader.read(4096):
                for body in frames.feed(data):
                    answer = self.answer(body)
                    if answer is not None:
                        writer.write(frame(answer))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


def changed(**changes: Any) -> Callable[[Message, Fields], Fields]:
    """An answer with other fields, named f39="51"; None takes a field away; f0=True leaves the MAC out."""

    def change(_message: Message, fields: Fields) -> Fields:
        made = fields | {int(name[1:]): value for name, value in changes.items()}
        return {number: value for number, value in made.items() if value is not None}

    return change


def lost_times(count: int) -> Callable[[Message, Fields], Fields | None]:
    """No answer, so many times."""
    left = [count]

    def change(_message: Message, fields: Fields) -> Fields | None:
        left[0] -= 1
        return None if left[0] >= 0 else fields

    return change
