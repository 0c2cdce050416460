"""The audit over a city that has lived three days: clean, in detail, under load, and as a command."""

import asyncio
import json
from collections.abc import Iterator
from datetime import date
from hashlib import new as new_digest
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from typer.testing import CliRunner

from switch.domain.transactions import Reversal, Void
from switch.keys.software_vault import SoftwareVault
from switch.operations.audit import CHECKS, DAYS_ANEW, Report
from switch.operations.audit import audit as run_audit
from switch.operations.audit.checks import read_checks
from switch.operations.commands.audit import audit, summary
from tests.helpers.audited_city import City, found
from tests.helpers.offline import Ride, pan_of
from tests.unit.operations.conftest import Audited, reading_again

pytestmark = pytest.mark.server
# What the city of these tests has none of; each is held against changed rows of its own in the file that is named.
ELSEWHERE = {
    "test_audit_lists": {
        "hot_list_versions",
        "list_versions",
        "list_rollouts",
        "list_receipts",
        "list_forms",
        "list_manifests",
    },
    "test_audit_reconcile": {
        "partner_files",
        "reconcile_outcomes",
        "reconcile_findings",
        "reconcile_states",
        "bank_claims",
    },
    "test_audit_deliveries": {
        "file_signatures",
        "file_resends",
        "hot_list_files",
        "deliveries",
        "delivery_days",
        "delivery_inbox",
    },
    "purse/risk/test_audited": {"risk_cases", "risk_hits"},
    "clearing/settlement/test_audited": {check.name for check in read_checks("payouts.sql")} | {"papers"},
}
app = typer.Typer()
app.command()(audit)


Reader = psycopg.Connection[Any]


def report_of(reader: Reader, folder: Path, day: date | None = None) -> Report:
    return run_audit(reader, folder, day)


def faults(report: Report) -> list[str]:
    return [f"{one.name}: {place}" for one in report.verdicts for place in one.places]


def test_a_city_that_was_booked_by_the_switch_is_clean_and_every_check_had_rows_to_look_at(
    audited: Audited,
    reader: Reader,
) -> None:
    report = report_of(reader, audited[1])
    assert faults(report) == []
    assert report.good
    assert [verdict.name for verdict in report.verdicts] == [
        *(check.name for check in CHECKS),
        *(name for name, _, _ in DAYS_ANEW),
    ]
    assert {verdict.name for verdict in report.verdicts if not verdict.rows} <= set().union(
        *ELSEWHERE.values()
    )
    assert report.totals.zero_sum_fen == 0
    assert "zero-sum 0.00" in summary(report)[0]
    assert report.totals.held_fen >= report.totals.owed_fen > 0


def test_one_day_can_be_audited_and_looks_at_fewer_rows(audited: Audited, reader: Reader) -> None:
    url, folder = audited
    with psycopg.connect(url) as connection:
        days = [
            row[0]
            for row in connection.execute(
                "SELECT business_date FROM business_day WHERE state = 2 ORDER BY 1"
            ).fetchall()
        ]
    assert len(days) == 2
    whole = {verdict.name: verdict.rows for verdict in report_of(reader, folder).verdicts}
    for day in days:
        report = report_of(reader, folder, day)
        assert faults(report) == []
        rows = {verdict.name: verdict.rows for verdict in report.verdicts}
        assert 0 < rows["journal_row"] < whole["journal_row"]
        assert 0 < rows["files"] < whole["files"]
        assert rows["account_balance"] == whole["account_balance"]


def test_a_merchant_below_zero_after_refunds_is_shown_and_is_no_fault(
    audited: Audited, reader: Reader
) -> None:
    url, folder = audited
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        owed = connection.execute(
            "SELECT business_date, entry_no FROM posting WHERE (debit_code, credit_code) = (2101, 6001) ORDER BY 2 LIMIT 1"
        ).fetchone()
        connection.execute(
            "UPDATE posting SET amount_fen = amount_fen + 10000000 WHERE (business_date, entry_no) = (%s, %s)",
            owed,
        )
        try:
            report = report_of(reader, folder)
            assert not report.good
            assert len(report.totals.negative_merchants) == 1
            assert any("below zero after refunds" in line for line in summary(report))
        finally:
            connection.execute(
                "UPDATE posting SET amount_fen = amount_fen - 10000000 WHERE (business_date, entry_no) = (%s, %s)",
                owed,
            )


# ---------------------------------------------------------------------- files


def a_file(folder: Path, kind: str) -> Path:
    return next(
        path
        for path in sorted(folder.rglob(f"{kind}*"))
        if not path.name.endswith(".ok") and path.stat().st_size > 174
    )


def places_of(report: Report) -> list[tuple[str, str, str]]:
    return [(one.name, place.table, place.key) for one in report.verdicts for place in one.places]


