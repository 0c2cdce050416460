"""What the medical account covers, as tables a card specialist can review; and how a refund is divided, for any history."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switch.domain.decisions import Decline
from switch.ledger.medical import (
    CoverWindow,
    MedicalState,
    PolicyRule,
    Shares,
    Split,
    by_table,
    rule_in_force,
)

TODAY = date(2026, 11, 25)


def rule(
    ppm: int = 0,
    transaction_fen: int | None = None,
    day_fen: int | None = None,
    year_fen: int | None = None,
    *,
    splits: bool = True,
    valid_from: date = TODAY,
    valid_to: date | None = None,
) -> PolicyRule:
    return PolicyRule(1, "8062", ppm, transaction_fen, day_fen, year_fen, splits, valid_from, valid_to)


#   own part  limit per     of the  of the   covered  covered    amount | covered   own
#   in ppm    transaction   day     year     today    this year         |
SHARES = """
         0         -          -       -        0         0       10000  |   10000      0
    300000         -          -       -        0         0       10000  |    7000   3000
   1000000         -          -       -        0         0       10000  |       0  10000
    300000         -          -       -        0         0           1  |       1      0
    500000         -          -       -        0         0           1  |       0      1
    333333         -          -       -        0         0         100  |      67     33
    335000         -          -       -        0         0         100  |      66     34
    300000      5000          -       -        0         0       10000  |    5000   5000
    300000      7000          -       -        0         0       10000  |    7000   3000
         0      5000          -       -        0         0        5000  |    5000      0
         0      5000          -       -        0         0        5001  |    5000      1
         0         -       8000       -     3000      3000       10000  |    5000   5000
         0         -       8000       -     8000      8000       10000  |       0  10000
         0         -       8000       -     9000      9000       10000  |       0  10000
         0         -          -   20000        0     15000       10000  |    5000   5000
         0         -          -   20000        0     20000           1  |       0      1
    300000      9000       8000   20000     2000     15000       10000  |    5000   5000
    300000      9000       6000   20000     2000      2000       10000  |    4000   6000
    300000         0          -       -        0         0       10000  |       0  10000
"""


@pytest.mark.parametrize("line", SHARES.strip().splitlines())
def test_a_purchase_is_divided_as_the_table_says(line: str) -> None:
    given_, wanted = line.split("|")
    ppm, *limits, day_fen, year_fen, amount = given_.split()
    terms = rule(int(ppm), *(None if limit == "-" else int(limit) for limit in limits))
    window = CoverWindow(140, TODAY, int(day_fen), int(year_fen))
    covered, own = map(int, wanted.split())
    assert by_table(terms, int(amount), window) == Shares(covered, own)


def test_what_is_not_covered_refuses_the_whole_where_it_may_not_be_taken_elsewhere() -> None:
    whole = rule(0, 500, splits=False)
    assert by_table(whole, 500, CoverWindow(140, TODAY)) == Shares(500, 0)
    assert by_table(whole, 501, CoverWindow(140, TODAY)) == Decline.LIMIT_AMOUNT


def test_the_row_in_force_is_found_by_the_business_day() -> None:
    older = rule(1, valid_from=TODAY - timedelta(days=9), valid_to=TODAY - timedelta(days=1))
    newer = rule(2, valid_from=TODAY)
    assert rule_in_force([older, newer], TODAY - timedelta(days=10)) is None
    assert rule_in_force([older, newer], TODAY - timedelta(days=1)) == older
    assert rule_in_force([newer, older], TODAY) == newer


def test_a_policy_once_begun_stays_when_its_last_row_has_ended() -> None:
    ended = rule(valid_from=TODAY - timedelta(days=9), valid_to=TODAY - timedelta(days=1))
    state = MedicalState(begins=ended.valid_from, rules={1: [ended]})
    assert not state.governs(TODAY - timedelta(days=10))
    assert state.governs(TODAY)
    assert state.rule_for(1, TODAY) is None
    assert state.rule_for(2, TODAY - timedelta(days=1)) is None
    assert not MedicalState().governs(TODAY)


def test_a_window_begins_anew_with_the_day_and_with_the_year() -> None:
    window = CoverWindow(140, date(2026, 12, 30), 10, 100)
    window.roll(date(2026, 12, 31))
    assert (window.day_fen, window.year_fen) == (0, 100)
    window.count(date(2026, 12, 31), 5)
    window.count(date(2026, 12, 30), -10)  # of a day that is over: only the year knows it
    assert (window.day_fen, window.year_fen) == (5, 95)
    window.roll(date(2026, 12, 30))  # never back
    assert window.day == date(2026, 12, 31)
    window.roll(date(2027, 1, 1))
    window.count(date(2026, 12, 31), -5)  # of a year that is over
    assert (window.day_fen, window.year_fen) == (0, 0)


#    covered   own    refunds one after the other   of each: covered/own
REFUNDS = """
       7000   3000    10000                         7000/3000
       7000   3000    1000 1000 8000                700/300 700/300 5600/2400
          1      2    1 1 1                         0/1 1/0 0/1
          2      1    1 1 1                         1/0 0/1 1/0
         10      0    3 7                           3/0 7/0
          0     10    3 7                           0/3 0/7
          1      1    1 1                           0/1 1/0
"""


@pytest.mark.parametrize("line", REFUNDS.strip().splitlines())
def test_each_share_gets_back_its_part_of_a_refund(line: str) -> None:
    covered, own, *rest = line.split()
    split = Split(1, TODAY, 140, 1, int(covered), int(own))
    amounts, wanted = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    before = 0
    for amount, want in zip(amounts, wanted, strict=True):
        shares = split.returned(before, int(amount))
        assert "/".join(map(str, shares)) == want
        before += int(amount)


@given(
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.lists(st.integers(0, 10**6), max_size=12),
)
def test_no_share_ever_gets_back_more_than_it_gave_and_all_is_returned_in_the_end(
    covered: int, own: int, cuts: list[int]
) -> None:
    amount = covered + own
    if amount == 0:
        return
    split = Split(1, TODAY, 140, 1, covered, own)
    before = back_covered = back_own = 0
    for end in [*sorted(amount * cut // 10**6 for cut in cuts), amount]:
        shares = split.returned(before, end - before)
        assert min(shares) >= 0
        assert sum(shares) == end - before
        before, back_covered, back_own = end, back_covered + shares.covered_fen, back_own + shares.own_fen
        assert back_covered <= covered
        assert back_own <= own
        assert abs(back_own * amount - own * end) * 2 <= amount  # within half a fen of the exact part
    assert (back_covered, back_own) == (covered, own)


@given(st.integers(1, 10**12), st.integers(0, 1_000_000), st.lists(st.integers(0, 10**12), max_size=3))
def test_shares_are_never_below_zero_and_always_the_whole(amount: int, ppm: int, limits: list[int]) -> None:
    shares = by_table(rule(ppm, *limits), amount, CoverWindow(140, TODAY, 7, 77))
    assert isinstance(shares, Shares)
    assert min(shares) >= 0
    assert sum(shares) == amount
