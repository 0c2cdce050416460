"""Checks as SQL with their reasons. A check says what may not be; every row it returns is a place where it is.

A `.sql` file of this package holds checks like this:

    -- name: account_balance
    -- says: a balance is the sum of the account's postings
    -- rows: account, posting
    SELECT 'account', 'account 110', '500', '501' …

A table expression that several checks need is written once, in parts.sql, as `-- part: its_name` up to an empty line, and stands
in a query as `@its_name`. The four columns are the table, the key in words, what was expected and what was found; all text. A check that names %(first)s
looks at the business dates from there to %(last)s, every other at all that is stored.
"""

import re
from importlib import resources
from typing import Final, NamedTuple

_NAME: Final = re.compile(r"^-- name: *([a-z][a-z0-9_]*) *$", re.MULTILINE)
_PART: Final = re.compile(r"^-- part: *([a-z]+) *$\n(.+?)\n\n", re.MULTILINE | re.DOTALL)
_USE: Final = re.compile(r"^((?:WITH )?)@([a-z]+)", re.MULTILINE)
_NOTE: Final = re.compile(r"^-- (says|rows): *(.+?) *$", re.MULTILINE)


class Check(NamedTuple):
    """One query. says: what holds when it returns nothing. tables: whose rows it looks at."""

    name: str
    says: str
    tables: tuple[str, ...]
    query: str

    @property
    def by_day(self) -> bool:
        """Whether it looks at chosen business dates only."""
        return "%(first)s" in self.query

    def reads(self, table: str) -> bool:
        """Whether its query names a table, so that a change there could change what it finds. None reads a view."""
        return names(self.query, table)


def names(query: str, table: str) -> bool:
    """Whether a query names a table."""
    return re.search(rf"\b{re.escape(table)}\b", query) is not None


def read_checks(file: str) -> tuple[Check, ...]:
    """The checks of one file of this package, in order. Raises ValueError when one lacks a note or a name stands twice."""
    folder = resources.files(__package__ or "")
    text = folder.joinpath(file).read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    shared = dict(_PART.findall(folder.joinpath("parts.sql").read_text(encoding="utf-8")))
    checks = []
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        notes = dict(_NOTE.findall(body))
        lines = [line for line in body.splitlines() if not line.lstrip().startswith("--")]
        query = _USE.sub(lambda use: use[1] + shared[use[2]], "\n".join(lines)).strip().removesuffix(";")
        if notes.keys() != {"says", "rows"} or not query:
            raise ValueError(f"{file}: check {name} needs says, rows and a query")
        checks.append(Check(name, notes["says"], tuple(notes["rows"].split(", ")), query))
    if len({check.name for check in checks}) != len(checks):
        raise ValueError(f"{file}: a name stands twice")
    return tuple(checks)
