"""Every rule of the online account, as pure functions over the state that a batch has locked and read.

Nothing here waits, reads a clock or touches a table. State objects are changed in place, so that the next request of the same
batch sees what the one before it did.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum
from typing import NamedTuple

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import BalanceFigure, Decline
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    Balance,
    CompletionVoid,
    Kind,
    PreAuthorisation,
    Purchase,
    Refund,
    Reversal,
    Void,
)
from switch.ledger.leg_state import Leg, Tell, told_back
from switch.ledger.limits import LimitRule, Window, product_of, refusal, rule_for
from switch.ledger.load_states import Loading, LoadMove, Purse, PurseLoad
from switch.ledger.medical import MedicalState

MALFORMED = "30"  # the answer that was kept of a request whose amount may not have been readable
PIN_FAILURES_MAX = 6  # the sixth wrong PIN in a row blocks


class CardStatus(IntEnum):
    """Life of a card; the numbers are stored."""

    READY = 0
    ACTIVE = 1
    LOSS_TEMP = 2
    LOSS_FORMAL = 3
    DAMAGED = 4
    EXPIRED = 5
    REPLACED = 6
    CANCEL_PENDING = 7
    CANCELLED = 8


# Plain numbers, because an enum's hash and comparison are slow.
_READY, _EXPIRED = int(CardStatus.READY), int(CardStatus.EXPIRED)
_RESTRICTED = frozenset(
    map(int, (CardStatus.DAMAGED, CardStatus.REPLACED, CardStatus.CANCEL_PENDING, CardStatus.CANCELLED))
)


@dataclass(slots=True)
class Account:
    """A locked account row.

    held_fen of the balance is frozen by open holds, of which none expires before holds_due. limited_from: limits bind from this
    business date on.
    """

    account_id: int
    balance_fen: int
    frozen: bool
    pin_verifier: bytes | None
    pin_failures: int
    held_fen: int = 0
    holds_due: datetime | None = None
    limited_from: date | None = None
    changed: bool = False
    held_changed: bool = False

    @property
    def available_fen(self) -> int:
        """What may be spent."""
        return self.balance_fen - self.held_fen


@dataclass(slots=True)
class Hold:
    """Money frozen by a pre-authorisation, under that one's entry number. See holds.py for its life."""

    entry_no: int
    business_date: date
    account_id: int
    amount_fen: int
    frozen_fen: int
    expires_at: datetime
    ended_by: int | None = None
    completed_by: int | None = None
    changed: bool = False


class Card(NamedTuple):
    """A card row, read after the lock on its holder's account."""

    status: int
    valid_from: date
    valid_through: date
    lost_at: datetime | None
    loss_lapses_at: datetime | None = None  # a temporary report is void from here


@dataclass(slots=True)
class Entry:
    """A journal row as far as rules ask for it, with what later transactions have used of it."""

    entry_no: int
    business_date: date
    kind: int
    account_id: int | None
    pan: str | None
    amount_fen: int
    effect_fen: int
    answer: str
    rrn: str
    auth_code: str
    decided_at: datetime
    digest: bytes
    extra: bytes | None
    original_date: date | None = None
    original_entry: int | None = None
    refunded_fen: int = 0
    undone_by: int | None = None
    used: bool = False  # to be written to original_use


class Movement(NamedTuple):
    """One posting to be: debit account, credit account, as (code, owner)."""

    debit: tuple[int, int]
    credit: tuple[int, int]
    amount_fen: int


@dataclass(slots=True)
class Ruling:
    """What was decided. `decline` None is an approval. Nothing has been written yet."""

    decline: Decline | None = None
    movement: Movement | None = None
    further: Movement | None = None  # the second posting, of a purchase that two accounts pay
    effect_fen: int = 0
    original: Entry | None = None
    serial: int = 0  # of the entry, when one was needed to rule
    rrn: str = ""  # to answer with instead of a new one
    auth_code: str | None = None  # None: a new one when approved
    answer: str = ""  # field 39, where it is neither 00 nor that of a decline
    leg: Leg | None = None  # made by this decision
    tells: tuple[Tell, ...] = ()
    balances: tuple[BalanceFigure, ...] = ()
    field55: bytes = b""  # of an approved purse load


