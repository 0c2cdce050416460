"""Loads 圈存 and 充值 as pure functions: the money of agents, banks and online accounts into purses and online accounts.

A purse load is decided in two parts. `check` is everything before the source is asked; `authorise` is what follows when it pays. A
source that lies with a host is asked in between.

What proves what. A card's counter moves on with each credit, and MAC1 is over the counter. So a card that comes with the counter of an
open load was not credited by it, and one that comes with a higher one was: each contact settles whatever was open. A new
approval for the counter of an old one is therefore safe: MAC2 is bound to the random number of one INITIALIZE, and the card that made another has
dropped the first. An INITIALIZE that was approved once is good for nothing else (34), since it proves nothing about what came after it.
"""

from collections.abc import Iterable

from switch.domain.decisions import Decline
from switch.domain.money import FIELD4_MAX
from switch.domain.transactions import AccountKind, Kind, Load, LoadConfirm, LoadSource, Reversal
from switch.ledger import rules
from switch.ledger.leg_state import Tell, told_back
from switch.ledger.load_states import (
    CREDITED,
    OPEN,
    PURSE_FLOAT,
    SOURCE_NO,
    Held,
    LoadMove,
    LoadState,
    Payer,
    PurseLoad,
    Reason,
)
from switch.ledger.rules import SUSPENSE, Entry, Facts, Movement, Ruling

AGENTS_RECEIVABLE, BANKS_RECEIVABLE, ONLINE_ACCOUNTS = 1002, 1101, 2001
ATC_MAX = 0xFFFE  # a card whose counter stands at FFFF does not INITIALIZE any more
_HELD = {
    LoadState.AUTHORISED: Held.FLOAT,
    LoadState.CONFIRMED: Held.FLOAT,
    LoadState.LOADED: Held.FLOAT,
    LoadState.REVERSED: Held.SOURCE,
    LoadState.RETURNED: Held.SOURCE,
}
HOSTED = frozenset({LoadSource.BOUND_BANK, LoadSource.OTHER_BANK})


def load(request: Load, facts: Facts) -> Ruling:
    """A load from a source that the ledger itself holds."""
    if request.source in HOSTED:
        return Ruling(Decline.AMOUNT_INVALID if request.amount_fen == 0 else Decline.NO_ROUTE)
    if request.purse is None:
        decline = top_up_refusal(request, facts)
        return Ruling(decline) if decline is not None else top_up(request, facts, _own_payer(request, facts))
    decline = check(request, facts)
    if decline is not None:
        return Ruling(decline)
    return authorise(request, facts, _own_payer(request, facts))


def _own_payer(request: Load, facts: Facts) -> Payer:
    if request.source is LoadSource.CASH:
        assert facts.loading is not None
        return Payer(AGENTS_RECEIVABLE, facts.loading.agent)
    return Payer(ONLINE_ACCOUNTS, facts.holder_id * 100 + int(AccountKind.ONLINE))


def _request_refusal(request: Load, facts: Facts) -> Decline | None:
    """Amount, terminal, card, in this order."""
    if request.amount_fen == 0:
        return Decline.AMOUNT_INVALID
    takes_cash = facts.loading is not None and facts.loading.takes_cash
    if request.source is LoadSource.CASH and not takes_cash:
        return Decline.TERMINAL_NO_CASH
    return rules.card_refusal(facts)


# ---------------------------------------------------------------------- 充值 to the online account


def top_up_refusal(request: Load, facts: Facts) -> Decline | None:
    """Why the online account may not be loaded, if so. No PIN of ours: whoever pays in takes nothing."""
    decline = _request_refusal(request, facts) or rules.account_refusal(AccountKind.ONLINE, facts.account)
    account = facts.account
    if decline is None:
        assert account is not None
        if account.balance_fen + request.amount_fen > FIELD4_MAX:  # a balance that no answer could show
            decline = Decline.LIMIT_AMOUNT
    return decline


def top_up(request: Load, facts: Facts, payer: Payer) -> Ruling:
    """充值 of the online account, after `top_up_refusal` or when a bank has paid: then only an account that is gone is in its way."""
    account = facts.account
    if account is None or account.balance_fen + request.amount_fen > FIELD4_MAX:
        return Ruling(Decline.ACCOUNT_NOT_PERMITTED)
    account.balance_fen += request.amount_fen
    account.changed = True
    return Ruling(movement=Movement(payer, (ONLINE_ACCOUNTS, account.account_id), request.amount_fen))


