"""Netting 軋差: from who owes whom to one position per institution. Pure.

For an amount a with fee shares i (issuer) and s (switch), the issuer pays a and receives i, the acquirer receives a
and pays i + s, the centre receives s. The acquirer recovers the whole fee from its merchant and keeps the rest.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Flow(NamedTuple):
    """Transactions between one issuer and one acquirer, one or many summed up. Amounts in fen, below zero for refunds."""

    issuer: str
    acquirer: str
    transactions: int
    amount_fen: int
    issuer_fee_fen: int
    switch_fee_fen: int


@dataclass(slots=True)
class Position:
    """What one institution settles. Signed sums: above zero it receives."""

    institution: str
    issuing_count: int = 0
    issuing_fen: int = 0
    acquiring_count: int = 0
    acquiring_fen: int = 0
    issuer_fee_fen: int = 0
    fees_paid_fen: int = 0

    @property
    def net_fen(self) -> int:
        """What the institution receives (above zero) or pays (below)."""
        return self.issuing_fen + self.acquiring_fen + self.issuer_fee_fen + self.fees_paid_fen


class Netting(NamedTuple):
    """Positions in the order in which institutions first appear, and what the centre receives."""

    positions: tuple[Position, ...]
    centre_fen: int


def net_positions(flows: Iterable[Flow]) -> Netting:
    """Net flows, given in the order in which their first transactions happened; the sum over all is zero."""
    positions: dict[str, Position] = {}
    centre_fen = 0
    for flow in flows:
        issuer = positions.setdefault(flow.issuer, Position(flow.issuer))
        issuer.issuing_count += flow.transactions
        issuer.issuing_fen -= flow.amount_fen
        issuer.issuer_fee_fen += flow.issuer_fee_fen
        acquirer = positions.setdefault(flow.acquirer, Position(flow.acquirer))
        acquirer.acquiring_count += flow.transactions
        acquirer.acquiring_fen += flow.amount_fen
        acquirer.fees_paid_fen -= flow.issuer_fee_fen + flow.switch_fee_fen
        centre_fen += flow.switch_fee_fen
    assert sum(position.net_fen for position in positions.values()) + centre_fen == 0
    return Netting(tuple(positions.values()), centre_fen)
