"""`cardswitch routes` against a real PostgreSQL, as an operator uses it."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from switch.domain.errors import InputRefused
from switch.operations.commands.routes import app, examine
from tests.unit.registry.helpers import BANK as BANK_ID
from tests.unit.registry.helpers import (
    MERCHANT,
    PAN,
    bank_card_of,
    binding,
    bound,
    city,
    open_day,
    run_import,
    write,
)
from tests.unit.routing.tables import text
from tests.unit.routing.tables import write as write_rows

pytestmark = pytest.mark.server

Run = Callable[..., Result]
BANK = "10 cards=622202 account=BANK HOST:icbc"
HOSPITALS = "20 account=MEDICAL category=8062 HOST:social>LEDGER"
STRANGER = "622202" + "0" * 13


@pytest.fixture
def run(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `cardswitch routes ...` on a registered city."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        run_import(connection, write(tmp_path, city()))

    def run_it(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, catch_exceptions=False)

    return run_it


def said(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def history(run: Run) -> tuple[list[int], list[tuple[int | None, str]]]:
    document = said(run("versions", "--json"))
    return (
        [one["version"] for one in document["versions"]],
        [(one["version"], one["action"]) for one in document["activations"]],
    )


def test_a_table_is_imported_shown_exported_and_imported_again_without_a_change(
    run: Run, tmp_path: Path
) -> None:
    path = write_rows(tmp_path, HOSPITALS, BANK)
    first = said(run("import", path, "--actor", "li wei", "--note", "first", "--json"))
    assert (first["version"], first["changed"], first["in_force"], first["rows"]) == (1, True, True, 2)
    assert [one["precedence"] for one in first["warnings"]] == [20, 10]
    shown = said(run("show", "--json"))
    assert [(row["precedence"], row["to"]) for row in shown["rows"]] == [
        ("10", "HOST:icbc"),
        ("20", "HOST:social>LEDGER"),
    ]
    out = tmp_path / "out.csv"
    assert run("export", "--out", str(out)).exit_code == 0
    assert out.read_text() == run("export").stdout == text(BANK, HOSPITALS)
    for again in (str(out), path):
        assert said(run("import", again, "--json"))["changed"] is False
    assert history(run) == ([1], [(1, "ACTIVATE")])
    told = run("versions").stdout
    assert "li wei" in told
    assert "first" in told
    assert first["digest"][:16] in told


def test_a_faulty_table_changes_nothing(run: Run, tmp_path: Path) -> None:
    run("import", write_rows(tmp_path, BANK))
    faulty = write_rows(
        tmp_path, "10 cards=6222 HOST:icbc", "20 cards=622202 HOST:ccb", "30 scope=LOCAL HOST:icbc"
    )
    for command in (("import", faulty, "--json"), ("check", faulty, "--json")):
        refused = run(*command)
        assert refused.exit_code == 1
        document = json.loads(refused.stdout)
        assert document["done"] is False
        assert [(fault["place"], fault["field"]) for fault in document["faults"]] == [
            ("row 20", "precedence"),
            ("row 30", "to"),
        ]
    plain = run("import", faulty)
    assert plain.exit_code == 1
    assert "row 20: precedence: is never reached: 10 takes all of it" in plain.output
    assert history(run) == ([1], [(1, "ACTIVATE")])


def test_versions_are_kept_activated_and_rolled_back_to_nothing(run: Run, tmp_path: Path) -> None:
    assert said(run("show", "--json"))["version"] == 0
    assert said(run("import", write_rows(tmp_path, BANK), "--json"))["version"] == 1
    kept = said(run("import", write_rows(tmp_path, BANK, HOSPITALS), "--keep", "--json"))
    assert (kept["version"], kept["in_force"]) == (2, False)
    assert said(run("show", "--json"))["version"] == 1
    assert said(run("activate", "2", "--json"))["changed"] is True
    assert said(run("activate", "2", "--json"))["changed"] is False
    assert said(run("activate", "1", "--json"))["version"] == 1
    for expected in (2, 1, 0):
        assert said(run("rollback", "--json"))["version"] == expected
        assert said(run("show", "--json"))["version"] == expected
    with pytest.raises(InputRefused, match="nothing to go back from"):
        run("rollback")
    with pytest.raises(InputRefused, match="no version 9"):
        run("activate", "9")
    assert said(run("activate", "2", "--json"))["version"] == 2
    assert history(run)[1] == [
        (1, "ACTIVATE"), (2, "ACTIVATE"), (1, "ACTIVATE"), (2, "ROLLBACK"), (1, "ROLLBACK"), (None, "ROLLBACK"), (2, "ACTIVATE"),
    ]  # fmt: skip


def test_versions_can_neither_be_changed_nor_removed(run: Run, tmp_path: Path, postgres_url: str) -> None:
    run("import", write_rows(tmp_path, BANK))
    for table in ("route_table", "route_activation"):
        for statement in (
            f"DELETE FROM {table}",
            f"UPDATE {table} SET actor = 'me'",
            f"TRUNCATE {table} CASCADE",
        ):
            with (
                psycopg.connect(postgres_url) as connection,
                pytest.raises(psycopg.errors.RestrictViolation, match="append-only"),
            ):
                connection.execute(statement.encode())


def test_an_old_version_that_the_registry_has_overtaken_is_not_put_in_force(
    run: Run, tmp_path: Path, postgres_url: str
) -> None:
    run("import", write_rows(tmp_path, "10 cards=62335 HOST:icbc"), "--keep")
    ours = [
        {"issuer_id": "99993350FFFFFFFF", "institution_id": "99993350", "own": True, "bins": "313350 62335"}
    ]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        run_import(connection, write(tmp_path, city(card_issuers=ours)))
        assert examine(connection, frozenset({"99993350FFFFFFFF"})) == (0, [])
    refused = run("activate", "1")
    assert refused.exit_code == 1
    assert "row 10: to: takes requests on own online accounts" in refused.output
    assert said(run("show", "--json"))["version"] == 0


#   card       options                                                                 decided by, outcome begins with
EXPLAINED: list[tuple[str, list[str], int | None, str]] = [
    (PAN, [], None, "LEDGER"),
    (PAN, ["--account", "MEDICAL"], None, "LEDGER"),
    (PAN, ["--account", "BANK"], 40, "answered 92"),
    (STRANGER, ["--account", "BANK"], 10, "answered 92"),
    (STRANGER, [], None, "answered 15"),
    ("622202000000", ["--account", "BANK"], 10, "answered 92"),
    ("313310000000", [], None, "answered 92"),
    ("313310000000", ["--amount", "50001", "--at", "2026-03-15 22:00"], 30, "answered 57"),
    ("313310000000", ["--amount", "50001", "--at", "2026-03-15T21:59"], None, "answered 92"),
    (PAN, ["--merchant", MERCHANT, "--type", "BALANCE"], 50, "answered 57"),
]


@pytest.mark.parametrize(("card", "options", "row", "outcome"), EXPLAINED)
def test_check_tells_which_row_decides_and_shows_no_card(
    run: Run, tmp_path: Path, card: str, options: list[str], row: int | None, outcome: str
) -> None:
    path = write_rows(
        tmp_path,
        BANK,
        "30 scope=NATION amount_fen=50001- hours=22:00-06:00 REFUSE:57",
        "40 account=BANK REFUSE:92",
        "50 type=BALANCE category=4111 REFUSE:57",
    )
    assert run("import", path).exit_code == 0
    for source in ([], [path], ["--version", "1"]):
        result = run("check", *source, "--pan", card, *options, "--json")
        document = said(result)
        assert document["decided_by"] == row
        assert document["outcome"].startswith(outcome)
        assert document["ours"] == (card == PAN)
        plain = run("check", *source, "--pan", card, *options, "--all").output
        assert card not in result.output + plain
        assert f"=> {outcome}" in plain
        assert (f"row {row}: decides" if row else "built in: decides") in plain


HOSTS = json.dumps(
    [
        {"name": "icbc", "institution": BANK_ID, "host": "127.0.0.1", "port": 9583},
        {"name": "next-city", "institution": "99993310", "host": "127.0.0.1", "port": 9584},
    ]
)


def test_check_tells_which_bank_would_pay_by_which_host_and_shows_neither_number(
    run: Run, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ("check", "--pan", PAN, "--account", "BANK")
    unbound = said(run(*ask, "--json"))
    assert (unbound["bound_to"], unbound["outcome"]) == (None, "LEDGER")
    assert "answered 57" in unbound["remark"]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        run_import(connection, write(tmp_path, bound(binding(1))))
    homeless = said(run(*ask, "--json"))
    assert homeless["outcome"].startswith("answered 92")
    assert "which has no host here" in run(*ask).stdout
    monkeypatch.setenv("CARDSWITCH_HOSTS__LINKS", HOSTS)
    found = said(run(*ask, "--json"))
    assert (found["bound_to"], found["outcome"], found["links"]) == (BANK_ID, "HOST:icbc", ["icbc"])
    told = run(*ask).stdout
    assert f"a card of bank {BANK_ID} is bound to it" in told
    assert "=> HOST:icbc" in told
    assert bank_card_of(1) not in told
    assert PAN not in told
    assert said(run("check", "--pan", PAN, "--json"))["bound_to"] is None  # the online account is asked for
    run("import", write_rows(tmp_path, "10 account=BANK REFUSE:57"))
    assert said(run(*ask, "--json"))["outcome"].startswith("answered 57")


def test_check_tells_by_which_link_another_city_is_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDSWITCH_HOSTS__LINKS", HOSTS)
    document = said(run("check", "--pan", "313310000000", "--json"))
    assert (document["outcome"], document["links"]) == ("CITY:99993310", ["next-city"])
    assert "by way of host next-city" in run("check", "--pan", "313310000000").stdout


def test_a_host_of_the_settings_is_no_stranger_to_a_table(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDSWITCH_HOSTS__LINKS", HOSTS)
    assert said(run("check", write_rows(tmp_path, BANK), "--json"))["warnings"] == []


def test_check_asks_for_an_issuers_cards_and_says_what_comes_before_the_table(run: Run) -> None:
    assert said(run("check", "--issuer", "99993310FFFFFFFF", "--json"))["to"] == ["CITY:99993310"]
    assert said(run("check", "--issuer", "99993350FFFFFFFF", "--json"))["to"] == ["LEDGER"]
    wrong = PAN[:-1] + str((int(PAN[-1]) + 1) % 10)
    assert "14" in said(run("check", "--pan", wrong, "--json"))["remark"]
    assert "13" in said(run("check", "--pan", PAN, "--amount", "0", "--json"))["remark"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "--pan", PAN, "--issuer", "99993350FFFFFFFF"],
        ["check", "--pan", PAN, "--account", "SAVINGS"],
        ["check", "--pan", PAN, "--type", "VOID"],
        ["check", "--pan", PAN, "--at", "tomorrow"],
        ["check", "nothing.csv"],
        ["import", "nothing.csv"],
        ["activate", "one"],
    ],
)
def test_wrong_use_is_told(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--pan", "31335001"], "pan"),
        (["--pan", "3133500100x0"], "pan"),
        (["--issuer", "1234567890ABCDEF"], "issuer"),
        (["--pan", PAN, "--merchant", "0" * 15], "merchant"),
    ],
)
def test_who_is_asked_about_must_be_there(run: Run, arguments: list[str], rule: str) -> None:
    with pytest.raises(InputRefused, match=rule) as refused:
        run("check", *arguments)
    assert "3133" not in str(refused.value)


def test_a_table_in_force_that_the_registry_has_overtaken_is_found(
    run: Run, tmp_path: Path, postgres_url: str
) -> None:
    run("import", write_rows(tmp_path, "10 cards=62335 HOST:icbc"))
    ours = [
        {"issuer_id": "99993350FFFFFFFF", "institution_id": "99993350", "own": True, "bins": "313350 62335"}
    ]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        assert examine(connection, frozenset()) == (1, [])
        run_import(connection, write(tmp_path, city(card_issuers=ours)))
        version, faults = examine(connection, frozenset())
    assert version == 1
    assert "own online accounts" in faults[0]
    assert run("check").exit_code == 1
    explained = said(run("check", "--pan", "623350000000", "--json"))
    assert (explained["decided_by"], explained["to"]) == (10, ["LEDGER"])


def test_the_example_of_the_documents_is_taken_and_explained_as_it_stands_there(
    run: Run, tmp_path: Path, postgres_url: str
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "routing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    table = next(block for block in blocks if block.startswith("precedence,"))
    command, _, answer = next(block for block in blocks if block.startswith("$ ")).partition("\n")
    issuers = [one | ({} if one["own"] else {"circle": "HANGZHOU"}) for one in city()["card_issuers"]]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        run_import(connection, write(tmp_path, city(card_issuers=issuers)))
    path = tmp_path / "example.csv"
    path.write_text(table)
    assert run("import", str(path)).exit_code == 0
    assert run(*shlex.split(command)[3:]).stdout == answer


def test_a_table_of_ten_thousand_rows_is_taken_in_and_one_more_row_is_not(run: Run, tmp_path: Path) -> None:
    rows = [f"{n},{n + 100_000_000},BANK,HOST:icbc" for n in range(1, 10_002)]
    path = tmp_path / "many.csv"
    for count, status in ((10_001, 1), (10_000, 0)):
        path.write_text("precedence,cards,account,to\n" + "\n".join(rows[:count]) + "\n")
        assert run("import", str(path)).exit_code == status
    assert history(run)[0] == [1]
