"""What is encoded is decoded, for every kind of field and any set of them."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from switch.domain.decisions import BalanceFigure, Outcome
from switch.messages.answers import build_answer
from switch.messages.codec import decode, encode
from switch.messages.digest import content_digest
from switch.messages.examine import examine
from switch.messages.framing import FrameReader, frame
from switch.messages.kinds import Encoding
from switch.messages.message import Message
from switch.messages.spec import FieldSpec
from switch.messages.terminal_1987 import FIELDS, MTI_NAMES, REQUEST_MTIS
from tests.helpers.frames import message_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
ALPHABET = {
    Encoding.BCD_LEFT: "0123456789",
    Encoding.BCD_RIGHT: "0123456789",
    Encoding.TRACK: "0123456789=ABCEF",
    Encoding.ALPHANUMERIC: LETTERS + " ",
    Encoding.PRINTABLE: "".join(map(chr, range(32, 127))),
}


def value_of(spec: FieldSpec) -> st.SearchStrategy[Any]:
    least = spec.size if spec.fixed else 0
    encoding = spec.kind.encoding
    if encoding is Encoding.BINARY:
        return st.binary(min_size=least, max_size=spec.size)
    if encoding is Encoding.GB18030:
        return st.text("卡消費ABC 123", max_size=spec.size // 4)
    return st.text(ALPHABET[encoding], min_size=least, max_size=spec.size)


OTHERS = {number: value_of(spec) for number, spec in FIELDS.items() if number not in (11, 41)}
MESSAGES = st.builds(
    lambda tpdu, header, mti, always, others: Message(
        b"\x60" + tpdu, bytes.fromhex(header), mti, always | others
    ),
    st.binary(min_size=4, max_size=4),
    st.from_regex(r"\A[0-9]{4}[01][0-9]{7}\Z"),
    st.sampled_from(sorted(MTI_NAMES)),
    st.fixed_dictionaries({11: value_of(FIELDS[11]), 41: value_of(FIELDS[41])}),
    st.fixed_dictionaries({}, optional=OTHERS),
)


@given(MESSAGES)
@settings(max_examples=150)
def test_a_message_survives_the_wire(message: Message) -> None:
    body = encode(message)
    if len(body) > 2048:
        return
    read = decode(body)
    assert read._replace(body=b"") == message
    assert encode(read) == body
    assert read.mab + read.field64 == body[11:]
    found = examine(body)
    assert found.faults == ()
    assert found.message == read
    assert len(content_digest(read)) == 32
    for number, spec in FIELDS.items():
        if number in message.fields:
            assert spec.encode(message.fields[number]) in body


@given(st.lists(MESSAGES, max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_a_stream_may_be_cut_anywhere(messages: list[Message], chance: Any) -> None:
    bodies = [body for body in map(encode, messages) if len(body) <= 2048]
    stream = b"".join(map(frame, bodies))
    reader = FrameReader()
    found: list[bytes] = []
    at = 0
    while at < len(stream):
        size = chance.randint(1, 400)
        found += reader.feed(stream[at : at + size])
        at += size
    assert found == bodies


@given(
    st.sampled_from(REQUEST_MTIS),
    MESSAGES,
    st.builds(
        Outcome,
        answer=st.sampled_from(["00", "51", "A0"]),
        rrn=st.text(LETTERS, min_size=12, max_size=12),
        decided_at=st.floats(0, 4e9).map(lambda second: datetime.fromtimestamp(second, UTC)),
        clearing_date=st.none() | st.dates(),
        auth_code=st.sampled_from(["", "A00001"]),
        balances=st.lists(
            st.builds(
                BalanceFigure,
                st.sampled_from([10, 40]),
                st.sampled_from([1, 2]),
                st.integers(-(10**11), 10**11),
            ),
            max_size=2,
        ).map(tuple),
        field48=st.sampled_from(["", "0003", "1" * 62]),
        field62=st.binary(max_size=512),
        field55=st.binary(max_size=20),
    ),
    st.integers(0, 7),
    st.text("0123456789", min_size=1, max_size=11),
)
@settings(max_examples=150)
def test_any_answer_to_any_request_can_be_read(
    mti: str, request: Message, outcome: Outcome, processing: int, acquirer: str
) -> None:
    custom = "22000001000" if 60 in request.fields else None
    request = request._replace(mti=mti, fields=request.fields | ({60: custom} if custom else {}))
    prefix, mab = build_answer(request, outcome, acquirer=acquirer, processing=processing, batch_no=7)
    answer = decode(prefix + mab + request.fields.get(64, b""))
    assert answer.fields[39] == outcome.answer
    assert answer.fields[32] == acquirer
    assert answer.fields.get(62, b"") == outcome.field62
    assert (64 in answer.fields) == (64 in request.fields)
    assert answer.header[2] & 15 == processing
    assert custom is None or answer.fields[60] == "22000007000"


def test_the_golden_purchase_is_among_them() -> None:
    message = message_of("ISO-04-PURCHASE-REQ")
    assert decode(encode(message)) == message
