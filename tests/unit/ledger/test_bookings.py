"""Money that no terminal moves: booked once for each source, on the open day, and never on a holder's account."""

from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.errors import CheckViolation

from switch.domain.errors import InputRefused
from switch.ledger.bookings import Booking, book
from switch.ledger.chart import Event
from switch.ledger.days import open_day
from tests.helpers.days import make_days

pytestmark = pytest.mark.server
Pg = AsyncConnection[Any]

PAYOUT = Booking(Event.MERCHANT_PAID_OUT, 1_250, 7, 0, "payout 1", "T+1")


async def rows(pg: Pg, query: str) -> list[tuple[Any, ...]]:
    return await (await pg.execute(query.encode())).fetchall()


async def test_a_booking_and_its_posting_are_of_the_open_day_and_share_a_number(pg: Pg) -> None:
    await make_days(pg, 1)
    async with pg.transaction():
        booked = await book(pg, [PAYOUT], actor="li wei", checker="wang fang")
    today = await open_day(pg)
    assert today is not None
    assert booked.business_date == today.day
    assert await rows(pg, "SELECT entry_no, business_date, event, amount_fen FROM booking") == [
        (booked.entries[0], today.day, "merchant_paid_out", 1_250)
    ]
    assert await rows(
        pg,
        "SELECT shard, entry_no, line, debit_code, debit_owner, credit_code, credit_owner, amount_fen FROM posting",
    ) == [(0, booked.entries[0], 0, 2101, 7, 1001, 0, 1_250)]


async def test_what_a_source_has_booked_is_not_booked_again(pg: Pg) -> None:
    await make_days(pg, 1)
    returned = PAYOUT._replace(event=Event.MERCHANT_PAYOUT_RETURNED, debit_owner=0, credit_owner=7)
    async with pg.transaction():
        await book(pg, [PAYOUT], actor="li wei")
    async with pg.transaction():
        again = await book(pg, [PAYOUT, returned, PAYOUT._replace(source="payout 2")], actor="li wei")
    assert again.entries[0] is None
    assert None not in again.entries[1:]
    assert await rows(pg, "SELECT count(*) FROM posting") == [(3,)]


async def test_nobody_checks_what_he_did_himself(pg: Pg) -> None:
    await make_days(pg, 1)
    with pytest.raises(CheckViolation):
        async with pg.transaction():
            await book(pg, [PAYOUT], actor="li wei", checker="Li Wei")
    assert await rows(pg, "SELECT count(*) FROM posting") == [(0,)]


async def test_without_a_business_day_nothing_is_booked(pg: Pg) -> None:
    with pytest.raises(InputRefused, match="no business day"):
        async with pg.transaction():
            await book(pg, [PAYOUT], actor="li wei")


async def test_a_holders_balance_is_not_booked_here(pg: Pg) -> None:
    await make_days(pg, 1)
    with pytest.raises(AssertionError, match="holder"):
        async with pg.transaction():
            await book(pg, [PAYOUT._replace(event=Event.ONLINE_PAID_OUT)], actor="li wei")
