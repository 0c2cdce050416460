"""Who is let in: tokens, rates, how many at once, and connections that can only read and not for long."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import psycopg
import structlog
from aiohttp import web

from switch.domain.errors import DependencyError
from switch.operations.api.asking import Refused, error_answer
from switch.operations.api.rate import Rate
from switch.operations.api.tokens import Connection, Reader, find

log = structlog.get_logger(__name__)

ROOT: Final = "/api/v1"
AT_ONCE_MAX: Final = 4  # answers in the making, per process
WAITING_MAX: Final = 32
WAIT_S: Final = 5.0
STATEMENT_MS: Final = 10_000
READER: Final = web.RequestKey("reader", Reader)

Connect = Callable[[], AbstractAsyncContextManager[Connection]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiWatch(Protocol):
    """Who counts."""

    def api_answered(self, role: str, status: int) -> None:
        """A request was answered; role `none` where there was no token that holds."""


class Door:
    """Tokens, rates, and how many are let in at once."""

    def __init__(self, connect: Connect, watch: ApiWatch, rate: Rate) -> None:
        self._connect = connect
        self._watch = watch
        self._rate = rate
        self._places = asyncio.Semaphore(AT_ONCE_MAX)
        self._waiting = 0

    @property
    def let_in(self) -> Any:
        """The middleware."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            role = "none"
            try:
                if request.path == f"{ROOT}/openapi.json":
                    answer = await handler(request)
                else:
                    request[READER] = reader = await self._reader(request)
                    role = reader.role.value
                    self._slow_down(reader)
                    answer = await self._within(request, handler)
            except web.HTTPException as error:  # aiohttp's own: no such path, another method
                answer = error_answer(error.status, "not found" if error.status == 404 else error.reason)
            except Refused as refused:
                answer = error_answer(refused.status, refused.text, refused.headers)
            except (psycopg.Error, DependencyError, OSError) as error:
                log.warning("the API could not answer", error=type(error).__name__)
                answer = error_answer(503, "cannot be had now")
            self._watch.api_answered(role, answer.status)
            return answer

        return middleware

    def _slow_down(self, reader: Reader) -> None:
        if wait_s := self._rate.wait_s(reader.token_no, time.monotonic()):
            raise Refused(429, "too many requests", **{"Retry-After": str(max(1, round(wait_s)))})

    async def _reader(self, request: web.Request) -> Reader:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        reader = None
        if kind.lower() == "bearer" and len(token) <= 100:
            async with self._place(), reading(self._connect) as connection:
                reader = await find(connection, token.strip())
        if reader is None:
            raise Refused(
                401, "a token that holds is needed", **{"WWW-Authenticate": 'Bearer realm="cardswitch"'}
            )
        return reader

    async def _within(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.get("name") or request.match_info.get("report", "").endswith(".csv"):
            return await handler(request)  # downloads have places of their own, for they may take long
        async with self._place():
            return await handler(request)

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING_MAX:
            raise Refused(503, "too many ask at once", **{"Retry-After": "1"})
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self._places.acquire()
        except TimeoutError:
            raise Refused(503, "too many ask at once", **{"Retry-After": "1"}) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()


@contextlib.asynccontextmanager
async def reading(connect: Connect) -> AsyncIterator[Connection]:
    """A connection in one read-only snapshot, whose statements end by themselves."""
    async with connect() as connection, connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        await connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}".encode())
        await connection.execute("SET LOCAL TIME ZONE 'UTC'")
        yield connection
