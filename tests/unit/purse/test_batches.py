"""A batch serial is used up once, for ever: whichever day, process or batch of the terminal it comes again in."""

import asyncio
from datetime import date
from typing import Any

import psycopg
import pytest

from switch.domain.decisions import Outcome
from switch.operations.audit import CHECKS
from switch.purse.batches import stan_of
from switch.purse.intake import Upload
from switch.purse.shadow import fold_purses
from switch.storage.pool import connect, connect_now
from tests.helpers.offline import Fetch, Ride, upload
from tests.unit.purse.conftest import Office, OpenOffice

pytestmark = pytest.mark.server


def batch(serial: int, *records: bytes, digest: bytes = bytes(32), **changes: Any) -> Upload:
    return upload(*records, stan=stan_of(serial), serial=serial, bulk=True, digest=digest, **changes)


def named(outcome: Outcome | None) -> tuple[str, int, list[str]]:
    """Answer, count and results."""
    assert outcome is not None
    packed = outcome.field62
    return (
        outcome.answer,
        int.from_bytes(packed[:2]),
        [packed[at : at + 2].decode() for at in range(6, len(packed), 6)],
    )


async def next_batch(url: str, batch_no: int = 2) -> None:
    """The terminal has settled and signed on again."""
    async with await connect(url) as link:
        await link.execute("UPDATE terminal_batch SET state = 2, settled_at = now(), claimed = '', computed = '', closed_at = now()"
                           " WHERE terminal_no = 1")  # fmt: skip
        await link.execute(
            "INSERT INTO terminal_batch (terminal_no, batch_no, opened_on) SELECT 1, %s, max(opened_on) FROM terminal_batch",
            [batch_no],
        )
        await link.execute("UPDATE terminal_session SET batch_no = %s WHERE terminal_no = 1", [batch_no])


def contradictions(url: str) -> list[Any]:
    """What the audit has to say about serials of batches: their answers, their counters, and the holes in those."""
    with connect_now(url) as link:
        return [
            row
            for check in CHECKS
            if check.reads("purse_batch") or check.name == "gaps"
            for row in link.execute(check.query.encode(), {"first": date.min, "last": date.max}).fetchall()
        ]


async def test_a_batch_counts_with_two_bytes_and_a_repeat_in_the_same_transaction_gets_its_answer(
    office: Office, fetch: Fetch
) -> None:
    message = batch(1, *(Ride(atc=n).pack() for n in range(300)))
    first, again = await office.take(message, message)
    assert named(first) == named(again) == ("00", 300, ["10"] * 300)
    assert fetch("SELECT terminal_no, serial, batch_no FROM purse_batch") == [(1, 1, 1)]
    assert fetch("SELECT stan, amount_fen FROM journal") == [(-1, 60_000)]


async def test_it_gets_the_stored_answer_after_the_terminals_batch_was_settled_and_through_any_process(
    open_office: OpenOffice, town: str, fetch: Fetch
) -> None:
    message = batch(5, Ride().pack(), Ride(atc=1, tac=b"\1\2\3\4").pack())
    (first,) = await open_office().take(message)
    assert named(first) == ("00", 2, ["10", "01"])
    await next_batch(town)
    later = message._replace(batch_no=2)
    offices = [open_office(), open_office()]
    again = await asyncio.gather(*(office.take(later, later) for office in offices))
    assert [one for many in again for one in many] == [first] * 4
    (other,) = await offices[0].take(later._replace(digest=b"\1" * 32))
    assert named(other)[:2] == ("94", 0)
    assert fetch("SELECT count(*) FROM purse_record") == [(2,)]


