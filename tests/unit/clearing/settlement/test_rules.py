"""The rules of a settlement as tables and laws, without a database."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switch.clearing.settlement.camt import Entry
from switch.clearing.settlement.legs import Accounts, Leg, paid_legs, received_legs, returned_legs
from switch.clearing.settlement.matching import Earlier, Known, Verdict, decide, reference_of
from switch.clearing.settlement.order import execution_date
from switch.clearing.settlement.prepare import Share, divide
from switch.clearing.settlement.terms import Terms
from switch.ledger.chart import Code, legs

fens = st.integers(-(10**9), 10**9)


#   kind      claim  held   minimum account cycle   payout held carried cause
CASES = """
    merchant    100     0         0     yes   yes      100    0       0  -
    merchant    100     0       101     yes   yes        0    0     100  MINIMUM
    merchant    100     0       100     yes   yes      100    0       0  -
    merchant    100    30         0     yes   yes       70   30       0  HELD
    merchant    100   100         0     yes   yes        0  100       0  HELD
    merchant    100   all         0     yes   yes        0  100       0  HELD
    merchant    100    30        71     yes   yes        0   30      70  MINIMUM
    merchant    100     0         0      no   yes        0    0     100  NO_ACCOUNT
    merchant    100     0         0     yes    no        0    0     100  CYCLE
    merchant      0     0         0     yes   yes        0    0       0  -
    merchant   -100    30         0     yes   yes        0    0    -100  NEGATIVE
    member     -100     0         0      no    no     -100    0       0  -
    member      100     0         0     yes   yes      100    0       0  -
    member        0   all         0     yes   yes        0    0       0  -
