"""The API's answers: who asks, what of it he may see, pages with bounds, and files that prove themselves.

A token that does not hold is 401, whatever is asked for. What is not there and what is not the token's to see are both 404, in the same words. Reads are
read-only transactions with a time limit on connections of their own, so nothing that is asked here can hold up a terminal's.
"""

import asyncio
import contextlib
import importlib.metadata
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date
from hashlib import new as new_digest
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Protocol

import orjson
import psycopg
import structlog
from aiohttp import web

from switch.clearing.close import CLOSE_LOCK, day_folder
from switch.clearing.day_files import SQL as CLOSE_SQL
from switch.clearing.day_reports import BY_NAME, Report, read_lines, read_rows, report_folder
from switch.clearing.report import step_table
from switch.domain.errors import DependencyError
from switch.ledger.days import ended_not_closed
from switch.operations.api import openapi
from switch.operations.api.rate import Rate
from switch.operations.api.tokens import SQL, Connection, Reader, Role, find

log = structlog.get_logger(__name__)

ROOT: Final = "/api/v1"
AT_ONCE_MAX: Final = 4  # answers in the making, per process
WAITING_MAX: Final = 32
WAIT_S: Final = 5.0
DOWNLOADS_MAX: Final = 2
DOWNLOAD_S: Final = 600.0
STATEMENT_MS: Final = 10_000
BLOCK_BYTES: Final = 1 << 18
_STATES: Final = ("open", "being closed", "closed")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NAME: Final = re.compile(r"[0-9A-Z]{1,40}")
_READER: Final = web.RequestKey("reader", Reader)