@pytest.mark.parametrize("kind", ["NP", "CM", "NS", "QS", "SS", "MR"])
def test_one_digit_changed_in_a_file_is_found_with_its_line(
    audited: Audited, reader: Reader, kind: str
) -> None:
    _, folder = audited
    path = a_file(folder, kind)
    whole = path.read_bytes()
    at = whole.index(b"\r\nD") + 2 + 30
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    try:
        report = report_of(reader, folder)
    finally:
        path.write_bytes(whole)
    assert {verdict.name for verdict in report.verdicts if not verdict.good} == {"files"}
    assert any(path.name in key and "line 2, character 31" in key for _, _, key in places_of(report))


def forge(path: Path, old: bytes, new: bytes) -> tuple[str, int]:
    """Change a line and everything that proves it: the trailer's digest, and the mark. Returns SM3 and size of the file."""
    lines = path.read_bytes().replace(old, new, 1).splitlines(keepends=True)
    body = b"".join(lines[:-1])
    forged = body + lines[-1][:26] + new_digest("sm3", body).hexdigest().upper().encode() + b"\r\n"
    path.write_bytes(forged)
    sm3 = new_digest("sm3", forged).hexdigest().upper()
    path.with_name(f"{path.name}.ok").write_text(f"{sm3}  {path.name}\n")
    return sm3, len(forged)


def test_a_file_forged_together_with_its_digests_is_found_by_its_lines(
    audited: Audited, reader: Reader
) -> None:
    url, folder = audited
    path = a_file(folder, "MR")
    mark = path.with_name(f"{path.name}.ok")
    whole, marked = path.read_bytes(), mark.read_bytes()
    line = whole.splitlines()[1]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        stored = connection.execute(
            "SELECT sm3, size_bytes FROM clearing_file WHERE name = %s", (path.name,)
        ).fetchone()
        assert stored is not None
        try:
            sm3, size = forge(path, line, line[:93] + bytes([line[93] ^ 1]) + line[94:])
            change = "UPDATE clearing_file SET sm3 = %s, size_bytes = %s WHERE name = %s"
            connection.execute(change, (bytes.fromhex(sm3), size, path.name))
            report = report_of(reader, folder)
            connection.execute(change, (*stored, path.name))
        finally:
            path.write_bytes(whole)
            mark.write_bytes(marked)
    digests, forged, sealed = places_of(report)
    assert digests[:2] == ("step_digests", "clearing_step")  # the digest that the step left says so too
    assert forged == ("files", "clearing_file", f"{path.name}, line 2, character 94")
    assert sealed[:2] == ("seals", "clearing_seal")  # and the seal, whatever was forged in the books with it


def test_a_report_that_was_changed_or_taken_away_is_found(audited: Audited, reader: Reader) -> None:
    _, folder = audited
    path = min(folder.rglob("float-*.csv"))
    whole = path.read_bytes()
    for spoil, words in (
        (lambda: path.write_bytes(whole.replace(b"0", b"1", 1)), "SM3"),
        (path.unlink, "No such file"),
    ):
        spoil()
        try:
            report = report_of(reader, folder)
        finally:
            path.write_bytes(whole)
        (place,) = [place for one in report.verdicts for place in one.places]
        assert (place.table, place.key) == ("clearing_report", path.name)
        assert words in place.found


@pytest.mark.parametrize("gone", ["file", "mark", "line", "appended"])
def test_a_file_that_is_missing_unmarked_shorter_or_longer_is_found(
    audited: Audited, reader: Reader, gone: str
) -> None:
    _, folder = audited
    path = a_file(folder, "CM")
    path = path.with_name(f"{path.name}.ok") if gone == "mark" else path
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    try:
        if gone in ("file", "mark"):
            path.unlink()
        else:
            path.write_bytes(b"".join(lines[:1] + lines[2:]) if gone == "line" else whole + b"more")
        report = report_of(reader, folder)
    finally:
        path.write_bytes(whole)
    assert any(path.name.removesuffix(".ok") in key for _, _, key in places_of(report))
    assert not any(pan_of(card) in str(report) for card in range(1, 13))


# ---------------------------------------------------------------------- load


@pytest.fixture
def onlooker(postgres_url: str) -> Iterator[Reader]:
    """Through which the audit reads a city that is at work."""
    with reading_again(postgres_url) as connection:
        yield connection


