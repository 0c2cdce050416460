"""The counters whose continuity 連續性 is watched, as data: purse_sequence and purse_gap hold one row each by (kind, owner).

A further kind needs a line here and the numbers that have come (shadow.sql, collect_arrivals); lists, reports and metrics follow.
"""

from typing import Final, NamedTuple


class CounterKind(NamedTuple):
    """One kind. owner: what the column of that name means: card_key, PSAM number or terminal_no."""

    number: int
    name: str  # in metrics, JSON and CSV
    owner: str  # card, psam or terminal
    words: str


KINDS: Final = (
    CounterKind(1, "card_atc", "card", "offline counter of a card"),
    CounterKind(2, "psam_serial", "psam", "transaction serial of a PSAM"),
    CounterKind(3, "record_serial", "terminal", "record serial of a terminal"),
    CounterKind(4, "batch_serial", "terminal", "batch serial of a terminal"),
)
BY_NUMBER: Final = {kind.number: kind for kind in KINDS}
BY_NAME: Final = {kind.name: kind for kind in KINDS}
assert len(BY_NUMBER) == len(BY_NAME) == len(KINDS)


def kind_of(number: int) -> CounterKind:
    """The kind of a stored number; one that a newer version has written keeps its number as its name."""
    return BY_NUMBER.get(number) or CounterKind(number, f"kind_{number}", "", f"counter of kind {number}")
