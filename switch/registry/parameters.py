"""Parameters of terminals as operators keep them: which there are, what values they take, and whom they are for.

A value is for all terminals, for those of a merchant category, or for one; the narrowest wins. Two are not kept here, because the switch
itself goes by them: the cut-off (27) is the end of the business day, the records per upload (29) are RECORDS_MAX.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import psycopg

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import ConfigurationError, InputRefused
from switch.messages.parameters import parameter_text
from switch.messages.structures import PARAMETERS, RECORDS_MAX
from switch.registry.list_rollout import SQL as LISTS
from switch.registry.list_rollout import Newest, Plan, begin, begin_back, newest_of, require_finished
from switch.storage.sql import load

_SQL = load("switch.registry", "upkeep.sql")

Connection = psycopg.Connection[tuple[Any, ...]]

CUT_OFF_TAG: Final = "27"
RECORDS_TAG: Final = "29"
DERIVED: Final = frozenset({CUT_OFF_TAG, RECORDS_TAG})


class Rule(NamedTuple):
    """A parameter that operators set: the name they use, and its range."""

    tag: str
    name: str
    least: int
    most: int


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            Rule("12", "timeout_s", 5, 99),
            Rule("13", "resends", 0, 9),
            Rule("26", "purse_balance_max_fen", 1, 99_999_999),
            Rule("28", "offline_purchase_max_fen", 1, 99_999_999),
            Rule("30", "hot_list_age_days", 1, 99),
        )
    }
)
NAMES: Mapping[str, str] = MappingProxyType(
    {rule.tag: rule.name for rule in RULES.values()}
    | {CUT_OFF_TAG: "cut_off", RECORDS_TAG: "records_per_upload"}
)
assert all(rule.most < 10 ** PARAMETERS[rule.tag].size for rule in RULES.values())
assert 0 < RECORDS_MAX < 10 ** PARAMETERS[RECORDS_TAG].size


class Scope(NamedTuple):
    """Whom a value is for. category: four digits; terminal_id: eight characters; at most one of them."""

    category: str = ""
    terminal_id: str = ""

    def __str__(self) -> str:
        if self.terminal_id:
            return f"terminal {self.terminal_id}"
        return f"category {self.category}" if self.category else "all"


class InForce(NamedTuple):
    """A value that a terminal is told. source: all, category, terminal, or the switch itself."""

    tag: str
    name: str
    value: str  # as on the line
    source: str


class Change(NamedTuple):
    """A row of the record of changes. value None: the wider scope counts again."""

    number: int
    at: datetime
    actor: str
    scope: Scope
    name: str
    value: int | None


def cut_off_text(ends_at: datetime) -> str:
    """The end of the business day as tag 27 has it."""
    return ends_at.astimezone(SHANGHAI).strftime("%H%M%S")


def on_the_line(rows: Mapping[str, int], ends_at: datetime) -> tuple[tuple[str, str], ...]:
    """What terminals are told, in the order of tags: stored values by tag, and those that the switch goes by itself."""
    values = {tag: parameter_text(tag, value) for tag, value in rows.items()}
    values[CUT_OFF_TAG] = cut_off_text(ends_at)
    values[RECORDS_TAG] = parameter_text(RECORDS_TAG, RECORDS_MAX)
    return tuple(sorted(values.items()))


def read_assignment(text: str) -> tuple[Rule, int | None]:
    """`name=value` or `name=inherit`; InputRefused names the rule it breaks."""
    name, _, value = text.partition("=")
    if name in NAMES.values() and name not in RULES:
        raise InputRefused(f"{name}: is what the switch itself goes by, and cannot be set for terminals")
    rule = RULES.get(name)
    if rule is None:
        raise InputRefused(f"{name}: unknown; there are {', '.join(RULES)}")
    if value == "inherit":
        return rule, None
    if not (value.isascii() and value.isdecimal() and len(value) <= 8):
        raise InputRefused(f"{name}: a whole number, or `inherit`, is wanted")
    if not rule.least <= int(value) <= rule.most:
        raise InputRefused(f"{name}: must be {rule.least} to {rule.most}")
    return rule, int(value)


def show_parameters(connection: Connection, scope: Scope) -> list[InForce]:
    """What is in force for a scope. InputRefused for a terminal that nobody knows."""
    terminal_no, category = _named(connection, scope)
    named = {"terminal_no": terminal_no, "category": category}
    rows = connection.execute(_SQL["parameters_in_force"].encode(), named).fetchall()
    sources = {tag: source for tag, _, source in rows}
    day = connection.execute(_SQL["end_of_day"].encode()).fetchone()
    if day is None:
        raise ConfigurationError("no business day is open: see `cardswitch doctor`")
    told = on_the_line({tag: value for tag, value, _ in rows}, day[0])
    return [InForce(tag, NAMES[tag], value, sources.get(tag, "switch")) for tag, value in told]


def set_parameters(
    connection: Connection,
    scope: Scope,
    wanted: Mapping[Rule, int | None],
    actor: str,
    plan: Plan | None = None,
) -> list[Rule]:
    """Set all of them or none; returns those that were not so before.

    What is changed is the next version of the parameter set, and serving processes hear of it at the commit.
    plan: how it is rolled out; at once by default. connection: not in a transaction. InputRefused for an unknown terminal, for `inherit`
    where there is nothing wider, and while terminals are kept on two versions.
    """
    changed = []
    with connection.transaction():
        connection.execute(_SQL["lock_parameters"].encode())
        before = require_finished(connection, "PARAM")
        terminal_no, category = _named(connection, scope)
        target = {"terminal_no": terminal_no, "category": None if scope.terminal_id else category}
        for rule, value in wanted.items():
            if value is None and scope == Scope():
                raise InputRefused(f"{rule.name}: for all there is no wider scope to inherit from")
            row = connection.execute(_SQL["last_of_scope"].encode(), target | {"tag": rule.tag}).fetchone()
            if (row[0] if row else None) == value:
                continue
            added = target | {"tag": rule.tag, "value": value, "actor": actor}
            connection.execute(_SQL["add_parameter"].encode(), added)
            changed.append(rule)
        if changed:
            version = _add_version(connection, before, actor)
            begin(connection, "PARAM", version, plan or Plan(), actor, before=before)
    return changed


def roll_back(connection: Connection, actor: str) -> int:
    """Say again what was said before the newest version of the set, to everybody at once; the new version's number."""
    with connection.transaction():
        connection.execute(_SQL["lock_parameters"].encode())
        connection.execute(LISTS["lock_lists"].encode())
        before = newest_of(connection, "PARAM")
        if before.previous is None:
            raise InputRefused("there is no version to take back")
        values = {"version": before.previous, "actor": actor}
        connection.execute(LISTS["restore_parameters"].encode(), values)
        version = _add_version(connection, before, actor)
        begin_back(connection, "PARAM", version, actor, before=before, base=before.previous)
        return version


def _add_version(connection: Connection, before: Newest, actor: str) -> int:
    row = connection.execute(LISTS["parameter_set_state"].encode()).fetchone()
    assert row is not None
    version = before.version + 1
    values = {"kind": "PARAM", "version": version, "actor": actor, "through": row[0], "entries": row[1]}
    connection.execute(LISTS["add_list_version"].encode(), values)
    return version


def parameter_log(connection: Connection, most: int) -> list[Change]:
    """The newest changes, the last one first."""
    rows = connection.execute(_SQL["parameter_log"].encode(), {"most": most}).fetchall()
    return [
        Change(number, at, actor, Scope(category or "", terminal_id or ""), NAMES[tag], value)
        for number, at, actor, tag, category, terminal_id, value in rows
    ]


def _named(connection: Connection, scope: Scope) -> tuple[int | None, str | None]:
    """Terminal number and category of a scope."""
    if not scope.terminal_id:
        return None, scope.category or None
    row = connection.execute(_SQL["terminal_scope"].encode(), {"terminal_id": scope.terminal_id}).fetchone()
    if row is None:
        raise InputRefused("terminal: nobody of this id is registered")
    return row[0], row[1]
