import copy
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from switch.domain.errors import InputRefused
from switch.operations.commands.vectors import vectors
from switch.operations.known_answers.run import CHECKERS, run_document

FILES = Path(__file__).parents[2] / "vectors"
SUITES = sorted({suite for suite, _ in CHECKERS})
app = typer.Typer()
app.command()(vectors)


def document(suite):
    return json.loads((FILES / f"{suite}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("suite", SUITES)
def test_every_vector_of_the_suite_agrees(suite):
    verdicts = list(run_document(document(suite)))
    assert [verdict for verdict in verdicts if verdict.faults] == []
    assert verdicts
    assert len(verdicts) == len(document(suite)["vectors"]) + len(document(suite).get("published", ()))


def spoil(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return [*value, "more"]
    if isinstance(value, dict):
        return value | {"more": "more"}
    return value[:-1] + ("0" if not value.endswith("0") else "1") if value else "00"


@pytest.mark.parametrize("suite", ["mac", "pin", "sm", "keys", "epurse"])
def test_every_stated_value_is_looked_at(suite):
    whole = document(suite)
    for name in ("published", "vectors"):
        for place, entry in enumerate(whole.get(name, ())):
            for value_name, value in entry["out"].items():
                if entry["in"].get("iterations"):
                    continue  # a million rounds, once is enough
                changed = copy.deepcopy(entry)
                changed["out"][value_name] = spoil(value)
                [verdict] = run_document(whole | {"published": [], "vectors": [], name: [changed]})
                assert verdict.faults, (suite, place, value_name)


@pytest.mark.parametrize("suite", ["iso8583", "iso8583-negative", "host8583", "offline", "clearing"])
def test_every_stated_value_of_a_suite_that_builds_up_is_looked_at(suite):
    """Vectors here stand on those before them, so each value is spoilt with the whole file around it."""
    whole = document(suite)
    for place, entry in enumerate(whole["vectors"]):
        divided = "out" in entry
        for name, value in (entry["out"] if divided else entry).items():
            if name in ("id", "note", "direction") or value is None:
                continue
            if name in ("DLK", "mak") and "expected" in entry:
                continue  # the MAC is meant to be wrong, under this key or any other
            changed = copy.deepcopy(whole)
            target = changed["vectors"][place]
            (target["out"] if divided else target)[name] = spoil(value)
            # A DTK shows to be another one only at the confirm that follows its load.
            verdicts = list(run_document(changed))
            assert any(verdict.faults for verdict in verdicts[place:]), (entry["id"], name)


def test_an_unknown_operation_value_or_input_is_a_failure():
    vector = document("keys")["vectors"][-1]
    cases = {
        "nothing checks operation": vector | {"op": "unheard"},
        "nothing computes extra": vector | {"out": vector["out"] | {"extra": "00"}},
        "states nothing": vector | {"out": {}},
        "input key is missing": vector | {"in": {}},
        "no out values": {name: value for name, value in vector.items() if name != "out"},
        "broke off": vector | {"in": {"key": "XY"}},
    }
    for text, changed in cases.items():
        [verdict] = run_document({"suite": "keys", "vectors": [changed]})
        assert text in verdict.faults[0]
    [verdict] = run_document({"suite": "unheard", "vectors": [vector]})
    assert "nothing checks" in verdict.faults[0]


@pytest.mark.parametrize("content", [[], {}, {"suite": 5}, {"suite": "mac"}, {"suite": "mac", "vectors": []}])
def test_what_is_no_vector_file_is_refused(content):
    with pytest.raises(InputRefused):
        list(run_document(content))


def test_lines_count_and_exit_status(tmp_path):
    good = CliRunner().invoke(app, [str(FILES / "mac.json"), str(FILES / "pin.json")])
    assert good.exit_code == 0
    assert "ok MAC-001" in good.stdout
    assert good.stdout.splitlines()[-1] == "31 vectors: 31 ok, 0 failed"
    whole = document("mac")
    whole["vectors"][0]["out"]["x99_block"] = "00" * 8
    (tmp_path / "bad.json").write_text(json.dumps(whole))
    (tmp_path / "text.json").write_text("text")
    bad = CliRunner().invoke(app, [str(tmp_path / "bad.json"), str(tmp_path / "text.json")])
    assert bad.exit_code == 1
    assert "FAIL MAC-001: x99_block differs" in bad.stdout
    assert bad.stdout.splitlines()[-1] == "22 vectors: 21 ok, 1 failed, 1 files not run"
    assert CliRunner().invoke(app, [str(tmp_path / "none.json")]).exit_code == 2


def test_json_says_the_same_and_prints_no_value(tmp_path):
    whole = document("keys")
    whole["vectors"][0]["out"]["child_key"] = "00" * 16
    (tmp_path / "bad.json").write_text(json.dumps(whole))
    result = CliRunner().invoke(app, ["--json", str(tmp_path / "bad.json")])
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert (printed["count"], printed["failed"]) == (44, 1)
    assert whole["vectors"][0]["in"]["parent_key"] not in result.stdout
