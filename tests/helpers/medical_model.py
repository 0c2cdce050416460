"""What a holder with a medical and an online account should see under a policy, in the simplest words: one thread, one list, exact fractions.

It shares nothing with the ledger. Amounts in fen; answers are field 39.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import floor

ONLINE, MEDICAL = "online purchase", "medical purchase"
BUYS = (ONLINE, MEDICAL)


def half_up(value: Fraction) -> int:
    """Rounded to a whole fen."""
    return floor(value + Fraction(1, 2))


@dataclass
class Deal:
    """One request that was decided. covered, own: the shares of an approved purchase."""

    kind: str
    fen: int
    of: int | None = None
    answer: str = ""
    covered: int = 0
    own: int = 0
    refunded: int = 0
    undone_by: int | None = None


class MedicalModel:
    """Both accounts of a holder and everything that was asked of them."""

    def __init__(self, opening: int, own_part: Fraction, most: int, most_a_day: int) -> None:
        self.medical = self.online = opening
        self.own_part, self.most, self.most_a_day = own_part, most, most_a_day
        self.covered = 0  # today
        self.deals: list[Deal] = []

    def ask(self, kind: str, fen: int, of: int | None = None) -> str:
        """Decide a request and keep it; its number is its place."""
        deal = Deal(kind, fen, of)
        self.deals.append(deal)
        deal.answer = self._decide(deal, len(self.deals) - 1)
        return deal.answer

    def _decide(self, deal: Deal, number: int) -> str:
        if deal.kind in BUYS:
            return self._buy(deal)
        assert deal.of is not None
        first = self.deals[deal.of]
        if deal.kind == "refund":
            return self._refund(deal, first)
        if deal.kind == "void":
            if (
                first.kind not in BUYS
                or first.answer != "00"
                or first.undone_by is not None
                or first.refunded
            ):
                return "12"
            self._move(first, +1)
            first.undone_by = number
            return "00"
        return self._reverse(first, deal.of, number)

    def _buy(self, deal: Deal) -> str:
        if deal.fen == 0:
            return "13"
        if deal.kind == MEDICAL:
            payable = deal.fen - half_up(deal.fen * self.own_part)
            deal.covered = max(0, min(payable, self.most, self.most_a_day - self.covered))
        deal.own = deal.fen - deal.covered
        if deal.covered > self.medical or deal.own > self.online:
            return "51"
        self._move(deal, -1)
        return "00"

    def _move(self, bought: Deal, sign: int) -> None:
        self.medical += sign * bought.covered
        self.online += sign * bought.own
        self.covered -= sign * bought.covered

    def _refund(self, deal: Deal, first: Deal) -> str:
        if deal.fen == 0:
            return "13"
        if first.kind not in BUYS or first.answer != "00" or first.undone_by is not None:
            return "12"
        if first.refunded + deal.fen > first.fen:
            return "64"
        part = Fraction(first.own, first.fen)
        own = half_up(part * (first.refunded + deal.fen)) - half_up(part * first.refunded)
        first.refunded += deal.fen
        self.online += own
        self.medical += deal.fen - own
        self.covered -= deal.fen - own
        return "00"

    def _reverse(self, first: Deal, place: int, number: int) -> str:
        if first.answer != "00":
            return "00"
        if first.undone_by is not None or first.refunded:
            return "12"
        if first.kind == "void":
            assert first.of is not None
            bought = self.deals[first.of]
            if bought.undone_by != place or bought.covered > self.medical or bought.own > self.online:
                return "12"
            bought.undone_by = None
            self._move(bought, -1)
        else:
            self._move(first, +1)
        first.undone_by = number
        return "00"
