r"""The life of a case, as tables: which action leads from which state to which, who may ask for it, and for how long. No I/O.

                  01                         02                    06, 07               08
    new ------> CREDITED      new --------> COLLECTED    new ----> ACCEPTED   new ---> SETTLED
     |  \ 03                         04
     |   `----> RETRIEVAL -----------------> CHARGED_BACK --05--> REPRESENTED
     |             `--01--> CREDITED          ^
     `------------- 04 -----------------------'

A case is NEW while its first action waits for a checker. RETRIEVAL and CHARGED_BACK may also end CLOSED: by people, or because the time
for an answer is over. DENIED: the checker refused the first action, so nothing came of the case.

Days are counted as the regulation counts them: the day of the beginning is not counted, the last one counts to 24:00 in Shanghai.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from switch.domain.transactions import Kind
from switch.ledger.adjustments import Source


class Action(StrEnum):
    """What can be asked for; the values stand in ER files."""

    CREDIT = "01"  # 貸記調整: give back
    DEBIT = "02"  # 請款: collect after a wrong void or an unknown outcome
    RETRIEVAL = "03"  # 調單: ask for evidence
    CHARGEBACK = "04"  # 退單: the issuer refuses a presented item
    REPRESENTMENT = "05"  # 再請款: the acquirer's answer to 04
    GREY = "06"  # 灰記錄調整: a grey record is paid
    REFUSED_RECORD = "07"  # a refused record is accepted by its issuer
    LOAD = "08"  # a load in suspense is settled


class State(StrEnum):
    """Where a case stands; the values are stored."""

    NEW = "NEW"
    RETRIEVAL = "RETRIEVAL"
    CHARGED_BACK = "CHARGED_BACK"
    CREDITED = "CREDITED"
    COLLECTED = "COLLECTED"
    REPRESENTED = "REPRESENTED"
    ACCEPTED = "ACCEPTED"
    SETTLED = "SETTLED"
    CLOSED = "CLOSED"
    DENIED = "DENIED"


class Side(StrEnum):
    """Who may ask for an action by file. OPERATOR: people here only."""

    ISSUER = "issuer"
    ACQUIRER = "acquirer"
    OPERATOR = "operator"


class Rule(StrEnum):
    """Why an action is refused. The values answer a member in ER, in the place of the reason."""

    LIMIT = "91"
    STATE = "92"
    ORIGINAL = "93"
    AMOUNT = "94"
    PARTY = "95"
    OPEN = "96"
    FORM = "97"
    CHECKER = "98"
    PERSON = "99"


RULE_TEXT: Final[Mapping[Rule, str]] = MappingProxyType(
    {
        Rule.LIMIT: "the time for this action is over",
        Rule.STATE: "the state of the case or the transaction does not allow it",
        Rule.ORIGINAL: "no such transaction, or the line is not that of the original",
        Rule.AMOUNT: "the amount is not there, or no such amount is left",
        Rule.PARTY: "this member may not ask for it",
        Rule.OPEN: "the transaction has a case, or had its chargeback",
        Rule.FORM: "the line is not as it must be: action, sign, reason or case number",
        Rule.CHECKER: "the checker refused it",
        Rule.PERSON: "two people are needed",
    }
)
assert RULE_TEXT.keys() == set(Rule)

OPEN: Final = frozenset({State.NEW, State.RETRIEVAL, State.CHARGED_BACK})

NEXT: Final[Mapping[tuple[State, Action], State]] = MappingProxyType(
    {
        (State.NEW, Action.CREDIT): State.CREDITED,
        (State.NEW, Action.DEBIT): State.COLLECTED,
        (State.NEW, Action.RETRIEVAL): State.RETRIEVAL,
        (State.NEW, Action.CHARGEBACK): State.CHARGED_BACK,
        (State.NEW, Action.GREY): State.ACCEPTED,
        (State.NEW, Action.REFUSED_RECORD): State.ACCEPTED,
        (State.NEW, Action.LOAD): State.SETTLED,
        (State.RETRIEVAL, Action.CREDIT): State.CREDITED,
        (State.RETRIEVAL, Action.CHARGEBACK): State.CHARGED_BACK,
        (State.CHARGED_BACK, Action.REPRESENTMENT): State.REPRESENTED,
    }
)
assert {before for before, _ in NEXT} <= OPEN

# Days from the clearing date of the transaction; of 05 from the day of the chargeback.
DAYS: Final[Mapping[Action, int]] = MappingProxyType(
    {
        Action.CREDIT: 180,
        Action.DEBIT: 30,
        Action.RETRIEVAL: 180,
        Action.CHARGEBACK: 90,
        Action.REPRESENTMENT: 30,
        Action.GREY: 60,
        Action.REFUSED_RECORD: 60,
        Action.LOAD: 30,
    }
)
assert DAYS.keys() == set(Action)

ASKED_BY: Final[Mapping[Action, Side]] = MappingProxyType(
    {
        Action.CREDIT: Side.ACQUIRER,
        Action.DEBIT: Side.ACQUIRER,
        Action.RETRIEVAL: Side.ISSUER,
        Action.CHARGEBACK: Side.ISSUER,
        Action.REPRESENTMENT: Side.ACQUIRER,
        Action.GREY: Side.OPERATOR,
        Action.REFUSED_RECORD: Side.OPERATOR,
        Action.LOAD: Side.OPERATOR,
    }
)
assert ASKED_BY.keys() == set(Action)

# What kind of entry an action books; the others accept a record, settle a load, or move nothing.
BOOKS: Final[Mapping[Action, Kind]] = MappingProxyType(
    {
        Action.CREDIT: Kind.CREDIT_ADJUSTMENT,
        Action.DEBIT: Kind.DEBIT_ADJUSTMENT,
        Action.CHARGEBACK: Kind.CHARGEBACK,
        Action.REPRESENTMENT: Kind.REPRESENTMENT,
    }
)
# What an action can be about.
ABOUT: Final[Mapping[Action, frozenset[Source]]] = MappingProxyType(
    {
        **dict.fromkeys((*BOOKS, Action.RETRIEVAL), frozenset({Source.ENTRY, Source.RECORD, Source.FOREIGN})),
        Action.GREY: frozenset({Source.RECORD}),
        Action.REFUSED_RECORD: frozenset({Source.RECORD}),
        Action.LOAD: frozenset({Source.LOAD}),
    }
)
assert ABOUT.keys() == set(Action)

# From the issuer's side: +1 it receives the amount, -1 it pays it. What is not here moves nothing between members.
ISSUER_GETS: Final[Mapping[Action, int]] = MappingProxyType(
    {
        Action.CREDIT: 1,
        Action.DEBIT: -1,
        Action.RETRIEVAL: 0,
        Action.CHARGEBACK: 1,
        Action.REPRESENTMENT: -1,
        Action.GREY: -1,
        Action.REFUSED_RECORD: -1,
    }
)

DECIDED_WITHIN_DAYS: Final = 5  # a request that waits longer for its checker is overdue; it does not lapse


def last_day(action: Action, begins: date) -> date:
    """The last day on which an action may be asked for.

    >>> last_day(Action.DEBIT, date(2024, 1, 31))
    datetime.date(2024, 3, 1)
    """
    return begins + timedelta(days=DAYS[action])


def due_after(state: State, cleared_on: date, charged_on: date | None) -> date | None:
    """The last day of what may come next to a case, where that has a limit. cleared_on: the transaction's clearing date."""
    if state == State.RETRIEVAL:
        return max(last_day(action, cleared_on) for before, action in NEXT if before == State.RETRIEVAL)
    if state == State.CHARGED_BACK and charged_on is not None:
        return last_day(Action.REPRESENTMENT, charged_on)
    return None


def refusal_of(state: State, action: Action, begins: date, today: date) -> tuple[Rule, str] | None:
    """Why the state or the calendar forbids an action, if so. begins: where its days count from; today: in Shanghai."""
    if (state, action) not in NEXT:
        allowed = ", ".join(sorted(one for before, one in NEXT if before == state)) or "nothing"
        return Rule.STATE, f"action {action}: a case in state {state} takes {allowed}"
    last = last_day(action, begins)
    if today > last:
        return Rule.LIMIT, f"action {action}: was possible until {last}, {DAYS[action]} days after {begins}"
    return None
