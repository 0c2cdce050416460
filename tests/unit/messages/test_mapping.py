"""Every rule of form by a golden request that breaks it, and what is taken and refused all the same."""

from typing import Any

import pytest

from switch.domain import transactions as t
from switch.domain.errors import FormatError, FramingError
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.messages.catalogue import CATALOGUE, Row
from switch.messages.codec import UnsupportedMti
from switch.messages.envelope import read_envelope
from switch.messages.mapping import read_request
from tests.helpers.frames import changed, golden, message_of

Changes = dict[int, Any]
CARD = CardNumber("3133500100000001239")
PIN_BLOCK = bytes.fromhex("B0C1D9AF0CB2D26E")
PIN = t.PinEntry(PIN_BLOCK, t.PinFormat.ISO_0)
ONLINE = t.AccountKind.ONLINE

P, V, B = (
    "ISO-04-PURCHASE-REQ",
    "ISO-06-VOID-REQ",
    "ISO-18-BADMAC-REQ",
)  # purchase with PIN, void, purchase without
R, L, C = "ISO-05-REVERSAL-REQ", "ISO-09-LOAD-REQ", "ISO-09-LOADCONFIRM-REQ"
X, O, S = "ISO-20-SM4-PURCHASE-REQ", "ISO-13-OFFLINE-REQ", "ISO-14-SETTLE-REQ"  # noqa: E741 - columns of a table
N, D, T = "ISO-01-SIGNON-REQ", "ISO-15-BATCHEND-REQ", "ISO-11-NDLOAD-REQ"
LOAD_55, CONFIRM_55 = message_of(L).fields[55], message_of(C).fields[55]
UPLOAD_62 = message_of(O).fields[62]
SETTLE_48 = message_of(S).fields[48]
SM4_55 = message_of(X).fields[55]


def without(raw: bytes, tag: str, size: int) -> bytes:
    at = raw.index(bytes.fromhex(tag))
    return raw[:at] + raw[at + 3 + size :]


