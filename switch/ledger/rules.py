"""Every rule of the online account, as pure functions over the state that a batch has locked and read.

Nothing here waits, reads a clock or touches a table. State objects are changed in place, so that the next request of the same
batch sees what the one before it did.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum
from typing import NamedTuple

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import BalanceFigure, Decline
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, Balance, Kind, Purchase, Refund, Reversal, Void

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
    """A locked account row."""

    account_id: int
    balance_fen: int
    frozen: bool
    pin_verifier: bytes | None
    pin_failures: int
    changed: bool = False


class Card(NamedTuple):
    """A card row, read after the lock on its holder's account."""

    status: int
    valid_from: date
    valid_through: date
    lost_at: datetime | None


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
    effect_fen: int = 0
    original: Entry | None = None
    serial: int = 0  # of the entry, when one was needed to rule
    rrn: str = ""  # to answer with instead of a new one
    auth_code: str | None = None  # None: a new one when approved
    balances: tuple[BalanceFigure, ...] = ()


@dataclass(slots=True)
class Facts:
    """What one request is decided by. A batch keeps one of these and fills it in for each of its requests."""

    now: datetime  # the batch's one instant, by the database's clock
    serial: int = 0
    merchant_no: int = 0
    card: Card | None = None
    account: Account | None = None
    holder_id: int = 0
    original: Entry | None = None
    original_batch_closed: bool = False
    pin: bytes | None = None  # keyed verifier of the PIN that came, never the PIN
    pin_unreadable: bool = False
    no_pin_limit_fen: int = 0
    entry_of: Callable[[int], "Entry | None"] = field(default=lambda _entry_no: None)
    local_date: date = field(init=False)  # of `now`, in Shanghai

    def __post_init__(self) -> None:
        """Take the local date once for all requests of a batch."""
        self.local_date = self.now.astimezone(SHANGHAI).date()


CUSTOMER_CODE = {AccountKind.ONLINE: 2001, AccountKind.MEDICAL: 2003}
MERCHANT_PAYABLE = 2101
SUSPENSE = 2201


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
    if card.lost_at is not None and facts.now >= card.lost_at:
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
    if decline is None and account.balance_fen < request.amount_fen:
        decline = Decline.FUNDS_INSUFFICIENT
    if decline is not None:
        return Ruling(decline)
    account.balance_fen -= request.amount_fen
    account.changed = True
    customer = (CUSTOMER_CODE[request.account], account.account_id)
    movement = Movement(customer, (MERCHANT_PAYABLE, facts.merchant_no), request.amount_fen)
    return Ruling(movement=movement, effect_fen=request.amount_fen)


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
    figures = tuple(BalanceFigure(int(request.account), kind, Fen(account.balance_fen)) for kind in (1, 2))
    return Ruling(balances=figures, auth_code="")


def _same_holder(original: Entry, facts: Facts) -> bool:
    return original.account_id is not None and original.account_id // 100 == facts.holder_id


def _cancelled(facts: Facts) -> bool:
    return facts.card is not None and facts.card.status == CardStatus.CANCELLED


def _pay_back(kind: AccountKind, amount_fen: int, facts: Facts) -> Movement:
    """Money back to the account that paid; of a cancelled card to suspense, where its holder can claim it."""
    account = facts.account
    if account is None or _cancelled(facts):
        customer = (SUSPENSE, 0)
    else:
        account.balance_fen += amount_fen
        account.changed = True
        customer = (CUSTOMER_CODE[kind], account.account_id)
    return Movement((MERCHANT_PAYABLE, facts.merchant_no), customer, amount_fen)


def _give_back(request: Void | Refund, original: Entry, facts: Facts) -> Ruling:
    movement = _pay_back(request.account, request.amount_fen, facts)
    original.used = True
    return Ruling(movement=movement, effect_fen=-request.amount_fen, original=original, auth_code="")


