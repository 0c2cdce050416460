"""`cardswitch settlement` against a real PostgreSQL and a real vault, as two people use it."""

import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from typer.testing import CliRunner, Result

from switch.domain.errors import SwitchError
from switch.keys.opening import create_vault
from switch.keys.sealing import UnlockSecret
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import DatabaseKeyStore
from switch.operations.commands import settlement
from terminal_sim.custody_bank import CustodyBank, Fate
from tests.helpers.offline import tac_vault as made_vault
from tests.helpers.settling import CUSTODY, GROCER, OWN, Settling

pytestmark = pytest.mark.server

Run = Callable[..., Result]
NUMBER = "6222000000000004321"


@pytest.fixture
def vault(tmp_path: Path) -> SoftwareVault:
    """Of the city's own steps; the commands open the one in the database."""
    return made_vault(tmp_path)


@pytest.fixture
async def city(pg: AsyncConnection[Any], vault: SoftwareVault, tmp_path: Path) -> Settling:
    made = Settling(pg, vault, tmp_path / "clearing")
    await made.found()
    await made.trade()
    await made.close()
    return made


@pytest.fixture
def run(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `cardswitch settlement ...`; line: what comes by standard input."""
    key_file = tmp_path / "keyfile"
    key_file.write_bytes(os.urandom(64))
    key_file.chmod(0o600)
    calendar = tmp_path / "calendar.json"
    this_year = date.today().year  # noqa: DTZ011  only to name years that have a calendar
    calendar.write_text(json.dumps({"years": [this_year, this_year + 1]}))
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "DATABASE__URL": postgres_url,
        "VAULT__KEY_FILE": str(key_file),
        "CLEARING__FOLDER": str(tmp_path / "clearing"),
        "CLEARING__CALENDAR_FILE": str(calendar),
    }.items():
        monkeypatch.setenv(f"CARDSWITCH_{name}", value)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        create_vault(DatabaseKeyStore(connection), UnlockSecret.key_file(key_file), rehearsal=False)

    def run_it(*arguments: str, line: str = "") -> Result:
        result = CliRunner().invoke(settlement.app, arguments, input=line)
        if result.exception and not isinstance(result.exception, SwitchError | SystemExit):
            raise result.exception
        assert NUMBER not in result.output
        return result

    return run_it


def said(result: Result) -> Any:
    """The one JSON document."""
    assert result.exception is None or result.exit_code == 1, (result.output, result.exception)
    return json.loads(result.stdout)


def refused(result: Result, words: str) -> None:
    assert isinstance(result.exception, SwitchError), (result.output, result.exception)
    assert words in str(result.exception)


def test_from_a_closed_day_to_a_paid_merchant_by_two_people(run: Run, city: Settling, tmp_path: Path) -> None:
    since = ("--from", city.first.isoformat())
    for party, number in ((GROCER, NUMBER), (OWN, CUSTODY)):
        account = (
            "terms",
            "account",
            party,
            "--name",
            "Li & Wang",
            "--bank",
            "102331002029",
            "--reason",
            "a form",
        )
        made = said(run(*account, *since, "--actor", "li wei", "--json", line=number + "\n"))
        assert made["state"] == "PROPOSED"
        refused(run("terms", "confirm", str(made["account"]), "--actor", "Li Wei"), "another person")
        assert run("terms", "confirm", str(made["account"]), "--actor", "wang fang").exit_code == 0
    listed = said(run("terms", "list", GROCER, "--json"))
    assert listed["accounts"][0]["mask"] == "*" * 15 + "4321"
    prepared = said(run("prepare", "--actor", "li wei", "--json"))
    day = prepared["settlement_date"]
    assert (prepared["figures"]["payouts"], prepared["figures"]["without_account"]) == (1, 4)
    assert "nothing was changed" in run("prepare", "--actor", "li wei").output
    refused(run("approve", "--date", day, "--actor", "li wei"), "another person")
    (payout,) = said(run("approve", "--date", day, "--actor", "wang fang", "--json"))["approved"]
    done = run("order", "--date", day)
    assert done.exit_code == 0, (done.output, done.exception)
    name = f"O{payout[1:9]}001.xml"
    assert f"written: {name}" in done.output
    listed_day = run("list", "--date", day).output
    assert f"order {name[:-4]}: 1 payouts" in listed_day
    assert "NO_ACCOUNT" in listed_day
    bank = CustodyBank(CUSTODY)
    bank.order((city.folder / "settlement" / payout[1:9] / name).read_bytes(), {payout: Fate.RETURNED})
    paper = tmp_path / "statement.xml"
    paper.write_bytes(bank.statement(datetime(2024, 3, 18, tzinfo=UTC)))
    taken = said(run("statement", "take", str(paper), "--json"))
    assert {outcome: counts[0] for outcome, counts in taken[0]["counts"].items()} == {
        "PAID": 1,
        "RETURNED": 1,
    }
    assert "taken before" in run("statement", "take", str(paper)).output
    shown = said(run("show", payout, "--json"))
    assert [move["to_state"] for move in shown["moves"]] == [
        "PREPARED",
        "APPROVED",
        "ORDERED",
        "PAID",
        "RETURNED",
    ]
    assert "RETURNED" in run("show", payout).output
    assert "difference 0.00" in run("statement", "list").output
    bank.move("", 5, "a stranger")
    paper.write_bytes(bank.statement(datetime(2024, 3, 19, tzinfo=UTC)))
    strange = run("statement", "take", str(paper))
    assert (strange.exit_code, "1 UNEXPLAINED 0.05" in strange.output) == (1, True)
    assert "in suspense 0.05" in run("statement", "odd").output
    (odd,) = said(run("statement", "odd", "--json"))
    resolve = ("statement", "resolve", odd["statement_id"], str(odd["line"]), "--as", "paid-by")
    resolve += ("--actor", "li wei", "--checker", "wang fang", "--reason", "advice 4711")
    refused(run(*resolve, "--part", f"{GROCER}:4"), "do not come to 5 fen")
    refused(run(*resolve, "--part", GROCER), "PARTY:FEN")
    refused(run(*resolve, "--party", GROCER, "--part", f"{GROCER}:5"), "one for all of it, or parts")
    refused(run(*resolve, "--entry", "nobody's"), "STATEMENT/LINE")
    assert "0.05 left suspense" in run(*resolve, "--party", GROCER).output
    assert said(run(*resolve, "--part", f"{GROCER}:5", "--json"))["again"] is True
    assert "0 entries" in run("statement", "odd").output


def test_terms_keep_what_is_not_named_and_what_cannot_be_done_is_said_in_one_line(
    run: Run, city: Settling
) -> None:
    base = ("terms", "set", GROCER, "--reason", "as agreed", "--from", city.first.isoformat())
    assert said(run(*base, "--minimum-fen", "100", "--cycle", "weekly:5", "--json"))["cycle_day"] == 5
    held = said(run(*base, "--held-all", "--held-reason", "risk", "--json"))
    assert (held["minimum_fen"], held["cycle"], held["held_all"]) == (100, "WEEKLY", True)
    released = said(run(*base, "--release", "--json"))
    assert (released["held_all"], released["held_reason"], released["minimum_fen"]) == (False, "", 100)
    for more, words in (
        (("--cycle", "weekly:8"), "cycle day"),
        (("--cycle", "yearly"), "cycle"),
        (("--held-fen", "5"), "reason"),
        (("--held-fen", "5", "--release"), "not together"),
        (("--held-reason", "x"), "needs"),
    ):
        refused(run(*base, *more), words)
    refused(run("terms", "set", "000000000000000", "--reason", "x"), "no merchant")
    assert "3 terms" in run("terms", "list", GROCER).output
    for arguments, words in (
        (("show", "P20240318000001"), "no such number"),
        (("cancel", "P20240318000001", "--reason", "x"), "no such number"),
        (
            ("resolve", "P20240318000001", "--as", "lost", "--checker", "x", "--reason", "x"),
            "as: PAID or REJECTED",
        ),
        (("list", "--state", "lost"), "state: one of"),
        (("terms", "confirm", "99"), "no such number"),
    ):
        refused(run(*arguments), words)
    assert run("order").exit_code == 2
