"""What a settlement date pays: every fen of the closed days is paid, held or carried, once."""

from datetime import timedelta

import pytest

from switch.clearing.settlement.payouts import cancel
from switch.clearing.settlement.prepare import divide, prepare
from switch.clearing.settlement.terms import Terms, set_terms
from switch.clearing.settlement.turn import SettlementRefused
from switch.ledger.bookings import Booking
from switch.ledger.chart import Event
from switch.storage.pool import connect
from tests.helpers.reconciling import pay_city
from tests.helpers.settling import BUSES, GROCER, HOSPITAL, MERCHANTS, OTHER, Settling

pytestmark = pytest.mark.server

LINES = (
    "SELECT party, carried_in_fen, net_fen, returned_fen, payout_fen, held_fen, carried_fen, cause"
    " FROM settlement_line WHERE settlement_date = %s ORDER BY party"
)


async def owed(city: Settling, party: str) -> int:
    """By the postings, whatever the settlement says."""
    fen = await city.one(
        "SELECT coalesce(sum(CASE WHEN credit_code = 2101 AND credit_owner = m.merchant_no THEN amount_fen"
        " WHEN debit_code = 2101 AND debit_owner = m.merchant_no THEN -amount_fen ELSE 0 END), 0)::bigint"
        " FROM posting p CROSS JOIN merchant m WHERE m.merchant_id = %s",
        party,
    )
    assert isinstance(fen, int)
    return fen


async def test_everybody_is_paid_what_the_closed_day_owes_and_a_second_run_changes_nothing(
    city: Settling,
) -> None:
    await city.trade()
    closed = await city.close()
    due = {party: await owed(city, party) for party in MERCHANTS}
    await city.trade()
    made = await city.prepare()
    assert (made.settlement_date, made.first_day, made.last_day, made.again) == (
        closed + timedelta(days=1),
        closed,
        closed,
        False,
    )
    paid = {row[0]: row[4] for row in await city.rows(LINES, made.settlement_date)}
    assert {party: paid[party] for party in MERCHANTS} == due
    assert paid[OTHER] == await city.one(
        "SELECT sum(amount_fen)::bigint FROM posting WHERE credit_code = 2102"
    )
    rows = await city.rows("SELECT * FROM payout ORDER BY 1"), await city.rows(LINES, made.settlement_date)
    assert await city.prepare(made.settlement_date) == made._replace(again=True)
    assert rows == (
        await city.rows("SELECT * FROM payout ORDER BY 1"),
        await city.rows(LINES, made.settlement_date),
    )


async def test_three_days_of_holidays_are_one_settlement(city: Settling) -> None:
    city._holidays = frozenset((1, 2))
    days = []
    for count in (40, 0, 20):
        await city.trade(count)
        days.append(await city.close())
        if len(days) < 3:
            with pytest.raises(SettlementRefused, match="is not closed yet"):
                await city.prepare()
    made = await city.prepare()
    assert (made.first_day, made.last_day, made.settlement_date) == (days[0], days[2], city.settled_by(3))
    assert await city.rows(
        "SELECT business_date, count(*) FROM settlement_line_day WHERE party = ANY(%s) GROUP BY 1 ORDER BY 1",
        list(MERCHANTS),
    ) == [(days[0], 4), (days[2], 4)]


async def test_a_day_with_nothing_settles_and_of_two_at_once_one_is_told(
    city: Settling, postgres_url: str
) -> None:
    await city.close()
    async with await connect(postgres_url) as other:
        await other.execute("SELECT set_config('application_name', 'settlement by another', false)")
        await other.execute("SELECT pg_advisory_lock(%s, 1)", (0x43435354,))
        with pytest.raises(
            SettlementRefused, match="another settlement step is running: settlement by another"
        ):
            await city.prepare()
        await other.execute("SELECT pg_advisory_unlock_all()")  # a closed line's server may take a moment
    made = await city.prepare()
    assert made.figures["payouts"] == made.figures["merchants"] == made.figures["net_fen"] == 0
    for ahead, words in ((1, "is not closed yet"), (-1, "is prepared already")):
        with pytest.raises(SettlementRefused, match=words):
            await city.prepare(made.settlement_date + timedelta(days=ahead))
    with pytest.raises(SettlementRefused, match="actor"):
        await prepare(city.pg, None, "")


