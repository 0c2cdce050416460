"""Lists from the database to topics, held against what a terminal makes of them: whole, small where possible, and the same after a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.domain.errors import DependencyError
from switch.keys.records import KeyState
from switch.keys.software_vault import SoftwareVault
from switch.messages.list_blocks import BLOCK_ENTRIES_MAX, manifest_topic
from switch.registry import city_list, hot_list
from switch.registry.list_publication import ListPublication, ListSigner, keep_publishing
from switch.registry.list_rollout import EVERYBODY, Plan, advance, change_group
from switch.registry.parameters import RULES, Scope, set_parameters
from terminal_sim.lists import ListKeeper
from tests.helpers.lists import Retained
from tests.unit.registry.conftest import Connect

pytestmark = pytest.mark.server
K = BLOCK_ENTRIES_MAX


def draw(connection: Any, add: range = range(0), remove: range = range(0)) -> None:
    connection.execute("DELETE FROM hot_list_draft")
    connection.execute(
        "INSERT INTO hot_list_draft (asn, level, reason, actor)"
        " SELECT '0313350019' || lpad(n::text, 10, '0'), n %% 2, 'COUNTERFEIT', 'li wei' FROM generate_series(%s::int, %s) n"
        " UNION ALL SELECT '0313350019' || lpad(n::text, 10, '0'), NULL, NULL, 'li wei' FROM generate_series(%s::int, %s) n",
        [add.start, add.stop - 1, remove.start, remove.stop - 1],
    )


def listed(*parts: range) -> dict[str, int]:
    return {f"0313350019{number:010d}": number % 2 for part in parts for number in part}


def keeper(vault: SoftwareVault, terminal_id: str = "33500001", category: str = "4111") -> ListKeeper:
    name, version = ListSigner(vault).current()
    return ListKeeper(terminal_id, {version: vault.public_key(name)}, category)


class CutOff(Retained):
    """A broker that goes away after so many messages."""

    left = 1

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if self.left == 0:
            raise DependencyError("the broker is gone")
        self.left -= 1
        await super().publish(topic, payload, retain=retain)


class Heard(Retained):
    """A broker that says when it was told so much."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.enough = asyncio.Event()
        self._count = count

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        await super().publish(topic, payload, retain=retain)
        if self.published >= self._count:
            self.enough.set()


async def test_what_is_published_is_what_terminals_hold_full_by_increment_in_stages_and_after_a_restart(
    city_url: str, connect: Connect, vault: SoftwareVault
) -> None:
    reader, broker = await connect(), Retained()
    publication = ListPublication(ListSigner(vault), broker)
    with psycopg.connect(city_url, autocommit=True) as connection:
        assert await publication.publish_due(reader) == 1  # parameters have a version from the start
        draw(connection, add=range(2 * K + 1))
        hot_list.publish(connection, "li wei")
        own = city_list.Entry("I", "99993350FFFFFFFF", 0)
        city_list.publish(connection, [own, city_list.Entry("C", "3310", 1)], "li wei")
        set_parameters(connection, Scope(category="4111"), {RULES["resends"]: 1}, "li wei")
        set_parameters(connection, Scope(terminal_id="33500005"), {RULES["timeout_s"]: 30}, "li wei")
        assert await publication.publish_due(reader) == 3
        assert await publication.publish_due(reader) == 0  # nothing is due

        pilot, other = keeper(vault), keeper(vault, "33500005", "5411")
        for one in (pilot, other):
            assert broker.serve(one) == []
            assert one.hot_list() == listed(range(2 * K + 1))
            assert (one.issuers(), one.cities()) == ({bytes.fromhex(own.value)}, {bytes.fromhex("3310")})
        assert pilot.parameters() == {
            "12": "00000060",
            "13": "00000001",
            "26": "00100000",
            "28": "00100000",
            "30": "00000007",
        }
        assert other.parameters()["12"] == "00000030"
        assert other.parameters()["13"] == "00000003"

        change_group(connection, "pilot", ["33500001"], [])
        draw(connection, add=range(3 * K, 4 * K), remove=range(1))
        hot_list.publish(connection, "li wei", Plan(("pilot", EVERYBODY)))
        assert await publication.publish_due(reader) == 1
        first = {topic for topic in broker.messages if "/hot/1/" in topic}
        assert len(first) == 3
        for one in (pilot, other):
            assert broker.serve(one) == []
        assert pilot.hot_list() == listed(range(1, 2 * K + 1), range(3 * K, 4 * K))
        assert other.hot_list() == listed(range(2 * K + 1))
        assert {topic.split("/")[5] for topic in broker.messages if "/hot/2/" in topic} == {"F", "I1"}

        said = dict(broker.messages)
        again = Retained()  # another process, another broker
        assert await ListPublication(ListSigner(vault), again).publish_due(reader) == 3
        assert again.messages == said

        advance(connection, "HOT", "li wei")
        assert await publication.publish_due(reader) == 1
        assert broker.serve(other) == []
        assert other.hot_list() == pilot.hot_list()
        assert not {topic for topic in broker.messages if "/hot/1/" in topic}  # nobody needs it any more
        # A day later the same manifest is signed anew, so that terminals see that their list is in force.
        connection.execute("ALTER TABLE list_manifest DISABLE TRIGGER append_only")
        connection.execute("UPDATE list_manifest SET made_at = made_at - interval '13 hours'")
        before = pilot.lists["hot"].serial
        assert await publication.publish_due(reader) == 3
        assert broker.serve(pilot) == []
        assert pilot.lists["hot"].serial == before + 2


async def test_a_broker_that_goes_away_and_a_second_process_leave_no_manifest_before_its_blocks(
    city_url: str, connect: Connect, vault: SoftwareVault
) -> None:
    reader, broker = await connect(), CutOff()
    with psycopg.connect(city_url, autocommit=True) as connection:
        draw(connection, add=range(3 * K))
        hot_list.publish(connection, "li wei")
        publication = ListPublication(ListSigner(vault), broker)
        cuts = 0
        while True:
            try:
                await publication.publish_due(reader)
                break
            except DependencyError:
                cuts += 1
                if manifest_topic("HOT") in broker.messages:
                    blocks = [topic for topic in broker.messages if "/hot/1/F/" in topic]
                    assert len(blocks) == 3
                broker.left = cuts + 1
        assert cuts >= 3
        one = keeper(vault)
        assert broker.serve(one) == []
        assert one.hot_list() == listed(range(3 * K))
        # Another line may lead to a broker that has lost everything: all is said again.
        lines, later = iter([1, 1, 2]), Heard(len(broker.messages) + 1)

        @asynccontextmanager
        async def given() -> AsyncIterator[AsyncConnection[Any]]:
            yield reader

        again = ListPublication(ListSigner(vault), later)
        work = keep_publishing(given, again, lambda: next(lines, 2), every_s=0.0)
        task = asyncio.create_task(work)
        await asyncio.wait_for(later.enough.wait(), 60.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert later.messages.items() <= broker.messages.items()
        # One process at a time: while it is at it, another finds nothing to do.
        connection.execute(
            "SELECT pg_advisory_lock(%s, 0), pg_advisory_lock(%s, 1), pg_advisory_lock(%s, 2)",
            [0x6C697374] * 3,
        )
        assert await ListPublication(ListSigner(vault), Retained()).publish_due(reader) == 0
    states = {record.state for record in vault.records() if record.key_type == "LSK"}
    assert states == {KeyState.ACTIVE}
