"""Noise from a host: only PeerError and FramingError come out, and what was read of it is never more than its key."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switch.domain.errors import FramingError, PeerError
from switch.messages.dialect import HostMessage, UnreadableMessage, decode, encode
from switch.messages.framing import FrameReader
from switch.messages.host_1987 import DIALECTS
from switch.messages.host_mapping import answer_key, network_answer_fields, read_answer
from tests.unit.messages.test_host_dialect import frame_of, golden

FRAMES = {
    form: [frame_of(name) for name, vector in golden().items() if vector["in"]["dialect"] == form]
    for form in DIALECTS
}


@st.composite
def damaged(draw: Callable[[st.SearchStrategy[int]], int], form: str) -> bytes:
    """A golden frame with bytes changed, taken out and put in."""
    raw = bytearray(FRAMES[form][draw(st.integers(0, len(FRAMES[form]) - 1))])
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


def read(form: str, body: bytes) -> HostMessage | None:
    """The message, or None when the bytes are none; then what was read of it has only what says which it was."""
    readable: HostMessage | None = None
    try:
        return decode(DIALECTS[form], body)
    except UnreadableMessage as error:
        readable = error.readable
    except FramingError:
        return None
    assert readable.fields.keys() <= DIALECTS[form].told
    answer_key(readable)
    return None


@pytest.mark.parametrize("form", DIALECTS)
def test_a_body_of_noise_raises_nothing_else(form: str) -> None:
    dialect = DIALECTS[form]

    @given(st.binary(max_size=300) | damaged(form))
    @settings(max_examples=400, deadline=None)
    def take(raw: bytes) -> None:
        for body in (raw, raw[2:]):
            message = read(form, body)
            if message is None:
                continue
            repr(message)
            answer_key(message)
            without_mac = {number: value for number, value in message.fields.items() if number != 128}
            assert (
                encode(dialect, message.mti, without_mac)[dialect.mti_bytes + 16 :]
                == message.mab[dialect.mti_bytes + 16 :]
                or not message.mac
            )
            encode(dialect, "0810", network_answer_fields(message, "30"))
            if answer_key(message) is not None:
                with contextlib.suppress(PeerError):
                    read_answer({}, message)

    take()


@pytest.mark.parametrize("form", DIALECTS)
def test_a_stream_of_noise_is_bounded_and_ends_in_a_framing_error_or_waits(form: str) -> None:
    @given(st.lists(st.binary(max_size=200) | damaged(form) | st.sampled_from(FRAMES[form]), max_size=6))
    @settings(max_examples=100, deadline=None)
    def take(chunks: list[bytes]) -> None:
        reader = FrameReader(DIALECTS[form].frames)
        for chunk in chunks:
            try:
                bodies = reader.feed(chunk)
            except FramingError:
                return
            assert reader.pending_bytes < 2050
            assert all(len(body) <= 2048 for body in bodies)

    take()
