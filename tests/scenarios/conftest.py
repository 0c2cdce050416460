"""One town served by two processes on one database, for all tests of this folder that leave it running."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import pytest

from switch.messages.answers import Processing
from terminal_sim.frames import CardData
from terminal_sim.pos_client import PosClient
from tests.helpers.switch_process import SwitchProcess
from tests.helpers.till import Seen, Wire, check_books
from tests.helpers.town import Town
from tests.scenarios.foreign_city import ForeignCity


class Two(NamedTuple):
    """Two serving processes and what terminals were told by them."""

    town: Town
    one: SwitchProcess  # holds the embedded server
    other: SwitchProcess


async def asked(client: PosClient, card: CardData) -> Processing:
    """What a terminal is asked to do, once word of a change has come to a process that knows it."""
    async with asyncio.timeout(60):
        while (found := (await client.balance(card)).processing) == Processing.NONE:
            await asyncio.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def two_processes(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """The town of this folder's tests. When all are done its books are audited."""
    town = built_town.copy(tmp_path_factory.mktemp("two"))
    one = town.serve()
    try:
        yield Two(town, one, town.serve_beside())
        town.run("audit")
    finally:
        town.stop_all()


@pytest.fixture
def two(two_processes: Two) -> Two:
    """Both processes, alive."""
    assert two_processes.one.alive()
    assert two_processes.other.alive()
    return two_processes


@pytest.fixture(scope="session")
def foreign_switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignCity]:
    """A switch with institution, keys and registry of its own, for terminals made from the documents."""
    city = ForeignCity(tmp_path_factory.mktemp("foreign")).build().serve()
    try:
        yield city
    finally:
        city.stop()


@pytest.fixture
def foreign_city(foreign_switch: ForeignCity) -> Iterator[ForeignCity]:
    """The same, whose terminals hang up after each test."""
    yield foreign_switch
    foreign_switch.hang_up()


@pytest.fixture(autouse=True)
async def _wires() -> AsyncIterator[None]:
    """Hang up after each test."""
    yield
    await Wire.close_all()


@pytest.fixture
def seen(two: Two) -> Iterator[Seen]:
    """What the terminals of one test are told; held against the books when it ends."""
    told = Seen()
    yield told
    check_books(two.town.database_url, [told])