def _undo_top_up(request: Reversal, original: Entry, facts: Facts) -> Ruling:
    """Only while the money is there: what the holder has spent meanwhile cannot be handed back at the counter."""
    account, leg = facts.account, facts.leg
    if (
        facts.original_batch_closed
        or account is None
        or facts.loading is None
        or rules.is_cancelled(facts)
        or account.available_fen < original.amount_fen
    ):
        return Ruling(Decline.NOT_APPLICABLE)
    account.balance_fen -= original.amount_fen
    account.changed = True
    payer, taker = (ONLINE_ACCOUNTS, account.account_id), (AGENTS_RECEIVABLE, facts.loading.agent)
    tells: tuple[Tell, ...] = ()
    if leg is not None:
        taker, tells = (leg.debit_code, leg.debit_owner), told_back(leg, leg.amount_fen, request.reason)
    return Ruling(movement=Movement(payer, taker, original.amount_fen), tells=tells)


# ---------------------------------------------------------------------- 圈存 to the purse


def check(request: Load, facts: Facts) -> Decline | None:
    """Everything before the source pays: amount, terminal, card, purse, source account, ceiling, MAC1, counter.

    To be called once for a request, since it settles what the card's contact proves, whatever becomes of this load. MAC1 comes before the
    counter, because a counter that nothing proves says nothing.
    """
    data, purse = request.purse, facts.purse
    assert data is not None
    decline = _request_refusal(request, facts)
    if decline is None and purse is None:
        decline = Decline.ACCOUNT_NOT_PERMITTED
    if decline is None and request.source is LoadSource.ONLINE:
        decline = rules.account_refusal(AccountKind.ONLINE, facts.account)
    if decline is None and data.balance_fen + request.amount_fen > facts.purse_max_fen:
        decline = Decline.LIMIT_AMOUNT
    if decline is None and (
        facts.loading is None or not facts.loading.card_proven or data.online_atc > ATC_MAX
    ):
        decline = Decline.CARD_UNPROVEN
    if decline is not None:
        return decline
    assert purse is not None
    mine = [one for one in facts.loads.values() if one.card_no == purse.card_no]
    if data.online_atc < purse.online_atc or any(
        one.online_atc == data.online_atc and one.card_random == data.card_random for one in mine
    ):
        return Decline.LOAD_REPLAYED
    _settle_by_contact(mine, data.online_atc, facts)
    return None


def authorise(request: Load, facts: Facts, payer: Payer) -> Ruling:
    """The source pays: its PIN and funds where it is an account, then MAC2, the posting and the row of the load.

    payer: who is debited. After `check`, or later, when a host has approved; then the card may have been loaded elsewhere meanwhile (34).
    """
    data, purse = request.purse, facts.purse
    assert data is not None
    assert purse is not None
    assert facts.loading is not None
    used = any(
        one.card_no == purse.card_no
        and one.online_atc == data.online_atc
        and one.state in (*CREDITED, LoadState.AUTHORISED)
        for one in facts.loads.values()
    )
    if used or data.online_atc < purse.online_atc:
        return Ruling(Decline.LOAD_REPLAYED)
    decline = _account_refusal(request, facts) if payer.code == ONLINE_ACCOUNTS else None
    if decline is not None:
        return Ruling(decline)
    field55 = facts.loading.credit(facts.now)
    if field55 is None:
        return Ruling(Decline.CARD_UNPROVEN)
    if payer.code == ONLINE_ACCOUNTS:
        assert facts.account is not None
        facts.account.balance_fen -= request.amount_fen
        facts.account.changed = True
    made = PurseLoad(
        facts.serial,
        facts.today,
        purse.card_no,
        data.online_atc,
        data.terminal_no.hex().upper(),
        data.issuer_id,
        data.key_version,
        data.algorithm_id,
        data.key_index,
        data.card_random,
        request.amount_fen,
        data.balance_fen,
        facts.now,
        SOURCE_NO[request.source],
        payer.code,
        payer.owner,
        LoadState.AUTHORISED,
        Reason.REQUEST,
        Held.FLOAT,
        changed=True,
    )
    facts.loads[facts.serial] = made
    purse.loaded_fen += request.amount_fen
    purse.online_atc = data.online_atc
    purse.changed = True
    _note(made, 0, Reason.REQUEST, tuple(payer), (PURSE_FLOAT, purse.card_no), facts)
    return Ruling(field55=field55)


