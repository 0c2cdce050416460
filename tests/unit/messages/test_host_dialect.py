"""The hosts' dialect in both encodings: golden frames, frames cut, poked and garbled, and what can be told of them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from switch.domain.errors import FormatError, FramingError
from switch.messages.dialect import Dialect, HostMessage, UnreadableMessage, decode, encode
from switch.messages.framing import FrameReader, frame
from switch.messages.host_1987 import ANSWER_MTI, ASCII, BCD, DIALECTS, REQUEST_OF
from switch.messages.kinds import Encoding, FieldKind
from switch.messages.spec import FieldSpec, Secret, field_table

VECTORS = Path(__file__).parents[2] / "vectors"


@cache
def golden() -> dict[str, dict[str, Any]]:
    listed = json.loads((VECTORS / "host8583.json").read_text(encoding="utf-8"))["vectors"]
    return {vector["id"]: vector for vector in listed}


def frame_of(name: str) -> bytes:
    return bytes.fromhex(golden()[name]["out"]["frame"])


def dialect_of(vector: dict[str, Any]) -> Dialect:
    return DIALECTS[vector["in"]["dialect"]]


def as_value(dialect: Dialect, number: str, text: str) -> str | bytes:
    return bytes.fromhex(text) if dialect.fields[int(number)].kind.encoding is Encoding.BINARY else text


PURCHASES = ["HOST-ASCII-3DES-PURCHASE-REQ", "HOST-BCD-3DES-PURCHASE-REQ"]
TRACKS = ["HOST-ASCII-3DES-PURCHASE-TRACK-REQ", "HOST-BCD-SM4-PURCHASE-TRACK-REQ"]


@pytest.mark.parametrize("vector", golden().values(), ids=golden())
def test_a_golden_frame_has_its_fields_and_encodes_to_the_same_bytes(vector: dict[str, Any]) -> None:
    dialect, raw = dialect_of(vector), frame_of(vector["id"])
    stated = {int(n): as_value(dialect, n, text) for n, text in vector["in"]["fields"].items()}
    message = decode(dialect, raw[2:])
    assert message.mti == vector["in"]["mti"]
    assert message.fields == stated | {128: message.mac}
    assert message.mab.hex().upper() == vector["out"]["mab"]
    assert frame(encode(dialect, message.mti, stated) + message.mac, dialect.frames) == raw


def test_both_encodings_carry_the_same_messages() -> None:
    for name, vector in golden().items():
        if "-ASCII-" in name:
            twin = golden()[name.replace("-ASCII-", "-BCD-")]
            assert twin["in"]["fields"] == vector["in"]["fields"]
            assert twin["out"]["frame"] != vector["out"]["frame"]


@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
@pytest.mark.parametrize("form", DIALECTS)
def test_frames_come_in_pieces_of_any_size_with_neighbours_behind(form: str, step: int) -> None:
    names = [name for name, vector in golden().items() if vector["in"]["dialect"] == form]
    stream = b"".join(frame_of(name) for name in names)
    reader = FrameReader(DIALECTS[form].frames)
    bodies = [body for at in range(0, len(stream), step) for body in reader.feed(stream[at : at + step])]
    assert [decode(DIALECTS[form], body).mti for body in bodies] == [golden()[n]["in"]["mti"] for n in names]
    assert reader.pending_bytes == 0


@pytest.mark.parametrize("name", PURCHASES + TRACKS)
def test_a_body_cut_anywhere_is_refused_and_tells_no_secret(name: str) -> None:
    dialect, body = dialect_of(golden()[name]), frame_of(name)[2:]
    for size in range(len(body)):
        with pytest.raises((FramingError, UnreadableMessage)) as caught:
            decode(dialect, body[:size])
        assert "6228480123456789006" not in str(caught.value)
        if isinstance(caught.value, UnreadableMessage):
            assert caught.value.readable.fields.keys() <= {7, 11, 32, 70}
            assert caught.value.offset is not None
            assert caught.value.offset <= size


@pytest.mark.parametrize("name", PURCHASES + TRACKS)
def test_bytes_behind_the_mac_are_refused(name: str) -> None:
    dialect, body = dialect_of(golden()[name]), frame_of(name)[2:]
    with pytest.raises(UnreadableMessage, match="left over"):
        decode(dialect, body + b"\0")


def broken(form: str, number: int, value: bytes) -> bytes:
    """A purchase in which one field's bytes are replaced."""
    name = f"HOST-{form.upper()}-3DES-PURCHASE-TRACK-REQ"
    dialect, message = DIALECTS[form], decode(DIALECTS[form], frame_of(name)[2:])
    parts = []
    for one, content in message.fields.items():
        parts.append(value if one == number else dialect.fields[one].encode(content))
    return message.body[: dialect.mti_bytes + 16] + b"".join(parts)