@dataclass(slots=True)
class Facts:
    """What one request is decided by. A batch keeps one of these and fills it in for each of its requests."""

    now: datetime  # the batch's one instant, by the database's clock
    today: date  # the business date of that instant
    serial: int = 0
    merchant_no: int = 0
    card: Card | None = None
    account: Account | None = None
    holder_id: int = 0
    original: Entry | None = None
    original_batch_closed: bool = False
    leg: Leg | None = None  # of the original, where a host decided it
    pin: bytes | None = None  # keyed verifier of the PIN that came, never the PIN
    pin_unreadable: bool = False
    no_pin_limit_fen: int = 0
    entry_of: Callable[[int], "Entry | None"] = field(default=lambda _entry_no: None)
    holds: dict[int, Hold] = field(default_factory=dict)  # the batch's, by entry number
    windows: dict[int, Window] = field(default_factory=dict)  # the batch's, by account
    limit_rules: Sequence[LimitRule] = ()
    accounts: Mapping[int, Account] = field(default_factory=dict)  # all that the batch has locked
    medical: MedicalState | None = None  # only where a request of the batch is about a medical account
    bound_fen: dict[int, int] = field(
        default_factory=dict
    )  # paid today by bound cards with a day limit, by binding_no
    loading: Loading | None = None
    purse: Purse | None = None  # of the card, where the request is about a load
    purse_max_fen: int = 0  # the most that a purse may hold, at this terminal
    loads: dict[int, PurseLoad] = field(default_factory=dict)  # the batch's, by entry number
    load_moves: list[LoadMove] = field(default_factory=list)
    local_date: date = field(init=False)  # of `now`, in Shanghai

    def __post_init__(self) -> None:
        """Take the local date once for all requests of a batch."""
        self.local_date = self.now.astimezone(SHANGHAI).date()


CUSTOMER_CODE = {AccountKind.ONLINE: 2001, AccountKind.MEDICAL: 2003}
MERCHANT_PAYABLE = 2101
SUSPENSE = 2201
PURCHASES = frozenset({int(Kind.PURCHASE)})
_REFUNDABLE = frozenset(map(int, (Kind.PURCHASE, Kind.COMPLETION, Kind.COMPLETION_ADVICE)))


def card_refusal(facts: Facts) -> Decline | None:
    """Why this card may not be used for an online payment now, if so."""
    card = facts.card
    if card is None:
        return Decline.CARD_UNKNOWN
    status = card.status
    if status == _READY:
        return Decline.CARD_NOT_ACTIVE
    if status in _RESTRICTED:
        return Decline.CARD_RESTRICTED
    if (
        card.lost_at is not None
        and facts.now >= card.lost_at
        and (card.loss_lapses_at is None or facts.now < card.loss_lapses_at)
    ):
        return Decline.CARD_LOST
    if status == _EXPIRED or facts.local_date > card.valid_through:
        return Decline.CARD_EXPIRED
    return None


def pin_refusal(account: Account, facts: Facts, *, required: bool) -> Decline | None:
    """Check the PIN and count: a wrong one is remembered in the account, a right one forgets the wrong ones."""
    if account.pin_verifier is None:
        return Decline.PIN_UNREADABLE if facts.pin_unreadable else None
    if account.pin_failures >= PIN_FAILURES_MAX and (
        required or facts.pin is not None or facts.pin_unreadable
    ):
        return Decline.PIN_BLOCKED
    if facts.pin_unreadable:
        return Decline.PIN_UNREADABLE
    if facts.pin is None:
        return Decline.PIN_WRONG if required else None
    if facts.pin != account.pin_verifier:
        account.pin_failures += 1
        account.changed = True
        return Decline.PIN_WRONG
    if account.pin_failures:
        account.pin_failures = 0
        account.changed = True
    return None


