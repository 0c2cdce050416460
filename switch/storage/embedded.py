"""A PostgreSQL of our own under the data directory: the real server from a wheel, so there is one way to the books.

    data_dir/postgres/data             the cluster
    data_dir/postgres/run              its socket, mode 700; there is no TCP port
    data_dir/postgres/postgresql.conf  its settings, written at every start; `local.conf` beside it goes before them
    data_dir/postgres/url              where other commands of this data directory find the running server
    data_dir/postgres/server.log       what the server says
    data_dir/postgres/lock, users      who runs it and who uses it (`holding.py`)

The server belongs to the process that starts it and ends with it: it gets SIGQUIT when the thread that started it ends, so
start it from the main thread. Commands that find it running use it, and its owner waits a while for them before it stops.
Whoever may enter the socket's folder is trusted; that is its owner and root.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol
from urllib.parse import quote

import psycopg
import structlog
from psycopg import sql
from pydantic import SecretStr

from switch.domain.errors import ConfigurationError, DependencyError
from switch.storage import holding
from switch.storage.holding import DataDirectoryHeldError
from switch.storage.running_as import RunningAs, choose

USER = DATABASE = "cardswitch"
START_S = 60.0  # until it says anything
RECOVERY_S = 900.0  # while it says that it is replaying its log
STOP_S = 30.0
OLD_SERVER_S = 30.0
USERS_S = 15.0  # a stopping owner waits this long for commands that use its server
ATTACH_S = 30.0  # a command waits this long for a server that is starting or stopping
LOG_BYTES_MAX = 32 * 1024 * 1024
SOCKET_FOLDER_MAX = 90  # characters; the kernel allows 107 with the socket's own name

_ASK_EVERY_S = 0.02
_WATCH_EVERY_S = 0.5
_RESTART_PAUSE_S, _RESTART_PAUSE_MAX_S = 0.1, 10.0
_STARTING_UP = "57P03"
_MEMORY_IN_USE = b"pre-existing shared memory block"

log = structlog.get_logger(__name__)

SERVER_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    # A commit that was answered is on the disk.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Few checkpoints: each makes every page that is touched next go into the log whole. This build compresses those with
    # pglz only, which costs the processor more than it saves the disk.
    "max_wal_size": "4GB",
    "min_wal_size": "256MB",
    "wal_buffers": "32MB",
    "wal_compression": "off",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "max_locks_per_transaction": "256",  # a partition per day and table
    "work_mem": "16MB",
    "maintenance_work_mem": "256MB",
    "random_page_cost": "1.1",
    "jit": "off",
    "huge_pages": "off",
    "autovacuum_naptime": "30s",
    "track_io_timing": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The server's log must not hold card numbers: no statements, no parameters, no DETAIL lines (they show keys of rows).
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_line_prefix": "%m [%p] ",
}


class DatabaseSettings(Protocol):
    """What of the section `database` this file needs."""

    @property
    def url(self) -> SecretStr:
        """Empty for the embedded server."""

    @property
    def embedded_memory_mb(self) -> int:
        """shared_buffers of the embedded server; a quarter of the machine's memory at most."""


class HouseSettings(Protocol):
    """What of the settings this file needs."""

    @property
    def data_dir(self) -> Path:
        """Where everything of this installation lies."""

    @property
    def database(self) -> DatabaseSettings:
        """The section."""


def _folder(data_dir: Path) -> Path:
    return data_dir.absolute() / "postgres"


def holder(data_dir: Path) -> str | None:
    """Who serves this data directory, for people; None when nobody does."""
    return holding.holder(_folder(data_dir))


@contextlib.contextmanager
def open_database(settings: HouseSettings) -> Iterator[str]:
    """The URL of the database of these settings, for one command.

    That is the external one; or the embedded one, if it runs already; or the embedded one, run for as long as the command
    needs it. ConfigurationError: there is no data directory. DependencyError: the server does not come up.
    """
    external = settings.database.url.get_secret_value()
    if external:
        yield external
        return
    if not settings.data_dir.is_dir():
        raise ConfigurationError(f"data_dir: {settings.data_dir} is not there; run `cardswitch init`")
    with contextlib.ExitStack() as stack:
        yield _running_or_own(settings, stack)


def _running_or_own(settings: HouseSettings, stack: contextlib.ExitStack) -> str:
    """The URL of the server that runs, or of our own, which the stack then stops."""
    folder = _folder(settings.data_dir)
    deadline = time.monotonic() + ATTACH_S
    while True:
        if holding.holder(folder) is not None:
            with contextlib.ExitStack() as attempt:
                if attempt.enter_context(holding.using(folder)) and (url := _stored_url(folder)):
                    stack.push(attempt.pop_all())
                    return url
        else:
            server = EmbeddedPostgres(
                settings.data_dir, memory_mb=settings.database.embedded_memory_mb, passing=True
            )
            try:
                return stack.enter_context(server)
            except DataDirectoryHeldError:  # somebody was quicker
                pass
        if time.monotonic() > deadline:
            who = holding.holder(folder) or "nobody now"
            raise DependencyError(f"{who} holds {settings.data_dir}, but its database does not come up")
        time.sleep(0.05)


