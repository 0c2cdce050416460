"""A PostgreSQL of our own under the data directory: the real server, from a wheel, so there is one way to the books.

    data_dir/postgres/data        the cluster, with its socket and, under log/, seven days of what it says
    data_dir/postgres/start.log   what it says before that
    data_dir/postgres/lock, url, users   see holding.py

There is no TCP port and no password: the socket lies in a folder of mode 700. As whom the server runs is run_as.py's.

No orphan: the server is shut down by the kernel when the thread that started it ends, hence start it from the main thread.
Whoever starts next waits for what is left of it.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg
import structlog
from psycopg import sql

from switch.domain.errors import ConfigurationError, DependencyError
from switch.storage.holding import Holding, postgres_folder
from switch.storage.leftovers import await_old_server
from switch.storage.run_as import RunAs, choose

USER = DATABASE = "cardswitch"
READY_S = 600.0  # recovery after a crash replays at most max_wal_size
STOP_S = 60.0  # a shutdown writes what is dirty
QUIT_S = 10.0
MAKE_S = 120.0
WATCH_EVERY_S = 0.25
RESTART_PAUSE_MAX_S = 10.0
LOG_BYTES_MAX = 1024 * 1024
SOCKET_PATH_MAX = 107  # sun_path, unix(7)
SMALL_SHARED_MEMORY = 256 * 1024 * 1024
CWD = "/proc/self/cwd"
_PAUSE_S = 0.02

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    # Nothing that was answered may be lost.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Rare checkpoints: after each the next change of every page goes into the log whole. This build could compress those with
    # pglz only, which costs the processor more than it saves the disk.
    "max_wal_size": "4GB",
    "min_wal_size": "256MB",
    "wal_buffers": "16MB",
    "wal_compression": "off",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "max_connections": "200",
    "max_locks_per_transaction": "256",  # a partition per day and table
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "huge_pages": "off",
    "jit": "off",
    "random_page_cost": "1.1",
    "track_io_timing": "on",
    "autovacuum_naptime": "15s",  # fresh partitions have no statistics
    "timezone": "UTC",
    "log_timezone": "UTC",
    # What the server writes down must hold no card number: no statements, no parameters, no row of a broken constraint.
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%u.log",  # by weekday, begun anew
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
}

log = structlog.get_logger(__name__)


def shared_memory_mb(wanted_mb: int) -> int:
    """shared_buffers in MB: what is wanted, but at most a quarter of the memory of the machine or its container."""
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2
    with contextlib.suppress(OSError, ValueError):  # no control group, or "max"
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        memory_mb = min(memory_mb, limit // 1024**2)
    return max(16, min(wanted_mb, memory_mb // 4))


def _little_shared_memory() -> bool:
    """Containers often have 64 MB in /dev/shm, too little for a parallel plan."""
    try:
        found = os.statvfs("/dev/shm")  # noqa: S108 - only its size is looked at
    except OSError:
        return True
    return found.f_frsize * found.f_blocks < SMALL_SHARED_MEMORY


class EmbeddedPostgres:
    """The server of one data directory; a context manager that yields its URL.

    memory_mb: shared_buffers, bounded by a quarter of the memory there is. settings: any of PostgreSQL's, over SETTINGS.
    passing: for one command, so that a service which starts meanwhile waits a little instead of giving up.
    run_as: "plain", "namespace" or "user" instead of the best one (run_as.py).
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        memory_mb: int = 512,
        settings: Mapping[str, str] | None = None,
        passing: bool = False,
        run_as: str = "",
    ) -> None:
        self._folder = postgres_folder(data_dir)
        self._cluster = self._folder / "data"
        self._holding = Holding(data_dir, passing=passing)
        self._how = run_as
        self._settings = {**SETTINGS, "shared_buffers": f"{shared_memory_mb(memory_mb)}MB"}
        if _little_shared_memory():
            self._settings["dynamic_shared_memory_type"] = "mmap"
        self._settings |= settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._short_path: Path | None = None  # to the cluster, where the real one is too long for a socket

    @property
    def pid(self) -> int:
        """Process id of the server; 0 when none was started."""
        return self._process.pid if self._process is not None else 0

    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> str:
        """Start the server, make its cluster the first time; returns the URL when it takes connections.

        May be called again after it died, and returns the same URL. Only from the main thread, since the server dies with
        the thread that started it. DataDirectoryHeldError: another process runs it. ConfigurationError: the cluster is
        another user's or another version's. DependencyError: it does not come up. After an error the directory is free again.
        """
        try:
            self._holding.take()
            self._launch()
            return self._await_ready(threading.Event())
        except BaseException:
            self.stop()
            raise

    async def keep_running(self) -> None:
        """Start the server again whenever it dies, until cancelled; awaited in the main thread, after start().

        Clients see their connections end and make new ones; recovery brings back every commit that was answered.
        """
        pause_s = WATCH_EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            if self.alive():
                pause_s = WATCH_EVERY_S
                continue
            log.error("the embedded database died and is started again")
            cancelled = threading.Event()
            try:
                self._launch()
                # Recovery can take minutes, and the loop answers meanwhile. The thread only asks; it starts nothing.
                await asyncio.to_thread(self._await_ready, cancelled)
            except (DependencyError, ConfigurationError, OSError) as problem:
                self._end_process(signal.SIGQUIT)
                pause_s = min(pause_s * 2, RESTART_PAUSE_MAX_S)
                log.warning("the embedded database did not start", problem=str(problem), again_in_s=pause_s)
            finally:
                cancelled.set()

    def stop(self, *, wait_for_users_s: float = 0.0) -> None:
        """Shut down and give the directory back. Connections are cut, what was committed stays.

        wait_for_users_s: other commands may use this server; let them come to their end first, within this time.
        """
        self._holding.withdraw(wait_for_users_s if self.alive() else 0.0)
        self._end_process(signal.SIGINT)
        self._process = None
        self._remove_short_path()
        self._holding.release()

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _end_process(self, first: signal.Signals) -> None:
        """SIGINT is a clean shutdown, SIGQUIT an immediate one that the next start recovers from."""
        if self._process is None:
            return
        for number, wait_s in ((first, STOP_S), (signal.SIGQUIT, QUIT_S), (signal.SIGKILL, QUIT_S)):
            if self._process.poll() is not None:
                return
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)

    # ------------------------------------------------------------------ steps of a start

    def _launch(self) -> None:
        """Bring a server process to life; it does not take connections yet."""
        assert threading.current_thread() is threading.main_thread(), "the server would end with this thread"
        self._end_process(signal.SIGQUIT)
        run_as, major = choose(self._how)
        await_old_server(self._cluster)
        if not (self._cluster / "PG_VERSION").is_file():
            self._make_cluster(run_as)
        self._require_version(major)
        run_as.own(self._cluster)
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        said = self._folder / "start.log"
        mode = "wb" if said.exists() and said.stat().st_size > LOG_BYTES_MAX else "ab"
        with said.open(mode) as stream:
            self._process = subprocess.Popen(  # noqa: S603 - our own launcher and the installed server
                run_as.command(self._cluster, "postgres", "-D", CWD, *options),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # Ctrl-C is for us: what is in flight is answered before the server goes
            )

    def _make_cluster(self, run_as: RunAs) -> None:
        """Made beside and moved into place, so that a half-made one is never taken for a whole one."""
        if self._cluster.exists() and any(self._cluster.iterdir()):
            raise ConfigurationError(
                f"{self._cluster} is there and is no cluster of PostgreSQL; move it away"
            )
        fresh = self._folder / "data.new"
        if fresh.exists():
            await_old_server(fresh)  # of one that was killed, a child may still be writing
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        run_as.own(fresh)
        how = ("-D", CWD, "-U", USER, "--encoding=UTF8", "--locale=C", "--no-instructions")
        rights = ("--auth-local=trust", "--auth-host=reject")
        try:
            done = subprocess.run(  # noqa: S603 - our own launcher and the installed server
                run_as.command(fresh, "initdb", *how, *rights),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=MAKE_S,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise DependencyError(f"the cluster was not made within {MAKE_S:.0f} s") from None
        if done.returncode != 0:
            raise DependencyError(f"initdb: {done.stderr.decode(errors='replace').strip()[-500:]}")
        fresh.rename(self._cluster)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _require_version(self, major: int) -> None:
        made_by = (self._cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        if made_by != str(major):
            raise ConfigurationError(
                f"data_dir: {self._cluster} was made by PostgreSQL {made_by}, installed is {major};"
                " dump it with the release of this program that made it, and load it with this one"
            )

    def _socket_folder(self) -> Path:
        if len(os.fsencode(self._cluster / ".s.PGSQL.5432")) <= SOCKET_PATH_MAX:
            return self._cluster
        if self._short_path is None:
            note = self._folder / "short_path"
            with contextlib.suppress(FileNotFoundError):  # of a process that was killed
                self._short_path = Path(note.read_text(encoding="utf-8"))
                self._remove_short_path()
            self._short_path = Path(tempfile.mkdtemp(prefix="cardswitch-")) / "pg"
            note.write_text(str(self._short_path), encoding="utf-8")
            self._short_path.symlink_to(self._cluster)
        return self._short_path

    def _remove_short_path(self) -> None:
        path, self._short_path = self._short_path, None
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()
            (self._folder / "short_path").unlink(missing_ok=True)

    def _await_ready(self, cancelled: threading.Event) -> str:
        """Wait until connections are taken, make the database if it is missing, let other commands know."""
        deadline = time.monotonic() + READY_S
        host = quote(str(self._socket_folder()), safe="")
        while True:
            try:
                with psycopg.connect(
                    f"postgresql://{USER}@/postgres?host={host}", autocommit=True, connect_timeout=5
                ) as connection:
                    _make_database(connection)
            except psycopg.OperationalError:
                if not self.alive():
                    raise DependencyError(f"PostgreSQL did not start: {self._last_words()}") from None
                if time.monotonic() >= deadline or cancelled.wait(_PAUSE_S):
                    raise DependencyError("PostgreSQL was not ready in time") from None
                continue
            url = f"postgresql://{USER}@/{DATABASE}?host={host}"
            self._holding.publish(url)
            return url

    def _last_words(self) -> str:
        said = self._folder / "start.log"
        lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
        telling = [line for line in lines if "HINT:" not in line]
        return (
            f"{telling[-1][-300:] if telling else 'it said nothing'} (see {said} and {self._cluster / 'log'})"
        )


def _make_database(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
    if found is None:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