Connect = Callable[[], AbstractAsyncContextManager[Connection]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiWatch(Protocol):
    """Who counts."""

    def api_answered(self, role: str, status: int) -> None:
        """A request was answered; role `none` where there was no token that holds."""


class _Refused(Exception):
    """An answer other than 200, in one sentence."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class _Page(NamedTuple):
    limit: int
    offset: int


def api_app(
    connect: Connect, folder: Path, note: Callable[[], str], watch: ApiWatch, rate: Rate | None = None
) -> web.Application:
    """What stands under /api/v1. folder: of the clearing files. note: what the service says about the close that runs."""
    api = _Api(connect, folder, note)
    door = _Door(connect, watch, rate or Rate())
    app = web.Application(middlewares=[door.let_in], client_max_size=0)
    app.router.add_get("/openapi.json", api.document, allow_head=False)
    for path, handler in (
        ("/close", api.close),
        ("/days", api.days),
        (r"/days/{day}", api.day),
        (r"/days/{day}/steps", api.steps),
        (r"/days/{day}/summary", api.summary),
        (r"/days/{day}/float", api.float),
        (r"/days/{day}/files", api.files),
        (r"/days/{day}/files/{name}", api.file),
        (r"/days/{day}/reports", api.reports),
        (r"/days/{day}/reports/{report}", api.report),
    ):
        app.router.add_get(path, handler, allow_head=False)
    return app


class _Door:
    """Tokens, rates, and how many are let in at once."""

    def __init__(self, connect: Connect, watch: ApiWatch, rate: Rate) -> None:
        self._connect = connect
        self._watch = watch
        self._rate = rate
        self._places = asyncio.Semaphore(AT_ONCE_MAX)
        self._waiting = 0

    @property
    def let_in(self) -> Any:
        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            role = "none"
            try:
                if request.path == f"{ROOT}/openapi.json":
                    answer = await handler(request)
                else:
                    request[_READER] = reader = await self._reader(request)
                    role = reader.role.value
                    self._slow_down(reader)
                    answer = await self._within(request, handler)
            except web.HTTPException as error:  # aiohttp's own: no such path, another method
                answer = _error(error.status, "not found" if error.status == 404 else error.reason)
            except _Refused as refused:
                answer = _error(refused.status, refused.text, refused.headers)
            except (psycopg.Error, DependencyError, OSError) as error:
                log.warning("the API could not answer", error=type(error).__name__)
                answer = _error(503, "cannot be had now")
            self._watch.api_answered(role, answer.status)
            return answer

        return middleware

    def _slow_down(self, reader: Reader) -> None:
        if wait_s := self._rate.wait_s(reader.token_no, time.monotonic()):
            raise _Refused(429, "too many requests", **{"Retry-After": str(max(1, round(wait_s)))})

    async def _reader(self, request: web.Request) -> Reader:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        reader = None
        if kind.lower() == "bearer" and len(token) <= 100:
            async with self._place(), reading(self._connect) as connection:
                reader = await find(connection, token.strip())
        if reader is None:
            raise _Refused(
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
            raise _Refused(503, "too many ask at once", **{"Retry-After": "1"})
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self._places.acquire()
        except TimeoutError:
            raise _Refused(503, "too many ask at once", **{"Retry-After": "1"}) from None
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


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return _json({"error": text}, status=status, headers=headers)


def _json(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(document, default=str),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def _asked(request: web.Request, *allowed: str) -> dict[str, str]:
    """The query; a parameter that does not exist is an error, as a misspelt limit must not quietly be none."""
    for name in request.query:
        if name not in allowed:
            raise _Refused(400, f"parameters: {', '.join(allowed) or 'none'}")
    if len(request.query) != len(set(request.query)):
        raise _Refused(400, "each parameter once")
    return dict(request.query)


def _whole(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and least <= int(text) <= most):
        raise _Refused(400, f"{name}: a whole number from {least} to {most}")
    return int(text)


def _date(text: str, name: str) -> date:
    if not _DATE.fullmatch(text):
        raise _Refused(400, f"{name}: YYYY-MM-DD")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _Refused(400, f"{name}: YYYY-MM-DD") from None


def _page(asked: dict[str, str]) -> _Page:
    limit = _whole(asked.get("limit", str(openapi.LIMIT)), "limit", 1, openapi.LIMIT_MAX)
    return _Page(limit, _whole(asked.get("offset", "0"), "offset", 0, openapi.OFFSET_MAX))


class _Api:
    """The answers themselves. Whoever comes here has a token that holds."""

    def __init__(self, connect: Connect, folder: Path, note: Callable[[], str]) -> None:
        self._connect = connect
        self._folder = folder
        self._note = note
        self._downloads = asyncio.Semaphore(DOWNLOADS_MAX)
        self._document = orjson.dumps(openapi.document(importlib.metadata.version("citizen-card-switch")))

    async def document(self, _request: web.Request) -> web.StreamResponse:
        """OpenAPI, for everybody."""
        return web.Response(body=self._document, content_type="application/json")

    async def close(self, request: web.Request) -> web.StreamResponse:
        """What waits to be closed, and who is at it."""
        _asked(request)
        _for_all_seeing(request)
        async with reading(self._connect) as connection:
            waiting = await ended_not_closed(connection)
            cursor = await connection.execute(CLOSE_SQL["who_closes"].encode(), {"lock": CLOSE_LOCK})
            holder = await cursor.fetchone()
        return _json({"not_closed": waiting, "closer": holder[0] if holder else None, "note": self._note()})

    async def days(self, request: web.Request) -> web.StreamResponse:
        """Days, the newest first."""
        asked = _asked(request, "limit", "offset", "before")
        page = _page(asked)
        before = _date(asked["before"], "before") if "before" in asked else None
        async with reading(self._connect) as connection:
            rows = await _days(connection, request[_READER], page, before=before)
        return _json({"days": [_day(row) for row in rows[: page.limit]], "more": len(rows) > page.limit})

    async def day(self, request: web.Request) -> web.StreamResponse:
        """One day."""
        _asked(request)
        async with reading(self._connect) as connection:
            row = await self._visible(connection, request)
        return _json(_day(row))

    async def steps(self, request: web.Request) -> web.StreamResponse:
        """The steps of a day's close."""
        _asked(request)
        _for_all_seeing(request)
        async with reading(self._connect) as connection:
            row = await self._visible(connection, request)
            steps = await step_table(connection, row[0])
        return _json({"day": row[0], "steps": steps})

    async def summary(self, request: web.Request) -> web.StreamResponse:
        """The reports that concern the reader, cut at a page."""
        _asked(request)
        reader: Reader = request[_READER]
        names = {Role.MEMBER: ("institutions",), Role.MERCHANT: ("merchants",)}.get(
            reader.role, ("institutions", "kinds", "merchants")
        )
        return await self._parts(request, names)

    async def float(self, request: web.Request) -> web.StreamResponse:
        """The operator's money."""
        _asked(request)
        _for_all_seeing(request)
        return await self._parts(request, ("float", "movements", "cover"))

    async def _parts(self, request: web.Request, names: Sequence[str]) -> web.StreamResponse:
        document: dict[str, Any] = {}
        more = False
        async with reading(self._connect) as connection:
            day = (await self._reported(connection, request))[0]
            for name in names:
                page = _Page(openapi.LIMIT_MAX, 0)
                document[name], further = await _lines(connection, BY_NAME[name], day, request[_READER], page)
                more = more or further
        return _json({"day": day, **document, "more": more})

    async def files(self, request: web.Request) -> web.StreamResponse:
        """Clearing files that the reader may see, with their digests."""
        page = _page(_asked(request, "limit", "offset"))
        async with reading(self._connect) as connection:
            day = (await self._visible(connection, request))[0]
            rows = await _files(connection, day, request[_READER], page)
        names = ("name", "type", "party", "lines", "total_fen", "bytes", "sm3")
        listed = [dict(zip(names, (*row[:3], *row[4:]), strict=True)) for row in rows[: page.limit]]
        return _json({"day": day, "files": listed, "more": len(rows) > page.limit})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A clearing file. A regulator sees that it is there, not what is in it: those of members hold card numbers in full."""
        _asked(request)
        reader: Reader = request[_READER]
        name = request.match_info["name"]
        if reader.role == Role.REGULATOR or not _NAME.fullmatch(name):
            raise _Refused(404, "not found")
        async with reading(self._connect) as connection:
            day = (await self._visible(connection, request))[0]
            rows = await _files(connection, day, reader, _Page(1, 0), name=name)
        if not rows:
            raise _Refused(404, "not found")
        size, sm3 = rows[0][6], rows[0][7]
        log.info("a clearing file is fetched", token=reader.token_no, role=reader.role.value, file=rows[0][0])
        path = day_folder(self._folder, day) / rows[0][0]
        return await self._send(request, path, size, sm3, "application/octet-stream")

    async def reports(self, request: web.Request) -> web.StreamResponse:
        """Which reports there are, for the reader."""
        _asked(request)
        reader: Reader = request[_READER]
        async with reading(self._connect) as connection:
            day = (await self._reported(connection, request))[0]
            rows = [row for row in await read_rows(connection, day) if _may_see(reader, BY_NAME[row.report])]
        listed = [
            {
                "report": row.report,
                "title": BY_NAME[row.report].title,
                "name": row.name,
                "lines": row.row_count,
                "bytes": row.size_bytes,
                "sm3": row.sm3,
            }
            for row in rows
        ]
        return _json({"day": day, "reports": listed})

    async def report(self, request: web.Request) -> web.StreamResponse:
        """A report's lines as JSON, or with `.csv` the file itself, which only those may have who see all of it."""
        name = request.match_info["report"]
        reader: Reader = request[_READER]
        report = BY_NAME.get(name.removesuffix(".csv"))
        if report is None or not _may_see(reader, report):
            raise _Refused(404, "not found")
        if name.endswith(".csv"):
            return await self._csv(request, report)
        page = _page(_asked(request, "limit", "offset"))
        async with reading(self._connect) as connection:
            day = (await self._reported(connection, request))[0]
            lines, more = await _lines(connection, report, day, reader, page)
        return _json({"day": day, "report": report.name, "lines": lines, "more": more})

    async def _csv(self, request: web.Request, report: Report) -> web.StreamResponse:
        _asked(request)
        _for_all_seeing(request)
        async with reading(self._connect) as connection:
            day = (await self._reported(connection, request))[0]
            row = next(row for row in await read_rows(connection, day) if row.report == report.name)
        assert row.sm3 is not None
        assert row.size_bytes is not None
        path = report_folder(self._folder, day) / row.name
        return await self._send(request, path, row.size_bytes, row.sm3, "text/csv")

    async def _visible(self, connection: Connection, request: web.Request) -> tuple[Any, ...]:
        """The day that the path names, if there is one for this reader."""
        day = _date(request.match_info["day"], "day")
        rows = await _days(connection, request[_READER], _Page(1, 0), day=day)
        if not rows:
            raise _Refused(404, "not found")
        return rows[0]

    async def _reported(self, connection: Connection, request: web.Request) -> tuple[Any, ...]:
        row = await self._visible(connection, request)
        if row[1] != _STATES.index("closed") or not row[7]:
            raise _Refused(404, "not found")
        return row

    async def _send(
        self, request: web.Request, path: Path, size: int, sm3: str, media: str
    ) -> web.StreamResponse:
        """A file, in blocks. The last one leaves only when all of it has the stored digest: whoever has everything has the right thing."""
        if self._downloads.locked():
            raise _Refused(503, "too many fetch at once", **{"Retry-After": "5"})
        async with self._downloads:
            try:
                file = await asyncio.to_thread(path.open, "rb")
            except OSError:
                raise _Refused(503, "the file is not on disk; the operator can write it again") from None
            with file:
                if (await asyncio.to_thread(path.stat)).st_size != size:
                    raise _Refused(503, "the file is not as it was stored; the operator can write it again")
                answer = web.StreamResponse(
                    headers={
                        "Content-Type": media,
                        "Content-Length": str(size),
                        "Content-Disposition": f'attachment; filename="{path.name}"',
                        "X-Content-SM3": sm3,
                        "Cache-Control": "no-store",
                    }
                )
                await answer.prepare(request)
                whole = False
                try:
                    async with asyncio.timeout(DOWNLOAD_S):
                        whole = await _pour(file, answer, sm3)
                    if not whole:
                        log.error("a file on disk is not as it was stored", file=path.name)
                except (OSError, TimeoutError) as error:  # whoever fetches has gone, or takes too long
                    log.warning(
                        "a file was not fetched to its end", file=path.name, error=type(error).__name__
                    )
                if not whole and request.transport is not None:
                    request.transport.abort()  # nothing else may follow half a file
            return answer


async def _pour(file: BinaryIO, answer: web.StreamResponse, sm3: str) -> bool:
    digest = new_digest("sm3")
    held = b""
    while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
        if held:
            await answer.write(held)
        digest.update(block)
        held = block
    if digest.hexdigest().upper() != sm3:
        return False
    if held:
        await answer.write(held)
    await answer.write_eof()
    return True


def _for_all_seeing(request: web.Request) -> None:
    if not request[_READER].sees_all:
        raise _Refused(404, "not found")


def _may_see(reader: Reader, report: Report) -> bool:
    return reader.sees_all or bool(_own_column(reader, report))


def _own_column(reader: Reader, report: Report) -> str:
    if reader.role == Role.MEMBER:
        return report.member_column
    return report.merchant_column if reader.role == Role.MERCHANT else ""


async def _lines(
    connection: Connection, report: Report, day: date, reader: Reader, page: _Page
) -> tuple[list[dict[str, Any]], bool]:
    found = await read_lines(
        connection,
        report,
        day,
        offset=page.offset,
        limit=page.limit,
        column=_own_column(reader, report),
        party=reader.party,
    )
    return [dict(zip(found.columns, line, strict=True)) for line in found.lines], found.more


async def _days(
    connection: Connection,
    reader: Reader,
    page: _Page,
    *,
    day: date | None = None,
    before: date | None = None,
) -> list[tuple[Any, ...]]:
    asked = {
        "closed_only": not reader.sees_all,
        "day": day,
        "before": before,
        "offset": page.offset,
        "limit": page.limit + 1,
    }
    return list(await (await connection.execute(SQL["days"].encode(), asked)).fetchall())


def _day(row: Sequence[Any]) -> dict[str, Any]:
    names = (
        "day",
        "state",
        "begins_at",
        "ends_at",
        "sealed_at",
        "created_at",
        "settlement_date",
        "has_reports",
    )
    return {**dict(zip(names, row, strict=True)), "state": _STATES[row[1]]}


async def _files(
    connection: Connection, day: date, reader: Reader, page: _Page, *, name: str | None = None
) -> list[tuple[Any, ...]]:
    asked = {
        "day": day,
        "name": name,
        "member": reader.party if reader.role == Role.MEMBER else None,
        "merchant": reader.party if reader.role == Role.MERCHANT else None,
        "offset": page.offset,
        "limit": page.limit + 1,
    }
    return list(await (await connection.execute(SQL["files"].encode(), asked)).fetchall())