async def test_there_is_no_false_alarm_while_the_switch_books_folds_and_closes(
    postgres_url: str, onlooker: Reader, tac_vault: SoftwareVault, tmp_path: Path
) -> None:
    folder = tmp_path / "clearing"
    await found(postgres_url, folder)
    stop = asyncio.Event()
    booked = 0

    async with City(postgres_url, tac_vault, folder) as city:

        async def sell(worker: int) -> None:
            nonlocal booked
            atc = 0
            while not stop.is_set():
                card = 1 + (booked + worker) % 12
                bought = await city.buy(card, 7 + worker)
                if booked % 5 == 0:
                    await city.undo(Void if booked % 2 else Reversal, card, 7 + worker, bought)
                await city.bring(Ride(card=worker, atc=atc, amount_fen=10, balance_fen=100_000 - 10 * atc))
                atc += 1
                booked += 1

        async def keep_folding() -> None:
            while not stop.is_set():
                await city.fold()
                await asyncio.sleep(0)

        workers: list[asyncio.Task[Any]] = [asyncio.create_task(sell(worker)) for worker in range(1, 5)]
        workers.append(asyncio.create_task(keep_folding()))
        reports = []
        for round_no in range(8):
            if round_no == 4:
                workers.append(asyncio.create_task(city.close()))
            await asyncio.sleep(0.05)
            reports.append(await asyncio.to_thread(report_of, onlooker, folder))
        sellers = workers[:4]
        while not workers[-1].done() or (booked <= 20 and not any(seller.done() for seller in sellers)):
            reports.append(await asyncio.to_thread(report_of, onlooker, folder))
        stop.set()
        await asyncio.gather(*workers)
    reports.append(await asyncio.to_thread(report_of, onlooker, folder))
    assert [faults(report) for report in reports] == [[]] * len(reports)
    assert booked > 20
    assert reports[-1].totals.postings > reports[0].totals.postings


# ---------------------------------------------------------------------- the command


def command(audited: Audited, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    url, folder = audited
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", url)
    monkeypatch.setenv("CARDSWITCH_CLEARING__FOLDER", str(folder))
    outcome = CliRunner().invoke(app, arguments)
    return outcome.exit_code, outcome.stdout


def test_the_command_says_one_line_per_check_and_the_zero_sum(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, text = command(audited, monkeypatch)
    assert status == 0
    lines = text.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == len(CHECKS) + len(DAYS_ANEW)
    assert "zero-sum 0.00" in text
    assert lines[-1] == f"audit clean: {len(CHECKS) + len(DAYS_ANEW)} checks"


def test_the_command_ends_with_1_and_names_the_place_when_a_fen_is_missing(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(audited[0], autocommit=True) as connection:
        row = connection.execute("SELECT account_id FROM account ORDER BY 1 LIMIT 1").fetchone()
        assert row is not None
        connection.execute("UPDATE account SET balance_fen = balance_fen - 1 WHERE account_id = %s", row)
        try:
            status, text = command(audited, monkeypatch)
            as_json, document = command(audited, monkeypatch, "--json")
        finally:
            connection.execute("UPDATE account SET balance_fen = balance_fen + 1 WHERE account_id = %s", row)
    assert (status, as_json) == (1, 1)
    assert f"account: account {row[0]} of 2001" in text
    assert "audit FAILED: 1 of" in text
    checks = {check["name"]: check for check in json.loads(document)["checks"]}
    assert checks["account_balance"]["places"][0]["table"] == "account"
    assert not json.loads(document)["clean"]


def test_a_check_without_a_reason_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts.sql").touch()
    (tmp_path / "odd.sql").write_text("-- name: odd\n-- says: something\nSELECT 1\n")
    monkeypatch.setattr("switch.operations.audit.checks.resources.files", lambda _package: tmp_path)
    with pytest.raises(ValueError, match="check odd needs says, rows and a query"):
        read_checks("odd.sql")


def test_a_value_that_cannot_be_read_is_a_fault_and_not_the_end(audited: Audited, reader: Reader) -> None:
    url, folder = audited
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        row = connection.execute("SELECT entry_no, extra FROM journal WHERE kind = 2").fetchone()
        assert row is not None
        change = "UPDATE journal SET extra = %s WHERE entry_no = %s"
        connection.execute(change, (b"\xff\xfe", row[0]))
        try:
            report = report_of(reader, folder)
        finally:
            connection.execute(change, (row[1], row[0]))
    unreadable, sealed = places_of(report)
    assert unreadable == ("journal_answer_balances", "journal", "unknown")
    assert sealed[:2] == ("seals", "clearing_seal_block")
    assert len(report.verdicts) == len(CHECKS) + len(DAYS_ANEW)


def test_the_document_names_every_check() -> None:
    text = (Path(__file__).parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")
    for check in CHECKS:
        assert f"| `{check.name}` | {check.says} |\n" in text
    for name, says, _ in DAYS_ANEW:
        assert f"| `{name}` | {says} |\n" in text


def test_no_check_reads_a_view_so_what_a_check_reads_is_what_it_names(audited: Audited) -> None:
    with psycopg.connect(audited[0]) as connection:
        views = connection.execute("SELECT viewname FROM pg_views WHERE schemaname = 'public'").fetchall()
    assert views
    assert [(view, check.name) for (view,) in views for check in CHECKS if check.reads(view)] == []
    assert [view for (view,) in views for _, _, anew in DAYS_ANEW if anew.reads(view)] == []