#    request, fields changed, the field that the error names
BROKEN: list[tuple[str, Changes, str]] = [
    *[(P, {number: None}, str(number)) for number in (2, 3, 4, 22, 25, 42, 49, 60, 64)],
    *[(V, {number: None}, str(number)) for number in (4, 37, 38, 61)],
    *[(R, {number: None}, str(number)) for number in (4, 39, 61)],
    *[(S, {number: None}, str(number)) for number in (42, 48, 49, 60, 63, 64)],
    *[(N, {number: None}, str(number)) for number in (42, 60, 62, 63)],
    ("ISO-07-REFUND-REQ", {37: None}, "37"),
    ("ISO-07-REFUND-REQ", {61: None}, "61"),
    ("ISO-07-REFUND-REQ", {63: "0"}, "63"),
    ("ISO-12-COMPLETE-REQ", {38: None}, "38"),
    (C, {37: None}, "37"),
    (O, {62: None}, "62"),
    (D, {48: None}, "48"),
    ("ISO-16-BLACKLIST-REQ", {64: None}, "64"),
    (P, {2: "313350010000"}, "2"),
    (P, {11: "000000"}, "11"),
    (P, {14: "3013"}, "14"),
    (P, {14: "3000"}, "14"),
    (P, {22: "061"}, "22"),
    (P, {22: "053"}, "22"),
    (P, {49: "840"}, "49"),
    (P, {60: "22000002000"}, "60"),
    (P, {60: "2200000220150"}, "60"),
    (P, {60: "2200000200010"}, "60"),
    (P, {60: "2200000200051"}, "60"),
    (P, {60: "2300000200050"}, "60"),
    (P, {25: "06"}, "25"),
    (P, {3: "031000"}, "3"),
    # a PIN, or none, and everything that speaks of it
    (P, {52: None}, "52"),
    (P, {26: None}, "26"),
    (P, {53: None}, "53"),
    (P, {26: "03"}, "26"),
    (P, {26: "13"}, "26"),
    (P, {22: "052"}, "22"),
    (B, {22: "051"}, "52"),
    (B, {26: "06"}, "26"),
    (B, {53: "2600000000000000"}, "53"),
    (P, {53: "2000000000000000"}, "53"),
    (P, {53: "2300000000000000"}, "53"),
    (P, {53: "3600000000000000"}, "53"),
    (P, {53: "2620000000000000"}, "53"),
    (P, {53: "2600000000000001"}, "53"),
    (P, {55: SM4_55}, "52"),
    (X, {53: "2600000000000000"}, "53"),
    (X, {55: None}, "52"),
    (V, {52: PIN_BLOCK}, "52"),
    (V, {26: "06"}, "26"),
    (V, {53: "2600000000000000"}, "53"),
    (V, {55: SM4_55}, "DF51"),
    (R, {52: PIN_BLOCK}, "52"),
    (C, {26: "06"}, "26"),
    # originals
    (V, {61: "00000200000503"}, "61"),
    (V, {61: "0000020000051315"}, "61"),
    (V, {61: "0000020000050230"}, "61"),
    (V, {61: "0000020000000315"}, "61"),
    (R, {61: "0000020000070315"}, "61"),
    (R, {61: "0000030000060315"}, "61"),
    (R, {39: "00"}, "39"),
    # field 55
    (L, {55: None}, "55"),
    (L, {55: b""}, "55"),
    (L, {55: LOAD_55 + b"\xdf\x19\x01\x02"}, "DF19"),
    (L, {55: LOAD_55[:-1] + b"\x03"}, "DF19"),
    (L, {55: LOAD_55.replace(b"\xdf\x15\x02\x01\x00", b"\xdf\x15\x02\x01\x01")}, "DF15"),
    (L, {55: LOAD_55.replace(b"\xdf\x15\x02\x01\x00", b"\xdf\x15\x01\x01")}, "DF15"),
    *[
        (L, {55: without(LOAD_55, tag, size)}, tag)
        for tag, size in [
            ("DF11", 10),
            ("DF12", 8),
            ("DF1A", 1),
            ("DF15", 2),
            ("DF13", 4),
            ("DF14", 2),
            ("DF16", 4),
            ("DF17", 4),
            ("DF18", 6),
            ("DF19", 1),
        ]
    ],
    (L, {3: "600010"}, "55"),
    (C, {3: "600010"}, "55"),
    *[
        (C, {55: without(CONFIRM_55, tag, size)}, tag)
        for tag, size in [
            ("DF11", 10),
            ("DF14", 2),
            ("DF18", 6),
            ("DF19", 1),
            ("DF21", 4),
            ("DF22", 3),
            ("DF31", 4),
            ("DF32", 4),
            ("DF33", 2),
        ]
    ],
    (C, {55: CONFIRM_55[:-2] + bytes(2)}, "DF31"),
    ("ISO-10-LOADREV-REQ", {55: without(message_of("ISO-10-LOADREV-REQ").fields[55], "DF13", 4)}, "DF13"),
    ("ISO-10-LOADREV-REQ", {3: "630010"}, "55"),
    (T, {35: "622848012345678900"}, "35"),
    (T, {35: "622848012345678901=3012"}, "35"),
    (P, {35: "3133500100000045673=3012"}, "35"),
    (P, {35: "123"}, "35"),
    ("ISO-12-PREAUTH-REQ", {35: "3133500100000045673=3012"}, "35"),
    # batch and management
    (O, {62: b"\x00"}, "62"),
    (O, {62: b"\x06" + bytes(6 * 83)}, "62"),
    (O, {62: UPLOAD_62[:-1]}, "62"),
    (O, {62: b"\x02" + UPLOAD_62[1:]}, "62"),
    (O, {60: "0000000220350"}, "60"),
    (O, {60: "22000002203"}, "60"),
    (S, {48: SETTLE_48[:-1] + "1"}, "48"),
    (S, {48: SETTLE_48 + "00"}, "48"),
    (S, {49: "840"}, "49"),
    (S, {63: "1"}, "63"),
    (S, {63: "ab "}, "63"),
    (D, {48: "003"}, "48"),
    (D, {60: "00000002201"}, "48"),
    (D, {60: "00000002201", 48: "00"}, "48"),
    (D, {60: "00000002201", 48: "09" + "0" * 320}, "48"),
    (D, {60: "00000002201", 48: "02" + "0" * 40}, "48"),
    (N, {62: b"Serial No16JXSMK00000000001"}, "62"),
    (N, {62: b"Sequence No15JXSMK00000000001"}, "62"),
    (N, {62: b"Sequence No00"}, "62"),
    (N, {62: b"Sequence No1"}, "62"),
    (N, {62: b"Sequence No02\xff\xff"}, "62"),
    ("ISO-16-BLACKLIST-REQ", {62: b"X000000000001"}, "62"),
    ("ISO-16-BLACKLIST-REQ", {62: b"F000000000000"}, "62"),
    ("ISO-16-BLACKLIST-REQ", {62: b"F0000000000x1"}, "62"),
    ("ISO-16-BLACKLIST-REQ", {62: b"F00000000001"}, "62"),
    ("ISO-17-PARAM-REQ", {62: b"000"}, "62"),
    ("ISO-22-SIGNOFF-REQ", {60: "00000002362", 62: b"126013"}, "62"),
    ("ISO-22-SIGNOFF-REQ", {60: "00000002362", 62: b"12601260"}, "62"),
    ("ISO-22-SIGNOFF-REQ", {60: "00000002362", 62: b"9960"}, "62"),
    ("ISO-22-SIGNOFF-REQ", {11: None}, "11"),
    (N, {60: "00000001811", 62: b"\x04" + bytes(64)}, "62"),
    (N, {60: "00000001811", 62: b"\x05" + bytes(64) + b"SN"}, "62"),
    (N, {60: "00000001812", 62: bytes(3)}, "62"),
]


