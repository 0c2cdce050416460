"""Purchases from the medical account under a policy, and what undoes them, as pure functions. Without a policy the rules of rules.py hold.

One entry, of the medical account and of the whole amount, with a posting for each share that is not zero: first the covered one, then the
holder's own. Whatever undoes it undoes both: a void and a reversal the whole, a refund each share's part (medical.py).

The PIN is that of the medical account: the terminal sends one PIN block, and the holder has named this account. The online account gives
its share under that, its own PIN is not asked.
"""

from datetime import date

from switch.domain.decisions import Decline
from switch.domain.transactions import AccountKind, Kind, Purchase, Refund, Reversal, Void
from switch.ledger import rules
from switch.ledger.medical import Shares, Split
from switch.ledger.rules import Account, Entry, Facts, Movement, Ruling

_ONLINE, _MEDICAL = AccountKind.ONLINE, AccountKind.MEDICAL


def purchase(request: Purchase, facts: Facts) -> Ruling:
    """消費: amount, card, account and merchant's category, PIN, shares, online account, funds, limits, in this order."""
    state = facts.medical
    assert state is not None
    if request.account != _MEDICAL or not state.governs(facts.today):
        return rules.purchase(request, facts)
    account = facts.account
    rule = state.rule_for(facts.merchant_no, facts.today)
    decline = (
        (Decline.AMOUNT_INVALID if request.amount_fen == 0 else None)
        or rules.card_refusal(facts)
        or rules.account_refusal(_MEDICAL, account)
        or (Decline.ACCOUNT_NOT_PERMITTED if rule is None else None)
    )
    if decline is not None:
        return Ruling(decline)
    assert account is not None
    assert rule is not None
    decline = rules.pin_refusal(account, facts, required=request.amount_fen > facts.no_pin_limit_fen)
    if decline is not None:
        return Ruling(decline)
    window = state.window(account.account_id, facts.today)
    shares = state.policy(rule, request.amount_fen, window)
    if isinstance(shares, Decline):
        return Ruling(shares)
    assert sum(shares) == request.amount_fen
    assert min(shares) >= 0
    decline = _share_refusal(request, shares, facts)
    if decline is not None:
        return Ruling(decline)
    ruling = _taken(shares, facts.today, facts)
    state.keep(Split(facts.serial, facts.today, account.account_id, rule.policy_no, *shares))
    return ruling


def void(request: Void, facts: Facts, open_batch_no: int) -> Ruling:
    """撤銷: both shares of a divided purchase; any other purchase by the common rule."""
    split = _split_of(facts.original, facts)
    if split is None:
        return rules.void(request, facts, open_batch_no)
    decline = rules.void_refusal(request, facts, open_batch_no, rules.PURCHASES)
    if decline is not None:
        return Ruling(decline)
    original = facts.original
    assert original is not None
    ruling = _returned(split, split.shares, facts, limits_too=True)
    original.undone_by = facts.serial
    return _names(ruling, original, auth_code=original.auth_code)


def refund(request: Refund, facts: Facts) -> Ruling:
    """退貨: of each share its part."""
    split = _split_of(facts.original, facts)
    if split is None:
        return rules.refund(request, facts)
    decline = rules.refund_refusal(request, facts)
    if decline is not None:
        return Ruling(decline)
    original = facts.original
    assert original is not None
    shares = split.returned(original.refunded_fen, request.amount_fen)
    ruling = _returned(split, shares, facts, limits_too=False)
    original.refunded_fen += request.amount_fen
    return _names(ruling, original, auth_code="")


def undo(request: Reversal, original: Entry, facts: Facts) -> Ruling:
    """沖正 of a divided purchase or of its void; of any other by the common rule."""
    split = _split_of(original, facts)
    if split is None:
        return rules.undo(request, original, facts)
    if facts.original_batch_closed or original.undone_by is not None or original.refunded_fen:
        return Ruling(Decline.NOT_APPLICABLE)
    if original.kind == Kind.PURCHASE:
        ruling = _returned(split, split.shares, facts, limits_too=True)
    else:
        voided = rules.voided_entry(original, facts)
        if voided is None or any(
            account is None or account.available_fen < fen for account, _, fen in _legs(split.shares, facts)
        ):
            return Ruling(Decline.NOT_APPLICABLE)
        voided.undone_by = None
        voided.used = True
        ruling = _taken(split.shares, voided.business_date, facts)
    original.undone_by = facts.serial
    original.used = True
    return ruling


# ---------------------------------------------------------------------- shares of the two accounts


def _own_account(facts: Facts) -> Account | None:
    return facts.accounts.get(facts.holder_id * 100 + _ONLINE)


def _legs(shares: Shares, facts: Facts) -> list[tuple[Account | None, AccountKind, int]]:
    """The accounts that give or get something."""
    both = (
        (facts.account, _MEDICAL, shares.covered_fen),
        (_own_account(facts), _ONLINE, shares.own_fen),
    )
    return [leg for leg in both if leg[2]]


def _split_of(original: Entry | None, facts: Facts) -> Split | None:
    """The split of a purchase, or of the purchase that a void undid."""
    assert facts.medical is not None
    if original is None:
        return None
    purchase_no = original.original_entry if original.kind == Kind.VOID else original.entry_no
    return facts.medical.splits.get(purchase_no or 0)


def _share_refusal(request: Purchase, shares: Shares, facts: Facts) -> Decline | None:
    """Why one of the accounts cannot give its share, if so: the account, then funds of either, then limits of either."""
    if shares.own_fen:
        decline = rules.account_refusal(_ONLINE, _own_account(facts))
        if decline is not None:
            return decline
    broken = set()
    for account, kind, fen in _legs(shares, facts):
        assert account is not None
        if account.available_fen < fen:
            return Decline.FUNDS_INSUFFICIENT
        broken.add(rules.share_limit_refusal(account, kind, request.card, fen, facts))
    return next((limit for limit in (Decline.LIMIT_AMOUNT, Decline.LIMIT_COUNT) if limit in broken), None)


def _taken(shares: Shares, day: date, facts: Facts) -> Ruling:
    """Take both shares and count them on a business day; the caller has seen that the money is there."""
    assert facts.medical is not None
    movements = []
    for account, kind, fen in _legs(shares, facts):
        assert account is not None
        rules.count(account, day, fen, facts)
        movements.append(rules.take(account, kind, fen, facts))
    assert facts.account is not None
    facts.medical.window(facts.account.account_id, facts.today).count(day, shares.covered_fen)
    return _ruling(movements, sum(shares))


def _returned(split: Split, shares: Shares, facts: Facts, *, limits_too: bool) -> Ruling:
    """Give shares back; of a cancelled card to suspense, a posting for each. limits_too: the purchase counts no more there either."""
    assert facts.medical is not None
    movements = []
    for account, kind, fen in _legs(shares, facts):
        if limits_too:
            rules.count(account, split.business_date, fen, facts, times=-1)
        movements.append(rules.pay_back_to(account, kind, fen, facts))
    window = facts.medical.window(split.account_id, facts.today)
    window.count(split.business_date, -shares.covered_fen)
    return _ruling(movements, -sum(shares))


def _ruling(movements: list[Movement], effect_fen: int) -> Ruling:
    first, *further = movements
    return Ruling(movement=first, further=further[0] if further else None, effect_fen=effect_fen)


def _names(ruling: Ruling, original: Entry, *, auth_code: str) -> Ruling:
    original.used = True
    ruling.original = original
    ruling.auth_code = auth_code
    return ruling
