"""Bank entries that nobody could explain leave suspense once, by two people, to whom the money was or on its way back."""

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from switch.clearing.settlement.resolving import EntryName, Part, Resolution, Resolved, resolve_entry
from switch.clearing.settlement.statements import StatementTerms, list_odd
from switch.clearing.settlement.terms import Terms, set_terms
from switch.clearing.settlement.turn import only_one
from switch.domain.errors import InputRefused
from switch.ledger.bookings import Booking
from switch.ledger.chart import Event
from switch.operations.audit.checks import read_checks
from switch.storage.pool import connect
from terminal_sim.custody_bank import CustodyBank
from tests.helpers.clearing_day import CENTRE, OWN
from tests.helpers.settling import CUSTODY, GROCER, OTHER, Settling

pytestmark = pytest.mark.server

NOW = datetime(2024, 3, 18, 9, 0, tzinfo=UTC)
TERMS = StatementTerms(OWN, (0, 1), 1 << 24)
EAST, WEST, BANK = "99994410", "99995510", "01020000"
STATEMENT = "STMT-000001"


async def told(city: Settling, *moves: tuple[int, str]) -> None:
    """One statement of these movements, in their order from line 1 on."""
    bank = CustodyBank(CUSTODY, 10**9)
    for fen, words in moves:
        bank.move("", fen, words)
    city.folder.mkdir(parents=True, exist_ok=True)
    paper = city.folder / "paper.xml"
    paper.write_bytes(bank.statement(NOW))
    await city.take(paper)


async def resolved(city: Settling, line: int, asked: Resolution, checker: str = "wang fang") -> Resolved:
    return await resolve_entry(
        city.pg,
        EntryName(STATEMENT, line),
        asked,
        TERMS,
        actor="li wei",
        checker=checker,
        reason="advice 4711",
    )


async def refused(city: Settling, line: int, asked: Resolution, checker: str = "wang fang") -> str:
    before = await city.rows("SELECT count(*) FROM booking")
    with pytest.raises(InputRefused) as error:
        await resolved(city, line, asked, checker)
    assert await city.rows("SELECT count(*) FROM booking") == before
    return str(error.value)


async def balance(city: Settling, code: int, owner: int = 0) -> int:
    """Debits less credits of one account, by the postings."""
    fen = await city.one(
        "SELECT coalesce(sum(CASE WHEN (debit_code, debit_owner) = (%s, %s) THEN amount_fen ELSE 0 END"
        " - CASE WHEN (credit_code, credit_owner) = (%s, %s) THEN amount_fen ELSE 0 END), 0)::bigint FROM posting",
        *(code, owner) * 2,
    )
    assert isinstance(fen, int)
    return fen


async def odd_lines(city: Settling) -> dict[int, int]:
    """What still lies in suspense, by line."""
    return {one["line"]: one["rest_fen"] for one in await list_odd(city.pg, waiting=False)}


def faults(url: str) -> list[tuple[Any, ...]]:
    """What the audit finds; that trade is booked by hand here is known."""
    with psycopg.connect(url) as other:
        return [
            row
            for file in ("payouts.sql", "bookings.sql")
            for check in read_checks(file)
            for row in other.execute(check.query.encode(), {}).fetchall()
            if row[2] != "an event that is booked"
        ]


@pytest.fixture
async def cities(city: Settling) -> Settling:
    """With two other cities and a bank."""
    await city.pg.execute(
        "INSERT INTO institution (institution_id, name, role) VALUES"
        " (%s, 'East', 'CITY'), (%s, 'West', 'CITY'), (%s, 'A bank', 'BANK')",
        (EAST, WEST, BANK),
    )
    return city


async def test_the_centres_one_transfer_carries_its_cities_down_to_what_it_does_not_settle(
    cities: Settling, postgres_url: str
) -> None:
    for party in (EAST, WEST, CENTRE):
        terms = Terms(held_all=True, held_reason="settled by the centre")
        await set_terms(cities.pg, party, terms, valid_from=cities.first, actor="li wei", reason="agreement")
    await cities.pay(
        Booking(Event.FOREIGN_CARD_CONFIRMED, 5_000, int(EAST), 1, "case 1"),
        Booking(Event.FEE_OTHERS, 35, 1, int(EAST), "case 2"),
        Booking(Event.FEE_OTHERS, 10, 1, int(CENTRE), "case 3"),
        Booking(Event.FEE_OTHERS, 2_000, 1, int(WEST), "case 4"),
        Booking(Event.BANK_PURCHASE, 700, int(EAST), 1, "case 5"),  # by host link: not the centre's
    )
    await cities.close()
    lines = "SELECT party, carried_fen + held_fen FROM settlement_line WHERE settlement_date = %s AND party = ANY(%s)"
    day = await cities.settle()
    members = [EAST, WEST, CENTRE]
    assert dict(await cities.rows(lines, day, members)) == {EAST: -5_665, WEST: 2_000, CENTRE: 10}
    np_fen = 5_000 - 35 - 2_000 - 10
    await told(cities, (np_fen, "NP of the centre"))
    asked = Resolution("paid-by", (Part(EAST, 4_965), Part(WEST, -2_000), Part(CENTRE, -10)))
    short = Resolution("paid-by", (Part(EAST, 4_965), Part(WEST, -2_000)))
    assert "do not come to 2955 fen" in await refused(cities, 1, short)
    done = await resolved(cities, 1, asked)
    assert (done.fen, done.again) == (np_fen, False)
    await cities.fold()
    assert await balance(cities, 2201) == 0
    assert await balance(cities, 1101, int(EAST)) == 700
    for party in members:
        assert (await balance(cities, 1102, int(party)), await balance(cities, 2102, int(party))) == (0, 0)
    await cities.close()
    assert dict(await cities.rows(lines, await cities.settle(), members)) == {
        EAST: -700,
        WEST: 0,
        CENTRE: 0,
    }
    assert await odd_lines(cities) == {}
    assert faults(postgres_url) == []


