"""Real servers for tests: one PostgreSQL for the session, a fresh migrated database for each test that asks."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import settings
from psycopg import AsyncConnection

from switch.storage.embedded import EmbeddedPostgres
from switch.storage.migrate import migrate
from switch.storage.pool import connect
from tests.helpers.town import Town

settings.register_profile("here", deadline=None)  # machines are shared: how long an example took says nothing
settings.load_profile("here")

TEMPLATE = "migrated"
_numbers = itertools.count(1)


def database_url(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    head, query = url.split("?", 1)
    return f"{head.rsplit('/', 1)[0]}/{name}?{query}"


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of this session, with a migrated template database."""
    folder: Path = tmp_path_factory.mktemp("postgres")
    # A new database for each test is mostly waiting for the disk, and fsync matters only where the power fails. Tests that kill
    # servers or switches start their own, as it is delivered.
    with EmbeddedPostgres(folder, memory_mb=128, settings={"fsync": "off", "full_page_writes": "off"}) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(database_url(url, TEMPLATE))
        yield url


@pytest.fixture
def postgres_url(server_url: str) -> Iterator[str]:
    """A fresh migrated database, dropped after the test."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield database_url(server_url, name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def pg(postgres_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection to it, in autocommit mode."""
    connection = await connect(postgres_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
def built_town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """A town that nobody serves: tests take copies of it."""
    return Town(tmp_path_factory.mktemp("town")).build()
