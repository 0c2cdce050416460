"""What is told to hosts out of the outbox: the message, what its answer means, and when it is sent again. Pure.

An answer ends the matter (confirmed), or must be looked into by people (refused), or says that the host could not do it now (later).
What is not known to mean later is refused, so that nothing is repeated for ever.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Final, NamedTuple

from switch.domain.hosts import (
    HostAnswer,
    HostDown,
    HostKey,
    HostOriginal,
    HostOutcome,
    HostRequest,
    HostService,
    HostStep,
    Refusal,
)
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind
from switch.ledger.outbox import Due, End, Verdict

CONFIRMED: Final = MappingProxyType(
    {
        HostStep.ADVICE: frozenset({"00"}),
        # 25: the host never saw the original and will refuse it (22) if it still comes.
        HostStep.REVERSAL_ADVICE: frozenset({"00", "25"}),
    }
)
LATER: Final = MappingProxyType(
    {
        "09": "it is still at it",
        "68": "a system behind the host did not answer it",
        "90": "it closes its day",
        "91": "a system behind the host is down",
        "92": "it has no way to that system now",
        "96": "it has a malfunction",
        "98": "a system behind the host gave no answer",
        "A0": "our MAC was wrong to it, so it moved nothing; keys are put right, and the message is still owed",
    }
)
PRE_AUTHORISATION_CONDITION: Final = "06"
# A repeat that the retry budget does not pay for yet: the budget grows by the second, so asking at once would only ask more often.
NO_BUDGET_S: Final = (5.0, 15.0)
KEY_IN_USE_S: Final = (1.0, 2.0)
UNSENDABLE: Final = "unsendable"  # `last_end` of a message that cannot be made


class BackOff(NamedTuple):
    """Pauses between tries of one message: first_s, doubled each time up to longest_s, each with jitter down to half."""

    first_s: float = 1.0
    longest_s: float = 300.0

    def pause_s(self, tries: int, uniform: Callable[[float, float], float]) -> float:
        """Before the next try, after so many. With jitter, or all that failed together would come back together."""
        ceiling = min(self.first_s * 2 ** min(max(tries - 1, 0), 40), self.longest_s)
        return uniform(ceiling / 2, ceiling)


def request_of(message: Due) -> HostRequest:
    """The message as it is sent, the same each time. ValueError when its rows do not make one."""
    leg = message.leg
    if leg is None:
        raise ValueError("the leg of the message is not there")
    step, service = HostStep(message.step), HostService(message.service)
    new_business = service is HostService.RETURN and step is HostStep.ADVICE
    family = HostService.PRE_AUTHORISATION in (service, HostService(leg.service))
    original = HostOriginal(HostStep(leg.step), HostKey(leg.transmitted, leg.trace))
    return HostRequest(
        step=step,
        service=service,
        key=HostKey(message.transmitted, message.trace),
        at=message.created_at if new_business else leg.asked_at,
        card=CardNumber(leg.pan),
        account=AccountKind(leg.account_kind),
        amount_fen=Fen(message.amount_fen),
        terminal_id=leg.terminal_id,
        merchant_id=leg.merchant_id,
        reference=message.rrn,
        entry_mode=leg.entry_mode,
        condition=PRE_AUTHORISATION_CONDITION if family else "00",
        authorisation_code=leg.authorisation_code,
        original=None if message.is_first else original,
        reason=message.reason,
        business_date=leg.business_date,
    )


def end_of(
    message: Due, outcome: HostOutcome, back_off: BackOff, uniform: Callable[[float, float], float]
) -> End:
    """What an outcome means for the message."""
    if isinstance(outcome, HostDown):
        pauses = {Refusal.RETRY_BUDGET: NO_BUDGET_S, Refusal.KEY_IN_USE: KEY_IN_USE_S}.get(outcome.why)
        wait_s = uniform(*pauses) if pauses else 0.0
        return End(message, Verdict.LATER, outcome.why.name.lower(), tried=False, wait_s=wait_s)
    if isinstance(outcome, HostAnswer):
        said = outcome.code.strip()
        if said in CONFIRMED[HostStep(message.step)]:
            return End(message, Verdict.CONFIRMED, said, tried=True)
        if said not in LATER:
            return End(message, Verdict.REFUSED, said, tried=True)
    else:
        said = outcome.why.name.lower()
    pause_s = back_off.pause_s(message.tries + 1, uniform)
    return End(message, Verdict.LATER, said, tried=True, wait_s=pause_s)
