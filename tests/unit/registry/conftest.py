"""Fixtures of the room: a database with a city and an open day, and a vault that holds terminal master keys."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.keys.software_vault import SoftwareVault
from tests.unit.keys.helpers import vector_vault
from tests.unit.registry.helpers import city, open_day, run_import, write

Connect = Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]


@pytest.fixture
def vault(tmp_path: Path) -> SoftwareVault:
    return vector_vault(tmp_path)[0]


@pytest.fixture
def city_url(postgres_url: str, tmp_path: Path) -> str:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        run_import(connection, write(tmp_path, city()))
    return postgres_url


@pytest.fixture
async def connect(city_url: str) -> AsyncIterator[Connect]:
    """Opens connections that the test need not close."""
    opened: list[psycopg.AsyncConnection[Any]] = []

    async def connect_one() -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(city_url, autocommit=True)
        opened.append(connection)
        return connection

    yield connect_one
    for connection in opened:
        await connection.close()