def _account_refusal(request: Load, facts: Facts) -> Decline | None:
    """PIN and funds of the online account. Limits do not count it: it spends nothing, it moves to the holder's own purse."""
    account = facts.account
    assert account is not None
    decline = rules.pin_refusal(account, facts, required=request.amount_fen > facts.no_pin_limit_fen)
    if decline is None and account.available_fen < request.amount_fen:
        decline = Decline.FUNDS_INSUFFICIENT
    return decline


def _settle_by_contact(mine: Iterable[PurseLoad], online_atc: int, facts: Facts) -> None:
    """Settle the card's loads by the counter with which it has come.

    What people declared loaded is held against the card too. Of several with the same lower counter one was credited: the one with a good TAC, else the one that was not given up, else the last.
    """
    by_counter: dict[int, list[PurseLoad]] = {}
    for one in mine:
        by_counter.setdefault(one.online_atc, []).append(one)
    for counter, group in by_counter.items():
        # By the instant: numbers of another process may be smaller and yet later.
        group.sort(
            key=lambda one: (one.proven, one.state in OPEN, one.authorised_at, one.entry_no), reverse=True
        )
        if counter < online_atc and not any(one.state in CREDITED for one in group):
            move(group.pop(0), LoadState.LOADED, Reason.CARD_AHEAD, facts)
        for one in group:
            # By people. Of one that the card's counter proved, the counter stands behind the card.
            declared = one.state == LoadState.LOADED and one.reason != Reason.CARD_AHEAD
            if one.state in OPEN or (declared and counter == online_atc):
                back = LoadState.REVERSED if one.state == LoadState.AUTHORISED else LoadState.RETURNED
                move(one, back, Reason.CARD_UNMOVED, facts)


def confirm(request: LoadConfirm, facts: Facts) -> Ruling:
    """圈存確認: 25 unknown, 64 another amount, 12 declined; else always 00, for the terminal has told all it knows."""
    original = facts.original
    if (
        original is None
        or not rules.same_holder(original, request.card, facts)
        or original.pan != request.card.reveal()
        or original.rrn != request.rrn
    ):
        return Ruling(Decline.ORIGINAL_UNKNOWN)
    if original.amount_fen != request.amount_fen:
        return Ruling(Decline.ORIGINAL_AMOUNT)
    if original.kind != Kind.LOAD or original.answer != "00":
        return Ruling(Decline.NOT_APPLICABLE)
    of_load = facts.loads.get(original.entry_no)
    if (of_load is None) != (request.purse is None):
        return Ruling(Decline.NOT_APPLICABLE)
    ruling = Ruling(original=original, rrn=original.rrn, auth_code="")
    if of_load is None or request.purse is None:
        return ruling  # an online account has nothing to confirm
    if of_load.source != SOURCE_NO[request.source]:
        return Ruling(Decline.NOT_APPLICABLE)
    if request.purse.online_atc != of_load.online_atc:
        return Ruling(Decline.ORIGINAL_UNKNOWN)
    gone = request.purse.tac is None
    good = not gone and facts.loading is not None and facts.loading.tac_holds(of_load)
    _confirm(of_load, facts, gone=gone, good=good)
    return ruling


def _confirm(one: PurseLoad, facts: Facts, *, gone: bool, good: bool) -> None:
    if one.held == Held.SOURCE:  # the money has gone back
        another = any(
            other.card_no == one.card_no and other.online_atc == one.online_atc and other.state in CREDITED
            for other in facts.loads.values()
            if other is not one
        )
        to = LoadState(one.state) if another else LoadState.SUSPENSE
        one.proven = one.proven or good
        move(one, to, Reason.CONFIRM_AFTER_RETURN, facts)
    elif good:
        if one.state != LoadState.CONFIRMED:
            move(one, LoadState.CONFIRMED, Reason.CONFIRM, facts)
    elif not gone:
        to = LoadState(one.state) if one.state in CREDITED else LoadState.SUSPENSE
        move(one, to, Reason.TAC_WRONG, facts)
    elif one.state in OPEN:
        move(one, LoadState.SUSPENSE, Reason.CARD_GONE, facts)


