"""The embedded server: one owner, no orphan, back after a crash, and found by the commands of its data directory."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from switch.domain.errors import ConfigurationError, DependencyError
from switch.storage import server as server_module
from switch.storage.embedded import (
    DataDirectoryHeldError,
    EmbeddedPostgres,
    holder,
    open_database,
    running_url,
)
from switch.storage.leftovers import server_processes
from switch.storage.pool import connect_now
from switch.storage.run_as import choose
from switch.storage.server import SETTINGS, shared_memory_mb

pytestmark = pytest.mark.server

PROGRAM = Path(__file__).with_name("serve_alone.py")
PROJECT = PROGRAM.parents[3]
PACKAGES = [path for path in sys.path if path.endswith("-packages")]
WITHIN_S = 60.0

Serve = Callable[..., "subprocess.Popen[str]"]


def until(reached: Callable[[], Any]) -> None:
    """Wait for something that happens soon; the bound is for a test that has failed."""
    deadline = time.monotonic() + WITHIN_S
    while not reached():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}/cwd").exists()


def settings(data_dir: Path, url: str = "") -> Any:
    return SimpleNamespace(
        data_dir=data_dir, database=SimpleNamespace(url=SecretStr(url), embedded_memory_mb=16)
    )


def one(url: str, query: str) -> Any:
    """The first value that the last statement of a query returns."""
    with connect_now(url) as connection:
        cursor = connection.execute(query.encode())
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        return row[0] if row else None


def said(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """The server's process and URL, as the program announces them."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "it ended instead of serving"
    pid, url = line.split()
    return int(pid), url


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Run the program in a process of its own."""
    with contextlib.ExitStack() as stack:

        def start(
            data_dir: Path, *arguments: str, interpreter: tuple[str, ...] = (sys.executable,)
        ) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [*interpreter, str(PROGRAM), str(data_dir), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), *PACKAGES])},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a cluster, to be copied: making one takes longer than starting it."""
    folder = tmp_path_factory.mktemp("made")
    with EmbeddedPostgres(folder, memory_mb=16):
        pass
    return folder


@pytest.fixture
def data_dir(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "data_dir")


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


# ---------------------------------------------------------------------- as whom it runs

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")


@pytest.fixture
def namespaces() -> None:
    """Skip where the kernel or a container lets nobody make a user namespace."""
    try:
        choose("namespace")
    except DependencyError:
        pytest.skip("no user namespaces here")


@as_root
@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("how", ["namespace", "user"])
def test_as_root_it_runs_below_folders_that_only_root_may_enter(
    tmp_path: Path, serve: Serve, how: str
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    process = serve(closed / "data_dir", how)
    pid, url = said(process)

    assert one(url, "CREATE TABLE t AS SELECT 1; SELECT current_user") == "cardswitch"
    assert Path(f"/proc/{pid}").stat().st_uid == (0 if how == "namespace" else named_user().pw_uid)
    capabilities = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("CapEff")
    ]
    assert capabilities == ["CapEff:\t0000000000000000"]

    process.kill()
    until(lambda: gone(pid))


def named_user() -> pwd.struct_passwd:
    for name in ("cardswitch", "postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("no other user")


# Root of a user namespace that maps everybody and lets no further one be made, as many containers do. Its parent writes the maps.
NO_NAMESPACES = """
import ctypes, os, sys
assert ctypes.CDLL(None).unshare(0x10000000) == 0
os.write(1, b"unshared\\n")
assert os.read(0, 1) == b"!"
with open("/proc/sys/user/max_user_namespaces", "w") as bound:
    bound.write("0")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@as_root
@pytest.mark.usefixtures("namespaces")
def test_as_root_it_runs_where_no_user_namespace_may_be_made(tmp_path: Path, serve: Serve) -> None:
    process = serve(tmp_path / "data_dir", interpreter=(sys.executable, "-c", NO_NAMESPACES))
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "unshared\n"
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{process.pid}/{name}").write_text("0 0 65536")
    process.stdin.write("!")
    process.stdin.flush()

    pid, url = said(process)

    assert one(url, "SELECT 1") == 1
    assert Path(f"/proc/{pid}").stat().st_uid == named_user().pw_uid
    process.kill()
    until(lambda: gone(pid))


@as_root
@pytest.mark.usefixtures("namespaces")
def test_a_cluster_goes_from_one_way_of_running_to_the_other_and_back(data_dir: Path) -> None:
    for how in ("user", "namespace", "user"):
        with EmbeddedPostgres(data_dir, memory_mb=16, run_as=how) as url:
            assert one(url, "SELECT 1") == 1


def as_user(user: pwd.struct_passwd) -> tuple[str, ...]:
    """How to run Python as another user, who may not be able to walk to ours."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    setpriv, python = shutil.which("setpriv"), shutil.which(version, path="/usr/local/bin:/usr/bin")
    if setpriv is None or python is None:
        pytest.skip("setpriv or a Python for everybody is not installed")
    return setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--", python


@as_root
def test_an_ordinary_user_just_runs_it_and_roots_directory_is_not_his(serve: Serve) -> None:
    user = named_user()
    interpreter = as_user(user)
    home = Path("/var/tmp") / f"cardswitch-test-{os.getpid()}"
    home.mkdir()
    try:
        os.chown(home, user.pw_uid, user.pw_gid)
        process = serve(home / "data_dir", interpreter=interpreter)
        pid, url = said(process)
        assert Path(f"/proc/{pid}").stat().st_uid == user.pw_uid
        assert one(url, "SELECT 1") == 1
        process.kill()
        until(lambda: gone(pid))

        with EmbeddedPostgres(home / "of_root", memory_mb=16):
            refused = serve(home / "of_root", interpreter=interpreter)
            assert refused.wait(WITHIN_S) == 1
            assert refused.stderr is not None
            assert "another user" in refused.stderr.read()
    finally:
        shutil.rmtree(home)


def test_it_is_started_from_the_main_thread_only(data_dir: Path) -> None:
    async def elsewhere() -> None:
        await asyncio.to_thread(EmbeddedPostgres(data_dir, memory_mb=16).start)

    with pytest.raises(AssertionError, match="this thread"):
        asyncio.run(elsewhere())
    assert holder(data_dir) is None
    assert server_module.USER == "cardswitch"
