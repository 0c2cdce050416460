"""A city after three business days, for the tests of the audit."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.keys.software_vault import SoftwareVault
from switch.storage.pool import connect_now
from tests.conftest import AS_MIGRATED, database_url
from tests.helpers.audited_days import live_three_days
from tests.helpers.offline import tac_vault as made_vault

Audited = tuple[str, Path]  # URL of the database, folder of the clearing files

# What the server would refuse is what the audit must see: checks, unique keys and references go; keys of partitions stay.
_NO_CONSTRAINTS = """
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname)
  FROM pg_constraint
 WHERE contype IN ('c', 'f', 'u', 'x') AND connamespace = 'public'::regnamespace AND conislocal AND coninhcount = 0
   AND conparentid = 0 AND conrelid <> 0
 ORDER BY contype DESC
"""


@pytest.fixture(scope="session")
def tac_vault(tmp_path_factory: pytest.TempPathFactory) -> SoftwareVault:
    """A vault with the roots under which the simulator signs offline records."""
    return made_vault(tmp_path_factory.mktemp("vault"))


# One question to a host is open for ever, and an hour later that would be a fault: so not for the whole session.
@pytest.fixture(scope="module")
def audited(
    server_url: str, tac_vault: SoftwareVault, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Audited]:
    """Its database, with every constraint but the primary keys taken away, and its clearing files. Tests put back what they change."""
    folder = tmp_path_factory.mktemp("clearing")
    url = database_url(server_url, "audited")
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE audited {AS_MIGRATED}".encode())
    asyncio.run(live_three_days(url, tac_vault, folder))
    with psycopg.connect(url, autocommit=True) as connection:
        for (statement,) in connection.execute(_NO_CONSTRAINTS.encode()).fetchall():
            connection.execute(statement)
    yield url, folder
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute("DROP DATABASE audited WITH (FORCE)")


@contextmanager
def reading_again(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection for one audit after another. Most of what a check takes is its parsing and planning, which is done once."""
    with connect_now(url) as connection:
        connection.prepare_threshold = 0
        connection.prepared_max = None
        yield connection


@pytest.fixture(scope="module")
def reader(audited: Audited) -> Iterator[psycopg.Connection[Any]]:
    """Through which the audit reads."""
    with reading_again(audited[0]) as connection:
        yield connection


@pytest.fixture(scope="module")
def superuser(audited: Audited) -> Iterator[psycopg.Connection[Any]]:
    """A connection for which no trigger fires."""
    with psycopg.connect(audited[0], autocommit=True) as connection:
        connection.prepare_threshold = None  # the same words are said of tables that look otherwise each time
        connection.execute("SET session_replication_role = replica")
        yield connection
