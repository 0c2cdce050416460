"""A day closed against a real server: figures, files, and that it stays as it was closed."""

from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.clearing.close import STEPS, CloseRefused, CloseTerms, Progress, close_day, day_folder
from switch.clearing.fees import FeeRule, fee_split
from switch.clearing.files import check_file, parse_name
from switch.clearing.layouts import LAYOUTS, Value, write_line
from switch.clearing.report import day_report
from switch.storage.pool import connect
from tests.helpers.clearing_day import CENTRE, OTHER, OWN, add_journal, add_records, adjudicate

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
Contents = Callable[[Path], dict[str, bytes]]


def lines_of(folder: Path, name: str) -> list[dict[str, Value]]:
    lines: list[dict[str, Value]] = []
    with (folder / name).open("rb") as stream:
        check_file(name, stream, lambda _, values: lines.append(values))
    return lines


def name_of(kind: str, receiver: str, day: date) -> str:
    return f"{kind}{CENTRE}{receiver}{day:%Y%m%d}001"


async def scalar(pg: Pg, query: str, *values: object) -> Any:
    row = await (await pg.execute(query, values)).fetchone()
    assert row is not None
    return row[0]


async def test_steps_run_once_in_order_and_the_day_is_closed(pg: Pg, day: date, terms: CloseTerms) -> None:
    told: list[Progress] = []
    closed = await close_day(pg, day, terms, "a tester", told.append)
    assert [progress.step for progress in told if progress.finished] == [
        *(step.name for step in STEPS),
        "done",
    ]
    assert await scalar(pg, "SELECT state FROM business_day WHERE business_date = %s", day) == 2
    assert not closed.was_closed
    cursor = await pg.execute("SELECT step, state, actor FROM clearing_step ORDER BY ordinal")
    assert await cursor.fetchall() == [(step.name, "DONE", "a tester") for step in STEPS]


