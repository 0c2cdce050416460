"""A bank's file of a day: what of its books is in it, and under which date."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from switch.clearing.files import check_file
from switch.clearing.layouts import Value
from terminal_sim.host.book import Account, HostBook
from terminal_sim.host.command import bank_file
from terminal_sim.host.day_file import booked_items, counted_on
from terminal_sim.host.ledger_file import LedgerFile

PAN, CARD = "6228480123456789006", Account("6228480123456789006", 10_000)
DAY = date(2024, 3, 15)

cli = typer.Typer()
cli.command()(bank_file)


def message(
    trace: int, fen: int, code: str = "002000", at: str = "0315101500", **more: Any
) -> dict[int, Any]:
    fields = {2: PAN, 3: code, 4: f"{fen:012d}", 7: at, 11: f"{trace:06d}", 37: f"R{trace:011d}"}
    return (
        fields
        | {41: "33500001", 42: "993350054110001"}
        | {int(name[1:]): value for name, value in more.items()}
    )


def names(mti: str, trace: int, at: str = "0315101500") -> str:
    return f"{mti}{trace:06d}{at}" + "0" * 22


@pytest.fixture
def books(tmp_path: Path) -> Path:
    path = tmp_path / "books.jsonl"
    book = HostBook([CARD])
    book.keeper = LedgerFile(path)
    book.settle("0200", message(1, 1_000))
    book.settle("0200", message(2, 20_000))  # more than there is
    book.settle("0200", message(3, 0, "312000"))  # a balance
    book.settle("0220", message(4, 400, "202000", f90=names("0200", 1)))
    book.settle("0200", message(5, 600, "602000", "0315225959"))
    book.settle("0420", message(6, 600, "602000", "0315230000", f90=names("0200", 5, "0315225959")))
    book.settle("0420", message(7, 500, f90=names("0200", 99)))  # of something that never came
    book.settle("0400", message(8, 20_000, f90=names("0200", 2)))  # of something that was declined
    return path


def test_what_moved_money_is_in_the_file_and_nothing_else(books: Path) -> None:
    items = booked_items(books, HostBook([CARD]))
    assert [(item.mti, item.trace, item.amount_fen, item.original) for item in items] == [
        ("0200", 1, 1_000, ("0", 0)),
        ("0220", 4, 400, ("0315101500", 1)),
        ("0200", 5, 600, ("0", 0)),
        ("0420", 6, 600, ("0315225959", 5)),
    ]
    assert [counted_on(item, DAY) for item in items] == [True, True, True, False]
    assert counted_on(items[3], date(2024, 3, 16))


def test_the_command_writes_a_file_that_holds_what_it_says(books: Path, tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.json"
    accounts.write_text(json.dumps([{"pan": PAN, "balance_fen": 10_000}]))
    words = ["--books", str(books), "--accounts", str(accounts), "--institution", "01020000"]
    words += ["--receiver", "99990000", "--date", "2024-03-15", "--folder", str(tmp_path)]
    for more, count in ((["--cut-off", "none", "--sequence", "2"], 4), ([], 3)):
        said = CliRunner().invoke(cli, [*words, *more])
        assert said.exit_code == 0, said.output
        path, _, told = said.output.rpartition(": ")
        assert told == f"{count} lines\n"
        lines: list[dict[str, Value]] = []
        with Path(path).open("rb") as stream:
            checked = check_file(Path(path).name, stream, lambda _, values, kept=lines: kept.append(values))
        assert checked.head.line_count == len(lines) == count
