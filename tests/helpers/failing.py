"""A switch that dies at a named point: `python -m tests.helpers.failing POINT serve`, in place of `python -m switch serve`.

The points are wrapped around functions of the real program when it starts, so that the program itself knows nothing of them. The
process ends by SIGKILL the first time that it comes to its point: nothing is flushed, closed or said.
"""

import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple


class Point(NamedTuple):
    """Before or after a function of the program."""

    module: str
    name: str  # of a function, or Class.method
    after: bool = False


POINTS: Final = {
    "intent committed": Point("switch.routing.host_desk", "HostDesk.ask"),
    "host has answered": Point("switch.routing.host_desk", "HostDesk._write"),
    "load decided": Point("switch.ledger.load_rows", "queue_writes"),
    "load committed": Point("switch.ledger.load_rows", "tell"),
    "batch committed": Point("switch.routing.purse_batches", "_Visit.receipt"),
    "receipt published": Point("switch.transports.mqtt_line", "MqttLine.acknowledge"),
    "answer committed": Point("switch.routing.host_desk", "HostDesk._end"),
}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: Point) -> None:
    """Wrap a function so that the process dies there."""
    owner: Any = importlib.import_module(point.module)
    *path, name = point.name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real: Callable[..., Any] = getattr(owner, name)

    def fatal(*arguments: Any, **more: Any) -> Any:
        if point.after:
            real(*arguments, **more)
        _die()

    async def fatal_later(*arguments: Any, **more: Any) -> Any:
        if point.after:
            await real(*arguments, **more)
        _die()

    setattr(owner, name, fatal_later if inspect.iscoroutinefunction(real) else fatal)


if __name__ == "__main__":
    arm(POINTS[sys.argv.pop(1)])
    from switch.__main__ import main

    main()