def undo(request: Reversal, original: Entry, facts: Facts) -> Ruling:
    """沖正 of a load. 12 when it is confirmed or its batch closed, or when only the card can say whether it was credited.

    A terminal's word is taken while it is its first: after "the card is gone" or a wrong TAC, CREDIT was sent.
    """
    one = facts.loads.get(original.entry_no)
    if one is None:
        return _undo_top_up(request, original, facts)
    if one.state in (LoadState.REVERSED, LoadState.RETURNED):
        return Ruling()  # the card has come and proved it: nothing is left to undo
    if one.state in CREDITED or facts.original_batch_closed:
        return Ruling(Decline.NOT_APPLICABLE)
    if one.state == LoadState.SUSPENSE and one.reason != Reason.NO_WORD:
        return Ruling(Decline.NOT_APPLICABLE)
    seen = request.purse
    if seen is not None and (seen.asn[1:] != request.card.reveal() or seen.online_atc != one.online_atc):
        move(one, LoadState.SUSPENSE, Reason.REVERSAL_CONTRADICTED, facts)
        return Ruling(Decline.NOT_APPLICABLE)
    back = LoadState.REVERSED if one.state == LoadState.AUTHORISED else LoadState.RETURNED
    move(one, back, Reason.REVERSAL, facts)
    return Ruling()


# ---------------------------------------------------------------------- moves


def move(one: PurseLoad, to: LoadState, reason: Reason, facts: Facts, note: str = "") -> None:
    """Bring a load into a state and its money where that state has it. A move to the same state is a note of what was seen."""
    before, held = one.state, one.held
    at = _HELD.get(to)
    if at is None:  # what came back to its source stays there until it is known
        at = Held.SOURCE if held == Held.SOURCE else Held.SUSPENSE
    debit = credit = (0, 0)
    if at != held:
        debit, credit = _out_of(one, facts), _into(one, at, facts)
        one.claimed = held == Held.SOURCE and debit == (SUSPENSE, 0)
    one.state, one.held, one.reason = to, at, reason
    one.changed = True
    purse = facts.purse
    # What people declare is no proof, nor is a wrong TAC: the card may still come with this counter.
    proof = reason in (Reason.CONFIRM, Reason.CARD_AHEAD)
    if proof and purse is not None and purse.online_atc <= one.online_atc:
        purse.online_atc = one.online_atc + 1
        purse.changed = True
    _note(one, before, reason, debit, credit, facts, note)


def _note(
    one: PurseLoad,
    before: int,
    reason: Reason,
    debit: tuple[int, ...],
    credit: tuple[int, ...],
    facts: Facts,
    note: str = "",
) -> None:
    line = sum(1 for moved in facts.load_moves if moved.entry_no == facts.serial)
    facts.load_moves.append(
        LoadMove(
            one,
            facts.serial,
            line,
            before,
            one.state,
            reason,
            (debit[0], debit[1]),
            (credit[0], credit[1]),
            note,
        )
    )


def _out_of(one: PurseLoad, facts: Facts) -> tuple[int, int]:
    """Where the money is taken from."""
    if one.held == Held.FLOAT:
        return _float(one, -one.amount_fen, facts)
    if one.held == Held.SUSPENSE:
        return SUSPENSE, 0
    if one.debit_code == BANKS_RECEIVABLE:
        return (
            SUSPENSE,
            0,
        )  # the bank has been told that it gets its money back: what it owes again is a claim, for people to make
    if one.debit_code != ONLINE_ACCOUNTS:
        return one.debit_code, one.debit_owner
    # It came back and may have been spent since. What the account cannot pay is a claim that stands in suspense.
    account = facts.account
    if account is None or rules.is_cancelled(facts) or account.available_fen < one.amount_fen:
        return SUSPENSE, 0
    account.balance_fen -= one.amount_fen
    account.changed = True
    return ONLINE_ACCOUNTS, account.account_id


def _into(one: PurseLoad, at: Held, facts: Facts) -> tuple[int, int]:
    """Where it goes."""
    if at == Held.FLOAT:
        return _float(one, one.amount_fen, facts)
    if at == Held.SUSPENSE or one.claimed:
        return SUSPENSE, 0
    if one.debit_code != ONLINE_ACCOUNTS:
        return one.debit_code, one.debit_owner
    account = facts.account
    if account is None or rules.is_cancelled(facts):
        return SUSPENSE, 0  # where its holder can claim it
    account.balance_fen += one.amount_fen
    account.changed = True
    return ONLINE_ACCOUNTS, account.account_id


def _float(one: PurseLoad, fen: int, facts: Facts) -> tuple[int, int]:
    purse = facts.purse
    assert purse is not None, "a load is moved under the lock on its purse"
    assert purse.card_no == one.card_no
    purse.loaded_fen += fen
    purse.changed = True
    return PURSE_FLOAT, one.card_no
