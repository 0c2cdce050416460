"""Reports of a closed day: what they say adds up to the day, and what is frozen stays as it was."""

import csv
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.clearing.close import STEPS, Closed, CloseTerms, close_day
from switch.clearing.day_reports import BY_NAME, REPORTS, classified, read_lines, read_rows, report_folder
from switch.clearing.files import digest_of
from switch.ledger.chart import COVER_ASSETS, COVER_DEBTS
from tests.helpers.clearing_day import CENTRE, OTHER, OWN, add_journal, add_records

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]


def rows_of(terms: CloseTerms, day: date, report: str) -> list[dict[str, str]]:
    path = report_folder(terms.folder, day) / f"{report}-{day:%Y%m%d}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


async def closed_day(pg: Pg, day: date, terms: CloseTerms) -> Closed:
    """A day with records of every kind, a hole, an alarm, a batch that nobody settled and a load in suspense."""
    await add_records(pg, day, 900_000, 2, [("10", 200), ("10", 300), ("01", 50), ("04", 70)])
    await pg.execute(
        "INSERT INTO purse_gap (kind, owner, missing, opened_at)"
        " VALUES (3, 1, '[5,9)', (%s::date - 3)::timestamp AT TIME ZONE 'Asia/Shanghai'),"
        " (2, 335000000025, '[7,8)', clock_timestamp()), (1, 3133500100009999991, '[2,5)', clock_timestamp())",
        (day,),
    )
    await pg.execute(
        "INSERT INTO purse_alarm (kind, entry_no, business_date, card, detail)"
        " VALUES ('ATC_COLLISION', 1, %s, card_key('3133500100000000001'), 'entry 2'), ('CHAIN_BREAK', 3, %s, NULL, 'later')",
        (day, day + timedelta(days=1)),
    )
    await pg.execute(
        "INSERT INTO terminal_batch (terminal_no, batch_no, opened_on, state) VALUES (1, 7, %s, 0), (2, 8, %s, 2), (3, 9, %s, 0)",
        (day, day, day + timedelta(days=1)),
    )
    await add_suspended_load(pg, day, 700, days_old=10)
    return await close_day(pg, day, terms, "a tester")


async def add_suspended_load(pg: Pg, day: date, amount_fen: int, *, days_old: int) -> None:
    """A load of an earlier day that came to suspense on this one."""
    await pg.execute(
        "INSERT INTO purse_load (shard, entry_no, business_date, card_no, online_atc, psam, issuer_id, key_version, algorithm_id, key_index,"
        " card_random, amount_fen, balance_before_fen, authorised_at, source, debit_code, debit_owner, state, reason, held)"
        " VALUES (0, 800000, %(day)s::date - %(old)s::integer, 1, 0, '335000000017', '\\x99993350ffffffff', 1, 0, 1, '\\x00000000', %(fen)s, 0,"
        " clock_timestamp(), 4, 1002, 0, 4, 'no_word', 2)",
        {"day": day, "old": days_old, "fen": amount_fen},
    )
    await pg.execute(
        "INSERT INTO purse_load_move (shard, entry_no, line, business_date, at, load_no, from_state, to_state, reason)"
        " VALUES (0, 800000, 0, %(day)s::date - %(old)s::integer, clock_timestamp() - interval '9 days', 800000, 0, 1, 'request'),"
        " (0, 800001, 0, %(day)s, clock_timestamp(), 800000, 1, 4, 'no_word')",
        {"day": day, "old": days_old},
    )
    await pg.execute(
        "INSERT INTO posting (shard, business_date, entry_no, debit_code, debit_owner, credit_code, credit_owner, amount_fen)"
        " VALUES (0, %(day)s, 799999, 1002, 0, 2002, 1, %(fen)s), (0, %(day)s, 800001, 2002, 1, 2201, 0, %(fen)s)",
        {"day": day, "fen": amount_fen},
    )


