"""Command and response APDUs 應用協議數據單元 in short form (ISO/IEC 7816-4), and the device that answers them."""

from abc import ABC, abstractmethod
from enum import IntEnum
from typing import NamedTuple

GET_RESPONSE = 0xC0
RESPONSE_BYTES_MAX = 256


class Sw(IntEnum):
    """Status words. 63Cx (x tries left) and 61xx (xx bytes waiting) are made with `tries_left` and by the device."""

    OK = 0x9000
    FILE_INVALID = 0x6283  # selected, but the application is blocked
    MEMORY = 0x6581
    LENGTH = 0x6700
    STATE = 0x6901  # another command was expected
    SECURITY_STATE = 0x6982
    AUTHENTICATION_BLOCKED = 0x6983
    CONDITIONS = 0x6985
    SECURE_MESSAGING = 0x6988
    DATA = 0x6A80
    NOT_SUPPORTED = 0x6A81  # also: application or card locked
    FILE_NOT_FOUND = 0x6A82
    RECORD_NOT_FOUND = 0x6A83
    NO_SPACE = 0x6A84
    P1_P2 = 0x6A86
    INS = 0x6D00
    CLA = 0x6E00
    MAC_INVALID = 0x9302
    LOCKED_FOR_EVER = 0x9303
    BALANCE = 0x9401
    COUNTER = 0x9402
    KEY_INDEX = 0x9403
    PROOF = 0x9406
    CAPP_LOCKED = 0x9407
    GREY_LOCKED = 0x9408


def tries_left(count: int) -> int:
    """63Cx."""
    return 0x63C0 | count


class StatusError(Exception):
    """A command that ends with a status word other than 9000 and, with rare exceptions, no data."""

    def __init__(self, status: int, data: bytes = b"") -> None:
        self.status = status
        self.data = data
        super().__init__(f"status word {status:04X}")


class Command(NamedTuple):
    """A parsed command. `le` None: no response data was asked for; 256 for an Le byte of 00."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes
    le: int | None

    @property
    def header(self) -> bytes:
        """CLA INS P1 P2 Lc."""
        return bytes((self.cla, self.ins, self.p1, self.p2, len(self.data)))


def parse_command(raw: bytes) -> Command:
    """Take a short APDU apart; StatusError 6700 when its length bytes do not fit it."""
    if len(raw) < 4:
        raise StatusError(Sw.LENGTH)
    cla, ins, p1, p2 = raw[:4]
    if len(raw) == 4:
        return Command(cla, ins, p1, p2, b"", None)
    if len(raw) == 5:
        return Command(cla, ins, p1, p2, b"", raw[4] or RESPONSE_BYTES_MAX)
    length = raw[4]
    end = 5 + length
    if length == 0 or len(raw) not in (end, end + 1):
        raise StatusError(Sw.LENGTH)
    le = (raw[end] or RESPONSE_BYTES_MAX) if len(raw) > end else None
    return Command(cla, ins, p1, p2, raw[5:end], le)


class ApduDevice(ABC):
    """Something in a reader. Subclasses answer parsed commands; this part speaks the transport's rules.

    Response data that was not asked for, or more than was asked for, waits: 61xx says how much, GET RESPONSE fetches it. It
    waits for one command only.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = b""

    def transmit(self, raw: bytes) -> bytes:
        """Answer one command APDU: data and status word. Never raises for anything that came in."""
        try:
            command = parse_command(raw)
            if command.ins == GET_RESPONSE and self._waiting:
                data, status = self._waiting, int(Sw.OK)
            else:
                self._waiting = b""
                data, status = self.answer(command), int(Sw.OK)
        except StatusError as refusal:
            self._waiting = b""
            return refusal.data + refusal.status.to_bytes(2)
        shown = data[: command.le or 0]
        self._waiting = data[len(shown) :]
        if self._waiting:
            status = 0x6100 | (len(self._waiting) & 0xFF)
        return shown + status.to_bytes(2)

    def reset(self) -> None:
        """Power off and on: whatever was not in permanent memory is gone."""
        self._waiting = b""

    @abstractmethod
    def answer(self, command: Command) -> bytes:
        """Response data of a command that succeeds; StatusError otherwise."""


def tlv(tag: str, value: bytes) -> bytes:
    """BER-TLV with a one-byte length; tag as hex."""
    assert len(value) < 0x80
    return bytes.fromhex(tag) + bytes((len(value),)) + value
