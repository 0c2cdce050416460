"""What `cardswitch mqtt` makes for a broker's operator."""

import base64
import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from switch.__main__ import cli
from switch.domain.errors import InputRefused
from tests.unit.registry.helpers import city, open_day, run_import, write

pytestmark = pytest.mark.server

Run = Callable[..., Result]


@pytest.fixture
def run(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `cardswitch mqtt ...` on a small city; errors of ours come out as they are."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        run_import(connection, write(tmp_path, city()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARDSWITCH_DATABASE__URL", postgres_url)

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(cli, ["mqtt", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def users(file: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in file.read_text(encoding="utf-8").splitlines())


def test_every_active_terminal_gets_a_password_once_and_a_closed_one_loses_it(
    run: Run, postgres_url: str, tmp_path: Path
) -> None:
    file, first, second = (tmp_path / name for name in ("passwords", "first.csv", "second.csv"))
    file.write_text("switch:$7$101$made$elsewhere\n", encoding="utf-8")
    run("passwords", str(file), str(first))
    rows = list(csv.DictReader(first.read_text(encoding="utf-8").splitlines()))
    made = users(file)
    assert made.keys() == {"switch", *(row["username"] for row in rows)}
    assert len({row["password"] for row in rows}) == len(rows) >= 2
    for row in rows:
        _, kind, iterations, salt, key = made[row["username"]].split("$")
        want = hashlib.pbkdf2_hmac(
            "sha512", row["password"].encode(), base64.b64decode(salt), int(iterations), 64
        )
        assert (kind, base64.b64decode(key)) == ("7", want)
    assert [path.stat().st_mode & 0o777 for path in (file, first)] == [0o600, 0o600]
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "UPDATE terminal SET state = 'CLOSED' WHERE terminal_id = %s", [rows[0]["terminal_id"]]
        )
    assert f"0 new, {len(rows)} kept, 1 taken away" in run("passwords", str(file), str(second)).output
    assert users(file) == {user: line for user, line in made.items() if user != rows[0]["username"]}


def test_clear_passwords_are_never_written_over_and_another_file_is_not_taken_for_a_password_file(
    run: Run, tmp_path: Path
) -> None:
    secrets, file = tmp_path / "secrets.csv", tmp_path / "passwords"
    secrets.write_text("kept", encoding="utf-8")
    with pytest.raises(InputRefused, match="there already"):
        run("passwords", str(file), str(secrets))
    assert (secrets.read_text(encoding="utf-8"), file.exists()) == ("kept", False)
    file.write_text("no password file\n", encoding="utf-8")
    with pytest.raises(InputRefused, match="not a password file"):
        run("passwords", str(file), str(tmp_path / "other.csv"))


def test_the_access_list_names_the_switch_and_lets_terminals_write_up_only(run: Run) -> None:
    lines = run("acl", "--switch-user", "centre").output.splitlines()
    assert "user centre" in lines
    assert [line for line in lines if line.startswith("pattern write")] == [
        "pattern write ccs/v1/%u/iso/up",
        "pattern write ccs/v1/%u/purse/up",
    ]
    with pytest.raises(InputRefused):
        run("acl", "--switch-user", "two words")
