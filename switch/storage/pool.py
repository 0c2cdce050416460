"""Connections as this project wants them: autocommit, so that every transaction is begun and ended by name.

For what is not hot. The ledger's writers have connections of their own (pipeline.py).
"""

import asyncio
import contextlib
import select
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from switch.domain.errors import DatabaseLost, Overloaded

APPLICATION = "cardswitch"
WAITING_MAX = 2_000
WAIT_S = 5.0

_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "application_name": APPLICATION,
    "connect_timeout": 5,
    # A server that vanished without a word is noticed within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}
# SQLSTATE classes and codes after which a connection is of no more use: connection exceptions, shutdown, crash, start-up.
_LOST = ("08", "57P01", "57P02", "57P03", "57P05")

_OTHER_SCHEMA = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
    psycopg.errors.InvalidSchemaName,
)

# What a statement raises when its connection is gone; the second when the server ended a transaction that idled.
LOST = (psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout)
WRITER_IDLE_MAX_S = 10.0
CANCEL_AGAIN_S = 0.25


async def connect(url: str) -> AsyncConnection[Any]:
    """Open a connection. psycopg.OperationalError when there is no database to talk to."""
    return await AsyncConnection.connect(url, **_OPTIONS)


async def connect_writer(url: str, *, idle_max_s: float = WRITER_IDLE_MAX_S) -> AsyncConnection[Any]:
    """A connection for one that holds a shard's gate while it decides.

    A process that stops between two statements (suspended, cut off, swapped out) would hold its gate and locks for ever, and
    with the next close or settlement every other process would wait behind it. The server ends such a transaction after idle_max_s.
    """
    connection = await connect(url)
    milliseconds = round(idle_max_s * 1000)
    await connection.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}".encode())
    return connection


async def plan_once(connection: AsyncConnection[Any]) -> None:
    """For one whose prepared statements all look rows up by their keys: plan each once, and by an index.

    The planner would plan some of them anew for every batch, since a plan for its very values looks cheaper by more than it costs; and
    for the first rows of a day's fresh partition it would rather read everything.
    """
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute("SET enable_seqscan = off")


async def end_if_idle(connection: AsyncConnection[Any], *, idle_max_s: float = WRITER_IDLE_MAX_S) -> None:
    """Let the server end the running transaction if its client stands still: for those that lock what a writer needs."""
    milliseconds = round(idle_max_s * 1000)
    await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds}".encode())


async def end_tasks(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and return when they have ended, however they did.

    Once is not always enough: waiting for a connection of a pool goes through asyncio.wait_for, which before Python 3.12 swallows a
    cancellation that comes together with what it waits for. A task that works for ever would then go on, and whoever waits for it too.
    """
    left = {task for task in tasks if task is not None}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)


def connect_now(url: str) -> psycopg.Connection[Any]:
    """The same, for commands that need no event loop."""
    return psycopg.connect(url, **_OPTIONS)


async def _still_there(connection: AsyncConnection[Any]) -> None:
    """psycopg.OperationalError when the server has ended this idle connection.

    It says so or hangs up, so there is something to read: a system call tells, where a statement took a twentieth of all processor time
    of a switch that meets many cards for the first time. Only where there is something, a statement finds out what.
    """
    readable = select.poll()
    readable.register(connection.fileno(), select.POLLIN)
    if readable.poll(0):
        await AsyncConnectionPool.check_connection(connection)


def make_pool(
    url: str,
    *,
    size_max: int,
    size_min: int = 1,
    waiting_max: int = WAITING_MAX,
    wait_s: float = WAIT_S,
) -> AsyncConnectionPool[AsyncConnection[Any]]:
    """A pool that is not open yet: `await pool.open()`, later `await pool.close()`.

    Each connection is tried before it is handed out, so that a restart of the server costs nobody a request. At most
    waiting_max callers wait, each at most wait_s; see `translated` for what the others get.
    """
    return AsyncConnectionPool(
        url,
        connection_class=AsyncConnection[Any],
        min_size=size_min,
        max_size=max(size_max, size_min),
        max_waiting=waiting_max,
        timeout=wait_s,
        check=_still_there,
        kwargs=_OPTIONS,
        name=APPLICATION,
        open=False,
    )


def is_lost(error: psycopg.Error) -> bool:
    """Whether an error means that the connection is gone, so that the outcome of what was sent on it is not known."""
    if isinstance(error, psycopg.errors.InterfaceError):
        return True
    if not isinstance(error, psycopg.OperationalError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(_LOST)


def in_words(error: psycopg.Error) -> str:
    """What to tell operators of an error that nobody translated. Never its own text, which quotes values and parts of passwords."""
    name = f"{type(error).__name__}, SQLSTATE {error.sqlstate}" if error.sqlstate else type(error).__name__
    if isinstance(error, _OTHER_SCHEMA):
        return f"the schema is not this version's: run `cardswitch migrate`, or `cardswitch init` on a new database ({name})"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"the database refused it: the role has to own the database ({name})"
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        return "the database cannot be reached, or the connection to it was lost: look at the server and at database.url"
    return f"the database refused it ({name})"


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors about the connection into ours: DatabaseLost, or Overloaded when the pool is full.

    Errors about a statement (constraints, deadlocks, cancelled locks) pass as they are: whoever sent it knows what to do.
    """
    try:
        yield
    except TooManyRequests as error:
        raise Overloaded("too many wait for a database connection") from error
    except PoolTimeout as error:
        raise DatabaseLost("no database connection within the time allowed") from error
    except psycopg.Error as error:
        if not is_lost(error):
            raise
        raise DatabaseLost("the connection to the database was lost") from error
