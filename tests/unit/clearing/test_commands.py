"""`cardswitch close` and `files`, as an operator and as a program use them."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from psycopg import AsyncConnection
from typer.testing import CliRunner

from switch.clearing.close import STEPS
from switch.domain.errors import SwitchError
from switch.operations.commands.close import close
from switch.operations.commands.files import app as files
from switch.operations.commands.report import app as report

pytestmark = pytest.mark.server

cli = typer.Typer()
cli.command("close")(close)
cli.add_typer(files, name="files")
cli.add_typer(report, name="report")


@pytest.fixture
def operator(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    monkeypatch.setenv("CARDSWITCH_CLEARING__FOLDER", str(tmp_path / "clearing"))
    calendar = tmp_path / "calendar.json"
    this_year = date.today().year  # noqa: DTZ011  only to name years that have a calendar
    calendar.write_text(json.dumps({"years": [this_year, this_year + 1]}))
    monkeypatch.setenv("CARDSWITCH_CLEARING__CALENDAR_FILE", str(calendar))
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def test_close_ends_the_open_day_says_so_and_shows_the_days_money(
    operator: CliRunner, day: date, pg: AsyncConnection[Any]
) -> None:
    done = operator.invoke(cli, ["close"])
    assert done.exit_code == 0, done.output
    assert f"Business day {day} is open until" in done.output
    assert "Closing it ends it now" in done.output
    for words in (
        "fees: 457 transactions",
        "Grocer",
        "Noodles",
        f"Business day {day} is closed",
        "8 files in",
    ):
        assert words in done.output
    again = operator.invoke(cli, ["close", "--date", day.isoformat()])
    assert again.exit_code == 0
    assert "was closed already; all its files are there and whole" in again.output


def test_json_is_one_document_and_everything_for_people_goes_elsewhere(
    operator: CliRunner, day: date
) -> None:
    done = operator.invoke(cli, ["close", "--json", "--yes"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["day"], report["state"], report["was_closed"]) == (day.isoformat(), "closed", False)
    assert len(report["files"]) == len(report["written"]) == 8
    assert {step["state"] for step in report["steps"]} == {"DONE"}
    listed = json.loads(operator.invoke(cli, ["files", "--json"]).stdout)
    assert listed["ok"]
    assert [file["sm3"] for file in listed["files"]] == [file["sm3"] for file in report["files"]]


def test_files_are_compared_with_their_digests(operator: CliRunner, day: date) -> None:
    assert operator.invoke(cli, ["close", "--json"]).exit_code == 0
    fine = operator.invoke(cli, ["files", "--date", f"{day:%Y%m%d}"])
    assert fine.exit_code == 0, fine.output
    assert "8 files, all whole" in fine.output
    listed = json.loads(operator.invoke(cli, ["files", "--json"]).stdout)
    path = Path(listed["folder"]) / listed["files"][0]["name"]
    path.write_bytes(path.read_bytes().replace(b"D", b"C", 1))
    spoilt = operator.invoke(cli, ["files"])
    assert spoilt.exit_code == 1
    assert "content differs from the stored digest" in spoilt.output
    assert operator.invoke(cli, ["close", "--date", day.isoformat()]).exit_code == 0
    assert operator.invoke(cli, ["files"]).exit_code == 0


def test_show_reads_a_file_field_by_field_with_card_numbers_masked(operator: CliRunner, day: date) -> None:
    assert operator.invoke(cli, ["close", "--json"]).exit_code == 0
    listed = json.loads(operator.invoke(cli, ["files", "--json"]).stdout)
    name = next(file["name"] for file in listed["files"] if file["name"].startswith("CM"))
    shown = operator.invoke(cli, ["files", "show", name, "--lines", "2"])
    assert shown.exit_code == 0, shown.output
    assert "name, header, lines, count, amount and digest agree" in shown.output
    assert "313350*********" in shown.output
    assert "31335001000000" not in shown.output
    document = json.loads(operator.invoke(cli, ["files", "show", name, "--json", "--lines", "1"]).stdout)
    assert (document["type"], document["count"], len(document["lines"])) == ("CM", 457, 1)
    path = Path(listed["folder"]) / name
    path.write_bytes(path.read_bytes()[:-1])
    refused = operator.invoke(cli, ["files", "show", str(path)])
    assert isinstance(refused.exception, SwitchError)


def test_a_file_is_sent_again_with_a_reason_and_listed_with_the_days_others(
    operator: CliRunner, day: date
) -> None:
    assert operator.invoke(cli, ["close", "--json"]).exit_code == 0
    name = json.loads(operator.invoke(cli, ["files", "--json"]).stdout)["files"][0]["name"]
    assert operator.invoke(cli, ["files", "resend", name]).exit_code == 2
    done = operator.invoke(cli, ["files", "resend", name, "--reason", "lost at the bank"])
    assert done.exit_code == 0, done.output
    assert f"{name[:-3]}002 is written" in done.output
    again = json.loads(operator.invoke(cli, ["files", "resend", name, "--reason", "again", "--json"]).stdout)
    assert (again["name"], again["original"], again["reason"]) == (f"{name[:-3]}003", name, "again")
    listed = json.loads(operator.invoke(cli, ["files", "--json"]).stdout)
    assert listed["ok"]
    assert [file["name"] for file in listed["files"]][8:] == [f"{name[:-3]}002", f"{name[:-3]}003"]
    empty = operator.invoke(cli, ["files", "resend", name, "--reason", " "])
    assert "a reason must be given" in str(empty.exception)


def test_files_are_not_signed_without_a_key_and_nothing_is_closed(
    operator: CliRunner, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDSWITCH_CLEARING__SIGN_FILES", "true")
    monkeypatch.setenv("CARDSWITCH_VAULT__PASSPHRASE", "correct horse battery")
    refused = operator.invoke(cli, ["close", "--json"])
    assert "there is no vault yet" in str(refused.exception)
    assert "no day has been closed yet" in str(operator.invoke(cli, ["files"]).exception)


def test_what_cannot_be_done_is_said_in_one_line(operator: CliRunner, day: date) -> None:
    for arguments, words in [
        (["files"], "no day has been closed yet"),
        (["files", "--date", day.isoformat()], "it is not closed"),
        (["files", "show", "nonsense"], "name must be"),
        (["files", "show", "NP999900009999335020240315001"], "No such file"),
        (["close", "--date", (day - timedelta(days=30)).isoformat()], "there is no business day"),
        (["close", "--date", (day + timedelta(days=1)).isoformat()], f"business day {day} is not closed yet"),
    ]:
        refused = operator.invoke(cli, arguments)
        assert isinstance(refused.exception, SwitchError), (arguments, refused.output, refused.exception)
        assert words in str(refused.exception)
    assert operator.invoke(cli, ["close", "--date", "yesterday"]).exit_code == 2


def test_status_shows_each_step_with_its_digests_and_which_days_wait(operator: CliRunner, day: date) -> None:
    early = operator.invoke(cli, ["close", "--status"])
    assert "no day has ended yet" in str(early.exception)
    assert operator.invoke(cli, ["close", "--json"]).exit_code == 0
    shown = operator.invoke(cli, ["close", "--status"])
    assert shown.exit_code == 0, shown.output
    assert f"Business day {day}: closed" in shown.output
    assert "Nobody is closing a day now." in shown.output
    found = json.loads(
        operator.invoke(cli, ["close", "--status", "--date", f"{day:%Y%m%d}", "--json"]).stdout
    )
    assert (found["state"], found["closer"], found["not_closed"]) == ("closed", None, [])
    assert [step["step"] for step in found["steps"]] == [step.name for step in STEPS]
    assert {step["tries"] for step in found["steps"]} == {1}
    assert all(len(step["input_sha256"]) == len(step["output_sha256"]) == 64 for step in found["steps"])


@pytest.mark.parametrize(
    ("name", "reports"),
    [
        ("day", ["institutions", "settlement", "kinds", "merchants"]),
        ("float", ["float", "movements", "cover"]),
        ("suspense", ["suspense", "suspense_loads"]),
        ("gaps", ["gaps", "collisions", "batches"]),
    ],
)
def test_reports_are_shown_to_people_and_given_to_programs(
    operator: CliRunner, day: date, tmp_path: Path, name: str, reports: list[str]
) -> None:
    none = operator.invoke(cli, ["report", name])
    assert "no day has been closed yet" in str(none.exception)
    assert operator.invoke(cli, ["close", "--json"]).exit_code == 0
    shown = operator.invoke(cli, ["report", name])
    assert shown.exit_code == 0, shown.output
    assert f", {day}" in shown.output
    document = json.loads(operator.invoke(cli, ["report", name, "--json"]).stdout)
    assert (document["day"], document["more"]) == (day.isoformat(), [])
    folder = tmp_path / "clearing" / "reports" / f"{day:%Y%m%d}"
    files = [folder / f"{report}-{day:%Y%m%d}.csv" for report in reports]
    assert [len(document[report]) for report in reports] == [
        len(file.read_bytes().splitlines()) - 1 for file in files
    ]
    csv = operator.invoke(cli, ["report", name, "--csv", "--date", day.isoformat()])
    assert csv.stdout_bytes == b"".join(file.read_bytes() for file in files)
    files[0].unlink()
    gone = operator.invoke(cli, ["report", name, "--csv"])
    assert "writes missing reports again" in str(gone.exception)
    tomorrow = operator.invoke(cli, ["report", name, "--date", (day + timedelta(days=1)).isoformat()])
    assert "has no reports" in str(tomorrow.exception)
    assert operator.invoke(cli, ["report", name, "--json", "--csv"]).exit_code == 2
