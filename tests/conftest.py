"""Real servers for tests: one PostgreSQL for each worker, a fresh migrated database for each test that asks."""

import contextlib
import fcntl
import itertools
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import AsyncConnection

from switch.storage.embedded import EmbeddedPostgres
from switch.storage.migrate import migrate
from switch.storage.pool import connect
from switch.telemetry import logs
from tests.helpers.town import Town

# Machines are shared: how long an example took, or its making, says nothing.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

# Tests start some hundred processes of the switch. Where Python must not keep what it compiled, each of them compiles the whole
# switch again, which takes longer than most of what they are started for.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

TEMPLATE = "migrated"
# Copied as files: block by block through the log, which is the default, takes two and a half times as much of the processor. Fifteen
# hundred tests have a database of their own.
AS_MIGRATED = f"TEMPLATE {TEMPLATE} STRATEGY FILE_COPY"
_numbers = itertools.count(1)
MEMORY = Path("/dev/shm")
MEMORY_EACH = 3 << 30  # bytes; what a worker's databases and their log take at most is half of it
UNSAFE = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "512MB"}

# Files that take longest, the longest first: a worker that begins one of them when the others are nearly done works alone at the end.
# Only the order of beginning depends on this list; `--durations` says when it is out of date.
LONGEST = (
    "tests/scenarios/test_eps_incident.py",
    "tests/scenarios/test_second_day.py",
    "tests/unit/operations/test_audit_changes.py",
    "tests/scenarios/test_city.py",
    "tests/faults/test_hosts_killed.py",
    "tests/faults/test_outbox.py",
    "tests/faults/test_killed.py",
    "tests/faults/test_closer.py",
    "tests/unit/storage/test_embedded_users.py",
    "tests/scenarios/test_interop.py",
    "tests/scenarios/test_golden_frames.py",
    "tests/unit/operations/test_audit_changes_hosts.py",
    "tests/unit/operations/test_audit.py",
    "tests/unit/clearing/test_close_interrupted.py",
    "tests/unit/routing/test_forwarding.py",
    "tests/scenarios/test_hosts.py",
    "tests/unit/storage/test_embedded.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; a file's tests stay in their order, and so do all other files."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.split("::", 1)[0], len(LONGEST)))


def database_url(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    head, query = url.split("?", 1)
    return f"{head.rsplit('/', 1)[0]}/{name}?{query}"


@pytest.fixture(autouse=True, scope="session")
def logging_of_its_own() -> Iterator[None]:
    """Commands that run inside the tests' process do not set its logging up: it would hold a stream that ends with their test."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(logs, "configure", lambda _="info": None)
        yield


@contextlib.contextmanager
def quick_folder(factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is plenty of it, else on the disk."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if memory_left() < workers * MEMORY_EACH:
        yield factory.mktemp("postgres")
        return
    for left in MEMORY.glob(
        "cardswitch-tests-*/in-use"
    ):  # by workers that were killed: nobody holds its lock
        with contextlib.suppress(OSError), left.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent, ignore_errors=True)
    with TemporaryDirectory(prefix="cardswitch-tests-", dir=MEMORY) as name:
        folder = Path(name)
        with (folder / "in-use").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield folder


def memory_left() -> int:
    """Bytes that a file system in memory can still take; 0 where there is none for us."""
    if not os.access(MEMORY, os.W_OK):
        return 0
    try:
        found = os.statvfs(MEMORY)
        known = Path("/proc/meminfo").read_text(encoding="ascii").split()
        return min(found.f_bavail * found.f_frsize, int(known[known.index("MemAvailable:") + 1]) * 1024)
    except (OSError, ValueError):
        return 0


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of this session, with a migrated template database."""
    # A new database for each test is a thousand files, and most of its time waiting for the disk; fsync matters only where the power
    # fails. Tests that kill servers or switches start their own, as it is delivered.
    with (
        quick_folder(tmp_path_factory) as folder,
        EmbeddedPostgres(folder, memory_mb=128, settings=UNSAFE) as url,
    ):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(database_url(url, TEMPLATE))
        yield url


@pytest.fixture
def postgres_url(server_url: str) -> Iterator[str]:
    """A fresh migrated database, dropped after the test."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {AS_MIGRATED}")
    yield database_url(server_url, name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def pg(postgres_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection to it, in autocommit mode."""
    connection = await connect(postgres_url)
    yield connection
    await connection.close()


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """A folder that the first of the workers fills and all of them read."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a folder of its own below that of the run
        shared = shared.parent
    folder, built = shared / name, shared / f"{name}.built"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed when the file is closed, also by a worker that dies
        if not built.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that did not get to the end
            folder.mkdir()
            build(folder)
            built.touch()
    return folder


@pytest.fixture(scope="session")
def built_town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """A town that nobody serves: tests take copies of it."""
    return Town(built_once(tmp_path_factory, "built-town", lambda folder: Town(folder).build()))
