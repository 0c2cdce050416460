"""Received files: whatever comes, only FileRefused escapes, and no changed byte passes."""

import io
from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switch.clearing.files import FileName, FileRefused, Head, check_file, parse_name, render
from switch.clearing.layouts import LAYOUTS, share_of_total, write_line
from switch.domain.calendar import SHANGHAI

NAME = FileName("MR", "99990000", "00000001", date(2024, 3, 15))
VALUES = [
    {
        "line_no": n, "merchant": "993350054110001", "terminal": "33500001", "batch_no": 1, "trace": n, "rrn": "407508000004",
        "account_kind": 10, "card": "313350*********1239", "amount": 100 * n, "fee": -n, "net": 99 * n, "date": 20240315,
        "time": 81530, "clearing_date": 20240315, "response": "00",
    }
    for n in (1, 2, 3)
]  # fmt: skip
TOTAL = sum(share_of_total(LAYOUTS["MR"], values) for values in VALUES)
FILE = render(
    Head(NAME, datetime(2024, 3, 15, 23, 30, tzinfo=SHANGHAI), 3, TOTAL),
    (write_line(LAYOUTS["MR"], values) for values in VALUES),
)


def test_the_sample_is_a_good_file() -> None:
    assert check_file(str(NAME), io.BytesIO(FILE)).head.line_count == 3


@settings(max_examples=300)
@given(at=st.integers(0, len(FILE) - 1), byte=st.integers(0, 255))
def test_no_changed_byte_passes(at: int, byte: int) -> None:
    changed = FILE[:at] + bytes([byte]) + FILE[at + 1 :]
    if changed != FILE:
        with pytest.raises(FileRefused):
            check_file(str(NAME), io.BytesIO(changed))


@given(noise=st.binary(max_size=400), keep=st.integers(0, len(FILE)))
def test_noise_is_refused_and_nothing_else_escapes(noise: bytes, keep: int) -> None:
    content = FILE[:keep] + noise
    if content != FILE:
        with pytest.raises(FileRefused):
            check_file(str(NAME), io.BytesIO(content))


@given(name=st.text(max_size=40))
def test_a_name_is_taken_apart_or_refused(name: str) -> None:
    try:
        parsed = parse_name(name)
    except FileRefused:
        return
    assert str(parsed) == name
