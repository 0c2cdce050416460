import pytest

from switch.domain.errors import FramingError
from switch.messages.framing import FrameReader, frame
from tests.helpers.frames import frame_of, golden

ONE = frame_of("ISO-04-PURCHASE-REQ")
TWO = frame_of("ISO-02-ECHO-REQ")


def test_every_golden_frame_is_delivered_whole() -> None:
    reader = FrameReader()
    for name in golden():
        assert reader.feed(frame_of(name)) == [frame_of(name)[2:]]
    assert reader.pending_bytes == 0


def test_frames_arrive_byte_by_byte() -> None:
    reader = FrameReader()
    bodies = [body for byte in ONE + TWO for body in reader.feed(bytes([byte]))]
    assert bodies == [ONE[2:], TWO[2:]]


@pytest.mark.parametrize("cut", range(1, len(ONE + TWO + ONE)))
def test_coalesced_frames_are_cut_anywhere(cut: int) -> None:
    stream = ONE + TWO + ONE
    reader = FrameReader()
    assert reader.feed(stream[:cut]) + reader.feed(stream[cut:]) == [ONE[2:], TWO[2:], ONE[2:]]


@pytest.mark.parametrize(
    ("start", "rule"),
    [
        ("0000", "LEN is 0"),
        ("0801", "above 2048"),
        ("FFFF", "above 2048"),
        ("0014", "below 21"),
        ("006D61", "TPDU"),
    ],
)
def test_a_bad_start_is_noticed_as_soon_as_it_is_there(start: str, rule: str) -> None:
    reader = FrameReader()
    raw = bytes.fromhex(start)
    for byte in raw[:-1]:
        assert reader.feed(bytes([byte])) == []
    with pytest.raises(FramingError, match=rule):
        reader.feed(raw[-1:])


def test_frames_before_the_bad_byte_are_delivered_and_then_nothing() -> None:
    reader = FrameReader()
    assert reader.feed(ONE + TWO + b"\x00\x00" + ONE) == [ONE[2:], TWO[2:]]
    assert reader.failure is not None
    with pytest.raises(FramingError, match="LEN is 0"):
        reader.feed(ONE)


def test_a_broken_stream_stays_broken() -> None:
    reader = FrameReader()
    with pytest.raises(FramingError):
        reader.feed(b"\x00\x00")
    with pytest.raises(FramingError):
        reader.feed(ONE)


def test_the_longest_frame_passes_and_what_waits_is_bounded() -> None:
    longest = frame(b"\x60" + bytes(2047))
    reader = FrameReader()
    for byte in longest[:-1]:
        reader.feed(bytes([byte]))
        assert reader.pending_bytes < len(longest)
    assert reader.feed(longest[-1:]) == [longest[2:]]


def test_nothing_outside_the_bounds_is_framed() -> None:
    with pytest.raises(ValueError, match="21 to 2048"):
        frame(bytes(20))
    with pytest.raises(ValueError, match="21 to 2048"):
        frame(bytes(2049))
