"""Pre-authorisation 預授權 and what can follow it, as pure functions. A hold freezes money of the online account for a merchant.

    open --void, completion, reversal--> ended        ended --void or reversal of what ended it--> open
    open --last day over--> ended; only a completion whose void is reversed still takes its place

The merchant has served on the strength of a hold. So a completion within the frozen amount asks the card nothing any more: a loss
reported since does not take the promise back. What exceeds the hold was promised to nobody, and is decided like a purchase.

Undoing a completion or a void freezes again as much of the hold as is there: the answer must not depend on what the holder bought
in between, or a terminal would be left with a completion that it believes undone.
"""

from collections.abc import Iterable
from datetime import datetime

from switch.domain.calendar import end_of_days
from switch.domain.decisions import Decline
from switch.domain.transactions import (
    AccountKind,
    Completion,
    CompletionVoid,
    Kind,
    LoadConfirm,
    PreAuthorisation,
    PreAuthorisationVoid,
    Refund,
    Reversal,
    Void,
)
from switch.ledger import rules
from switch.ledger.rules import Account, Entry, Facts, Hold, Ruling

DAYS = 30
HOLDS_MAX = 100  # open ones of an account: a batch that must look reads them all
COMPLETION_MAX_PERCENT = 115
EXPIRED = 0  # stands for an entry number in ended_by

# What names an original in field 61.
NAMING = (Void, Refund, PreAuthorisationVoid, Completion, CompletionVoid, LoadConfirm)
FAMILY = (PreAuthorisation, PreAuthorisationVoid, Completion, CompletionVoid)
KINDS = frozenset(
    map(
        int,
        (
            Kind.PRE_AUTHORISATION,
            Kind.PRE_AUTHORISATION_VOID,
            Kind.COMPLETION,
            Kind.COMPLETION_VOID,
            Kind.COMPLETION_ADVICE,
        ),
    )
)
COMPLETIONS = frozenset(map(int, (Kind.COMPLETION, Kind.COMPLETION_ADVICE)))
_NEVER_HELD = (AccountKind.MEDICAL, AccountKind.PURSE)


def expiry_of(now: datetime) -> datetime:
    """The first instant at which a hold placed now is no more."""
    return end_of_days(now, DAYS)


# ---------------------------------------------------------------------- the state of an account


def open_of(account: Account, holds: Iterable[Hold]) -> list[Hold]:
    """The account's open holds among those that were read."""
    return [hold for hold in holds if hold.account_id == account.account_id and hold.ended_by is None]


def release_expired(account: Account, holds: Iterable[Hold], now: datetime) -> None:
    """Set free what has expired by now. holds: all open ones of the account are among them."""
    opened = open_of(account, holds)
    for hold in opened:
        if now >= hold.expires_at:
            _end(account, hold, EXPIRED)
    due = min((hold.expires_at for hold in opened if hold.ended_by is None), default=None)
    if due != account.holds_due:
        account.holds_due = due
        account.held_changed = True


def _end(account: Account, hold: Hold, ended_by: int) -> None:
    account.held_fen -= hold.frozen_fen
    account.held_changed = True
    hold.frozen_fen = 0
    hold.ended_by = ended_by
    hold.changed = True


def _freeze(account: Account, hold: Hold) -> None:
    """Freeze as much of a hold as can be spent."""
    hold.frozen_fen = min(hold.amount_fen, account.available_fen)
    hold.ended_by = None
    hold.changed = True
    account.held_fen += hold.frozen_fen
    account.held_changed = True
    due = account.holds_due
    account.holds_due = hold.expires_at if due is None else min(due, hold.expires_at)


def _freeze_again(facts: Facts, hold: Hold) -> None:
    """What ended a hold is undone. It stays ended where its time is over or its account is no more."""
    account = facts.account
    if account is None or rules.is_cancelled(facts):
        hold.ended_by = facts.serial
        hold.changed = True
    elif facts.now >= hold.expires_at:
        hold.ended_by = EXPIRED
        hold.changed = True
    else:
        _freeze(account, hold)


