"""`cardswitch risk` against a real PostgreSQL, as an operator uses it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from switch.domain.errors import InputRefused
from switch.operations.commands.risk import app
from switch.purse.risk.features import FEATURES
from tests.helpers.offline import build

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[3]
Run = Callable[..., Result]


@pytest.fixture
async def run(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `cardswitch risk ...` on a town with buses."""
    await build(postgres_url)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    (tmp_path / "rules.toml").write_bytes((ROOT / "deploy/risk.toml").read_bytes())
    return lambda *arguments: CliRunner().invoke(app, arguments, catch_exceptions=False)


def said(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_rules_are_imported_shown_exported_kept_activated_and_taken_back(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="no rules are in force"):
        run("show")
    assert said(run("import", "rules.toml", "--actor", "li wei", "--json"))["version"] == 1
    assert "in force" in run("import", "rules.toml").output
    assert run("export").stdout == (tmp_path / "rules.toml").read_text()
    assert said(run("show", "--json"))["rules"][0]["name"] == "clone-suspicion"
    other = tmp_path / "other.toml"
    other.write_text('format = 1\n[[rule]]\nname = "many"\nmatter = "card"\nwhen = ["card_rides_1h >= 3"]\n')
    assert "not in force" in run("import", "other.toml", "--keep", "--note", "later").output
    assert said(run("show", "--json"))["version"] == 1
    assert "version 2" in run("activate", "2", "--actor", "wang fang").output
    assert "many" in run("show").output
    assert said(run("rollback", "--json")) == {"taken_back": 2, "version": 1}
    document = said(run("versions", "--json"))
    assert [one["note"] for one in document["versions"]] == ["", "later"]
    assert [one["action"] for one in document["activations"]] == ["ACTIVATE", "ACTIVATE", "ROLLBACK"]
    assert "wang fang  ACTIVATE version 2" in run("versions").output
    with pytest.raises(InputRefused, match="no version 9"):
        run("activate", "9")


def test_rules_are_tried_run_and_closed_from_the_command_line(run: Run) -> None:
    assert "no rules are in force" in run("run").output
    tried = run("try", "rules.toml", "--since", "2026-01-01", "--until", "2026-01-31")
    assert "0 records" in tried.output
    assert "clone-suspicion" in tried.output
    assert (
        said(run("try", "rules.toml", "--since", "2026-01-01", "--until", "2026-01-31", "--json"))["records"]
        == 0
    )
    run("import", "rules.toml")
    assert said(run("run", "--json")) == {"version": 1, "records": 0, "hits": {}, "cut": []}
    assert "0 cases" in run("cases").output
    assert said(run("cases", "--all", "--json")) == []
    with pytest.raises(InputRefused, match="no such case"):
        run("close", "1", "--confirmed", "--reason", "a clone")
    assert run("close", "1", "--reason", "a clone").exit_code == 2


def test_a_trial_that_takes_too_long_is_stopped_and_says_so(
    run: Run, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switch.purse.risk.replay.STATEMENT_S_MAX", 0.05)
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE purse_record IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(InputRefused, match="fewer days"):
            run("try", "rules.toml", "--since", "2026-01-01", "--until", "2026-01-31")


def test_a_file_that_breaks_the_format_changes_nothing_and_says_where(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(
        'format = 1\n\n[[rule]]\nname = "x1"\nmatter = "bus"\nwhen = ["pan > 1"]\n'
    )
    refused = run("import", "bad.toml")
    assert refused.exit_code == 1
    assert "line 3: rule x1: matter" in refused.stderr
    answer = run("try", "bad.toml", "--since", "2026-01-01", "--json")
    assert (answer.exit_code, len(json.loads(answer.stdout)["faults"])) == (1, 2)
    assert said(run("versions", "--json"))["versions"] == []


def test_the_manual_has_every_figure_as_the_command_tells_it(run: Run) -> None:
    manual = (ROOT / "docs/risk.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z0-9_]+)` \| [^|]+ \| ([^|]+) \|$", manual, re.MULTILINE))
    assert {name: rows.get(name) for name in FEATURES} == {one.name: one.says for one in FEATURES.values()}
    assert len(said(run("features", "--json"))) == len(FEATURES)
    assert all(name in run("features").output for name in FEATURES)
