"""Parameter lists in field 62: blocks, their order, and what is refused."""

from datetime import UTC, datetime

import pytest

from switch.domain.decisions import Outcome
from switch.domain.errors import FormatError
from switch.messages.answers import Processing, build_answer
from switch.messages.framing import frame
from switch.messages.parameters import pack_parameters, parameter_text, read_parameter_block
from tests.helpers.frames import frame_of, golden, message_of

GOLDEN = (("12", "60"), ("13", "3"), ("26", "00200000"), ("27", "230000"))


def test_the_golden_answer_is_made_byte_for_byte() -> None:
    (block,) = pack_parameters(GOLDEN)
    decided_at = datetime(2024, 3, 15, 0, 15, 30, tzinfo=UTC)
    outcome = Outcome("00", "407508000020", decided_at, field62=block)
    prefix, mab = build_answer(
        message_of("ISO-17-PARAM-REQ"),
        outcome,
        acquirer="49993350",
        processing=Processing.FETCH_HOT_LIST,
    )
    mac = bytes.fromhex(golden()["ISO-17-PARAM-RSP"]["field64"])
    assert frame(prefix + mab + mac) == frame_of("ISO-17-PARAM-RSP")


@pytest.mark.parametrize("bytes_max", [*range(10, 26), 511])
def test_blocks_of_any_size_hold_every_value_whole_and_in_order(bytes_max: int) -> None:
    blocks = [read_parameter_block(raw) for raw in pack_parameters(GOLDEN, bytes_max=bytes_max)]
    assert tuple(value for block in blocks for value in block.values) == GOLDEN
    assert [block.more for block in blocks] == [True] * (len(blocks) - 1) + [False]
    assert all(sum(len(tag + value) for tag, value in block.values) <= bytes_max for block in blocks)


def test_nothing_to_say_is_one_empty_last_block() -> None:
    assert pack_parameters(()) == [b"0"]
    assert read_parameter_block(b"0") == (False, ())


@pytest.mark.parametrize("values", [[("31", "00000001")], [("12", "6")], [("12", "060")]])
def test_a_status_or_a_value_of_another_length_is_not_sent(values: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="parameter"):
        pack_parameters(values)


@pytest.mark.parametrize("value", [-1, 100])
def test_a_number_that_does_not_fit_is_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="2 digits"):
        parameter_text("12", value)


@pytest.mark.parametrize(
    "raw", [b"", b"2", b"1260", b"0126", b"01260126", b"0126012" + b"60", b"03100000001", b"01\xb2"]
)
def test_a_block_that_cannot_be_read_is_a_format_error(raw: bytes) -> None:
    with pytest.raises(FormatError):
        read_parameter_block(raw)
