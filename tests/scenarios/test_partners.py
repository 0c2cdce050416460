"""Cards of other cities over their links, refused where nobody is or nobody lets them; and a social-security centre that has its own policy."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from switch.domain.identifiers import luhn_digit
from switch.domain.transactions import AccountKind
from switch.messages.host_1987 import BCD
from terminal_sim.frames import CardData
from terminal_sim.host.book import Account
from terminal_sim.host.medical import MedicalBook
from terminal_sim.host.server import SimulatedHost
from tests.helpers.banked import Banked, banked, host_of, legs, rows, signed_on
from tests.helpers.hosts import SECRETS
from tests.helpers.till import Seen, Till, check_books, stored
from tests.helpers.town import Town, terminal_of
from tests.scenarios.test_interop import bring_in
from tests.unit.routing.tables import write

pytestmark = [pytest.mark.server, pytest.mark.slow]

APPROVED, DECLINED = 1, 2
HOSPITAL, WARD = "993350080620001", 61_000
SHY, FAR, LATE = "99993320", "99991000", "99993330"
OPENING_FEN = 100_000


def foreigner(digits: str, number: int = 1) -> CardData:
    payload = f"{digits}{number:0{18 - len(digits)}d}"
    return CardData(payload + luhn_digit(payload), "001")


def issuer(institution: str, **more: object) -> dict[str, object]:
    return {"issuer_id": f"{institution}FFFFFFFF", "institution_id": institution, "own": False} | more


def city_named(institution: str) -> dict[str, object]:
    return {"institution_id": institution, "name": f"City {institution[-2:]}", "role": "CITY"}


@pytest.fixture(scope="module")
def city(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Banked]:
    """A neighbour with a link, a shy city whose cards stay near it, a far one without a link; a hospital with a terminal."""
    folder = tmp_path_factory.mktemp("partners")
    with banked(built_town.copy(folder)) as made:
        bring_in(
            made.town,
            folder,
            institutions=[city_named(SHY), city_named(FAR)],
            card_issuers=[issuer(SHY, circle="DELTA", scope="HANGZHOU"), issuer(FAR)],
            merchants=[
                {"merchant_id": HOSPITAL, "name": "Hospital", "category": "8062", "acquirer_id": "99993350"}
            ],
            terminals=[
                {"terminal_id": terminal_of(WARD).terminal_id, "merchant_id": HOSPITAL, "mac_algorithm": 5}
            ],
        )
        yield made


@pytest.fixture
def told(city: Banked) -> Iterator[Seen]:
    seen = Seen()
    yield seen
    check_books(city.town.database_url, [seen])


async def till_of(city: Banked, seen: Seen) -> Till:
    return await Till(city.town.new_terminal(), seen, city.one.line).sign_on()


# ---------------------------------------------------------------------- other cities


async def test_a_neighbours_card_is_asked_about_in_its_city_and_others_are_refused_by_rule(
    city: Banked, told: Seen
) -> None:
    till = await till_of(city, told)
    guest = foreigner("313310")
    #           card                     answer
    refusals = [
        (foreigner("313320"), "57"),  # its issuer lets it no further than HANGZHOU
        (foreigner("311000"), "92"),  # its city has no link here
        (foreigner("622202"), "15"),  # nobody's
        (foreigner("31335099"), "14"),  # ours by its digits, and unknown
    ]
    async with host_of(city, "city", [guest]) as away:
        answer = await till.buy(guest, 250)
        assert answer.fields[39] == "00"
        assert answer.fields[38] == "000001", "the city's authorisation code"
        for card, code in refusals:
            for line in (city.one.line, city.other.line):
                assert await till.code(till.pos.purchase(card, 250), line) == code
                assert await till.code(till.pos.balance(card), line) == code
        assert away.counts["0200"] == 1
        assert away.book.balance_fen(guest.pan) == OPENING_FEN - 250
    assert legs(city, guest) == [(APPROVED, 250)]
    for card, _ in refusals:
        assert legs(city, card) == []


async def test_a_guest_is_served_from_balance_to_refund_and_cannot_hold_money(
    city: Banked, told: Seen
) -> None:
    till, guest = await till_of(city, told), foreigner("313310", 2)
    async with host_of(city, "city", [guest], balance_fen=5_000) as away:
        assert (await till.ask(till.pos.balance(guest))).fields[54].endswith("000000005000")
        bought = till.pos.purchase(guest, 300)
        first = await till.ask(bought)
        receipt = till.pos.batch.receipts[-1]
        assert stored(await till.ask(bought, city.other.line)) == stored(first)
        assert await till.code(till.pos.refund(receipt, 100)) == "00"
        undone = till.pos.purchase(guest, 70)
        assert await till.code(undone) == "00"
        assert await till.code(till.pos.reversal(undone, "98"), city.other.line) == "00"
        assert await till.code(till.pos.purchase(guest, 5_000)) == "51"
        assert await till.code(till.pos.pre_authorisation(guest, 10)) == "40"
        assert away.counts["0100"] == 0


async def test_a_city_that_is_away_is_91_and_one_that_forgets_its_card_14(city: Banked, told: Seen) -> None:
    till, guest = await till_of(city, told), foreigner("313310", 3)
    assert await till.code(till.pos.purchase(guest, 100)) == "91"
    async with host_of(city, "city", []):
        assert await till.code(till.pos.purchase(guest, 100)) == "14"
    assert legs(city, guest)[-1] == (DECLINED, 100)


async def test_a_row_sends_cards_by_way_of_a_neighbour_and_scopes_still_count(
    city: Banked, told: Seen, tmp_path: Path
) -> None:
    till, traveller, shy = await till_of(city, told), foreigner("311000", 4), foreigner("313320", 4)
    before = rows(city, "SELECT content FROM route_table ORDER BY version DESC LIMIT 1")
    ways = (
        "10 account=BANK HOST:bank",
        "20 account=MEDICAL HOST:fund",
        "30 scope=NATION+DELTA CITY:99993310",
    )
    city.town.run("routes", "import", write(tmp_path, *ways))
    try:
        async with host_of(city, "city", [traveller, shy]):
            async with asyncio.timeout(60):
                while await till.code(till.pos.purchase(traveller, 100)) != "00":
                    await asyncio.sleep(0.05)
            assert await till.code(till.pos.purchase(shy, 100)) == "57"
        explained = city.town.run("routes", "check", "--pan", traveller.pan)
        assert "by way of host city" in explained
        assert traveller.pan not in explained
    finally:
        city.town.run("routes", "rollback")
    assert rows(city, "SELECT count(*) FROM route_table WHERE content = %s", before[0][0]) == [(1,)]
    owed = rows(city, "SELECT DISTINCT debit_code, debit_owner FROM host_leg WHERE pan = %s", traveller.pan)
    assert owed == [(1102, 99_993_310)], "who was asked owes it"


async def test_an_acquirer_that_takes_no_guests_answers_58_and_asks_nobody(
    city: Banked, told: Seen, tmp_path: Path
) -> None:
    till, guest = await till_of(city, told), foreigner("313310", 5)
    ours = {"institution_id": "99993350", "name": "Test Town", "role": "ISSUER"}
    bring_in(city.town, tmp_path, institutions=[ours | {"scope": "LOCAL"}])
    try:
        async with host_of(city, "city", [guest]) as away:
            async with asyncio.timeout(60):
                while await till.code(till.pos.balance(guest)) != "58":
                    await asyncio.sleep(0.05)
            asked = away.counts["0200"]
            assert await till.code(till.pos.purchase(guest, 100)) == "58"
            assert away.counts["0200"] == asked
            assert (await till.buy(city.town.new_card(), 100)).fields[39] == "00"
    finally:
        bring_in(city.town, tmp_path, institutions=[ours])


async def test_an_issuer_that_joins_is_served_by_both_processes_without_a_restart(
    city: Banked, told: Seen, tmp_path: Path
) -> None:
    till, newcomer = await till_of(city, told), foreigner("313330")
    assert await till.code(till.pos.purchase(newcomer, 100)) == "15"
    joined = {
        "institutions": [city_named(LATE)],
        "card_issuers": [issuer(LATE, circle="HANGZHOU")],
    }
    bring_in(city.town, tmp_path, **joined)
    for line in (city.one.line, city.other.line):
        async with asyncio.timeout(60):
            while await till.code(till.pos.balance(newcomer), line) != "92":
                await asyncio.sleep(0.05)


# ---------------------------------------------------------------------- the social-security centre


@asynccontextmanager
async def centre(city: Banked, card: CardData, *suspended: CardData) -> AsyncIterator[SimulatedHost]:
    """The fund's host with a policy."""
    accounts = [Account(one.pan, OPENING_FEN) for one in (card, *suspended)]
    book = MedicalBook(accounts, [one.pan for one in suspended])
    host = SimulatedHost(BCD, SECRETS["SM4"], book)
    await host.start(port=city.ports["fund"])
    try:
        await signed_on(city, "fund")
        yield host
    finally:
        await host.close()


