"""As whom the embedded server runs: root in two ways, and an ordinary user."""

import contextlib
import os
import pwd
import shutil
import sys
from pathlib import Path

import pytest

from switch.domain.errors import DependencyError
from switch.storage.embedded import (
    EmbeddedPostgres,
)
from switch.storage.run_as import choose
from tests.unit.storage.helpers import WITHIN_S, Serve, gone, one, said, until

pytestmark = pytest.mark.server


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
