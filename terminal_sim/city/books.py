"""The city's own expectation, from what its people and terminals believe: every balance, every merchant's day. Fen.

It never asks the switch. At the end of the day the switch's files and balances are held against it.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from switch.domain.transactions import AccountKind, Kind
from terminal_sim.city.bank import bound_cards
from terminal_sim.city.plan import CityPlan, Holder
from terminal_sim.pos_answers import Answer
from terminal_sim.pos_batch import Receipt

ACCOUNT_NAMES = {
    AccountKind.ONLINE: "ONLINE",
    AccountKind.BANK: "BANK",
    AccountKind.MEDICAL: "MEDICAL",
    AccountKind.PURSE: "PURSE",
}
PIN_FAILURES_MAX = 6
FAULTS_MAX = 200


class Booking(NamedTuple):
    """One approved transaction as its terminal knows it. amount: plus for a sale, minus for what goes back."""

    merchant_id: str
    account: AccountKind
    amount_fen: int
    fee_fen: int
    holder: int = 0


@dataclass(slots=True)
class MerchantDay:
    """One merchant, one business day, one account kind."""

    items: int = 0
    sales_fen: int = 0
    back_fen: int = 0
    fee_fen: int = 0

    @property
    def net_fen(self) -> int:
        """What the merchant is owed."""
        return self.sales_fen - self.back_fen - self.fee_fen

    def add(self, amount_fen: int, fee_fen: int) -> None:
        """One transaction."""
        self.items += 1
        self.sales_fen += max(amount_fen, 0)
        self.back_fen += max(-amount_fen, 0)
        self.fee_fen += fee_fen


@dataclass(slots=True)
class Books:
    """Balances, bookings by business day and retrieval reference, and every difference found on the way."""

    plan: CityPlan
    balances: dict[tuple[int, AccountKind], int] = field(default_factory=dict)
    pin_failures: dict[tuple[int, AccountKind], int] = field(default_factory=lambda: defaultdict(int))
    bookings: dict[date, dict[str, Booking]] = field(default_factory=lambda: defaultdict(dict))
    rides: dict[date, dict[str, MerchantDay]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(MerchantDay))
    )
    faults: list[str] = field(default_factory=list)
    faults_unsaid: int = 0
    checks: int = 0
    today: date = date.min  # for the year of a clearing date, which has none on the wire

    def has_pin_failures(self, holder_number: int) -> bool:
        """Whether some account of a holder counts a wrong PIN now."""
        return any(
            self.pin_failures[holder_number, account] for account in (AccountKind.ONLINE, AccountKind.MEDICAL)
        )

    def __post_init__(self) -> None:
        for card in (*self.plan.cards, *self.plan.guest_cards):
            holder = card.holder
            if holder.online_fen is not None:
                self.balances[holder.number, AccountKind.ONLINE] = holder.online_fen
            if holder.medical_fen is not None:
                self.balances[holder.number, AccountKind.MEDICAL] = holder.medical_fen
        for bound in bound_cards(self.plan):
            self.balances[bound.card.holder.number, AccountKind.BANK] = bound.balance_fen

    def expect(self, what: str, *, expected: object, found: object) -> bool:
        """Compare; a difference is remembered and fails the city."""
        self.checks += 1
        if expected == found:
            return True
        self.fault(f"{what}: expected {expected}, found {found}")
        return False

    def fault(self, text: str) -> None:
        """Something is not as it must be."""
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)
        else:
            self.faults_unsaid += 1

    def balance_fen(self, holder: Holder, account: AccountKind) -> int | None:
        """None: there is no such account."""
        return self.balances.get((holder.number, account))

    def _fee_fen(self, merchant_id: str, account: AccountKind, amount_fen: int) -> int:
        rule = self.plan.fee_rule(merchant_id, ACCOUNT_NAMES[account])
        return rule.fee_fen(amount_fen) if rule is not None else 0

    def clearing_date(self, answer: Answer) -> date | None:
        """Field 15 of an approval, in the year that lies nearest."""
        mmdd = answer.message.fields.get(15)
        if not mmdd:
            return None
        try:
            made = date(self.today.year, int(mmdd[:2]), int(mmdd[2:]))
        except ValueError:
            return None
        if (self.today - made).days > 180:
            return made.replace(year=made.year + 1)
        return made

    def book(self, holder: Holder, receipt: Receipt, answer: Answer) -> None:
        """An approved purchase, void or refund: the balance moves, and the merchant's day."""
        account = AccountKind(int(receipt.fields[3][2:4]))
        amount = receipt.amount_fen if receipt.kind is Kind.PURCHASE else -receipt.amount_fen
        self.balances[holder.number, account] -= amount
        day = self.clearing_date(answer)
        if day is None:
            self.fault(f"approval {receipt.rrn} has no clearing date in field 15")
            return
        merchant_id = receipt.fields[42]
        if receipt.rrn in self.bookings[day]:
            self.fault(f"retrieval reference {receipt.rrn} was given twice")
        self.bookings[day][receipt.rrn] = Booking(
            merchant_id, account, amount, self._fee_fen(merchant_id, account, amount), holder.number
        )

    def book_ride(self, day: date, merchant_id: str, amount_fen: int) -> None:
        """An offline record that is paid: accepted, or grey and decided for the merchant."""
        fee = self._fee_fen(merchant_id, AccountKind.PURSE, amount_fen)
        self.rides[day][merchant_id].add(amount_fen, fee)

    def merchant_days(self, day: date) -> dict[tuple[str, AccountKind], MerchantDay]:
        """Everybody's day by merchant and account kind."""
        days: dict[tuple[str, AccountKind], MerchantDay] = defaultdict(MerchantDay)
        for booking in self.bookings[day].values():
            days[booking.merchant_id, booking.account].add(booking.amount_fen, booking.fee_fen)
        for merchant_id, ridden in self.rides[day].items():
            days[merchant_id, AccountKind.PURSE] = ridden
        return days