"""


@pytest.mark.parametrize("case", CASES.strip().splitlines())
def test_a_claim_is_paid_held_or_carried(case: str) -> None:
    kind, claim, held, minimum, account, cycle, payout, stays, carried, cause = case.split()
    terms = Terms(
        int(minimum), held_all=held == "all", held_fen=0 if held == "all" else int(held), held_reason="x"
    )
    share = divide(
        int(claim),
        terms,
        is_merchant=kind == "merchant",
        has_account=account == "yes",
        in_cycle=cycle == "yes",
    )
    assert share == Share(int(payout), int(stays), int(carried), cause.strip("-"))


@given(fens, st.integers(0, 10**9), st.integers(0, 10**9), st.booleans(), st.booleans(), st.booleans())
def test_no_fen_is_lost_or_made(
    fen: int, held: int, minimum: int, merchant: bool, account: bool, cycle: bool
) -> None:
    share = divide(
        fen,
        Terms(minimum, held_fen=held),
        is_merchant=merchant,
        has_account=account,
        in_cycle=cycle,
    )
    assert share.payout_fen + share.held_fen + share.carried_fen == fen
    assert share.payout_fen <= max(fen, 0)
    assert share.held_fen >= 0


def after(accounts: Accounts, found: list[Leg]) -> tuple[int, int]:
    """What the institution is owed in all, and what the custody account changed by."""
    owed = accounts.share_fen - accounts.bank_fen - accounts.interop_fen
    custody = 0
    for event, fen in found:
        assert fen > 0, event
        debit, credit = legs(event)
        owed += fen * ((credit is not Code.CUSTODY_DEPOSIT) - (debit is not Code.CUSTODY_DEPOSIT))
        custody += fen * ((debit is Code.CUSTODY_DEPOSIT) - (credit is Code.CUSTODY_DEPOSIT))
    return owed, custody


@given(fens, fens, fens, st.integers(1, 10**9))
def test_a_transfer_changes_what_an_institution_is_owed_by_its_amount_and_each_event_is_booked_once(
    bank: int, interop: int, share: int, fen: int
) -> None:
    accounts = Accounts(bank, interop, share)
    owed = share - bank - interop
    for found, sign in ((paid_legs(accounts, fen), -1), (received_legs(accounts, fen), 1)):
        assert len({event for event, _ in found}) == len(found)
        assert after(accounts, found) == (owed + sign * fen, sign * fen)
    paid = paid_legs(accounts, fen)
    assert sum(part for _, part in returned_legs(paid)) == fen


def test_an_institutions_accounts_are_set_off_and_empty_when_its_net_is_paid() -> None:
    assert paid_legs(Accounts(300, 200, 1_000), 500) == [
        ("bank_share_set_off", 300),
        ("interop_set_off", 200),
        ("interop_paid", 500),
    ]
    assert received_legs(Accounts(800, 400, 200), 1_000) == [
        ("bank_share_set_off", 200),
        ("bank_settled", 600),
        ("interop_received", 400),
    ]
    assert paid_legs(Accounts(-300, 0, 200), 500) == [("interop_paid", 200), ("bank_repaid", 300)]


def entry(fen: int, ref: str = "B1", *, reason: str = "", booked: bool = True) -> Entry:
    """Of our payout; below zero: money out."""
    return Entry(ref, "P20240318000001", "", abs(fen), fen > 0, booked, reason, None)


P = "P20240318000001"
C = "C20240318000001"
SAME, OTHER, NONE = (
    Earlier("camt.054", "B1", True),
    Earlier("camt.053", "B9", True),
    Earlier("camt.054", "", True),
)
WRONG = Earlier("camt.053", "B9", False)
DECISIONS = [
    # entry, known, earlier, by the statement, at a notification
    (entry(-100), (P, "ORDERED"), [], Verdict("PAID", "PAID"), "PAID"),
    (entry(-100, booked=False), (P, "ORDERED"), [], Verdict("PENDING"), "PENDING"),
    (entry(-99), (P, "ORDERED"), [], Verdict("AMOUNT", None, 1), "WAITS"),
    (entry(-101), (P, "ORDERED"), [], Verdict("AMOUNT", None, -1), "WAITS"),
    (entry(-100), (P, "PAID"), [SAME], Verdict("SEEN"), "SEEN"),
    (entry(-100), (P, "PAID"), [OTHER], Verdict("TWICE", None, -100), "WAITS"),
    (entry(-1), (P, "ORDERED"), [WRONG], Verdict("TWICE", None, -1), "WAITS"),
    (entry(-100), (P, "PAID"), [NONE], Verdict("SEEN"), "WAITS"),
    (entry(-100, ""), (P, "PAID"), [SAME], Verdict("SEEN"), "WAITS"),
    (entry(-100), (P, "APPROVED"), [], Verdict("UNEXPLAINED", None, -100), "WAITS"),
    (entry(-100), (P, "REJECTED"), [], Verdict("UNEXPLAINED", None, -100), "WAITS"),
    (entry(-100), (P, "RETURNED"), [], Verdict("SEEN"), "SEEN"),
    (entry(100, reason="AC04"), (P, "PAID"), [], Verdict("RETURNED", "RETURNED"), "RETURNED"),
    (entry(100, reason="AC04"), (P, "ORDERED"), [], Verdict("RETURNED", "RETURNED"), "RETURNED"),
    (entry(100), (P, "PAID"), [], Verdict("UNEXPLAINED", None, 100), "WAITS"),
    (entry(90, reason="AC04"), (P, "PAID"), [], Verdict("AMOUNT", None, 90), "WAITS"),
    (entry(100, reason="AC04"), (P, "CANCELLED"), [], Verdict("UNEXPLAINED", None, 100), "WAITS"),
    (entry(100), (C, "EXPECTED"), [], Verdict("FUNDED", "FUNDED"), "FUNDED"),
    (entry(100), (C, "EXPECTED"), [WRONG], Verdict("FUNDED", "FUNDED"), "FUNDED"),
    (entry(99), (C, "EXPECTED"), [], Verdict("AMOUNT", None, 99), "WAITS"),
    (entry(100), (C, "FUNDED"), [OTHER], Verdict("TWICE", None, 100), "WAITS"),
    (entry(-100), (C, "EXPECTED"), [], Verdict("UNEXPLAINED", None, -100), "WAITS"),
    (entry(5), None, [], Verdict("UNEXPLAINED", None, 5), "WAITS"),
    (entry(5), None, [Earlier("camt.053", "B1", False)], Verdict("SEEN"), "SEEN"),
]


@pytest.mark.parametrize(("said", "known", "earlier", "final", "early"), DECISIONS)
def test_what_the_bank_says_is_decided_by_the_table(
    said: Entry, known: tuple[str, str] | None, earlier: list[Earlier], final: Verdict, early: str
) -> None:
    payout = None if known is None else Known(known[0], 100, known[1])
    assert decide(said, "camt.053", payout, earlier) == final
    assert decide(said, "camt.054", payout, earlier).outcome == early


def test_a_collection_may_be_named_in_the_text_a_payout_may_not() -> None:
    text = Entry("B1", "NOTPROVIDED", f"for {C}, thanks", 100, True, True, "", None)
    assert reference_of(text) == C
    assert reference_of(text._replace(remittance=f"for x{C}9")) == ""
    assert reference_of(text._replace(remittance=f"for {P}")) == ""
    assert reference_of(text._replace(end_to_end_id=P)) == P


def test_money_moves_on_the_settlement_date_or_the_next_workday_when_that_is_past() -> None:
    day = date(2024, 3, 15)

    def works(which: date) -> bool:
        return which.weekday() < 5

    assert execution_date(day, date(2024, 3, 14), works) == day
    assert execution_date(day, day, works) == day
    assert execution_date(day, date(2024, 3, 16), works) == date(2024, 3, 18)
    with pytest.raises(ValueError, match="calendar"):
        execution_date(day, date(2024, 3, 16), lambda _: False)
