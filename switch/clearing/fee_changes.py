"""Changing fee rules: one person proposes, another approves, and a rule begins with a clearing date.

A rule never holds for a part of a day: a proposal must begin after the open day, when it is made and again when it is approved,
so a change at noon takes effect at a cut-off to come. Nothing is edited in place: the rule whose place a new one takes ends on
the day before, and days that are closed keep the terms that they froze.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final, NamedTuple

from psycopg.errors import CheckViolation, ExclusionViolation
from psycopg.types.json import Jsonb

from switch.clearing.day_files import Connection
from switch.clearing.fees import FeeRule, FeeSplit, Weights, fee_split
from switch.domain.errors import InputRefused
from switch.domain.people import another, person
from switch.domain.transactions import AccountKind
from switch.ledger.card_states import with_reason
from switch.storage.sql import load

SQL: Final = load("switch.clearing", "fee_rules.sql")
RULES_MAX: Final = 1_000  # of one proposal
LISTED_MAX: Final = 1_000

Record = Mapping[str, Any]
"""A fee rule as an import file says it: merchant_id, category, account_kind, rate_ppm, …, valid_from, valid_to."""


class Terms(NamedTuple):
    """A rule with its numbers and time. scope: merchant, category or general."""

    rule_no: int
    scope: str
    rule: FeeRule
    valid_from: date
    valid_to: date | None

    def holds_on(self, day: date) -> bool:
        """Whether it is in force."""
        return self.valid_from <= day and (self.valid_to is None or day <= self.valid_to)


class Explanation(NamedTuple):
    """Why a transaction costs what it costs. candidates: each rule with what speaks against it, empty for the one that counts.

    frozen: the day is closed, and the terms are those that it kept.
    """

    candidates: tuple[tuple[Terms, str], ...]
    rule: FeeRule
    rule_no: int | None
    split: FeeSplit
    frozen: bool


async def propose(connection: Connection, rules: Sequence[Record], *, actor: str, reason: str) -> int:
    """Write a proposal down and return its number. connection: in autocommit mode. Raises InputRefused, with nothing written."""
    reason, actor = with_reason(reason), person("actor", actor)
    if not 0 < len(rules) <= RULES_MAX:
        raise InputRefused(f"fee proposal: 1 to {RULES_MAX} rules")
    async with connection.transaction():
        await connection.execute(SQL["one_at_a_time"])
        merchants = await merchant_numbers(connection, rules)
        row = await (
            await connection.execute(SQL["add_proposal"], {"actor": actor, "reason": reason})
        ).fetchone()
        assert row is not None
        number: int = row[0]
        for line, rule in enumerate(rules, 1):
            values = {**rule, "merchant_no": merchants.get(rule["merchant_id"])}
            await _check_time(connection, line, values, rules)
            try:
                await connection.execute(
                    SQL["add_proposed_rule"], {"proposal_no": number, "line": line, **values}
                )
            except CheckViolation:
                raise InputRefused(f"fee rule {line}: its figures cannot be") from None
        _check_each_other(rules)
    return number


async def approve(connection: Connection, proposal_no: int, *, actor: str, note: str = "") -> list[int]:
    """Let the rules of a proposal be; their numbers. By another person than the one who proposed. Raises InputRefused."""
    async with connection.transaction():
        await connection.execute(SQL["one_at_a_time"])
        proposer = await _open(connection, proposal_no)
        actor = another("actor", actor, proposer)
        cursor = await connection.execute(SQL["proposed_rules"], {"proposal_no": proposal_no})
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        rules = [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
        begun = [await _begin(connection, proposal_no, rule, rules, actor, proposer) for rule in rules]
        await connection.execute(
            SQL["decide"], {"proposal_no": proposal_no, "state": "APPROVED", "actor": actor, "note": note}
        )
    return begun


async def withdraw(connection: Connection, proposal_no: int, *, actor: str, reason: str) -> None:
    """End a proposal without a change. Anybody may, with a reason. Raises InputRefused."""
    reason, actor = with_reason(reason), person("actor", actor)
    async with connection.transaction():
        await _open(connection, proposal_no)
        await connection.execute(
            SQL["decide"], {"proposal_no": proposal_no, "state": "WITHDRAWN", "actor": actor, "note": reason}
        )


async def explain(
    connection: Connection, merchant_id: str, kind: AccountKind, day: date, amount_fen: int
) -> Explanation:
    """Which rule counts for a merchant's transaction of a clearing date, and its fee. Raises InputRefused for a stranger."""
    found = await (await connection.execute(SQL["merchants"], {"merchant_ids": [merchant_id]})).fetchone()
    if found is None:
        raise InputRefused("merchant: not in the registry")
    about = {"merchant_no": found[1], "category": found[2], "account_kind": int(kind), "day": day}
    cursor = await connection.execute(SQL["candidates"], about)
    terms = [
        Terms(number, scope, FeeRule(rate, least, cap, Weights(*weights)), begins, ends)
        for number, scope, rate, least, cap, *weights, begins, ends in await cursor.fetchall()
    ]
    counts = next((one for one in terms if one.holds_on(day)), None)
    frozen = await (await connection.execute(SQL["frozen_rule"], about)).fetchone()
    if frozen is not None:
        number, rate, least, cap, *weights = frozen
        rule = FeeRule(rate, least, cap, Weights(*weights))
    else:
        number, rule = (counts.rule_no, counts.rule) if counts else (None, FeeRule(0))
    against = tuple(
        (
            one,
            ""
            if one.rule_no == number
            else f"less specific than rule {number}"
            if one.holds_on(day)
            else f"begins on {one.valid_from}"
            if day < one.valid_from
            else f"ended on {one.valid_to}",
        )
        for one in terms
    )
    return Explanation(against, rule, number, fee_split(amount_fen, rule), frozen is not None)


