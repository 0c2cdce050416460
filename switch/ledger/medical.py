"""What the medical account covers of a purchase, and what the holder pays himself. Pure.

A rule is for the merchants of one category: the part that is never covered (own_pay_ppm), limits of what is covered per transaction, day
and year, and whether the rest is taken from the online account or the purchase refused.

    own part    = (amount × own_pay_ppm + 500 000) div 1 000 000        round half up, like a fee
    covered     = the least of: amount − own part, limit per transaction, what is left of the day, what is left of the year
    own share   = amount − covered

Days are business days, a year is that of the business day. What is given back of a purchase (void, reversal, refund) is no longer covered, and
counts no more on the day and in the year in which the purchase counted.

Of a refund each share gets its part of the purchase, by what has been refunded altogether:

    own share returned so far = (own share × refunded so far × 2 + amount) div (2 × amount)

so that neither the order nor the number of refunds matters, no share gets back more than it gave, and nobody can turn covered money into
his own by returning first what the medical account paid.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple, Protocol

from switch.domain.decisions import Decline

PPM = 1_000_000


class PolicyRule(NamedTuple):
    """A row of medical_policy; a limit of None does not bind."""

    policy_no: int
    category: str
    own_pay_ppm: int
    transaction_fen: int | None
    day_fen: int | None
    year_fen: int | None
    splits: bool
    valid_from: date
    valid_to: date | None


class Shares(NamedTuple):
    """A purchase or a refund, divided. Neither is below zero."""

    covered_fen: int
    own_fen: int


class Split(NamedTuple):
    """How a purchase was divided, under its entry number. account_id: the medical account."""

    entry_no: int
    business_date: date
    account_id: int
    policy_no: int
    covered_fen: int
    own_fen: int

    @property
    def shares(self) -> Shares:
        """Both shares whole."""
        return Shares(self.covered_fen, self.own_fen)

    def returned(self, before_fen: int, fen: int) -> Shares:
        """The shares of a refund of so much, after so much was refunded before."""
        own_fen = self._own_returned(before_fen + fen) - self._own_returned(before_fen)
        return Shares(fen - own_fen, own_fen)

    def _own_returned(self, refunded_fen: int) -> int:
        amount_fen = self.covered_fen + self.own_fen
        return (self.own_fen * refunded_fen * 2 + amount_fen) // (2 * amount_fen)


@dataclass(slots=True)
class CoverWindow:
    """What an account has covered on its day, and in the year that the day is in."""

    account_id: int
    day: date
    day_fen: int = 0
    year_fen: int = 0
    changed: bool = False

    def roll(self, today: date) -> None:
        """Begin a new day, and a new year when it is one. Never back."""
        if today <= self.day:
            return
        if today.year != self.day.year:
            self.year_fen = 0
        self.day_fen = 0
        self.day = today
        self.changed = True

    def count(self, day: date, fen: int) -> None:
        """Count what was covered on a day, or with a negative figure give it back; a day or year that is over is let be."""
        self.changed = True
        if day.year == self.day.year:
            self.year_fen += fen
            if day == self.day:
                self.day_fen += fen


class MedicalPolicy(Protocol):
    """How a purchase is divided under a rule. The window has been rolled to today. A Decline refuses the whole.

    `by_table` is the one that comes with the switch; whoever reckons otherwise passes another one to the books, and must
    teach the audit as much.
    """

    def __call__(self, rule: PolicyRule, amount_fen: int, window: CoverWindow) -> Shares | Decline:
        """Divide."""


def by_table(rule: PolicyRule, amount_fen: int, window: CoverWindow) -> Shares | Decline:
    """The shares as the rule's figures say; 61 where something is not covered and may not be taken from the online account."""
    covered_fen = amount_fen - (amount_fen * rule.own_pay_ppm + PPM // 2) // PPM
    for limit_fen, used_fen in (
        (rule.transaction_fen, 0),
        (rule.day_fen, window.day_fen),
        (rule.year_fen, window.year_fen),
    ):
        if limit_fen is not None:
            covered_fen = min(covered_fen, max(limit_fen - used_fen, 0))
    if covered_fen < amount_fen and not rule.splits:
        return Decline.LIMIT_AMOUNT
    return Shares(covered_fen, amount_fen - covered_fen)


def rule_in_force(rules: Iterable[PolicyRule], today: date) -> PolicyRule | None:
    """The one of a category's rules that is in force; they do not overlap."""
    for rule in rules:
        if rule.valid_from <= today and (rule.valid_to is None or today <= rule.valid_to):
            return rule
    return None


@dataclass(slots=True)
class MedicalState:
    """What medical payments of one batch are decided by; changed by every decision.

    begins: from this business date on the policy governs. rules: by merchant, those of his category around today.
    splits: of purchases that were read or made, by entry number; made: those of this batch, to be written.
    """

    policy: MedicalPolicy = by_table
    begins: date | None = None
    rules: Mapping[int, Sequence[PolicyRule]] = field(default_factory=dict)
    windows: dict[int, CoverWindow] = field(default_factory=dict)
    splits: dict[int, Split] = field(default_factory=dict)
    made: list[Split] = field(default_factory=list)

    def governs(self, today: date) -> bool:
        """Whether there is a policy. Once begun it stays: when its last row ends, the medical account pays nowhere."""
        return self.begins is not None and self.begins <= today

    def rule_for(self, merchant_no: int, today: date) -> PolicyRule | None:
        """The rule for this merchant's category."""
        return rule_in_force(self.rules.get(merchant_no, ()), today)

    def window(self, account_id: int, today: date) -> CoverWindow:
        """The account's window, rolled to today."""
        window = self.windows.get(account_id)
        if window is None:
            window = self.windows[account_id] = CoverWindow(account_id, today)
        window.roll(today)
        return window

    def keep(self, split: Split) -> None:
        """A purchase was approved with these shares."""
        self.splits[split.entry_no] = split
        self.made.append(split)
