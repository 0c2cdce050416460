"""The chart of accounts, and which accounts each event moves money between. Data, and checks of the data.

Customers' money is never mixed with the operator's own: 6001 is the only account that is the operator's, and what
the custody bank and the other debtors hold must cover all that is owed to others (`COVER_ASSETS`, `COVER_DEBTS`).
Every event is one debit and one credit of the same amount, so a set of postings sums to zero by construction.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Code(IntEnum):
    """Account codes. The numbers are stored and reported, so they are never reused."""

    CUSTODY_DEPOSIT = 1001  # 備付金存款
    AGENTS_RECEIVABLE = 1002  # 代理點應收
    BANKS_RECEIVABLE = 1101  # 應收銀行清算款, bound cards
    INTEROP_RECEIVABLE = 1102  # 應收互聯互通清算款
    FUND_RECEIVABLE = 1103  # 應收醫保基金
    ONLINE_ACCOUNTS = 2001  # 聯機賬戶
    PURSE_FLOAT = 2002  # 脫機錢包沉澱
    MEDICAL_ACCOUNTS = 2003  # 醫保賬戶代管
    MERCHANTS_PAYABLE = 2101  # 應付商戶款
    INTEROP_PAYABLE = 2102  # 應付互聯互通清算款, and others' shares of fees
    SUSPENSE = 2201  # 掛賬
    FEE_INCOME = 6001  # 手續費收入
    MEMO_GREY = 9001  # 灰記錄, off balance


class Side(Enum):
    """On which side an account grows."""

    ASSET = "asset"
    LIABILITY = "liability"
    INCOME = "income"
    MEMO = "off balance"


class Owner(Enum):
    """What `owner` means in a posting to this account."""

    NOBODY = "0"
    ACCOUNT = "account_id"
    CARD = "card_no"
    MERCHANT = "merchant_no"
    INSTITUTION = "institution_id as a number"


class Account(NamedTuple):
    """One line of the chart."""

    code: Code
    name: str
    side: Side
    owner: Owner


CHART: Mapping[Code, Account] = MappingProxyType(
    {
        account.code: account
        for account in (
            Account(Code.CUSTODY_DEPOSIT, "custody bank deposit", Side.ASSET, Owner.NOBODY),
            Account(Code.AGENTS_RECEIVABLE, "cash / agents' receivable", Side.ASSET, Owner.INSTITUTION),
            Account(Code.BANKS_RECEIVABLE, "banks' clearing receivable", Side.ASSET, Owner.INSTITUTION),
            Account(Code.INTEROP_RECEIVABLE, "interop receivable", Side.ASSET, Owner.INSTITUTION),
            Account(
                Code.FUND_RECEIVABLE, "receivable from the social-security fund", Side.ASSET, Owner.NOBODY
            ),
            Account(Code.ONLINE_ACCOUNTS, "online accounts", Side.LIABILITY, Owner.ACCOUNT),
            Account(Code.PURSE_FLOAT, "purse float", Side.LIABILITY, Owner.CARD),
            Account(Code.MEDICAL_ACCOUNTS, "medical accounts (agency)", Side.LIABILITY, Owner.ACCOUNT),
            Account(Code.MERCHANTS_PAYABLE, "merchants payable", Side.LIABILITY, Owner.MERCHANT),
            Account(Code.INTEROP_PAYABLE, "interop payable", Side.LIABILITY, Owner.INSTITUTION),
            Account(Code.SUSPENSE, "suspense", Side.LIABILITY, Owner.NOBODY),
            Account(Code.FEE_INCOME, "fee income", Side.INCOME, Owner.NOBODY),
            Account(Code.MEMO_GREY, "memo: grey amounts", Side.MEMO, Owner.NOBODY),
        )
    }
)
assert CHART.keys() == set(Code), "every code has its line"

# Nobody waits for these: their balances are folded from the postings. The others move with the transaction.
HOT_CODES = frozenset(Code) - {
    Code.ONLINE_ACCOUNTS,
    Code.PURSE_FLOAT,
    Code.MEDICAL_ACCOUNTS,
    Code.MEMO_GREY,
}

# Cover ratio 備付率: the sum of the first must never be below the sum of the second.
COVER_ASSETS = (
    Code.CUSTODY_DEPOSIT,
    Code.AGENTS_RECEIVABLE,
    Code.BANKS_RECEIVABLE,
    Code.INTEROP_RECEIVABLE,
    Code.FUND_RECEIVABLE,
)
COVER_DEBTS = (
    Code.ONLINE_ACCOUNTS,
    Code.PURSE_FLOAT,
    Code.MEDICAL_ACCOUNTS,
    Code.MERCHANTS_PAYABLE,
    Code.INTEROP_PAYABLE,
    Code.SUSPENSE,
)


class Event(StrEnum):
    """What can happen to money. The values are the names used in clearing vectors and reports."""

    LOAD_BOUND_BANK = "load_bound_bank"
    LOAD_REVERSED_BOUND_BANK = "load_reversed_bound_bank"
    LOAD_CASH = "load_cash"
    LOAD_REVERSED_CASH = "load_reversed_cash"
    LOAD_ONLINE_TO_PURSE = "load_online_to_purse"
    LOAD_REVERSED_ONLINE = "load_reversed_online"
    LOAD_SUSPENDED = "load_suspended"
    SUSPENSE_LOADED = "suspense_loaded"
    SUSPENSE_RETURNED_BANK = "suspense_returned_bank"
    SUSPENSE_RETURNED_CASH = "suspense_returned_cash"
    SUSPENSE_RETURNED_ONLINE = "suspense_returned_online"
    ONLINE_TOPUP_BOUND_BANK = "online_topup_bound_bank"
    ONLINE_TOPUP_CASH = "online_topup_cash"
    ONLINE_OPENED = "online_opened"
    MEDICAL_OPENED = "medical_opened"
    PURSE_OPENED = "purse_opened"
    PURSE_PURCHASE_CONFIRMED = "purse_purchase_confirmed"
    PURSE_PURCHASE_FOREIGN_ACQUIRER = "purse_purchase_foreign_acquirer"
    FOREIGN_CARD_CONFIRMED = "foreign_card_confirmed"
    ONLINE_PURCHASE = "online_purchase"
    ONLINE_REFUND = "online_refund"
    REFUND_TO_SUSPENSE = "refund_to_suspense"
    MEDICAL_PURCHASE_FUND = "medical_purchase_fund"
    MEDICAL_REFUND_FUND = "medical_refund_fund"
    MEDICAL_PURCHASE_AGENCY = "medical_purchase_agency"
    MEDICAL_REFUND_AGENCY = "medical_refund_agency"
    MEDICAL_FUNDED = "medical_funded"
    FUND_SETTLED = "fund_settled"
    BANK_PURCHASE = "bank_purchase"
    BANK_REFUND = "bank_refund"
    ONLINE_PAID_OUT = "online_paid_out"
    INTEROP_PAID = "interop_paid"
    INTEROP_RECEIVED = "interop_received"
    CHARGEBACK_ONLINE = "chargeback_online"
    CHARGEBACK_BANK = "chargeback_bank"
    CHARGEBACK_INTEROP = "chargeback_interop"
    FEE_OWN = "fee_own"
    FEE_OWN_RETURNED = "fee_own_returned"
    FEE_OTHERS = "fee_others"
    FEE_OTHERS_RETURNED = "fee_others_returned"
    MERCHANT_PAID_OUT = "merchant_paid_out"
    MERCHANT_PAYOUT_RETURNED = "merchant_payout_returned"
    BANK_SETTLED = "bank_settled"
    BANK_REPAID = "bank_repaid"
    BANK_SHARE_SET_OFF = "bank_share_set_off"
    INTEROP_SET_OFF = "interop_set_off"
    MONEY_UNEXPLAINED = "money_unexplained"
    MONEY_SENT_BACK = "money_sent_back"
    PURSE_TAKEN_OVER_ONLINE = "purse_taken_over_online"
    PURSE_TAKEN_OVER_SUSPENSE = "purse_taken_over_suspense"
    GREY_PENDING = "grey_pending"
    GREY_ADJUSTED_PAID = "grey_adjusted_paid"
    GREY_REFUSED = "grey_refused"


class Rule(NamedTuple):
    """What an event does with its amount. memo: +1 adds it to 9001, -1 takes it off again."""

    debit: Code | None
    credit: Code | None
    memo: int = 0


RULES: Mapping[Event, Rule] = MappingProxyType(
    {
        Event.LOAD_BOUND_BANK: Rule(Code.BANKS_RECEIVABLE, Code.PURSE_FLOAT),
        Event.LOAD_REVERSED_BOUND_BANK: Rule(Code.PURSE_FLOAT, Code.BANKS_RECEIVABLE),
        Event.LOAD_CASH: Rule(Code.AGENTS_RECEIVABLE, Code.PURSE_FLOAT),
        Event.LOAD_REVERSED_CASH: Rule(Code.PURSE_FLOAT, Code.AGENTS_RECEIVABLE),
        Event.LOAD_ONLINE_TO_PURSE: Rule(Code.ONLINE_ACCOUNTS, Code.PURSE_FLOAT),
        Event.LOAD_REVERSED_ONLINE: Rule(Code.PURSE_FLOAT, Code.ONLINE_ACCOUNTS),
        Event.LOAD_SUSPENDED: Rule(Code.PURSE_FLOAT, Code.SUSPENSE),
        Event.SUSPENSE_LOADED: Rule(Code.SUSPENSE, Code.PURSE_FLOAT),
        Event.SUSPENSE_RETURNED_BANK: Rule(Code.SUSPENSE, Code.BANKS_RECEIVABLE),
        Event.SUSPENSE_RETURNED_CASH: Rule(Code.SUSPENSE, Code.AGENTS_RECEIVABLE),
        Event.SUSPENSE_RETURNED_ONLINE: Rule(Code.SUSPENSE, Code.ONLINE_ACCOUNTS),
        Event.ONLINE_TOPUP_BOUND_BANK: Rule(Code.BANKS_RECEIVABLE, Code.ONLINE_ACCOUNTS),
        Event.ONLINE_TOPUP_CASH: Rule(Code.AGENTS_RECEIVABLE, Code.ONLINE_ACCOUNTS),
        Event.ONLINE_OPENED: Rule(Code.CUSTODY_DEPOSIT, Code.ONLINE_ACCOUNTS),
        Event.MEDICAL_OPENED: Rule(Code.CUSTODY_DEPOSIT, Code.MEDICAL_ACCOUNTS),
        Event.PURSE_OPENED: Rule(Code.CUSTODY_DEPOSIT, Code.PURSE_FLOAT),
        Event.PURSE_PURCHASE_CONFIRMED: Rule(Code.PURSE_FLOAT, Code.MERCHANTS_PAYABLE),
        Event.PURSE_PURCHASE_FOREIGN_ACQUIRER: Rule(Code.PURSE_FLOAT, Code.INTEROP_PAYABLE),
        Event.FOREIGN_CARD_CONFIRMED: Rule(Code.INTEROP_RECEIVABLE, Code.MERCHANTS_PAYABLE),
        Event.ONLINE_PURCHASE: Rule(Code.ONLINE_ACCOUNTS, Code.MERCHANTS_PAYABLE),
        Event.ONLINE_REFUND: Rule(Code.MERCHANTS_PAYABLE, Code.ONLINE_ACCOUNTS),
        Event.REFUND_TO_SUSPENSE: Rule(Code.MERCHANTS_PAYABLE, Code.SUSPENSE),
        Event.MEDICAL_PURCHASE_FUND: Rule(Code.FUND_RECEIVABLE, Code.MERCHANTS_PAYABLE),
        Event.MEDICAL_REFUND_FUND: Rule(Code.MERCHANTS_PAYABLE, Code.FUND_RECEIVABLE),
        Event.MEDICAL_PURCHASE_AGENCY: Rule(Code.MEDICAL_ACCOUNTS, Code.MERCHANTS_PAYABLE),
        Event.MEDICAL_REFUND_AGENCY: Rule(Code.MERCHANTS_PAYABLE, Code.MEDICAL_ACCOUNTS),
        Event.MEDICAL_FUNDED: Rule(Code.CUSTODY_DEPOSIT, Code.MEDICAL_ACCOUNTS),
        Event.FUND_SETTLED: Rule(Code.CUSTODY_DEPOSIT, Code.FUND_RECEIVABLE),
        Event.BANK_PURCHASE: Rule(Code.BANKS_RECEIVABLE, Code.MERCHANTS_PAYABLE),
        Event.BANK_REFUND: Rule(Code.MERCHANTS_PAYABLE, Code.BANKS_RECEIVABLE),
        Event.ONLINE_PAID_OUT: Rule(Code.ONLINE_ACCOUNTS, Code.CUSTODY_DEPOSIT),
        Event.INTEROP_PAID: Rule(Code.INTEROP_PAYABLE, Code.CUSTODY_DEPOSIT),
        Event.INTEROP_RECEIVED: Rule(Code.CUSTODY_DEPOSIT, Code.INTEROP_RECEIVABLE),
        Event.CHARGEBACK_ONLINE: Rule(Code.MERCHANTS_PAYABLE, Code.ONLINE_ACCOUNTS),
        Event.CHARGEBACK_BANK: Rule(Code.MERCHANTS_PAYABLE, Code.BANKS_RECEIVABLE),
        Event.CHARGEBACK_INTEROP: Rule(Code.MERCHANTS_PAYABLE, Code.INTEROP_RECEIVABLE),
        Event.FEE_OWN: Rule(Code.MERCHANTS_PAYABLE, Code.FEE_INCOME),
        Event.FEE_OWN_RETURNED: Rule(Code.FEE_INCOME, Code.MERCHANTS_PAYABLE),
        Event.FEE_OTHERS: Rule(Code.MERCHANTS_PAYABLE, Code.INTEROP_PAYABLE),
        Event.FEE_OTHERS_RETURNED: Rule(Code.INTEROP_PAYABLE, Code.MERCHANTS_PAYABLE),
        Event.MERCHANT_PAID_OUT: Rule(Code.MERCHANTS_PAYABLE, Code.CUSTODY_DEPOSIT),
        Event.MERCHANT_PAYOUT_RETURNED: Rule(Code.CUSTODY_DEPOSIT, Code.MERCHANTS_PAYABLE),
        Event.BANK_SETTLED: Rule(Code.CUSTODY_DEPOSIT, Code.BANKS_RECEIVABLE),
        Event.BANK_REPAID: Rule(Code.BANKS_RECEIVABLE, Code.CUSTODY_DEPOSIT),
        # A net is one transfer: what we owe an institution is set off against what it owes us, and the rest is paid.
        Event.BANK_SHARE_SET_OFF: Rule(Code.INTEROP_PAYABLE, Code.BANKS_RECEIVABLE),
        Event.INTEROP_SET_OFF: Rule(Code.INTEROP_PAYABLE, Code.INTEROP_RECEIVABLE),
        Event.MONEY_UNEXPLAINED: Rule(Code.CUSTODY_DEPOSIT, Code.SUSPENSE),
        Event.MONEY_SENT_BACK: Rule(Code.SUSPENSE, Code.CUSTODY_DEPOSIT),
        Event.PURSE_TAKEN_OVER_ONLINE: Rule(Code.PURSE_FLOAT, Code.ONLINE_ACCOUNTS),
        Event.PURSE_TAKEN_OVER_SUSPENSE: Rule(Code.PURSE_FLOAT, Code.SUSPENSE),
        Event.GREY_PENDING: Rule(None, None, +1),
        Event.GREY_ADJUSTED_PAID: Rule(Code.PURSE_FLOAT, Code.MERCHANTS_PAYABLE, -1),
        Event.GREY_REFUSED: Rule(None, None, -1),
    }
)


def _check_rules() -> None:
    """Each event has its rule, and none pays a holder interest or cash.

    Out of income nothing flows to 2001 and 2002, and what leaves them for the custody bank is a payout by transfer.
    """
    assert RULES.keys() == set(Event), "every event has its rule"
    holders = {Code.ONLINE_ACCOUNTS, Code.PURSE_FLOAT}
    for event, rule in RULES.items():
        assert (rule.debit is None) == (rule.credit is None), event
        assert rule.debit is None or rule.debit != rule.credit, event
        assert Code.MEMO_GREY not in (rule.debit, rule.credit), event
        assert not (rule.credit in holders and rule.debit == Code.FEE_INCOME), event
        assert event == Event.ONLINE_PAID_OUT or not (
            rule.debit in holders and rule.credit == Code.CUSTODY_DEPOSIT
        ), event


_check_rules()


def legs(event: Event) -> tuple[Code, Code]:
    """The (debit, credit) codes of an event that moves money.

    >>> legs(Event.ONLINE_PURCHASE)
    (<Code.ONLINE_ACCOUNTS: 2001>, <Code.MERCHANTS_PAYABLE: 2101>)
    """
    debit, credit, _ = RULES[event]
    if debit is None or credit is None:
        raise ValueError(f"{event.value} is a memo only")
    return debit, credit
