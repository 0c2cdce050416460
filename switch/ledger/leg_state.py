"""What a batch holds of transactions that lie with hosts: legs, what hosts must still be told, and what we stood in for."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum
from typing import NamedTuple

from switch.domain.hosts import HostService, HostStep
from switch.domain.identifiers import CardNumber


class LegState(IntEnum):
    """Where a leg stands; the numbers are stored."""

    ASKED = 0
    APPROVED = 1
    DECLINED = 2
    NOT_SENT = 3
    UNKNOWN = 4
    STOOD_IN = 5


class StandInTerms(NamedTuple):
    """Up to where we approve in a host's place. Sum and number of what the host has not been told yet bind each shard apart."""

    amount_fen: int
    outstanding_fen: int
    outstanding_count: int


@dataclass(slots=True)
class StandIn:
    """What one host has not been told yet, in one shard: a locked row."""

    host: str
    outstanding_fen: int = 0
    outstanding_count: int = 0
    changed: bool = False


class HostAsk(NamedTuple):
    """What routing has found out about a request that goes to a host.

    debit_code, debit_owner: who owes us what it approves. number: the card as the host knows it. budget_s: how long it is waited for.
    stand_in: given when the host is not to be asked but stood in for. binding_no: of the bound card that pays, where day_limit_fen is
    the most that it pays on a business day.
    """

    host: str
    service: HostService
    debit_code: int
    debit_owner: int
    number: CardNumber
    terminal_id: str
    merchant_id: str
    budget_s: float
    stand_in: StandInTerms | None = None
    binding_no: int = 0
    day_limit_fen: int | None = None


@dataclass(slots=True)
class Leg:
    """A row of host_leg, as far as decisions ask for it or make it."""

    leg_no: int
    business_date: date
    host: str
    service: int
    step: int
    debit_code: int
    debit_owner: int
    amount_fen: int
    rrn: str
    transmitted: str
    trace: int
    state: int
    ended_at: datetime | None = None
    ended_by: int | None = None
    host_code: str = ""
    host_auth: str = ""
    host_day: str = ""
    ask: HostAsk | None = None  # of a leg made in this batch
    gives_up_at: datetime | None = None
    changed: bool = False  # was read, and has ended here


class Tell(NamedTuple):
    """Something that a host must be told: a row of the outbox to be."""

    leg: Leg
    step: HostStep
    service: int
    reason: str
    amount_fen: int


def told_back(leg: Leg, amount_fen: int, reason: str = "") -> tuple[Tell, ...]:
    """What the host must be told when money of a leg is given back. reason: given when it is as if it had never been."""
    if reason:
        return (Tell(leg, HostStep.REVERSAL_ADVICE, leg.service, reason, leg.amount_fen),)
    return (Tell(leg, HostStep.ADVICE, int(HostService.RETURN), "", amount_fen),)
