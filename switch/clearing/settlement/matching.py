"""What an entry of the bank means for a payout or collection. Pure: the rules in one place, strongest first.

A notification (camt.054) comes early and may be repeated by the statement (camt.053), which is the last word: only what fits is acted on at
a notification, everything else waits for the statement. Money that the statement shows and nobody can explain goes to
suspense, so that the custody account by the books stays what it is at the bank.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from switch.clearing.settlement.camt import Entry

STATEMENT: Final = "camt.053"
_NUMBER: Final = re.compile(r"[PC][0-9]{14}", re.ASCII)
_COLLECTION: Final = re.compile(r"(?<![0-9A-Za-z])C[0-9]{14}(?![0-9A-Za-z])", re.ASCII)


class Known(NamedTuple):
    """A payout (P) or collection (C) as the books know it now."""

    payout_id: str
    amount_fen: int
    state: str

    @property
    def collects(self) -> bool:
        """Whether money is to come."""
        return self.payout_id.startswith("C")


class Earlier(NamedTuple):
    """An entry that was taken before: of the same payout and direction, or with the same reference of the bank where no payout is named.

    settled: it was what the payout, its return or its collection should be.
    """

    kind: str
    bank_ref: str
    settled: bool


class Verdict(NamedTuple):
    """to_state: None when the payout stays. suspense_fen: booked into suspense, below zero out of it."""

    outcome: str
    to_state: str | None = None
    suspense_fen: int = 0


def reference_of(entry: Entry) -> str:
    """The payout or collection that an entry names; empty when it names none. Whoever pays us may write it into the text only."""
    if _NUMBER.fullmatch(entry.end_to_end_id):
        return entry.end_to_end_id
    found = _COLLECTION.search(entry.remittance) if entry.is_credit else None
    return found[0] if found else ""


def decide(entry: Entry, kind: str, known: Known | None, earlier: Sequence[Earlier]) -> Verdict:
    """What becomes of an entry. earlier: entries that counted, WAITS and PENDING are none."""
    if not entry.is_booked:
        return Verdict("PENDING")
    if _told_again(entry, kind, earlier):
        return Verdict("SEEN")
    # Money that came with a wrong amount lies in suspense, and the right amount may still come. What went out wrongly has used up the payout.
    if any(one.settled for one in earlier) or (earlier and not entry.is_credit):
        return _strange(entry, kind, "TWICE")
    if known is None:
        return _strange(entry, kind, "UNEXPLAINED")
    if known.collects:
        return _collected(entry, kind, known)
    return _came_back(entry, kind, known) if entry.is_credit else _paid(entry, kind, known)


def _signed(entry: Entry) -> int:
    return entry.amount_fen if entry.is_credit else -entry.amount_fen


def _strange(entry: Entry, kind: str, outcome: str, suspense_fen: int | None = None) -> Verdict:
    """Into suspense by the statement; at a notification nothing yet."""
    if kind != STATEMENT:
        return Verdict("WAITS")
    return Verdict(outcome, None, _signed(entry) if suspense_fen is None else suspense_fen)


def _told_again(entry: Entry, kind: str, earlier: Sequence[Earlier]) -> bool:
    """The same movement told again? The bank's reference tells; without one, its other kind of paper may repeat it once."""
    if entry.bank_ref and any(one.bank_ref == entry.bank_ref for one in earlier):
        return True
    unsure = not entry.bank_ref or any(not one.bank_ref for one in earlier)
    return bool(earlier) and unsure and all(one.kind != kind for one in earlier)


def _paid(entry: Entry, kind: str, known: Known) -> Verdict:
    if known.state == "RETURNED":
        return Verdict("SEEN")  # its way out is told after its way back
    if known.state != "ORDERED":
        return _strange(entry, kind, "UNEXPLAINED")
    if entry.amount_fen != known.amount_fen:
        # The whole amount was booked as gone: what the bank did otherwise is nobody's until people say whose.
        return _strange(entry, kind, "AMOUNT", known.amount_fen - entry.amount_fen)
    return Verdict("PAID", "PAID")


def _came_back(entry: Entry, kind: str, known: Known) -> Verdict:
    # Without the bank's word that it is a return, anybody who knows the number could have sent it.
    if known.state not in ("ORDERED", "PAID") or not entry.reason_code:
        return _strange(entry, kind, "UNEXPLAINED")
    if entry.amount_fen != known.amount_fen:
        return _strange(entry, kind, "AMOUNT")
    return Verdict("RETURNED", "RETURNED")


def _collected(entry: Entry, kind: str, known: Known) -> Verdict:
    if not entry.is_credit or known.state != "EXPECTED":
        return _strange(entry, kind, "UNEXPLAINED")
    if entry.amount_fen != known.amount_fen:
        return _strange(entry, kind, "AMOUNT")
    return Verdict("FUNDED", "FUNDED")
