"""Limits per transaction, day and month, as tables, and their windows through purchases, voids and reversals."""

from datetime import date

import pytest

from switch.domain.decisions import Decline
from switch.ledger.limits import LimitRule, Window, refusal, rule_for

DAY = date(2026, 11, 26)
GENERAL = LimitRule(10, None, None, 500, None, None, None, date(2026, 1, 1), None)
STUDENTS = GENERAL._replace(
    product="02", day_fen=50, valid_from=date(2026, 11, 1), valid_to=date(2026, 11, 30)
)

#   per tx  day  month  day n  month n   spent today  in month   wants   answer
CASES = """
    -       -    -      -      -         900/9        900/9      900     APPROVED
    100     -    -      -      -         0/0          0/0        100     APPROVED
    100     -    -      -      -         0/0          0/0        101     LIMIT_AMOUNT
    -       500  -      -      -         400/4        400/4      100     APPROVED
    -       500  -      -      -         400/4        400/4      101     LIMIT_AMOUNT
    -       -    900    -      -         400/4        800/9      100     APPROVED
    -       -    900    -      -         400/4        800/9      101     LIMIT_AMOUNT
    -       -    -      5      -         400/4        800/9      100     APPROVED
    -       -    -      4      -         400/4        800/9      100     LIMIT_COUNT
    -       -    -      -      9         400/4        800/9      100     LIMIT_COUNT
    -       -    -      -      10        400/4        800/9      100     APPROVED
    100     -    -      0      -         0/0          0/0        101     LIMIT_AMOUNT
    0       -    -      -      -         0/0          0/0        1       LIMIT_AMOUNT
"""


@pytest.mark.parametrize("line", [line for line in CASES.splitlines() if line.strip()])
def test_limit_table(line: str) -> None:
    *limits, today, month, wants, answer = line.split()
    numbers = [None if limit == "-" else int(limit) for limit in limits]
    rule = LimitRule(10, None, *numbers, DAY, None)
    (day_fen, day_count), (month_fen, month_count) = (map(int, text.split("/")) for text in (today, month))
    window = Window(110, DAY, day_fen, day_count, month_fen, month_count)
    decline = refusal(window, rule, int(wants))
    assert (decline.name if decline else "APPROVED") == answer


#   kind  product  on            rule
RULES = """
    10    01       2026-11-26    general
    10    02       2026-11-26    students
    10    02       2026-11-01    students
    10    02       2026-11-30    students
    10    02       2026-12-01    general
    10    02       2026-10-31    general
    10    01       2025-12-31    none
    40    01       2026-11-26    none
"""


@pytest.mark.parametrize("line", [line for line in RULES.splitlines() if line.strip()])
@pytest.mark.parametrize("rules", [(GENERAL, STUDENTS), (STUDENTS, GENERAL)], ids=["general first", "last"])
def test_the_rule_of_the_class_in_force_goes_before_the_general_one(
    line: str, rules: tuple[LimitRule, ...]
) -> None:
    kind, product, day, name = line.split()
    found = rule_for(rules, int(kind), product, date.fromisoformat(day))
    assert found == {"general": GENERAL, "students": STUDENTS, "none": None}[name]


def test_a_window_rolls_by_days_and_months_and_gives_back_only_what_it_still_holds() -> None:
    window = Window(110, date(2026, 11, 29))
    window.count(date(2026, 11, 29), 300, 1)
    window.roll(date(2026, 11, 30))
    window.count(date(2026, 11, 30), 50, 1)
    assert (window.day_fen, window.day_count, window.month_fen, window.month_count) == (50, 1, 350, 2)
    window.count(date(2026, 11, 29), -300, -1)  # reversed a day later
    assert (window.day_fen, window.day_count, window.month_fen, window.month_count) == (50, 1, 50, 1)
    window.roll(date(2026, 12, 1))
    window.count(date(2026, 11, 30), -50, -1)
    assert (window.day_fen, window.day_count, window.month_fen, window.month_count) == (0, 0, 0, 0)
    window.roll(date(2026, 11, 30))
    assert window.day == date(2026, 12, 1)


def test_no_rule_refuses_nothing() -> None:
    assert refusal(Window(110, DAY, 10**15, 9, 10**15, 9), None, 10**12) is None
    assert Decline.LIMIT_AMOUNT is not Decline.LIMIT_COUNT
