"""The float 備付金 as a ledger of events: what each does to the accounts, by the chart. Pure."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from switch.ledger.chart import RULES, Code, Event


class FloatPosting(NamedTuple):
    """One event as it is posted; memo_fen is what it changes off balance."""

    event: Event
    amount_fen: int
    debit: Code | None
    credit: Code | None
    memo_fen: int


class FloatLedger(NamedTuple):
    """Postings and the balances after them, debit positive. memo_fen: grey amounts still open."""

    postings: tuple[FloatPosting, ...]
    balances_fen: dict[Code, int]
    memo_fen: int

    @property
    def purse_float_fen(self) -> int:
        """What the operator owes to the holders of purses."""
        return -self.balances_fen.get(Code.PURSE_FLOAT, 0)


def float_ledger(events: Iterable[tuple[Event, int]]) -> FloatLedger:
    """Post events, each with its amount in fen."""
    postings = []
    balances: Counter[Code] = Counter()
    memo_fen = 0
    for event, amount_fen in events:
        rule = RULES[event]
        if rule.debit is not None and rule.credit is not None:
            balances[rule.debit] += amount_fen
            balances[rule.credit] -= amount_fen
        memo_fen += rule.memo * amount_fen
        postings.append(FloatPosting(event, amount_fen, rule.debit, rule.credit, rule.memo * amount_fen))
    assert sum(balances.values()) == 0
    return FloatLedger(tuple(postings), dict(balances), memo_fen)
