"""Play the golden frames to a switch that was seeded for them: python -m tests.golden HOST:PORT BANK_PORT. docs/golden_frames.md tells how."""

import asyncio
import sys
import tempfile
from pathlib import Path

from terminal_sim.pos_answers import UnusableAnswerError
from terminal_sim.pos_client import Line, NoAnswerError, RefusedError
from tests.golden import day
from tests.golden.bank import bank
from tests.golden.replay import NotSeededError, Replay, commands_in
from tests.helpers.till import LineClosedError


def say(line: str) -> None:
    """One line for people."""
    sys.stdout.write(f"{line}\n")


async def play(address: str, bank_port: int) -> int:
    """The whole replay; the exit status."""
    host, _, port = address.rpartition(":")
    replay = Replay(Line(host, int(port)), say)
    run = commands_in(Path.cwd())
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with bank(bank_port):
                await day.yesterday(replay)
                await day.today(replay, run, Path(folder))
    except TimeoutError:
        say("ended: the switch does not sign on with the bank")
        return 2
    except (NotSeededError, NoAnswerError, UnusableAnswerError, RefusedError, LineClosedError) as error:
        say(f"ended: {error or 'the switch has closed the line'}")
        return 2
    for name, reason in day.NOT_REPLAYED.items():
        say(f"{name}: not played: {reason}")
    left = sorted(day.not_accounted_for(replay))
    for name in left:
        say(f"{name}: neither played nor listed")
    say(f"{len(replay.played)} golden frames played, {len(replay.faults)} differences")
    return 1 if replay.faults or left else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or ":" not in sys.argv[1] or not sys.argv[2].isdecimal():
        raise SystemExit("usage: python -m tests.golden HOST:PORT BANK_PORT")
    raise SystemExit(asyncio.run(play(sys.argv[1], int(sys.argv[2]))))
