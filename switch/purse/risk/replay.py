"""Rules over records: the figures that they ask for are computed once, then each rule picks what it marks. One statement does it all.

It writes nothing, not even a temporary table: whatever writes takes a transaction number, and one that is held for as long as a
million records take to look at would hold back every fold of the books.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg import AsyncConnection

from switch.purse.risk.features import feature_query
from switch.purse.risk.rules import COMPARISONS, Matter, Rule
from switch.storage.sql import load

SQL: Final = load("switch.purse.risk", "risk.sql")
STATEMENT_S_MAX: Final = 600

Connection = AsyncConnection[Any]

_OWNERS: Final = {Matter.CARD: "card", Matter.READER: "psam", Matter.TERMINAL: "terminal_no"}
assert _OWNERS.keys() == set(Matter)
_PICK: Final = """(SELECT %({rule})s::text AS rule, '{matter}' AS matter, f.{owner} AS owner, f.entry_no, f.business_date, f.card, f.money_fen
  FROM risk_feature f
 WHERE f.asked AND f.{owner} IS NOT NULL AND {conditions}{known}
 ORDER BY f.entry_no
 LIMIT %(limit)s)"""
_NOT_KNOWN: Final = """
   AND NOT EXISTS (SELECT FROM risk_hit h WHERE h.rule = %({rule})s AND h.entry_no = f.entry_no)"""
_ALL: Final = """WITH risk_scope AS MATERIALIZED (
{scope}
), risk_feature AS MATERIALIZED (
{features}
), risk_found AS MATERIALIZED (
{picks}
){more}
{result}"""


async def bound(connection: Connection) -> None:
    """Let no statement of this transaction run for ever."""
    await ask(connection, "begin_bounded", {"milliseconds": str(round(STATEMENT_S_MAX * 1000))})


async def ask(
    connection: Connection, name: str, parameters: Mapping[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    """Rows of a named statement, none where it returns none."""
    cursor = await connection.execute(SQL[name].encode(), parameters)
    return list(await cursor.fetchall()) if cursor.description is not None else []


async def find(
    connection: Connection,
    rules: Sequence[Rule],
    scope: str,
    parameters: Mapping[str, Any],
    result: str,
    *,
    labels: str = "",
    limit: int | None = None,
) -> list[tuple[Any, ...]]:
    """What the rules find. scope, result, labels: names of statements of risk.sql, with their parameters.

    limit: how many records a rule may find, of those that it has not marked yet; None: all, marked ones too.
    """
    values: dict[str, Any] = {**parameters, "limit": limit}
    picks = [_pick(rule, number, values, known=limit is not None) for number, rule in enumerate(rules)]
    more = f", risk_label AS MATERIALIZED (\n{SQL[labels]}\n)" if labels else ""
    query = _ALL.format(
        scope=SQL[scope],
        features=feature_query({condition.feature for rule in rules for condition in rule.when}),
        picks="\nUNION ALL\n".join(picks),
        more=more,
        result=SQL[result],
    )
    cursor = await connection.execute(query.encode(), values)
    return list(await cursor.fetchall())


def _pick(rule: Rule, number: int, values: dict[str, Any], *, known: bool) -> str:
    """A rule as a SELECT of our own words; its name and its numbers go to `values`."""
    values[f"rule{number}"] = rule.name
    parts = []
    for place, condition in enumerate(rule.when):
        assert condition.comparison in COMPARISONS, "rules are checked before they are run"
        name = f"value{number}_{place}"
        values[name] = condition.value
        # A figure that cannot be told is NULL, and then nothing holds: <> NULL is no hit either.
        parts.append(f"f.f_{condition.feature} {condition.comparison} %({name})s")
    return _PICK.format(
        rule=f"rule{number}",
        matter=rule.matter.value,
        owner=_OWNERS[rule.matter],
        conditions=" AND ".join(parts),
        known=_NOT_KNOWN.format(rule=f"rule{number}") if known else "",
    )