async def test_two_processes_that_get_the_same_new_batch_at_once_book_it_once(
    open_office: OpenOffice, fetch: Fetch
) -> None:
    message = batch(9, *(Ride(atc=n).pack() for n in range(50)))
    offices = [open_office() for _ in range(3)]
    answers = await asyncio.gather(*(office.take(message) for office in offices))
    assert {str(one) for many in answers for one in many} == {str(answers[0][0])}
    assert named(answers[0][0]) == ("00", 50, ["10"] * 50)
    assert fetch("SELECT count(*), count(DISTINCT entry_no) FROM purse_record") == [(50, 50)]


async def test_records_of_one_batch_that_come_again_in_another_are_duplicates_one_by_one(
    office: Office,
) -> None:
    records = [Ride(atc=n).pack() for n in range(3)]
    await office.take(batch(1, *records[:2]))
    (second,) = await office.take(batch(2, *records))
    assert named(second) == ("00", 3, ["03", "03", "10"])


async def test_a_batch_that_finds_no_open_batch_of_its_terminal_keeps_its_serial_free(
    office: Office, town: str, fetch: Fetch
) -> None:
    message = batch(1, Ride().pack())
    with psycopg.connect(town) as link:
        link.execute("UPDATE terminal_batch SET state = 2 WHERE terminal_no = 1")
    (refused,) = await office.take(message)
    assert named(refused)[:2] == ("77", 0)
    await next_batch(town)
    (stale,) = await office.take(message)  # made with what was known before the sign-on
    assert named(stale)[:2] == ("96", 0)
    assert fetch("SELECT count(*) FROM purse_batch") == fetch("SELECT count(*) FROM journal") == [(0,)]
    (taken,) = await office.take(message._replace(batch_no=2))
    assert named(taken) == ("00", 1, ["10"])


async def test_a_missing_serial_is_a_gap_until_it_comes(office: Office, town: str, fetch: Fetch) -> None:
    gaps = "SELECT missing::text, closed_at IS NOT NULL FROM purse_gap WHERE kind = 4 ORDER BY gap_no"
    async with await connect(town) as link:
        for serial in (4, 7):
            await office.take(batch(serial, Ride(atc=serial).pack()))
        await fold_purses(link)
        assert fetch(gaps) == [("[5,7)", False)]
        assert contradictions(town) == []
        await office.take(batch(5, Ride(atc=5).pack()), batch(6, Ride(atc=6).pack()))
        await fold_purses(link)
    assert fetch(gaps) == [("[5,7)", True)]
    assert fetch("SELECT owner, next_no, missing::text FROM purse_sequence WHERE kind = 4") == [(1, 8, "{}")]
    assert contradictions(town) == []


@pytest.mark.parametrize("serial", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
async def test_any_serial_of_four_bytes_can_be_used(office: Office, serial: int) -> None:
    message = batch(serial, Ride().pack())
    first, again = await office.take(message, message)
    assert named(first) == named(again) == ("00", 1, ["10"])


async def test_in_another_cluster_batches_are_counted_and_no_watermark_lies_ahead(
    office: Office, town: str, fetch: Fetch
) -> None:
    await office.take(batch(1, Ride().pack()))
    async with await connect(town) as link:
        await fold_purses(link)
        # As a dump of an old cluster brings them, whose rules for risk have looked further than the fold.
        await link.execute("UPDATE purse_watermark SET folded_to = folded_to + 500000")
        await link.execute("UPDATE trip_watermark SET folded_to = folded_to + 1000000")
        await link.execute("UPDATE risk_watermark SET done_to = done_to + 2000000")
        await link.execute("UPDATE transaction_numbers SET cluster_id = 0")
        await link.execute("SELECT adopt_cluster()")
        assert fetch("SELECT transaction_horizon() >= greatest(t.folded_to, r.done_to) FROM trip_watermark t, risk_watermark r") == [
            (True,)
        ]  # fmt: skip
        await office.take(batch(3, Ride(atc=1).pack()))
        await fold_purses(link)
    assert fetch("SELECT next_no, missing::text FROM purse_sequence WHERE kind = 4") == [(4, "{[2,3)}")]
