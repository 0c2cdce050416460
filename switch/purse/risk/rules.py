"""Reading a file of rules. What is wrong is said with line, rule, field and what would be right; nothing of it is ever run as SQL.

    format = 1

    [[rule]]
    name = "many-rides-in-an-hour"
    matter = "card"
    when = ["card_rides_1h >= 12"]
    note = "Nobody changes buses every five minutes."

All comparisons of `when` must hold. docs/risk.md has the figures.
"""

import operator
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from switch.domain.errors import InputRefused
from switch.purse.risk.features import FEATURES

FORMAT: Final = 1
FILE_BYTES_MAX: Final = 65_536
RULES_MAX: Final = 50
CONDITIONS_MAX: Final = 8
NOTE_MAX: Final = 200
FAULTS_MAX: Final = 100
VALUE_MAX: Final = 10**12

COMPARISONS: Final = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{1,39}")
_CONDITION: Final = re.compile(r"\s*([a-z][a-z0-9_]*)\s*(=|!=|<=|>=|<|>)\s*(-?[0-9]{1,13})\s*")
_HEADER: Final = re.compile(r"^\s*\[\[\s*rule\s*\]\]", re.MULTILINE)
_KEYS: Final = ("name", "matter", "when", "note")


class Matter(StrEnum):
    """What a case is about."""

    CARD = "card"
    READER = "reader"  # a PSAM
    TERMINAL = "terminal"  # that brought the record


class Condition(NamedTuple):
    """A figure, a comparison of COMPARISONS, and a whole number."""

    feature: str
    comparison: str
    value: int

    def __str__(self) -> str:
        return f"{self.feature} {self.comparison} {self.value}"


class Rule(NamedTuple):
    """A record is marked when every condition holds."""

    name: str
    matter: Matter
    when: tuple[Condition, ...]
    note: str


class RiskFault(NamedTuple):
    """One thing wrong. line: of the rule's head; 0 where there is none."""

    line: int
    rule: str
    field: str
    says: str

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else ""
        rule = f"rule {self.rule}" if self.rule else ""
        return ": ".join(part for part in (place, rule, self.field, self.says) if part)


class RulesRefused(InputRefused):
    """A file of rules breaks the format."""

    def __init__(self, faults: list[RiskFault]) -> None:
        self.faults = tuple(faults[:FAULTS_MAX])
        more = " (the first of them)" if len(faults) > FAULTS_MAX else ""
        super().__init__(
            "rules refused, nothing was changed" + more + "".join(f"\n  {one}" for one in self.faults)
        )


def read_rules(content: bytes) -> tuple[Rule, ...]:
    """The rules of a file, in its order. RulesRefused names everything that is wrong with it."""
    document, lines = _document(content)
    faults = [
        RiskFault(0, "", _shown(key), "is unknown; known are format and rule")
        for key in document
        if key not in ("format", "rule")
    ]
    if document.get("format") != FORMAT or isinstance(document.get("format"), bool):
        faults.append(RiskFault(0, "", "format", f"must be {FORMAT}"))
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        faults.append(RiskFault(0, "", "rule", "must be tables, each under [[rule]]"))
        tables = []
    elif not 1 <= len(tables) <= RULES_MAX:
        faults.append(RiskFault(0, "", "rule", f"must stand 1 to {RULES_MAX} times"))
    rules: list[Rule] = []
    names: set[str] = set()
    for number, table in enumerate(tables[:RULES_MAX]):
        # A text of several lines may hold what looks like a head; then no line is better than a wrong one.
        line = lines[number] if len(lines) == len(tables) else 0
        rule = _rule(table, number, line, faults)
        if rule is not None and rule.name in names:
            faults.append(RiskFault(line, rule.name, "name", "stands twice"))
        elif rule is not None:
            names.add(rule.name)
            rules.append(rule)
    if faults:
        raise RulesRefused(faults)
    return tuple(rules)


def _document(content: bytes) -> tuple[Mapping[str, Any], list[int]]:
    """What the file holds, and the lines of its heads."""
    if len(content) > FILE_BYTES_MAX:
        raise RulesRefused([RiskFault(0, "", "", f"a file of rules has at most {FILE_BYTES_MAX} bytes")])
    try:
        text = content.decode("utf-8")
        if "\0" in text:
            raise RulesRefused([RiskFault(0, "", "", "must hold no zero byte")])
        document = tomllib.loads(text)
    except UnicodeDecodeError:
        raise RulesRefused([RiskFault(0, "", "", "must be UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as error:
        # The reader's own words may quote the file, so only the place is taken from them.
        place = re.search(r"at line (\d+)", str(error))
        raise RulesRefused([RiskFault(int(place[1]) if place else 0, "", "", "is no TOML")]) from None
    except (RecursionError, ValueError):  # nesting, or a number of thousands of digits
        raise RulesRefused([RiskFault(0, "", "", "is no TOML that this format allows")]) from None
    return document, [text.count("\n", 0, head.end()) + 1 for head in _HEADER.finditer(text)]


def _shown(key: str) -> str:
    """A key that is not known. It is the file's text: shown only where it can hurt nobody's terminal."""
    return key if _NAME.fullmatch(key.replace("_", "-")) else ""


def _rule(table: Mapping[str, Any], number: int, line: int, faults: list[RiskFault]) -> Rule | None:
    before = len(faults)
    name = table.get("name")
    named = isinstance(name, str) and _NAME.fullmatch(name) is not None
    shown = str(name) if named else f"number {number + 1}"

    def wrong(field: str, says: str) -> None:
        faults.append(RiskFault(line, shown, field, says))

    if not named:
        wrong("name", "must be 2 to 40 of a-z, 0-9 and -, a letter first")
    for key in table:
        if key not in _KEYS:
            wrong(_shown(key), f"is unknown; known are {', '.join(_KEYS)}")
    matter = table.get("matter")
    if matter not in list(Matter):
        wrong("matter", f"must be one of {', '.join(Matter)}")
    note = table.get("note", "")
    if not isinstance(note, str) or len(note) > NOTE_MAX or not note.isprintable():
        wrong("note", f"must be text of one line with at most {NOTE_MAX} printable characters")
    when = table.get("when")
    conditions: list[Condition] = []
    if not isinstance(when, list) or not 1 <= len(when) <= CONDITIONS_MAX:
        wrong("when", f"must be a list of 1 to {CONDITIONS_MAX} comparisons")
    else:
        for place, text in enumerate(when, 1):
            condition = _condition(text)
            if isinstance(condition, str):
                wrong(f"when, comparison {place}", condition)
            else:
                conditions.append(condition)
    if len(faults) > before:
        return None
    return Rule(shown, Matter(str(matter)), tuple(conditions), str(note))


def _condition(text: object) -> Condition | str:
    """A comparison, or why it is none."""
    found = _CONDITION.fullmatch(text) if isinstance(text, str) and text.isascii() else None
    if found is None:
        return 'must read "FIGURE COMPARISON NUMBER": a figure, one of = != < <= > >=, and a whole number'
    feature, comparison, digits = found.groups()
    if feature not in FEATURES:
        return "figure is unknown: see `cardswitch risk features`"
    value = int(digits)
    if abs(value) > VALUE_MAX:
        return f"number must be between -{VALUE_MAX} and {VALUE_MAX}"
    if FEATURES[feature].unit == "0, 1" and not (comparison in ("=", "!=") and value in (0, 1)):
        return f"{feature} is 0 or 1, and can be = or != one of them"
    return Condition(feature, comparison, value)
