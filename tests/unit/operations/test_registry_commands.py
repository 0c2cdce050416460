"""`cardswitch registry` against a real PostgreSQL, as an operator uses it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from switch.domain.errors import InputRefused
from switch.keys.opening import create_vault
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import DatabaseKeyStore
from switch.operations.commands.registry import app
from tests.unit.registry.helpers import card, city, pan_of, write

pytestmark = pytest.mark.server

Run = Callable[..., Result]


@pytest.fixture
def run(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `cardswitch registry ...` in a folder of its own; errors of ours come out as they are."""
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    monkeypatch.setenv("CARDSWITCH_VAULT__KEY_FILE", str(secret.with_name("keyfile")))
    secret.with_name("keyfile").write_bytes(os.urandom(64))
    secret.with_name("keyfile").chmod(0o600)

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def _vault(url: str, folder: Path, *, rehearsal: bool) -> None:
    with psycopg.connect(url) as connection:
        unlock = UnlockSecret.key_file(folder / "keyfile")
        create_vault(DatabaseKeyStore(connection), unlock, rehearsal=rehearsal)


def _figures(url: str) -> Any:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT (SELECT count(*) FROM card), (SELECT sum(amount_fen)::bigint FROM posting),"
            " (SELECT count(*) FROM account WHERE pin_verifier IS NOT NULL)"
        ).fetchone()


def test_an_import_books_on_the_open_day_and_says_what_it_did(
    run: Run, postgres_url: str, tmp_path: Path
) -> None:
    path = str(write(tmp_path, city()))
    result = run("import", path, "--json", "--actor", "li wei")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["done"]
    assert document["kinds"]["cards"] == {"read": 1, "created": 1, "changed": 0}
    assert document["openings"]["2001"] == {"postings": 1, "amount_fen": 10_000}
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute(
            "SELECT p.business_date::text, count(*) FROM posting p JOIN business_day d USING (business_date)"
            " WHERE now() BETWEEN d.begins_at AND d.ends_at GROUP BY 1"
        ).fetchone()
    assert row == (document["business_date"], 2)
    again = run("import", path)
    assert again.exit_code == 0
    assert [line.split()[-1] for line in again.stdout.splitlines()[1:]] == ["2", "2", "2", "4", "1", "2", "1"]


def test_an_old_file_says_which_states_it_did_not_bring_back(
    run: Run, postgres_url: str, tmp_path: Path
) -> None:
    path = str(write(tmp_path, city()))
    run("import", path)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE card SET state = 6")
    assert "cards that stay REPLACED where the files say ACTIVE: 1" in run("import", path).stdout.splitlines()
    kept = json.loads(run("import", path, "--json").stdout)["kept"]
    assert kept == [{"state": "REPLACED", "in_files": "ACTIVE", "cards": 1}]


def test_faults_are_listed_and_the_exit_status_says_failed(
    run: Run, postgres_url: str, tmp_path: Path
) -> None:
    path = str(write(tmp_path, city(cards=[card(1, pan="3133500100000001230")])))
    plain = run("import", path)
    assert plain.exit_code == 1
    assert "cards[0]: pan: the check digit (Luhn) is wrong" in plain.stderr
    document = json.loads(run("import", path, "--json").stdout)
    assert document["faults"][0]["field"] == "pan"
    assert _figures(postgres_url) == (0, None, 0)


def test_a_dry_run_changes_nothing(run: Run, postgres_url: str, tmp_path: Path) -> None:
    result = run("import", str(write(tmp_path, city())), "--dry-run")
    assert result.exit_code == 0
    assert "nothing was changed" in result.stdout
    assert _figures(postgres_url) == (0, None, 0)


def test_a_rehearsal_vault_takes_pins_and_another_refuses_them(
    run: Run, postgres_url: str, tmp_path: Path
) -> None:
    path = str(write(tmp_path, city(cards=[card(1, online_opening_fen=5, pin="123456")])))
    _vault(postgres_url, tmp_path, rehearsal=True)
    assert run("import", path).exit_code == 0
    assert _figures(postgres_url) == (1, 5, 1)


def test_a_production_vault_refuses_clear_pins(run: Run, postgres_url: str, tmp_path: Path) -> None:
    path = str(write(tmp_path, city(cards=[card(1, online_opening_fen=5, pin="123456")])))
    _vault(postgres_url, tmp_path, rehearsal=False)
    with pytest.raises(InputRefused, match="rehearsal"):
        run("import", path)
    assert _figures(postgres_url) == (0, None, 0)


def test_an_export_imports_again_without_a_change(run: Run, tmp_path: Path) -> None:
    rules = [{"merchant_id": city()["merchants"][0]["merchant_id"], "account_kind": "PURSE", "rate_ppm": 1,
              "cap_fen": 5, "valid_from": "2024-01-01", "valid_to": "2024-12-31"}]  # fmt: skip
    cards = [card(1, holder="h", medical_opening_fen=3, purse_opening_fen=7), card(2, state="LOSS_TEMP")]
    run("import", str(write(tmp_path, city(fee_rules=rules, cards=cards))))
    whole, folder = tmp_path / "out.json", tmp_path / "out"
    folder.mkdir()
    assert run("export", "--out", str(whole), "--with-cards").exit_code == 0
    assert run("export", "--out", str(folder), "--with-cards").exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "bindings.csv",
        "card_issuers.csv",
        "cards.csv",
        "fee_rules.csv",
        "institutions.csv",
        "merchants.csv",
        "psams.csv",
        "terminals.csv",
    ]
    assert {path.stat().st_mode & 0o777 for path in (whole, *folder.iterdir())} == {0o600}
    for files in ([whole], sorted(folder.iterdir())):
        document = json.loads(run("import", *map(str, files), "--json").stdout)
        changes = {name: (kind["created"], kind["changed"]) for name, kind in document["kinds"].items()}
        assert set(changes.values()) == {(0, 0)}, changes
        assert document["kinds"]["cards"]["read"] == 2


def test_cards_are_exported_only_on_demand_and_only_to_files(run: Run, tmp_path: Path) -> None:
    run("import", str(write(tmp_path, city())))
    shown = run("export")
    assert json.loads(shown.stdout)["merchants"]
    assert pan_of(1) not in shown.stdout
    assert run("export", "--with-cards").exit_code == 2
    assert run("export", "--kind", "cards").exit_code == 2
    assert run("export", "--kind", "cows").exit_code == 2
    assert run("export", "--out", str(tmp_path / "city.txt")).exit_code == 2
    only = json.loads(run("export", "--kind", "terminals").stdout)
    assert set(only) == {"format", "version", "terminals"}
