"""The API's answers: who asks, what of it he may see, pages with bounds, and files that prove themselves.

A token that does not hold is 401, whatever is asked for. What is not there and what is not the token's to see are both 404, in the same words. Reads are
read-only transactions with a time limit on connections of their own, so nothing that is asked here can hold up a terminal's.
"""

import importlib.metadata
import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from switch.clearing.close import CLOSE_LOCK, day_folder
from switch.clearing.day_files import SQL as CLOSE_SQL
from switch.clearing.day_reports import BY_NAME, Report, read_lines, read_rows, report_folder
from switch.clearing.report import step_table
from switch.ledger.days import ended_not_closed
from switch.operations.api import openapi
from switch.operations.api.asking import Page, Refused, asked_of, date_of, json_answer, page_of
from switch.operations.api.door import READER, ApiWatch, Connect, Door, reading
from switch.operations.api.downloads import Downloads
from switch.operations.api.rate import Rate
from switch.operations.api.tokens import SQL, Connection, Reader, Role

log = structlog.get_logger(__name__)

_STATES: Final = ("open", "being closed", "closed")
_NAME: Final = re.compile(r"[0-9A-Z]{1,40}")


def api_app(
    connect: Connect, folder: Path, note: Callable[[], str], watch: ApiWatch, rate: Rate | None = None
) -> web.Application:
    """What stands under /api/v1. folder: of the clearing files. note: what the service says about the close that runs."""
    api = _Api(connect, folder, note)
    door = Door(connect, watch, rate or Rate())
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