#   encoding, field, bytes                  rule
NEGATIVES = [
    ("ascii", 4, b"00000000123A", "not a decimal digit"),
    ("ascii", 4, b"000000001 34", "not a decimal digit"),
    ("ascii", 2, b"2062284801234567890061", "above the maximum"),
    ("ascii", 2, b"1A6228480123456789006", "length character is not"),
    ("ascii", 2, b"\xb2\xb26228480123456789006", "length character is not"),
    ("ascii", 35, b"05622D=", "not a track digit"),
    ("ascii", 37, b"6329 0A-0017", "neither letter, digit nor space"),
    ("ascii", 41, b"3350\x00001", "not printable"),
    ("bcd", 4, bytes.fromhex("00000000123A"), "not a decimal digit"),
    ("bcd", 2, bytes.fromhex("206228480123456789006100"), "above the maximum"),
    ("bcd", 2, bytes.fromhex("1A62284801234567890060"), "length byte is not BCD"),
    ("bcd", 2, bytes.fromhex("1962284801234567890061"), "pad nibble is not 0"),
    ("bcd", 23, bytes.fromhex("1001"), "pad nibble is not 0"),
    ("bcd", 42, b"33500000000001\xff", "not printable"),
]


@pytest.mark.parametrize(("form", "number", "value", "rule"), NEGATIVES)
def test_a_broken_field_is_named_with_its_rule(form: str, number: int, value: bytes, rule: str) -> None:
    with pytest.raises(UnreadableMessage, match=rule) as caught:
        decode(DIALECTS[form], broken(form, number, value))
    assert caught.value.field == str(number)


@pytest.mark.parametrize("form", DIALECTS)
def test_a_fault_behind_the_key_still_tells_which_message_it_was(form: str) -> None:
    with pytest.raises(UnreadableMessage) as caught:
        decode(DIALECTS[form], broken(form, 42, b"\x00" * 15))
    assert caught.value.readable.mti == "0200"
    assert caught.value.readable.fields == {7: "1125103015", 11: "000017", 32: "49993350"}
    with pytest.raises(UnreadableMessage) as caught:
        decode(DIALECTS[form], broken(form, 2, b"\x99\x99"))
    assert caught.value.readable.fields == {}


@pytest.mark.parametrize("form", DIALECTS)
@pytest.mark.parametrize("number", [1, 5, 64, 65, 127])
def test_a_field_that_is_not_of_the_dialect_is_refused(form: str, number: int) -> None:
    dialect, body = DIALECTS[form], bytearray(frame_of(f"HOST-{form.upper()}-3DES-ECHO-REQ")[2:])
    place = dialect.mti_bytes + (number - 1) // 8
    body[place] ^= 0x80 >> (number - 1) % 8
    with pytest.raises((UnreadableMessage, FramingError)):
        decode(dialect, bytes(body))
    with pytest.raises(ValueError, match="not a field"):
        encode(dialect, "0800", {number: "1"})


