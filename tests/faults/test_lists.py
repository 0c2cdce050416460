"""Lists on bad days: whoever publishes or rolls one out is killed, or there are two of them at once."""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.domain.errors import InputRefused
from switch.keys.software_vault import SoftwareVault
from switch.messages.list_blocks import BLOCK_ENTRIES_MAX
from switch.registry import hot_list
from switch.registry.list_publication import ListSigner
from switch.registry.list_rollout import Plan, advance, change_group, newest_of
from terminal_sim.lists import ListKeeper
from tests.unit.keys.helpers import vector_vault
from tests.unit.registry.helpers import city, open_day, run_import, write

pytestmark = pytest.mark.server

K = BLOCK_ENTRIES_MAX
TERMINALS = ("33500001", "33500005")
IN_STAGES = Plan(("pilot", "100"), soak_s=0)


@pytest.fixture
def url(postgres_url: str, tmp_path: Path) -> str:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        run_import(connection, write(tmp_path, city()))
        change_group(connection, "pilot", [TERMINALS[1]], [])
    return postgres_url


@pytest.fixture
def vault(tmp_path: Path) -> SoftwareVault:
    return vector_vault(tmp_path)[0]


async def process(url: str, folder: Path, *work: str) -> tuple[int, str]:
    """Exit status of a process that publishes or moves, and how much it did."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.helpers.publishing_lists", url, str(folder / "keys.json"), str(folder / "broker")),
        *work,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await started.communicate()
    return started.returncode or 0, out.decode()


def draw(connection: Any, numbers: range, level: int | None = 1) -> None:
    connection.execute(
        "INSERT INTO hot_list_draft (asn, level, reason, actor)"
        " SELECT '0313350019' || lpad(n::text, 10, '0'), l, CASE WHEN l IS NOT NULL THEN 'COUNTERFEIT' END, 'li wei'"
        " FROM generate_series(%s::int, %s) n CROSS JOIN (SELECT %s::smallint AS l) s",
        [numbers.start, numbers.stop - 1, level],
    )


def listed(*parts: range) -> dict[str, int]:
    return {f"0313350019{number:010d}": 1 for part in parts for number in part}


def at_the_broker(vault: SoftwareVault, folder: Path, terminal_id: str) -> ListKeeper:
    """A terminal that comes now and holds nothing."""
    name, version = ListSigner(vault).current()
    keeper = ListKeeper(terminal_id, {version: vault.public_key(name)}, "4111")
    for _ in range(2):  # the manifests, then the blocks
        for topic in keeper.wanted_topics():
            if (folder / "broker" / topic).exists():
                keeper.take(topic, (folder / "broker" / topic).read_bytes())
    return keeper


async def test_a_publication_that_is_killed_anywhere_leaves_whole_lists_and_the_next_process_ends_it(
    url: str, vault: SoftwareVault, tmp_path: Path
) -> None:
    contents = {1: listed(range(2 * K + 1)), 2: listed(range(1, 2 * K + 1), range(9_000, 9_001))}
    with psycopg.connect(url, autocommit=True) as connection:
        draw(connection, range(2 * K + 1))
        hot_list.publish(connection, "li wei")
        assert await process(url, tmp_path, "publish") == (0, "2")  # and the parameters
        draw(connection, range(1), None)
        draw(connection, range(9_000, 9_001))
        hot_list.publish(connection, "li wei")
        versions = []
        # A full list of three blocks, an increment of one, the manifest; each process says all blocks again.
        for at in ("published:2", "add_form", "published:4", "add_manifest", "published:5", "withdraw"):
            assert (await process(url, tmp_path, "publish", at))[0] == -signal.SIGKILL
            keeper = at_the_broker(vault, tmp_path, TERMINALS[0])
            version = keeper.lists["hot"].version
            assert keeper.hot_list() == contents[version], at
            versions.append(version)
        assert versions == [1, 1, 1, 1, 2, 2]
        assert (await process(url, tmp_path, "publish"))[0] == 0
        assert at_the_broker(vault, tmp_path, TERMINALS[0]).hot_list() == contents[2]
        assert not list((tmp_path / "broker/ccs/v1/list/hot/1").rglob("F/*"))
        rows = connection.execute(
            "SELECT serial, payload FROM list_manifest WHERE kind = 'HOT' ORDER BY serial"
        ).fetchall()
    # The bytes that were signed before the kill are those that went out after it.
    assert [serial for serial, _ in rows] == [1, 2]
    assert (tmp_path / "broker/ccs/v1/list/hot/now").read_bytes() == rows[-1][1]


async def test_a_move_that_is_killed_half_way_has_not_happened_and_the_next_process_makes_it_once(
    url: str, vault: SoftwareVault, tmp_path: Path
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for numbers in (range(3), range(3, 6)):
            draw(connection, numbers)
            hot_list.publish(connection, "li wei", IN_STAGES if numbers.start else None)
        connection.execute(
            "INSERT INTO terminal_status (terminal_no, hot_list_held)"
            " SELECT terminal_no, CASE terminal_id WHEN %s THEN 2 ELSE 1 END FROM terminal WHERE terminal_id = ANY(%s)",
            [TERMINALS[1], list(TERMINALS)],
        )
        assert (await process(url, tmp_path, "move", "announce"))[0] == -signal.SIGKILL
        assert newest_of(connection, "HOT").stage == 1
        ended = await asyncio.gather(*(process(url, tmp_path, "move") for _ in range(2)))
        assert [status for status, _ in ended] == [0, 0]
        assert newest_of(connection, "HOT").stage == 2
        events = connection.execute(
            "SELECT action, actor FROM list_event JOIN list_rollout USING (rollout_no) WHERE version = 2 ORDER BY event_no"
        ).fetchall()
    assert events == [("BEGIN", "li wei"), ("STAGE", "switch")]


async def test_of_two_operators_who_publish_or_go_on_at_once_one_does_and_the_other_is_told(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        draw(connection, range(3))

    def publish(connection: Any) -> object:
        return hot_list.publish(connection, "an operator", IN_STAGES)

    assert await _both(url, publish) == "version 1 is still being rolled out or is stopped"
    assert await _both(url, lambda connection: advance(connection, "HOT", "an operator")) == (
        "somebody else has just moved it"
    )
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT action FROM list_event ORDER BY event_no").fetchall()
    assert [action for (action,) in rows] == ["BEGIN", "STAGE"]


async def _both(url: str, work: Callable[[Any], object]) -> str:
    """One has done it and not committed when the other begins; what the other is told, up to the advice."""
    with psycopg.connect(url, autocommit=True) as first, psycopg.connect(url, autocommit=True) as second:
        with first.transaction():
            assert work(first) is not None
            later = asyncio.create_task(asyncio.to_thread(work, second))
            waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
            with psycopg.connect(url, autocommit=True) as watching:
                async with asyncio.timeout(60):
                    while watching.execute(waits, [second.info.backend_pid]).fetchone() != (True,):
                        await asyncio.sleep(0.02)
        with pytest.raises(InputRefused) as told:
            await later
    return str(told.value).split(";")[0]
