"""The embedded server: one owner, no orphan, back after a crash."""

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

import psycopg
import pytest

from switch.domain.errors import ConfigurationError, DependencyError
from switch.storage import server as server_module
from switch.storage.embedded import (
    DataDirectoryHeldError,
    EmbeddedPostgres,
    holder,
    running_url,
)
from switch.storage.leftovers import server_processes
from switch.storage.pool import connect_now
from switch.storage.server import SETTINGS, shared_memory_mb
from tests.unit.storage.helpers import WITHIN_S, Serve, gone, one, said, until

pytestmark = pytest.mark.server


def test_nothing_that_was_answered_may_be_lost_and_nothing_secret_is_written_down(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, memory_mb=16) as url, connect_now(url) as connection:
        names = ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses", "log_error_verbosity")
        values = [connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in names]
        encoding = connection.execute("SHOW server_encoding").fetchone()
        connection.execute("CREATE TABLE card (pan text PRIMARY KEY)")
        connection.execute("INSERT INTO card VALUES ('6231990000000000001')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO card VALUES (%s)", ("6231990000000000001",))

    assert values == [("on",), ("on",), ("on",), ("",), ("terse",)]
    assert encoding == ("UTF8",)
    logs = b"".join(file.read_bytes() for file in (data_dir / "postgres" / "data" / "log").iterdir())
    assert b"duplicate key" in logs
    assert b"6231990000" not in logs


def test_only_its_owner_may_reach_the_socket_and_the_url(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, memory_mb=16):
        folder = data_dir / "postgres"
        modes = {name: (folder / name).stat().st_mode & 0o777 for name in ("data", "url", "lock")}

    assert modes == {"data": 0o700, "url": 0o600, "lock": 0o600}


def test_a_setting_of_the_caller_goes_before_ours(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, memory_mb=16, settings={"work_mem": "5MB"}) as url:
        assert one(url, "SHOW work_mem") == "5MB"
        assert one(url, "SHOW shared_buffers") == "16MB"


def test_memory_is_bounded_by_the_machine() -> None:
    assert shared_memory_mb(10**9) < 10**9
    assert shared_memory_mb(1) == 16
    assert "shared_buffers" not in SETTINGS


def test_what_was_committed_is_there_after_a_stop_and_a_start(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, memory_mb=16)
    one(server.start(), "CREATE TABLE kept AS SELECT 1; SELECT 1")
    server.stop()

    assert not server.alive()
    assert server_processes(data_dir / "postgres" / "data") == set()
    with server as url:
        assert one(url, "SELECT count(*) FROM kept") == 1


def test_stopping_twice_and_stopping_what_never_ran_is_nothing(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, memory_mb=16)
    server.stop()
    server.start()
    server.stop()
    server.stop()

    assert holder(data_dir) is None
    assert running_url(data_dir) is None


def test_a_second_start_on_the_same_directory_says_who_has_it(data_dir: Path, serve: Serve) -> None:
    first = serve(data_dir)
    _pid, url = said(first)

    second = serve(data_dir)

    assert second.wait(WITHIN_S) == 1
    assert second.stderr is not None
    told = second.stderr.read()
    assert f"process {first.pid} on " in told
    assert "serve_alone.py" in told
    assert "since 20" in told
    assert holder(data_dir) is not None
    assert f"process {first.pid} " in str(holder(data_dir))
    assert one(url, "SELECT 1") == 1, "and leaves the first alone"


def test_a_second_start_within_one_process_is_refused_as_well(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, memory_mb=16) as url:
        with pytest.raises(DataDirectoryHeldError, match=f"process {os.getpid()} "):
            EmbeddedPostgres(data_dir, memory_mb=16).start()
        assert one(url, "SELECT 1") == 1


