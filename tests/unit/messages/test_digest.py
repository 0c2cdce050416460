from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes

from switch.messages.codec import decode, encode
from switch.messages.digest import content_digest
from tests.helpers.frames import changed, golden, message_of

REQUESTS = [name for name, vector in golden().items() if vector["direction"] == "request"]


def test_golden_requests_have_digests_of_their_own() -> None:
    digests = {content_digest(message_of(name)) for name in REQUESTS}
    assert len(digests) == len(REQUESTS)
    assert {len(digest) for digest in digests} == {32}


@pytest.mark.parametrize(
    "changes",
    [
        {64: bytes(8)},
        {52: bytes(8)},
        {26: "12"},
        {53: "1600000000000000"},
        {26: None, 52: None, 53: None},
        {35: "3133500100000001239=3012"},
        {36: "3133500100000001239=3012"},
    ],
)
def test_pin_tracks_and_mac_do_not_count(changes: dict[int, Any]) -> None:
    name = "ISO-04-PURCHASE-REQ"
    assert content_digest(changed(name, changes)) == content_digest(message_of(name))


@pytest.mark.parametrize(
    "changes",
    [
        {4: "000000001404"},
        {2: "3133500100000045673"},
        {11: "000006"},
        {22: "052"},
        {23: None},
        {63: "01 "},
        {14: "3012"},
    ],
)
def test_everything_else_counts(changes: dict[int, Any]) -> None:
    name = "ISO-04-PURCHASE-REQ"
    assert content_digest(changed(name, changes)) != content_digest(message_of(name))


def test_the_message_type_counts() -> None:
    name = "ISO-04-PURCHASE-REQ"
    assert content_digest(changed(name, {}, mti="0100")) != content_digest(message_of(name))


def test_tpdu_and_header_do_not_count() -> None:
    message = message_of("ISO-04-PURCHASE-REQ")
    other = message._replace(tpdu=bytes.fromhex("6000440011"), header=bytes.fromhex("603100999999"))
    assert content_digest(decode(encode(other))) == content_digest(message)


def test_the_reason_of_a_reversal_does_not_count_and_of_others_it_does() -> None:
    name = "ISO-05-REVERSAL-REQ"
    assert content_digest(changed(name, {39: "A0"})) == content_digest(message_of(name))
    assert content_digest(changed("ISO-06-VOID-REQ", {39: "98"})) != content_digest(
        message_of("ISO-06-VOID-REQ")
    )


def test_an_sm4_pin_block_does_not_count_and_its_neighbours_do() -> None:
    name = "ISO-20-SM4-PURCHASE-REQ"
    first = content_digest(message_of(name))
    block = b"\xdf\x51\x10"
    assert content_digest(changed(name, {55: block + bytes(16)})) == first
    assert content_digest(changed(name, {55: None})) == first
    with_tag = content_digest(changed(name, {55: b"\xdf\x19\x01\x02" + block + bytes(16)}))
    assert with_tag == content_digest(changed(name, {55: b"\xdf\x19\x01\x02" + block + b"\x01" * 16}))
    assert with_tag != first


def test_a_pin_block_does_not_count_even_where_field_55_is_broken() -> None:
    name = "ISO-20-SM4-PURCHASE-REQ"
    broken = b"\xdf\x51\x10" + bytes(16) + b"\xdf"
    other = b"\xdf\x51\x10" + b"\x01" * 16 + b"\xdf"
    assert content_digest(changed(name, {55: broken})) == content_digest(changed(name, {55: other}))


def test_values_cannot_move_from_one_field_to_the_next() -> None:
    one = changed("ISO-04-PURCHASE-REQ", {60: "2200000200050", 61: "0000"})
    two = changed("ISO-04-PURCHASE-REQ", {60: "22000002000500000", 61: ""})
    assert content_digest(one) != content_digest(two)


def test_the_digest_is_sm3_of_the_documented_bytes() -> None:
    head = b"0820:11,41,42,60;"
    state = hashes.Hash(hashes.SM3())
    state.update(head + b"\0".join([b"000029", b"33500001", b"993350054110001", b"00000002002"]))
    assert content_digest(message_of("ISO-22-SIGNOFF-REQ")) == state.finalize()
