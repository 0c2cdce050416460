"""What goes wrong is said in one line, without anything secret and without a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from switch.__main__ import _in_one_line
from switch.domain.errors import ConfigurationError
from switch.transports.tcp_terminals import server_tls

FULL = Path("/dev/full")


def said(*arguments: str, folder: Path, url: str = "", stdout: Path | None = None) -> str:
    """What a failing command writes to stderr."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CARDSWITCH_")}
    environment |= {
        "CARDSWITCH_CONFIG": "/dev/null",
        "CARDSWITCH_DATA_DIR": str(folder),
        "CARDSWITCH_DATABASE__URL": url,
    }
    with (stdout or Path(os.devnull)).open("w") as stream:
        ran = subprocess.run(
            [sys.executable, "-m", "switch", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr


@pytest.mark.parametrize(
    "url", ["postgresql://sw:Pa%ss9-secret@127.0.0.1/cs", "host=x password=my Pa%ss9-secret", "foo"]
)
def test_a_database_url_that_cannot_be_read_is_named_and_not_shown(tmp_path: Path, url: str) -> None:
    for command in (("config", "check"), ("keys", "list"), ("init",)):
        words = said(*command, folder=tmp_path, url=url)
        assert "database.url" in words
        assert "secret" not in words
        assert "%ss9" not in words


def test_a_database_that_is_away_is_said_in_one_line(tmp_path: Path) -> None:
    for command in (("keys", "list"), ("audit",), ("registry", "export")):
        words = said(*command, folder=tmp_path, url="postgresql://u:secret@127.0.0.1:1/x")
        assert words.startswith("cardswitch: ")
        assert words.count("\n") == 1
        assert "secret" not in words


@pytest.mark.server
def test_a_database_without_its_schema_says_what_to_run(tmp_path: Path, server_url: str) -> None:
    for command in (("audit",), ("close", "--status"), ("registry", "export")):
        assert "cardswitch migrate" in said(*command, folder=tmp_path, url=server_url)


def test_an_output_that_is_full_is_said_in_one_line(tmp_path: Path) -> None:
    words = said("config", "show", folder=tmp_path, stdout=FULL)
    assert words == "cardswitch: a file or the output: No space left on device\n"


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "data_dir" in said("init", folder=tmp_path / "file")
    assert "data_dir" in said("init", folder=tmp_path / "file" / "below")


@pytest.mark.server
def test_a_lost_passphrase_is_not_replaced_by_another(tmp_path: Path, postgres_url: str) -> None:
    environment = os.environ | {
        "CARDSWITCH_DATA_DIR": str(tmp_path),
        "CARDSWITCH_DATABASE__URL": postgres_url,
    }
    command = [sys.executable, "-m", "switch", "init"]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
    passphrase = tmp_path / "vault.passphrase"
    passphrase.rename(tmp_path / "elsewhere")
    assert "vault.passphrase" in said("init", folder=tmp_path, url=postgres_url)
    assert not passphrase.exists()


@pytest.mark.server
@pytest.mark.parametrize("ignored", [False, True], ids=["hangs up", "nohup"])
def test_a_terminal_window_that_goes_lets_the_service_drain(
    tmp_path: Path, postgres_url: str, ignored: bool
) -> None:
    environment = os.environ | {
        "CARDSWITCH_DATA_DIR": str(tmp_path),
        "CARDSWITCH_DATABASE__URL": postgres_url,
        "CARDSWITCH_TERMINALS__PORT": "0",
        "CARDSWITCH_HTTP__PORT": "0",
    }
    command = [sys.executable, "-m", "switch"]
    subprocess.run([*command, "init"], env=environment, cwd=tmp_path, check=True, capture_output=True)
    disposition = (
        signal.SIG_IGN if ignored else signal.SIG_DFL
    )  # whatever the tests themselves were started by
    with (tmp_path / "serve.log").open("w") as log:
        serving = subprocess.Popen(
            [*command, "serve"],
            preexec_fn=lambda: signal.signal(signal.SIGHUP, disposition),
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert serving.stdout is not None
        assert serving.stdout.readline().startswith("ready: ")
        serving.send_signal(signal.SIGHUP)
        if ignored:
            with pytest.raises(subprocess.TimeoutExpired):
                serving.wait(1.0)
            serving.send_signal(signal.SIGTERM)
        assert serving.wait(60) == 0
    finally:
        serving.kill()
        serving.communicate()
    assert "draining" in (tmp_path / "serve.log").read_text(encoding="utf-8")


def test_an_output_that_nobody_reads_or_that_was_closed_is_no_traceback(tmp_path: Path) -> None:
    environment = os.environ | {"CARDSWITCH_CONFIG": "/dev/null", "CARDSWITCH_DATA_DIR": str(tmp_path)}
    show = f"{sys.executable} -m switch config show"
    for line, status in ((f"{show} | true; exit ${{PIPESTATUS[0]}}", (0, 1)), (f"{show} >&-", (0, 1))):
        ran = subprocess.run(
            ["bash", "-c", line], env=environment, stderr=subprocess.PIPE, text=True, check=False
        )
        assert ran.returncode in status
        assert "Traceback" not in ran.stderr
        assert "Exception ignored" not in ran.stderr


def test_what_the_database_says_is_not_repeated() -> None:
    for error in (
        psycopg.errors.UniqueViolation("Key (pan)=(3133500100000000019) already exists."),
        psycopg.errors.InsufficientPrivilege("permission denied for table secret"),
        psycopg.OperationalError('failed to resolve host "secret"'),
    ):
        words = _in_one_line(error)
        assert words
        assert "secret" not in words
        assert "3133500100000000019" not in words
    assert _in_one_line(ValueError("ours")) == "", "a fault of ours shows where it happened"


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no certificate")
    for file in (tmp_path / "nothing", tmp_path / "text"):
        with pytest.raises(ConfigurationError, match="tls_certificate and tls_key"):
            server_tls(str(file), str(file))
