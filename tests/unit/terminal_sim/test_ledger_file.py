"""A host's books on the disk: killed at any byte, it comes back with what it had answered and not with half a line more."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from switch.domain.errors import InputRefused
from terminal_sim.host.book import Account, HostBook
from terminal_sim.host.ledger_file import LedgerFile, replay
from terminal_sim.host.medical import MedicalBook

PAN = "6228480123456789006"
DAY: list[tuple[str, dict[int, Any]]] = [
    ("0200", {2: PAN, 3: "002000", 4: f"{300:012d}", 7: "1125103015", 11: "000001", 37: "632910A00001"}),
    ("0200", {2: PAN, 3: "002000", 4: f"{5000:012d}", 7: "1125103015", 11: "000002", 52: bytes(8)}),
    (
        "0420",
        {2: PAN, 4: f"{300:012d}", 7: "1125103016", 11: "000003", 90: "0200000001" + "1125103015" + "0" * 22},
    ),
    (
        "0420",
        {2: PAN, 4: f"{100:012d}", 7: "1125103016", 11: "000004", 90: "0200000009" + "1125103015" + "0" * 22},
    ),
    ("0200", {2: PAN, 3: "002000", 4: f"{100:012d}", 7: "1125103015", 11: "000009"}),
    ("0220", {2: PAN, 3: "002000", 4: f"{70:012d}", 7: "1125103017", 11: "000010"}),
]
ANSWERS = ["00", "51", "00", "25", "22", "00"]


def new() -> HostBook:
    return HostBook([Account(PAN, 1000)])


def live(path: Path, book: HostBook, upto: int = len(DAY)) -> list[dict[int, Any]]:
    """A day of a host that keeps its books in a file; its answers."""
    keeper = LedgerFile(path)
    replay(path, book)
    book.keeper = keeper
    try:
        return [book.settle(mti, fields) for mti, fields in DAY[:upto]]
    finally:
        keeper.close()


def test_a_host_that_comes_back_answers_every_message_as_before_and_books_none_twice(tmp_path: Path) -> None:
    path, first = tmp_path / "books", new()
    answers = live(path, first)
    assert [answer[39] for answer in answers] == ANSWERS
    size = path.stat().st_size
    again = new()
    assert live(path, again) == answers
    assert path.stat().st_size == size
    assert (again.moved_fen, again.balance_fen(PAN)) == (first.moved_fen, first.balance_fen(PAN)) == (70, 930)


def test_killed_at_any_byte_it_has_what_stood_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "books"
    live(path, new())
    raw = path.read_bytes()
    for cut in range(len(raw) + 1):
        path.write_bytes(raw[:cut])
        book = new()
        answers = live(path, book)  # the switch sends again what was not answered
        assert [answer[39] for answer in answers] == ANSWERS
        assert book.moved_fen == 70
        assert path.read_bytes() == raw


def test_refusals_that_are_not_the_books_own_come_back_too_and_no_pin_is_kept(tmp_path: Path) -> None:
    path, book = tmp_path / "books", new()
    book.keeper = LedgerFile(path)
    mti, fields = DAY[0]
    assert book.refuse(mti, fields | {52: bytes(8)}, "55") == {39: "55"}
    assert replay(path, new()).settle(mti, fields)[39] == "55"
    assert set(json.loads(path.read_text())["fields"]) == {"2", "3", "4", "7", "11", "37"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_centre_keeps_its_own_refusals(tmp_path: Path) -> None:
    path = tmp_path / "books"
    book = MedicalBook([Account(PAN, 1000)])
    book.keeper = LedgerFile(path)
    bought = DAY[0][1] | {3: "004000", 18: "5411"}
    assert book.settle("0200", bought)[39] == "57"
    assert replay(path, MedicalBook([Account(PAN, 1000)])).settle("0200", bought)[39] == "57"


@pytest.mark.parametrize("line", ["{}", "[]", "x", '{"mti": "0200", "refused": "", "fields": {"a": 1}}'])
def test_a_line_that_is_none_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "books"
    path.write_text(line + "\n")
    with pytest.raises(InputRefused, match="line 1 is no line of a host's books"):
        replay(path, new())
