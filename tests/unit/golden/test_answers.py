"""What the replay notices in an answer: each field that is gone, new or other than it may be; and that the document lists what it does not."""

from datetime import datetime
from pathlib import Path

import pytest

from switch.domain.calendar import SHANGHAI
from switch.messages.codec import decode, encode
from switch.messages.message import Message
from switch.messages.terminal_1987 import MAC_BYTES, MTI_AT
from terminal_sim.frames import PinPad
from tests.golden.answers import EVERYWHERE, HERE, LEFT_OUT, PROCESSING, Exchange, faults_of
from tests.golden.day import NOT_REPLAYED
from tests.golden.requests import golden, original_key, seed, vectors
from tests.unit.golden.helpers import golden_originals, golden_pad, golden_terminal_of

DOCUMENT = (Path(__file__).parents[3] / "docs/golden_frames.md").read_text(encoding="utf-8")
# The instant of a load, in 55, is checked by its MAC2: in the replay, where it is one of today.
ANSWERS = [
    name
    for name in vectors()
    if name.endswith("-RSP") and name.replace("-RSP", "-REQ") in vectors() and 55 not in golden(name).fields
]
OTHER = {12: "250000", 13: "1332", 15: "1332", 37: "ABCDEFGHIJKL", 38: "abcdef", 62: b"0"}


def signed(message: Message, pad: PinPad | None) -> Message:
    """A message that was read, with a good MAC where it has one."""
    body = encode(message)
    if 64 in message.fields:
        assert pad is not None
        body = body[:-MAC_BYTES] + pad.field64(body[MTI_AT:-MAC_BYTES])
    return decode(body)


def of_today(name: str) -> Exchange:
    """A golden request and its golden answer, as if they were of this moment."""
    vector, request, answer = vectors()[name], golden(name.replace("-RSP", "-REQ")), golden(name)
    pad = golden_pad(vector)
    now = datetime.now(SHANGHAI)
    fields = dict(answer.fields) | {13: f"{now:%m%d}"}
    if 15 in fields:
        fields[15] = f"{now:%m%d}"
    if 37 in fields and request.fields.get(37) != fields[37] and answer.mti != "0410":
        fields[37] = f"{now:%Y%j%H}"[3:] + "00000A"
    if name in PROCESSING:
        head = answer.header
        answer = answer._replace(header=head[:2] + bytes((head[2] | PROCESSING[name][0],)) + head[3:])
    key = original_key(request)
    told = golden_originals()[key] if key else None
    made = signed(answer._replace(fields=fields), pad)
    return Exchange(request, golden(name), request, made, golden_terminal_of(vector), pad, told)


def with_fields(exchange: Exchange, fields: dict[int, object]) -> Exchange:
    """The same exchange with other fields in its answer, under a good MAC."""
    changed = exchange.answer._replace(fields={n: fields[n] for n in sorted(fields)})
    return exchange._replace(answer=signed(changed, exchange.pin_pad))


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_with_the_golden_values_has_no_faults(name: str) -> None:
    exchange = of_today(name)
    if name.startswith("ISO-20-SM4-SIGNON"):
        exchange = exchange._replace(terminal=golden_terminal_of(vectors()["ISO-20-SM4-PURCHASE-REQ"]))
    assert faults_of(name, exchange) == []


@pytest.mark.parametrize("name", ANSWERS)
def test_a_field_that_is_missing_new_or_other_is_noticed(name: str) -> None:
    exchange = of_today(name)
    fields = exchange.answer.fields
    for number, value in fields.items():
        if number not in (
            11,
            41,
            64,
        ):  # no answer is read without the first two, and the last is made anew here
            without = {n: kept for n, kept in fields.items() if n != number}
            missing = faults_of(name, with_fields(exchange, without))
            assert ((name, number) in LEFT_OUT) == (f"field {number} is missing" not in missing)
        if number != 64:
            other = OTHER.get(number) or (value[:-1] + ("1" if value[-1] == "0" else "0"))
            if other != value:
                assert faults_of(name, with_fields(exchange, fields | {number: other})), number
    assert faults_of(name, with_fields(exchange, fields | {14: "3412"}))


@pytest.mark.parametrize("name", [name for name in ANSWERS if 64 in golden(name).fields])
def test_a_wrong_mac_of_an_answer_is_noticed(name: str) -> None:
    exchange = of_today(name)
    body = exchange.answer.body
    spoilt = decode(body[:-1] + bytes((body[-1] ^ 1,)))
    assert faults_of(name, exchange._replace(answer=spoilt)) == [
        f"field 64 has not the form it should have: {EVERYWHERE[64].reason}"
    ]


@pytest.mark.parametrize("name", ANSWERS)
def test_another_header_is_noticed(name: str) -> None:
    exchange = of_today(name)
    head = exchange.answer.header
    asked = exchange.answer._replace(header=head[:2] + bytes((head[2] ^ 0x01,)) + head[3:])
    assert [fault for fault in faults_of(name, exchange._replace(answer=asked)) if "header" in fault]


def test_the_document_lists_every_difference_with_its_reason() -> None:
    for listed in (*EVERYWHERE.values(), *HERE.values()):
        assert f"| {listed.what} | {listed.reason} |" in DOCUMENT
    for (name, number), reason in LEFT_OUT.items():
        assert f"| {name} | no field {number} | {reason} |" in DOCUMENT
    for name, (digit, reason) in PROCESSING.items():
        assert f"| {name} | header digit 6 is {digit} | {reason} |" in DOCUMENT


def test_the_document_names_what_is_not_played() -> None:
    assert all(name in DOCUMENT for name in NOT_REPLAYED)


def test_the_document_shows_the_cards_of_the_seed() -> None:
    for card in seed()["cards"]:
        purse = f"{card['purse_online_atc']}, {card['purse_offline_atc']}"
        line = next(line for line in DOCUMENT.splitlines() if line.startswith(f"| {card['pan']}"))
        assert f"| {card['pin']} |" in line
        assert purse in line
