from datetime import UTC, date, datetime
from typing import Any

import pytest

from switch.domain.decisions import BalanceFigure, Decline, Outcome
from switch.domain.money import Fen
from switch.messages.answers import DE39, Processing, build_answer, build_bare
from switch.messages.codec import MessageFormatError, decode
from switch.messages.framing import frame
from switch.messages.structures import RESPONSES
from tests.helpers.frames import changed, golden, message_of, negative

AT = datetime(2024, 3, 15, 0, 15, 30, 999_999, UTC)  # 08:15:30 in Shanghai
BARE = {"ISO-18-BADMAC-RSP"}
SAME_REQUEST = {
    "ISO-05-REVERSAL-DUP-RSP": "ISO-05-REVERSAL-REQ",
    "ISO-14-SETTLE-UNBAL-RSP": "ISO-14-SETTLE-REQ",
}
ANSWERS = {name: vector for name, vector in golden().items() if vector["direction"] == "response"}


def request_of(name: str) -> str:
    return SAME_REQUEST.get(name, name.replace("-RSP", "-REQ"))


def balances_of(text: str) -> tuple[BalanceFigure, ...]:
    return tuple(
        BalanceFigure(int(text[at : at + 2]), int(text[at + 2 : at + 4]), Fen(int(text[at + 8 : at + 20])))
        for at in range(0, len(text), 20)
    )


def outcome_of(fields: dict[str, Any]) -> Outcome:
    """The outcome that a golden answer tells of."""
    return Outcome(
        answer=fields["39"],
        rrn=fields["37"],
        decided_at=AT,
        clearing_date=date(2024, 3, 15) if "15" in fields else None,
        auth_code=fields.get("38", ""),
        balances=balances_of(fields.get("54", "")),
        field48=fields.get("48", ""),
        field62=bytes.fromhex(fields.get("62", "")),
        field55=bytes.fromhex(fields.get("55", "")),
    )


@pytest.mark.parametrize("name", [name for name in ANSWERS if name not in BARE])
def test_a_golden_answer_is_built_from_its_request_and_outcome_byte_for_byte(name: str) -> None:
    vector = ANSWERS[name]
    fields = vector["fields"]
    request = message_of(request_of(name))
    prefix, mab = build_answer(
        request,
        outcome_of(fields),
        acquirer=fields["32"],
        processing=int(vector["header"][5]),
        batch_no=int(fields["60"][2:8]) if "SIGNON" in name else None,
        institutions=fields.get("44", ""),
    )
    assert prefix.hex().upper() == vector["tpdu"] + vector["header"]
    if vector["mab"]:
        assert mab.hex().upper() == vector["mab"]
    assert frame(prefix + mab + bytes.fromhex(vector["field64"] or "")).hex().upper() == vector["frame"]


def test_the_answer_to_a_wrong_mac_is_bare() -> None:
    vector = golden()["ISO-18-BADMAC-RSP"]
    prefix, mab = build_bare(message_of("ISO-18-BADMAC-REQ"), "A0", AT, with_mac=True)
    assert mab.hex().upper() == vector["mab"]
    assert (prefix + mab + bytes.fromhex(vector["field64"])).hex().upper() == vector["frame"][4:]


def test_a_bare_answer_without_keys_has_no_bit_64() -> None:
    prefix, mab = build_bare(message_of("ISO-04-PURCHASE-REQ"), "97", AT, with_mac=False)
    answer = decode(prefix + mab)
    assert list(answer.fields) == [3, 11, 12, 13, 39, 41, 42, 60]
    assert answer.fields[39] == "97"


def test_what_could_be_read_of_a_broken_frame_is_enough_for_its_answer() -> None:
    raw = bytes.fromhex(negative()["NEG-F4-NONBCD"]["in"]["bytes"])[2:]
    with pytest.raises(MessageFormatError) as caught:
        decode(raw)
    answer = decode(b"".join(build_bare(caught.value.readable, "30", AT, with_mac=False)))
    assert answer.fields == {
        3: "001000",
        11: "000005",
        12: "081530",
        13: "0315",
        39: "30",
        41: "33500001",
        42: "993350054110001",
        60: "2200000200050",
    }


