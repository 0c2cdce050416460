"""Balances that follow from each other, by themselves or by the loads in between."""

import pytest

from switch.ledger.load_states import LoadState
from switch.purse.chain import LOADS_MAX, Link, Loaded, Spent, Verdict, follows, link, walk
from switch.purse.verify import CONTRADICTED, WAIT, GreyVerdict, Trace, adjudicate

STATES = {state.name.lower(): int(state) for state in LoadState}

#    expected found  loads (counter:amount onto balance, state)                       verdict        numbers of those that explain it
CASES = """
     500       500   -                                                                follows        -
     500       500   0:100@500:confirmed                                              follows        -
     500       600   0:100@500:confirmed                                              loaded         1
     500       600   0:100@500:loaded                                                 loaded         1
     500       600   0:100@500:authorised                                             load_open      1
     500       600   0:100@500:suspense                                               load_open      1
     500       600   0:100@500:reversed                                               load_returned  1
     500       600   0:100@500:returned                                               load_returned  1
     500       600   0:100@400:confirmed                                              break          -
     500       600   0:99@500:confirmed                                               break          -
     500       400   0:100@500:confirmed                                              break          -
     500       800   0:100@500:confirmed 1:200@600:confirmed                          loaded         1,2
     500       800   1:100@500:confirmed 0:200@600:confirmed                          break          -
     500       800   0:100@500:confirmed 1:200@600:suspense                           load_open      1,2
     500       800   0:100@500:reversed 0:300@500:confirmed                           loaded         2
     500       800   0:100@500:confirmed 0:200@600:confirmed                          break          -
     500       600   0:100@500:returned 1:100@500:confirmed                           loaded         2
     500       500   0:100@500:returned                                               follows        -
"""


def loads_of(words: list[str]) -> list[Loaded]:
    made = []
    for number, word in enumerate(words, 1):
        if word != "-":
            counter, rest = word.split(":", 1)
            amount, rest = rest.split("@")
            balance, state = rest.split(":")
            made.append(Loaded(number, int(counter), int(amount), int(balance), STATES[state]))
    return made


@pytest.mark.parametrize("case", CASES.strip().splitlines())
def test_a_rise_is_explained_by_loads_that_begin_and_end_with_its_balances(case: str) -> None:
    expected, found, *loads, verdict, numbers = case.split()
    step = link(int(expected), int(found), loads_of(loads))
    assert step.verdict.name.lower() == verdict
    assert (",".join(str(one.load_no) for one in step.loads) or "-") == numbers
    assert follows(int(expected), int(found), loads_of(loads)) == (verdict in ("follows", "loaded"))


def test_only_the_newest_loads_of_a_card_are_compared() -> None:
    loads = [Loaded(n, n, 1, 1_000 + n, STATES["confirmed"]) for n in range(1, LOADS_MAX + 1)]
    old = Loaded(0, 0, 100, 500, STATES["confirmed"])
    assert link(500, 600, [old, *loads[1:]]).verdict is Verdict.LOADED
    assert link(500, 600, [old, *loads]).verdict is Verdict.BREAK


def test_a_walk_goes_by_the_counter_and_compares_nothing_across_a_hole() -> None:
    records = [Spent(5, 10, 70), Spent(1, 10, 100), Spent(2, 10, 90), Spent(6, 10, 65)]
    steps = walk(records, [], 0)
    assert [(step.record.atc, step.missing) for step in steps] == [(1, 1), (2, 0), (5, 2), (6, 0)]
    assert [step.link for step in steps] == [
        None,
        Link(Verdict.FOLLOWS, 90, 90),
        None,
        Link(Verdict.BREAK, 60, 65),
    ]


GREY = Trace(5, 150, 5_000)
LOAD = Loaded(1, 0, 1_000, 4_850, STATES["confirmed"])


@pytest.mark.parametrize(
    ("accepted", "loads", "verdict"),
    [
        ([Trace(6, 1, 5_850)], [LOAD], GreyVerdict("00")),
        ([Trace(6, 1, 5_850)], [], CONTRADICTED),
        ([Trace(6, 1, 5_850)], [LOAD._replace(state=STATES["authorised"])], CONTRADICTED),
        ([Trace(5, 1, 6_000)], [LOAD._replace(balance_fen=5_000)], GreyVerdict("94")),
        ([Trace(5, 1, 6_000)], [LOAD], CONTRADICTED),
        ([Trace(8, 1, 5_850)], [LOAD], WAIT),
    ],
)
def test_a_load_between_a_grey_record_and_its_evidence_is_counted_only_when_it_is_certain(
    accepted: list[Trace], loads: list[Loaded], verdict: GreyVerdict
) -> None:
    assert adjudicate(GREY, accepted, [], loads) == verdict
