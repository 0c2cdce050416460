"""What must be known of a request before its MAC may be checked: who sends it, and which message of his it is."""

from typing import NamedTuple

from switch.domain.transactions import RequestClass
from switch.messages.codec import UnsupportedMti
from switch.messages.message import Message

REQUEST_CLASS = {
    "0100": RequestClass.FINANCIAL,
    "0200": RequestClass.FINANCIAL,
    "0220": RequestClass.FINANCIAL,
    "0320": RequestClass.FINANCIAL,
    "0400": RequestClass.REVERSAL,
    "0500": RequestClass.FINANCIAL,
    "0800": None,  # network management has no key: it may be repeated freely
    "0820": None,
}
SIGN_ON_CODES = frozenset({"001", "003", "004", "005", "006"})
WITHOUT_MAC = frozenset(  # before there are working keys, or to find out whether the line lives
    {("0800", code) for code in (*SIGN_ON_CODES, "811", "812")} | {("0820", "301")}
)


class Envelope(NamedTuple):
    """The head of a request, read leniently: what is missing or broken here is told later, by mapping.

    stan: field 11, None in an echo. batch_no, transaction_type, network_code: the parts of field 60; None and empty
    when it is missing or too short. training: such a request is answered and never booked.
    request_class: part of the key of what may be repeated; None for 0800 and 0820.
    has_mac: field 64 came. mac_required: it has to.
    """

    mti: str
    terminal_id: str
    merchant_id: str  # empty when field 42 is missing
    stan: int | None
    batch_no: int | None
    transaction_type: str
    network_code: str
    training: bool
    request_class: RequestClass | None
    has_mac: bool
    mac_required: bool


def read_envelope(message: Message) -> Envelope:
    """The head of a message that decode has read. UnsupportedMti (close) when it is not a request."""
    _, header, mti, fields, _ = message
    if mti not in REQUEST_CLASS:
        raise UnsupportedMti("message type is an answer: not for a switch")
    stan = fields.get(11)
    custom = fields.get(60, "")
    code = custom[8:11]
    request_class = REQUEST_CLASS[mti]
    return Envelope(
        mti,
        fields[41],
        fields.get(42, ""),
        int(stan) if stan is not None else None,
        int(custom[2:8]) if len(custom) >= 11 else None,
        custom[:2],
        code,
        header[2] > 0x0F,
        request_class,
        64 in fields,
        request_class is not None or (mti, code) not in WITHOUT_MAC,
    )
