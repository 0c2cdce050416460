"""The golden frames played against a running switch, which was seeded as docs/golden_frames.md says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden import day
from tests.golden.bank import ACCOUNTS, OPENING_FEN, bank, links
from tests.golden.replay import Replay
from tests.helpers.local_server import free_port
from tests.helpers.town import Town

pytestmark = [pytest.mark.server, pytest.mark.slow]

STATES = {"confirmed": 1, "reversed": 1, "authorised": 1, "suspense": 0}  # ISO-09, ISO-10, ISO-11


@pytest.fixture
def golden_switch(tmp_path: Path) -> Iterator[tuple[Town, int]]:
    """A data directory with the seed, and the process that serves it; where it expects its bank."""
    town, port = Town(tmp_path), free_port()
    town.run("init")
    try:
        first = town.serve()  # so that each command need not start the database for itself
        day.seed_switch(town.run)
        town.stop(first)
        town.serve(ledger__no_pin_limit_fen=1403, hosts__links=links(port))
        yield town, port
        town.run("audit")
    finally:
        town.stop_all()


async def test_every_golden_frame_is_answered_as_the_golden_frames_say(
    golden_switch: tuple[Town, int],
) -> None:
    town, port = golden_switch
    replay = Replay(town.processes[0].line)
    async with bank(port) as host:
        await day.yesterday(replay)
        await day.today(replay, town.run, town.folder)
    assert "\n".join(replay.faults) == ""
    assert day.not_accounted_for(replay) == set()
    assert [host.book.balance_fen(account.pan) for account in ACCOUNTS] == [
        OPENING_FEN - 5000,
        OPENING_FEN - 1,
    ]
    # A wrong TAC is answered 00 too, so the answer to the confirm does not say that it was right.
    listed = {state: town.run("loads", "list", "--state", state, "--json") for state in STATES}
    assert {state: len(json.loads(found)) for state, found in listed.items()} == STATES
