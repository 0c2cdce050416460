"""A merchant's files say what its payout is made of, to the fen, and are the same bytes again."""

import csv
import tracemalloc
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest

from switch.clearing.files import FolderError
from switch.clearing.settlement import sheets
from switch.clearing.settlement.merchant_files import merchant_folder, write_merchant_files
from switch.clearing.settlement.sheets import PayoutSheets
from switch.clearing.settlement.turn import SettlementRefused
from switch.ledger.bookings import Booking
from switch.ledger.chart import Event
from switch.operations.audit.papers import PaperAudit
from tests.helpers.settling import GROCER, MERCHANTS, OTHER, Settling

pytestmark = pytest.mark.server

NOW = datetime(2024, 3, 18, tzinfo=UTC)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fen(rows: list[dict[str, str]], column: str = "net_fen") -> int:
    return sum(int(row[column]) for row in rows)


def sheet_rows(path: Path, number: int) -> list[list[str]]:
    """Cells of a sheet, empty ones left out."""
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(path) as book:
        root = ElementTree.fromstring(book.read(f"xl/worksheets/sheet{number}.xml"))
    return [["".join(cell.itertext()) for cell in row.iter(f"{space}c")] for row in root.iter(f"{space}row")]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def looked_at(connection: psycopg.Connection[Any], folder: Path) -> tuple[int, list[Any]]:
    """How many papers the audit has looked at, and those that are not as they were."""
    audit = PaperAudit(connection, folder, 20, lambda _: None)
    audit.run()
    return audit.rows, audit.places


async def test_transactions_batches_and_payout_tie_to_the_fen_over_days_and_disputes(
    city: Settling, postgres_url: str
) -> None:
    city._holidays = frozenset((1,))
    await city.trade()
    await city.close()
    await city.trade(20)
    await city.pay(
        Booking(Event.CHARGEBACK_BANK, 4_321, 1, int(OTHER), "case 1"),
        Booking(Event.BANK_PURCHASE, 1, int(OTHER), 1, "case 2"),
    )
    await city.close()
    day = await city.settle()
    count, names = await write_merchant_files(city.pg, day, city.folder, actor="li wei")
    folder = merchant_folder(city.folder, day)
    assert (count, len(names)) == (4, 16)
    for payout, party, amount in await city.rows("SELECT payout_id, party, amount_fen FROM payout"):
        if party not in MERCHANTS:
            continue
        (one,) = table(folder / f"{payout}-payout.csv")
        batches = table(folder / f"{payout}-batches.csv")
        lines = table(folder / f"{payout}-transactions.csv")
        assert int(one["payout_fen"]) == amount == fen(batches) == fen(lines) == int(one["net_fen"])
        assert sum(int(row["transactions"]) for row in batches) == len(lines) > 10
        assert {row["clearing_date"] for row in lines} == {one["first_day"], one["last_day"]}
        assert fen(lines, "amount_fen") - fen(lines, "fee_fen") == amount
        for row in lines:
            assert row["kind"] in ("purchase", "void", "refund", "chargeback_bank", "bank_purchase")
            assert row["card"] == "" or (row["card"][:6], row["card"][6:-4]) == ("313350", "*" * 9)
        assert one["account"].startswith("***************")
        sheet = sheet_rows(folder / f"{payout}.xlsx", 3)
        assert sheet[0] == list(sheets.TRANSACTIONS)
        assert sum(int(row[-1]) for row in sheet[1:]) == amount
        assert [len(sheet_rows(folder / f"{payout}.xlsx", number)) for number in (1, 2)] == [
            2,
            len(batches) + 1,
        ]
    before = contents(folder)
    with psycopg.connect(postgres_url) as other:
        assert looked_at(other, city.folder) == (17, [])
    assert await write_merchant_files(city.pg, day, city.folder, actor="li wei") == (4, [])
    for name in names[:3]:
        (folder / name).unlink()
    (folder / names[5]).write_bytes(b"changed")
    (folder / f"{names[9]}.ok").unlink()
    with psycopg.connect(postgres_url) as other:
        _, lost = looked_at(other, city.folder)
    assert {(table, name) for table, name, *_ in lost} == {
        ("settlement_file", names[number]) for number in (0, 1, 2, 5, 9)
    }
    _, again = await write_merchant_files(city.pg, day, city.folder, actor="li wei")
    assert len(again) == 12
    assert contents(folder) == before
    assert await city.one("SELECT count(*) FROM settlement_file") == 16
    await city.pg.execute("ALTER TABLE settlement_file DISABLE TRIGGER append_only")
    await city.pg.execute(
        "UPDATE settlement_file SET sm3 = decode(repeat('00', 32), 'hex') WHERE name LIKE '%.xlsx'"
    )
    with pytest.raises(SettlementRefused, match="other bytes"):
        await write_merchant_files(city.pg, day, city.folder, actor="li wei")