@pytest.mark.parametrize(("name", "changes", "field"), BROKEN)
def test_a_broken_rule_of_form_names_its_field(name: str, changes: Changes, field: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_request(changed(name, changes))
    assert caught.value.field == field
    assert CARD.reveal() not in str(caught.value)


#    request, fields changed, MTI, answer
REFUSED: list[tuple[str, Changes, str, str]] = [
    (B, {3: "011000"}, "", "57"),
    (B, {3: "014000"}, "0100", "57"),
    (B, {3: "211000"}, "", "40"),
    (B, {3: "991000"}, "", "40"),
    (B, {3: "003000"}, "", "40"),
    (B, {3: "001010"}, "", "40"),
    (B, {60: "3600000200050"}, "", "40"),
    (V, {60: "5100000200050"}, "", "40"),
    (L, {3: "604000"}, "", "57"),
    ("ISO-10-CASHLOAD-REQ", {3: "634000"}, "", "57"),
    (L, {3: "600040"}, "", "40"),
    (L, {3: "605000"}, "", "40"),
    (L, {3: "601010", 55: None}, "", "40"),
    ("ISO-10-CASHLOAD-REQ", {3: "631000"}, "", "40"),
    (L, {2: "3133500100000045673"}, "", "14"),
    (
        C,
        {2: "3133500100000045673"},
        "",
        "14",
    ),  # a TAC is not bound to a random number: it could be the other card's
    ("ISO-10-CASHLOAD-REQ", {2: "3133500100000001239"}, "", "14"),
    (N, {60: "00000001370"}, "", "40"),
    ("ISO-02-ECHO-REQ", {60: "00000001999", 11: "000001", 64: bytes(8)}, "", "40"),
    (O, {60: "00000002000"}, "", "40"),
    (S, {60: "00000002202"}, "", "40"),
]


@pytest.mark.parametrize(("name", "changes", "mti", "answer"), REFUSED)
def test_what_can_never_be_approved_is_refused_with_its_answer(
    name: str, changes: Changes, mti: str, answer: str
) -> None:
    message = changed(name, {64: bytes(8)} | changes, mti=mti)
    request = read_request(message)
    assert isinstance(request, t.Refused)
    assert request.answer == answer


#    request, fields changed, what must hold of the request
TAKEN: list[tuple[str, Changes, dict[str, object]]] = [
    (B, {4: "000000000000"}, {"amount_fen": 0}),
    (B, {3: "000000"}, {"account": ONLINE}),
    (B, {3: "002000"}, {"account": t.AccountKind.BANK}),
    (B, {3: "005000"}, {"account": t.AccountKind.PURSE}),
    (B, {22: "050"}, {"pin": None}),
    (B, {53: "0000000000000000"}, {"pin": None}),
    (B, {54: "", 63: "hello", 37: "000000000000"}, {"amount_fen": 1403}),
    (P, {22: "050"}, {"pin": PIN}),
    (P, {53: "1600000000000000"}, {"pin": t.PinEntry(PIN_BLOCK, t.PinFormat.NO_PAN)}),
    (P, {53: "2610000000000000"}, {"pin": PIN}),
    (X, {55: b"\x9f\x26\x02\x01\x02" + SM4_55}, {"amount_fen": 1403}),
    (V, {53: "0000000000000000"}, {"rrn": "407508000004"}),
    (V, {25: "06", 60: "2100000200050"}, {"auth_code": "A00200", "rrn": "407508000004"}),
    (L, {3: "601000"}, {"source": t.LoadSource.ONLINE}),
    (L, {3: "602050"}, {"source": t.LoadSource.BOUND_BANK}),
    (L, {3: "600010", 55: None}, {"source": t.LoadSource.BOUND_BANK, "purse": None}),
    (L, {3: "600010", 55: SM4_55, 52: None, 53: "2300000000000000"}, {"purse": None}),
    (T, {3: "620010", 55: None}, {"source": t.LoadSource.OTHER_BANK, "purse": None}),
    (T, {35: "6228ABCDEF".replace("D", "="), 53: "2610000000000000"}, {"tracks_encrypted": True}),
    (C, {55: without(CONFIRM_55, "DF31", 4)[:-2] + bytes(2)}, {}),
    (R, {3: "011000"}, {"of": t.Kind.REFUSED, "account": ONLINE}),
    (R, {25: "06"}, {"of": t.Kind.REFUSED}),
    (R, {3: "604000", 25: "91", 60: "4500000200050"}, {"of": t.Kind.LOAD, "account": t.AccountKind.MEDICAL}),
    (R, {3: "201000", 60: "2300000200050"}, {"of": t.Kind.VOID}),
    (R, {3: "031000", 25: "06", 60: "1000000200050"}, {"of": t.Kind.PRE_AUTHORISATION}),
    (D, {60: "00000002202"}, {"balanced": False}),
    ("ISO-16-BLACKLIST-REQ", {60: "00000002391", 62: None}, {"block": None}),
    ("ISO-17-PARAM-REQ", {60: "00000002361", 62: None}, {"block": None}),
    (
        "ISO-22-SIGNOFF-REQ",
        {60: "00000002362", 62: b"12603100000041"},
        {"values": (("12", "60"), ("31", "00000041"))},
    ),
    (N, {60: "00000001811", 62: b"\x04" + bytes(64) + b"SN1"}, {"serial_number": "SN1"}),
    (N, {60: "00000001811", 62: b"\x04" + bytes(64) + b"Sequence No03SN1"}, {"serial_number": "SN1"}),
    (N, {60: "00000001812", 62: b"\x01\x02\x03\x04"}, {"kcv": b"\x01\x02\x03\x04"}),
    (N, {60: "00000001006"}, {"with_track_key": True, "sm4": True}),
]


@pytest.mark.parametrize(("name", "changes", "expected"), TAKEN)
def test_what_is_of_form_is_taken(name: str, changes: Changes, expected: dict[str, object]) -> None:
    request = read_request(changed(name, changes))
    assert not isinstance(request, t.Refused)
    assert {key: getattr(request, key) for key in expected} == expected


def test_a_confirm_of_a_card_that_was_gone_has_no_tac() -> None:
    request = read_request(changed(C, {55: without(CONFIRM_55, "DF31", 4)[:-2] + bytes(2)}))
    assert isinstance(request, t.LoadConfirm)
    assert request.purse is not None
    assert (request.purse.tac, request.purse.balance_after_fen, request.purse.status_word) == (None, None, 0)


def test_details_are_cut_from_field_48() -> None:
    one = "01" + "000005" + "0" + "3133500100000001239" + "000000001403"
    request = read_request(changed(D, {60: "00000002201", 48: "02" + one + one}))
    assert isinstance(request, t.DetailUpload)
    assert request.details == (t.Detail("01", 5, "03133500100000001239", Fen(1403)),) * 2
    assert "3133500100000001239" not in repr(request)


def test_a_detail_names_a_trace_that_can_be() -> None:
    one = "01" + "000000" + "0" + "3133500100000001239" + "000000001403"
    with pytest.raises(FormatError, match="000000") as caught:
        read_request(changed(D, {60: "00000002201", 48: "01" + one}))
    assert caught.value.field == "48"


def example(row: Row) -> Changes:
    """The fields that make a void into the transaction of a row."""
    load = row.kind in (t.Kind.LOAD, t.Kind.LOAD_CONFIRM)
    return {3: f"{row.code}00{'10' if load else '00'}", 25: row.condition, 60: f"{row.type}00000200050"}


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: f"{row.mti}-{row.code}-{row.type}")
def test_every_row_of_the_catalogue_is_taken_and_reversed_as_what_it_is(row: Row) -> None:
    request = read_request(changed(V, {22: "052"} | example(row), mti=row.mti))
    names = {t.Kind.COMPLETION_ADVICE: "Completion"}
    assert type(request).__name__ == names.get(row.kind, row.kind.name.title().replace("_", ""))
    reversal = read_request(changed(V, example(row) | {39: "98", 61: "0000020000070315"}, mti="0400"))
    assert isinstance(reversal, t.Reversal)
    same_codes = [other.kind for other in CATALOGUE if other.reversible and other[2:5] == row[2:5]]
    assert reversal.of is (same_codes[0] if same_codes else t.Kind.REFUSED)


