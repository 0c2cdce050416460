"""Transactions that another institution's host decides, as pure functions. A leg is what of one lies with the host.

    ASKED --host approves--> APPROVED      --reversal, void, refund--> told to the host from the outbox
          --host declines--> DECLINED
          --not sent-------> NOT_SENT
          --nobody knows, or the terminal reverses before the answer--> UNKNOWN, and a reversal in the outbox
    STOOD_IN from the start: approved in the host's place, and an advice in the outbox

The intent is committed before a byte leaves, so whatever dies afterwards, somebody finds the leg and ends it. Whoever ends it first
has ended it: a late approval meets an answer that is written, and the reversal that belongs to it.

Everything about a leg comes from the terminal that made it, so the lock on that terminal orders it all (batch.py).
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

from switch.domain.decisions import APPROVED, BalanceFigure, Decline
from switch.domain.hosts import (
    TRACE_MAX,
    HostAnswer,
    HostDown,
    HostKey,
    HostOutcome,
    HostService,
    HostStep,
    HostTimeout,
    Unknown,
    host_key,
)
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, Balance, CardRequest, Kind, Load, Purchase, Reversal
from switch.ledger import loads, rules
from switch.ledger.leg_state import HostAsk, Leg, LegState, StandIn, StandInTerms, Tell, told_back
from switch.ledger.load_states import LoadMove, LoadState, Payer, PurseLoad
from switch.ledger.rules import Entry, Facts, Movement, Ruling

INTENT: Final = 2  # the class of an intent's key, beside those of RequestClass
IN_PROGRESS: Final = "09"  # the answer that stands in an intent; no terminal ever gets it
SECURE_S: Final = 10.0  # after the deadline of the question: then the process that asked is dead or cut off

# What a host says, as a terminal may hear it; anything else is 05. Codes that make a terminal sign on, settle or send again are
# ours alone, and so is A0.
TOLD: Final = {
    code: code
    for code in (
        "01",
        "04",
        "05",
        "12",
        "13",
        "14",
        "15",
        "34",
        "38",
        "41",
        "43",
        "51",
        "54",
        "55",
        "57",
        "58",
        "61",
        "62",
        "65",
        "91",
        "92",
        "96",
        "98",
    )
} | {"68": "98", "75": "38", "09": "96"}
# With these a host does not say that it did nothing, so it is also told to undo it. A reversal too many harms nobody.
UNSURE: Final = frozenset({"09", "68", "96", "98"})
REASONS: Final = frozenset({"98", "96", "A0", "06"})  # of reversals


class LegEnd(NamedTuple):
    """How a question ended; comes through the queue like a request, with the key of the request. See `end`.

    end: what the link said; a Decline where the request could not be made; None where nobody waits for an answer any more.
    """

    card: CardNumber
    account: AccountKind
    amount_fen: Fen
    end: HostOutcome | Decline | None
    entry_mode: str = ""
    load: Load | None = None  # what is loaded, where the host pays a load


class Asked(NamedTuple):
    """Told in place of an outcome: the intent is committed, now ask."""

    shard: int
    leg_no: int
    key: HostKey
    rrn: str
    at: datetime
    business_date: date


def trace_of(serial: int) -> int:
    """Field 11 towards hosts, from a serial that is unique for ever."""
    return serial % TRACE_MAX + 1


# ---------------------------------------------------------------------- asking


def intend(request: CardRequest, facts: Facts, ask: HostAsk, stand_in: StandIn | None) -> Ruling:
    """Whether a request may go to its host, or be approved in its place. Money, PIN and limits are the host's business."""
    if isinstance(request, Load):
        decline = (
            loads.check(request, facts) if request.purse is not None else loads.top_up_refusal(request, facts)
        )
    elif isinstance(request, Purchase | Balance):
        decline = _refusal(request, facts)
    else:
        decline = Decline.NOT_SUPPORTED
    if decline is not None:
        return Ruling(decline)
    amount_fen = 0 if isinstance(request, Balance) else request.amount_fen
    paid_fen = facts.bound_fen.get(ask.binding_no, 0) + amount_fen
    if ask.day_limit_fen is not None and paid_fen > ask.day_limit_fen:
        return Ruling(Decline.LIMIT_AMOUNT)
    leg = Leg(
        facts.serial,
        facts.today,
        ask.host,
        int(ask.service),
        int(HostStep.FINANCIAL),
        ask.debit_code,
        ask.debit_owner,
        amount_fen,
        "",
        *host_key(trace_of(facts.serial), facts.now),
        int(LegState.ASKED),
        ask=ask,
        gives_up_at=facts.now + timedelta(seconds=ask.budget_s + SECURE_S),
    )
    if ask.stand_in is None:
        ruling = Ruling(answer=IN_PROGRESS, auth_code="", leg=leg)
    else:
        ruling = _stand_in(request, facts, leg, ask.stand_in, stand_in or StandIn(ask.host))
    if ruling.leg is not None:
        facts.bound_fen[ask.binding_no] = paid_fen
    return ruling