def void(request: Void, facts: Facts, open_batch_no: int) -> Ruling:
    """撤銷: the whole of an approved purchase of the same open batch and terminal, once."""
    if request.account == AccountKind.PURSE:
        return Ruling(Decline.NOT_APPLICABLE)
    original = facts.original
    if original is None:
        return Ruling(Decline.ORIGINAL_UNKNOWN)
    if request.original.batch_no != open_batch_no:
        return Ruling(Decline.NOT_APPLICABLE)
    if not _same_holder(original, facts) or original.rrn != request.rrn:
        return Ruling(Decline.ORIGINAL_UNKNOWN)
    if (
        original.kind != Kind.PURCHASE
        or original.answer != "00"
        or original.account_id != _account_id(request, facts)
    ):
        return Ruling(Decline.NOT_APPLICABLE)
    if request.auth_code and request.auth_code != original.auth_code:
        return Ruling(Decline.ORIGINAL_UNKNOWN)
    if original.undone_by is not None or original.refunded_fen:
        return Ruling(Decline.NOT_APPLICABLE)
    if request.amount_fen != original.amount_fen:
        return Ruling(Decline.ORIGINAL_AMOUNT)
    ruling = _give_back(request, original, facts)
    original.undone_by = facts.serial
    ruling.auth_code = original.auth_code
    return ruling


def refund(request: Refund, facts: Facts) -> Ruling:
    """退貨: any part of an approved purchase of any batch, until nothing of it is left."""
    if request.amount_fen == 0:
        return Ruling(Decline.AMOUNT_INVALID)
    if request.account == AccountKind.PURSE:
        return Ruling(Decline.NOT_APPLICABLE)
    original = facts.original
    if original is None or not _same_holder(original, facts) or original.rrn != request.rrn:
        return Ruling(Decline.ORIGINAL_UNKNOWN)
    if (
        original.kind not in (Kind.PURCHASE, Kind.COMPLETION)
        or original.answer != "00"
        or original.undone_by is not None
    ):
        return Ruling(Decline.NOT_APPLICABLE)
    if original.account_id != _account_id(request, facts):
        return Ruling(Decline.NOT_APPLICABLE)  # never across accounts
    if original.refunded_fen + request.amount_fen > original.amount_fen:
        return Ruling(Decline.ORIGINAL_AMOUNT)
    ruling = _give_back(request, original, facts)
    original.refunded_fen += request.amount_fen
    return ruling


def reversal(request: Reversal, facts: Facts) -> Ruling:
    """沖正: undo what the same key booked, if it still can be undone.

    An unknown original is answered 25; the stored 25 is the tombstone that refuses the original should it come late.
    """
    original = facts.original
    if original is None:
        return Ruling(Decline.ORIGINAL_UNKNOWN)
    ruling = _undo(request, original, facts)
    ruling.rrn = original.rrn
    ruling.auth_code = ""
    ruling.original = original
    return ruling


def _undo(request: Reversal, original: Entry, facts: Facts) -> Ruling:
    if original.pan is not None and original.pan != request.card.reveal():
        return Ruling(Decline.NOT_APPLICABLE)
    if original.amount_fen != request.amount_fen:
        return Ruling(Decline.ORIGINAL_AMOUNT)
    if original.answer != "00":
        return Ruling()  # declined: nothing to undo, and that is what was wished
    if original.kind != request.of or original.kind not in (Kind.PURCHASE, Kind.VOID):
        return Ruling(Decline.NOT_APPLICABLE)
    if facts.original_batch_closed or original.undone_by is not None or original.refunded_fen:
        return Ruling(Decline.NOT_APPLICABLE)
    if original.account_id != _account_id(request, facts):
        return Ruling(Decline.NOT_APPLICABLE)
    if original.kind == Kind.PURCHASE:
        movement = _pay_back(request.account, original.amount_fen, facts)
    else:
        again = _debit_again(request, original, facts)
        if again is None:
            return Ruling(Decline.NOT_APPLICABLE)
        movement = again
    original.undone_by = facts.serial
    original.used = True
    return Ruling(movement=movement, effect_fen=-original.effect_fen)


def _debit_again(request: Reversal, original: Entry, facts: Facts) -> Movement | None:
    """Undo a void. None when it stands: its purchase lives again some other way, or the holder has spent the money."""
    account = facts.account
    voided = facts.entry_of(original.original_entry) if original.original_entry is not None else None
    if account is None or _cancelled(facts) or account.balance_fen < original.amount_fen:
        return None
    if voided is None or voided.undone_by != original.entry_no:
        return None
    voided.undone_by = None
    voided.used = True
    account.balance_fen -= original.amount_fen
    account.changed = True
    customer = (CUSTOMER_CODE[request.account], account.account_id)
    return Movement(customer, (MERCHANT_PAYABLE, facts.merchant_no), original.amount_fen)


def _account_id(request: Void | Refund | Reversal, facts: Facts) -> int:
    return facts.holder_id * 100 + int(request.account)