# ---------------------------------------------------------------------- requests


def pre_authorise(request: PreAuthorisation, facts: Facts) -> Ruling:
    """預授權: amount, card, account, PIN, funds, limits, number of holds, in this order."""
    decline = (
        (Decline.AMOUNT_INVALID if request.amount_fen == 0 else None)
        or rules.card_refusal(facts)
        or (Decline.ACCOUNT_NOT_PERMITTED if request.account in _NEVER_HELD else None)
        or rules.account_refusal(request.account, facts.account)
    )
    if decline is not None:
        return Ruling(decline)
    account = facts.account
    assert account is not None
    decline = rules.pin_refusal(account, facts, required=request.amount_fen > facts.no_pin_limit_fen)
    if decline is None and account.available_fen < request.amount_fen:
        decline = Decline.FUNDS_INSUFFICIENT
    if decline is None:
        decline = rules.limit_refusal(account, request, facts)
    if decline is None and len(open_of(account, facts.holds.values())) >= HOLDS_MAX:
        decline = Decline.LIMIT_COUNT
    if decline is not None:
        return Ruling(decline)
    hold = Hold(facts.serial, facts.today, account.account_id, request.amount_fen, 0, expiry_of(facts.now))
    _freeze(account, hold)
    facts.holds[facts.serial] = hold
    rules.count(account, facts.today, request.amount_fen, facts)
    return Ruling()


def void_pre_authorisation(request: PreAuthorisationVoid, facts: Facts) -> Ruling:
    """預授權撤銷: the whole of a hold that is open, of any batch of this terminal."""
    named = _named_hold(request, facts)
    if isinstance(named, Decline):
        return Ruling(named)
    original, hold = named
    if request.amount_fen != hold.amount_fen:
        return Ruling(Decline.ORIGINAL_AMOUNT)
    if facts.account is None:
        return Ruling(Decline.ACCOUNT_NOT_PERMITTED)
    _end(facts.account, hold, facts.serial)
    rules.count(facts.account, hold.business_date, hold.amount_fen, facts, times=-1)
    return Ruling(original=original, auth_code=original.auth_code)


def complete(request: Completion, facts: Facts) -> Ruling:
    """預授權完成: what the service came to is taken, the rest is set free."""
    if request.amount_fen == 0:
        return Ruling(Decline.AMOUNT_INVALID)
    named = _named_hold(request, facts)
    if isinstance(named, Decline):
        return Ruling(named)
    original, hold = named
    decline = rules.account_refusal(request.account, facts.account)
    if decline is None and request.amount_fen * 100 > hold.amount_fen * COMPLETION_MAX_PERCENT:
        decline = Decline.LIMIT_AMOUNT
    if decline is not None:
        return Ruling(decline)
    account = facts.account
    assert account is not None
    excess_fen = request.amount_fen - hold.frozen_fen
    if request.amount_fen > hold.amount_fen:
        decline = rules.card_refusal(facts)
    if decline is None and excess_fen > account.available_fen:
        decline = Decline.FUNDS_INSUFFICIENT
    if decline is not None:
        return Ruling(decline)
    _end(account, hold, facts.serial)
    hold.completed_by = facts.serial
    return _take(account, original, request.amount_fen, facts)


def void_completion(request: CompletionVoid, facts: Facts, open_batch_no: int) -> Ruling:
    """預授權完成撤銷: the whole of a completion of the same open batch, once. The hold stands again."""
    decline = rules.void_refusal(request, facts, open_batch_no, COMPLETIONS)
    if decline is not None:
        return Ruling(decline)
    original = facts.original
    assert original is not None
    ruling = rules.give_back(request, original, facts)
    original.undone_by = facts.serial
    ruling.auth_code = original.auth_code
    hold = facts.holds.get(original.original_entry or 0)
    if hold is not None and hold.ended_by == original.entry_no:
        _freeze_again(facts, hold)
    return ruling


