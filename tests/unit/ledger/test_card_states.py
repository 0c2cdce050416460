"""Which moves a card may make, as a table, and what a loss report says."""

from datetime import UTC, datetime, timedelta

import pytest

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.ledger.card_states import LOST, Move, State, in_force, moved, receipt, with_reason
from switch.ledger.rules import CardStatus

NOW = datetime(2026, 11, 26, 2, 0, 0, 123_456, tzinfo=UTC)

# For each state what it becomes by: activate lose confirm lift damage expire replace cancel close
TABLE = """
    READY           ACTIVE  -          -            -       -        -        -         CANCEL_PENDING  -
    ACTIVE          -       LOSS_TEMP  LOSS_FORMAL  -       DAMAGED  EXPIRED  -         CANCEL_PENDING  -
    LOSS_TEMP       -       -          LOSS_FORMAL  ACTIVE  -        -        -         CANCEL_PENDING  -
    LOSS_FORMAL     -       -          -            ACTIVE  -        -        REPLACED  CANCEL_PENDING  -
    DAMAGED         -       -          -            -       -        -        REPLACED  CANCEL_PENDING  -
    EXPIRED         -       -          -            -       -        -        REPLACED  CANCEL_PENDING  -
    REPLACED        -       -          -            -       -        -        -         -               -
    CANCEL_PENDING  -       -          -            -       -        -        -         -               CANCELLED
    CANCELLED       -       -          -            -       -        -        -         -               -
"""
MOVES = [move for move in Move if move is not Move.LAPSE]
ROWS = [line.split() for line in TABLE.splitlines() if line.strip()]


def a_card(status: CardStatus) -> State:
    return State(status, NOW - timedelta(days=1) if status in LOST else None)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_table_of_moves(row: list[str]) -> None:
    for move, after in zip(MOVES, row[1:], strict=True):
        state = a_card(CardStatus[row[0]])
        if after == "-":
            with pytest.raises(InputRefused, match=f"{move}: the card is {row[0]}"):
                moved(state, move, NOW, evidence=True)
        else:
            assert moved(state, move, NOW, evidence=True).status.name == after


def test_the_table_has_every_state() -> None:
    assert [CardStatus[row[0]] for row in ROWS] == list(CardStatus)


def test_a_report_is_in_force_from_the_first_millisecond_that_is_not_past() -> None:
    lost = moved(State(CardStatus.ACTIVE), Move.LOSE, NOW)
    assert lost.lost_at == NOW.replace(microsecond=124_000)
    assert in_force(NOW.replace(microsecond=999_001)) == NOW.replace(microsecond=0) + timedelta(seconds=1)
    assert in_force(NOW.replace(microsecond=5_000)) == NOW.replace(microsecond=5_000)


def test_a_temporary_report_lapses_after_the_fifth_day_and_is_then_as_if_it_had_not_been() -> None:
    lost = moved(State(CardStatus.ACTIVE), Move.LOSE, NOW)
    over = datetime(2026, 12, 2, tzinfo=SHANGHAI)
    assert lost.lapses_at == over
    with pytest.raises(InputRefused, match="in force"):
        moved(lost, Move.LAPSE, over - timedelta(microseconds=1))
    assert moved(lost, Move.LAPSE, over) == State(CardStatus.ACTIVE)
    assert moved(lost, Move.LOSE, over).lost_at == over
    assert moved(lost, Move.DAMAGE, over) == State(CardStatus.DAMAGED)
    assert moved(lost, Move.CONFIRM, over) == State(CardStatus.LOSS_FORMAL, over)
    with pytest.raises(InputRefused, match="the card is ACTIVE"):
        moved(lost, Move.LIFT, over)


def test_confirming_keeps_the_instant_and_ends_the_lapse() -> None:
    lost = moved(State(CardStatus.ACTIVE), Move.LOSE, NOW)
    later = NOW + timedelta(days=2)
    assert moved(lost, Move.CONFIRM, later) == State(CardStatus.LOSS_FORMAL, lost.lost_at)
    with pytest.raises(InputRefused, match="lapse: the card is LOSS_FORMAL"):
        moved(State(CardStatus.LOSS_FORMAL, lost.lost_at), Move.LAPSE, later)


def test_a_formal_report_is_lifted_only_on_evidence() -> None:
    formal = State(CardStatus.LOSS_FORMAL, NOW)
    with pytest.raises(InputRefused, match="identity document and card"):
        moved(formal, Move.LIFT, NOW)
    assert moved(formal, Move.LIFT, NOW, evidence=True) == State(CardStatus.ACTIVE)
    temporary = State(CardStatus.LOSS_TEMP, NOW, NOW + timedelta(days=5))
    assert moved(temporary, Move.LIFT, NOW) == State(CardStatus.ACTIVE)


def test_the_receipt_says_from_when_until_when_and_that_the_purse_is_not_affected() -> None:
    before = State(CardStatus.ACTIVE)
    after = moved(before, Move.LOSE, NOW)
    text = receipt("313350*********1239", before, after)
    assert "2026-11-26 10:00:00.124+08:00" in text
    assert "2026-12-02 00:00:00.000+08:00" in text
    assert "purse" in text
    assert "not affected" in text
    assert "lapses" not in receipt("x", before, moved(before, Move.CONFIRM, NOW))


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201])
def test_a_change_without_a_reason_is_none(reason: str) -> None:
    with pytest.raises(InputRefused, match="reason"):
        with_reason(reason)