def account_refusal(kind: AccountKind, account: Account | None) -> Decline | None:
    """Why this account cannot be asked at all, if so."""
    if kind == AccountKind.BANK:
        return Decline.NO_ROUTE
    if kind == AccountKind.PURSE:
        return Decline.NOT_SUPPORTED
    if account is None:
        return Decline.ACCOUNT_NOT_PERMITTED
    return Decline.CARD_RESTRICTED if account.frozen else None


def purchase(request: Purchase, facts: Facts) -> Ruling:
    """消費: amount, card, account, PIN, funds, in this order."""
    account = facts.account
    decline = (
        (Decline.AMOUNT_INVALID if request.amount_fen == 0 else None)
        or card_refusal(facts)
        or account_refusal(request.account, account)
    )
    if decline is not None:
        return Ruling(decline)
    assert account is not None
    decline = pin_refusal(account, facts, required=request.amount_fen > facts.no_pin_limit_fen)
    if decline is None and account.balance_fen - account.held_fen < request.amount_fen:
        decline = Decline.FUNDS_INSUFFICIENT
    if decline is None and account.limited_from is not None:
        decline = limit_refusal(account, request, facts)
    if decline is not None:
        return Ruling(decline)
    if account.limited_from is not None:
        count(account, facts.today, request.amount_fen, facts)
    movement = take(account, request.account, request.amount_fen, facts)
    return Ruling(movement=movement, effect_fen=request.amount_fen)


def limit_refusal(account: Account, request: Purchase | PreAuthorisation, facts: Facts) -> Decline | None:
    """Which limit of the account's kind and the card's class this would break, if any."""
    return share_limit_refusal(account, request.account, request.card, request.amount_fen, facts)


def share_limit_refusal(
    account: Account, kind: AccountKind, card: CardNumber, fen: int, facts: Facts
) -> Decline | None:
    """The same for an amount that is not the whole request's."""
    if account.limited_from is None or facts.today < account.limited_from:
        return None
    rule = rule_for(facts.limit_rules, int(kind), product_of(card.reveal()), facts.today)
    return refusal(_window(account, facts), rule, fen)


def count(account: Account | None, day: date, fen: int, facts: Facts, times: int = 1) -> None:
    """Count what was spent on a business day; times -1 gives it back. Nothing where no limits are, or before there were any.

    What a host decided was never counted here.
    """
    if (
        facts.leg is None
        and account is not None
        and account.limited_from is not None
        and day >= account.limited_from
    ):
        _window(account, facts).count(day, fen * times, times)


def _window(account: Account, facts: Facts) -> Window:
    window = facts.windows.get(account.account_id)
    if window is None:
        window = facts.windows[account.account_id] = Window(account.account_id, facts.today)
    window.roll(facts.today)
    return window


def take(account: Account, kind: AccountKind, amount_fen: int, facts: Facts) -> Movement:
    """Money from a holder to the merchant; the caller has seen that it is there."""
    account.balance_fen -= amount_fen
    account.changed = True
    customer = (CUSTOMER_CODE[kind], account.account_id)
    return Movement(customer, (MERCHANT_PAYABLE, facts.merchant_no), amount_fen)


def balance(request: Balance, facts: Facts) -> Ruling:
    """餘額查詢: an account with a PIN shows itself only to who knows it."""
    decline = card_refusal(facts) or account_refusal(request.account, facts.account)
    if decline is not None:
        return Ruling(decline)
    account = facts.account
    assert account is not None
    decline = pin_refusal(account, facts, required=True)
    if decline is not None:
        return Ruling(decline)
    kind = int(request.account)
    ledger, available = Fen(account.balance_fen), Fen(account.available_fen)
    return Ruling(balances=(BalanceFigure(kind, 1, ledger), BalanceFigure(kind, 2, available)), auth_code="")


def same_holder(original: Entry, card: CardNumber, facts: Facts) -> bool:
    """Whether an original is of the holder whose card came now; a card that is not ours has no holder but itself."""
    if original.account_id is None:
        return original.pan == card.reveal()
    return original.account_id // 100 == facts.holder_id


