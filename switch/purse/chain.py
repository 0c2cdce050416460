"""A card's balance chain: each balance follows from the one before, less what was paid, plus what was loaded in between.

Pure. Records carry the offline counter and loads the online one, so nothing numbers them together; what places a load between
two records is its own balance, which the card told in the INITIALIZE that MAC1 covers. A run of loads explains a rise when
it begins with the balance that the earlier record left and ends with the one that the later record found.
"""

from collections.abc import Collection, Iterable, Sequence
from enum import Enum
from itertools import groupby
from typing import Final, NamedTuple

from switch.ledger.load_states import CREDITED, OPEN

LOADS_MAX: Final = 200  # of one card that a rise is compared with, the newest: an older one has long been followed by records
_CERTAIN, _OPEN, _RETURNED = range(3)


class Spent(NamedTuple):
    """What an accepted record says about its card's purse. Amounts in fen; balance before the transaction."""

    atc: int
    amount_fen: int
    balance_fen: int

    @property
    def left_fen(self) -> int:
        """The balance after it."""
        return self.balance_fen - self.amount_fen


class Loaded(NamedTuple):
    """What is known of one load. balance_fen: before it, as the card said. state: of LoadState."""

    load_no: int
    online_atc: int
    amount_fen: int
    balance_fen: int
    state: int

    @property
    def certainty(self) -> int:
        """Whether the money is on the card: certain, not known yet, or gone back to where it came from."""
        if self.state in CREDITED:
            return _CERTAIN
        return _OPEN if self.state in OPEN else _RETURNED


class Verdict(Enum):
    """How a balance follows from the one before."""

    FOLLOWS = "follows"
    LOADED = "loaded"
    LOAD_OPEN = "load open"  # only a load that nobody has confirmed explains it
    LOAD_RETURNED = "load returned"  # only a load whose money went back explains it: the card has both
    BREAK = "break"


ALARMING: Final = frozenset({Verdict.LOAD_RETURNED, Verdict.BREAK})
_BY_CERTAINTY = {
    _CERTAIN: Verdict.LOADED,
    _OPEN: Verdict.LOAD_OPEN,
    _RETURNED: Verdict.LOAD_RETURNED,
}


class Link(NamedTuple):
    """One step of the chain. loads: those that explain a rise, in order."""

    verdict: Verdict
    expected_fen: int
    found_fen: int
    loads: tuple[Loaded, ...] = ()


def link(expected_fen: int, found_fen: int, loads: Iterable[Loaded] = ()) -> Link:
    """How a balance found follows from the one expected, by the most certain loads that explain it.

    >>> (
    ...     link(500, 800, [Loaded(7, 0, 300, 500, 2)]).verdict.value,
    ...     link(500, 800, [Loaded(7, 0, 300, 400, 2)]).verdict.value,
    ... )
    ('loaded', 'break')
    """
    if found_fen == expected_fen:
        return Link(Verdict.FOLLOWS, expected_fen, found_fen)
    ordered = sorted(loads, key=lambda one: (one.online_atc, one.load_no))[-LOADS_MAX:]
    for certainty, verdict in _BY_CERTAINTY.items():
        run = _run(expected_fen, found_fen, [one for one in ordered if one.certainty <= certainty])
        if run:
            return Link(verdict, expected_fen, found_fen, run)
    return Link(Verdict.BREAK, expected_fen, found_fen)


def follows(expected_fen: int, found_fen: int, loads: Iterable[Loaded] = ()) -> bool:
    """Whether a balance is the one expected, with nothing but credited loads in between."""
    return found_fen == expected_fen or link(expected_fen, found_fen, loads).verdict is Verdict.LOADED


def _run(start_fen: int, end_fen: int, loads: Sequence[Loaded]) -> tuple[Loaded, ...]:
    """Loads with rising counters that lead from one balance to the other; empty when there are none.

    A counter is good for one credit, so of several loads with one counter a run has at most one.
    """
    reached: dict[int, tuple[Loaded, ...]] = {start_fen: ()}
    for _, same_counter in groupby(loads, key=lambda one: one.online_atc):
        steps = [
            (one.balance_fen + one.amount_fen, (*reached[one.balance_fen], one))
            for one in same_counter
            if one.balance_fen in reached
        ]
        for balance_fen, run in steps:
            reached.setdefault(balance_fen, run)
    return reached.get(end_fen, ())


class Step(NamedTuple):
    """One record of a card with what lies between it and the one before it.

    missing: counters in between that have not come; then link compares across them and says nothing certain, so it is None.
    """

    record: Spent
    missing: int
    link: Link | None


def walk(records: Collection[Spent], loads: Collection[Loaded], first_atc: int) -> list[Step]:
    """The whole chain of a card in the order of its counter. first_atc: the counter with which it began."""
    steps: list[Step] = []
    before: Spent | None = None
    for record in sorted(records):
        expected_atc = first_atc if before is None else before.atc + 1
        missing = max(0, record.atc - expected_atc)
        found = None
        if before is not None and not missing:
            found = link(before.left_fen, record.balance_fen, loads)
        steps.append(Step(record, missing, found))
        before = record
    return steps
