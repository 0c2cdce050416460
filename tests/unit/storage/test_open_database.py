"""How the commands of one data directory share its server."""

import contextlib
import sys
import time
from pathlib import Path

import pytest

from switch.domain.errors import ConfigurationError
from switch.storage.embedded import (
    holder,
    open_database,
)
from switch.storage.leftovers import server_processes
from tests.unit.storage.helpers import WITHIN_S, Serve, gone, one, said, settings

pytestmark = pytest.mark.server


def test_a_command_uses_the_external_database_when_there_is_one(tmp_path: Path) -> None:
    with open_database(settings(tmp_path / "nowhere", "postgresql://elsewhere/books")) as url:
        assert url == "postgresql://elsewhere/books"


def test_a_command_without_a_data_directory_is_told_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="cardswitch init"),
        open_database(settings(tmp_path / "nowhere")),
    ):
        pass


def test_a_command_starts_the_server_when_nobody_runs_it_and_stops_it_afterwards(data_dir: Path) -> None:
    with open_database(settings(data_dir)) as url:
        assert one(url, "SELECT 1") == 1
        assert holder(data_dir)
    assert holder(data_dir) is None
    assert server_processes(data_dir / "postgres" / "data") == set()


def test_a_command_uses_the_server_that_runs_and_leaves_it_running(data_dir: Path, serve: Serve) -> None:
    process = serve(data_dir)
    pid, url = said(process)

    with open_database(settings(data_dir)) as attached:
        assert attached == url
        assert one(attached, "SELECT 1") == 1
    assert not gone(pid)
    assert one(url, "SELECT 1") == 1


def test_a_command_that_ran_the_server_waits_for_another_that_uses_it(data_dir: Path, serve: Serve) -> None:
    with contextlib.ExitStack() as owner:
        url = owner.enter_context(open_database(settings(data_dir)))
        user = serve(data_dir, interpreter=(sys.executable, "-c", USER_PROGRAM))
        assert user.stdout is not None
        assert user.stdout.readline().strip() == url
        owner.close()

        assert user.stdout.read().split() == ["worked", "to", "the", "end"]
        assert user.wait(WITHIN_S) == 0
    assert holder(data_dir) is None


USER_PROGRAM = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
import psycopg
from pydantic import SecretStr
from switch.storage.embedded import open_database
database = SimpleNamespace(url=SecretStr(""), embedded_memory_mb=16)
with open_database(SimpleNamespace(data_dir=Path(sys.argv[2]), database=database)) as url:
    print(url, flush=True)
    for _ in range(20):
        time.sleep(0.05)
        with psycopg.connect(url) as connection:
            connection.execute("SELECT 1")
    print("worked to the end")
"""


def test_a_service_waits_for_a_passing_command_instead_of_giving_up(
    data_dir: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_database(settings(data_dir)):
        service = serve(data_dir)
        time.sleep(2.5)  # longer than it waits for a service
        assert service.poll() is None

    _pid, url = said(service)
    assert one(url, "SELECT 1") == 1