@pytest.mark.parametrize("form", DIALECTS)
@pytest.mark.parametrize("mti", ["0000", "0201", "0300", "0500", "0830", "1200"])
def test_an_unknown_message_type_is_not_answered(form: str, mti: str) -> None:
    dialect, body = DIALECTS[form], frame_of(f"HOST-{form.upper()}-3DES-ECHO-REQ")[2:]
    wire = mti.encode() if form == "ascii" else bytes.fromhex(mti)
    with pytest.raises(FramingError):
        decode(dialect, wire + body[dialect.mti_bytes :])
    with pytest.raises(ValueError, match="message type"):
        encode(dialect, mti, {7: "1125103015"})


#   encoding, stream                         why
LOST = [
    ("ascii", b"\x00\x00", "LEN is 0"),
    ("ascii", b"\xff\xff0", "above"),
    ("ascii", b"\x00\x0b0", "below 12"),
    ("ascii", b"\x00\x40\x02", "begins no message type"),
    ("bcd", b"\x00\x09\x02", "below 10"),
    ("bcd", b"\x00\x40\x60", "begins no message type"),
    ("bcd", b"\x00\x400", "begins no message type"),
]


@pytest.mark.parametrize(("form", "stream", "why"), LOST)
def test_a_stream_that_lost_its_place_is_closed(form: str, stream: bytes, why: str) -> None:
    with pytest.raises(FramingError, match=why):
        FrameReader(DIALECTS[form].frames).feed(stream)


@pytest.mark.parametrize("form", DIALECTS)
def test_what_does_not_fit_is_not_encoded_and_not_repeated(form: str) -> None:
    dialect = DIALECTS[form]
    for number, spec in dialect.fields.items():
        if number == dialect.mac:
            continue
        binary = spec.kind.encoding is Encoding.BINARY
        too_long: str | bytes = bytes(spec.size + 1) if binary else "7" * (spec.size + 1)
        wrong_type: str | bytes = "7" * spec.size if binary else b"7" * spec.size
        for value in (too_long, wrong_type):
            with pytest.raises(ValueError, match=f"field {number}") as caught:
                encode(dialect, "0200", {number: value})
            assert "777" not in str(caught.value)
    with pytest.raises(ValueError, match="the MAC"):
        encode(dialect, "0200", {128: bytes(8)})


def test_a_message_shows_no_secret() -> None:
    for name, vector in golden().items():
        shown = repr(decode(dialect_of(vector), frame_of(name)[2:]))
        for number in ("2", "35", "52", "55", "62"):
            assert (
                number not in vector["in"]["fields"]
                or vector["in"]["fields"][number].upper() not in shown.upper()
            )


def test_a_made_message_has_no_bytes_to_authenticate() -> None:
    with pytest.raises(AssertionError):
        _ = HostMessage(BCD, "0200", {}).mab


def test_every_request_has_its_answer_and_the_two_tables_are_one() -> None:
    assert {REQUEST_OF[answer]: answer for answer in REQUEST_OF} == dict(ANSWER_MTI)
    assert ASCII.fields.keys() == BCD.fields.keys()
    for number, spec in ASCII.fields.items():
        other = BCD.fields[number]
        assert (spec.name, spec.size, spec.secret, spec.fixed) == (
            other.name,
            other.size,
            other.secret,
            other.fixed,
        )
        assert spec.kind.label in (other.kind.label, other.kind.label.replace("nr", "n"))


def test_a_table_checks_itself() -> None:
    for number in (65, 129):
        with pytest.raises(AssertionError, match="announce bitmaps"):
            field_table(FieldSpec(number, "x", "x", FieldKind(Encoding.BINARY), 8, Secret.NO), last=128)
    with pytest.raises(AssertionError):
        field_table(FieldSpec(2, "x", "x", FieldKind(Encoding.DIGITS, 2, ascii_prefix=True), 100))


def test_an_unreadable_message_is_the_peers_fault() -> None:
    assert issubclass(UnreadableMessage, FormatError)