def is_cancelled(facts: Facts) -> bool:
    """Whether the card that came is cancelled."""
    return facts.card is not None and facts.card.status == CardStatus.CANCELLED


def pay_back(kind: AccountKind, amount_fen: int, facts: Facts) -> Movement:
    """Money back to the account that paid; of a cancelled card to suspense, where its holder can claim it."""
    leg = facts.leg
    if leg is not None:
        return Movement((MERCHANT_PAYABLE, facts.merchant_no), (leg.debit_code, leg.debit_owner), amount_fen)
    return pay_back_to(facts.account, kind, amount_fen, facts)


def pay_back_to(account: Account | None, kind: AccountKind, amount_fen: int, facts: Facts) -> Movement:
    """The same where the account is not the request's own."""
    if account is None or is_cancelled(facts):
        customer = (SUSPENSE, 0)
    else:
        account.balance_fen += amount_fen
        account.changed = True
        customer = (CUSTOMER_CODE[kind], account.account_id)
    return Movement((MERCHANT_PAYABLE, facts.merchant_no), customer, amount_fen)


def give_back(request: Void | Refund | CompletionVoid, original: Entry, facts: Facts) -> Ruling:
    """Give back what a request says of what its original took."""
    movement = pay_back(request.account, request.amount_fen, facts)
    original.used = True
    tells = told_back(facts.leg, request.amount_fen) if facts.leg is not None else ()
    return Ruling(
        movement=movement, effect_fen=-request.amount_fen, original=original, auth_code="", tells=tells
    )


def void_refusal(
    request: Void | CompletionVoid, facts: Facts, open_batch_no: int, kinds: Collection[int]
) -> Decline | None:
    """Why the original may not be voided, if so: it must be the whole of one of these kinds, of the same open batch and terminal."""
    if request.account == AccountKind.PURSE:
        return Decline.NOT_APPLICABLE
    original = facts.original
    if original is None:
        return Decline.ORIGINAL_UNKNOWN
    if request.original.batch_no != open_batch_no:
        return Decline.NOT_APPLICABLE
    if not same_holder(original, request.card, facts) or original.rrn != request.rrn:
        return Decline.ORIGINAL_UNKNOWN
    if (
        original.kind not in kinds
        or original.answer != "00"
        or original.account_id != _account_id(request, facts)
    ):
        return Decline.NOT_APPLICABLE
    if request.auth_code and request.auth_code != original.auth_code:
        return Decline.ORIGINAL_UNKNOWN
    if original.undone_by is not None or original.refunded_fen:
        return Decline.NOT_APPLICABLE
    return Decline.ORIGINAL_AMOUNT if request.amount_fen != original.amount_fen else None


def void(request: Void, facts: Facts, open_batch_no: int) -> Ruling:
    """撤銷: the whole of an approved purchase of the same open batch and terminal, once."""
    decline = void_refusal(request, facts, open_batch_no, PURCHASES)
    if decline is not None:
        return Ruling(decline)
    original = facts.original
    assert original is not None
    ruling = give_back(request, original, facts)
    original.undone_by = facts.serial
    ruling.auth_code = original.auth_code
    count(facts.account, original.business_date, original.amount_fen, facts, times=-1)
    return ruling


def refund_refusal(request: Refund, facts: Facts) -> Decline | None:
    """Why so much may not be given back of the original, if so."""
    if request.amount_fen == 0:
        return Decline.AMOUNT_INVALID
    if request.account == AccountKind.PURSE:
        return Decline.NOT_APPLICABLE
    original = facts.original
    if original is None or not same_holder(original, request.card, facts) or original.rrn != request.rrn:
        return Decline.ORIGINAL_UNKNOWN
    if original.kind not in _REFUNDABLE or original.answer != "00" or original.undone_by is not None:
        return Decline.NOT_APPLICABLE
    if original.account_id != _account_id(request, facts):
        return Decline.NOT_APPLICABLE  # never across accounts
    if original.refunded_fen + request.amount_fen > original.amount_fen:
        return Decline.ORIGINAL_AMOUNT
    return None


