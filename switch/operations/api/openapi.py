"""The API as an OpenAPI 3.1 document, made of the same reports and bounds that the answers are made of."""

from typing import Any, Final

from switch.clearing.day_reports import REPORTS, Report

LIMIT_MAX: Final = 1_000
LIMIT: Final = 100
OFFSET_MAX: Final = 1_000_000

Schema = dict[str, Any]

# By column, wherever it stands; every other column is a whole number.
_TEXT: Final = frozenset(
    {
        *(
            "institution",
            "merchant",
            "acquirer",
            "issuer",
            "category",
            "source",
            "class",
            "events",
            "item",
            "reason",
            "money",
        ),
        *("counter", "device", "kind", "card", "detail", "terminal", "state", "since"),
    }
)
_DATES: Final = frozenset({"settlement_date", "clearing_date", "business_date", "loaded_on", "opened_on"})
_EMPTY: Final = frozenset({"code", "ratio_ppm", "missing_from", "missing_to", "entry", "gap"})
_COLUMNS: Final = {
    "institutions": "institution issuing_count issuing_fen acquiring_count acquiring_fen issuer_fee_fen fees_paid_fen net_fen settlement_date",
    "settlement": "settlement_date clearing_date institution net_fen running_fen",
    "merchants": "merchant category acquirer items sales_count sales_fen refund_count refund_fen fee_fen net_fen refused_count refused_fen"
    " pending_count pending_fen",
    "kinds": "account_kind issuer items sales_count sales_fen refund_count refund_fen fee_fen issuer_fee_fen switch_fee_fen acquirer_fee_fen",
    "float": "code opening_fen loads_fen purchases_fen refunds_fen adjustments_fen fees_fen suspense_fen transfers_fen settlement_fen other_fen"
    " closing_fen",
    "movements": "debit_code credit_code source class events move_count amount_fen",
    "cover": "item code amount_fen ratio_ppm",
    "suspense": "item days loads amount_fen",
    "suspense_loads": "load card_no source loaded_on days since reason money amount_fen",
    "gaps": "counter device merchant missing_from missing_to missing_count since days",
    "collisions": "alarm kind business_date card entry gap detail",
    "batches": "terminal merchant batch_no opened_on days state",
}
assert _COLUMNS.keys() == {report.name for report in REPORTS}, "every report has its columns"


def _column(report: str, name: str) -> Schema:
    if name in _TEXT or (report, name) == ("suspense", "days"):
        return {"type": "string"}
    if name in _DATES:
        return {"type": "string", "format": "date"}
    return {"type": ["integer", "null"] if name in _EMPTY else "integer"}


def _object(properties: Schema, **more: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def _list_of(name: str) -> Schema:
    return {"type": "array", "items": _ref(name), "maxItems": LIMIT_MAX}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _line(report: str) -> str:
    return "".join(word.capitalize() for word in report.split("_")) + "Line"


_INSTANT: Final = {"type": ["string", "null"], "format": "date-time"}
_HEX: Final = {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"}
_SM3: Final = {"type": "string", "pattern": "^[0-9A-F]{64}$"}
_COUNT: Final = {"type": "integer", "minimum": 0}


def _schemas() -> Schema:
    day = {
        "day": {"type": "string", "format": "date"},
        "state": {"enum": ["open", "being closed", "closed"]},
        "begins_at": _INSTANT,
        "ends_at": _INSTANT,
        "sealed_at": _INSTANT,
        "created_at": _INSTANT,
        "settlement_date": {"type": ["string", "null"], "format": "date"},
        "has_reports": {"type": "boolean"},
    }
    step = {
        "step": {"type": "string"},
        "ordinal": _COUNT,
        "state": {"enum": ["RUNNING", "DONE"]},
        "actor": {"type": "string"},
        "started_at": _INSTANT,
        "finished_at": _INSTANT,
        "tries": _COUNT,
        "error": {"type": ["string", "null"]},
        "input_sha256": _HEX,
        "output_sha256": _HEX,
        "outcome": {"type": ["object", "null"]},
    }
    file = {
        "name": {"type": "string"},
        "type": {"type": "string"},
        "party": {"type": "string"},
        "lines": _COUNT,
        "total_fen": _COUNT,
        "bytes": _COUNT,
        "sm3": _SM3,
    }
    listed = {
        "report": {"type": "string"},
        "title": {"type": "string"},
        "name": {"type": "string"},
        "lines": _COUNT,
        "bytes": _COUNT,
        "sm3": _SM3,
    }
    more = {"more": {"type": "boolean"}}
    lines = {
        _line(name): _object({column: _column(name, column) for column in columns.split()})
        for name, columns in _COLUMNS.items()
    }
    pages = {
        f"{_line(name)}s": _object(
            {"day": day["day"], "report": {"const": name}, "lines": _list_of(_line(name)), **more}
        )
        for name in _COLUMNS
    }
    parts = {name: _list_of(_line(name)) for name in _COLUMNS}
    return {
        **lines,
        **pages,
        "Error": _object({"error": {"type": "string"}}),
        "Day": _object(day),
        "Days": _object({"days": _list_of("Day"), **more}),
        "Step": _object(step),
        "Steps": _object({"day": day["day"], "steps": _list_of("Step")}),
        "Close": _object(
            {
                "not_closed": {"type": "array", "items": day["day"]},
                "closer": {"type": ["string", "null"]},
                "note": {"type": "string"},
            }
        ),
        "File": _object(file),
        "Files": _object({"day": day["day"], "files": _list_of("File"), **more}),
        "Listed": _object(listed),
        "Reports": _object({"day": day["day"], "reports": _list_of("Listed")}),
        "Summary": {
            **_object({"day": day["day"]}),
            "properties": {
                "day": day["day"],
                **{name: parts[name] for name in ("institutions", "kinds", "merchants")},
                **more,
            },
            "required": ["day", "more"],
        },
        "Float": _object(
            {"day": day["day"], **{name: parts[name] for name in ("float", "movements", "cover")}, **more}
        ),
    }


_DAY_PARAMETER: Final = {
    "name": "day",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "date"},
    "description": "Business date.",
}
_PAGE: Final = [
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT},
    },
    {
        "name": "offset",
        "in": "query",
        "schema": {"type": "integer", "minimum": 0, "maximum": OFFSET_MAX, "default": 0},
    },
]


