import json

import psycopg
import pytest
from typer.testing import CliRunner

from switch.domain.errors import ConfigurationError, InputRefused, SwitchError
from switch.keys.opening import create_vault
from switch.keys.records import KeyMissingError
from switch.keys.rehearsal import FORMAT
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import DatabaseKeyStore
from switch.operations.commands.keys import app

pytestmark = pytest.mark.server

PASSPHRASE = "a passphrase for tests"
FIRST, SECOND = "00112233445566778899AABBCCDDEEFF", "0F1E2D3C4B5A69788796A5B4C3D2E1F0"
TWO = ["--operator", "li wei", "--operator", "wang fang"]


@pytest.fixture
def make(postgres_url, monkeypatch, tmp_path):
    """Make a vault in a fresh database that the settings name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)
    monkeypatch.setenv("CARDSWITCH_VAULT__PASSPHRASE", PASSPHRASE)

    def make(*, rehearsal):
        with psycopg.connect(postgres_url) as connection:
            create_vault(
                DatabaseKeyStore(connection), UnlockSecret.passphrase(PASSPHRASE), rehearsal=rehearsal
            )

    return make


def run(*arguments, typed=()):
    """Run a command; what went wrong on purpose is raised, as switch.__main__ would print it."""
    result = CliRunner().invoke(app, list(arguments), input="".join(f"{line}\n" for line in typed))
    if isinstance(result.exception, SwitchError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_ceremony_under_dual_control_shows_check_values_and_no_component(make):
    make(rehearsal=False)
    typed = ["li wei", "wang fang", "not hex", FIRST, "n", FIRST, "y", SECOND, "y", "y"]
    result = run("ceremony", "--type", "TMMK", "--algorithm", "SM4", "--json", typed=typed)
    assert result.exit_code == 0
    made = json.loads(
        result.stdout[result.stdout.index("{") :]
    )  # before it: what the runner echoes of the typing
    assert (made["name"], made["state"], made["rehearsal"]) == ("TMMK/SM4/v1/national", "active", False)
    assert made["kcv"] in result.stderr
    assert "a component must be 32 hex digits" in result.stderr
    assert not any(secret in result.output for secret in (FIRST, SECOND))
    assert run("kcv", "TMMK/SM4/v1/national").stdout.startswith(made["kcv"])
    [entry] = [
        entry for entry in json.loads(run("list", "--log", "--json").stdout) if entry["key"] == made["name"]
    ]
    assert entry["operators"] == ["li wei", "wang fang"]


def test_custodians_who_do_not_confirm_change_nothing(make):
    make(rehearsal=False)
    with pytest.raises(InputRefused, match="nothing was changed"):
        run("ceremony", "--type", "DTK", *TWO, typed=[FIRST, "y", SECOND, "y", "n"])
    with pytest.raises(InputRefused, match="dual control"):
        run(
            "ceremony",
            "--type",
            "DTK",
            "--operator",
            "li",
            "--operator",
            "LI",
            typed=[FIRST, "y", SECOND, "y", "y"],
        )
    assert "DTK" not in run("list").stdout


def test_a_rehearsal_file_is_read_into_a_rehearsal_vault_only(make, tmp_path):
    make(rehearsal=True)
    path = tmp_path / "rehearsal.json"
    keys = [{"type": kind, "algorithm": "SM4", "components": [FIRST, SECOND]} for kind in ("TMMK", "DTK")]
    path.write_text(json.dumps({"format": FORMAT, "keys": keys}))
    made = json.loads(run("ceremony", "--rehearsal", str(path), "--json").stdout)
    assert [(key["name"], key["new"]) for key in made["keys"]] == [
        ("TMMK/SM4/v1/national", True),
        ("DTK/SM4/v1/national", True),
    ]
    assert "(was there)" in run("ceremony", "--rehearsal", str(path)).stdout
    listed = json.loads(run("list", "--json").stdout)
    assert listed["rehearsal"] is True
    assert len(next(key for key in listed["keys"] if key["type"] == "SM2")["public_key"]) == 130
    terminal = json.loads(run("kcv", "--terminal", "33500003", "--json").stdout)
    assert len(terminal["TMK of 33500003"]) == 8
    assert FIRST not in run("list").output


def test_a_production_vault_takes_no_rehearsal_file(make, tmp_path):
    make(rehearsal=False)
    path = tmp_path / "rehearsal.json"
    keys = [{"type": "DTK", "algorithm": "SM4", "components": [FIRST]}]
    path.write_text(json.dumps({"format": FORMAT, "keys": keys}))
    with pytest.raises(InputRefused, match="not marked for rehearsal"):
        run("ceremony", "--rehearsal", str(path))


def test_production_does_not_open_a_rehearsal_vault(make, monkeypatch):
    make(rehearsal=True)
    monkeypatch.setenv("CARDSWITCH_VAULT__PRODUCTION", "true")
    with pytest.raises(ConfigurationError, match="rehearsal"):
        run("list")


def test_keys_roll_over_and_are_destroyed(make):
    make(rehearsal=False)
    run("generate", "--type", "DTK", *TWO)
    assert "pre-active" in run("rotate", "DTK/SM4/v1/national", *TWO).stdout
    assert "active" in run("state", "DTK/SM4/v2/national", "active", *TWO).stdout
    run("state", "DTK/SM4/v1/national", "verify-only", *TWO)
    assert run("state", "DTK/SM4/v1/national", "retired", *TWO, typed=["n"]).exit_code == 1
    assert "retired" in run("state", "DTK/SM4/v1/national", "retired", "--yes", *TWO).stdout
    with pytest.raises(InputRefused, match="cannot become"):
        run("state", "DTK/SM4/v1/national", "active", *TWO)
    entered = run(
        "rotate", "DTK/SM4/v2/national", "--components", "2", *TWO, typed=[FIRST, "y", SECOND, "y", "y"]
    )
    assert "DTK/SM4/v3/national" in entered.stdout
    assert run("list").exit_code == 0


def test_partner_keys_go_out_and_come_in_wrapped(make):
    make(rehearsal=False)
    for kind in ("ZMK", "ZPK"):
        run("generate", "--type", kind, "--owner", "01020000", *TWO)
    names = ["ZPK/SM4/v1/01020000", "--under", "ZMK/SM4/v1/01020000"]
    sent = json.loads(run("export", *names, "--json").stdout)
    came = ["--type", "ZPK", "--owner", "01020000", "--under", "ZMK/SM4/v1/01020000", "--version", "2"]
    taken = run("import", *came, "--wrapped", sent["wrapped"], "--kcv", sent["kcv"], "--json", *TWO)
    assert json.loads(taken.stdout)["kcv"] == sent["kcv"]
    with pytest.raises(InputRefused, match="check value"):
        run("import", *came[:-1], "3", "--wrapped", sent["wrapped"], "--kcv", "00000000", *TWO)
    assert run("import", *came, "--wrapped", "XY", "--kcv", "00", *TWO).exit_code == 2


def test_wrong_use_is_told_apart_from_a_refusal(make):
    make(rehearsal=False)
    assert run("ceremony").exit_code == 2
    assert run("ceremony", "--type", "DTK", "--rehearsal", "/dev/null").exit_code == 2
    assert run("ceremony", "--rehearsal", "/none").exit_code == 2
    assert run("rotate", "DTK/SM4/v1/national", "--components", "1", *TWO).exit_code == 2
    assert run("kcv", "--terminal", "1").exit_code == 2
    assert run("state", "DTK/SM4/v1/national", "odd", *TWO).exit_code == 2
    with pytest.raises(KeyMissingError, match="no key"):
        run("kcv", "DTK/SM4/v1/national")
    with pytest.raises(InputRefused, match="drawn by the vault"):
        run("ceremony", "--type", "PVK", "--algorithm", "SM3", "--level", "local", "--owner", "local", *TWO)


def test_a_damaged_key_is_shown_and_fails_the_command(make, postgres_url):
    make(rehearsal=False)
    run("generate", "--type", "DTK", *TWO)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("UPDATE key_record SET key_index = 9 WHERE key_type = 'DTK'")
    result = run("list")
    assert result.exit_code == 1
    assert "DAMAGED" in result.stdout