def refund(request: Refund, facts: Facts) -> Ruling:
    """退貨: any part of an approved purchase of any batch, until nothing of it is left."""
    decline = refund_refusal(request, facts)
    if decline is not None:
        return Ruling(decline)
    original = facts.original
    assert original is not None
    ruling = give_back(request, original, facts)
    original.refunded_fen += request.amount_fen
    return ruling


Undo = Callable[[Reversal, Entry, Facts], Ruling]


def reversal(request: Reversal, facts: Facts, by: Undo | None = None) -> Ruling:
    """沖正: undo what the same key booked, if it still can be undone. by: how, where the original is no purchase or void.

    An unknown original is answered 25; the stored 25 is the tombstone that refuses the original should it come late.
    """
    original = facts.original
    if original is None:
        return Ruling(Decline.ORIGINAL_UNKNOWN)
    ruling = undo_refusal(request, original, facts) or (by or undo)(request, original, facts)
    ruling.rrn = original.rrn
    ruling.auth_code = ""
    ruling.original = original
    return ruling


def undo_refusal(request: Reversal, original: Entry, facts: Facts) -> Ruling | None:
    """The answer to a reversal that undoes nothing, whatever its original was; None for the others."""
    if original.pan is not None and original.pan != request.card.reveal():
        return Ruling(Decline.NOT_APPLICABLE)
    if original.answer != MALFORMED and original.amount_fen != request.amount_fen:
        return Ruling(Decline.ORIGINAL_AMOUNT)
    if original.answer != "00":
        return Ruling()  # declined: nothing to undo, and that is what was wished
    if original.kind != request.of:
        return Ruling(Decline.NOT_APPLICABLE)
    # A load names its source in the place of the account; what it moved is kept with it.
    fits = (
        same_holder(original, request.card, facts)
        if original.kind == Kind.LOAD
        else original.account_id == _account_id(request, facts)
    )
    return None if fits else Ruling(Decline.NOT_APPLICABLE)


def undo(request: Reversal, original: Entry, facts: Facts) -> Ruling:
    """Undo a purchase or a void."""
    if original.kind not in (Kind.PURCHASE, Kind.VOID):
        return Ruling(Decline.NOT_APPLICABLE)
    if facts.original_batch_closed or original.undone_by is not None or original.refunded_fen:
        return Ruling(Decline.NOT_APPLICABLE)
    tells: tuple[Tell, ...] = ()
    if original.kind == Kind.PURCHASE:
        movement = pay_back(request.account, original.amount_fen, facts)
        if facts.leg is not None:
            tells = told_back(facts.leg, original.amount_fen, request.reason)
        count(facts.account, original.business_date, original.amount_fen, facts, times=-1)
    else:
        account, voided = facts.account, voided_entry(original, facts)
        if facts.leg is not None:  # its host has been told, and takes no void back
            return Ruling(Decline.NOT_APPLICABLE)
        if account is None or voided is None or account.available_fen < original.amount_fen:
            return Ruling(Decline.NOT_APPLICABLE)
        voided.undone_by = None
        voided.used = True
        count(account, voided.business_date, original.amount_fen, facts)  # it was spent once: not refused now
        movement = take(account, request.account, original.amount_fen, facts)
    original.undone_by = facts.serial
    original.used = True
    return Ruling(movement=movement, effect_fen=-original.effect_fen, tells=tells)


def voided_entry(void: Entry, facts: Facts) -> Entry | None:
    """What a void undid, if it may count again. None when it lives again some other way, or the card is cancelled."""
    if is_cancelled(facts) or void.original_entry is None:
        return None
    voided = facts.entry_of(void.original_entry)
    return voided if voided is not None and voided.undone_by == void.entry_no else None


def _account_id(request: Void | Refund | Reversal | CompletionVoid, facts: Facts) -> int | None:
    """The account that a request names; None for a card that is not ours."""
    return facts.holder_id * 100 + int(request.account) if facts.holder_id else None
