"""The record's layout, and which rule of form a bad one breaks."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switch.domain.errors import FormatError
from switch.purse.record import LAYOUT, RECORD_BYTES, crc16, day_us, happened_us, read_record
from switch.purse.verify import Candidate

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "offline.json").read_text())["vectors"]
GOOD = bytes.fromhex(VECTORS[0]["in"]["record"])
RECORDS = [bytes.fromhex(one["in"]["record"]) for one in VECTORS if "record" in one["in"]]


def changed(at: int, value: bytes) -> bytes:
    """The good record with other bytes at an offset (from 0), and a right CRC."""
    head = (GOOD[:at] + value + GOOD[at + len(value) :])[:94]
    return head + crc16(head).to_bytes(2)


def test_every_field_lies_where_the_layout_says() -> None:
    record = read_record(GOOD)
    for field, value in zip(LAYOUT, record, strict=True):
        raw = GOOD[field.offset - 1 : field.offset - 1 + field.length]
        assert value == (raw if isinstance(value, bytes) else int.from_bytes(raw)), field.name


def test_a_record_shows_no_card_number() -> None:
    record = read_record(GOOD)
    digits = record.asn.hex()[1:]
    for text in (repr(record), repr(Candidate(GOOD))):
        assert digits not in text
        assert digits[-4:] in text


@pytest.mark.parametrize(
    ("at", "value", "offset"),
    [
        (0, b"\x02", 0),
        (1, b"\x03", 1),
        (2, b"\x05", 2),
        (3, b"\x01", 3),
        (6, b"\x0a", 6),
        (6, b"\x13", 6),
        (15, b"\xff", 6),
        (24, b"\xaa", 24),
        (38, b"\x20\x24\x13\x01", 38),
        (38, b"\x20\x23\x02\x29", 38),
        (38, b"\x00\x00\x00\x00", 38),
        (42, b"\x24", 42),
        (43, b"\x60", 42),
        (44, b"\x60", 42),
        (45, b"\xa0", 45),
        (63, b"\x9a", 63),
        (67, b"\x00", 67),
        (71, b"\x0a", 71),
        (77, b"\x04", 77),
        (1, b"\x02", 30),  # a lock record with the amount of a purchase
    ],
)
def test_each_rule_of_form_is_named_with_its_byte(at: int, value: bytes, offset: int) -> None:
    with pytest.raises(FormatError) as caught:
        read_record(changed(at, value))
    assert caught.value.offset == offset


def test_a_wrong_crc_is_found_at_every_byte() -> None:
    for at in range(RECORD_BYTES):
        broken = bytearray(GOOD)
        broken[at] ^= 0x10
        with pytest.raises(FormatError, match="CRC"):
            read_record(bytes(broken))


@pytest.mark.parametrize("length", [0, 1, 95, 97, 192])
def test_any_other_length_is_refused(length: int) -> None:
    with pytest.raises(FormatError, match="96 bytes"):
        read_record(bytes(length))


def test_the_instant_is_that_of_the_record() -> None:
    assert happened_us(GOOD, GOOD.hex()) == day_us("20240315") + (8 * 3600 + 15 * 60 + 30) * 1_000_000  # type: ignore[operator]  # that day exists


@given(st.binary(max_size=200))
def test_noise_is_a_format_error_and_nothing_else(noise: bytes) -> None:
    with pytest.raises(FormatError):
        read_record(noise)
    assert not Candidate(noise).readable


@given(st.sampled_from(RECORDS), st.integers(0, 93), st.binary(min_size=1, max_size=6))
def test_changed_records_with_a_right_crc_are_read_or_named(record: bytes, at: int, value: bytes) -> None:
    head = (record[:at] + value + record[at + len(value) :])[:94]
    raw = head + crc16(head).to_bytes(2)
    candidate = Candidate(raw)
    if candidate.readable:
        assert candidate.record == read_record(raw)
    else:
        assert candidate.why_unreadable()
