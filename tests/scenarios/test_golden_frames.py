"""The golden frames played against a running switch, which was seeded as docs/golden_frames.md says."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden import day
from tests.golden.replay import Replay
from tests.helpers.town import Town

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def golden_switch(tmp_path: Path) -> Iterator[Town]:
    """A data directory with the seed, and the process that serves it."""
    town = Town(tmp_path)
    town.run("init")
    first = town.serve()  # so that each command need not start the database for itself
    day.seed_switch(town.run)
    town.stop(first)
    try:
        town.serve(ledger__no_pin_limit_fen=1403)
        yield town
        town.run("audit")
    finally:
        town.stop_all()


async def test_every_golden_frame_is_answered_as_the_golden_frames_say(golden_switch: Town) -> None:
    replay = Replay(golden_switch.processes[0].line)
    await day.yesterday(replay)
    await day.today(replay, golden_switch.run, golden_switch.folder)
    assert "\n".join(replay.faults) == ""
    assert day.not_accounted_for(replay) == set()