def _refusals() -> Schema:
    said = {
        "400": "A parameter breaks a rule; the text names it.",
        "401": "No token, or none that holds.",
        "404": "There is no such thing, or it is not this token's to see.",
        "429": "Too many requests; Retry-After says when to ask again.",
        "503": "The database or the file cannot be had now.",
    }
    return {
        code: {"description": text, "content": {"application/json": {"schema": _ref("Error")}}}
        for code, text in said.items()
    }


def _get(
    summary: str, schema: str | None, parameters: list[Schema], *, media: str = "application/json"
) -> Schema:
    answer: Schema = {"description": summary}
    if schema is not None:
        answer["content"] = {media: {"schema": _ref(schema)}}
    else:
        answer["content"] = {media: {"schema": {"type": "string", "format": "binary"}}}
        answer["headers"] = {"X-Content-SM3": {"description": "SM3 of the whole content.", "schema": _SM3}}
    return {
        "get": {"summary": summary, "parameters": parameters, "responses": {"200": answer, **_refusals()}}
    }


def _report_paths(report: Report) -> Schema:
    path = f"/days/{{day}}/reports/{report.name}"
    return {
        path: _get(report.title, f"{_line(report.name)}s", [_DAY_PARAMETER, *_PAGE]),
        f"{path}.csv": _get(f"{report.title}, the file", None, [_DAY_PARAMETER], media="text/csv"),
    }


def document(version: str) -> Schema:
    """The whole document."""
    before = {
        "name": "before",
        "in": "query",
        "schema": {"type": "string", "format": "date"},
        "description": "Only earlier days.",
    }
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    paths: Schema = {
        "/openapi.json": {
            "get": {
                "summary": "This document; it needs no token.",
                "security": [],
                "responses": {
                    "200": {
                        "description": "OpenAPI 3.1.",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    }
                },
            }
        },
        "/close": _get("Days that have ended and are not closed, and who is at it.", "Close", []),
        "/days": _get("Business days, the newest first.", "Days", [before, *_PAGE]),
        "/days/{day}": _get("One business day.", "Day", [_DAY_PARAMETER]),
        "/days/{day}/steps": _get("The steps of its close.", "Steps", [_DAY_PARAMETER]),
        "/days/{day}/summary": _get(
            "What the day came to, as far as it is the token's to see.", "Summary", [_DAY_PARAMETER]
        ),
        "/days/{day}/float": _get("Float statement, money by event, cover ratio.", "Float", [_DAY_PARAMETER]),
        "/days/{day}/files": _get("Clearing files of the day.", "Files", [_DAY_PARAMETER, *_PAGE]),
        "/days/{day}/files/{name}": _get(
            "A clearing file as it was written.",
            None,
            [_DAY_PARAMETER, name],
            media="application/octet-stream",
        ),
        "/days/{day}/reports": _get("Reports of the day.", "Reports", [_DAY_PARAMETER]),
    }
    for report in REPORTS:
        paths |= _report_paths(report)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "citizen card switch",
            "version": version,
            "description": "Closed business days, read-only. Amounts are whole fen. What a token may not see is 404.",
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "`cardswitch api token add`"}
            },
            "schemas": _schemas(),
        },
    }
