"""The simulated centre reads what a city forwards and answers in the form of the documents."""

import io
from datetime import date, datetime

import pytest

from switch.clearing.files import FileName, Head, check_file, render
from switch.clearing.layouts import LAYOUTS, Value, write_line
from switch.domain.calendar import SHANGHAI
from terminal_sim.centre import ACCEPTED, TAC_WRONG, answer, records_of
from tests.helpers.clearing_day import record_96

DAY = date(2026, 11, 26)
NOW = datetime(2026, 11, 27, 9, tzinfo=SHANGHAI)
RECORDS = [record_96(card, 1, 100 * card, card) for card in (1, 2, 3)]


def forwarded() -> tuple[str, bytes]:
    name = FileName("FH", "99993350", "99999999", DAY)
    lines = [
        write_line(LAYOUTS["FH"], {"line_no": number, "record": record.hex().upper()})
        for number, record in enumerate(RECORDS, 1)
    ]
    return str(name), render(Head(name, NOW, len(lines), 600), lines)


def test_an_answer_is_a_whole_file_with_a_result_for_each_record() -> None:
    name, content = forwarded()
    told, made = answer(
        name, content, lambda record: TAC_WRONG if record == RECORDS[1] else ACCEPTED, DAY, NOW
    )
    assert told == "DT999999999999335020261126001"
    lines: list[dict[str, Value]] = []

    check_file(told, io.BytesIO(made), lambda _, values: lines.append(values))
    assert [(line["record"], line["result"]) for line in lines] == [
        (RECORDS[0].hex().upper(), "10"),
        (RECORDS[1].hex().upper(), "01"),
        (RECORDS[2].hex().upper(), "10"),
    ]


def test_a_file_that_is_not_whole_is_not_answered() -> None:
    _, content = forwarded()
    assert records_of(content) == RECORDS
    with pytest.raises(ValueError, match="digest"):
        records_of(content.replace(b"D00000001", b"D00000009"))
    with pytest.raises(ValueError, match="header or trailer"):
        records_of(content[:-3])
