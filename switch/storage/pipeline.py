"""Prepared statements in one round trip, at a few microseconds each.

The driver's cursors cost about a tenth of a millisecond a statement, ten times in every batch of the ledger. This link
prepares its statements once per connection, sends any number of them with binary parameters in libpq's pipeline mode, waits
for the socket once or twice, and hands the rows over decoded by the driver's own C loaders.

Statements are written with the driver's named placeholders, `%(name)b`, so that the same text runs through a cursor in a test.
"""

import asyncio
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, cast

import psycopg
from psycopg import AsyncConnection, pq
from psycopg.adapt import PyFormat, Transformer

from switch.storage.records import Records

Row = tuple[Any, ...]
Parameter = int | str | bytes | date | datetime | Records | None

_PLACEHOLDER = re.compile(r"%\((\w+)\)b")
_OK = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_FIRST_OWN_OID = 16384  # FirstNormalObjectId: types below it are the server's
_ELEMENTS = b"SELECT oid, typelem FROM pg_type WHERE oid = ANY($1::oid[])"
_EPOCH = date(2000, 1, 1).toordinal()
_SCALARS: dict[int, Callable[[Any], bytes]] = {  # by type oid, as the server describes each parameter
    21: struct.Struct(">h").pack,
    23: struct.Struct(">i").pack,
    20: struct.Struct(">q").pack,
    1082: lambda day: struct.pack(">i", day.toordinal() - _EPOCH),
    25: str.encode,
}


def positional(text: str) -> tuple[bytes, tuple[str, ...]]:
    """Turn `%(name)b` placeholders into $1, $2 …, each name once."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PLACEHOLDER.sub(number, text).encode(), tuple(names)


class Pipeline:
    """A connection of its own, used by one task at a time. Any exception leaves it unusable but for close().

    round_trip_max_s: a reply that takes longer counts as a lost connection.
    """

    def __init__(self, connection: AsyncConnection[Row], *, round_trip_max_s: float = 30.0) -> None:
        self._connection = connection
        self._pg = connection.pgconn
        self._round_trip_max_s = round_trip_max_s
        self._prepared: dict[
            str, tuple[bytes, tuple[tuple[str, int], ...]]
        ] = {}  # name, (parameter, type oid)
        self._transformer = Transformer(connection)
        self._elements: dict[int, int] = {}  # oid of the element by that of an array of composites
        self._queued = 0
        self._loop = asyncio.get_running_loop()
        self._socket = connection.pgconn.socket
        self.watched = False  # whether the loop looks at the socket
        self._waiter: asyncio.Future[bool] | None = None
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()

    async def prepare(self, statements: Mapping[str, str]) -> None:
        """Prepare statements by name; the server then says which type each parameter has."""
        parameters: dict[str, tuple[str, ...]] = {}
        for name, text in statements.items():
            query, parameters[name] = positional(text)
            self._pg.send_prepare(name.encode(), query)
            self._pg.send_describe_prepared(name.encode())
        results = await self._synced()
        for place, (name, names) in enumerate(parameters.items()):
            described = results[2 * place + 1]
            oids = [described.param_type(at) for at in range(described.nparams)]
            self._prepared[name] = (name.encode(), tuple(zip(names, oids, strict=True)))
        await self._learn_elements()

    async def _learn_elements(self) -> None:
        """A parameter that is an array of composites names its element type, whose oid differs from database to database."""
        own = {oid for _, wanted in self._prepared.values() for _, oid in wanted if oid >= _FIRST_OWN_OID}
        if own - self._elements.keys():
            self._pg.send_query_params(_ELEMENTS, [b"{%s}" % ",".join(map(str, own)).encode()])
            (result,) = await self._synced()
            self._elements = {
                int(result.get_value(row, 0) or b""): int(result.get_value(row, 1) or b"")
                for row in range(result.ntuples)
            }

    def queue(self, name: str, parameters: Mapping[str, Parameter] | None = None) -> int:
        """Queue a prepared statement for the next round trip; returns its place among the results."""
        statement, wanted = self._prepared[name]
        values = [self._encode(parameters[key], oid) for key, oid in wanted] if parameters else []
        self._pg.send_query_prepared(statement, values, [1] * len(values), pq.Format.BINARY)
        self._queued += 1
        return self._queued - 1

    def _encode(self, value: Parameter, oid: int) -> bytes | None:
        if isinstance(value, bytes):
            return value
        if isinstance(value, Records):
            return value.array(self._elements[oid])
        if value is None:
            return None
        encode = _SCALARS.get(oid)
        if encode is not None:
            return encode(value)
        dumped = self._transformer.get_dumper(value, PyFormat.BINARY).dump(value)
        return bytes(dumped) if dumped is not None else None

    async def round_trip(self) -> list[list[Row]]:
        """Send what is queued and return the rows of each statement, in order.

        Raises the psycopg error of the first statement that failed; the rest of the round trip was then not executed.
        """
        queued, self._queued = self._queued, 0
        rows = [self._rows(result) for result in await self._synced()]
        assert len(rows) == queued, "one result for each statement"
        return rows

    async def _synced(self) -> Sequence[pq.abc.PGresult]:
        try:
            self._pg.pipeline_sync()
            results = await self._results()
        except BaseException:
            self._unwatch()  # libpq may have closed the socket, and its number may be another's in a moment
            raise
        for result in results:
            if result.status not in _OK:
                raise psycopg.errors.error_from_result(cast("Any", result))
        return results

    def _rows(self, result: pq.abc.PGresult) -> list[Row]:
        count = result.ntuples
        if not count:
            return []
        self._transformer.set_pgresult(cast("Any", result))
        return cast("list[Row]", self._transformer.load_rows(0, count, tuple))

    async def _results(self) -> Sequence[pq.abc.PGresult]:
        connection = self._pg
        results: list[pq.abc.PGresult] = []
        deadline = self._loop.time() + self._round_trip_max_s
        unsent = connection.flush() != 0
        while True:
            await self._ready(deadline, write=unsent)
            connection.consume_input()
            if unsent:
                unsent = connection.flush() != 0
            while not connection.is_busy():
                result = connection.get_result()
                if result is None:  # between two statements
                    continue
                if result.status == pq.ExecStatus.PIPELINE_SYNC:
                    return results
                results.append(result)

    async def _ready(self, deadline: float, *, write: bool) -> None:
        """Wait for the socket; OperationalError at the deadline."""
        loop, socket = self._loop, self._socket
        ready: asyncio.Future[bool] = loop.create_future()
        self._waiter = ready
        if not self.watched:
            # Once and not at each wait: that took a dozen system calls a batch.
            loop.add_reader(socket, self._wake, True)
            self.watched = True
        if write:
            loop.add_writer(socket, self._wake, True)
        late = loop.call_at(deadline, self._wake, False)
        try:
            if not await ready:
                raise psycopg.OperationalError("the database did not answer in time")
        finally:
            self._waiter = None
            late.cancel()
            if write:
                loop.remove_writer(socket)

    def _wake(self, in_time: bool) -> None:
        waiter = self._waiter
        if waiter is None:
            # Between two round trips the server says only goodbye, and a socket at its end is readable for ever.
            self._unwatch()
        elif not waiter.done():
            waiter.set_result(in_time)

    def _unwatch(self) -> None:
        if self.watched:
            self.watched = False
            self._loop.remove_reader(self._socket)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._connection.closed

    async def close(self) -> None:
        """Close the connection; an open transaction is rolled back by the server."""
        self._unwatch()
        await self._connection.close()