def _stored_url(folder: Path) -> str:
    """The URL of a server that answers, or nothing."""
    try:
        url = (folder / "url").read_text(encoding="utf-8").strip()
        psycopg.connect(url, connect_timeout=5).close()
    except (OSError, psycopg.OperationalError):
        return ""
    return url


def bounded_memory_mb(wanted_mb: int) -> int:
    """shared_buffers for this machine: what is wanted, but at most a quarter of its memory."""
    whole_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    with contextlib.suppress(OSError, ValueError):  # a container's share; "max" is no number
        whole_mb = min(whole_mb, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")) // 2**20)
    return max(min(wanted_mb, whole_mb // 4), 16)


class EmbeddedPostgres:
    """The server of one data directory: start it, keep it running, stop it. From the main thread, and by one caller at a time.

    memory_mb: shared_buffers. settings: of postgresql.conf, over ours. passing: for one command, so that a service that
    starts meanwhile waits a little instead of giving up.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        memory_mb: int = 512,
        settings: Mapping[str, str] | None = None,
        passing: bool = False,
    ) -> None:
        self._folder = _folder(data_dir)
        self._cluster = self._folder / "data"
        memory = {"shared_buffers": f"{bounded_memory_mb(memory_mb)}MB"}
        self._settings = {**SERVER_SETTINGS, **memory, **(settings or {})}
        self._passing = passing
        self._holding: holding.Holding | None = None
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
        """Start the server, making the cluster the first time; returns its URL when it takes connections.

        DataDirectoryHeldError: somebody else serves this directory. ConfigurationError: it cannot run here. DependencyError: it
        does not come up; its log says why.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._holding is None:
                self._holding = holding.take(self._folder, passing=self._passing, wait_s=ATTACH_S)
            self._launch()
            return self._await_ready(threading.Event())
        except BaseException:
            self.stop()
            raise

    async def keep_running(self) -> None:
        """Start the server again whenever it dies, until cancelled. To be awaited in the thread that called start().

        Clients see their connections end and make new ones; recovery brings back every commit that was answered.
        """
        pause_s = _RESTART_PAUSE_S
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            if self.alive():
                pause_s = _RESTART_PAUSE_S
                continue
            log.error("the embedded database died and is started again")
            given_up = threading.Event()
            try:
                self._launch()
                # Recovery can take minutes and the service answers meanwhile. The thread only asks; it starts nothing.
                await asyncio.to_thread(self._await_ready, given_up)
            except (DependencyError, ConfigurationError, OSError) as error:
                log.error("it did not start", problem=str(error), retry_s=pause_s)
                self._kill()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _RESTART_PAUSE_MAX_S)
            finally:
                given_up.set()

    def stop(self) -> None:
        """Shut down and free the directory. Commands that use the server get a while to end; then connections are cut."""
        if self._holding is None:
            return
        (self._folder / "url").unlink(missing_ok=True)
        with holding.without_users(self._folder, USERS_S if self.alive() else 0.0) as alone:
            if not alone:
                log.warning("the database is stopped under a command that still uses it")
            self._kill(signal.SIGINT)
        self._holding.release()
        self._holding = None

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ------------------------------------------------------------------ steps of start and stop

    def _launch(self) -> None:
        """Bring a server process to life; it is not ready yet."""
        (self._folder / "url").unlink(missing_ok=True)  # of a server that was killed
        self._await_old_server()
        if os.geteuid() == 0:
            self._folder.chmod(
                0o711
            )  # the server's user may have to walk through; all that is secret below is 700 or 600
        run_as = choose(self._folder, self._cluster)
        self._make_socket_folder(run_as)
        if not self._cluster.exists():
            self._make_cluster(run_as)
        self._check_version(run_as)
        self._write_settings()
        with self._open_log() as server_log:
            arguments = ("-D", str(self._cluster), "-c", f"config_file={self._folder / 'postgresql.conf'}")
            self._process = run_as.start(self._cluster, "postgres", *arguments, log=server_log)

    def _kill(self, first: signal.Signals = signal.SIGQUIT) -> None:
        """End the server process: SIGINT is a clean shutdown, SIGQUIT an immediate one that the next start recovers from."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (first, signal.SIGQUIT, signal.SIGKILL):
            if process.poll() is not None:
                return
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)

    def _await_old_server(self) -> None:
        """After a kill -9 of its parent the old server is still on its way out; two on one cluster would refuse each other."""
        started, told = time.monotonic(), False
        while pid := self._old_pid():
            waited_s = time.monotonic() - started
            if waited_s > OLD_SERVER_S:
                raise DependencyError(f"an old server (process {pid}) does not end; end it and start again")
            if waited_s > OLD_SERVER_S / 3 and not told:  # it belongs to nobody: we hold the directory
                told = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT)
            time.sleep(0.02)
        # Its note would stop the new one if the number has meanwhile gone to another process, as after a restart of a container.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _old_pid(self) -> int:
        """A server process on our cluster; 0 when there is none."""
        try:
            pid = int((self._cluster / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        return pid if command[0].endswith(b"postgres") and str(self._cluster).encode() in command else 0

    def _make_socket_folder(self, run_as: RunningAs) -> None:
        if len(str(self._socket_folder)) > SOCKET_FOLDER_MAX:
            digest = hashlib.sha256(str(self._folder).encode()).hexdigest()[:16]
            self._socket_folder = Path("/tmp") / f"cardswitch-{digest}"  # noqa: S108 - its owner is checked below
        with contextlib.suppress(FileExistsError):
            self._socket_folder.mkdir(mode=0o700)
            run_as.own(self._socket_folder)
        found = self._socket_folder.lstat()
        ours = (os.geteuid(), run_as.uid) if run_as.how in ("user", "search") else (os.geteuid(),)
        if found.st_uid not in ours or found.st_mode & 0o170077 != 0o040000:
            raise ConfigurationError(f"{self._socket_folder} is not a folder that is ours alone; remove it")

    def _make_cluster(self, run_as: RunningAs) -> None:
        """Made beside and moved into place, so that a half-made one is never taken for whole."""
        new = self._folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        run_as.own(new)
        arguments = ("-D", str(new), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C")
        done = run_as.run(new, "initdb", *arguments, "--sync-method=syncfs")
        if done.returncode:
            raise DependencyError(f"initdb failed: {done.stderr.strip()[-500:]}")
        new.rename(self._cluster)

    def _check_version(self, run_as: RunningAs) -> None:
        made_by = (self._cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        if run_as.version.split(".")[0] != made_by:
            raise ConfigurationError(
                f"the database was made by PostgreSQL {made_by}, installed is {run_as.version}:"
                " use pg_upgrade, or the release of this program that made it"
            )

    def _write_settings(self) -> None:
        quoted = {
            **self._settings,
            "unix_socket_directories": str(self._socket_folder),
            "hba_file": str(self._cluster / "pg_hba.conf"),
            "ident_file": str(self._cluster / "pg_ident.conf"),
        }
        lines = ["# Written at every start. Your own settings belong into local.conf, which is read last."]
        lines += ["{} = '{}'".format(name, value.replace("'", "''")) for name, value in quoted.items()]
        lines.append(
            f"include_if_exists = '{str(self._folder / 'local.conf').replace(chr(39), chr(39) * 2)}'"
        )
        file = self._folder / "postgresql.conf"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        file.chmod(0o644)

    def _open_log(self) -> IO[bytes]:
        file = self._folder / "server.log"
        if file.is_file() and file.stat().st_size > LOG_BYTES_MAX:
            file.replace(self._folder / "server.log.1")
        file.touch(mode=0o600)
        return file.open("ab")

    def _await_ready(self, given_up: threading.Event) -> str:
        """Wait until connections are taken; make the database if it is missing; tell other commands where it is."""
        host = quote(str(self._socket_folder), safe="")
        maintenance = f"postgresql://{USER}@/postgres?host={host}"
        started = time.monotonic()
        while (state := _asked(maintenance)) != "ready":
            if not self.alive():
                raise DependencyError(f"PostgreSQL did not start; see {self._folder / 'server.log'}")
            if time.monotonic() > started + (RECOVERY_S if state == "recovering" else START_S):
                raise DependencyError(f"PostgreSQL is {state} and not ready after {RECOVERY_S:.0f} s")
            if given_up.wait(_ASK_EVERY_S):
                raise DependencyError("nobody waits for PostgreSQL any more")
        with psycopg.connect(maintenance, autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        url = f"postgresql://{USER}@/{DATABASE}?host={host}"
        aside = self._folder / "url.tmp"
        aside.unlink(missing_ok=True)
        aside.touch(mode=0o600)
        aside.write_text(url + "\n", encoding="utf-8")
        aside.replace(self._folder / "url")
        return url


def _asked(url: str) -> str:
    """What a server says of itself: ready, recovering, or silent."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        return "recovering" if error.sqlstate == _STARTING_UP or "starting up" in str(error) else "silent"
    return "ready"
