from typing import Any

import pytest

from switch.domain.errors import FormatError, FramingError
from switch.messages.codec import MessageFormatError, UnsupportedMti, decode, encode
from switch.messages.examine import examine
from switch.messages.framing import FrameReader, frame
from switch.messages.kinds import Encoding
from switch.messages.message import Message
from switch.messages.terminal_1987 import FIELDS
from tests.helpers.frames import changed, frame_of, golden, message_of, negative

PURCHASE = frame_of("ISO-04-PURCHASE-REQ")[2:]
ECHO = frame_of("ISO-02-ECHO-REQ")


def as_vector(value: str | bytes) -> str:
    return value.hex().upper() if isinstance(value, bytes) else value


@pytest.mark.parametrize("vector", golden().values(), ids=golden())
def test_a_golden_frame_has_its_fields_and_encodes_to_the_same_bytes(vector: dict[str, Any]) -> None:
    message = message_of(vector["id"])
    assert message.mti == vector["mti"]
    assert message.tpdu.hex().upper() == vector["tpdu"]
    assert message.header.hex().upper() == vector["header"]
    shown = {str(number): as_vector(value) for number, value in message.fields.items() if number != 64}
    assert shown == vector["fields"]
    assert message.field64.hex().upper() == (vector["field64"] or "")
    if vector["mab"]:
        assert message.mab.hex().upper() == vector["mab"]
    assert frame(encode(message)).hex().upper() == vector["frame"]


@pytest.mark.parametrize("name", golden())
def test_the_quick_reading_and_the_careful_one_agree(name: str) -> None:
    found = examine(frame_of(name)[2:])
    assert found.faults == ()
    assert found.message == message_of(name)


def refusal_of(raw: bytes, *, step: int) -> str:
    """What a vector file calls the way in which these bytes are refused."""
    reader = FrameReader()
    try:
        for at in range(0, len(raw), step):
            for body in reader.feed(raw[at : at + step]):
                decode(body)
    except UnsupportedMti:
        return "unsupported_mti"
    except (FormatError, FramingError):
        return "format"
    return "incomplete" if reader.pending_bytes else ""


@pytest.mark.parametrize("vector", negative().values(), ids=negative())
def test_a_malformed_frame_is_refused_as_stated(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["in"]["bytes"])
    expected = vector["out"]["error"]
    assert refusal_of(raw, step=len(raw)) == expected
    assert refusal_of(raw, step=1) == expected
    if expected != "incomplete":  # else the neighbour is what it waits for
        assert refusal_of(raw + ECHO, step=len(raw) + len(ECHO)) == expected


def test_a_frame_that_was_incomplete_eats_its_neighbour_and_no_more() -> None:
    raw = bytes.fromhex(negative()["NEG-LEN-LONG"]["in"]["bytes"])
    reader = FrameReader()
    assert reader.feed(raw) == []
    bodies = reader.feed(bytes(5) + ECHO)
    assert bodies[1:] == [ECHO[2:]]
    with pytest.raises(FormatError, match="left over"):
        decode(bodies[0])


#     vector           field     rule                             byte
NEGATIVES = [
    ("NEG-BITMAP1", "bitmap", "bit 1 is set", 13),
    ("NEG-F2-LEN", "2", "length is above the maximum", 21),
    ("NEG-F4-NONBCD", "4", "nibble is not a decimal digit", 35),
    ("NEG-TRAILING", "", "bytes left over", 109),
    ("NEG-TRUNC", "64", "data ends inside the field", 106),
]


@pytest.mark.parametrize(("name", "field", "rule", "offset"), NEGATIVES)
def test_a_format_error_names_field_rule_and_byte_and_carries_what_an_answer_echoes(
    name: str, field: str, rule: str, offset: int
) -> None:
    with pytest.raises(MessageFormatError, match=rule) as caught:
        decode(bytes.fromhex(negative()[name]["in"]["bytes"])[2:])
    error = caught.value
    assert (error.field, error.offset) == (field, offset)
    assert error.readable.mti == "0200"
    assert list(error.readable.fields) == [3, 11, 41, 42, 60]
    assert error.readable.fields[11] == "000005"
    assert error.readable.tpdu == PURCHASE[:5]


def poke(at: int, value: int) -> bytes:
    raw = bytearray(PURCHASE)
    raw[at] = value
    return bytes(raw)


#     byte, value            why it is refused
BROKEN = [
    (44, 0x0A, "44: field 22"),
    (45, 0x01, "pad nibble"),
    (45, 0x1A, "pad nibble|decimal"),
    (46, 0x10, "pad nibble is not 0"),
    (73, 0x80, "field 49"),
    (73, 0x2E, "field 49"),
    (84, 0x2A, "field 53"),
    (92, 0x99, "field 60: length is above"),
    (100, 0x05, "field 60: pad nibble"),
]


