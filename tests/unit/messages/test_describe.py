import json
import re

import pytest
from typer.testing import CliRunner

from switch.messages.describe import Piece, describe, split_frames
from switch.messages.explain import HIDDEN_BYTE
from switch.messages.terminal_1987 import MTI_AT
from switch.operations.commands.iso8583 import app, plain_lines
from tests.helpers.frames import changed, frame_of, golden, message_of, negative

CARDS = ("3133500100000001239", "3133500100000045673", "3133500100000890128", "622848012345678900")
RUNNER = CliRunner()


def text_of(raw: bytes, *, with_len: bool = True) -> str:
    found = describe(Piece(raw, with_len=with_len))
    return "\n".join(plain_lines(1, found)) + json.dumps(found.as_json(), ensure_ascii=False)


def secrets_of(name: str) -> list[str]:
    """Digits and hexadecimal that must not be seen of a golden frame."""
    fields = golden()[name]["fields"]
    found = [*CARDS, *(card[5:-3] for card in CARDS)]
    found += [fields[number] for number in ("35", "36", "52") if number in fields]
    found += re.findall("DF5110(.{32})", fields.get("55", ""))
    if "SIGNON-RSP" in name:
        found += [fields["62"][:32], fields["62"][40:72]]
    return found


@pytest.mark.parametrize("name", golden())
def test_every_golden_frame_is_explained_and_shows_no_secret(name: str) -> None:
    shown = text_of(frame_of(name))
    assert "well formed" in shown
    assert "ERROR" not in shown
    squeezed = shown.replace(" ", "")
    for secret in secrets_of(name):
        assert secret not in squeezed
    for number in message_of(name).fields:
        assert re.search(rf" F{number} ", shown)


@pytest.mark.parametrize("name", negative())
def test_every_malformed_frame_is_named_so_and_shows_no_secret(name: str) -> None:
    raw = bytes.fromhex(negative()[name]["in"]["bytes"])
    found = describe(Piece(raw, with_len=True))
    assert found.malformed
    assert "^^" in "\n".join(plain_lines(1, found))
    squeezed = text_of(raw).replace(" ", "")
    for secret in ("3133500100000001239", "00100000001", "B0C1D9AF0CB2D26E"):
        assert secret not in squeezed


@pytest.mark.parametrize("name", ["ISO-04-PURCHASE-REQ", "ISO-05-REVERSAL-REQ"])
def test_a_frame_without_its_head_shows_no_card_number(name: str) -> None:
    """What a MAC is made over is what people paste when MACs differ."""
    raw = frame_of(name)
    mab, card = raw[2 + MTI_AT : -8], message_of(name).fields[2]
    for pasted, with_len in (
        (mab, False),
        (len(mab).to_bytes(2, "big") + mab, True),
        ((len(raw) - 8).to_bytes(2, "big") + raw[2:7] + raw[2 + MTI_AT :], True),
    ):
        squeezed = text_of(pasted, with_len=with_len).replace(" ", "")
        assert card[6:-4] not in squeezed
        assert card[:10] not in squeezed


#    bytes poked into the purchase request with its LEN: byte, value, field, rule
POKED = [
    (37 + 1, 0xA0, "4", "nibble is not a decimal digit"),
    (23, 0x1A, "2", "length byte is not BCD"),
    (23, 0x25, "2", "length is above the maximum of 19"),
    (13, 0x09, "MTI", "unknown message type"),
    (2, 0x61, "TPDU", "first byte is not 60"),
    (9, 0x20, "header", "terminal state"),
    (15, 0xF0, "bitmap", "bit 1 is set"),
]


@pytest.mark.parametrize(("at", "value", "field", "rule"), POKED)
def test_the_offending_byte_is_named(at: int, value: int, field: str, rule: str) -> None:
    raw = bytearray(frame_of("ISO-04-PURCHASE-REQ"))
    raw[at] = value
    found = describe(Piece(bytes(raw), with_len=True))
    assert (found.faults[0].field, found.faults[0].offset) == (field, at)
    assert rule in found.faults[0].rule
    lines = plain_lines(1, found)
    caret = next(place for place, line in enumerate(lines) if "^^" in line)
    assert lines[caret - 1][lines[caret].index("^^") :][:2] in (f"{value:02X}", HIDDEN_BYTE)


@pytest.mark.parametrize("at", range(2, len(frame_of("ISO-11-NDLOAD-REQ"))))
def test_no_poked_byte_brings_a_card_number_or_a_pin_block_to_light(at: int) -> None:
    raw = bytearray(frame_of("ISO-11-NDLOAD-REQ"))
    for value in (0x00, 0xFF, raw[at] ^ 0x01, raw[at] ^ 0x40):
        poked = bytes(raw[:at]) + bytes([value]) + bytes(raw[at + 1 :])
        squeezed = text_of(poked).replace(" ", "").upper()
        for secret in ("6228480123456789", "801234567", "EEBD322929B3DA24", "350010000089"):
            assert secret not in squeezed


