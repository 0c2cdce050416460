"""The file of the routing table: what can be written, and what is refused with place, field and rule."""

from pathlib import Path

import pytest

from switch.registry.import_files import Faults
from switch.routing.destinations import interval_of
from switch.routing.route_format import FILE_BYTES_MAX, RANGES_MAX, ROWS_MAX, read_file, read_rows, written
from tests.unit.routing.tables import HEADER, rows_of, text


def faults_of(content: str) -> list[tuple[str, str]]:
    """Places and fields that are wrong."""
    faults = Faults()
    read_rows(content, "f", faults)
    return [(fault.place, fault.field) for fault in faults.found]


#   cell                                        good
CELLS = [
    ("precedence", "1", True), ("precedence", "0", False), ("precedence", "-1", False), ("precedence", "1.5", False),
    ("precedence", "1000000000", False), ("precedence", "١", False),
    ("cards", "6", True), ("cards", "622202000000", True), ("cards", "6222020000001", False), ("cards", "62 63-64", True),
    ("cards", "62-630", False), ("cards", "64-63", False), ("cards", "62  63", False), ("cards", " 62", False), ("cards", "6２", False),
    ("cards", "62,63", False), ("cards", "62-", False), ("cards", " ".join(["6"] * (RANGES_MAX + 1)), False),
    ("issuer", "99993350FFFFFFFF", True), ("issuer", "99993350ffffffff", False), ("issuer", "9999", False),
    ("scope", "LOCAL", True), ("scope", "DELTA NATION", True), ("scope", "DELTA DELTA", False), ("scope", "WORLD", False),
    ("account", "ONLINE BANK MEDICAL PURSE", True), ("account", "10", False),
    ("type", "PURCHASE LOAD", True), ("type", "VOID", False),
    ("merchant", "898335054110001", True), ("merchant", "89833505411000", False), ("merchant", "8983350541100é1", False),
    ("category", "5411", True), ("category", "5400-5499", True), ("category", "541", False), ("category", "5499-5400", False),
    ("category", "-", False),
    ("amount_fen", "100", True), ("amount_fen", "1-100", True), ("amount_fen", "100-", True), ("amount_fen", "-100", True),
    ("amount_fen", "-", False), ("amount_fen", "9-1", False), ("amount_fen", "1.00", False), ("amount_fen", "1000000000000", False),
    ("hours", "08:00-22:00", True), ("hours", "22:00-06:00", True), ("hours", "00:00-24:00", True), ("hours", "08:00-08:00", False),
    ("hours", "24:00-06:00", False), ("hours", "8:00-9:00", False), ("hours", "08:60-09:00", False), ("hours", "08:00-24:01", False),
    ("valid_from", "2026-02-28", True), ("valid_from", "2026-02-30", False), ("valid_to", "20260228", False),
    ("to", "LEDGER", True), ("to", "HOST:icbc", True), ("to", "HOST:icbc>HOST:ccb > LEDGER", True), ("to", "CITY:99993310", True),
    ("to", "CITY:hangzhou", False), ("to", "HOST:", False), ("to", "HOST:a b", False), ("to", "REFUSE:15", True),
    ("to", "REFUSE:00", False), ("to", "REFUSE:14", False), ("to", "LEDGER:x", False), ("to", "ledger", False), ("to", ">", False),
    ("to", "LEDGER>HOST:icbc", False), ("to", "REFUSE:15>LEDGER", False), ("to", "HOST:a>HOST:a", False),
    ("to", ">".join(f"HOST:h{n}" for n in range(9)), False),
    ("note", "why", True), ("note", "x" * 101, False), ("note", "a\tb", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "cell", "good"), CELLS)
def test_a_cell_is_read_or_named(name: str, cell: str, good: bool) -> None:
    cells = {"precedence": "1", "to": "LEDGER", name: cell}
    quoted = ",".join(f'"{cells.get(column, "")}"' for column in HEADER.split(","))
    assert faults_of(f"{HEADER}\n{quoted}\n") == ([] if good else [("line 2", name)])


