"""Who has a data directory, and how its other commands find the server that runs there.

    data_dir/postgres/lock    locked exclusively by the one process that runs the server; says who that is, for people
    data_dir/postgres/url     where the running server is; there only while connections are welcome
    data_dir/postgres/users   locked, shared, by every command that uses a server which another process runs

The locks are open file description locks (fcntl(2), F_OFD_SETLK): the kernel drops them with their process, however it
ends, and they can be looked at without being taken.
"""

import contextlib
import fcntl
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from switch.domain.errors import ConfigurationError, DependencyError

TAKE_S = 2.0  # a process that was killed a moment ago still has its locks
TAKE_FROM_PASSING_S = 30.0
STARTING_S = 60.0
_PAUSE_S = 0.05
_RECORD_MAX = 4096
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: kind, whence, start, length (0: all of it), pid


class DataDirectoryHeldError(DependencyError):
    """Another process runs the server of this data directory."""


def postgres_folder(data_dir: Path) -> Path:
    """Where everything of the embedded server lies; the folder is its owner's alone."""
    return data_dir.absolute() / "postgres"


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: it is locked
        return False
    return True


def _is_locked(file: int) -> bool:
    found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def _lock_within(file: int, kind: int, wait_s: float, wait_for_passing_s: float = 0.0) -> bool:
    started = time.monotonic()
    while not _try_lock(file, kind):
        passing = wait_for_passing_s and _record(os.pread(file, _RECORD_MAX, 0)).get("passing")
        if time.monotonic() - started >= (wait_for_passing_s if passing else wait_s):
            return False
        time.sleep(_PAUSE_S)
    return True


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError:
        raise ConfigurationError(
            f"data_dir: {file} belongs to another user; run as that user, or choose another directory"
        ) from None


def _record(content: bytes) -> dict[str, object]:
    try:
        record = json.loads(content)
    except ValueError:  # it is just being written
        return {}
    return record if isinstance(record, dict) else {}


def _who(content: bytes) -> str:
    record = _record(content)
    if not record:
        return "another process"
    return f"process {record.get('pid')} on {record.get('host')} ({record.get('command')}), since {record.get('since')}"


def holder(data_dir: Path) -> str | None:
    """Who runs the server of this data directory, in words; None when nobody does."""
    try:
        file = os.open(postgres_folder(data_dir) / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        return "another user (the lock file may not be read)"
    try:
        return _who(os.read(file, _RECORD_MAX)) if _is_locked(file) else None
    finally:
        os.close(file)


def _published(data_dir: Path) -> str | None:
    try:
        return (postgres_folder(data_dir) / "url").read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise ConfigurationError(
            f"data_dir: {data_dir} is served by another user; run this as that user"
        ) from None


def running_url(data_dir: Path) -> str | None:
    """Where the server of this data directory runs; None when nobody runs it. Waits while it is starting or stopping.

    DependencyError: somebody holds the directory, and after STARTING_S there is still no server to talk to.
    """
    deadline = time.monotonic() + STARTING_S
    while who := holder(data_dir):
        if url := _published(data_dir):
            return url
        if time.monotonic() >= deadline:
            raise DependencyError(f"{who} holds {data_dir}, but its database does not come up")
        time.sleep(_PAUSE_S)
    return None


@contextlib.contextmanager
def attached(data_dir: Path) -> Iterator[str | None]:
    """The URL of the running server, which its owner then keeps for us where it can; None when nobody runs it."""
    if (url := running_url(data_dir)) is None:
        yield None
        return
    file = _open(postgres_folder(data_dir) / "users")
    try:
        locked = _lock_within(file, fcntl.F_RDLCK, STARTING_S)
        # Looked at again under the lock: the owner withdraws the URL first and looks for users second.
        yield url if locked and _published(data_dir) == url else running_url(data_dir)
    finally:
        os.close(file)


class Holding:
    """The exclusive right to run the server of a data directory. passing: for one command only, worth waiting for."""

    def __init__(self, data_dir: Path, *, passing: bool = False) -> None:
        self._data_dir = data_dir
        self._passing = passing
        self._folder = postgres_folder(data_dir)
        self._lock = -1

    def take(self) -> None:
        """Make the folder and lock it; nothing happens when we have it.

        DataDirectoryHeldError says who has it; ConfigurationError: the folder is another user's.
        """
        if self._lock >= 0:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"data_dir: {self._folder} cannot be made: {error.strerror}") from None
        lock = _open(self._folder / "lock")
        if not _lock_within(lock, fcntl.F_WRLCK, TAKE_S, TAKE_FROM_PASSING_S):
            who = _who(os.pread(lock, _RECORD_MAX, 0))
            os.close(lock)
            raise DataDirectoryHeldError(f"the data directory {self._data_dir} is held by {who}")
        self._lock = lock
        self.withdraw()  # what a killed holder left
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "passing": self._passing,
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]]),
        }
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(record).encode()[:_RECORD_MAX], 0)

    def publish(self, url: str) -> None:
        """Let other commands find the server."""
        fresh = self._folder / "url.new"
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(url + "\n")
        fresh.replace(self._folder / "url")

    def withdraw(self, wait_for_users_s: float = 0.0) -> None:
        """Let nobody new find the server; wait for those that use it, at most so long."""
        if self._lock < 0:
            return
        (self._folder / "url").unlink(missing_ok=True)
        if wait_for_users_s > 0:
            users = _open(self._folder / "users")
            try:
                _lock_within(users, fcntl.F_WRLCK, wait_for_users_s)
            finally:
                os.close(users)

    def release(self) -> None:
        """Give the directory back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
