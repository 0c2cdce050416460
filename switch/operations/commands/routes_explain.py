"""Why a card goes where it goes: the answer of `cardswitch routes check --pan ...`. Numbers are shown masked."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import Decline
from switch.domain.errors import InputRefused
from switch.domain.identifiers import luhn_holds, mask_pan
from switch.domain.money import yuan
from switch.messages.answers import DE39
from switch.registry import route_versions as store
from switch.registry.binding_desk import bank_of
from switch.registry.issuers import Issuer
from switch.routing.destinations import DIGITS, Ask, Decision, Destination, RouteTable, Tried, Way, number_of
from switch.routing.host_names import HostNames
from switch.routing.route_format import ACCOUNTS, KINDS

ABOUT_OTHERS = "the card number begins otherwise"


class Question(NamedTuple):
    """What the operator asks. pan or issuer, the other is empty."""

    pan: str
    issuer: str
    account: str
    kind: str
    amount_fen: int
    merchant: str
    at: datetime


class Explained(NamedTuple):
    """card: masked. outcome: a destination, or a code of field 39. remark: what comes before the table.

    bank: institution of the bound bank card that would pay; empty where none is meant or there is none. links: hosts behind the outcome.
    """

    question: Question
    version: int
    card: str
    own: bool
    decision: Decision
    tried: list[Tried]
    outcome: str
    remark: str
    bank: str
    links: tuple[str, ...]


def explain(
    connection: psycopg.Connection[Any], table: RouteTable, question: Question, hosts: HostNames
) -> Explained:
    """Ask a table. InputRefused when card, issuer or merchant cannot be what they are said to be."""
    digits = question.pan or _a_card_of(table, question.issuer)
    if not (digits.isascii() and digits.isdecimal() and DIGITS <= len(digits) <= 19):
        raise InputRefused(f"pan: must be a card number of 13 to 19 digits, or its first {DIGITS}")
    whole = len(digits) > DIGITS
    own = whole and store.has_card(connection, digits)
    category, acquirer = store.merchant(connection, question.merchant) if question.merchant else ("", "")
    to_bank = own and question.account == "BANK"
    bank = bank_of(connection, digits) if to_bank else ""
    ask = Ask(
        number_of(digits),
        own,
        ACCOUNTS[question.account],
        KINDS[question.kind],
        question.merchant,
        category,
        acquirer,
        question.amount_fen,
        question.at,
        hosts.of_institution(bank) if bank else None,
    )
    decision, tried = table.explain(ask)
    chosen = decision.choose(hosts.has)
    remark = ""
    if whole and not own and not luhn_holds(digits):
        remark = "the check digit is wrong: answered 14 whatever the table says"
    elif not question.amount_fen and question.kind != "BALANCE":
        remark = "an amount of zero is answered 13 whatever the table says"
    elif to_bank and not bank:
        remark = "no bank card is bound to it: answered 57 whatever the table says"
    card = mask_pan(digits) if whole else f"{digits[:6]}******..."
    outcome = _outcome(decision, chosen)
    links = () if isinstance(chosen, Decline) else hosts.names_of(chosen)
    return Explained(question, table.version, card, own, decision, tried, outcome, remark, bank, links)


def _a_card_of(table: RouteTable, issuer_id: str) -> str:
    for issuer in table.participants.issuers:
        if issuer.issuer_id == issuer_id and issuer.bins:
            return issuer.bins[0].ljust(DIGITS, "0")
    raise InputRefused("issuer: is no registered card issuer with card numbers")


def _outcome(decision: Decision, chosen: Destination | Decline) -> str:
    if not isinstance(chosen, Decline):
        return str(chosen)
    by_row = decision.refusal is None and decision.row is not None and decision.to[-1].way is Way.REFUSE
    return f"answered {DE39[chosen]}: {'as the row says' if by_row else chosen.value}"


def answer_of(explained: Explained, *, every: bool) -> dict[str, Any]:
    """For programs."""
    decision, question = explained.decision, explained.question
    return {
        "version": explained.version,
        "card": explained.card,
        "ours": explained.own,
        "issuer": decision.issuer.issuer_id if decision.issuer is not None else None,
        "circle": decision.issuer.circle.name if decision.issuer is not None else None,
        "account": question.account,
        "type": question.kind,
        "amount_fen": question.amount_fen,
        "merchant": question.merchant or None,
        "at": question.at.astimezone(SHANGHAI).isoformat(timespec="minutes"),
        "decided_by": decision.row.precedence if decision.row is not None else None,
        "to": [str(one) for one in decision.to],
        "bound_to": explained.bank or None,
        "outcome": explained.outcome,
        "links": list(explained.links),
        "remark": explained.remark,
        "passed_over": [
            {"row": one.row.precedence, "why": one.miss}
            for one in explained.tried
            if one.miss and _shown(one, every)
        ],
        "about_other_cards": sum(1 for one in explained.tried if not _shown(one, every)),
    }


def lines_of(explained: Explained, *, every: bool) -> Iterator[str]:
    """For people."""
    question, decision = explained.question, explained.decision
    at = question.at.astimezone(SHANGHAI)
    yield f"card {explained.card}: {_whose(explained.own, decision.issuer)}"
    where = f" at merchant {question.merchant}" if question.merchant else ""
    yield f"{question.kind} from {question.account}, {yuan(question.amount_fen)} CNY{where}, {at:%Y-%m-%d %H:%M} Shanghai"
    if explained.bank:
        yield f"  a card of bank {explained.bank} is bound to it and would pay"
    for one in explained.tried:
        if one.miss and _shown(one, every):
            yield f"  row {one.row.precedence}: no, {one.miss}"
    hidden = sum(1 for one in explained.tried if not _shown(one, every))
    if hidden:
        yield f"  {hidden} rows before are about other cards (--all shows them)"
    to = " > ".join(map(str, decision.to)) or f"bank {explained.bank}, which has no host here"
    if decision.row is not None:
        yield f"  row {decision.row.precedence}: decides, {to}"
    else:
        yield f"  built in: decides, {to}"
    if explained.links and decision.to[0].way is Way.CITY:
        yield f"  by way of host {' > '.join(explained.links)}"
    if explained.remark:
        yield f"  but {explained.remark}"
    yield f"=> {explained.outcome}"


def _shown(one: Tried, every: bool) -> bool:
    return every or one.miss != ABOUT_OTHERS


def _whose(own: bool, issuer: Issuer | None) -> str:
    if issuer is None:
        return "ours, under a number of no registered issuer" if own else "of no registered issuer"
    name = f"issuer {issuer.issuer_id}, {issuer.circle.name}"
    if own or issuer.own:
        return f"ours, {name}" if own else f"of ours by its number, {name}"
    return f"{name}, may be used up to {issuer.scope.name}"
