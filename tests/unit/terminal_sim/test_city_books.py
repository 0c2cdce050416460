"""What the city would notice: one fen in one line of one file, a line too few, a line too many."""

from datetime import date
from hashlib import new as new_hash
from pathlib import Path

import pytest

from switch.domain.transactions import AccountKind
from terminal_sim.city.books import Booking, Books
from terminal_sim.city.files import compare, read_day
from terminal_sim.city.plan import draw_city

DAY = date(2026, 3, 2)
NAME = "MR999900000000000120260302001"
SHOP = "993350541100001"


def signed(fen: int) -> str:
    return f"{'D' if fen < 0 else 'C'}{abs(fen):015d}"


def line(number: int, rrn: str, amount_fen: int, fee_fen: int, account: int = 10) -> str:
    text = (
        f"D{number:08d}{SHOP}33500001{1:06d}{number:06d}{rrn}{account:02d}{'313350*********1239':<20}"
        f"{signed(amount_fen)}{signed(-fee_fen)}{signed(amount_fen - fee_fen)}20260302101500{DAY:%Y%m%d}00"
    )
    assert len(text) == 150
    return text


def write(folder: Path, lines: list[str], *, total_fen: int = 0, name: str = NAME) -> Path:
    """A merchant's file by docs/clearing_files.md."""
    folder.mkdir(exist_ok=True)
    head = (
        f"H{name[:2]}01{name[2:18]}{name[18:26]}{name[26:]}20260302233000{len(lines):08d}{total_fen:015d}0150"
    )
    body = "".join(text + "\r\n" for text in (head.ljust(80), *lines)).encode("ascii")
    digest = new_hash("sm3", body).hexdigest().upper()
    raw = body + f"T{name[:2]}{len(lines):08d}{total_fen:015d}{digest}\r\n".encode("ascii")
    (folder / name).write_bytes(raw)
    (folder / (name + ".ok")).write_text(f"{new_hash('sm3', raw).hexdigest()}  {name}\n")
    return folder


@pytest.fixture
def books() -> Books:
    """A sale of 10.00 with a fee of 0.04 and its refund of 4.00."""
    made = Books(draw_city(1, 300, DAY), today=DAY)
    made.bookings[DAY]["606110000001"] = Booking(SHOP, AccountKind.ONLINE, 1_000, 4)
    made.bookings[DAY]["606110000002"] = Booking(SHOP, AccountKind.ONLINE, -400, -2)
    return made


GOOD = [line(1, "606110000001", 1_000, 4), line(2, "606110000002", -400, -2)]
REVERSED = [line(3, "606110000003", 700, 3), line(4, "606110000003", -700, -3)]


def faults(books: Books, folder: Path) -> list[str]:
    compare(books, DAY, read_day(folder))
    return books.faults


def test_a_file_that_says_what_the_till_believes_is_fine(books: Books, tmp_path: Path) -> None:
    assert faults(books, write(tmp_path, GOOD)) == []


def test_a_purchase_that_was_reversed_behind_the_tills_back_cancels_out(books: Books, tmp_path: Path) -> None:
    assert faults(books, write(tmp_path, GOOD + REVERSED)) == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line(1, "606110000001", 1_001, 4), GOOD[1]], "line 606110000001"),
        ([line(1, "606110000001", 1_000, 5), GOOD[1]], "line 606110000001"),
        ([GOOD[0]], "in no merchant's file"),
        ([*GOOD, GOOD[0]], "day of merchant"),
        ([*GOOD, REVERSED[0]], "day of merchant"),
        ([*GOOD, line(3, "000000000000", 200, 1, 50)], "purse account"),
    ],
    ids=["a fen more", "a fee of a fen more", "a line missing", "a line twice", "half a reversal", "a ride"],
)
def test_the_city_names_what_differs(books: Books, tmp_path: Path, lines: list[str], said: str) -> None:
    assert any(said in fault for fault in faults(books, write(tmp_path, lines)))


def test_a_ride_that_was_booked_is_expected_in_the_file(books: Books, tmp_path: Path) -> None:
    books.book_ride(DAY, SHOP, 200)
    rule = books.plan.fee_rule(SHOP, "PURSE")
    assert rule is not None
    ride = line(3, "000000000000", 200, rule.fee_fen(200), 50)
    assert faults(books, write(tmp_path, [*GOOD, ride])) == []


def test_a_file_whose_bytes_changed_is_named(books: Books, tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD)
    raw = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(raw.replace(b"101500", b"101501", 1))
    assert any(NAME in fault and "digest" in fault for fault in faults(books, folder))


def test_a_file_without_its_ok_is_named(books: Books, tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD)
    (folder / (NAME + ".ok")).unlink()
    assert any(".ok" in fault for fault in faults(books, folder))
