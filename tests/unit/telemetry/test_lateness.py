"""What holds the loop up is seen."""

import asyncio
import time

from switch.telemetry.lateness import keep_time
from switch.telemetry.metrics import Metrics

HELD_UP_S = 0.3


async def test_a_loop_that_was_held_up_says_so() -> None:
    metrics = Metrics()
    noted = asyncio.Event()

    def note(seconds: float) -> None:
        metrics.loop_late.add(seconds)
        noted.set()

    keeper = asyncio.create_task(keep_time(note, every_s=0.01))
    await noted.wait()
    noted.clear()
    time.sleep(HELD_UP_S)
    await noted.wait()
    keeper.cancel()

    text = metrics.text().decode()
    late_s = float(text.split("cardswitch_loop_late_seconds_sum ")[1].split()[0])
    assert late_s > HELD_UP_S / 2