async def test_every_file_holds_what_its_header_says_and_its_lines_are_written_as_python_would(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    closed = await close_day(pg, day, terms, "a tester")
    names = {path.name for path in closed.folder.iterdir()}
    files = {name for name in names if not name.endswith(".ok")}
    assert names == files | {f"{name}.ok" for name in files}
    files.remove(f"{OWN}{day:%Y%m%d}.seal")
    assert Counter(name[:2] for name in files) == {"NP": 2, "CM": 2, "MR": 4}
    for name in files:
        lines = lines_of(closed.folder, name)
        layout = LAYOUTS[parse_name(name).kind]
        stored = (closed.folder / name).read_bytes().split(b"\r\n")[1:-2]
        assert [write_line(layout, values).encode() for values in lines] == stored


async def test_each_merchants_file_is_what_the_ledger_owes_it_for_the_day(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    await add_records(pg, day, 900_000, 2, [("10", 200), ("10", 300), ("01", 50)])
    closed = await close_day(pg, day, terms, "a tester")
    for merchant_no in (1, 2, 3, 4):
        lines = lines_of(closed.folder, name_of("MR", f"{merchant_no:08d}", day))
        net_fen = sum(int(line["net"]) for line in lines)
        owed_fen = await scalar(
            pg,
            "SELECT sum(CASE WHEN credit_code = 2101 AND credit_owner = %s THEN amount_fen ELSE 0 END)"
            "     - sum(CASE WHEN debit_code = 2101 AND debit_owner = %s THEN amount_fen ELSE 0 END) FROM"
            " (SELECT debit_code, debit_owner, credit_code, credit_owner, amount_fen FROM posting UNION ALL"
            "  SELECT debit_code, debit_owner, credit_code, credit_owner, amount_fen FROM purse_posting) AS p",
            merchant_no,
            merchant_no,
        )
        assert net_fen == owed_fen
        assert all(line["amount"] + line["fee"] == line["net"] for line in lines)  # type: ignore[operator]
        assert all(str(line["card"])[6:15] == "*********" for line in lines)


RULES = {1: FeeRule(6000), 2: FeeRule(3800), 3: FeeRule(5000, 1, 2600), 4: FeeRule(0)}


async def test_every_transactions_fee_and_shares_are_those_of_the_pure_rule(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    await close_day(pg, day, terms, "a tester")
    cursor = await pg.execute(
        "SELECT merchant_no, effect_fen, fee_fen, issuer_fee_fen, switch_fee_fen FROM clearing_charge WHERE business_date = %s",
        (day,),
    )
    charges = await cursor.fetchall()
    assert any(charge[1] < 0 for charge in charges)
    for merchant_no, effect_fen, *shares in charges:
        assert tuple(shares) == fee_split(effect_fen, RULES[merchant_no])[:3]


async def test_members_fees_in_cm_add_up_to_their_positions_and_all_nets_to_zero(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    closed = await close_day(pg, day, terms, "a tester")
    nets = []
    for member in (OWN, OTHER):
        positions = {
            str(line["institution"]): line for line in lines_of(closed.folder, name_of("NP", member, day))
        }
        assert list(positions) == [OWN, OTHER]
        lines = lines_of(closed.folder, name_of("CM", member, day))
        fees = [
            sum(int(line[field]) for line in lines)
            for field in ("fee_receivable", "fee_payable", "switching_fee")
        ]
        assert fees[0] == positions[member]["issuer_fee"]
        assert fees[1] + fees[2] == positions[member]["fees_paid"]
        nets.append(int(positions[member]["net"]))
    switch_fen = await scalar(
        pg, "SELECT sum(switch_fee_fen)::bigint FROM clearing_charge WHERE business_date = %s", day
    )
    assert sum(nets) + switch_fen == 0


async def test_fees_are_posted_once_from_merchants_to_income_and_to_the_other_acquirer(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    await close_day(pg, day, terms, "a tester")
    cursor = await pg.execute(
        "SELECT debit_owner, credit_code, credit_owner, amount_fen FROM posting"
        " WHERE business_date = %s AND credit_code IN (6001, 2102) ORDER BY 1, 2, 3",
        (day,),
    )
    postings = await cursor.fetchall()
    assert [row[:3] for row in postings] == [(1, 6001, 0), (2, 6001, 0), (3, 2102, int(OTHER)), (3, 6001, 0)]
    assert sum(row[3] for row in postings) == await scalar(
        pg, "SELECT sum(fee_fen)::bigint FROM clearing_charge WHERE business_date = %s", day
    )
    closing = await scalar(
        pg,
        "SELECT sum(closing_fen)::bigint FROM clearing_float WHERE business_date = %s AND code <> 9001",
        day,
    )
    assert closing == 0


async def test_more_refunds_than_sales_give_the_merchant_its_fees_back(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    await close_day(pg, day, terms, "a tester")
    following = day + timedelta(days=1)
    async with pg.transaction():
        await add_journal(pg, following, 44, first=20_000)
        await pg.execute("ALTER TABLE journal DISABLE TRIGGER append_only")
        await pg.execute("DELETE FROM journal WHERE business_date = %s AND kind = 1", (following,))
        await pg.execute("ALTER TABLE journal ENABLE TRIGGER append_only")
    await close_day(pg, following, terms, "a tester")
    cursor = await pg.execute(
        "SELECT debit_code, debit_owner, credit_code FROM posting WHERE business_date = %s AND entry_no < 20000 ORDER BY 1, 2",
        (following,),
    )
    postings = set(await cursor.fetchall())
    assert postings
    assert {(debit, credit) for debit, _, credit in postings} <= {(6001, 2101), (2102, 2101)}


async def test_offline_senders_get_what_was_taken_refused_and_settled(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    results = [
        ("10", 200),
        ("10", 0),
        ("10", 300),
        ("04", 150),
        ("03", 200),
        ("01", 100),
        ("10", 50),
        ("02", 80),
        ("04", 70),
    ]
    await add_records(pg, day, 900_000, 1, results)
    await adjudicate(pg, day, 900_100, (900_003, day), "94")
    closed = await close_day(pg, day, terms, "a tester")
    source = f"XF{OWN}{CENTRE}{day:%Y%m%d}000"
    assert lines_of(closed.folder, name_of("NS", OWN, day)) == [
        {"line_no": 1, "file": source, "count": 9, "amount": 1150, "status": "00"}
    ]
    refusals = lines_of(closed.folder, name_of("SS", OWN, day))
    assert [(line["source_line"], line["result"], line["amount"]) for line in refusals] == [
        (4, "94", 150),
        (5, "03", 200),
        (6, "01", 100),
        (8, "02", 80),
        (9, "04", 70),
    ]
    assert {line["source_file"] for line in refusals} == {source}
    assert [line["grey"] for line in refusals] == ["1", "0", "0", "0", "1"]
    assert refusals[0] | {"line_no": 1} == {
        "line_no": 1, "source_file": source, "source_line": 4, "result": "94", "decided_on": int(f"{day:%Y%m%d}"),
        "merchant": "993350054110001", "terminal": "33500001", "asn": "03133500100000000004", "atc": 3, "psam": "335000000017",
        "psam_serial": 1003, "balance_before": 5000, "amount": 150, "date": 20240315, "time": 81530, "tti": "06",
        "tac": "FFFFFFFF", "grey": "1",
    }  # fmt: skip
    (line,) = lines_of(closed.folder, name_of("QS", OWN, day))
    assert [line[name] for name in ("confirmed_count", "confirmed", "refused_count", "refused", "fee", "net")] == [
        4, 550, 4, 530, 3, 547,
    ]  # fmt: skip
    assert [line[name] for name in ("adjusted_count", "adjust_refused_count")] == [0, 0]


async def test_a_grey_record_decided_later_is_named_by_its_first_days_list(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    await add_records(pg, day, 900_000, 1, [("10", 200), ("04", 150), ("04", 70)])
    await close_day(pg, day, terms, "a tester")
    following = day + timedelta(days=1)
    await adjudicate(pg, following, 910_000, (900_001, day), "00")
    await adjudicate(pg, following, 910_001, (900_002, day), "94")
    closed = await close_day(pg, following, terms, "a tester")
    assert lines_of(closed.folder, name_of("NS", OWN, following)) == []
    refusals = lines_of(closed.folder, name_of("SS", OWN, following))
    assert [(line["source_file"], line["source_line"], line["result"]) for line in refusals] == [
        (f"XF{OWN}{CENTRE}{day:%Y%m%d}000", 2, "00"),
        (f"XF{OWN}{CENTRE}{day:%Y%m%d}000", 3, "94"),
    ]
    (line,) = lines_of(closed.folder, name_of("QS", OWN, following))
    names = (
        "confirmed_count",
        "adjusted_count",
        "adjusted",
        "adjust_refused_count",
        "adjust_refused",
        "fee",
        "net",
    )
    assert [line[name] for name in names] == [0, 1, 150, 1, 70, 1, 149]
    cursor = await pg.execute(
        "SELECT opening_fen, debit_fen, credit_fen, closing_fen FROM clearing_float WHERE code = 9001 ORDER BY business_date"
    )
    assert await cursor.fetchall() == [(0, 220, 0, 220), (220, 0, 220, 0)]


async def test_a_void_names_its_originals_trace_and_time(pg: Pg, day: date, terms: CloseTerms) -> None:
    closed = await close_day(pg, day, terms, "a tester")
    lines = lines_of(closed.folder, name_of("CM", OWN, day))
    purchases = {
        (line["terminal"], line["trace"]): line for line in lines if line["processing_code"][:2] == "00"
    }  # type: ignore[index]
    undone = [line for line in lines if str(line["processing_code"]).startswith("20")]
    assert undone
    for line in undone:
        original = purchases[line["terminal"], line["original_trace"]]
        assert original["transmitted_at"] == line["original_at"]
        assert original["pan"] == line["pan"]
    assert {line["mti"] for line in undone} == {"0200", "0220"}
    assert {line["acquiring_agent"] for line in lines} == {"49993350", OTHER}


async def test_closing_again_changes_nothing_and_what_is_missing_is_written_again_identically(
    pg: Pg, day: date, terms: CloseTerms, contents: Contents
) -> None:
    first = await close_day(pg, day, terms, "a tester")
    before = contents(terms.folder)
    again = await close_day(pg, day, terms, "another")
    assert (again.was_closed, again.rewritten) == (True, ())
    assert contents(terms.folder) == before
    (first.folder / name_of("CM", OWN, day)).unlink()
    (first.folder / name_of("MR", "00000002", day)).write_bytes(b"something else")
    (first.folder / f"{name_of('NP', OWN, day)}.ok").unlink()
    # Whatever changes in the registry afterwards: the day is what it was.
    await pg.execute(
        "UPDATE fee_rule SET rate_ppm = 9999; UPDATE merchant SET category = '9999', acquirer_id = '99993350'"
    )
    other_terms = terms._replace(
        own_id="11111111", centre_id="22222222", acquirer_code="1", is_workday=lambda _: False
    )
    repaired = await close_day(pg, day, other_terms, "another")
    assert set(repaired.rewritten) == {name_of("CM", OWN, day), name_of("MR", "00000002", day)}
    assert contents(terms.folder) == before


async def test_a_closed_day_cannot_be_changed(pg: Pg, day: date, terms: CloseTerms) -> None:
    await close_day(pg, day, terms, "a tester")
    for change in (
        "UPDATE clearing_summary SET fee_fen = fee_fen",
        "DELETE FROM clearing_file",
        "UPDATE clearing_day SET created_at = created_at",
        "INSERT INTO clearing_offline SELECT business_date, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM clearing_day",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation, match="is closed"):
            await pg.execute(change)


@pytest.mark.parametrize(
    ("table", "columns", "values"),
    [
        ("clearing_leg", "account_kind, pan", "20, '6228480000000000000'"),
        ("clearing_original", "original_stan, original_at", "1, now()"),
        ("clearing_source_line", "source_line", "1"),
    ],
)
async def test_what_a_close_has_frozen_stays_as_it_is(
    pg: Pg, day: date, terms: CloseTerms, table: str, columns: str, values: str
) -> None:
    insert = f"INSERT INTO {table} (business_date, entry_no, {columns}) VALUES (%s, 99, {values})"
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match=f"{day} is not being closed"):
        await pg.execute(insert, (day,))
    await close_day(pg, day, terms, "a tester")
    with pytest.raises(psycopg.errors.RestrictViolation, match=f"business day {day} is closed"):
        await pg.execute(insert, (day,))
    for change in (f"UPDATE {table} SET entry_no = entry_no", f"DELETE FROM {table}", f"TRUNCATE {table}"):
        with pytest.raises(psycopg.errors.RestrictViolation, match=f"{table} is append-only"):
            await pg.execute(change)


async def test_days_are_closed_in_order_and_not_before_they_begin(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    with pytest.raises(CloseRefused, match=f"business day {day} is not closed yet"):
        await close_day(pg, day + timedelta(days=1), terms, "a tester")
    with pytest.raises(CloseRefused, match="there is no business day"):
        await close_day(pg, day - timedelta(days=9), terms, "a tester")
    await close_day(pg, day, terms, "a tester")
    await close_day(pg, day + timedelta(days=1), terms, "a tester")
    await pg.execute(
        "UPDATE business_day SET begins_at = begins_at + interval '1 hour' WHERE business_date = %s",
        (day + timedelta(days=2),),
    )
    with pytest.raises(CloseRefused, match="has not begun"):
        await close_day(pg, day + timedelta(days=2), terms, "a tester")


async def test_of_two_closes_at_once_one_works_and_the_other_says_who(
    pg: Pg, postgres_url: str, day: date, terms: CloseTerms
) -> None:
    refusals: list[str] = []

    class Stop(Exception):
        pass

    async with await connect(postgres_url) as other:

        def tell(progress: Progress) -> None:
            if progress.step == "netting":
                raise Stop

        with pytest.raises(Stop):
            await close_day(pg, day, terms, "the first", tell)
        await pg.execute("SELECT pg_advisory_lock(%s, 0)", (0x43435332,))
        try:
            await close_day(other, day, terms, "the second")
        except CloseRefused as refused:
            refusals.append(str(refused))
        await pg.execute("SELECT pg_advisory_unlock(%s, 0)", (0x43435332,))
        assert len(refusals) == 1
        assert "a close is running: close by the first, connected since" in refusals[0]
        await close_day(other, day, terms, "the second")
    cursor = await pg.execute("SELECT step, actor FROM clearing_step ORDER BY ordinal")
    assert [actor for _, actor in await cursor.fetchall()] == ["the first"] * 5 + ["the second"] * 5


async def test_a_day_without_anything_is_closed_with_empty_files_for_the_operator(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    await close_day(pg, day, terms, "a tester")
    following = day + timedelta(days=1)
    closed = await close_day(pg, following, terms, "a tester")
    names = {path.name for path in closed.folder.iterdir() if not path.name.endswith(".ok")}
    seal = f"{OWN}{following:%Y%m%d}.seal"
    assert names == {name_of("NP", OWN, following), name_of("CM", OWN, following), seal}
    assert all(lines_of(closed.folder, name) == [] for name in names - {seal})


async def test_the_report_shows_the_days_money(pg: Pg, day: date, terms: CloseTerms) -> None:
    assert (await day_report(pg, day))["state"] == "not begun"
    await close_day(pg, day, terms, "a tester")
    report = await day_report(pg, day)
    assert report["state"] == "closed"
    assert [merchant["name"] for merchant in report["merchants"]] == [
        "Noodles",
        "Buses",
        "Grocer",
        "Hospital",
    ]
    assert sum(merchant["items"] for merchant in report["merchants"]) == sum(
        kind["items"] for kind in report["kinds"]
    )
    assert len(report["float"]) == 13
    assert len(report["files"]) == 8
    assert day_folder(terms.folder, day).name == f"{day:%Y%m%d}"