class _Api:
    """The answers themselves. Whoever comes here has a token that holds."""

    def __init__(self, connect: Connect, folder: Path, note: Callable[[], str]) -> None:
        self._connect = connect
        self._folder = folder
        self._note = note
        self._downloads = Downloads()
        self._document = orjson.dumps(openapi.document(importlib.metadata.version("citizen-card-switch")))

    async def document(self, _request: web.Request) -> web.StreamResponse:
        """OpenAPI, for everybody."""
        return web.Response(body=self._document, content_type="application/json")

    async def close(self, request: web.Request) -> web.StreamResponse:
        """What waits to be closed, and who is at it."""
        asked_of(request)
        _for_all_seeing(request)
        async with reading(self._connect) as connection:
            waiting = await ended_not_closed(connection)
            cursor = await connection.execute(CLOSE_SQL["who_closes"].encode(), {"lock": CLOSE_LOCK})
            holder = await cursor.fetchone()
        return json_answer(
            {"not_closed": waiting, "closer": holder[0] if holder else None, "note": self._note()}
        )

    async def days(self, request: web.Request) -> web.StreamResponse:
        """Days, the newest first."""
        asked = asked_of(request, "limit", "offset", "before")
        page = page_of(asked)
        before = date_of(asked["before"], "before") if "before" in asked else None
        async with reading(self._connect) as connection:
            rows = await _days(connection, request[READER], page, before=before)
        return json_answer(
            {"days": [_day(row) for row in rows[: page.limit]], "more": len(rows) > page.limit}
        )

    async def day(self, request: web.Request) -> web.StreamResponse:
        """One day."""
        asked_of(request)
        async with reading(self._connect) as connection:
            row = await self._visible(connection, request)
        return json_answer(_day(row))

    async def steps(self, request: web.Request) -> web.StreamResponse:
        """The steps of a day's close."""
        asked_of(request)
        _for_all_seeing(request)
        async with reading(self._connect) as connection:
            row = await self._visible(connection, request)
            steps = await step_table(connection, row[0])
        return json_answer({"day": row[0], "steps": steps})

    async def summary(self, request: web.Request) -> web.StreamResponse:
        """The reports that concern the reader, cut at a page."""
        asked_of(request)
        reader: Reader = request[READER]
        names = {Role.MEMBER: ("institutions",), Role.MERCHANT: ("merchants",)}.get(
            reader.role, ("institutions", "kinds", "merchants")
        )
        return await self._parts(request, names)

    async def float(self, request: web.Request) -> web.StreamResponse:
        """The operator's money."""
        asked_of(request)
        _for_all_seeing(request)
        return await self._parts(request, ("float", "movements", "cover"))

    async def _parts(self, request: web.Request, names: Sequence[str]) -> web.StreamResponse:
        document: dict[str, Any] = {}
        more = False
        async with reading(self._connect) as connection:
            day = (await self._reported(connection, request))[0]
            for name in names:
                page = Page(openapi.LIMIT_MAX, 0)
                document[name], further = await _lines(connection, BY_NAME[name], day, request[READER], page)
                more = more or further
        return json_answer({"day": day, **document, "more": more})

    async def files(self, request: web.Request) -> web.StreamResponse:
        """Clearing files that the reader may see, with their digests."""
        page = page_of(asked_of(request, "limit", "offset"))
        async with reading(self._connect) as connection:
            day = (await self._visible(connection, request))[0]
            rows = await _files(connection, day, request[READER], page)
        names = ("name", "type", "party", "lines", "total_fen", "bytes", "sm3")
        listed = [dict(zip(names, (*row[:3], *row[4:]), strict=True)) for row in rows[: page.limit]]
        return json_answer({"day": day, "files": listed, "more": len(rows) > page.limit})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A clearing file. A regulator sees that it is there, not what is in it: those of members hold card numbers in full."""
        asked_of(request)
        reader: Reader = request[READER]
        name = request.match_info["name"]
        if reader.role == Role.REGULATOR or not _NAME.fullmatch(name):
            raise Refused(404, "not found")
        async with reading(self._connect) as connection:
            day = (await self._visible(connection, request))[0]
            rows = await _files(connection, day, reader, Page(1, 0), name=name)
        if not rows:
            raise Refused(404, "not found")
        size, sm3 = rows[0][6], rows[0][7]
        log.info("a clearing file is fetched", token=reader.token_no, role=reader.role.value, file=rows[0][0])
        path = day_folder(self._folder, day) / rows[0][0]
        return await self._downloads.send(request, path, size, sm3, "application/octet-stream")

    async def reports(self, request: web.Request) -> web.StreamResponse:
        """Which reports there are, for the reader."""
        asked_of(request)
        reader: Reader = request[READER]
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
        return json_answer({"day": day, "reports": listed})

    async def report(self, request: web.Request) -> web.StreamResponse:
        """A report's lines as JSON, or with `.csv` the file itself, which only those may have who see all of it."""
        name = request.match_info["report"]
        reader: Reader = request[READER]
        report = BY_NAME.get(name.removesuffix(".csv"))
        if report is None or not _may_see(reader, report):
            raise Refused(404, "not found")
        if name.endswith(".csv"):
            return await self._csv(request, report)
        page = page_of(asked_of(request, "limit", "offset"))
        async with reading(self._connect) as connection:
            day = (await self._reported(connection, request))[0]
            lines, more = await _lines(connection, report, day, reader, page)
        return json_answer({"day": day, "report": report.name, "lines": lines, "more": more})

    async def _csv(self, request: web.Request, report: Report) -> web.StreamResponse:
        asked_of(request)
        _for_all_seeing(request)
        async with reading(self._connect) as connection:
            day = (await self._reported(connection, request))[0]
            rows = [row for row in await read_rows(connection, day) if row.report == report.name]
        if not rows:  # the day was closed by a version that had no such report
            raise Refused(404, "not found")
        row = rows[0]
        assert row.sm3 is not None
        assert row.size_bytes is not None
        path = report_folder(self._folder, day) / row.name
        return await self._downloads.send(request, path, row.size_bytes, row.sm3, "text/csv")

    async def _visible(self, connection: Connection, request: web.Request) -> tuple[Any, ...]:
        """The day that the path names, if there is one for this reader."""
        day = date_of(request.match_info["day"], "day")
        rows = await _days(connection, request[READER], Page(1, 0), day=day)
        if not rows:
            raise Refused(404, "not found")
        return rows[0]

    async def _reported(self, connection: Connection, request: web.Request) -> tuple[Any, ...]:
        row = await self._visible(connection, request)
        if row[1] != _STATES.index("closed") or not row[7]:
            raise Refused(404, "not found")
        return row


def _for_all_seeing(request: web.Request) -> None:
    if not request[READER].sees_all:
        raise Refused(404, "not found")


def _may_see(reader: Reader, report: Report) -> bool:
    return reader.sees_all or bool(_own_column(reader, report))


def _own_column(reader: Reader, report: Report) -> str:
    if reader.role == Role.MEMBER:
        return report.member_column
    return report.merchant_column if reader.role == Role.MERCHANT else ""


async def _lines(
    connection: Connection, report: Report, day: date, reader: Reader, page: Page
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
    page: Page,
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
    connection: Connection, day: date, reader: Reader, page: Page, *, name: str | None = None
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
