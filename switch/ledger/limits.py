"""Limits of what may be spent: per transaction, per day and per month, in fen and in number. Pure.

A purchase counts on its business day, a pre-authorisation on the day on which it freezes: refusing its completion would come after the service. Therefore
a completion, its void and its excess count nowhere, nor does an expired hold come back.

    undone by a reversal or a void    given back, on the day on which it was counted
    refunded                          not given back: it was spent that day, and a friendly merchant could refund for ever

Windows are those of the current day and month. What is given back of a day or month that is over needs no window any more.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from switch.domain.decisions import Decline


class LimitRule(NamedTuple):
    """A row of limit_rule; None does not bind. product None: cards of every class without a rule of its own."""

    account_kind: int
    product: str | None
    transaction_fen: int | None
    day_fen: int | None
    month_fen: int | None
    day_count: int | None
    month_count: int | None
    valid_from: date
    valid_to: date | None


@dataclass(slots=True)
class Window:
    """What counts of an account's day, and of the month that the day is in."""

    account_id: int
    day: date
    day_fen: int = 0
    day_count: int = 0
    month_fen: int = 0
    month_count: int = 0
    changed: bool = False

    def roll(self, today: date) -> None:
        """Begin a new day, and a new month when it is one. Never back."""
        if today <= self.day:
            return
        if (today.year, today.month) != (self.day.year, self.day.month):
            self.month_fen = self.month_count = 0
        self.day_fen = self.day_count = 0
        self.day = today
        self.changed = True

    def count(self, day: date, fen: int, times: int) -> None:
        """Count something of a day, or with a negative figure give it back; a day or month that is over is let be."""
        self.changed = True
        if (day.year, day.month) == (self.day.year, self.day.month):
            self.month_fen += fen
            self.month_count += times
            if day == self.day:
                self.day_fen += fen
                self.day_count += times


def product_of(pan: str) -> str:
    """Class of a card: digits 7 and 8 of its number."""
    return pan[6:8]


def rule_for(rules: Iterable[LimitRule], account_kind: int, product: str, today: date) -> LimitRule | None:
    """The rule in force for this kind of account and class of card; the one of the class goes before the general one."""
    general = None
    for rule in rules:
        if rule.account_kind != account_kind or today < rule.valid_from:
            continue
        if rule.valid_to is not None and today > rule.valid_to:
            continue
        if rule.product == product:
            return rule
        if rule.product is None:
            general = rule
    return general


def refusal(window: Window, rule: LimitRule | None, fen: int) -> Decline | None:
    """Why so much may not be spent now, if so: amounts (61) before counts (65). The window has been rolled to today."""
    if rule is None:
        return None
    amounts = (
        (fen, rule.transaction_fen),
        (window.day_fen + fen, rule.day_fen),
        (window.month_fen + fen, rule.month_fen),
    )
    if any(limit is not None and spent > limit for spent, limit in amounts):
        return Decline.LIMIT_AMOUNT
    counts = ((window.day_count + 1, rule.day_count), (window.month_count + 1, rule.month_count))
    if any(limit is not None and times > limit for times, limit in counts):
        return Decline.LIMIT_COUNT
    return None