async def stored_rules(connection: Connection, on_date: date | None) -> list[dict[str, Any]]:
    """Rules in force on a date, or all."""
    return await dicts(connection, "list_rules", on_date=on_date)


async def stored_proposals(connection: Connection, limit: int = LISTED_MAX) -> list[dict[str, Any]]:
    """The newest proposals with their rules, newest first."""
    proposals = await dicts(connection, "proposals", limit=min(limit, LISTED_MAX))
    for proposal in proposals:
        proposal["rules"] = await dicts(connection, "proposed_rules", proposal_no=proposal["proposal_no"])
    return proposals


async def merchant_numbers(connection: Connection, rules: Sequence[Record]) -> dict[str | None, int]:
    """Registry numbers of the merchants that rules name. Raises InputRefused for one that is not there."""
    ids = {rule["merchant_id"] for rule in rules if rule["merchant_id"] is not None}
    cursor = await connection.execute(SQL["merchants"], {"merchant_ids": sorted(ids)})
    numbers: dict[str | None, int] = {row[0]: row[1] for row in await cursor.fetchall()}
    for line, rule in enumerate(rules, 1):
        if rule["merchant_id"] is not None and rule["merchant_id"] not in numbers:
            raise InputRefused(f"fee rule {line}: merchant_id: not in the registry")
    return numbers


async def _open(connection: Connection, proposal_no: int) -> str:
    """Lock a proposal that waits; who made it."""
    row = await (await connection.execute(SQL["lock_proposal"], {"proposal_no": proposal_no})).fetchone()
    if row is None:
        raise InputRefused("fee proposal: there is none of this number")
    if row[0] != "PROPOSED":
        raise InputRefused(f"fee proposal: it was {row[0].lower()} before")
    proposer: str = row[1]
    return proposer


async def _check_time(connection: Connection, line: int, values: Record, together: Sequence[Record]) -> None:
    """That a rule begins late enough and does not meet another. together: all of its proposal."""
    row = await (await connection.execute(SQL["open_date"])).fetchone()
    if row is None:
        raise InputRefused("no business day covers this instant: run `cardswitch doctor`")
    if _day(values["valid_from"]) <= row[0]:
        raise InputRefused(
            f"fee rule {line}: valid_from: must be after the open business day {row[0]}: a rule holds for whole days"
        )
    ends = values["valid_to"]
    followed = ends is not None and any(
        scope_of(other) == scope_of(values)
        and _day(other["valid_from"]).toordinal() == _day(ends).toordinal() + 1
        for other in together
    )
    collision = await (
        await connection.execute(SQL["colliding"], {**values, "followed": followed})
    ).fetchone()
    if collision is not None:
        raise InputRefused(
            f"fee rule {line}: rule {collision[0]} of the same scope begins in its time, or holds beyond its end with nothing to follow"
        )


def _check_each_other(rules: Sequence[Record]) -> None:
    """Two rules of one proposal never hold at the same time for the same scope."""
    for later, rule in enumerate(rules, 1):
        for earlier, other in enumerate(rules[: later - 1], 1):
            apart = any(
                first["valid_to"] is not None and _day(first["valid_to"]) < _day(second["valid_from"])
                for first, second in ((rule, other), (other, rule))
            )
            if scope_of(rule) == scope_of(other) and not apart:
                raise InputRefused(f"fee rules {earlier} and {later}: the same scope at the same time")


def scope_of(rule: Record) -> tuple[object, ...]:
    """For whom a rule is, and for which account kind."""
    return rule["merchant_id"], rule["category"], rule["account_kind"]


def _day(value: object) -> date:
    """Files say days as text, the database as dates."""
    return value if isinstance(value, date) else date.fromisoformat(str(value))


async def _begin(
    connection: Connection,
    proposal_no: int,
    values: Record,
    together: Sequence[Record],
    actor: str,
    proposer: str,
) -> int:
    line = values["line"]
    await _check_time(connection, line, values, together)
    ended = await (await connection.execute(SQL["end_rule"], values)).fetchall()
    try:
        row = await (
            await connection.execute(SQL["begin_rule"], {"proposal_no": proposal_no, "line": line})
        ).fetchone()
    except ExclusionViolation:
        raise InputRefused(f"fee rule {line}: overlaps another rule of the same scope") from None
    assert row is not None
    number: int = row[0]
    after = {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in values.items()
        if name not in ("line", "merchant_no", "rule_no")
    }
    change = {
        "proposal": proposal_no,
        "proposer": proposer,
        "ends": [one[0] for one in ended],
        "after": after,
    }
    await connection.execute(
        SQL["note_change"], {"actor": actor, "subject": f"fee_rule {number}", "change": Jsonb(change)}
    )
    return number


async def dicts(connection: Connection, query: str, **values: object) -> list[dict[str, Any]]:
    """The rows of one of this file's queries, by the names of their columns."""
    cursor = await connection.execute(SQL[query], values)
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