def test_a_missing_field_points_at_the_bitmap() -> None:
    found = describe(Piece(changed("ISO-04-PURCHASE-REQ", {25: None}).body, with_len=False))
    assert found.faults == (("25", "mandatory field is missing", 13 + 3),)


def test_a_broken_sub_structure_points_into_its_field() -> None:
    raw = message_of("ISO-09-LOAD-REQ").fields[55]
    found = describe(Piece(changed("ISO-09-LOAD-REQ", {55: raw + b"\xdf\x19\x01\x02"}).body, with_len=False))
    (fault,) = found.faults
    assert (fault.field, fault.rule) == ("DF19", "tag comes twice")
    line = next(line for line in found.lines if line.field == "55")
    assert fault.offset == line.offset + 2 + len(raw)


def test_a_request_that_will_be_refused_is_well_formed_and_says_so() -> None:
    found = describe(Piece(frame_of("ISO-21-CASH-REQ"), with_len=True))
    assert not found.malformed
    assert found.refusal == "57: cash withdrawal is forbidden"


def test_unknown_tags_and_card_numbers_in_text_are_hidden() -> None:
    track = bytes.fromhex("5713622848012345678900D30121200000")
    raw = changed(
        "ISO-18-BADMAC-REQ", {55: track[:2] + track[2:].ljust(0x13, b"\0"), 63: "ref 622848012345678900"}
    ).body
    squeezed = text_of(raw, with_len=False).replace(" ", "")
    assert "6228480123456789" not in squeezed
    assert "801234567" not in squeezed


def test_a_hot_list_and_details_mask_their_cards() -> None:
    one = "01" + "000005" + "0" + CARDS[0] + "000000001403"
    raw = changed("ISO-15-BATCHEND-REQ", {60: "00000002201", 48: "01" + one}).body
    shown = text_of(raw, with_len=False)
    assert "313350*********1239" in shown
    assert CARDS[0][5:-3] not in shown.replace(" ", "")


def test_frames_are_split_however_they_are_pasted() -> None:
    one, two = frame_of("ISO-02-ECHO-REQ"), frame_of("ISO-22-SIGNOFF-REQ")
    both = [Piece(one, with_len=True), Piece(two, with_len=True)]
    assert split_frames((one + two).hex()) == both
    assert split_frames(" ".join(f"{byte:02x}" for byte in one + two)) == both
    assert split_frames(f"{one.hex()}\n{two.hex()}\n") == both
    assert split_frames(f"0x{one.hex()}\r\n\r\n0x{two.hex()}") == both
    assert split_frames(f"{one[2:].hex()}\n{two[2:].hex()}") == [
        Piece(one[2:], with_len=False),
        Piece(two[2:], with_len=False),
    ]
    wrapped = "\n".join(one.hex()[at : at + 32] for at in range(0, len(one.hex()), 32))
    assert split_frames(wrapped) == [Piece(one, with_len=True)]


@pytest.mark.parametrize("text", ["", "  \n ", "xyz", "123"])
def test_what_is_not_hexadecimal_is_a_usage_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"hexadecimal|no frame"):
        split_frames(text)
    assert RUNNER.invoke(app, ["describe"], input=text).exit_code == 2


def test_too_many_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="1000"):
        split_frames((frame_of("ISO-02-ECHO-REQ") * 1001).hex())


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\x00\x05", b"\x60", b"\x60" * 40, bytes(30), b"\xff" * 3000])
def test_whatever_the_bytes_something_is_said(raw: bytes) -> None:
    for with_len in (True, False):
        assert describe(Piece(raw, with_len=with_len)).malformed


def test_the_command_reads_arguments_and_standard_input_and_tells_by_its_exit_status() -> None:
    good = frame_of("ISO-04-PURCHASE-REQ").hex()
    bad = negative()["NEG-F4-NONBCD"]["in"]["bytes"]
    found = RUNNER.invoke(app, ["describe", good, frame_of("ISO-02-ECHO-REQ").hex()])
    assert found.exit_code == 0
    assert "Frame 2: 0820" in found.output
    assert "消費" in found.output
    assert RUNNER.invoke(app, ["describe"], input=good).exit_code == 0
    found = RUNNER.invoke(app, ["describe", bad])
    assert found.exit_code == 1
    assert "ERROR at byte 37: field 4: nibble is not a decimal digit" in found.output


def test_the_command_prints_json() -> None:
    found = RUNNER.invoke(app, ["describe", "--json", frame_of("ISO-04-PURCHASE-REQ").hex()])
    (one,) = json.loads(found.output)
    assert one["mti"] == "0200"
    assert not one["malformed"]
    assert {field["field"]: field["value"] for field in one["fields"]}["2"] == "313350*********1239"
