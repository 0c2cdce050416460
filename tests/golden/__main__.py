"""Play the golden frames to a switch that was seeded for them: python -m tests.golden HOST:PORT. docs/golden_frames.md tells how."""

import asyncio
import sys
import tempfile
from pathlib import Path

from terminal_sim.pos_client import Line
from tests.golden import day
from tests.golden.replay import Replay, commands_in


def say(line: str) -> None:
    """One line for people."""
    sys.stdout.write(f"{line}\n")


async def play(address: str) -> int:
    """The whole replay; the exit status."""
    host, _, port = address.rpartition(":")
    replay = Replay(Line(host, int(port)), say)
    run = commands_in(Path.cwd())
    with tempfile.TemporaryDirectory() as folder:
        await day.yesterday(replay)
        await day.today(replay, run, Path(folder))
    for name, reason in day.NOT_REPLAYED.items():
        say(f"{name}: not played: {reason}")
    left = sorted(day.not_accounted_for(replay))
    for name in left:
        say(f"{name}: neither played nor listed")
    say(f"{len(replay.played)} golden frames played, {len(replay.faults)} differences")
    return 1 if replay.faults or left else 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or ":" not in sys.argv[1]:
        raise SystemExit("usage: python -m tests.golden HOST:PORT")
    raise SystemExit(asyncio.run(play(sys.argv[1])))
