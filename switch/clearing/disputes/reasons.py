"""Reason codes of cases, two characters in ER. Each serves some actions; docs/disputes.md has the same table."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from switch.clearing.disputes.states import Action


class Reason(NamedTuple):
    """What a code says, and for which actions."""

    text: str
    actions: frozenset[Action]


def _reason(text: str, *actions: str) -> Reason:
    return Reason(text, frozenset(map(Action, actions)))


REASONS: Final[Mapping[str, Reason]] = MappingProxyType(
    {
        "10": _reason("goods or service did not come", "01", "03", "04"),
        "11": _reason("paid twice", "01", "03", "04"),
        "12": _reason("wrong amount", "01", "03", "04"),
        "13": _reason("cancelled or returned, and no refund came", "01", "03", "04"),
        "14": _reason("paid in another way", "01", "03", "04"),
        "20": _reason("the holder does not know the payment", "03", "04"),
        "21": _reason("the card was lost or stolen", "03", "04"),
        "22": _reason("the card or its authorisation was not valid", "03", "04"),
        "30": _reason("a copy of the slip is wanted", "03"),
        "31": _reason("the evidence that was asked for did not come or cannot be read", "04"),
        "40": _reason("voided or refunded by mistake", "02"),
        "41": _reason("the outcome was not known, and the goods were handed over", "02"),
        "50": _reason("delivered as agreed, see the evidence", "05"),
        "51": _reason("was given back before", "05"),
        "52": _reason("the holder agrees to the payment", "05"),
        "60": _reason("the card shows the debit", "06"),
        "61": _reason("the record was damaged, its contents are proven otherwise", "07"),
        "62": _reason("key or PSAM was at fault, and the issuer stands for the record", "07"),
        "70": _reason("the load is on the card", "08"),
        "71": _reason("the load is not on the card", "08"),
    }
)
assert {action for reason in REASONS.values() for action in reason.actions} == set(Action)
assert not any(code.startswith("9") for code in REASONS), "9x are refusals"
