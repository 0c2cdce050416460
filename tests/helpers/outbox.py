"""Rows of the outbox and their legs, straight in the tables, and a host that tells in which order it heard of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from switch.routing.advices import BackOff
from switch.routing.forwarding import Forwarder, ForwardTerms
from switch.routing.hosts import HostLink
from switch.storage.pool import connect
from terminal_sim.host.server import SimulatedHost
from tests.helpers.hosts import CARD

LEG_SENT = "1125103015"
ITEM_SENT = "1125103016"
PRICE = 1234
STATE_UNKNOWN, STATE_STOOD_IN = 4, 5

_LEGS = """
INSERT INTO host_leg (shard, leg_no, business_date, terminal_no, batch_no, stan, merchant_no, terminal_id, merchant_id, kind, account_kind,
                      pan, amount_fen, entry_mode, rrn, host, debit_code, debit_owner, service, step, transmitted, trace, asked_at,
                      gives_up_at, state, ended_at, ended_by)
SELECT %(shard)s, n, '2026-11-25', 1, 1, n, 1, '33500001', '335000000000017', 1, 20, %(pan)s, %(amount)s, '051', lpad(n::text, 12, '0'),
       %(host)s, 1101, 1, 1, %(step)s, %(sent)s, n, '2026-11-25 10:30:15+08', '2026-11-25 10:30:30+08', %(state)s,
       CASE WHEN %(state)s > 0 THEN now() END, CASE WHEN %(state)s > 0 THEN n END
  FROM generate_series(%(first)s::bigint, %(first)s::bigint + %(count)s - 1) AS n
"""
_ITEMS = """
INSERT INTO host_outbox (shard, outbox_no, leg_no, host, step, service, reason, amount_fen, entry_no, rrn, transmitted, trace, created_at,
                         due_at)
SELECT %(shard)s, n, %(first_leg)s + (n - %(first)s) / %(per_leg)s, %(host)s, %(step)s, 1, CASE WHEN %(step)s = 5 THEN '98' ELSE '' END,
       %(amount)s, n, lpad(n::text, 12, '0'), %(sent)s, n, now() - interval '1 minute' + n * interval '1 microsecond',
       now() - interval '1 minute'
  FROM generate_series(%(first)s::bigint, %(first)s::bigint + %(count)s - 1) AS n
"""


async def put_legs(
    pg: AsyncConnection[Any],
    count: int = 1,
    *,
    first: int = 1,
    shard: int = 0,
    host: str = "bank",
    state: int = STATE_UNKNOWN,
    step: int = 2,
    amount: int = PRICE,
    pan: str = CARD.reveal(),
) -> None:
    """Legs first.. of a host; each has its number as trace."""
    rows = {"first": first, "count": count, "shard": shard, "host": host, "state": state, "step": step}
    await pg.execute(_LEGS, {**rows, "amount": amount, "pan": pan, "sent": LEG_SENT})


async def put_items(
    pg: AsyncConnection[Any],
    count: int = 1,
    *,
    first: int = 1,
    first_leg: int | None = None,
    per_leg: int = 1,
    shard: int = 0,
    host: str = "bank",
    step: int = 5,
    amount: int = PRICE,
    sent: str = ITEM_SENT,
) -> None:
    """Messages first.. to a host, so many for each leg from first_leg on; each has its number as trace, and is due."""
    rows = {"first": first, "count": count, "shard": shard, "host": host, "step": step, "per_leg": per_leg}
    leg = first if first_leg is None else first_leg
    await pg.execute(_ITEMS, {**rows, "first_leg": leg, "amount": amount, "sent": sent})


async def put_reversals(pg: AsyncConnection[Any], count: int = 1, **which: Any) -> None:
    """Given-up legs, each with its reversal."""
    await put_legs(pg, count, **which)
    await put_items(pg, count, **which)


async def put_stood_in(
    pg: AsyncConnection[Any], count: int = 1, *, first: int = 1, host: str = "bank"
) -> None:
    """Legs that were approved in the host's place, their advices, and the count of what it has not been told."""
    await put_legs(pg, count, first=first, host=host, state=STATE_STOOD_IN, step=3)
    await put_items(pg, count, first=first, host=host, step=3, sent=LEG_SENT)
    await pg.execute(
        "INSERT INTO stand_in VALUES (0, %s, %s, %s) ON CONFLICT (shard, host) DO UPDATE SET"
        " outstanding_fen = stand_in.outstanding_fen + excluded.outstanding_fen,"
        " outstanding_count = stand_in.outstanding_count + excluded.outstanding_count",
        (host, count * PRICE, count),
    )