async def test_every_report_of_a_closed_day_is_a_whole_csv_with_its_digest(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    closed = await closed_day(pg, day, terms)
    folder = report_folder(terms.folder, day)
    rows = await read_rows(pg, day)
    assert [row.report for row in rows] == [report.name for report in REPORTS]
    assert set(closed.reports) == {row.name for row in rows}
    assert {path.name for path in folder.iterdir()} == {
        name for row in rows for name in (row.name, f"{row.name}.ok")
    }
    for row in rows:
        path = folder / row.name
        assert digest_of(path) == (row.sm3, row.size_bytes)
        assert (folder / f"{row.name}.ok").read_text() == f"{row.sm3}  {row.name}\n"
        assert path.read_bytes().endswith(b"\r\n")
        assert len(rows_of(terms, day, row.report)) == row.row_count
        lines = await read_lines(pg, BY_NAME[row.report], day, offset=0, limit=1000)
        with path.open(encoding="utf-8", newline="") as file:
            assert next(csv.reader(file)) == list(lines.columns)
        assert (len(lines.lines), lines.more) == (row.row_count, False)


async def test_the_float_statement_leads_from_opening_to_closing_and_the_cover_follows_from_it(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    await closed_day(pg, day, terms)
    lines = rows_of(terms, day, "float")
    closing = {int(line["code"]): int(line["closing_fen"]) for line in lines}
    for line in lines:
        figures = {name: int(value) for name, value in line.items() if name.endswith("_fen")}
        assert figures.pop("closing_fen") == sum(figures.values()), line["code"]
    by_code = {int(line["code"]): line for line in lines}
    assert int(by_code[2002]["loads_fen"]) == -700
    assert int(by_code[2002]["suspense_fen"]) == 700
    assert int(by_code[2002]["purchases_fen"]) == 500
    assert int(by_code[9001]["other_fen"]) == 70
    assert int(by_code[2101]["refunds_fen"]) > 0 > int(by_code[2101]["purchases_fen"])
    movements = rows_of(terms, day, "movements")
    events = {(line["debit_code"], line["credit_code"], line["source"]): line["events"] for line in movements}
    assert events["2002", "2101", "RECORD"] == "purse_purchase_confirmed"
    assert events["1002", "2002", "POSTING"] == "load_cash"
    assert "" not in events.values()
    cover = {(line["item"], line["code"]): line for line in rows_of(terms, day, "cover")}
    held = sum(closing[code] for code in COVER_ASSETS)
    owed = -sum(closing[code] for code in COVER_DEBTS)
    assert int(cover["cover", ""]["amount_fen"]) == held - owed
    assert int(cover["owed in all", ""]["amount_fen"]) == owed


async def test_suspense_is_aged_by_load_and_the_accounts_ages_add_up_to_its_balance(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    await closed_day(pg, day, terms)
    aged = {(line["item"], line["days"]): line for line in rows_of(terms, day, "suspense")}
    assert len(aged) == 15
    assert (
        aged["load, money on 2201", "8-30"]["loads"],
        aged["load, money on 2201", "8-30"]["amount_fen"],
    ) == ("1", "700")
    assert aged["account 2201", "0-1"]["amount_fen"] == "700"  # credited today, whenever the load was made
    (load,) = rows_of(terms, day, "suspense_loads")
    assert (load["money"], load["days"], load["source"]) == ("2201", "10", "cash")
    # Two days later a third of it has gone: the oldest credit counts as used up first.
    following = day + timedelta(days=1)
    await pg.execute(
        "INSERT INTO posting (shard, business_date, entry_no, debit_code, debit_owner, credit_code, credit_owner, amount_fen)"
        " VALUES (0, %(d)s, 810000, 2201, 0, 2002, 1, 300), (0, %(d)s, 810001, 2101, 1, 2201, 0, 50)",
        {"d": following},
    )
    await close_day(pg, following, terms, "a tester")
    aged = {
        (line["item"], line["days"]): int(line["amount_fen"])
        for line in rows_of(terms, following, "suspense")
    }
    assert aged["account 2201", "0-1"] == 450
    closing = next(line for line in rows_of(terms, following, "float") if line["code"] == "2201")[
        "closing_fen"
    ]
    assert sum(fen for (item, _), fen in aged.items() if item == "account 2201") == -int(closing)


async def test_holes_alarms_and_open_batches_stay_in_the_report_as_they_were(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    await closed_day(pg, day, terms)
    folder = report_folder(terms.folder, day)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    gaps = rows_of(terms, day, "gaps")
    assert [(gap["counter"], gap["device"], gap["missing_from"], gap["missing_count"]) for gap in gaps] == [
        ("card_atc", "all cards", "", "3"),
        ("psam_serial", "335000000025", "7", "1"),
        ("record_serial", "33500001", "5", "4"),
    ]
    assert gaps[2]["days"] == "3"
    (alarm,) = [line for line in rows_of(terms, day, "collisions") if line["kind"] == "ATC_COLLISION"]
    assert alarm["card"] == "313350*********0001"
    assert [batch["terminal"] for batch in rows_of(terms, day, "batches")] == ["33500001"]
    await pg.execute(
        "UPDATE purse_gap SET closed_at = clock_timestamp(); UPDATE terminal_batch SET state = 2"
    )
    await pg.execute("UPDATE merchant SET category = '9999'; UPDATE purse_load SET state = 3, held = 0")
    for path in folder.iterdir():
        path.unlink()
    again = await close_day(pg, day, terms, "another")
    assert len(again.reports) == len(REPORTS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    following = day + timedelta(days=1)
    await close_day(pg, following, terms, "a tester")
    later = [line["kind"] for line in rows_of(terms, following, "collisions")]
    assert "CHAIN_BREAK" in later  # each alarm is in one day's list
    assert "ATC_COLLISION" not in later


async def test_several_clearing_days_that_settle_together_are_shown_with_their_running_sum(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    settles = day + timedelta(days=5)
    holiday = terms._replace(is_workday=lambda one: one == settles)
    await close_day(pg, day, holiday, "a tester")
    following = day + timedelta(days=1)
    await add_journal(pg, following, 40, first=5_000_000)
    await close_day(pg, following, holiday, "a tester")
    lines = rows_of(terms, following, "settlement")
    assert {line["settlement_date"] for line in lines} == {settles.isoformat()}
    assert [(line["clearing_date"], line["institution"]) for line in lines] == [
        (one.isoformat(), institution) for one in (day, following) for institution in (OWN, OTHER)
    ]
    for institution in (OWN, OTHER):
        own = [line for line in lines if line["institution"] == institution]
        assert int(own[-1]["running_fen"]) == sum(int(line["net_fen"]) for line in own)
    nets = rows_of(terms, following, "institutions")
    assert nets[-1]["institution"] == f"centre {CENTRE}"
    assert sum(int(line["net_fen"]) for line in nets) == 0


async def test_a_part_of_a_report_is_read_by_party_and_by_page(pg: Pg, day: date, terms: CloseTerms) -> None:
    await close_day(pg, day, terms, "a tester")
    merchants = BY_NAME["merchants"]
    first = await read_lines(pg, merchants, day, offset=0, limit=3)
    rest = await read_lines(pg, merchants, day, offset=3, limit=3)
    assert (len(first.lines), first.more, len(rest.lines), rest.more) == (3, True, 1, False)
    one = await read_lines(pg, merchants, day, offset=0, limit=3, column="merchant", party="993310058120003")
    assert [line[0] for line in one.lines] == ["993310058120003"]


async def test_the_files_of_partners_and_the_reports_of_the_operator_lie_apart(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    closed = await close_day(pg, day, terms, "a tester")
    assert not list(closed.folder.glob("*.csv*"))
    assert report_folder(terms.folder, day).parent == Path(terms.folder) / "reports"


def test_every_event_of_the_chart_that_moves_money_has_its_class() -> None:
    found = classified()
    by_event = {
        event: name
        for names, name in zip(found["events"], found["classes"], strict=True)
        for event in names.split()
    }
    assert by_event["load_bound_bank"] == by_event["load_reversed_bound_bank"] == "LOAD"
    assert by_event["online_purchase"] == by_event["bank_purchase"] == "PURCHASE"
    assert by_event["online_refund"] == by_event["bank_refund"] == "REFUND"
    assert by_event["grey_adjusted_paid"] == "ADJUSTMENT"
    assert by_event["fee_others"] == by_event["fee_own"] == "FEE"
    assert by_event["merchant_paid_out"] == by_event["fund_settled"] == "SETTLEMENT"
    assert by_event["load_online_to_purse"] == "TRANSFER"
    assert "OTHER" not in found["classes"]


async def test_the_document_has_every_report_with_its_columns_and_every_step_with_its_parts(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    await close_day(pg, day, terms, "a tester")
    text = (Path(__file__).parents[3] / "docs" / "reports.md").read_text(encoding="utf-8")
    for report in REPORTS:
        lines = await read_lines(pg, report, day, offset=0, limit=1)
        (row,) = [
            line
            for line in text.splitlines()
            if line.startswith(f"| `{report.name}` |") and line.count("|") == 4
        ][:1]
        assert row.split(" | ")[2].removesuffix(" |").replace("`", "").split() == list(lines.columns)
    for step in STEPS:
        assert f"| {step.name} | {', '.join(step.reads)} | {', '.join(step.makes)} |\n" in text
