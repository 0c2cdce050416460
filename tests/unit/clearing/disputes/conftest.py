"""A small ledger whose purchases are disputed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg import AsyncConnection

from tests.helpers.books import a_book, seed
from tests.helpers.disputed import Disputes


@pytest.fixture
async def town(pg: AsyncConnection[Any], postgres_url: str) -> AsyncIterator[Disputes]:
    """Five holders with ten yuan each and a shop."""
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        yield Disputes(postgres_url, pg, book, day)
