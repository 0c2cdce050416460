"""`cardswitch reconcile`, as an operator and as a program use it."""

import asyncio
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from switch.domain.errors import SwitchError
from switch.operations.commands.reconcile import app
from switch.settings import ComparedPartner
from switch.storage.pool import connect
from terminal_sim.host.day_file import write_file
from tests.helpers.clearing_day import CENTRE
from tests.helpers.reconciling import BANK, Leg, ask, found_bank

pytestmark = pytest.mark.server

cli = typer.Typer()
cli.add_typer(app, name="reconcile")


def ran(*words: str, status: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["reconcile", *words], catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done


@pytest.fixture
def day(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> date:
    async def build() -> date:
        async with await connect(postgres_url) as pg:
            _, found, _ = await found_bank(pg)
            await ask(pg, found, [Leg(1, 1_000), Leg(2, 2_000)])
            return found

    made = asyncio.run(build())
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    partner: dict[str, Any] = {"institution": BANK, "since": str(made), "roll_days": 0}
    monkeypatch.setenv("CARDSWITCH_RECONCILE__PARTNERS", json.dumps([partner]))
    monkeypatch.chdir(tmp_path)
    return made


def test_the_settings_of_a_partner_are_documented_with_their_defaults() -> None:
    text = (Path(__file__).parents[4] / "docs" / "reconciliation.md").read_text(encoding="utf-8")
    table = text.split("\n## 2. Settings\n", 1)[1].split("\n## ", 1)[0]
    documented = dict(re.findall(r"^\| `([a-z_]+)` \| (?:`([^`]*)`)? ?\|", table, re.MULTILINE))
    fields = ComparedPartner.model_fields.items()
    real = {name: "" if field.is_required() else str(field.default).lower() for name, field in fields}
    assert documented == {name: value.removesuffix(":00") for name, value in real.items()}


def test_an_operators_morning(day: date, tmp_path: Path) -> None:
    items = [Leg(1, 1_000).item(day), Leg(2, 2_000).item(day, amount_fen=1_999), Leg(3, 50).item(day)]
    path = write_file(tmp_path, BANK, CENTRE, day, items)
    assert "2 files" in ran("list", "--overdue", status=1).stdout
    assert f"{path.name}: 3 lines, 30.49, taken" in ran("take", str(path)).stdout
    spoilt = write_file(tmp_path, BANK, CENTRE, day, items, sequence=2)
    spoilt.write_bytes(spoilt.read_bytes().replace(b" 0200 ", b" 0200x", 1))
    assert "refused (02): line 2, column 107" in ran("take", str(spoilt), status=1).stdout
    again, bad = json.loads(ran("take", str(path), str(spoilt), "--json", status=1).stdout)
    assert (again["repeated"], bad["status"]) == (True, "02")

    words = ("run", "--partner", BANK, "--date", str(day))
    text = ran(*words, status=1).stdout
    assert [line.split()[0] for line in text.splitlines()[2:-1]] == ["match", "amount", "long"]
    (document,) = json.loads(ran(*words, "--json", status=1).stdout)
    assert (document["repeated"], document["states"]) == (True, {"OPEN": 2})
    assert document["totals"]["match"] == {
        "ours_count": 1,
        "ours_fen": 1_000,
        "theirs_count": 1,
        "theirs_fen": 1_000,
    }

    listed = json.loads(ran("list", "--json", "--csv", "open.csv").stdout)
    amount, long = (one["difference"] for one in listed)
    assert (tmp_path / "open.csv").read_text().splitlines()[0].startswith("difference,partner,business_date")
    assert "2 differences" in ran("list", "--partner", BANK, "--date", str(day)).stdout
    assert json.loads(ran("ageing", "--json").stdout)[BANK]["2-7"] == [2, 51]
    assert BANK in ran("ageing").stdout
    who = ("--actor", "li wei", "--checker", "wang fang", "--reason", "seen")
    assert "is CLOSED" in ran("accept", str(amount), *who).stdout
    assert (
        json.loads(ran("resolve", str(long), "--as", "suspense", *who, "--json").stdout)["state"]
        == "SUSPENSE"
    )
    shown = ran("show", str(long)).stdout
    assert "decided   suspense" in shown
    assert "6228480000000000003" not in shown
    assert json.loads(ran("show", str(long), "--json").stdout)["state"] == "SUSPENSE"
    assert "compared" in ran("list", "--expected").stdout
    assert [one["state"] for one in json.loads(ran("list", "--overdue", "--json", status=1).stdout)] == [
        "overdue"
    ]


def test_wrong_use_is_told_by_its_rule(day: date) -> None:
    who = ("--actor", "li wei", "--checker", "wang fang", "--reason", "seen")
    for words, why in (
        (("resolve", "1", "--as", "suspense", "--entry", "nothing", *who), "STATEMENT/LINE"),
        (
            ("resolve", "1", "--as", "suspense", "--entry", "S/1", "--although", "why", *who),
            "goes without --entry",
        ),
        (("run", "--partner", "01030000", "--date", str(day)), f"one of reconcile.partners: {BANK}"),
        (("run", "--partner", BANK, "--date", str(day)), "no file of"),
        (("list", "--state", "lost"), "state: one of"),
        (("resolve", "1", "--as", "lost", *who), "as: one of"),
        (("resolve", "1", "--as", "case", *who), "case: a number goes with"),
        (("show", "1"), "no such difference"),
        (("list", "--csv", "no/such/folder"), "No such file"),
    ):
        with pytest.raises(SwitchError, match=why):
            ran(*words)
