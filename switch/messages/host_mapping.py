"""Requests to hosts as fields, and fields of their answers as answers. Outside `messages/` nobody sees field numbers.

An answer belongs to its request by message type, transmission time (7), trace (11) and acquirer (32). One that repeats
card data, amount or terminal otherwise than they were sent is no answer to that request, whatever its field 39 says.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import FormatError
from switch.domain.hosts import HostAnswer, HostKey, HostOriginal, HostRequest, HostService, HostStep, ZonePin
from switch.domain.money import CURRENCY_CNY, Fen
from switch.domain.transactions import PinFormat
from switch.messages.dialect import HostMessage
from switch.messages.host_1987 import ANSWER_MTI, REQUEST_OF
from switch.messages.message import Fields

MTI_OF_STEP: Mapping[HostStep, str] = MappingProxyType(
    {
        HostStep.AUTHORISATION: "0100",
        HostStep.FINANCIAL: "0200",
        HostStep.ADVICE: "0220",
        HostStep.REVERSAL: "0400",
        HostStep.REVERSAL_ADVICE: "0420",
    }
)
assert MTI_OF_STEP.keys() == set(HostStep)
CODE_OF_SERVICE: Mapping[HostService, str] = (
    MappingProxyType(  # digits 1 and 2 of field 3, as terminals send them
        {
            HostService.PURCHASE: "00",
            HostService.PRE_AUTHORISATION: "03",
            HostService.RETURN: "20",
            HostService.BALANCE: "31",
            HostService.LOAD: "60",
        }
    )
)
assert CODE_OF_SERVICE.keys() == set(HostService)
SECURITY_OF_PIN: Mapping[PinFormat, str] = MappingProxyType(  # field 53, as terminals send it
    {
        PinFormat.ISO_0: "2600000000000000",
        PinFormat.NO_PAN: "1600000000000000",
        PinFormat.SM4_PAN: "2300000000000000",
    }
)
assert SECURITY_OF_PIN.keys() == set(PinFormat)
SM4_PIN_TAG = b"\xdf\x51\x10"  # tag and length of the 16-byte block in field 55
PIN_DIGITS_MAX = "12"
ECHOED = (3, 4, 32, 41, 42)  # what an answer repeats, besides 7 and 11; each only if it was sent


class Parties(NamedTuple):
    """Who we are on a link, and who the host is: fields 32 and 33, and 100. At most 11 digits each."""

    acquirer: str
    receiver: str


class AnswerKey(NamedTuple):
    """To which request an answer belongs. mti: of the request."""

    mti: str
    key: HostKey


def request_key(request: HostRequest) -> AnswerKey:
    """The key under which the answer to a request will come."""
    return AnswerKey(MTI_OF_STEP[request.step], request.key)


def answer_key(message: HostMessage) -> AnswerKey | None:
    """The key of the request that a message answers, also of one that was read in part; None when it tells no such key."""
    mti = REQUEST_OF.get(message.mti)
    transmitted, trace = message.fields.get(7), message.fields.get(11)
    if mti is None or transmitted is None or trace is None:
        return None
    return AnswerKey(mti, HostKey(transmitted, int(trace)))


def request_fields(request: HostRequest, parties: Parties, pin: ZonePin | None) -> tuple[str, Fields]:
    """MTI and fields of a request, without the MAC. ValueError for a request that contradicts itself: our own fault."""
    _check(request, pin)
    local = request.at.astimezone(SHANGHAI)
    optional: Fields = {
        14: request.expiry,
        15: request.business_date and f"{request.business_date:%m%d}",
        18: request.merchant_type,
        23: request.card_sequence,
        35: request.track2,
        38: request.authorisation_code,
        39: request.reason,
        48: request.details,
        90: request.original and original_elements(request.original, parties),
    }
    fields: Fields = {
        2: request.card.reveal(),
        3: f"{CODE_OF_SERVICE[request.service]}{request.account:02d}00",
        **transmission(request.key),
        **local_time(local),
        22: request.entry_mode,
        25: request.condition,
        32: parties.acquirer,
        33: parties.acquirer,
        37: request.reference,
        41: request.terminal_id,
        42: request.merchant_id,
        49: CURRENCY_CNY,
        100: parties.receiver,
        **{number: value for number, value in optional.items() if value},
    }
    if request.amount_fen is not None:
        fields[4] = f"{request.amount_fen:012d}"
    if pin is not None:
        fields |= {26: PIN_DIGITS_MAX, 53: SECURITY_OF_PIN[pin.format]}
        if pin.format is PinFormat.SM4_PAN:
            fields[55] = SM4_PIN_TAG + pin.block
        else:
            fields[52] = pin.block
    return MTI_OF_STEP[request.step], fields


def _check(request: HostRequest, pin: ZonePin | None) -> None:
    reversal = request.step in (HostStep.REVERSAL, HostStep.REVERSAL_ADVICE)
    if reversal != bool(request.reason):
        raise ValueError("a reversal, and nothing else, has a reason")
    if request.original is None and (reversal or request.service is HostService.RETURN):
        raise ValueError("a reversal or return names its original")
    if (request.amount_fen is None) != (request.service is HostService.BALANCE):
        raise ValueError("everything but a balance enquiry has an amount")
    if pin is not None and request.step not in (HostStep.AUTHORISATION, HostStep.FINANCIAL):
        raise ValueError("only a request that asks carries a PIN")


def transmission(key: HostKey) -> Fields:
    """Fields 7 and 11."""
    return {7: key.transmitted, 11: f"{key.trace:06d}"}


def local_time(at: datetime) -> Fields:
    """Fields 12 and 13 of an instant that is in local time already."""
    return {12: f"{at:%H%M%S}", 13: f"{at:%m%d}"}


def original_elements(original: HostOriginal, parties: Parties) -> str:
    """Field 90: MTI, trace, transmission time, acquirer and forwarder of the original, 42 digits."""
    key = original.key
    institution = parties.acquirer.rjust(11, "0")
    return f"{MTI_OF_STEP[original.step]}{key.trace:06d}{key.transmitted}{institution}{institution}"


def read_answer(sent: Mapping[int, str | bytes], message: HostMessage) -> HostAnswer:
    """The answer in a message whose key and MAC fit. FormatError when it is no usable answer to what was sent."""
    fields = message.fields
    for number in ECHOED:
        if number in sent and fields.get(number) != sent[number]:
            raise FormatError("is missing or not as it was sent", field=str(number))
    code = fields.get(39)
    if code is None or not code.strip():
        raise FormatError("is missing", field="39")
    key = answer_key(message)
    assert key is not None, "it was found by its key"
    amount = fields.get(4)
    return HostAnswer(
        key.key,
        code,
        fields.get(38, ""),
        fields.get(37, ""),
        Fen(int(amount)) if amount is not None else None,
        fields.get(15, ""),
        _available(fields.get(54, "")),
        fields.get(44, "").strip(),
    )


def _available(text: str) -> Fen | None:
    """The available balance among the amounts of field 54: account type 2, amount type 2, currency 3, sign 1, amount 12."""
    for at in range(0, len(text) - 19, 20):
        part = text[at : at + 20]
        if part[2:4] == "02" and part[4:7] == CURRENCY_CNY and part[8:].isdecimal() and part[7] in "CD":
            return Fen(int(part[8:]) * (-1 if part[7] == "D" else 1))
    return None  # an approval is not worth less because a balance beside it cannot be read


def network_fields(code: str, key: HostKey, parties: Parties) -> Fields:
    """Fields of a network management request."""
    return {**transmission(key), 33: parties.acquirer, 70: code, 100: parties.receiver}


def network_answer_fields(request: HostMessage, code: str) -> Fields:
    """Fields of our answer to a host's network management request: what came, and field 39."""
    fields = {number: request.fields[number] for number in (7, 11, 33, 70, 100) if number in request.fields}
    return fields | {39: code}


assert all(mti in ANSWER_MTI for mti in MTI_OF_STEP.values())
