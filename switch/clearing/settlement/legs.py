"""What a payment to or from an institution does to its three accounts. Pure.

An institution may owe us for its cards (1101, 1102) and be owed shares of fees and purchases (2102) at once. A net is one
transfer, so first one is set off against the other, and the transfer is booked where the rest lies. An account that was
below zero the wrong way round (more refunds than purchases) takes its part; what no event can name is left between
two accounts of the same institution, where it nets to nothing.
"""

from typing import NamedTuple

from switch.ledger.bookings import Booking
from switch.ledger.chart import Code, Event, legs


class Accounts(NamedTuple):
    """Balances of an institution in fen. bank, interop: what it owes us; share: what we owe it."""

    bank_fen: int
    interop_fen: int
    share_fen: int


Leg = tuple[Event, int]


def _set_off(accounts: Accounts, most_fen: int) -> tuple[list[Leg], Accounts]:
    bank, interop, share = accounts
    first = max(min(bank, share, most_fen), 0)
    second = max(min(interop, share - first, most_fen - first), 0)
    left = Accounts(bank - first, interop - second, share - first - second)
    return [(Event.BANK_SHARE_SET_OFF, first), (Event.INTEROP_SET_OFF, second)], left


def paid_legs(accounts: Accounts, fen: int) -> list[Leg]:
    """We pay a net. What is owed besides is of other settlement dates: it is not set off before its own."""
    found, left = _set_off(accounts, accounts.share_fen - fen)
    repaid = min(max(-left.bank_fen, 0), fen - min(max(left.share_fen, 0), fen))
    found += [(Event.INTEROP_PAID, fen - repaid), (Event.BANK_REPAID, repaid)]
    return [leg for leg in found if leg[1]]


def received_legs(accounts: Accounts, fen: int) -> list[Leg]:
    """It pays a net."""
    found, left = _set_off(accounts, max(accounts.bank_fen, 0) + max(accounts.interop_fen, 0) - fen)
    settled = min(max(left.bank_fen, 0), fen)
    found += [(Event.BANK_SETTLED, settled), (Event.INTEROP_RECEIVED, fen - settled)]
    return [leg for leg in found if leg[1]]


def returned_legs(booked: list[Leg]) -> list[Leg]:
    """What we paid comes back: the transfer the other way round; what was set off stays so."""
    back = {Event.INTEROP_PAID: Event.INTEROP_RECEIVED, Event.BANK_REPAID: Event.BANK_SETTLED}
    return [(back[event], fen) for event, fen in booked if event in back]


def bookings_of(source: str, party: str, found: list[Leg], reason: str) -> list[Booking]:
    """Legs as bookings of one source; the institution owns every side but the custody account's."""

    def owner(code: Code) -> int:
        return 0 if code is Code.CUSTODY_DEPOSIT else int(party)

    sides = [(event, fen, *legs(event)) for event, fen in found]
    return [
        Booking(event, fen, owner(debit), owner(credit), source, reason)
        for event, fen, debit, credit in sides
    ]