def test_an_answer_is_no_request() -> None:
    answer = message_of("ISO-04-PURCHASE-RSP")
    for read in (read_request, read_envelope):
        with pytest.raises(UnsupportedMti) as caught:
            read(answer)
        assert isinstance(caught.value, FramingError)


def test_an_envelope_is_read_leniently() -> None:
    envelope = read_envelope(message_of(P))
    assert envelope[:7] == ("0200", "33500001", "993350054110001", 5, 2, "22", "000")
    assert (envelope.training, envelope.has_mac, envelope.mac_required) == (False, True, True)
    assert envelope.request_class is t.RequestClass.FINANCIAL
    bare = read_envelope(changed(P, {42: None, 60: "22", 64: None}))
    assert (bare.merchant_id, bare.batch_no, bare.network_code, bare.has_mac) == ("", None, "", False)
    assert read_envelope(message_of(R)).request_class is t.RequestClass.REVERSAL
    echo = read_envelope(message_of("ISO-02-ECHO-REQ"))
    assert (echo.stan, echo.request_class, echo.mac_required) == (None, None, False)


@pytest.mark.parametrize("name", [name for name, v in golden().items() if v["direction"] == "request"])
def test_a_mac_is_required_exactly_where_the_golden_frames_have_one(name: str) -> None:
    envelope = read_envelope(message_of(name))
    assert envelope.mac_required == envelope.has_mac


def test_a_training_terminal_is_known_by_its_header() -> None:
    message = message_of(P)._replace(header=bytes.fromhex("613110310001"))
    assert read_envelope(message).training
