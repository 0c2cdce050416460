"""What nobody asks for: cases end when their time is over, and figures for whoever watches."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.clearing.disputes.deciding import lapse
from switch.clearing.disputes.views import figures

log = structlog.get_logger(__name__)

LAPSE_EVERY_S: Final = 300.0
Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]


class Watch(Protocol):
    """Who shows the figures."""

    def disputes(self, cases: Mapping[str, int], waiting: int, overdue: int) -> None:
        """Open cases by state, how many of them wait for a checker, and how many are overdue."""


async def keep_lapsing(connect: Connect, watch: Watch, every_s: float = LAPSE_EVERY_S) -> None:
    """Close what nobody may ask for any more, and count, until cancelled. A failure is logged and the next round tries again."""
    while True:
        try:
            async with connect() as connection:
                await lapse(connection)
                watch.disputes(*await figures(connection))
        except (psycopg.Error, LookupError) as error:
            log.warning("cases not looked through", error=type(error).__name__)
        await asyncio.sleep(every_s)
