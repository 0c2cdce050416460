"""The life of a card after it was made, as a table of moves, and what a loss report 掛失 says. Pure.

    READY -> ACTIVE <-> LOSS_TEMP -> LOSS_FORMAL -> REPLACED
             ACTIVE -> DAMAGED -> REPLACED,  ACTIVE -> EXPIRED -> REPLACED
    any but REPLACED and CANCELLED -> CANCEL_PENDING -> CANCELLED

A report is about the online and medical accounts. The purse has no password and cannot be reported lost (Article 21): nothing here
touches it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from switch.domain.calendar import SHANGHAI, end_of_days
from switch.domain.errors import InputRefused
from switch.ledger.rules import CardStatus

TEMPORARY_DAYS: Final = 5
LOST: Final = frozenset({CardStatus.LOSS_TEMP, CardStatus.LOSS_FORMAL})
REASON_MAX: Final = 200  # characters
CLOCK: Final = "clock"  # who lets a report lapse


class Move(StrEnum):
    """What can be done to a card."""

    ACTIVATE = "activate"
    LOSE = "lose"
    CONFIRM = "confirm"
    LIFT = "lift"
    LAPSE = "lapse"
    DAMAGE = "damage"
    EXPIRE = "expire"
    REPLACE = "replace"
    CANCEL = "cancel"
    CLOSE = "close"


class Rule(NamedTuple):
    """From which states to which."""

    before: frozenset[CardStatus]
    after: CardStatus


_S = CardStatus
RULES: Final = {
    Move.ACTIVATE: Rule(frozenset({_S.READY}), _S.ACTIVE),
    Move.LOSE: Rule(frozenset({_S.ACTIVE}), _S.LOSS_TEMP),
    Move.CONFIRM: Rule(frozenset({_S.ACTIVE, _S.LOSS_TEMP}), _S.LOSS_FORMAL),
    Move.LIFT: Rule(LOST, _S.ACTIVE),
    Move.LAPSE: Rule(frozenset({_S.LOSS_TEMP}), _S.ACTIVE),
    Move.DAMAGE: Rule(frozenset({_S.ACTIVE}), _S.DAMAGED),
    Move.EXPIRE: Rule(frozenset({_S.ACTIVE}), _S.EXPIRED),
    Move.REPLACE: Rule(frozenset({_S.LOSS_FORMAL, _S.DAMAGED, _S.EXPIRED}), _S.REPLACED),
    Move.CANCEL: Rule(frozenset(_S) - {_S.REPLACED, _S.CANCEL_PENDING, _S.CANCELLED}, _S.CANCEL_PENDING),
    Move.CLOSE: Rule(frozenset({_S.CANCEL_PENDING}), _S.CANCELLED),
}
assert RULES.keys() == set(Move)


def _reachable() -> frozenset[tuple[CardStatus, CardStatus]]:
    """Pairs of a state and one that may follow it, by one move or several."""
    # Lifting takes the holder, lapsing the clock: a list of cards is neither. Without the two no move leads back.
    steps = {
        (before, rule.after)
        for move, rule in RULES.items()
        if move not in (Move.LIFT, Move.LAPSE)
        for before in rule.before
    }
    pairs = steps
    while further := {(a, d) for a, b in pairs for c, d in steps if b is c} - pairs:
        pairs = pairs | further
    return frozenset(pairs)


# What a list of cards may do to a state. Several moves, for much can happen to a card between two lists.
FOLLOWING: Final = _reachable()
assert not any((after, before) in FOLLOWING for before, after in FOLLOWING)


@dataclass(frozen=True, slots=True)
class State:
    """What a card row says of its state. lapses_at: of a temporary report."""

    status: CardStatus
    lost_at: datetime | None = None
    lapses_at: datetime | None = None

    def lapsed(self, now: datetime) -> bool:
        """Whether its report is void by now."""
        return self.lapses_at is not None and now >= self.lapses_at


def in_force(now: datetime) -> datetime:
    """The first whole millisecond not before now: rounding down would back-date.

    >>> in_force(datetime(2026, 11, 26, 8, 0, 0, 1001)).microsecond
    2000
    """
    return now + timedelta(microseconds=-now.microsecond % 1000)


def moved(state: State, move: Move, now: datetime, *, evidence: bool = False) -> State:
    """The state after a move at this instant. InputRefused with the rule when it is not allowed.

    evidence: the holder came with identity document and card, as lifting a formal report takes.
    """
    status = CardStatus.ACTIVE if move is not Move.LAPSE and state.lapsed(now) else state.status
    rule = RULES[move]
    if status not in rule.before:
        allowed = ", ".join(one.name for one in sorted(rule.before))
        raise InputRefused(f"{move}: the card is {status.name}; it must be {allowed}")
    if move is Move.LAPSE and not state.lapsed(now):
        raise InputRefused("lapse: the report is in force")
    if move is Move.LIFT and status is CardStatus.LOSS_FORMAL and not evidence:
        raise InputRefused(
            "lift: a formal report is lifted only for the holder with identity document and card"
        )
    after = rule.after
    if after not in LOST:
        gone = after in (CardStatus.ACTIVE, CardStatus.READY) or state.lapsed(now)
        return State(after, None if gone else state.lost_at)
    # Confirming a report that is in force leaves its instant; a lapsed one counts for nothing.
    begins = state.lost_at if status in LOST and state.lost_at is not None else in_force(now)
    return State(after, begins, end_of_days(now, TEMPORARY_DAYS) if after is CardStatus.LOSS_TEMP else None)


def with_reason(reason: str) -> str:
    """The reason as it is kept. InputRefused when there is none."""
    text = " ".join(reason.split())
    if not 0 < len(text) <= REASON_MAX:
        raise InputRefused(f"reason: 1 to {REASON_MAX} characters")
    return text


def shown(instant: datetime) -> str:
    """An instant to the millisecond, for people."""
    return instant.astimezone(SHANGHAI).isoformat(" ", "milliseconds")


_LOSS_TEXT: Final = (
    "From that instant payments and loads by the online and the medical account are refused (41).",
    "What was approved before it stands.",
    "The purse 電子錢包 is not affected: it has no password and cannot be reported lost.",
    "Whoever holds the card can spend what is on it, and it is not refunded.",
)


def receipt(card: str, before: State, after: State) -> str:
    """What the holder is given. card: masked."""
    lines = [f"Card {card}: {before.status.name} -> {after.status.name}"]
    if after.status in LOST and after.lost_at is not None:
        lines += [f"The loss report 掛失 is in force from {shown(after.lost_at)}.", *_LOSS_TEXT]
        if after.lapses_at is not None:
            lines.append(f"The report lapses at {shown(after.lapses_at)} unless it is confirmed in writing.")
    elif before.status in LOST and after.status is CardStatus.ACTIVE:
        lines.append("The loss report 掛失 is lifted; the card can be used again.")
    return "\n".join(lines)
