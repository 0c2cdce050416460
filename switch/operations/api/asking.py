"""What a request may say, and what an answer other than 200 looks like: one sentence as JSON."""

import re
from datetime import date
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from switch.operations.api import openapi

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Refused(Exception):
    """An answer other than 200, in one sentence."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class Page(NamedTuple):
    """A part of a list."""

    limit: int
    offset: int


def error_answer(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """The same form for whatever goes wrong."""
    return json_answer({"error": text}, status=status, headers=headers)


def json_answer(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A document; nobody on the way may keep it."""
    return web.Response(
        body=orjson.dumps(document, default=str),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def asked_of(request: web.Request, *allowed: str) -> dict[str, str]:
    """The query; a parameter that does not exist is an error, as a misspelt limit must not quietly be none."""
    for name in request.query:
        if name not in allowed:
            raise Refused(400, f"parameters: {', '.join(allowed) or 'none'}")
    if len(request.query) != len(set(request.query)):
        raise Refused(400, "each parameter once")
    return dict(request.query)


def _whole(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and least <= int(text) <= most):
        raise Refused(400, f"{name}: a whole number from {least} to {most}")
    return int(text)


def date_of(text: str, name: str) -> date:
    """A date in the one form that is taken."""
    if not _DATE.fullmatch(text):
        raise Refused(400, f"{name}: YYYY-MM-DD")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Refused(400, f"{name}: YYYY-MM-DD") from None


def page_of(asked: dict[str, str]) -> Page:
    """The part of a list that is asked for, within bounds."""
    limit = _whole(asked.get("limit", str(openapi.LIMIT)), "limit", 1, openapi.LIMIT_MAX)
    return Page(limit, _whole(asked.get("offset", "0"), "offset", 0, openapi.OFFSET_MAX))
