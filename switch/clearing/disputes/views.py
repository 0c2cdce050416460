"""Cases as people and partners look at them: lists, one with all that happened, what is due, and figures."""

from datetime import date, datetime
from typing import Any, Final, NamedTuple

from switch.clearing.disputes.originals import SQL as CASES_SQL
from switch.clearing.disputes.states import DECIDED_WITHIN_DAYS, OPEN
from switch.clearing.disputes.steps import Connection
from switch.domain.errors import InputRefused
from switch.storage.sql import load

SQL: Final = load("switch.clearing.disputes", "views.sql")
LISTED_MAX: Final = 10_000
SOURCES: Final = {1: "online", 2: "record", 3: "other city", 4: "load"}


class Line(NamedTuple):
    """A case in one line. cleared_on: the clearing date of its transaction. overdue: somebody should have done something."""

    case_no: int
    opened_at: datetime
    state: str
    merchant_id: str
    issuer_id: str
    acquirer_id: str
    member_id: str
    member_case: str
    about: str
    entry_no: int
    cleared_on: date
    account_kind: int
    amount_fen: int
    charged_fen: int
    asked_action: str
    asked_fen: int
    asked_by: str
    due_on: date | None
    overdue: bool


class Due(NamedTuple):
    """Something to be done about a case."""

    case_no: int
    state: str
    merchant_id: str
    issuer_id: str
    acquirer_id: str
    what: str
    amount_fen: int
    due_on: date
    overdue: bool


class Step(NamedTuple):
    """What happened to a case once. moved: the postings of what was booked, in words."""

    seq: int
    at: datetime
    business_date: date
    what: str
    action: str
    before: str
    after: str
    amount_fen: int
    reason: str
    note: str
    actor: str
    checker: str
    entry_no: int
    moved: str


class Figures(NamedTuple):
    """Open cases by state, how many of them wait for a checker, and how many are overdue."""

    open: dict[str, int]
    waiting: int
    overdue: int


async def list_cases(
    connection: Connection,
    *,
    merchant: str = "",
    member: str = "",
    states: list[str] | None = None,
    every: bool = False,
    case_no: int | None = None,
    limit: int = LISTED_MAX,
) -> list[Line]:
    """Cases, the newest first; open ones, those of some states, or all."""
    cursor = await connection.execute(
        SQL["list"],
        {
            "merchant": merchant,
            "member": member,
            "states": states or sorted(OPEN),
            "every": every,
            "case_no": case_no,
            "limit": min(limit, LISTED_MAX),
            "decided_within": DECIDED_WITHIN_DAYS,
        },
    )
    return [Line(*(*row[:8], SOURCES[row[8]], *row[9:])) for row in await cursor.fetchall()]


async def due_cases(connection: Connection, days: int, limit: int = LISTED_MAX) -> list[Due]:
    """What must be done within so many days, overdue things first."""
    values = {"days": days, "limit": min(limit, LISTED_MAX), "decided_within": DECIDED_WITHIN_DAYS}
    return [Due(*row) for row in await (await connection.execute(SQL["due"], values)).fetchall()]


async def show_case(connection: Connection, case_no: int) -> dict[str, Any]:
    """Everything about a case, as a document. InputRefused when there is none."""
    found = await list_cases(connection, every=True, case_no=case_no)
    if not found:
        raise InputRefused("case: no such case")
    values = {"case_no": case_no, "limit": LISTED_MAX}
    steps = await (await connection.execute(SQL["events"], values)).fetchall()
    evidence = await (await connection.execute(CASES_SQL["list_evidence"], values)).fetchall()
    refusals = await (await connection.execute(SQL["refusals"], values)).fetchall()
    names = ("seq", "at", "actor", "note", "name", "media_type", "size_bytes", "sm3")
    refused = ("at", "action", "amount_fen", "rule", "detail", "actor")
    return {
        **found[0]._asdict(),
        "steps": [Step(*row)._asdict() for row in steps],
        "evidence": [dict(zip(names, row, strict=True)) for row in evidence],
        "refused": [dict(zip(refused, row, strict=True)) for row in refusals],
    }


async def figures(connection: Connection) -> Figures:
    """What is open now."""
    cursor = await connection.execute(SQL["figures"], {"decided_within": DECIDED_WITHIN_DAYS})
    rows = await cursor.fetchall()
    return Figures({row[0]: row[1] for row in rows}, sum(row[2] for row in rows), sum(row[3] for row in rows))