@pytest.mark.parametrize(("at", "value", "_why"), BROKEN)
def test_a_poked_byte_is_refused(at: int, value: int, _why: str) -> None:
    with pytest.raises(MessageFormatError):
        decode(poke(at, value))


@pytest.mark.parametrize("at", [5, 6, 7, 8, 9, 10])
def test_a_header_nibble_above_nine_is_a_format_error_that_can_be_answered(at: int) -> None:
    with pytest.raises(MessageFormatError) as caught:
        decode(poke(at, 0x0A))
    assert caught.value.field == "header"
    assert caught.value.offset == at


def test_a_terminal_state_of_two_is_a_format_error() -> None:
    with pytest.raises(MessageFormatError, match="terminal state"):
        decode(poke(7, 0x20))


@pytest.mark.parametrize("gone", [11, 41])
def test_without_trace_or_terminal_there_is_nobody_to_answer(gone: int) -> None:
    with pytest.raises(FramingError, match="field 11 or 41"):
        changed("ISO-04-PURCHASE-REQ", {gone: None})


def test_only_an_echo_may_lack_its_trace() -> None:
    assert 11 not in message_of("ISO-02-ECHO-REQ").fields
    with pytest.raises(FramingError):
        changed("ISO-02-ECHO-REQ", {}, mti="0800")


def test_unprintable_terminal_number_is_not_a_terminal() -> None:
    with pytest.raises(FramingError):
        decode(poke(52, 0x07))


@pytest.mark.parametrize("mti", ["0000", "0201", "0300", "0999", "1200", "0A00"])
def test_an_unknown_message_type_closes(mti: str) -> None:
    with pytest.raises(UnsupportedMti):
        decode(PURCHASE[:11] + bytes.fromhex(mti) + PURCHASE[13:])


def test_field_58_is_not_of_this_dialect() -> None:
    raw = bytearray(frame_of("ISO-22-SIGNOFF-REQ")[2:])
    raw[13 + 7] |= 1 << (64 - 58)
    with pytest.raises(MessageFormatError, match="not a field of this dialect") as caught:
        decode(bytes(raw))
    assert caught.value.field == "58"


@pytest.mark.parametrize("size", range(21))
def test_a_body_without_room_for_fields_is_not_answered(size: int) -> None:
    with pytest.raises(FramingError):
        decode(PURCHASE[:size])


@pytest.mark.parametrize("size", range(21, len(PURCHASE)))
def test_a_body_cut_anywhere_is_refused(size: int) -> None:
    with pytest.raises((FramingError, MessageFormatError)):
        decode(PURCHASE[:size])


@pytest.mark.parametrize("number", [2, 11, 23, 37, 49, 52, 60, 62])
def test_what_does_not_fit_its_field_is_not_encoded(number: int) -> None:
    spec = FIELDS[number]
    message = message_of("ISO-04-PURCHASE-REQ")
    bytes_wanted = spec.kind.encoding is Encoding.BINARY
    too_long: str | bytes = bytes(spec.size + 1) if bytes_wanted else "1" * (spec.size + 1)
    wrong_type: str | bytes = "1" * spec.size if bytes_wanted else b"1" * spec.size
    for value in (too_long, wrong_type, "\u0663" * spec.size):
        with pytest.raises(ValueError, match=f"field {number}") as caught:
            encode(message._replace(fields=message.fields | {number: value}))
        assert "1111" not in str(caught.value)
    with pytest.raises(ValueError, match="not a field"):
        encode(message._replace(fields={58: "1"}))


def test_tracks_may_hold_any_nibble_and_the_separator_is_d() -> None:
    track = "622848012345678900=30121200ABCEF"
    message = changed("ISO-11-NDLOAD-REQ", {35: track, 36: track + "9" * 71})
    assert message.fields[35] == track
    assert b"\x62\x28\x48\x01\x23\x45\x67\x89\x00\xd3" in message.body


def test_field_63_takes_chinese_text() -> None:
    message = changed("ISO-01-SIGNON-REQ", {63: "01 市民卡"})
    assert message.fields[63] == "01 市民卡"
    assert "市民卡".encode("gb18030") in message.body
    with pytest.raises(MessageFormatError, match="GB18030"):
        decode(message.body[:-1] + b"\xff")


def test_a_message_shows_no_secret() -> None:
    for name, vector in golden().items():
        shown = repr(message_of(name))
        for number in ("2", "35", "36", "52"):
            assert number not in vector["fields"] or vector["fields"][number] not in shown
    assert "313350*********1239" in repr(message_of("ISO-04-PURCHASE-REQ"))
    assert "622848012345678900" not in repr(message_of("ISO-11-NDLOAD-REQ"))


def test_a_made_message_has_no_bytes_to_authenticate() -> None:
    with pytest.raises(AssertionError):
        _ = Message(bytes(5), bytes(6), "0200", {}).mab