async def test_the_centre_pays_in_a_hospital_and_refuses_a_supermarket_and_the_suspended(
    city: Banked, told: Seen
) -> None:
    shop = await till_of(city, told)
    ward = await Till(terminal_of(WARD, merchant_id=HOSPITAL), told, city.one.line).sign_on()
    card, suspended = city.town.new_card(), city.town.new_card()
    async with centre(city, card, suspended) as fund:
        assert await ward.code(ward.pos.purchase(card, 4_000, account=AccountKind.MEDICAL)) == "00"
        assert await shop.code(shop.pos.purchase(card, 500, account=AccountKind.MEDICAL)) == "57"
        assert await ward.code(ward.pos.purchase(suspended, 600, account=AccountKind.MEDICAL)) == "57"
        balance = await shop.ask(shop.pos.balance(card, account=AccountKind.MEDICAL))
        assert balance.fields[54].endswith(f"{OPENING_FEN - 4_000:012d}")
        assert fund.book.moved_fen == 4_000
        assert (await shop.buy(card, 500)).fields[39] == "00", "the online account is ours"
    decided = "SELECT state, host_code FROM host_leg WHERE pan = %s AND service = 1 ORDER BY leg_no"
    assert rows(city, decided, card.pan) == [(APPROVED, "00"), (DECLINED, "57")]
    assert rows(city, decided, suspended.pan) == [(DECLINED, "57")]
