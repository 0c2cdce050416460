"""Taking a depot's file is killed, and run twice at once, in processes of their own: each record counts once."""

import asyncio
import json
import signal
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.ledger.days import open_day
from tests.helpers.depots import depot_file
from tests.helpers.offline import Ride, build

pytestmark = pytest.mark.server


async def taking(url: str, path: Path, block: int, at: str = "") -> tuple[int, str]:
    """Exit status and output of a process that takes a file."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.helpers.taking", url, str(path), str(block), at),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def opened(url: str, pg: AsyncConnection[Any]) -> date:
    await build(url)
    row = await open_day(pg)
    assert row is not None
    return row.day


def records(count: int) -> list[bytes]:
    return [Ride(card=1 + n % 20, atc=n // 20, amount_fen=100).pack() for n in range(count)]


async def counted(pg: AsyncConnection[Any]) -> Any:
    cursor = await pg.execute(
        "SELECT count(*), count(DISTINCT raw), sum(amount_fen)::bigint FROM purse_record WHERE result = '10'"
    )
    return await cursor.fetchone()


async def test_a_killed_run_goes_on_and_each_record_counts_once(
    postgres_url: str, pg: AsyncConnection[Any], tmp_path: Path
) -> None:
    path = depot_file(tmp_path, records(250), await opened(postgres_url, pg))
    for at, done in (("inside:1", 0), ("after:1", 50), ("inside:2", 100)):
        status, _ = await taking(postgres_url, path, 50, at)
        assert status == -signal.SIGKILL
        assert await counted(pg) == (done, done, done * 100 or None)
    status, out = await taking(postgres_url, path, 50)
    assert (status, json.loads(out)) == (0, {"10": [250, 25_000]})
    assert await counted(pg) == (250, 250, 25_000)
    assert json.loads((await taking(postgres_url, path, 50))[1]) == {"10": [250, 25_000]}


async def test_two_processes_with_the_same_records_in_two_files_take_each_once(
    postgres_url: str, pg: AsyncConnection[Any], tmp_path: Path
) -> None:
    day, made = await opened(postgres_url, pg), records(400)
    files = [depot_file(tmp_path, made, day), depot_file(tmp_path, made[::-1], day, sequence=2)]
    ended = await asyncio.gather(*(taking(postgres_url, path, 40) for path in files))
    assert [status for status, _ in ended] == [0, 0]
    results = [json.loads(out) for _, out in ended]
    assert sum(found.get("10", [0])[0] for found in results) == 400
    assert sum(found.get("03", [0])[0] for found in results) == 400
    assert await counted(pg) == (400, 400, 40_000)
