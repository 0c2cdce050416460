"""Statements are read whole, byte by byte and in noise; what is hostile is refused before it costs anything."""

import random
import tracemalloc
from collections import deque
from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest

from switch.clearing.settlement.camt import (
    TOKEN_BYTES_MAX,
    End,
    Entry,
    Event,
    Head,
    StatementReader,
    StatementRefused,
)
from terminal_sim.custody_bank import CustodyBank

NOW = datetime(2024, 3, 18, 9, 0, tzinfo=UTC)


def paper(*, final: bool = True) -> bytes:
    bank = CustodyBank("6222000000000000012", -250)
    bank.move("P20240318000001", -12_345)
    bank.move("P20240318000001", 12_345, reason="AC04")
    bank.move("", 7, "for C20240318000001 & more <b>")
    return bank.statement(NOW) if final else bank.notification(NOW)


def read(data: bytes, step: int = 0) -> list[Event]:
    reader = StatementReader()
    events = []
    for at in range(0, len(data), step or 1_000_000):
        events += reader.feed(data[at : at + (step or 1_000_000)])
    return events + reader.finish()


EXPECTED = [
    Head("camt.053", "STMT-000001", NOW, "6222000000000000012", -250, -243),
    Entry("B000000001", "P20240318000001", "", 12_345, False, True, "", date(2024, 3, 18)),
    Entry("B000000002", "P20240318000001", "", 12_345, True, True, "AC04", date(2024, 3, 18)),
    Entry(
        "B000000003", "NOTPROVIDED", "for C20240318000001 & more <b>", 7, True, True, "", date(2024, 3, 18)
    ),
    End(3, 12_352, 12_345),
]


def test_a_statement_is_read_whole_and_byte_by_byte() -> None:
    assert read(paper()) == EXPECTED
    assert read(paper(), 1) == EXPECTED
    notified = read(paper(final=False))
    assert notified[0] == EXPECTED[0]._replace(
        kind="camt.054", statement_id="NTFCTN-000001", opening_fen=None, closing_fen=None
    )
    assert notified[1:] == EXPECTED[1:]


def test_entries_without_details_and_with_several_are_read_too() -> None:
    text = paper().decode()
    begin, end = text.index("<NtryDtls>"), text.index("</NtryDtls>") + len("</NtryDtls>")
    assert read((text[:begin] + text[end:]).encode())[1] == Entry(
        "B000000001", "", "", 12_345, False, True, "", date(2024, 3, 18)
    )
    details = text[begin:end]
    two = details.replace("123.45", "23.45").removesuffix("</NtryDtls>") + details.replace(
        "123.45", "100.00"
    ).removeprefix("<NtryDtls>")
    events = read((text[:begin] + two + text[end:]).encode())
    assert [event.amount_fen for event in events if isinstance(event, Entry)] == [2_345, 10_000, 12_345, 7]
    with pytest.raises(StatementRefused, match="do not add up"):
        read((text[:begin] + details.replace("123.45", "23.45") + text[end:]).encode())


def test_several_statements_of_a_file_have_sums_of_their_own() -> None:
    one = paper()
    begin, end = one.index(b"<Stmt>"), one.index(b"</Stmt>") + len(b"</Stmt>")
    second = one[begin:end].replace(b"STMT-000001", b"STMT-000002")
    events = read(one[:end] + second + one[end:], 5)
    assert events[:5] == EXPECTED
    assert events[5] == EXPECTED[0]._replace(statement_id="STMT-000002")
    assert events[6:] == EXPECTED[1:]


def test_supplementary_data_and_what_nobody_needs_are_passed_over() -> None:
    more = (
        b'<SplmtryData><Envlp><x:y xmlns:x="urn:bank"><x:Amt>1</x:Amt></x:y></Envlp></SplmtryData></TxDtls>'
    )
    assert read(paper().replace(b"</TxDtls>", more)) == EXPECTED


def test_line_breaks_and_wide_spaces_in_a_text_are_one_space() -> None:
    broken = paper().replace(b"for C20240318000001 &", "for\n\t C20240318000001\u3000&".encode())
    assert read(broken) == EXPECTED
    assert read(broken, 1) == EXPECTED


