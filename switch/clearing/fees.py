"""What a transaction costs its merchant, and who gets it. Whole fen, never on totals.

The same arithmetic stands in `queries.sql` (fee_of), where ten million transactions pass through it; a property test
holds the two together.
"""

from typing import NamedTuple

RATE_PPM_MAX = 1_000_000
WEIGHT_MAX = 1_000_000  # so that fee times weight fits into eight bytes


class Weights(NamedTuple):
    """In which proportion a fee is shared. What does not divide is the acquirer's."""

    issuer: int = 7
    switch: int = 1
    acquirer: int = 2


class FeeRule(NamedTuple):
    """A rate in ppm of the amount, with a floor and a cap in fen (None: no cap)."""

    rate_ppm: int
    minimum_fen: int = 0
    cap_fen: int | None = None
    weights: Weights = Weights()


class FeeSplit(NamedTuple):
    """A fee and its three shares, in fen; negative when a fee is given back."""

    fee_fen: int
    issuer_fen: int
    switch_fen: int
    acquirer_fen: int


NO_FEE = FeeRule(0)


def fee_split(amount_fen: int, rule: FeeRule) -> FeeSplit:
    """Fee of one transaction: rounded half up, then not below the floor, not above the cap, not above the amount.

    amount_fen: below zero for a refund, void or adjustment, which mirrors the fee of the amount it gives back.

    >>> fee_split(10000, FeeRule(3800)), fee_split(-10000, FeeRule(3800)).fee_fen
    (FeeSplit(fee_fen=38, issuer_fen=26, switch_fen=3, acquirer_fen=9), -38)
    """
    if amount_fen < 0:
        return FeeSplit(*(-share for share in fee_split(-amount_fen, rule)))
    fee = (amount_fen * rule.rate_ppm + 500_000) // 1_000_000
    if amount_fen:
        fee = max(fee, rule.minimum_fen)
    if rule.cap_fen is not None:
        fee = min(fee, rule.cap_fen)
    fee = min(fee, amount_fen)
    whole = sum(rule.weights)
    issuer = fee * rule.weights.issuer // whole
    switch = fee * rule.weights.switch // whole
    return FeeSplit(fee, issuer, switch, fee - issuer - switch)
