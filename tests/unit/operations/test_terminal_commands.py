"""`cardswitch parameters`, `terminals` and `hotlist` as an operator uses them, against a real PostgreSQL."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from switch.__main__ import cli
from switch.domain.errors import InputRefused
from switch.domain.identifiers import mask_asn
from switch.keys import sm2
from switch.keys.opening import create_vault
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import DatabaseKeyStore
from switch.keys.vault import LIST_SIGNING_KEY
from switch.registry.upkeep import store_status, wanted_parameters
from tests.unit.registry.helpers import city, open_day, run_import, write

pytestmark = pytest.mark.server

Run = Callable[..., Result]
HEAD = "operation,asn,level,reason\n"
CARD = "03133500190000000001"


@pytest.fixture
def run(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `cardswitch ...` on a small city; errors of ours come out as they are."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        run_import(connection, write(tmp_path, city()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(cli, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_what_is_set_is_shown_with_where_it_comes_from_and_who_set_it(run: Run) -> None:
    assert "all: timeout_s changed" in run("parameters", "set", "timeout_s=45", "--actor", "li wei").output
    assert "nothing changed" in run("parameters", "set", "timeout_s=45").output
    done = json.loads(run("parameters", "set", "resends=1", "--category", "4111", "--json").output)
    assert done == {"for": "category 4111", "changed": ["resends"]}
    shown = json.loads(run("parameters", "show", "--terminal", "33500001", "--json").output)
    found = {row["name"]: (row["value"], row["source"]) for row in shown["parameters"]}
    assert found["timeout_s"] == ("45", "all")
    assert found["resends"] == ("1", "category")
    assert found["records_per_upload"] == ("5", "switch")
    assert "resends" in run("parameters", "show").output
    log = json.loads(run("parameters", "log", "--most", "2", "--json").output)["changes"]
    assert [(row["scope"], row["name"], row["value"]) for row in log] == [
        ("category 4111", "resends", 1),
        ("all", "timeout_s", 45),
    ]
    assert log[1]["actor"] == "li wei"
    assert "li wei" in run("parameters", "log").output


def test_two_scopes_a_parameter_twice_and_an_unknown_terminal_are_refused(run: Run) -> None:
    both = run("parameters", "show", "--category", "4111", "--terminal", "33500001")
    assert both.exit_code == 2
    assert run("parameters", "show", "--category", "41").exit_code == 2
    with pytest.raises(InputRefused, match="twice"):
        run("parameters", "set", "resends=1", "resends=2")
    with pytest.raises(InputRefused, match="registered"):
        run("parameters", "show", "--terminal", "00000000")
    with pytest.raises(InputRefused, match="00000000"):
        run("terminals", "status", "00000000")


async def test_status_tells_who_reported_what_and_how_it_differs(
    run: Run, pg: psycopg.AsyncConnection[Any]
) -> None:
    cursor = await pg.execute("SELECT terminal_no FROM terminal WHERE terminal_id = '33500001'")
    row = await cursor.fetchone()
    assert row is not None
    right = dict((await wanted_parameters(pg, row[0])).values)
    await store_status(pg, row[0], [*(right | {"12": "30", "31": "00000007", "32": "000012"}).items()])
    document = json.loads(run("terminals", "status", "--json").output)
    by_id = {terminal["terminal_id"]: terminal for terminal in document["terminals"]}
    assert set(by_id) == {"33500001", "33500005"}  # those that are active
    told = by_id["33500001"]
    assert told["differences"] == [
        {"name": "timeout_s", "reported": "30", "wanted": "60"},
        {"name": "hot_list_version", "reported": "7", "wanted": "0"},
    ]
    assert (told["unsent_records"], told["hot_list_version"]) == (12, 7)
    assert 0 <= told["report_age_s"] < 600
    assert by_id["33500005"]["reported_at"] is None
    assert by_id["33500005"]["differences"] == [{"name": "parameters", "reported": "", "wanted": "newest"}]

    text = run("terminals", "status", "33500001").output
    assert "timeout_s 30 (should be 60)" in text
    assert "never" in run("terminals", "status", "33500005").output
    await store_status(pg, row[0], [*(right | {"31": "00000000"}).items()])
    left = json.loads(run("terminals", "status", "--behind", "--json").output)["terminals"]
    assert [terminal["terminal_id"] for terminal in left] == ["33500005"]


def test_a_hot_list_is_drawn_published_and_shown_masked(run: Run, tmp_path: Path) -> None:
    card = "03133500190000000001"
    file = tmp_path / "list.csv"
    file.write_text(f"operation,asn,level,reason\nA,{card},01,COUNTERFEIT\n", encoding="utf-8")
    assert "nothing was published" in run("hotlist", "publish").output
    assert "adds 1 and removes 0" in run("hotlist", "import", str(file)).output
    assert "version 1: 1 cards" in run("hotlist", "publish", "--actor", "li wei").output
    shown = json.loads(run("hotlist", "show", "--entries", "--json").output)
    assert [(row["version"], row["actor"], row["entries"]) for row in shown["versions"]] == [(1, "li wei", 1)]
    assert shown["entries"] == [
        {"asn": mask_asn(card), "level": "01", "reason": "COUNTERFEIT", "since_version": 1}
    ]
    file.write_text("operation,asn,level,reason\n", encoding="utf-8")
    drawn = json.loads(run("hotlist", "import", "--full", str(file), "--json").output)
    assert drawn == {"draft": {"added": 0, "removed": 1}}
    text = run("hotlist", "show", "--entries").output
    assert "draft" in text
    assert card not in text
    run("hotlist", "discard")
    assert json.loads(run("hotlist", "publish", "--json").output) == {"published": None}


def test_lists_are_published_moved_stopped_taken_back_exported_and_shown(
    run: Run, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDSWITCH_VAULT__PASSPHRASE", "a passphrase for the tests")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        secret = UnlockSecret.passphrase("a passphrase for the tests")
        vault = create_vault(DatabaseKeyStore(connection), secret, rehearsal=True)
    assert json.loads(run("lists", "group", "pilot", "--add", "33500001", "--json").output) == {
        "groups": {"pilot": ["33500001"]}
    }
    with pytest.raises(InputRefused, match="99999999"):
        run("lists", "group", "pilot", "--add", "99999999")
    with pytest.raises(InputRefused, match="no group"):
        run("lists", "publish", "param", "resends=1", "--stages", "nobody,100")
    assert "nothing was published" in run("lists", "publish", "hot").output
    (tmp_path / "list.csv").write_text(HEAD + f"A,{CARD},01,COUNTERFEIT\n", encoding="utf-8")
    run("hotlist", "import", "list.csv")
    assert (
        "hot version 1: pilot > 100"
        in run("lists", "publish", "hot", "--stages", "pilot,100", "--actor", "li wei").output
    )
    (tmp_path / "city.csv").write_text("what,value,use\nissuer,99993350FFFFFFFF,own\n", encoding="utf-8")
    assert json.loads(run("lists", "publish", "city", "city.csv", "--json").output) == {
        "list": "city",
        "published": 1,
    }
    assert json.loads(run("lists", "publish", "param", "resends=1", "--json").output)["published"] == 2
    assert run("lists", "publish", "city").exit_code == 2
    assert run("lists", "publish", "param").exit_code == 2
    assert run("lists", "publish", "hot", "x").exit_code == 2
    shown = json.loads(run("lists", "status", "--json").output)["lists"]
    assert [(row["kind"], row["version"], row["stage"], row["state"]) for row in shown] == [
        ("CITY", 1, 1, "RUNNING"),
        ("HOT", 1, 1, "RUNNING"),
        ("PARAM", 2, 1, "RUNNING"),
    ]
    assert "pilot (1 of 2)" in run("lists", "status", "hot").output
    assert "files below" in run("lists", "export", "out").output
    manifest = (tmp_path / "out/ccs/v1/list/hot/now").read_bytes()
    sm2.verify(vault.public_key(LIST_SIGNING_KEY), manifest[:-64], manifest[-64:])
    assert (tmp_path / "out/ccs/v1/list/hot/1/F/1").stat().st_size == 24 + 12 + 32
    assert CARD not in run("lists", "status").output
    stopped = json.loads(run("lists", "stop", "hot", "--reason", "gates", "--json").output)
    assert stopped == {"list": "hot", "version": 1, "stage": 1, "state": "STOPPED"}
    assert "running" in run("lists", "rollout", "hot", "--resume").output
    assert "stage 2 of 2" in run("lists", "rollout", "hot").output
    assert "version 2" in run("lists", "rollback", "hot", "--actor", "wang fang").output
    history = run("lists", "history", "hot").output
    assert all(word in history for word in ("wang fang", "gates", "supersede", "resume", "by hand"))
    assert len(json.loads(run("lists", "history", "--most", "2", "--json").output)["events"]) == 2
    fleet = json.loads(run("fleet", "--json").output)
    assert [row["terminal_id"] for row in fleet["shown"]] == ["33500001", "33500005"]
    assert "2 of 2 terminals; 0 buses not home" in run("fleet", "--order", "seen").output
    assert "0 of 2 terminals" in run("fleet", "--only", "away").output
    with pytest.raises(InputRefused, match="evening"):
        run("fleet", "--evening", "late")