def test_faults_never_show_what_was_found() -> None:
    faults = Faults()
    read_rows(
        text({"precedence": "1", "cards": "6222021234567890123", "to": "HOST:4111111111111111!"}), "f", faults
    )
    told = " ".join(map(str, faults.found))
    assert len(faults.found) == 2
    assert "6222021234" not in told
    assert "4111" not in told


WHOLES = [
    ("", [("line 1", "")]),
    ("precedence\n1\n", [("line 1", "")]),
    ("precedence,to,to\n1,LEDGER,LEDGER\n", [("line 1", "")]),
    ("precedence,to,host\n1,LEDGER,x\n", [("line 1", "")]),
    ("to,precedence\nLEDGER,1\n", []),
    ("precedence,to\r\n1,LEDGER\r\n", []),
    ("precedence,to\n\n1,LEDGER\n\n", []),
    ("precedence,to\n1,LEDGER,\n", [("line 2", "")]),
    ('precedence,to\n1,"LEDGER\n', [("line 2", "")]),
    ("precedence,to\n1,LEDGER\n1,LEDGER\n", [("line 3", "precedence")]),
    ("precedence,to\n,\n", [("line 2", "precedence"), ("line 2", "to")]),
    ("precedence,to,valid_from,valid_to\n1,LEDGER,2026-02-02,2026-02-01\n", [("line 2", "valid_to")]),
]


@pytest.mark.parametrize(("content", "expected"), WHOLES)
def test_a_file_is_read_as_a_whole(content: str, expected: list[tuple[str, str]]) -> None:
    assert faults_of(content) == expected


def test_a_hundred_thousand_rows_are_refused_at_the_bound() -> None:
    content = "precedence,to\n" + "".join(f"{n},LEDGER\n" for n in range(1, 100_001))
    assert faults_of(content) == [(f"line {ROWS_MAX + 2}", "")]


def test_a_hundred_thousand_faults_are_cut_off() -> None:
    faults = Faults()
    read_rows("precedence,to\n" + "0,LEDGER\n" * 100_000, "f", faults)
    assert (len(faults.found), faults.more) == (100, True)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"\xff\xfep\x00r\x00", "UTF-8"),
        ("precedence,to,note\n1,LEDGER,銀行\n".encode("gbk"), "UTF-8"),
        (b"precedence,to\n1,LEDGER\n" + b" " * FILE_BYTES_MAX, "longer than 4 MiB"),
        (b"precedence,to\n1,LED\x00GER\n", "must be LEDGER"),
        (b"precedence,to\n1," + b"x" * 200_000, "no CSV"),
    ],
)
def test_a_file_of_other_bytes_is_refused(tmp_path: Path, data: bytes, rule: str) -> None:
    path = tmp_path / "routes.csv"
    path.write_bytes(data)
    faults = Faults()
    assert read_file(path, faults) == []
    assert len(faults.found) == 1
    assert rule in faults.found[0].rule


def test_a_file_that_cannot_be_opened_is_a_fault(tmp_path: Path) -> None:
    faults = Faults()
    assert read_file(tmp_path / "nothing.csv", faults) == []
    assert "cannot be read" in faults.found[0].rule


def test_the_same_rows_have_one_spelling() -> None:
    one = rows_of("20 cards=622202 HOST:icbc", {"precedence": "010", "to": "LEDGER", "note": "first"})
    content = written(one)
    assert content == written(reversed(one))
    faults = Faults()
    assert sorted(read_rows(content, "again", faults)) == sorted(one)
    assert faults.found == []
    assert content.splitlines()[1].startswith("10,")


def test_digits_stand_for_all_numbers_that_begin_with_them() -> None:
    assert interval_of("62") == (620_000_000_000, 629_999_999_999)
    assert interval_of("622200", "622299") == (622_200_000_000, 622_299_999_999)