async def test_a_merchant_below_zero_is_carried_until_sales_cover_it(city: Settling) -> None:
    await city.trade()
    due = 0
    for _ in range(3):
        await city.pay(Booking(Event.CHARGEBACK_BANK, 10_000_000, 1, int(OTHER), f"case {due}"))
        await city.close()
        made = await city.prepare()
        line = {row[0]: row[1:] for row in await city.rows(LINES, made.settlement_date)}[GROCER]
        assert line[0] == due
        assert line[3:] == (0, 0, line[5], "NEGATIVE")
        due = line[5]
        assert due == await owed(city, GROCER) < 0
    await city.pay(Booking(Event.BANK_PURCHASE, 40_000_000, int(OTHER), 1, "case back"))
    await city.close()
    made = await city.prepare()
    line = {row[0]: row[1:] for row in await city.rows(LINES, made.settlement_date)}[GROCER]
    assert line[:2] == (due, 40_000_000)
    assert line[3:] == (40_000_000 + due, 0, 0, "")


async def test_what_is_held_too_little_or_without_an_account_stays_and_is_paid_when_it_no_longer_is(
    city: Settling,
) -> None:
    day = await city.trade()
    await set_terms(
        city.pg,
        GROCER,
        Terms(held_fen=1_000, held_until=day + timedelta(days=1), held_reason="a dispute"),
        valid_from=day,
        actor="li wei",
        reason="risk asked",
    )
    await set_terms(
        city.pg, BUSES, Terms(minimum_fen=10**9), valid_from=day, actor="li wei", reason="as agreed"
    )
    await city.pg.execute("ALTER TABLE payout_account DISABLE TRIGGER kept")
    await city.pg.execute(
        "UPDATE payout_account SET confirmed_by = NULL, confirmed_at = NULL WHERE party = %s", (HOSPITAL,)
    )
    await city.close()
    due = {party: await owed(city, party) for party in MERCHANTS}
    made = await city.prepare()
    assert made.figures["without_account"] == 1
    lines = {row[0]: row[1:] for row in await city.rows(LINES, made.settlement_date)}
    assert lines[HOSPITAL][3:] == (0, 0, due[HOSPITAL], "NO_ACCOUNT")
    assert lines[GROCER][3:] == (due[GROCER] - 1_000, 1_000, 0, "HELD")
    assert lines[BUSES][3:] == (0, 0, due[BUSES], "MINIMUM")
    with pytest.raises(SettlementRefused, match="settled already"):
        await set_terms(
            city.pg, BUSES, Terms(), valid_from=made.settlement_date, actor="li wei", reason="late"
        )
    await set_terms(
        city.pg,
        BUSES,
        Terms(),
        valid_from=made.settlement_date + timedelta(days=1),
        actor="li wei",
        reason="asked for",
    )
    await city.close()
    lines = {row[0]: row[1:] for row in await city.rows(LINES, (await city.prepare()).settlement_date)}
    assert lines[GROCER] == (1_000, 0, 0, 1_000, 0, 0, "")
    assert lines[BUSES] == (due[BUSES], 0, 0, due[BUSES], 0, 0, "")


async def test_a_payout_that_was_cancelled_is_part_of_the_next_date(city: Settling) -> None:
    await city.trade()
    await city.close()
    made = await city.prepare()
    payout, fen = (await city.rows("SELECT payout_id, amount_fen FROM payout WHERE party = %s", GROCER))[0]
    assert await cancel(city.pg, payout, actor="li wei", reason="the shop has closed") == "PREPARED"
    assert await cancel(city.pg, payout, actor="li wei", reason="again") == "CANCELLED"
    await city.close()
    again = await city.prepare()
    lines = {row[0]: row[1:] for row in await city.rows(LINES, again.settlement_date)}
    assert lines[GROCER] == (0, 0, fen, fen, 0, 0, "")
    assert await city.one("SELECT again_on FROM payout WHERE payout_id = %s", payout) == again.settlement_date
    assert made.settlement_date < again.settlement_date


async def test_a_city_that_the_centre_settles_with_is_held_before_anything_is_paid_or_asked_for(
    city: Settling,
) -> None:
    day = await city.trade()
    await city.pay(Booking(Event.BANK_PURCHASE, 40_000_000, int(OTHER), 1, "a city's cards"))
    await city.close()
    await pay_city(city.pg, day, 7, 1, 300, issuer=OTHER)
    with pytest.raises(SettlementRefused, match=f"party {OTHER} has items that the interop centre settles"):
        await city.prepare()
    assert await city.one("SELECT count(*) FROM settlement_run") == 0
    terms = Terms(held_all=True, held_reason="settled by the centre")
    await set_terms(city.pg, OTHER, terms, valid_from=day, actor="li wei", reason="agreement")
    made = await city.prepare()
    line = {row[0]: row[1:] for row in await city.rows(LINES, made.settlement_date)}[OTHER]
    due = line[1]
    assert due < 0
    assert line[3:] == (0, 0, due, "HELD")
    assert divide(due, terms, is_merchant=False, has_account=True, in_cycle=True) == line[3:]
    assert made.figures["collections"] == 0
