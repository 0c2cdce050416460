"""Setting and ending limits. A rule begins on a later business day than the open one, so that a window counts whole days."""

from datetime import date
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from switch.domain.errors import InputRefused
from switch.ledger.card_states import with_reason
from switch.ledger.limits import LimitRule
from switch.storage.pool import end_if_idle
from switch.storage.sql import load

SQL = load("switch.ledger")
ACCOUNTS_AT_ONCE: Final = 2_000  # their payments wait for it, some ten milliseconds
# An import holds it at its end: accounts that it has not committed are seen by nobody, and would never be counted.
WAIT_FOR_IMPORT: Final = "SELECT pg_advisory_xact_lock(hashtext('limits of accounts'))"
Connection = psycopg.AsyncConnection[Any]


class Stored(NamedTuple):
    """A rule with its number."""

    rule_no: int
    rule: LimitRule


async def set_limit(
    connection: Connection, rule: LimitRule, shards: range, *, actor: str, reason: str
) -> tuple[int, int]:
    """Store a rule and have all accounts of its kind counted; the rule's number, and how many accounts that began for.

    Killed in between, the same call again goes on where it stopped. InputRefused: it begins too early, limits nothing or overlaps
    another. connection: in autocommit mode and not in a transaction.
    """
    reason = with_reason(reason)
    rule_no = await _number_of(connection, rule)
    if rule_no is None:
        rule_no = await _store(connection, rule, actor, reason)
    marked = 0
    for shard in shards:
        while count := await _mark(connection, shard, rule):
            marked += count
    return rule_no, marked


async def _number_of(connection: Connection, rule: LimitRule) -> int | None:
    return next((one.rule_no for one in await stored_limits(connection) if one.rule == rule), None)


async def _store(connection: Connection, rule: LimitRule, actor: str, reason: str) -> int:
    """The day is read after the wait, which may outlast it."""
    try:
        async with connection.transaction():
            await connection.execute(WAIT_FOR_IMPORT)
            if rule.valid_from <= await open_date(connection):
                raise InputRefused("limit: it must begin after the open business day")
            cursor = await connection.execute(SQL["save_limit"], rule._asdict())
            row = await cursor.fetchone()
            assert row is not None
            await _note(connection, row[0], actor, reason, {"before": None, "after": _document(rule)})
    except psycopg.errors.ExclusionViolation:
        raise InputRefused(
            "limit: another one is in force for the same accounts and days; end it first"
        ) from None
    except psycopg.errors.CheckViolation:
        raise InputRefused("limit: it must limit something, and not end before it begins") from None
    number: int = row[0]
    return number


async def _mark(connection: Connection, shard: int, rule: LimitRule) -> int:
    """Begin to count some of the accounts that are not counted yet. The day is read under their locks: none is counted in part."""
    async with connection.transaction():
        await end_if_idle(connection)
        which = {
            "shard": shard,
            "kind": rule.account_kind,
            "since": rule.valid_from,
            "limit": ACCOUNTS_AT_ONCE,
        }
        cursor = await connection.execute(SQL["lock_uncounted"], which)
        accounts = [row[0] for row in await cursor.fetchall()]
        if not accounts:
            return 0
        since = max(rule.valid_from, date.fromordinal((await open_date(connection)).toordinal() + 1))
        cursor = await connection.execute(
            SQL["count_from"], {"shard": shard, "accounts": accounts, "since": since}
        )
        return cursor.rowcount


async def end_limit(connection: Connection, rule_no: int, last: date, *, actor: str, reason: str) -> None:
    """Let a rule end with this business day. InputRefused: no such rule, or the day is over or before its beginning."""
    reason = with_reason(reason)
    found = next((one for one in await stored_limits(connection) if one.rule_no == rule_no), None)
    if found is None:
        raise InputRefused("limit: no such rule")
    before = found.rule
    if last < await open_date(connection) or last < before.valid_from:
        raise InputRefused("limit: it can end with the open business day or a later one of its own")
    if before.valid_to is not None and last > before.valid_to:
        raise InputRefused("limit: it ends before that day")
    async with connection.transaction():
        await connection.execute(SQL["end_limit"], {"rule_no": rule_no, "last": last})
        after = _document(before._replace(valid_to=last))
        await _note(connection, rule_no, actor, reason, {"before": _document(before), "after": after})


async def stored_limits(connection: Connection) -> list[Stored]:
    """All rules there are, by number."""
    cursor = await connection.execute(SQL["list_limits"])
    return [Stored(row[0], LimitRule(*row[1:])) for row in await cursor.fetchall()]


async def open_date(connection: Connection) -> date:
    """The business date of now."""
    cursor = await connection.execute(SQL["open_date"])
    row = await cursor.fetchone()
    if row is None:
        raise InputRefused("no business day covers this instant: run `cardswitch doctor`")
    day: date = row[0]
    return day


def _document(rule: LimitRule) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in rule._asdict().items()
    }


async def _note(
    connection: Connection, rule_no: int, actor: str, reason: str, change: dict[str, Any]
) -> None:
    note = {"actor": actor, "subject": f"limit {rule_no}", "change": Jsonb({**change, "reason": reason})}
    await connection.execute(SQL["note_limit"], note)
