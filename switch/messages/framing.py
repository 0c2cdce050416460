"""Frames out of a byte stream: LEN (two bytes, high byte first, counts what follows) and that many bytes.

A stream that breaks a rule here has lost its place, and nothing after it can be trusted: FramingError, close.
"""

from typing import NamedTuple

from switch.domain.errors import FramingError
from switch.messages.terminal_1987 import BODY_BYTES_MAX, FIELDS_AT, TPDU_IDENTIFIER

LEN_BYTES = 2


class FrameRules(NamedTuple):
    """What the first bytes of every frame of a stream must be. first: the bytes that a body may begin with."""

    shortest: int
    first: bytes
    first_rule: str


TERMINAL_FRAMES = FrameRules(FIELDS_AT, bytes([TPDU_IDENTIFIER]), "first TPDU byte is not 60")


def frame(body: bytes, rules: FrameRules = TERMINAL_FRAMES) -> bytes:
    """LEN + body. ValueError when the body is shorter or longer than a frame may be."""
    if not rules.shortest <= len(body) <= BODY_BYTES_MAX:
        raise ValueError(f"a frame body has {rules.shortest} to {BODY_BYTES_MAX} bytes")
    return len(body).to_bytes(LEN_BYTES, "big") + body


class FrameReader:
    """Takes bytes in pieces of any size; gives the bodies that they complete, without LEN.

    Holds at most one unfinished frame (LEN + 2048 bytes) between calls. Once the stream has lost its place,
    `failure` is set: frames completed before the bad byte are still returned by the call that met it, and every later
    call raises. So a caller serves what it got and then closes if `failure` is not None.
    """

    __slots__ = ("_pending", "_rules", "failure")

    def __init__(self, rules: FrameRules = TERMINAL_FRAMES) -> None:
        self._rules = rules
        self._pending = b""
        self.failure: FramingError | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes of the unfinished frame; 0 between frames."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the bodies completed by `data`; FramingError when there are none and the stream is broken."""
        if self.failure is not None:
            raise self.failure
        if self._pending:
            data = self._pending + data
            self._pending = b""
        size = len(data)
        shortest, first, first_rule = self._rules
        bodies: list[bytes] = []
        at = 0
        while size - at >= LEN_BYTES:
            length = data[at] << 8 | data[at + 1]
            if not shortest <= length <= BODY_BYTES_MAX:
                return self._broken(_length_rule(length, shortest), bodies)
            start = at + LEN_BYTES
            if size > start and data[start] not in first:
                return self._broken(first_rule, bodies)
            end = start + length
            if size < end:
                break
            bodies.append(data[start:end])
            at = end
        if at < size:
            self._pending = data[at:] if at else data
        return bodies

    def _broken(self, rule: str, bodies: list[bytes]) -> list[bytes]:
        self.failure = FramingError(rule)
        if not bodies:
            raise self.failure
        return bodies


def _length_rule(length: int, shortest: int) -> str:
    if length == 0:
        return "LEN is 0"
    if length > BODY_BYTES_MAX:
        return f"LEN is above {BODY_BYTES_MAX}"
    return f"LEN is below {shortest}: no room for what stands before the fields"