async def one(pg: AsyncConnection[Any], query: str, *parameters: Any) -> Any:
    """The one value, or row, of a query."""
    cursor = await pg.execute(query, parameters)  # type: ignore[call-overload]
    row = await cursor.fetchone()
    return row[0] if row is not None and len(row) == 1 else row


async def counted(pg: AsyncConnection[Any], host: str = "bank") -> dict[int | None, int]:
    """Messages of a host by result; None for open ones."""
    cursor = await pg.execute(
        "SELECT result, count(*) FROM host_outbox WHERE host = %s GROUP BY result", (host,)
    )
    return dict(await cursor.fetchall())


async def until_none_open(pg: AsyncConnection[Any], host: str = "bank", within_s: float = 300.0) -> None:
    """Return when a host has been told everything."""
    async with asyncio.timeout(within_s):
        while None in await counted(pg, host):
            await asyncio.sleep(0.02)


class Heard:
    """What a simulated host was told, in order, and how it is to answer: by trace, a code once or for ever."""

    def __init__(self, host: SimulatedHost) -> None:
        self.traces: list[int] = []
        self.originals: list[int] = []  # trace of the original, 0 without one
        self.always: dict[int, str] = {}
        self.once: dict[int, str] = {}
        self._act = host._act
        self._settle = host._settle
        host._act = self._hear  # type: ignore[method-assign]
        host._settle = self._answer  # type: ignore[method-assign]

    def _hear(self, connection: Any, message: Any, *rest: Any) -> None:
        self.traces.append(int(message.fields[11]))
        self.originals.append(int(message.fields.get(90, "0" * 10)[4:10]))
        self._act(connection, message, *rest)

    def _answer(self, message: Any, generation: Any) -> dict[int, Any]:
        trace = int(message.fields[11])
        code = self.once.pop(trace, None) or self.always.get(trace)
        return {39: code} if code else self._settle(message, generation)


class Told:
    """Counts what a forwarder and the late answers tell operators."""

    def __init__(self) -> None:
        self.ends: dict[str, int] = {}
        self.late: dict[str, int] = {}
        self.figures: dict[str, tuple[int, int, float]] = {}

    def host_forwarded(self, host: str, end: str, count: int) -> None:
        self.ends[end] = self.ends.get(end, 0) + count

    def host_late(self, host: str, what: str) -> None:
        self.late[what] = self.late.get(what, 0) + 1

    def outbox(self, figures: Any) -> None:
        self.figures = dict(figures)


def connector(url: str) -> Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]:
    """What a pool's `connection` is: here a new one each time."""

    @asynccontextmanager
    async def connected() -> AsyncIterator[AsyncConnection[Any]]:
        connection = await connect(url)
        try:
            yield connection
        finally:
            await connection.close()

    return connected


QUICKLY = BackOff(0.05, 0.2)


@asynccontextmanager
async def forwarding(
    url: str,
    link: HostLink,
    told: Told | None = None,
    *,
    shards: tuple[int, ...] = (0,),
    answer_s: float = 20.0,
    in_flight_max: int = 256,
    back_off: BackOff = QUICKLY,
    per_s: float = 1_200.0,
) -> AsyncIterator[Forwarder]:
    """A forwarder at work; ended at once at the end."""
    terms = ForwardTerms(answer_s, in_flight_max, back_off, per_s)
    forwarder = Forwarder(link, connector(url), shards, terms, told or Told())
    task = asyncio.create_task(forwarder.run())
    try:
        yield forwarder
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