async def test_what_no_transaction_says_is_a_line_of_its_own(city: Settling) -> None:
    await city.trade()
    day_one = await city.trade(0)
    await city.pg.execute(
        "INSERT INTO posting (shard, business_date, entry_no, debit_code, debit_owner, credit_code, credit_owner, amount_fen)"
        " VALUES (0, %s, 77, 6001, 0, 2101, 1, 55)",
        (day_one,),
    )
    await city.close()
    day = await city.settle()
    await write_merchant_files(city.pg, day, city.folder, actor="li wei")
    payout = await city.one("SELECT payout_id FROM payout WHERE party = %s", GROCER)
    folder = merchant_folder(city.folder, day)
    (other,) = [row for row in table(folder / f"{payout}-transactions.csv") if row["kind"] == "other"]
    assert (other["net_fen"], other["terminal"]) == ("55", "")
    assert fen(table(folder / f"{payout}-batches.csv")) == int(
        table(folder / f"{payout}-payout.csv")[0]["payout_fen"]
    )


async def test_a_terminal_of_odd_characters_is_shown_as_it_is_and_computed_by_no_spreadsheet(
    city: Settling,
) -> None:
    await city.trade()
    await city.pg.execute("UPDATE terminal SET terminal_id = lpad(terminal_no::text, 3, '=') || '+1\\,\"'")
    await city.close()
    day = await city.settle()
    await write_merchant_files(city.pg, day, city.folder, actor="li wei")
    payout = await city.one("SELECT payout_id FROM payout WHERE party = %s", GROCER)
    folder = merchant_folder(city.folder, day)
    lines = table(folder / f"{payout}-transactions.csv")
    assert lines
    for row in lines:
        assert row["terminal"][:2] == "'="
        assert row["terminal"][-5:] == '+1\\,"'
    in_book = {row[2] for row in sheet_rows(folder / f"{payout}.xlsx", 3)[1:]}
    assert in_book == {row["terminal"][1:] for row in lines}


def rows_of(made: PayoutSheets, count: int) -> None:
    for number in range(count):
        made.add(
            "transactions",
            ("P20240318000001", "2024-03-15", "33500001", 1, "", number, "", "purchase", 10, "", 100, 1, 99),
        )


def test_memory_is_flat_and_a_full_sheet_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "SHEET_ROWS_MAX", 1_000)
    made = PayoutSheets(tmp_path, "P20240318000001", NOW)
    rows_of(made, 100)
    tracemalloc.start()
    rows_of(made, 1_400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    made.finish()
    made.drop()
    assert peak < 1_500_000  # 1 400 rows kept would be three
    assert len(sheet_rows(tmp_path / "P20240318000001.xlsx", 3)) == 1_001
    assert len(sheet_rows(tmp_path / "P20240318000001.xlsx", 4)) == 501
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(sheets.file_names("P20240318000001"))


def test_what_is_not_finished_leaves_nothing_and_a_disk_that_refuses_says_so(tmp_path: Path) -> None:
    made = PayoutSheets(tmp_path, "P20240318000001", NOW)
    rows_of(made, 10)
    made.drop()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FolderError, match="cannot write"):
        PayoutSheets(tmp_path / "file" / "sub", "P20240318000001", NOW)
