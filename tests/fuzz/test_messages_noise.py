"""Noise on the line: only PeerError and FramingError come out, and no more is kept than one frame."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from switch.domain.errors import FramingError, PeerError
from switch.messages.answers import build_bare
from switch.messages.codec import ECHOED, MessageFormatError, decode
from switch.messages.describe import Piece, describe
from switch.messages.digest import content_digest
from switch.messages.envelope import read_envelope
from switch.messages.examine import examine
from switch.messages.framing import FrameReader
from switch.messages.mapping import read_request
from switch.messages.terminal_1987 import ANSWER_MTI
from switch.messages.tlv import read_tlvs
from tests.helpers.frames import frame_of, golden

GOLDEN = [frame_of(name) for name in golden()]


@st.composite
def damaged(draw: Callable[[st.SearchStrategy[int]], int]) -> bytes:
    """A golden frame with bytes changed, taken out and put in."""
    raw = bytearray(GOLDEN[draw(st.integers(0, len(GOLDEN) - 1))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(2, len(raw) - 1))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            del raw[at : at + draw(st.integers(1, 9))]
        elif kind == 1:
            raw[at:at] = bytes([draw(st.integers(0, 255))])
        else:
            raw[at] = draw(st.integers(0, 255))
        if len(raw) < 4:
            break
    return bytes(raw)


def take(body: bytes) -> None:
    """Everything that is done with a frame before its MAC is known to be good, and after."""
    message = decode(body)
    assert examine(body).faults == ()
    read_envelope(message)
    content_digest(message)
    repr(message)
    repr(read_request(message))


@given(st.binary(max_size=300) | damaged())
@settings(max_examples=400)
def test_a_body_of_noise_raises_nothing_else(body: bytes) -> None:
    for raw in (body, body[2:]):
        with contextlib.suppress(PeerError, FramingError):
            take(raw)


@given(damaged())
@settings(max_examples=300)
def test_what_could_be_read_of_a_damaged_frame_can_be_answered(raw: bytes) -> None:
    caught: MessageFormatError | None = None
    try:
        decode(raw[2:])
    except MessageFormatError as error:
        caught = error
    except FramingError:
        pass
    if caught is not None:
        assert 41 in caught.readable.fields
        assert caught.readable.fields.keys() <= ECHOED
        assert caught.offset is not None
        assert 0 <= caught.offset <= len(raw) - 2
        if caught.readable.mti in ANSWER_MTI and caught.field != "header":  # the header goes back as it came
            prefix, mab = build_bare(caught.readable, "30", datetime.now(UTC), with_mac=False)
            assert decode(prefix + mab).fields[39] == "30"


@given(st.lists(st.binary(max_size=200) | damaged() | st.sampled_from(GOLDEN), max_size=6))
@settings(max_examples=100)
def test_a_stream_of_noise_is_bounded_and_ends_in_a_framing_error_or_waits(chunks: list[bytes]) -> None:
    reader = FrameReader()
    for chunk in chunks:
        try:
            bodies = reader.feed(chunk)
        except FramingError:
            return
        assert reader.pending_bytes < 2050
        for body in bodies:
            assert 21 <= len(body) <= 2048
            assert body[0] == 0x60


@given(st.binary(max_size=300) | damaged())
@settings(max_examples=300)
def test_whatever_is_described_is_described(raw: bytes) -> None:
    for with_len in (True, False):
        found = describe(Piece(raw, with_len=with_len))
        assert len(found.hexes) == len(raw)
        assert all(0 <= fault.offset <= len(raw) for fault in found.faults)
        found.as_json()


@given(st.binary(max_size=255))
@settings(max_examples=200)
def test_field_55_of_noise_is_refused_or_taken_apart_completely(raw: bytes) -> None:
    try:
        items = read_tlvs(raw)
    except PeerError:
        return
    assert b"".join(raw[item.start : item.value_at + len(item.value)] for item in items) == raw
