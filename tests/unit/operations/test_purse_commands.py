"""`cardswitch purse` on a city of three business days, as an operator uses it; no card number is ever printed."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from switch.domain.errors import InputRefused
from switch.operations.commands import purse
from tests.helpers.audited_days import STRAY
from tests.helpers.offline import pan_of, psam_of
from tests.unit.operations.conftest import Audited

pytestmark = [pytest.mark.server, pytest.mark.slow]

Run = Callable[..., Result]


@pytest.fixture
def run(audited: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on the city; errors of ours come out as they are, and no output may name a card."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", audited[0])
    with psycopg.connect(audited[0]) as connection:
        pans = [row[0] for row in connection.execute("SELECT pan FROM card_route").fetchall()]
    pans.append(pan_of(STRAY))

    def run(*arguments: str, line: str = "") -> Result:
        result = CliRunner().invoke(purse.app, arguments, input=line)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert not any(pan in result.output for pan in pans)
        return result

    return run


def test_a_card_is_shown_with_its_chain_holes_greys_loads_and_collisions(run: Run) -> None:
    shown = json.loads(run("card", "-", "--json", line=pan_of(1) + "\n").stdout)
    assert shown["clone_suspected"]
    assert (shown["counter"]["first"], shown["counter"]["next"], shown["next_atc"]) == (0, 6, 6)
    assert [(gap["from"], gap["to"], gap["closed_at"]) for gap in shown["gaps"]] == [(2, 4, None)]
    assert [step["atc"] for step in shown["chain"]] == [0, 1, 5]
    assert {load["state"] for load in shown["loads"]} == {"CONFIRMED", "REVERSED"}
    assert shown["balance_fen"] == shown["loaded_fen"] - shown["spent_fen"]
    text = run("card", pan_of(1)).stdout
    assert "CLONE SUSPECTED" in text
    assert "3 records have not come" in text
    decided = run("card", pan_of(2)).stdout
    assert "00 on " in decided
    assert "ATC 3 found 99400 fen" in decided
    accepted = run("card", pan_of(4)).stdout  # by a case
    assert "none within 60 days" in accepted
    stray = run("card", pan_of(STRAY)).stdout
    assert "not in the registry" in stray
    assert "BELOW ZERO" in stray
    with pytest.raises(InputRefused, match="no such card"):
        run("card", pan_of(400))


def test_terminals_and_psams_are_shown_with_what_is_expected_and_what_has_come(run: Run) -> None:
    shown = json.loads(run("terminal", "33500001", "--json").stdout)
    names = {(one["counter"], one["owner"]) for one in shown["counters"]}
    assert names == {("record_serial", "33500001"), ("psam_serial", psam_of(1).hex())}
    for one in shown["counters"]:
        assert one["expected"] == one["next"] - one["first"] == one["received"] + one["missing"]
        assert one["missing"] == sum(
            gap["count"]
            for gap in shown["gaps"]
            if gap["counter"] == one["counter"] and gap["closed_at"] is None
        )
    assert "ATC_COLLISION" in {alarm["kind"] for alarm in shown["alarms"]}
    assert "expected" in run("terminal", "33500001").stdout
    psam = json.loads(run("psam", psam_of(1).hex(), "--json").stdout)
    assert psam["place"] == "ACTIVE, 33500001"
    assert [one["owner"] for one in psam["counters"]] == [psam_of(1).hex()]
    assert "nothing has come yet" in run("psam", psam_of(5).hex()).stdout
    for command in (("terminal", "00000000"), ("psam", "123")):
        with pytest.raises(InputRefused, match="not registered"):
            run(*command)


def test_what_is_missing_is_named_by_range_and_can_be_narrowed(run: Run) -> None:
    every = json.loads(run("missing", "--json").stdout)["counters"]
    assert every
    assert {one["counter"] for one in every} <= {"psam_serial", "record_serial"}
    assert all(one["gaps"] for one in every)
    cards = json.loads(run("missing", "--cards", "--json").stdout)["counters"]
    assert "card_atc" in {one["counter"] for one in cards}
    old = json.loads(run("missing", "--cards", "--older-than", "30", "--json").stdout)["counters"]
    assert [one["counter"] for one in old] == ["card_atc"]
    one = json.loads(run("missing", "--terminal", "33500008", "--counter", "psam_serial", "--json").stdout)
    assert {row["owner"] for row in one["counters"]} == {psam_of(8).hex()}
    text = run("missing", "--cards").stdout
    assert "numbers missing in" in text
    assert "reported" in text
    with pytest.raises(InputRefused, match="counter"):
        run("missing", "--counter", "tickets")


def test_a_days_report_is_a_table_that_a_depot_can_open(run: Run, audited: Audited, tmp_path: Path) -> None:
    with psycopg.connect(audited[0]) as connection:
        row = connection.execute("SELECT min(business_date) FROM purse_record").fetchone()
    assert row is not None
    day = f"{row[0]:%Y-%m-%d}"
    rows = list(csv.DictReader(io.StringIO(run("report", "--date", day).stdout)))
    assert {one["counter"] for one in rows} == {"psam_serial", "record_serial"}
    brought = {
        one["device"]: int(one["records_that_day"]) for one in rows if one["counter"] == "record_serial"
    }
    assert brought["33500001"] > 5
    assert brought["33500008"] == 3
    assert all(int(one["expected"]) == int(one["received"]) + int(one["missing"]) for one in rows)
    only = run("report", "--date", day, "--merchant", "993350054110003").stdout
    assert {one["merchant"] for one in csv.DictReader(io.StringIO(only))} == {"993350054110003"}
    written = run("report", "--date", day, "--folder", str(tmp_path)).stdout
    (file,) = tmp_path.glob("missing-*")
    assert str(file) in written
    assert len(list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))) == len(rows)
    with pytest.raises(InputRefused, match="folder"):
        run("report", "--date", day, "--folder", str(tmp_path / "nowhere"))


def test_alarms_are_listed_shown_with_their_evidence_and_acknowledged(run: Run) -> None:
    found = json.loads(run("alarms", "--json").stdout)
    kinds = {one["kind"]: one["alarm_no"] for one in found}
    assert {
        "ATC_COLLISION",
        "CARD_UNREGISTERED",
        "SHADOW_NEGATIVE",
        "GAP_OVERDUE",
    } <= kinds.keys()
    for kind, number in kinds.items():
        text = run("alarms", "show", str(number)).stdout
        assert kind in text
        document = json.loads(run("alarms", "show", str(number), "--json").stdout)
        assert (document["record"] is None) == (kind == "GAP_OVERDUE")
    assert "the other: entry" in run("alarms", "show", str(kinds["ATC_COLLISION"])).stdout
    assert "opened again by wang fang" in run("alarms", "show", str(kinds["GAP_OVERDUE"])).stdout
    number = str(kinds["CARD_UNREGISTERED"])
    said = run("alarms", "acknowledge", number, "--reason", "card of the first lot", "--actor", "ann")
    assert said.stdout == "1 alarms acknowledged, by ann\n"
    assert int(number) not in [one["alarm_no"] for one in json.loads(run("alarms", "--json").stdout)]
    assert "[ann, " in run("alarms", "--all", "--kind", "CARD_UNREGISTERED").stdout
    with pytest.raises(InputRefused, match="acknowledged already by ann"):
        run("alarms", "acknowledge", number, "--reason", "again")
    run("alarms", "reopen", number, "--reason", "another card after all")
    assert run("alarms", "acknowledge", number).exit_code == 2
