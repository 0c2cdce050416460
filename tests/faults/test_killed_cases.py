"""Whoever decides a case is killed behind any of its statements: case and money have moved, or neither has."""

import asyncio
import signal
import sys
from typing import Any

import pytest
from psycopg import AsyncConnection

from tests.helpers.books import a_book, seed
from tests.helpers.disputed import Disputes, asking

pytestmark = pytest.mark.server


async def test_a_killed_decision_is_made_whole_or_not_at_all(
    pg: AsyncConnection[Any], postgres_url: str
) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        town = Disputes(postgres_url, pg, book, day)
        case_no = (await town.open(await town.buy(500), asking("04"))).case_no
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.helpers.deciding_alone", postgres_url, str(case_no), words
            )
            for words in (
                "UPDATE account",
                "INSERT INTO posting",
                "INSERT INTO dispute_event",
                "SET events = ",
            )
        ]
        assert [await process.wait() for process in processes] == [-signal.SIGKILL] * len(processes)
        assert await town.rows("SELECT state, events FROM dispute_case") == [("NEW", 1)]
        assert (await town.balance(), await town.merchant(), await town.use()) == (500, 500, [])
        await town.decide(case_no)
        assert (await town.balance(), await town.merchant(), await town.use()) == (1_000, 0, [(500, False)])