def undo(_request: Reversal, original: Entry, facts: Facts) -> Ruling:
    """沖正 of any of these. A hold is nothing that a batch end settles, so setting one free is never too late."""
    kind = original.kind
    if kind == Kind.PRE_AUTHORISATION:
        return _undo_pre_authorisation(original, facts)
    if kind == Kind.PRE_AUTHORISATION_VOID:
        hold = facts.holds.get(original.original_entry or 0)
        if hold is not None and hold.ended_by == original.entry_no:
            _freeze_again(facts, hold)
            rules.count(facts.account, hold.business_date, hold.amount_fen, facts)
        return Ruling()
    if facts.original_batch_closed or original.undone_by is not None or original.refunded_fen:
        return Ruling(Decline.NOT_APPLICABLE)
    return _undo_completion(original, facts) if kind == Kind.COMPLETION else _undo_void(original, facts)


def _undo_pre_authorisation(original: Entry, facts: Facts) -> Ruling:
    hold = facts.holds.get(original.entry_no)
    if hold is None or hold.ended_by not in (None, EXPIRED):
        return Ruling(Decline.NOT_APPLICABLE)  # voided or completed
    if hold.ended_by is None:
        if facts.account is None:
            return Ruling(Decline.NOT_APPLICABLE)
        _end(facts.account, hold, facts.serial)
    else:  # nothing is frozen any more, but a completion of it must not come to count again
        hold.ended_by = facts.serial
        hold.changed = True
    rules.count(facts.account, hold.business_date, hold.amount_fen, facts, times=-1)
    return Ruling()


def _undo_completion(original: Entry, facts: Facts) -> Ruling:
    movement = rules.pay_back(AccountKind.ONLINE, original.amount_fen, facts)
    original.undone_by = facts.serial
    original.used = True
    hold = facts.holds.get(original.original_entry or 0)
    if hold is not None and hold.ended_by == original.entry_no:
        _freeze_again(facts, hold)
    return Ruling(movement=movement, effect_fen=-original.effect_fen)


def _undo_void(original: Entry, facts: Facts) -> Ruling:
    """The completion counts again. It stays voided (12) when its hold has gone another way or the money is spent.

    That its last day is over by now is no other way: the completion was in time, and nothing but the void's lost answer undid it.
    """
    account, completed = facts.account, original.original_entry
    hold = next((one for one in facts.holds.values() if one.completed_by == completed), None)
    if account is None or hold is None or hold.ended_by not in (None, EXPIRED):
        return Ruling(Decline.NOT_APPLICABLE)
    voided = rules.voided_entry(original, facts)
    if voided is None or original.amount_fen - hold.frozen_fen > account.available_fen:
        return Ruling(Decline.NOT_APPLICABLE)
    assert completed is not None
    _end(account, hold, completed)
    voided.undone_by = None
    voided.used = True
    original.undone_by = facts.serial
    original.used = True
    return _take(account, original, original.amount_fen, facts)


def _take(account: Account, original: Entry, amount_fen: int, facts: Facts) -> Ruling:
    movement = rules.take(account, AccountKind.ONLINE, amount_fen, facts)
    return Ruling(movement=movement, effect_fen=amount_fen, original=original, auth_code=original.auth_code)


def _named_hold(request: PreAuthorisationVoid | Completion, facts: Facts) -> tuple[Entry, Hold] | Decline:
    """The open hold that a request names, or why it may not be used: 25 not there or over, 12 gone another way."""
    original = facts.original
    if original is None or not rules.same_holder(original, request.card, facts):
        return Decline.ORIGINAL_UNKNOWN
    if original.kind != Kind.PRE_AUTHORISATION or original.answer != "00":
        return Decline.NOT_APPLICABLE
    if request.auth_code != original.auth_code:
        return Decline.ORIGINAL_UNKNOWN
    if request.account != AccountKind.ONLINE:
        return Decline.NOT_APPLICABLE  # never across accounts
    hold = facts.holds.get(original.entry_no)
    if hold is None or hold.ended_by == EXPIRED or facts.now >= hold.expires_at:
        return Decline.ORIGINAL_UNKNOWN
    return Decline.NOT_APPLICABLE if hold.ended_by is not None else (original, hold)