async def test_an_entry_is_resolved_once_whole_and_by_two_people(cities: Settling, postgres_url: str) -> None:
    await cities.pay(Booking(Event.BANK_PURCHASE, 700, int(BANK), 1, "case 1"))
    await told(cities, (900, "the bank"), (-300, "to the city"), (40, "a merchant"))
    assert await odd_lines(cities) == {1: 900, 2: -300, 3: 40}
    paid = Resolution("paid-by", (Part(BANK),))
    assert "another person" in await refused(cities, 1, paid, checker="Li Wei ")
    assert "came in" in await refused(cities, 1, Resolution("paid-to", (Part(BANK),)))
    assert "went out" in await refused(cities, 2, paid)
    assert "no merchant or other institution" in await refused(
        cities, 1, Resolution("paid-by", (Part("12345678"),))
    )
    assert "no merchant or other institution" in await refused(cities, 1, Resolution("paid-by", (Part(OWN),)))
    assert "each party once" in await refused(
        cities, 1, Resolution("paid-by", (Part(BANK, 400), Part(BANK, 500)))
    )
    assert "no statement has such an entry" in await refused(cities, 9, paid)
    assert "a party or parts" in await refused(cities, 1, Resolution("paid-by"))
    first = await resolved(cities, 1, paid)
    assert await resolved(cities, 1, paid) == first._replace(again=True)
    assert await resolved(cities, 1, Resolution("paid-by", (Part(BANK, 900),))) == first._replace(again=True)
    assert "as paid-by before" in await refused(cities, 1, Resolution("paid-by", (Part(EAST),)))
    await resolved(cities, 2, Resolution("paid-to", (Part(EAST, 300),)))
    await resolved(cities, 3, Resolution("paid-by", (Part(GROCER),)))
    await cities.fold()
    assert await balance(cities, 1101, int(BANK)) == -200  # it has paid ahead
    assert await balance(cities, 2102, int(EAST)) == 300
    assert await balance(cities, 2101, 1) == -740
    assert (await balance(cities, 2201), await balance(cities, 1001)) == (0, 640)
    assert await odd_lines(cities) == {}
    assert (
        await cities.rows("SELECT actor, checker, reason FROM bank_resolution")
        == [("li wei", "wang fang", "advice 4711")] * 3
    )
    with pytest.raises(psycopg.Error, match="append"):
        await cities.pg.execute("DELETE FROM bank_resolution")
    assert faults(postgres_url) == []


async def test_an_entry_pays_an_open_collection_with_its_set_off_and_of_no_other_amount(
    cities: Settling, postgres_url: str
) -> None:
    await cities.pay(
        Booking(Event.FEE_OTHERS, 1_200, 1, int(OTHER), "case 1"),
        Booking(Event.BANK_PURCHASE, 5_000, int(OTHER), 1, "case 2"),
    )
    await cities.close()
    await cities.settle()
    collection = await cities.one("SELECT payout_id FROM payout WHERE party = %s", OTHER)
    await told(cities, (3_800, "no reference"), (100, "a stranger"))
    assert f"{collection} waits for just this" in await refused(
        cities, 1, Resolution("paid-by", (Part(OTHER),))
    )
    assert "waits for 3800 fen, not 100" in await refused(
        cities, 2, Resolution("collection", payout_id=collection)
    )
    asked = Resolution("collection", payout_id=collection)
    await resolved(cities, 1, asked)
    assert (await resolved(cities, 1, asked)).again
    assert "no open collection" in await refused(cities, 2, asked)
    assert await cities.one("SELECT state FROM payout WHERE payout_id = %s", collection) == "FUNDED"
    assert (await balance(cities, 1101, int(OTHER)), await balance(cities, 2102, int(OTHER))) == (0, 0)
    assert await balance(cities, 2201) == -100
    assert await odd_lines(cities) == {2: 100}
    await cities.fold()
    assert faults(postgres_url) == []


async def test_money_and_its_way_back_are_linked_and_nothing_is_booked_for_it(
    cities: Settling, postgres_url: str
) -> None:
    await told(cities, (99, "a stranger"), (-98, "something"), (-99, "back to the stranger"))
    asked = Resolution("sent-back", other=EntryName(STATEMENT, 3))
    assert "do not come to nothing" in await refused(
        cities, 1, Resolution("sent-back", other=EntryName(STATEMENT, 2))
    )
    assert "not its own way back" in await refused(cities, 1, asked._replace(other=EntryName(STATEMENT, 1)))
    before = await cities.one("SELECT count(*) FROM booking")
    await resolved(cities, 1, asked)
    assert (await resolved(cities, 1, asked)).again
    assert (await resolved(cities, 3, Resolution("sent-back", other=EntryName(STATEMENT, 1)))).again
    assert "as sent-back before" in await refused(cities, 3, Resolution("paid-to", (Part(EAST),)))
    assert await cities.one("SELECT count(*) FROM booking") == before
    assert await odd_lines(cities) == {2: -98}
    assert faults(postgres_url) == []


async def test_while_another_step_of_settlement_runs_nothing_is_resolved(
    cities: Settling, postgres_url: str
) -> None:
    await told(cities, (99, "a stranger"))
    async with await connect(postgres_url) as other, only_one(other, "zhao min"):
        assert "another settlement step" in await refused(cities, 1, Resolution("paid-by", (Part(EAST),)))
    assert await odd_lines(cities) == {1: 99}
