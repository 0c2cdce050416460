import pytest

from switch.domain.errors import FormatError
from switch.messages.tlv import read_tlvs, tlv_values, without_pin_block, write_tlvs


def test_tags_of_one_and_two_bytes_are_taken_in_order() -> None:
    raw = bytes.fromhex("950500000000009F2601AADF190102")
    assert [(item.tag, item.start, item.value_at) for item in read_tlvs(raw)] == [
        ("95", 0, 2),
        ("9F26", 7, 10),
        ("DF19", 11, 14),
    ]
    assert write_tlvs(tlv_values(raw)) == raw
    assert read_tlvs(b"") == []


@pytest.mark.parametrize(
    ("raw", "field", "offset"),
    [
        ("DF", "55", 1),
        ("DF99", "55", 1),
        ("DF19", "55", 2),
        ("DF1981", "55", 2),
        ("DF1902", "DF19", 2),
        ("DF2104202403", "55", 6),
        ("DF21042024031A", "DF21", 3),
        ("DF190102DF190102", "DF19", 4),
        ("9501AA9501BB", "55", 3),
        ("DF9F01", "55", 1),
    ],
)
def test_what_is_not_a_run_of_objects_is_refused_with_its_byte(raw: str, field: str, offset: int) -> None:
    with pytest.raises(FormatError) as caught:
        read_tlvs(bytes.fromhex(raw))
    assert (caught.value.field, caught.value.offset) == (field, offset)


def test_a_pin_block_is_taken_out_wherever_it_stands() -> None:
    block = b"\xdf\x51\x10" + bytes(16)
    other = b"\xdf\x19\x01\x02"
    assert without_pin_block(block) == b""
    assert without_pin_block(other + block) == other
    assert without_pin_block(block + other) == other
    assert without_pin_block(other) == other
    assert without_pin_block(b"\xff" + block + b"\xff") == b"\xff\xff"


def test_a_pin_block_look_alike_inside_another_value_stays() -> None:
    inside = b"\x95\x14" + b"\xdf\x51\x10" + bytes(17)
    assert without_pin_block(inside) == inside


def test_a_value_above_127_bytes_is_not_written() -> None:
    with pytest.raises(ValueError, match="127"):
        write_tlvs({"DF19": bytes(128)})