def test_killing_the_parent_leaves_no_server_and_the_next_start_has_every_commit(
    data_dir: Path, serve: Serve
) -> None:
    process = serve(data_dir)
    pid, url = said(process)
    one(url, "CREATE TABLE kept AS SELECT 1; SELECT 1")

    process.kill()
    # At once, while the old one is still on its way out.
    with EmbeddedPostgres(data_dir, memory_mb=16) as url_after:
        assert gone(pid)
        assert one(url_after, "SELECT count(*) FROM kept") == 1
    until(lambda: not server_processes(data_dir / "postgres" / "data"))


def test_killing_the_parent_alone_is_enough_to_end_the_server(data_dir: Path, serve: Serve) -> None:
    process = serve(data_dir)
    pid, _url = said(process)

    process.kill()

    until(lambda: gone(pid))
    until(lambda: not server_processes(data_dir / "postgres" / "data"))
    assert running_url(data_dir) is None


def test_a_server_that_dies_is_started_again_by_its_owner_with_every_commit(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, memory_mb=16) as url:
        pass
    server = EmbeddedPostgres(data_dir, memory_mb=16)

    async def live_through_a_crash() -> int:
        keeping = asyncio.create_task(server.keep_running())
        one(url, "CREATE TABLE kept AS SELECT 1; SELECT 1")
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(WITHIN_S):
            while True:
                await asyncio.sleep(0.02)
                with contextlib.suppress(psycopg.OperationalError):
                    assert one(url, "SELECT count(*) FROM kept") == 1
                    if server.pid != killed:
                        break
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        return killed

    assert server.start() == url
    try:
        assert gone(asyncio.run(live_through_a_crash()))
        assert server.alive()
        assert running_url(data_dir) == url
    finally:
        server.stop()


def test_start_after_a_crash_gives_the_same_url(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, memory_mb=16)
    url = server.start()
    try:
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not server.alive())
        assert server.start() == url
        assert one(url, "SELECT 1") == 1
    finally:
        server.stop()


def test_a_note_of_an_old_server_whose_number_another_process_has_is_no_hindrance(data_dir: Path) -> None:
    note = data_dir / "postgres" / "data" / "postmaster.pid"
    note.write_text(f"{os.getpid()}\n/proc/self/cwd\n1\n5432\n.\n\n 1 1\nready\n")

    with EmbeddedPostgres(data_dir, memory_mb=16) as url:
        assert one(url, "SELECT 1") == 1


def test_a_cluster_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")

    with EmbeddedPostgres(tmp_path, memory_mb=16) as url:
        assert one(url, "SELECT current_database()") == "cardswitch"
    assert not half.exists()


def test_a_cluster_of_another_version_is_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres" / "data" / "PG_VERSION").write_text("12\n")

    with pytest.raises(ConfigurationError, match="made by PostgreSQL 12"):
        EmbeddedPostgres(data_dir, memory_mb=16).start()

    assert holder(data_dir) is None


def test_a_server_that_cannot_start_says_why_and_gives_the_directory_back(data_dir: Path) -> None:
    with pytest.raises(DependencyError, match="no_such_setting"):
        EmbeddedPostgres(data_dir, memory_mb=16, settings={"no_such_setting": "1"}).start()

    assert holder(data_dir) is None


def test_a_path_too_long_for_a_socket_is_none_for_us(made: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("long-" * 20) / ("deeper-" * 10)
    shutil.copytree(made, deep)

    with EmbeddedPostgres(deep, memory_mb=16) as url:
        assert one(url, "SELECT 1") == 1
        short = Path((deep / "postgres" / "short_path").read_text())
        assert short.exists()
    assert not short.parent.exists()


def test_it_is_started_from_the_main_thread_only(data_dir: Path) -> None:
    async def elsewhere() -> None:
        await asyncio.to_thread(EmbeddedPostgres(data_dir, memory_mb=16).start)

    with pytest.raises(AssertionError, match="this thread"):
        asyncio.run(elsewhere())
    assert holder(data_dir) is None
    assert server_module.USER == "cardswitch"
