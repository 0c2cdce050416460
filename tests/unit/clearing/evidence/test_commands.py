"""`cardswitch seal`, `verify` and `export`, as an operator and as a program use them."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from typer.testing import CliRunner

from switch.__main__ import cli
from switch.clearing.evidence.seal_file import seal_name
from switch.domain.errors import SwitchError
from switch.keys.opening import create_vault
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import DatabaseKeyStore
from tests.helpers.clearing_day import OWN, add_records

pytestmark = pytest.mark.server

PASSPHRASE = "a passphrase of the tests"


@pytest.fixture
def operator(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    monkeypatch.setenv("CARDSWITCH_CLEARING__FOLDER", str(tmp_path / "clearing"))
    monkeypatch.setenv("CARDSWITCH_VAULT__PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("COLUMNS", "200")
    calendar = tmp_path / "calendar.json"
    this_year = date.today().year  # noqa: DTZ011  only to name years that have a calendar
    calendar.write_text(json.dumps({"years": [this_year, this_year + 1]}))
    monkeypatch.setenv("CARDSWITCH_CLEARING__CALENDAR_FILE", str(calendar))
    monkeypatch.chdir(tmp_path)
    return CliRunner()


@pytest.fixture
async def day_with_records(pg: AsyncConnection[Any], day: date) -> date:
    await add_records(pg, day, 900_000, 1, [("10", 200)])
    return day


@pytest.fixture
def vault(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        create_vault(DatabaseKeyStore(connection), UnlockSecret.passphrase(PASSPHRASE), rehearsal=True)


def said(operator: CliRunner, *arguments: str, status: int = 0) -> str:
    done = operator.invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == status, (arguments, done.output, done.exception)
    return done.stdout


def test_a_day_is_sealed_shown_checked_proven_and_exported(
    operator: CliRunner, day_with_records: date, vault: None, tmp_path: Path
) -> None:
    day = day_with_records
    assert "signed by ESK/SM2/v1/local" in said(operator, "close")
    folder = tmp_path / "clearing" / f"{day:%Y%m%d}"
    seal = folder / seal_name(OWN, day)
    assert said(operator, "seal", "show", str(day)) == seal.read_text()
    shown = json.loads(said(operator, "seal", "show", str(day), "--json"))
    assert shown["key"]["name"] == "ESK/SM2/v1/local"
    assert f"the {shown['leaves']:,} leaves of {day} lead to the sealed root" in said(
        operator, "seal", "check", str(day)
    )
    proven = said(operator, "seal", "prove", "--date", str(day), "--rrn", "000000010001", "-o", "proof.json")
    assert proven.startswith(
        "entry 10001: kind 1, answer 00, reference 000000010001, 79.20 CNY, card 313350*********0001"
    )
    key = shown["key"]["public_key"]
    verified = said(
        operator, "verify", "proof.json", "--seal", str(seal), "--key", key, "--folder", "clearing"
    )
    for words in (
        "that is the key you trust",
        "entry 10001 is leaf ",
        "files of",
        "the first that was ever made",
    ):
        assert words in verified
    opened = ["seal", "prove", "--date", f"{day:%Y%m%d}", "--entry", "900000", "--open", "-o", "opened.json"]
    entries = json.loads(said(operator, *opened, "--json"))["entries"]
    assert [entry["form"] for entry in entries] == ["R"]
    typed = operator.invoke(
        cli, ["verify", "opened.json", "--seal", str(seal), "--card"], input="3133500100000000001\n"
    )
    assert typed.exit_code == 0, typed.output
    assert "entry 900000 is of the card 313350*********0001" in typed.output
    for tool in ("hledger", "beancount"):
        told = said(operator, "export", "journal", "--date", str(day), "--format", tool, "-o", f"day.{tool}")
        assert f"transactions of {day}" in told
        assert Path(f"day.{tool}").read_text() == said(
            operator, "export", "journal", "--date", str(day), "--format", tool
        )
    file = next(folder.glob("MR*01"))
    file.write_bytes(file.read_bytes() + b" ")
    wrong = said(operator, "verify", "--folder", "clearing", status=1)
    assert f"WRONG  {file.name} is not the file that was sealed for {day}" in wrong
    checked = json.loads(said(operator, "seal", "check", str(day), "--json", status=1))
    assert not checked["holds"]
    seal.unlink()
    assert "No such file" in said(operator, "seal", "check", str(day), status=1)


def test_without_a_vault_the_close_says_that_nobody_signed(operator: CliRunner, day: date) -> None:
    done = operator.invoke(cli, ["close"])
    assert done.exit_code == 0, done.output
    assert "leaves, NOT SIGNED: the vault has no key for it" in done.output
    assert "nobody has signed the seal" in said(
        operator, "verify", "--seal", f"clearing/{day:%Y%m%d}/{seal_name(OWN, day)}"
    )


def test_a_vault_that_does_not_open_stops_the_close_before_anything_is_done(
    operator: CliRunner, day: date, vault: None, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    monkeypatch.setenv("CARDSWITCH_VAULT__PASSPHRASE", "another one")
    assert isinstance(operator.invoke(cli, ["close"]).exception, SwitchError)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM clearing_day").fetchone() == (0,)


def test_what_cannot_be_done_is_said_in_one_line(operator: CliRunner, day: date) -> None:
    at = day.isoformat()
    for arguments, words in [
        (["seal", "show", at], "is not sealed"),
        (["seal", "check", at], "is not sealed"),
        (["seal", "prove", "--date", at, "--entry", "1", "-o", "x"], "is not sealed"),
        (["export", "journal", "--date", at], "is not closed"),
        (["export", "journal", "--date", at, "--json"], "the file that -o names"),
    ]:
        refused = operator.invoke(cli, arguments)
        assert isinstance(refused.exception, SwitchError), (arguments, refused.output, refused.exception)
        assert words in str(refused.exception)
    for arguments in (
        ["verify"],
        ["verify", "--seal", "nothing"],
        ["seal", "prove", "--date", at, "-o", "x"],
        ["seal", "prove", "--date", at, "-o", "x", "--entry", "1", "--rrn", "000000010001"],
        ["export", "journal", "--date", at, "--format", "gnucash"],
    ):
        assert operator.invoke(cli, arguments).exit_code == 2, arguments
