"""Card routes from a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.domain.identifiers import CardNumber
from switch.registry.cards import CardDirectory, CardRoute
from tests.unit.registry.helpers import card, city, pan_of, run_import, write
from tests.unit.registry.test_sessions import pooled

pytestmark = pytest.mark.server

Connect = Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]
KNOWN, UNKNOWN = CardNumber(pan_of(1)), CardNumber(pan_of(2))


@pytest.fixture
async def directory(connect: Connect) -> AsyncIterator[CardDirectory]:
    directory = CardDirectory(pooled(connect))
    yield directory
    await directory.close()


async def test_a_route_is_loaded_once_and_then_at_hand(connect: Connect, directory: CardDirectory) -> None:
    assert directory.get(KNOWN) is None
    routes = await directory.load([KNOWN, UNKNOWN])
    cursor = await (await connect()).execute("SELECT shard, holder_id, card_no FROM card_route")
    assert routes == {KNOWN: CardRoute(*(await cursor.fetchall())[0]), UNKNOWN: None}
    assert directory.get(KNOWN) == routes[KNOWN]
    assert directory.get(UNKNOWN) is None
    assert len(directory) == 1


async def test_an_imported_card_is_known_as_soon_as_the_notice_comes(
    connect: Connect, city_url: str, tmp_path: Path
) -> None:
    directory = CardDirectory(
        pooled(connect), absent_s=600.0
    )  # the second that it is by itself may pass meanwhile
    assert (await directory.load([UNKNOWN]))[UNKNOWN] is None
    with psycopg.connect(city_url, autocommit=True) as connection:
        run_import(connection, write(tmp_path, city(cards=[card(2)])))
    assert (await directory.load([UNKNOWN]))[UNKNOWN] is None
    directory.notice("all")
    assert (await directory.load([UNKNOWN]))[UNKNOWN] is not None
    await directory.close()


async def test_the_cache_is_bounded(connect: Connect, tmp_path: Path, city_url: str) -> None:
    with psycopg.connect(city_url, autocommit=True) as connection:
        run_import(connection, write(tmp_path, city(cards=[card(n) for n in range(300)])))
    directory = CardDirectory(pooled(connect), capacity=100)
    numbers = [CardNumber(pan_of(n)) for n in range(300)]
    routes = await asyncio.gather(*(directory.load([number]) for number in numbers))
    assert all(route[number] is not None for route, number in zip(routes, numbers, strict=True))
    assert len(directory) <= 100
    await directory.close()