def test_header_digit_six_is_set_and_the_others_are_copied() -> None:
    request = message_of("ISO-04-PURCHASE-REQ")._replace(header=bytes.fromhex("603115123456"))
    prefix, _ = build_bare(request, "A0", AT, with_mac=False, processing=Processing.SIGN_ON)
    assert prefix.hex() == "6000000033" + "603113123456"


def test_a_training_terminal_reads_its_own_state_in_the_answer() -> None:
    request = message_of("ISO-04-PURCHASE-REQ")._replace(header=bytes.fromhex("613110310001"))
    prefix, _ = build_bare(request, "00", AT, with_mac=False)
    assert prefix[5:].hex() == "613110310001"


def test_a_declined_request_carries_no_authorisation_code() -> None:
    outcome = Outcome("51", "407508000004", AT, auth_code="A00200")
    prefix, mab = build_answer(message_of("ISO-04-PURCHASE-REQ"), outcome, acquirer="49993350")
    answer = decode(prefix + mab + bytes(8))
    assert 38 not in answer.fields
    assert 15 not in answer.fields
    assert {26, 52, 53, 22, 23} & answer.fields.keys() == set()


def test_a_refund_and_a_reversal_carry_no_authorisation_code() -> None:
    outcome = Outcome("00", "407508000004", AT, auth_code="A00200")
    for name in ("ISO-07-REFUND-REQ", "ISO-05-REVERSAL-REQ"):
        prefix, mab = build_answer(message_of(name), outcome, acquirer="49993350")
        assert 38 not in decode(prefix + mab + bytes(8)).fields


def test_a_negative_balance_is_a_debit() -> None:
    outcome = Outcome("00", "407508000003", AT, balances=(BalanceFigure(10, 2, Fen(-5)),))
    prefix, mab = build_answer(message_of("ISO-03-BALANCE-REQ"), outcome, acquirer="49993350")
    assert decode(prefix + mab + bytes(8)).fields[54] == "1002156D000000000005"


def test_an_even_pan_and_an_odd_acquirer_are_padded_rightly() -> None:
    request = changed("ISO-04-PURCHASE-REQ", {2: "622848012345678900"})
    prefix, mab = build_answer(request, Outcome("14", "407508000004", AT), acquirer="1234567")
    answer = decode(prefix + mab + bytes(8))
    assert answer.fields[2] == "622848012345678900"
    assert answer.fields[32] == "1234567"


def test_an_answer_does_not_repeat_fields_that_have_no_place_in_it() -> None:
    request = changed("ISO-14-SETTLE-REQ", {2: "3133500100000001239", 3: "001000", 25: "00"})
    prefix, mab = build_answer(request, Outcome("00", "407508000016", AT), acquirer="49993350")
    assert {2, 3, 25} & decode(prefix + mab + bytes(8)).fields.keys() == set()


@pytest.mark.parametrize(
    "name", [name for name, vector in golden().items() if vector["direction"] == "request"]
)
def test_every_request_can_be_answered_with_every_code(name: str) -> None:
    request = message_of(name)
    for code in RESPONSES:
        prefix, mab = build_answer(request, Outcome(code, "407508000004", AT), acquirer="49993350")
        assert decode(prefix + mab + request.field64).fields[39] == code
        prefix, mab = build_bare(request, code, AT, with_mac=False)
        assert decode(prefix + mab).fields[39] == code


def test_every_reason_to_decline_has_a_code_of_the_table() -> None:
    assert set(DE39) == set(Decline)
    assert set(DE39.values()) <= set(RESPONSES)
    assert DE39[Decline.TOMBSTONED] == "22"
    assert DE39[Decline.DUPLICATE_KEY] == "94"
