"""Lines of a partner's file as columns: the same values and the same faults as line by line."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switch.clearing.files import FileRefused
from switch.clearing.layouts import LAYOUTS, read_line
from switch.clearing.reconcile import blocks
from switch.clearing.reconcile.blocks import LINE_BYTES, read_block
from terminal_sim.host.day_file import Item, item_line
from tests.helpers.reconciling import BANK, Leg

DAY = date(2024, 3, 15)
GOOD = Leg(7, 1_234).item(DAY)
OFFLINE = GOOD._replace(mti="0320", pan="9999999999999999999", offline="00FF0000000A")


def packed(*items: Item) -> bytes:
    return b"".join(item_line(item, BANK).encode() + b"\r\n" for item in items)


def columns(*items: Item) -> list[dict[str, object]]:
    raw = np.frombuffer(read_block(packed(*items), 1).copy, blocks._ROW)
    return [{name: row[name].item() for name in blocks.COLUMNS} for row in raw]


def test_a_block_has_the_values_that_its_lines_have() -> None:
    items = [
        GOOD,
        GOOD._replace(code="202000", amount_fen=999_999_999_999, pan="6228480000000"),
        GOOD._replace(mti="0400", original=("0229235959", 999_999)),
        GOOD._replace(mti="0420", code="202000", original=("0101000000", 1)),
        GOOD._replace(response="51"),
        OFFLINE,
    ]
    values = [read_line(LAYOUTS["CM"], item_line(item, BANK)) for item in items]
    found = columns(*items)
    assert [row["amount_fen"] for row in found] == [line["amount"] for line in values]
    assert [row["effect_fen"] for row in found] == [1_234, -999_999_999_999, -1_234, 1_234, 0, 1_234]
    assert [row["pan"].decode().rstrip() for row in found] == [line["pan"] for line in values]  # type: ignore[attr-defined]
    assert {row["rrn"] for row in found} == {GOOD.rrn.encode()}
    message = int(GOOD.sent) * 1_000_000 + GOOD.trace
    keys = [(row["k1"], row["k2"]) for row in found]
    assert keys[:2] == [(message, 0)] * 2
    assert keys[2:4] == [(229_235_959_999_999, 0), (101_000_000_000_001, 0)]
    assert keys[4] == (message, 0)
    assert keys[5] == (9_999_999_999_999_999_999 - 2**64, 2**48 + (0xFF << 32) + 10)
    assert [row["line_no"] for row in found] == [1, 2, 3, 4, 5, 6]


def test_short_card_numbers_of_offline_records_are_numbers() -> None:
    (row,) = columns(OFFLINE._replace(pan="6228480000000"))
    assert row["k1"] == 6_228_480_000_000


@pytest.mark.parametrize(
    ("place", "byte", "fault"),
    [
        (0, b"X", "line 3, column 1: a detail line starts with D"),
        (12, b"x", "line 3, column 13: characters 13 to 13 must be spaces"),
        (25, b"a", "line 3, column 26: trace: digits only"),
        (43, b"x", "line 3, column 44: pan: 13 to 19 digits, blanks behind"),
        (55, b" ", "line 3, column 44: pan: 13 to 19 digits, blanks behind"),
        (102, b"1", "line 3, column 103: mti: one of 0200, 0220, 0320, 0400, 0420"),
        (145, b"-", "line 3, column 145: rrn: letters and digits"),
        (135, b"\x07", "line 3, column 136: printable ASCII only"),
        (150, b"\xce", "line 3, column 151: ASCII only"),
        (200, b"\xff", "line 3, column 201: ASCII only"),
        (300, b"\n", "line 3, column 301: detail line has the wrong length"),
    ],
)
def test_a_byte_that_may_not_stand_there_is_named_by_line_and_column(
    place: int, byte: bytes, fault: str
) -> None:
    block = bytearray(packed(GOOD, GOOD, GOOD))
    block[LINE_BYTES + place : LINE_BYTES + place + 1] = byte
    with pytest.raises(FileRefused) as refused:
        read_block(bytes(block), 1)
    assert str(refused.value) == fault


def test_what_an_offline_record_is_known_by_must_be_hex() -> None:
    with pytest.raises(FileRefused, match="line 6, column 287: other: ATC and PSAM serial"):
        read_block(packed(OFFLINE._replace(offline="00ff0000000a")), 5)


@given(st.data())
@settings(max_examples=25)
def test_noise_is_refused_with_a_place_or_read_as_line_by_line(data: st.DataObject) -> None:
    block = bytearray(packed(GOOD, OFFLINE, GOOD))
    for _ in range(data.draw(st.integers(1, 3))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    raw = bytes(block)[: data.draw(st.one_of(st.just(len(block)), st.integers(1, len(block))))]
    lines = [raw[at : at + LINE_BYTES] for at in range(0, len(raw), LINE_BYTES)]
    if any(map(blocks._fault_of, lines)):
        with pytest.raises(FileRefused) as refused:
            read_block(raw, 1)
        assert (refused.value.line is None, refused.value.column is None) == (False, False)
    else:
        values = [read_line(LAYOUTS["CM"], line[:-2].decode()) for line in lines]
        assert read_block(raw, 1).total_fen == sum(int(line["amount"]) for line in values)