def _refusal(request: Purchase | Balance, facts: Facts) -> Decline | None:
    if isinstance(request, Purchase) and request.amount_fen == 0:
        return Decline.AMOUNT_INVALID
    if facts.holder_id:  # another city's card is known to its city alone
        decline = rules.card_refusal(facts)
        if decline is not None:
            return decline
    if request.account == AccountKind.PURSE:
        return Decline.NOT_SUPPORTED
    account = facts.account
    return Decline.CARD_RESTRICTED if account is not None and account.frozen else None


def _stand_in(request: CardRequest, facts: Facts, leg: Leg, terms: StandInTerms, standing: StandIn) -> Ruling:
    """Only a purchase, and only without a PIN, which nobody here can check."""
    amount_fen = leg.amount_fen
    if (
        not isinstance(request, Purchase)
        or request.pin is not None
        or amount_fen > terms.amount_fen
        or standing.outstanding_fen + amount_fen > terms.outstanding_fen
        or standing.outstanding_count >= terms.outstanding_count
    ):
        return Ruling(Decline.HOST_DOWN)
    standing.outstanding_fen += amount_fen
    standing.outstanding_count += 1
    standing.changed = True
    leg.step = int(HostStep.ADVICE)
    leg.state = int(LegState.STOOD_IN)
    leg.ended_at, leg.ended_by = facts.now, facts.serial
    tell = Tell(leg, HostStep.ADVICE, leg.service, "", amount_fen)
    return Ruling(movement=_owed(leg, facts), effect_fen=amount_fen, leg=leg, tells=(tell,))


def _owed(leg: Leg, facts: Facts) -> Movement:
    return Movement(
        (leg.debit_code, leg.debit_owner), (rules.MERCHANT_PAYABLE, facts.merchant_no), leg.amount_fen
    )


# ---------------------------------------------------------------------- the end


def end(request: LegEnd, facts: Facts, leg: Leg, *, batch_open: bool) -> Ruling:
    """What the terminal is told, and what is booked. The leg was ASKED until now.

    batch_open: whether the terminal's batch still takes transactions. After its totals are counted an approval is taken back.
    """
    leg.ended_at, leg.ended_by = facts.now, facts.serial
    leg.changed = True
    answer = request.end
    if isinstance(answer, HostAnswer):
        leg.host_code, leg.host_auth, leg.host_day = (
            answer.code,
            answer.authorisation_code,
            answer.settlement_day,
        )
        if answer.approved:
            return _approved(request, answer, facts, leg, batch_open=batch_open)
        leg.state = int(LegState.DECLINED)
        tells = _undo(leg, Unknown.UNUSABLE.reason) if answer.code in UNSURE else ()
        return Ruling(answer=TOLD.get(answer.code, "05"), auth_code="", rrn=leg.rrn, tells=tells)
    if isinstance(answer, HostDown):
        leg.state = int(LegState.NOT_SENT)
        return Ruling(Decline.HOST_DOWN, rrn=leg.rrn)
    if isinstance(answer, Decline):
        leg.state = int(LegState.NOT_SENT)
        return Ruling(answer, rrn=leg.rrn)
    why = answer.why if isinstance(answer, HostTimeout) else Unknown.SILENT
    return _give_up(leg, Decline.HOST_SILENT, why.reason)


