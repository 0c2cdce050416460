"""The chart: whose money stands where, and that no event pays interest or cash."""

import pytest

from switch.ledger.chart import (
    CHART,
    COVER_ASSETS,
    COVER_DEBTS,
    HOT_CODES,
    RULES,
    Code,
    Event,
    Owner,
    Side,
    legs,
)


def test_cover_ratio_weighs_all_assets_against_all_that_is_owed() -> None:
    assert set(COVER_ASSETS) == {code for code in Code if CHART[code].side is Side.ASSET}
    assert set(COVER_DEBTS) == {code for code in Code if CHART[code].side is Side.LIABILITY}


def test_accounts_of_holders_move_with_the_transaction_and_all_others_are_folded() -> None:
    assert {CHART[code].owner for code in set(Code) - HOT_CODES} == {Owner.ACCOUNT, Owner.CARD, Owner.NOBODY}
    assert Code.MERCHANTS_PAYABLE in HOT_CODES


#   event                            debit credit
EVENTS = """
    load_bound_bank                  1101  2002
    load_cash                        1002  2002
    load_online_to_purse             2001  2002
    online_topup_bound_bank          1101  2001
    purse_purchase_confirmed         2002  2101
    purse_purchase_foreign_acquirer  2002  2102
    foreign_card_confirmed           1102  2101
    online_purchase                  2001  2101
    online_refund                    2101  2001
    medical_purchase_fund            1103  2101
    medical_purchase_agency          2003  2101
    bank_purchase                    1101  2101
    online_paid_out                  2001  1001
    load_suspended                   2002  2201
    fee_own                          2101  6001
    fee_others                       2101  2102
    merchant_paid_out                2101  1001
    merchant_payout_returned         1001  2101
    bank_settled                     1001  1101
    bank_repaid                      1101  1001
    bank_share_set_off               2102  1101
    interop_set_off                  2102  1102
    money_unexplained                1001  2201
    money_sent_back                  2201  1001
"""


@pytest.mark.parametrize("line", EVENTS.strip().splitlines())
def test_event_debits_and_credits_what_the_chart_says(line: str) -> None:
    name, debit, credit = line.split()
    assert legs(Event(name)) == (Code(int(debit)), Code(int(credit)))


def test_only_a_closing_payout_takes_a_holders_money_to_the_bank() -> None:
    paid = [event for event, rule in RULES.items() if rule.credit == Code.CUSTODY_DEPOSIT]
    assert {
        event
        for event in paid
        if legs(event)[0] in (Code.ONLINE_ACCOUNTS, Code.PURSE_FLOAT, Code.MEDICAL_ACCOUNTS)
    } == {Event.ONLINE_PAID_OUT}


def test_a_memo_moves_no_money() -> None:
    with pytest.raises(ValueError, match="memo only"):
        legs(Event.GREY_PENDING)
