"""Accounts of an import while a limit is set: every one of them is counted, whichever comes first."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.ledger.limit_desk import set_limit
from switch.ledger.limits import LimitRule
from tests.unit.registry.helpers import DAY, card, city, open_day, run_import, write

pytestmark = pytest.mark.server

TOMORROW = DAY + timedelta(days=1)
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def set_one(url: str, valid_from: date = TOMORROW) -> None:
    """A limit for all online accounts, set on a connection of its own."""
    rule = LimitRule(10, None, 100, None, None, None, None, valid_from, None)

    async def make() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await set_limit(connection, rule, range(2), actor="ann", reason="as agreed")

    asyncio.run(make())


def limited_from(connection: psycopg.Connection[Any]) -> list[tuple[date | None]]:
    return connection.execute("SELECT limited_from FROM account WHERE kind = 10").fetchall()


def test_a_limit_set_before_an_imports_end_counts_its_accounts(postgres_url: str, tmp_path: Path) -> None:
    def enter_day(_: psycopg.ClientCursor[Any], __: Sequence[int]) -> date:
        set_one(postgres_url)  # the accounts are written and not committed
        return DAY

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        run_import(connection, write(tmp_path, city()), enter_day=enter_day)
        assert limited_from(connection) == [(TOMORROW,)]


def test_a_limit_set_at_an_imports_end_waits_for_it_and_counts_its_accounts(
    postgres_url: str, tmp_path: Path
) -> None:
    with (
        psycopg.connect(postgres_url, autocommit=True) as connection,
        psycopg.connect(postgres_url, autocommit=True) as watch,
        ThreadPoolExecutor(1) as desk,
    ):
        open_day(connection)
        setting: list[Any] = []

        def progress(step: str, _: int) -> None:
            if step == "committing":
                setting.append(desk.submit(set_one, postgres_url))
                until(lambda: watch.execute(WAITING).fetchall() == [(1,)] or setting[0].done())

        document = city(cards=[card(serial, online_opening_fen=100) for serial in (1, 2, 3)])
        run_import(connection, write(tmp_path, document), progress=progress)
        setting[0].result(timeout=60)
        assert limited_from(connection) == [(TOMORROW,)] * 3


def until(reached: Callable[[], bool]) -> None:
    """Ask until it is so, for a minute at most."""
    end_s = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end_s