def test_sums_that_no_column_holds_are_refused() -> None:
    many = paper(final=False).replace(b">0.07<", b">9999999999999.99<")
    entry = many[many.rindex(b"<Ntry>") : many.rindex(b"</Ntry>") + 7]
    with pytest.raises(StatementRefused, match="18 digits"):
        read(many.replace(entry, entry * 1_001))


BOMB = b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><d>&b;</d>'
OUTSIDE = b'<?xml version="1.0"?><!DOCTYPE d SYSTEM "file:///etc/passwd"><d/>'
REFUSED = [
    (BOMB, "DOCTYPE"),
    (OUTSIDE, "DOCTYPE"),
    (b"", "not well-formed"),
    (b"\x00" * 50, "must be UTF-8"),
    (paper()[:-20], "not well-formed"),
    (paper() + paper(), "not well-formed"),
    (paper().replace(b"UTF-8", b"GB18030", 1), "encoding"),
    (paper().decode().encode("utf-16"), "must be UTF-8"),
    (paper().replace(b"for C", "給 C".encode("gbk")), "not well-formed"),
    (paper().replace(b"camt.053.001.08", b"camt.053.001.02"), "camt.053.001.08"),
    (b"<Document/>", "camt.053.001.08"),
    (paper().replace(b"<Ntry>", b'<x:Ntry xmlns:x="urn:x"/><Ntry>', 1), "another namespace"),
    (paper().replace(b"CNY", b"USD"), "CNY"),
    (paper().replace(b"123.45", b"123.455"), "two decimals"),
    (paper().replace(b"123.45", b"-123.45"), "two decimals"),
    (paper().replace(b"123.45", b"0.00"), "above zero"),
    (paper().replace(b"123.45", b"1" * 14), "two decimals"),
    (paper().replace(b"CRDT", b"CRED"), "CRDT or DBIT"),
    (paper().replace(b"BOOK", b"MAYBE"), "Sts"),
    (paper().replace(b"CLBD", b"CLAV"), "balances"),
    (paper().replace(b"2024-03-18T09:00:00+00:00", b"2024-03-18T09:00:00"), "offset"),
    (paper().replace(b"<Refs>", b"<Refs><EndToEndId>x</EndToEndId>"), "given twice"),
    (paper().replace(b"NOTPROVIDED", b"A" * 36), "35"),
    (paper().replace(b"NOTPROVIDED", b"A" * 3_000), "text longer"),
    (paper().replace(b"NOTPROVIDED", b"A&#x202E;B"), "printable"),
    (paper().replace(b"<Refs>", b"<a>" * 60), "deeper"),
]


@pytest.mark.parametrize(("data", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_breaks_a_rule_is_refused_with_its_line(data: bytes, words: str) -> None:
    for step in (0, 7):
        with pytest.raises(StatementRefused, match=words):
            read(data, step)


def test_noise_in_a_statement_raises_nothing_else() -> None:
    source = random.Random(20120420)
    good = paper()
    for _ in range(300):
        data = bytearray(good)
        for _ in range(source.randint(1, 4)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            read(bytes(data))
        except StatementRefused:
            continue


def hostile(kind: str) -> Iterator[bytes]:
    """The beginning of something that does not end."""
    yield paper().split(b"<Ntry>", 1)[0]
    yield {"attribute": b'<Ntry a="', "comment": b"<!--", "text": b"<Ntry><Amt>", "depth": b""}[kind]
    while True:
        yield b"<a>" * 8_192 if kind == "depth" else b"x" * 65_536


@pytest.mark.parametrize("kind", ["attribute", "comment", "text", "depth"])
def test_what_does_not_end_is_refused_and_memory_stays_flat(kind: str) -> None:
    reader = StatementReader()
    tracemalloc.start()
    with pytest.raises(StatementRefused):
        deque(map(reader.feed, hostile(kind)), maxlen=0)
    assert tracemalloc.get_traced_memory()[1] < 4 * TOKEN_BYTES_MAX
    tracemalloc.stop()


def test_a_large_statement_is_read_in_flat_memory() -> None:
    head, one, tail = paper().partition(b"<Ntry>")[0], b"<Ntry>" + paper().split(b"<Ntry>")[2], b""
    reader = StatementReader()
    reader.feed(head)
    tracemalloc.start()
    count = 0
    for _ in range(2_000):
        count += sum(isinstance(event, Entry) for event in reader.feed(one + tail))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2_000
    assert peak < 200_000
