"""Fees and netting: tables that somebody from a bank could review."""

import pytest

from switch.clearing.fees import NO_FEE, FeeRule, FeeSplit, Weights, fee_split
from switch.clearing.netting import Flow, Position, net_positions

#  amount    ppm  floor   cap   fee
CASES = """
   10000    3800      0     -    38
     131    3800      0     -     0
     132    3800      0     -     1
       1  500000      0     -     1
       0    3800      5     -     0
      50       0      1     -     1
       2       0      5     -     2
  999999    5000      1  2600  2600
   10000    3800     50    20    20
"""


@pytest.mark.parametrize("case", [line.split() for line in CASES.strip().splitlines()])
def test_fee_is_rounded_half_up_then_floored_then_capped_then_not_above_the_amount(case: list[str]) -> None:
    amount, ppm, floor, cap, fee = case
    rule = FeeRule(int(ppm), int(floor), None if cap == "-" else int(cap))
    assert fee_split(int(amount), rule).fee_fen == int(fee)


def test_refund_gives_back_the_fee_of_the_refunded_amount_to_the_last_share() -> None:
    rule = FeeRule(6000, 1, 800, Weights(5, 3, 1))
    for amount in (1, 7, 99, 12345, 10**9):
        taken, given = fee_split(amount, rule), fee_split(-amount, rule)
        assert given == FeeSplit(*(-share for share in taken))


def test_what_does_not_divide_is_the_acquirers() -> None:
    assert fee_split(1000, FeeRule(1000, weights=Weights(1, 1, 1))) == FeeSplit(1, 0, 0, 1)
    assert fee_split(1000, FeeRule(8000, weights=Weights(7, 1, 0))) == FeeSplit(8, 7, 1, 0)


def test_largest_amount_of_field_4_does_not_overflow_eight_bytes() -> None:
    rule = FeeRule(1_000_000, weights=Weights(1_000_000, 1, 1))
    assert fee_split(999_999_999_999, rule).fee_fen == 999_999_999_999
    assert 999_999_999_999 * 1_000_000 + 500_000 < 2**63


def test_without_a_rule_there_is_no_fee() -> None:
    assert fee_split(123456, NO_FEE) == FeeSplit(0, 0, 0, 0)


def test_positions_come_in_the_order_in_which_institutions_first_appear_issuer_before_acquirer() -> None:
    netting = net_positions(
        [Flow("B", "A", 1, 100, 1, 1), Flow("A", "C", 1, 50, 0, 0), Flow("D", "B", 1, 10, 0, 0)]
    )
    assert [position.institution for position in netting.positions] == ["B", "A", "C", "D"]


def test_nets_and_the_centres_share_sum_to_zero_and_refunds_flow_back() -> None:
    netting = net_positions([Flow("I", "A", 2, 1000, 5, 1), Flow("I", "A", 1, -300, -2, 0)])
    issuer, acquirer = netting.positions
    assert issuer == Position("I", 3, -700, 0, 0, 3, 0)
    assert acquirer == Position("A", 0, 0, 3, 700, 0, -4)
    assert (issuer.net_fen, acquirer.net_fen, netting.centre_fen) == (-697, 696, 1)


def test_an_institution_that_is_both_sides_pays_only_the_centre() -> None:
    netting = net_positions([Flow("X", "X", 1, 5000, 21, 3)])
    assert netting.positions[0].net_fen == -3


def test_a_day_without_transactions_has_no_positions() -> None:
    assert net_positions([]) == ((), 0)