def _approved(request: LegEnd, answer: HostAnswer, facts: Facts, leg: Leg, *, batch_open: bool) -> Ruling:
    if leg.service == HostService.BALANCE:
        leg.state = int(LegState.APPROVED)
        return Ruling(auth_code="", rrn=leg.rrn, balances=_figures(request.account, answer))
    if not batch_open:
        return _give_up(leg, Decline.BATCH_FROZEN, "06")
    if leg.service == HostService.LOAD:
        return _paid(request.load, facts, leg)
    leg.state = int(LegState.APPROVED)
    return Ruling(
        movement=_owed(leg, facts),
        effect_fen=leg.amount_fen,
        rrn=leg.rrn,
        auth_code=leg.host_auth or None,
    )


def _paid(request: Load | None, facts: Facts, leg: Leg) -> Ruling:
    """The bank has paid a load: now the purse or the account gets it. Where that cannot be any more the bank gets it back."""
    assert request is not None, "a load comes back with its request"
    payer = Payer(leg.debit_code, leg.debit_owner)
    if request.purse is None:
        ruling = loads.top_up(request, facts, payer)
    else:
        ruling = loads.authorise(request, facts, payer)
    ruling.rrn = leg.rrn
    if ruling.decline is not None:
        leg.state = int(LegState.UNKNOWN)
        ruling.tells = _undo(leg, "06")
    else:
        leg.state = int(LegState.APPROVED)
        ruling.auth_code = leg.host_auth or None
    return ruling


def _figures(account: AccountKind, answer: HostAnswer) -> tuple[BalanceFigure, ...]:
    """A host tells what may be spent, and nothing else."""
    if answer.available_fen is None:
        return ()
    return (BalanceFigure(int(account), 2, answer.available_fen),)


def _give_up(leg: Leg, decline: Decline, reason: str) -> Ruling:
    leg.state = int(LegState.UNKNOWN)
    return Ruling(decline, rrn=leg.rrn, tells=_undo(leg, reason))


def _undo(leg: Leg, reason: str) -> tuple[Tell, ...]:
    if leg.service == HostService.BALANCE:
        return ()
    return (Tell(leg, HostStep.REVERSAL_ADVICE, leg.service, reason, leg.amount_fen),)


def give_up(request: Reversal, facts: Facts, leg: Leg) -> Ruling:
    """The terminal reverses what the host has not answered: that is its end, whatever the host will say."""
    leg.ended_at, leg.ended_by = facts.now, facts.serial
    leg.changed = True
    return _give_up(leg, Decline.HOST_SILENT, request.reason if request.reason in REASONS else "98")


# ---------------------------------------------------------------------- what a batch must read


def intents(keys: Iterable[tuple[int, int, int, int]]) -> list[tuple[int, int, int]]:
    """(terminal, batch, trace) of the intents among the keys that were found."""
    return [key[:3] for key in keys if key[3] == INTENT]


def decided_elsewhere(entries: Iterable[Entry]) -> list[int]:
    """Numbers of the transactions that a host may have decided and that these are, or undo. Our online accounts lie nowhere else."""
    found = set()
    for entry in entries:
        if entry.answer == APPROVED and (
            entry.account_id is None
            or entry.account_id % 100 != AccountKind.ONLINE
            or entry.kind == Kind.LOAD
        ):
            found.add(entry.entry_no if entry.original_entry is None else entry.original_entry)
    return list(found)


def paid_by_hosts(loads_read: Iterable[PurseLoad]) -> list[int]:
    """Numbers of the loads among these whose host may have to be told something."""
    return [one.entry_no for one in loads_read if one.debit_code == loads.BANKS_RECEIVABLE]


def returned(moves: Iterable[LoadMove], legs: Mapping[int, Leg], reversal: Reversal | None) -> list[Tell]:
    """What hosts must be told when loads that they paid have gone back to their source.

    A load that never left AUTHORISED is as if it had never been; what comes out of suspense may be of a day that the host has closed.
    """
    tells: list[Tell] = []
    for moved in moves:
        leg = legs.get(moved.load.entry_no)
        if leg is None or not moved.moves_money or moved.credit != (leg.debit_code, leg.debit_owner):
            continue
        reason = reversal.reason if reversal is not None else "06"
        tells += told_back(leg, leg.amount_fen, reason if moved.from_state == LoadState.AUTHORISED else "")
    return tells
