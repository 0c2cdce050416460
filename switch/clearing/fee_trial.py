"""A dry run of fee rules: what closed days would have cost under them. Nothing is changed, and nothing of it is kept.

Rules on trial count as if they had held on every day asked for, and on the days of the originals of what was given back then; they
stand in the place of stored rules of the same scope and account kind, and all others stay. The database computes; Python sees sums.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final, NamedTuple

from switch.clearing.day_files import Connection
from switch.clearing.fee_changes import RULES_MAX, SQL, Record, merchant_numbers, scope_of
from switch.domain.errors import InputRefused

DAYS_MAX: Final = 400


class Shares(NamedTuple):
    """A fee and who gets it, in fen."""

    fee_fen: int
    issuer_fen: int
    switch_fen: int

    @property
    def acquirer_fen(self) -> int:
        """What is left."""
        return self.fee_fen - self.issuer_fen - self.switch_fen


class Line(NamedTuple):
    """One merchant's items of one account kind. without_…: items that no rule covers."""

    merchant_id: str
    category: str
    account_kind: int
    items: int
    volume_fen: int
    now: Shares
    then: Shares
    without_now: int
    without_then: int

    @property
    def difference_fen(self) -> int:
        """What the merchant would have paid more."""
        return self.then.fee_fen - self.now.fee_fen


class Trial(NamedTuple):
    """What a dry run found. unused: rules, counted from 1, that counted for nothing."""

    days: tuple[date, ...]
    lines: tuple[Line, ...]
    unused: tuple[int, ...]


async def try_rules(connection: Connection, rules: Sequence[Record], since: date, until: date) -> Trial:
    """Run closed days from `since` to `until` under these rules. connection: in autocommit mode. Raises InputRefused."""
    if not 0 < len(rules) <= RULES_MAX:
        raise InputRefused(f"rules: 1 to {RULES_MAX}")
    scopes = [scope_of(rule) for rule in rules]
    for line, scope in enumerate(scopes, 1):
        if (first := scopes.index(scope) + 1) < line:
            raise InputRefused(f"fee rules {first} and {line}: the same scope; a trial has one rule for each")
    async with connection.transaction(force_rollback=True):
        cursor = await connection.execute(SQL["closed_days"], {"since": since, "until": until})
        days = [row[0] for row in await cursor.fetchall()]
        if not days:
            raise InputRefused(f"no closed day from {since} to {until}")
        if len(days) > DAYS_MAX:
            raise InputRefused(f"at most {DAYS_MAX} days at once, not {len(days)}")
        merchants = await merchant_numbers(connection, rules)
        await connection.execute("SET LOCAL work_mem = '128MB'")
        await connection.execute(
            SQL["trial_rules"],
            {
                "lines": list(range(1, len(rules) + 1)),
                "merchants": [merchants.get(rule["merchant_id"]) for rule in rules],
                "categories": [rule["category"] for rule in rules],
                "kinds": [rule["account_kind"] for rule in rules],
                "rates": [rule["rate_ppm"] for rule in rules],
                "minimums": [rule["minimum_fen"] for rule in rules],
                "caps": [rule["cap_fen"] for rule in rules],
                "issuers": [rule["weight_issuer"] for rule in rules],
                "switches": [rule["weight_switch"] for rule in rules],
                "acquirers": [rule["weight_acquirer"] for rule in rules],
            },
        )
        await connection.execute(SQL["trial_terms"], {"days": days})
        await connection.execute("ANALYZE trial_term")
        cursor = await connection.execute(SQL["trial_totals"], {"days": days})
        lines = tuple(
            Line(
                merchant_id=row[0],
                category=row[1],
                account_kind=row[2],
                items=row[3],
                volume_fen=row[4],
                now=Shares(*row[5:8]),
                then=Shares(*row[8:11]),
                without_now=row[11],
                without_then=row[12],
            )
            for row in await cursor.fetchall()
        )
        unused = tuple(row[0] for row in await (await connection.execute(SQL["unused_rules"])).fetchall())
    return Trial(tuple(days), lines, unused)
