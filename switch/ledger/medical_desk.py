"""Setting and ending rows of the medical policy. One begins on a later business day than the open one, so that windows count whole days."""

from datetime import date
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from switch.domain.errors import InputRefused
from switch.ledger.card_states import with_reason
from switch.ledger.limit_desk import open_date
from switch.ledger.medical import PPM, PolicyRule
from switch.storage.sql import load

SQL = load("switch.ledger", "medical_desk.sql")
Connection = psycopg.AsyncConnection[Any]


async def set_policy(connection: Connection, rule: PolicyRule, *, actor: str, reason: str) -> int:
    """Store a rule and return its number; policy_no of the rule does not count. The same rule again is the stored one.

    InputRefused: its figures cannot be, it begins too early or overlaps another of its category. connection: in autocommit mode.
    """
    reason = with_reason(reason)
    _check(rule)
    async with connection.transaction():
        for stored in await stored_policies(connection):
            if stored == rule._replace(policy_no=stored.policy_no):
                return stored.policy_no
    try:
        async with connection.transaction():
            if rule.valid_from <= await open_date(connection):
                raise InputRefused("medical policy: it must begin after the open business day")
            cursor = await connection.execute(SQL["save_policy"], rule._asdict())
            row = await cursor.fetchone()
            assert row is not None
            number: int = row[0]
            await _note(connection, number, actor, reason, None, rule)
    except psycopg.errors.ExclusionViolation:
        raise InputRefused(
            "medical policy: another row is in force for the category in these days; end it first"
        ) from None
    return number


async def end_policy(connection: Connection, policy_no: int, last: date, *, actor: str, reason: str) -> None:
    """Let a row end with this business day. InputRefused: no such row, or the day is over or before its beginning."""
    reason = with_reason(reason)
    async with connection.transaction():
        before = next((one for one in await stored_policies(connection) if one.policy_no == policy_no), None)
        if before is None:
            raise InputRefused("medical policy: no such row")
        if last < await open_date(connection) or last < before.valid_from:
            raise InputRefused(
                "medical policy: it can end with the open business day or a later one of its own"
            )
        if before.valid_to is not None and last > before.valid_to:
            raise InputRefused("medical policy: it ends before that day")
        await connection.execute(SQL["end_policy"], {"policy_no": policy_no, "last": last})
        await _note(connection, policy_no, actor, reason, before, before._replace(valid_to=last))


async def stored_policies(connection: Connection) -> list[PolicyRule]:
    """All rows there are, by category and time."""
    cursor = await connection.execute(SQL["list_policies"])
    return [PolicyRule(*row) for row in await cursor.fetchall()]


def _check(rule: PolicyRule) -> None:
    category = rule.category
    if not (len(category) == 4 and category.isascii() and category.isdecimal()):
        raise InputRefused("medical policy: category must be four digits")
    if not 0 <= rule.own_pay_ppm <= PPM:
        raise InputRefused(f"medical policy: the own part must be 0 to {PPM} ppm")
    if rule.own_pay_ppm and not rule.splits:
        raise InputRefused(
            "medical policy: an own part needs the online account; to refuse a category leave it without a row"
        )
    if any(fen is not None and fen < 0 for fen in (rule.transaction_fen, rule.day_fen, rule.year_fen)):
        raise InputRefused("medical policy: a limit must not be below zero")
    if rule.valid_to is not None and rule.valid_to < rule.valid_from:
        raise InputRefused("medical policy: it must not end before it begins")


def _document(rule: PolicyRule) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in rule._asdict().items()
        if name != "policy_no"
    }


async def _note(
    connection: Connection,
    policy_no: int,
    actor: str,
    reason: str,
    before: PolicyRule | None,
    after: PolicyRule,
) -> None:
    change = {
        "before": _document(before) if before is not None else None,
        "after": _document(after),
        "reason": reason,
    }
    note = {"actor": actor, "subject": f"medical policy {policy_no}", "change": Jsonb(change)}
    await connection.execute(SQL["note_policy"], note)
