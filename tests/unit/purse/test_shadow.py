"""Shadow balances, gaps and chains follow from the records, and grey records find their end."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.purse.shadow import Adjudication, adjudicate, fold_purses
from switch.storage.pool import connect
from terminal_sim.records import RecordKind
from tests.helpers.offline import Fetch, Ride, pan_of, results, upload
from tests.unit.purse.conftest import Office

pytestmark = pytest.mark.server


@pytest.fixture
async def link(town: str) -> AsyncIterator[AsyncConnection[Any]]:
    connection = await connect(town)
    yield connection
    await connection.close()


async def test_the_fold_counts_each_accepted_record_once(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    await office.take(upload(Ride(atc=0).pack(), Ride(atc=1, balance_fen=99_800, amount_fen=300).pack()))
    assert await fold_purses(link) == 2
    assert await fold_purses(link) == 0
    await office.take(upload(Ride(atc=2, balance_fen=99_500).pack(), Ride(card=2, tac=b"\1\1\1\1").pack()))
    assert await fold_purses(link) == 2
    assert fetch("SELECT balance_fen, spent_fen, next_atc FROM purse WHERE card_no = 1") == [(99_300, 700, 3)]
    assert fetch("SELECT balance_fen, next_atc FROM purse WHERE card_no = 2") == [(100_000, 0)]
    sums = "SELECT code, owner, sum(debit_fen), sum(credit_fen) FROM folded_balance GROUP BY 1, 2 ORDER BY 1"
    assert fetch(sums) == [(2002, 1, 700, 0), (2101, 1, 0, 700)]
    assert fetch("SELECT count(*) FROM purse_alarm") == [(0,)]


async def test_records_of_a_transaction_still_running_are_folded_later_not_lost(
    office: Office, town: str, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    async with await connect(town) as other:
        await other.execute("BEGIN")
        await other.execute("SELECT pg_current_xact_id()")
        await office.take(upload(Ride().pack()))
        assert await fold_purses(link) == 0
        await other.execute("COMMIT")
    assert await fold_purses(link) == 1
    assert fetch("SELECT spent_fen FROM purse WHERE card_no = 1") == [(200,)]


async def test_a_hole_opens_a_gap_and_late_records_close_it_in_pieces_of_the_same_age(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    atc = "SELECT missing::text FROM purse_gap WHERE kind = 1 AND closed_at IS NULL ORDER BY missing"

    async def take(*numbers: int) -> list[Any]:
        rides = [
            Ride(atc=n, balance_fen=100_000 - 200 * n, psam_serial=7000 + n, record_serial=n) for n in numbers
        ]
        await office.take(upload(*(ride.pack() for ride in rides)))
        await fold_purses(link)
        return [row[0] for row in fetch(atc)]

    assert await take(0, 1) == []
    assert await take(9) == ["[2,9)"]
    assert await take(5) == ["[2,5)", "[6,9)"]
    assert fetch("SELECT count(DISTINCT opened_at) FROM purse_gap WHERE kind = 1") == [(1,)]
    assert await take(2, 3, 4) == ["[6,9)"]
    assert await take(8, 7, 6) == []
    assert fetch("SELECT kind, next_no, missing::text FROM purse_sequence ORDER BY kind") == [
        (1, 10, "{}"),
        (2, 7010, "{}"),
        (3, 10, "{}"),
    ]
    assert fetch("SELECT count(*) FROM purse_gap WHERE closed_at IS NULL") == [(0,)]


async def test_a_card_without_its_first_records_has_a_gap_but_a_psam_starts_where_it_was_first_seen(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    stray = "0" + pan_of(555)
    await office.take(
        upload(Ride(atc=3, psam_serial=50_000).pack(), Ride(asn=stray, atc=8, psam_serial=50_001).pack())
    )
    await fold_purses(link)
    assert fetch("SELECT kind, missing::text FROM purse_gap WHERE kind < 3") == [(1, "[0,3)")]
    assert fetch("SELECT balance_fen FROM purse WHERE asn = %s", stray) == [(-200,)]
    assert fetch("SELECT kind FROM purse_alarm ORDER BY kind") == [
        ("CARD_UNREGISTERED",),
        ("SHADOW_NEGATIVE",),
    ]


async def test_balances_that_do_not_follow_from_each_other_are_reported_once_in_either_order(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    await office.take(upload(Ride(atc=1, balance_fen=99_000).pack()))
    await fold_purses(link)
    await office.take(upload(Ride(atc=0, balance_fen=100_000).pack(), Ride(atc=2, balance_fen=98_800).pack()))
    await fold_purses(link)
    assert fetch("SELECT kind, detail FROM purse_alarm") == [
        ("CHAIN_BREAK", "balance before ATC 1 is 99000 fen, expected 99800")
    ]


GREY = RecordKind.GREY


async def test_a_grey_record_is_paid_refused_or_waits_by_the_evidence(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    paid = Ride(card=1, atc=5, balance_fen=5_000, amount_fen=150, kind=GREY).pack()
    refused = Ride(card=2, atc=5, balance_fen=5_000, amount_fen=150, kind=GREY).pack()
    waits = Ride(card=3, atc=5, balance_fen=5_000, amount_fen=150, kind=GREY).pack()
    (outcome,) = await office.take(upload(paid, refused, waits))
    assert results(outcome) == ["04"] * 3
    assert await adjudicate(link) == Adjudication(0, 0, 3)
    await office.take(
        upload(
            Ride(card=1, atc=6, balance_fen=4_850).pack(),
            Ride(card=2, atc=5, balance_fen=5_000).pack(),
            Ride(card=3, atc=9, balance_fen=4_000).pack(),
        )
    )
    assert await adjudicate(link) == Adjudication(1, 1, 1)
    assert await adjudicate(link) == Adjudication(0, 0, 1)
    rows = fetch(
        "SELECT r.result, r.amount_fen, o.result FROM purse_record r"
        " JOIN purse_record o ON o.entry_no = r.original_entry AND o.business_date = r.original_date ORDER BY 1"
    )
    assert rows == [("00", 150, "04"), ("94", 150, "04")]
    assert fetch("SELECT sum(amount_fen) FROM purse_posting") == [(750,)]
    (again,) = await office.take(upload(paid, refused, waits, terminal_no=2))
    assert results(again) == ["03"] * 3
    rival = Ride(card=1, atc=5, balance_fen=5_000).pack()
    (late,) = await office.take(upload(rival))
    assert results(late) == ["02"]
    assert await fold_purses(link) > 0
    assert fetch("SELECT spent_fen, next_atc FROM purse WHERE card_no = 1") == [(350, 7)]


async def test_a_chain_of_grey_records_is_paid_when_the_balance_behind_it_fits(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    first = Ride(atc=5, balance_fen=5_000, amount_fen=150, kind=GREY).pack()
    second = Ride(atc=6, balance_fen=4_850, amount_fen=50, kind=GREY).pack()
    await office.take(upload(first, second, Ride(atc=7, balance_fen=4_800).pack()))
    assert await adjudicate(link) == Adjudication(2, 0, 0)
    assert fetch("SELECT count(*) FROM purse_atc") == [(3,)]


async def test_without_evidence_a_grey_record_is_refused_after_sixty_days(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    await office.take(upload(Ride(kind=GREY).pack()))
    ((today,),) = fetch("SELECT business_date FROM purse_waiting")
    assert await adjudicate(link, today + timedelta(days=59)) == Adjudication(0, 0, 1)
    cursor = await link.execute(
        "SELECT make_day_partition('purse_record', %s)", (today + timedelta(days=60),)
    )
    await cursor.fetchall()
    assert await adjudicate(link, today + timedelta(days=60)) == Adjudication(0, 1, 0)
    assert fetch("SELECT business_date FROM purse_record WHERE result = '94'") == [
        (today + timedelta(days=60),)
    ]


async def test_evidence_that_cannot_be_is_an_alarm_and_decides_nothing(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    await office.take(
        upload(Ride(atc=5, balance_fen=5_000, kind=GREY).pack(), Ride(atc=5, balance_fen=1_234).pack())
    )
    for _ in range(2):
        assert await adjudicate(link) == Adjudication(0, 0, 1)
    assert fetch("SELECT kind FROM purse_alarm") == [("GREY_CONTRADICTION",)]
