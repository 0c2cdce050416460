"""Typed requests to hosts become exactly the golden frames, and answers become typed answers or are refused."""

from datetime import date, datetime
from typing import Any

import pytest

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import FormatError
from switch.domain.hosts import (
    HostKey,
    HostOriginal,
    HostRequest,
    HostService,
    HostStep,
    Unknown,
    ZonePin,
    host_key,
)
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, PinFormat
from switch.messages.dialect import HostMessage, decode, encode
from switch.messages.host_1987 import BCD, DIALECTS
from switch.messages.host_mapping import (
    AnswerKey,
    Parties,
    answer_key,
    read_answer,
    request_fields,
    request_key,
)
from tests.unit.messages.test_host_dialect import dialect_of, frame_of, golden

AT = datetime(2026, 11, 25, 10, 30, 15, tzinfo=SHANGHAI)
PARTIES = Parties("49993350", "01020000")
PURCHASE = HostRequest(
    step=HostStep.FINANCIAL,
    service=HostService.PURCHASE,
    key=host_key(17, AT),
    at=AT,
    card=CardNumber("6228480123456789006"),
    account=AccountKind.BANK,
    amount_fen=Fen(1234),
    terminal_id="33500001",
    merchant_id="335000000000017",
    reference="632910A00017",
    entry_mode="051",
    card_sequence="001",
)
ORIGINAL = HostOriginal(HostStep.FINANCIAL, PURCHASE.key)


def with_trace(trace: int, **changes: Any) -> HostRequest:
    return PURCHASE._replace(key=host_key(trace, AT), **changes)


REQUESTS = {
    "PURCHASE-REQ": PURCHASE._replace(expiry="3012", merchant_type="4111"),
    "PURCHASE-TRACK-REQ": PURCHASE._replace(entry_mode="021", track2="6228480123456789006=30121200123"),
    "BALANCE-REQ": PURCHASE._replace(service=HostService.BALANCE, amount_fen=None),
    "PREAUTH-REQ": with_trace(
        18, step=HostStep.AUTHORISATION, service=HostService.PRE_AUTHORISATION, condition="06"
    ),
    "REFUND-REQ": with_trace(
        19, step=HostStep.ADVICE, service=HostService.RETURN, authorisation_code="000042", original=ORIGINAL
    ),
    "REVERSAL-REQ": with_trace(20, step=HostStep.REVERSAL, original=ORIGINAL, reason="98"),
    "REVADVICE-REQ": with_trace(20, step=HostStep.REVERSAL_ADVICE, original=ORIGINAL, reason="98"),
    "MEDICAL-REQ": with_trace(21, account=AccountKind.MEDICAL, details="類別=01;自付=300"),
}


def pin_of(vector: dict[str, Any]) -> ZonePin | None:
    """The block in a golden frame."""
    fields = vector["in"]["fields"]
    if "26" not in fields:
        return None
    if vector["alg"] == "SM4":
        return ZonePin(bytes.fromhex(fields["55"])[3:], PinFormat.SM4_PAN)
    return ZonePin(bytes.fromhex(fields["52"]), PinFormat.ISO_0)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("algorithm", ["3DES", "SM4"])
@pytest.mark.parametrize("form", DIALECTS)
def test_a_typed_request_becomes_its_golden_frame(form: str, algorithm: str, name: str) -> None:
    vector = golden()[f"HOST-{form.upper()}-{algorithm}-{name}"]
    mti, fields = request_fields(REQUESTS[name], PARTIES, pin_of(vector))
    assert encode(dialect_of(vector), mti, fields).hex().upper() == vector["out"]["mab"]


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "98"},
        {"step": HostStep.REVERSAL, "original": ORIGINAL},
        {"step": HostStep.REVERSAL, "reason": "98"},
        {"service": HostService.RETURN},
        {"amount_fen": None},
        {"service": HostService.BALANCE},
    ],
)
def test_a_request_that_contradicts_itself_is_our_own_fault(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        request_fields(PURCHASE._replace(**changes), PARTIES, None)


def test_only_a_request_that_asks_carries_a_pin() -> None:
    pin = ZonePin(bytes(8), PinFormat.ISO_0)
    with pytest.raises(ValueError, match="PIN"):
        request_fields(PURCHASE._replace(step=HostStep.ADVICE), PARTIES, pin)
    assert "00" not in repr(pin)


def test_a_business_date_is_told_when_it_is_known() -> None:
    _, fields = request_fields(PURCHASE._replace(business_date=date(2026, 11, 26)), PARTIES, None)
    assert fields[15] == "1126"


def answer(changes: dict[int, Any]) -> HostMessage:
    """The golden purchase answer with other fields, through the codec; None takes one out."""
    message = decode(BCD, frame_of("HOST-BCD-3DES-PURCHASE-RSP")[2:])
    fields = {n: v for n, v in (message.fields | changes).items() if v is not None and n != 128}
    return decode(BCD, encode(BCD, message.mti, fields) + message.mac)


SENT = request_fields(PURCHASE, PARTIES, None)[1]


def test_an_answer_is_read() -> None:
    found = read_answer(SENT, answer({44: "SO BE IT ", 38: "A12B34"}))
    assert found.key == PURCHASE.key
    assert (found.code, found.authorisation_code, found.amount_fen) == ("00", "A12B34", 1234)
    assert (found.settlement_day, found.text, found.reference) == ("1125", "SO BE IT", "632910A00017")
    assert answer_key(answer({})) == request_key(PURCHASE) == AnswerKey("0200", HostKey("1125103015", 17))


#   what the answer says otherwise    field at fault
CONTRADICTIONS = [
    ({4: "000000001235"}, "4"),
    ({4: None}, "4"),
    ({3: "002001"}, "3"),
    ({32: "49993351"}, "32"),
    ({41: "33500002"}, "41"),
    ({42: "335000000000018"}, "42"),
    ({39: None}, "39"),
    ({39: "  "}, "39"),
]


@pytest.mark.parametrize(("changes", "field"), CONTRADICTIONS)
def test_an_answer_about_something_else_is_no_answer(changes: dict[int, Any], field: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_answer(SENT, answer(changes))
    assert caught.value.field == field


#   field 54                                              available
BALANCES = [
    ("2001156C0000000998772002156C000000099877", 99877),
    ("2002156D000000000100", -100),
    ("2001156C000000099877", None),
    ("2002840C000000099877", None),
    ("2002156C00000009987", None),
    ("2002156X000000099877", None),
    ("2002156C00000009987A", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "available"), BALANCES)
def test_the_available_balance_is_found_or_left_out(text: str, available: int | None) -> None:
    assert read_answer(SENT, answer({54: text or None})).available_fen == available


def test_a_message_without_a_key_answers_nothing() -> None:
    assert answer_key(answer({7: None})) is None
    assert answer_key(answer({11: None})) is None
    assert answer_key(decode(BCD, frame_of("HOST-BCD-3DES-PURCHASE-REQ")[2:])) is None


def test_a_key_is_in_local_time_and_every_unknown_end_has_a_reason_code() -> None:
    assert host_key(1, datetime.fromisoformat("2026-12-31T18:00:00+00:00")) == HostKey("0101020000", 1)
    assert {why.reason for why in Unknown} == {"98", "A0", "96"}
