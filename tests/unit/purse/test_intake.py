"""Offline records are taken in exactly once, each with its result, whatever comes twice, together or half."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from switch.domain.calendar import SHANGHAI
from switch.purse.record import crc16
from switch.storage.pool import connect
from terminal_sim.records import RecordKind
from tests.helpers.offline import (
    CITY,
    FOREIGN_ISSUER,
    Fetch,
    Ride,
    pan_of,
    results,
    upload,
)
from tests.unit.purse.conftest import Office, OpenOffice

pytestmark = pytest.mark.server


async def test_good_records_are_accepted_in_both_algorithms_and_are_the_merchants_money(
    office: Office, fetch: Fetch
) -> None:
    message = upload(Ride(atc=0).pack(), Ride(atc=1, sm4=False, amount_fen=300).pack())
    (outcome,) = await office.take(message)
    assert results(outcome) == ["10", "10"]
    assert outcome is not None
    assert outcome.field62[1:5] == message.records[0][59:63]
    rows = fetch(
        "SELECT debit_code, debit_owner, credit_code, credit_owner, amount_fen FROM purse_posting ORDER BY 5"
    )
    assert rows == [(2002, 1, 2101, 1, 200), (2002, 1, 2101, 1, 300)]
    parsed = fetch(
        "SELECT card_digits(card), atc, balance_fen, happened_at, raw FROM purse_record ORDER BY atc"
    )
    digits = message.records[0].hex()
    assert parsed[0][0] == pan_of(1)
    assert f"{parsed[0][3]:%Y%m%d%H%M%S}" == digits[76:90]
    assert [row[4] for row in parsed] == list(message.records)


async def test_a_record_of_a_merchant_in_another_city_is_owed_to_that_city(
    office: Office, fetch: Fetch
) -> None:
    (outcome,) = await office.take(upload(Ride(terminal_no=8).pack(), terminal_no=8))
    assert results(outcome) == ["10"]
    assert fetch("SELECT credit_code, credit_owner FROM purse_posting") == [(2102, int(CITY))]


async def test_an_upload_sent_again_gets_its_stored_answer_and_books_nothing(
    open_office: OpenOffice, fetch: Fetch
) -> None:
    message = upload(Ride().pack(), Ride(atc=1, tac=b"\1\2\3\4").pack())
    first, second = open_office(), open_office()
    (outcome,) = await first.take(message)
    again = await asyncio.gather(first.take(message), second.take(message, message))
    assert results(outcome) == ["10", "01"]
    assert [one for many in again for one in many] == [outcome] * 3
    assert fetch("SELECT count(*) FROM purse_record") == [(2,)]
    other = message._replace(digest=bytes(32))
    (refused,) = await first.take(other)
    assert refused is not None
    assert refused.answer == "94"


async def test_the_same_record_in_other_uploads_is_a_duplicate_even_in_one_transaction(
    office: Office, fetch: Fetch
) -> None:
    record = Ride().pack()
    first, second, third = await office.take(
        upload(record, record), upload(record, terminal_no=2), upload(record)
    )
    assert [results(one) for one in (first, second, third)] == [["10", "03"], ["03"], ["03"]]
    (later,) = await office.take(upload(record, terminal_no=3))
    assert results(later) == ["03"]
    assert fetch("SELECT count(*), sum(amount_fen) FROM purse_posting") == [(1, 200)]


async def test_two_processes_that_get_the_same_records_at_once_accept_each_once(
    open_office: OpenOffice, fetch: Fetch
) -> None:
    one, two = open_office(), open_office()
    records = [Ride(card=1 + number % 20, atc=number).pack() for number in range(60)]
    left = [upload(*records[at : at + 5], terminal_no=1) for at in range(0, 60, 5)]
    right = [upload(*records[at : at + 5], terminal_no=2) for at in reversed(range(0, 60, 5))]
    answers = await asyncio.gather(one.take(*left), two.take(*right))
    found = [result for many in answers for outcome in many for result in results(outcome)]
    assert sorted(found) == ["03"] * 60 + ["10"] * 60
    assert fetch("SELECT count(*) FROM purse_posting") == [(60,)]
    assert fetch("SELECT count(*) FROM purse_atc") == fetch("SELECT count(*) FROM purse_serial") == [(60,)]


async def test_an_atc_or_psam_serial_that_is_used_up_is_refused_with_an_alarm(
    office: Office, fetch: Fetch
) -> None:
    first = Ride(atc=5, psam_serial=900_001).pack()
    same_atc = Ride(atc=5, amount_fen=300, psam_serial=900_002).pack()
    same_serial = Ride(card=2, atc=5, psam_serial=900_001).pack()
    (outcome,) = await office.take(upload(first, same_atc, same_serial))
    assert results(outcome) == ["10", "02", "02"]
    (again,) = await office.take(
        upload(same_serial, same_atc, Ride(card=2, atc=5, psam_serial=900_003).pack())
    )
    assert results(again) == ["02", "02", "10"]
    kinds = fetch("SELECT kind, count(*) FROM purse_alarm GROUP BY kind ORDER BY kind")
    assert kinds == [("ATC_COLLISION", 2), ("PSAM_COLLISION", 2)]


async def test_records_are_judged_by_the_first_check_that_fails(office: Office, fetch: Fetch) -> None:
    now = datetime.now(SHANGHAI)
    good = Ride(atc=40).pack()
    rides = {
        "crc": (good[:-1] + bytes([good[-1] ^ 1]), "02"),
        "psam unknown": (Ride(psam=bytes.fromhex("335099999999")).pack(), "02"),
        "psam of another merchant": (Ride(terminal_no=7).pack(), "02"),
        "acquirer is another": (Ride(acquirer=CITY).pack(), "02"),
        "test": (Ride(kind=RecordKind.TEST, tac=b"\0\0\0\1").pack(), "06"),
        "future": (Ride(when=now + timedelta(hours=25)).pack(), "07"),
        "future, but less than a day": (Ride(atc=41, when=now + timedelta(hours=23)).pack(), "10"),
        "before the card": (Ride(when=datetime(2019, 12, 31, 23, 59, 59, tzinfo=SHANGHAI)).pack(), "07"),
        "overdue": (Ride(when=now - timedelta(days=90, seconds=5)).pack(), "05"),
        "not yet overdue": (Ride(atc=42, when=now - timedelta(days=89)).pack(), "10"),
        "issuer unknown": (Ride(issuer=bytes.fromhex("99990001FFFFFFFF")).pack(), "08"),
        "foreign": (Ride(issuer=FOREIGN_ISSUER, asn="03100000000000000017").pack(), "11"),
        "grey": (Ride(atc=43, kind=RecordKind.GREY).pack(), "04"),
        "no TAC": (Ride(atc=44, tac=bytes(4)).pack(), "04"),
        "TAC": (Ride(atc=45, tac=b"\1\2\3\4").pack(), "01"),
        "key version unknown": (_resealed(Ride(atc=46).pack(), 4, 9), "01"),
        "locked": (Ride(kind=RecordKind.LOCKED, amount_fen=0, tac=bytes(4)).pack(), "10"),
    }
    for name, (record, expected) in rides.items():
        (outcome,) = await office.take(upload(record))
        assert (name, results(outcome)) == (name, [expected])
    assert fetch("SELECT count(*) FROM purse_posting") == [(2,)]
    assert fetch("SELECT count(*) FROM purse_quarantine") == [(4,)]
    for name in ("foreign", "grey", "locked", "not yet overdue"):
        (outcome,) = await office.take(upload(rides[name][0], terminal_no=2))
        assert (name, results(outcome)) == (name, ["03"])


def _resealed(record: bytes, at: int, value: int) -> bytes:
    head = record[:at] + bytes([value]) + record[at + 1 : -2]
    return head + crc16(head).to_bytes(2)


async def test_a_card_that_the_registry_does_not_know_owns_float_all_the_same(
    office: Office, fetch: Fetch
) -> None:
    stray = "0" + pan_of(777_777)
    (first, second) = await office.take(
        upload(Ride(asn=stray, atc=0).pack()), upload(Ride(asn=stray, atc=1).pack(), terminal_no=2)
    )
    assert results(first) == results(second) == ["10"]
    (third,) = await office.take(upload(Ride(asn=stray, atc=2).pack()))
    assert results(third) == ["10"]
    assert fetch(
        "SELECT count(DISTINCT debit_owner), min(debit_owner) > 1000, count(*) FROM purse_posting"
    ) == [(1, True, 3)]
    assert fetch("SELECT kind FROM purse_alarm") == [("CARD_UNREGISTERED",)]


async def test_a_wrong_batch_is_told_77_and_a_frozen_one_still_takes_records(
    office: Office, town: str, fetch: Fetch
) -> None:
    wrong = upload(Ride().pack(), batch_no=7, since=None)
    first = await office.take(wrong)
    again = await office.take(wrong)
    assert first == again
    assert first[0] is not None
    assert first[0].answer == "77"
    async with await connect(town) as connection:
        await connection.execute("UPDATE terminal_batch SET state = 1 WHERE terminal_no = 1")
    (frozen,) = await office.take(upload(Ride().pack()))
    assert results(frozen) == ["10"]
    async with await connect(town) as connection:
        await connection.execute("UPDATE terminal_batch SET state = 2 WHERE terminal_no = 1")
    (closed,) = await office.take(upload(Ride(atc=1).pack()))
    assert closed is not None
    assert closed.answer == "77"
    assert fetch("SELECT count(*) FROM purse_record") == [(1,)]


async def test_keys_that_have_been_replaced_answer_a0_and_leave_no_trace(
    office: Office, fetch: Fetch
) -> None:
    (outcome,) = await office.take(upload(Ride().pack(), generation=0))
    assert outcome is not None
    assert outcome.answer == "A0"
    assert fetch("SELECT count(*) FROM journal") == [(0,)]


async def test_one_upload_that_cannot_be_booked_gets_96_and_the_others_are_booked(
    office: Office, fetch: Fetch
) -> None:
    await office.take(upload(Ride(card=9).pack()))  # so that the next ones share a transaction
    bad = upload(Ride(card=3).pack(), digest=b"too short")
    good = [upload(Ride(card=card, atc=1).pack(), terminal_no=card) for card in range(1, 6)]
    answers = await office.take(*good[:3], bad, *good[3:])
    assert [one is None for one in answers] == [False, False, False, True, False, False]
    assert fetch("SELECT count(*) FROM purse_posting") == [(6,)]


def _cutting(connection: psycopg.AsyncConnection[Any], *, after_commit: bool) -> psycopg.AsyncConnection[Any]:
    """Cut the connection around its first COMMIT."""
    execute = connection.execute

    async def execute_or_cut(query: Any, *arguments: Any, **options: Any) -> Any:
        if query == "COMMIT":
            if after_commit:
                await execute(query)
                assert connection._pipeline is not None
                await connection._pipeline.sync()
            raise psycopg.OperationalError("cut by the test")
        return await execute(query, *arguments, **options)

    connection.execute = execute_or_cut  # type: ignore[method-assign]  # the one fault of this test
    return connection


@pytest.mark.parametrize("after_commit", [False, True])
async def test_a_connection_lost_around_the_commit_books_once_and_is_answered(
    open_office: OpenOffice, town: str, fetch: Fetch, after_commit: bool
) -> None:
    connections = 0

    async def connect_badly() -> psycopg.AsyncConnection[Any]:
        nonlocal connections
        connections += 1
        connection = await connect(town)
        return _cutting(connection, after_commit=after_commit) if connections == 1 else connection

    office = open_office(connect=connect_badly)
    (outcome,) = await office.take(upload(Ride().pack(), Ride(atc=1).pack()))
    assert results(outcome) == ["10", "10"]
    assert connections == 2
    assert fetch("SELECT count(*) FROM purse_posting") == [(2,)]
    assert fetch("SELECT count(*) FROM journal") == [(1,)]


async def test_a_server_that_is_gone_too_long_is_96_and_a_full_queue_takes_nothing(
    open_office: OpenOffice,
) -> None:
    async def refuse() -> psycopg.AsyncConnection[Any]:
        raise psycopg.OperationalError("nobody there")

    office = open_office(connect=refuse, retry_for_s=0.2, queue_max=3)
    message = upload(Ride().pack(), Ride(atc=1).pack())
    waiting = office.send(message)
    assert not office.writer.submit(upload(Ride().pack(), Ride().pack()), lambda _: None)
    assert await waiting is None


async def test_a_bulk_upload_counts_in_two_bytes_and_keeps_the_order_of_its_records(
    office: Office, fetch: Fetch
) -> None:
    rides = [Ride(card=1 + number % 20, atc=number).pack() for number in range(600)]
    (outcome,) = await office.take(upload(*rides, bulk=True))
    assert outcome is not None
    assert outcome.field62[:2] == (600).to_bytes(2)
    assert [outcome.field62[at : at + 4] for at in range(2, len(outcome.field62), 6)] == [
        record[59:63] for record in rides
    ]
    assert fetch("SELECT count(*) FROM purse_posting") == [(600,)]
    assert fetch("SELECT amount_fen FROM journal") == [(600 * 200,)]
