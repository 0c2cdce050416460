"""Rules over records: the figures that they ask for are computed once, then each rule picks what it marks.

Works on temporary tables of the caller's transaction (risk.sql): risk_scope is what to look at, risk_found what was found.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg import AsyncConnection, sql

from switch.purse.risk.features import feature_query
from switch.purse.risk.rules import COMPARISONS, Matter, Rule
from switch.storage.sql import load

SQL: Final = load("switch.purse.risk", "risk.sql")
STATEMENT_S_MAX: Final = 600

Connection = AsyncConnection[Any]

_OWNERS: Final = {Matter.CARD: "card", Matter.READER: "psam", Matter.TERMINAL: "terminal_no"}
_FIND: Final = """
INSERT INTO risk_found (rule, matter, owner, entry_no, business_date, card, money_fen)
SELECT %(rule)s, %(matter)s, {owner}, entry_no, business_date, card, money_fen
  FROM risk_feature
 WHERE asked AND {owner} IS NOT NULL AND {conditions}
 ORDER BY entry_no
 LIMIT %(limit)s
"""
assert _OWNERS.keys() == set(Matter)


async def bound(connection: Connection) -> None:
    """Let no statement of this transaction run for ever."""
    await ask(connection, "begin_bounded", {"milliseconds": str(STATEMENT_S_MAX * 1000)})


async def ask(
    connection: Connection, name: str, parameters: Mapping[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    """Rows of a named statement, none where it returns none."""
    cursor = await connection.execute(SQL[name].encode(), parameters)
    return list(await cursor.fetchall()) if cursor.description is not None else []


async def find(connection: Connection, rules: Sequence[Rule], limit: int | None = None) -> list[str]:
    """Fill risk_found from risk_scope; names of rules that found more than `limit` records, of which the rest is left out."""
    await ask(connection, "know_scope")
    names = {condition.feature for rule in rules for condition in rule.when}
    await connection.execute(feature_query(names).encode())
    await ask(connection, "know_features")
    await ask(connection, "make_found")
    cut: list[str] = []
    for rule in rules:
        parameters: dict[str, Any] = {
            "rule": rule.name,
            "matter": rule.matter.value,
            "limit": None if limit is None else limit + 1,
        }
        parts = []
        for place, condition in enumerate(rule.when):
            assert condition.comparison in COMPARISONS, "rules are checked before they are run"
            # A figure that cannot be told is NULL, and then nothing holds: <> NULL is no hit either.
            parts.append(
                sql.SQL(" ").join(
                    (
                        sql.Identifier(f"f_{condition.feature}"),
                        sql.SQL("<>" if condition.comparison == "!=" else condition.comparison),
                        sql.Placeholder(f"value{place}"),
                    )
                )
            )
            parameters[f"value{place}"] = condition.value
        query = sql.SQL(_FIND).format(
            owner=sql.Identifier(_OWNERS[rule.matter]), conditions=sql.SQL(" AND ").join(parts)
        )
        cursor = await connection.execute(query, parameters)
        if limit is not None and cursor.rowcount > limit:
            cut.append(rule.name)
    return cut
