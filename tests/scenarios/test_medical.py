"""A hospital's day under a policy of the medical account, over TCP and by two processes: divided purchases and everything that undoes them."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest

from switch.domain.transactions import AccountKind
from terminal_sim.frames import CardData
from tests.helpers.till import Seen, Till, check_books, stored
from tests.helpers.town import OPENING_FEN, PIN, Town
from tests.scenarios.conftest import Two

pytestmark = pytest.mark.server

MEDICAL, ONLINE = AccountKind.MEDICAL, AccountKind.ONLINE
CLIENTS = 200


@pytest.fixture(scope="module")
def hospital(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """A town in its second day, of which on the policy is: three tenths own part, 80 yuan covered a day. Closed and audited at the end."""
    town = built_town.copy(tmp_path_factory.mktemp("hospital"))
    try:
        one = town.serve()
        two = Two(town, one, town.serve_beside())
        with psycopg.connect(town.database_url) as connection:
            row = connection.execute(
                "SELECT business_date + 1 FROM business_day WHERE begins_at <= now() AND now() < ends_at"
            ).fetchone()
        assert row is not None
        words = ("medical", "set", "--category", "5411", "--own-pay-ppm", "300000", "--day-fen", "8000")
        text = town.run(*words, "--from", row[0].isoformat(), "--reason", "council 7", "--actor", "desk 2")
        assert "medical policy 1" in text
        town.run("close", "--yes", "--json")
        yield two
        town.run("audit")
        report = json.loads(town.run("close", "--yes", "--json"))
        assert report["state"] == "closed"
        town.run("audit")
    finally:
        town.stop_all()


@pytest.fixture
def told(hospital: Two) -> Iterator[Seen]:
    """What the terminals of one test are told; held against the books when it ends."""
    seen = Seen()
    yield seen
    check_books(hospital.town.database_url, [seen])


async def balances(till: Till, card: CardData) -> tuple[int, int]:
    """Medical, online, as a terminal is told."""
    shown = []
    for account in (MEDICAL, ONLINE):
        answer = await till.ask(till.pos.balance(card, account=account))
        shown.append(int(str(answer.fields[54])[-12:]))
    return shown[0], shown[1]


async def test_a_purchase_at_the_hospital_is_divided_and_refunds_return_each_share_its_part(
    hospital: Two, told: Seen
) -> None:
    town, lines = hospital.town, (hospital.one.line, hospital.other.line)
    till = await Till(town.new_terminal(), told, lines[0]).sign_on()
    card = town.new_card("medical")
    bought = await till.buy(card, 10_000, account=MEDICAL)
    assert bought.fields[39] == "00"
    assert 54 not in bought.fields  # one answer for the whole
    assert await balances(till, card) == (OPENING_FEN - 7_000, OPENING_FEN - 3_000)
    receipt = till.pos.batch.receipts[-1]
    assert await till.code(till.pos.refund(receipt, 3_333), lines[1]) == "00"
    assert await balances(till, card) == (OPENING_FEN - 7_000 + 2_333, OPENING_FEN - 3_000 + 1_000)
    assert await till.code(till.pos.refund(receipt, 6_668), lines[1]) == "64"
    last = till.pos.refund(receipt, 6_667)
    first = await till.ask(last, lines[1])
    assert stored(await till.ask(last, lines[0])) == stored(first)
    assert await balances(till, card) == (OPENING_FEN, OPENING_FEN)


async def test_a_void_and_the_reversal_of_a_lost_answer_give_back_both_shares(
    hospital: Two, told: Seen
) -> None:
    town, lines = hospital.town, (hospital.one.line, hospital.other.line)
    till = await Till(town.new_terminal(), told, lines[0]).sign_on()
    card = town.new_card("medical")
    assert (await till.buy(card, 1_000, account=MEDICAL)).fields[39] == "00"
    assert await till.code(till.pos.void(till.pos.batch.receipts[-1]), lines[1]) == "00"
    assert await balances(till, card) == (OPENING_FEN, OPENING_FEN)

    lost = till.pos.purchase(card, 2_000, account=MEDICAL)
    await till.send(lost, lines[0])
    till.break_off()  # its answer finds nobody
    reversal = till.pos.reversal(lost, "98")
    first = await till.ask(reversal, lines[1])
    # The reversal may come first: then it is a tombstone, and the purchase is refused should it still come.
    assert first.fields[39] in ("00", "25")
    assert stored(await till.ask(reversal, lines[0])) == stored(first)
    assert await balances(till, card) == (OPENING_FEN, OPENING_FEN)

    known = till.pos.purchase(card, 2_000, account=MEDICAL)
    assert await till.code(known, lines[0]) == "00"
    assert await till.code(till.pos.reversal(known, "06"), lines[1]) == "00"
    assert await balances(till, card) == (OPENING_FEN, OPENING_FEN)


async def test_what_passes_the_limit_of_the_day_is_the_holders_own(hospital: Two, told: Seen) -> None:
    till = await Till(hospital.town.new_terminal(), told, hospital.other.line).sign_on()
    card = hospital.town.new_card("medical")
    for fen, medical, online in ((10_000, 7_000, 3_000), (2_000, 8_000, 4_000), (500, 8_000, 4_500)):
        assert (await till.buy(card, fen, account=MEDICAL)).fields[39] == "00"
        assert await balances(till, card) == (OPENING_FEN - medical, OPENING_FEN - online)
    assert (await till.buy(card, 5_501, account=MEDICAL)).fields[39] == "51"  # of the online account
    assert (await till.buy(card, 5_500)).fields[39] == "00"


async def test_the_medical_accounts_pin_opens_both_and_a_card_without_an_online_account_pays_no_share(
    hospital: Two, told: Seen
) -> None:
    till = await Till(hospital.town.new_terminal(), told, hospital.one.line).sign_on()
    card = hospital.town.new_card("medical pin")
    codes = [
        (await till.buy(card, 1_000, account=MEDICAL, pin=pin)).fields[39] for pin in (None, "654321", PIN)
    ]
    assert codes == ["55", "55", "00"]
    assert (await till.buy(hospital.town.new_card("medical only"), 1_000, account=MEDICAL)).fields[39] == "57"


async def test_a_terminals_totals_count_a_divided_purchase_once(hospital: Two, told: Seen) -> None:
    till = await Till(hospital.town.new_terminal(), told, hospital.one.line).sign_on()
    card = hospital.town.new_card("medical")
    for fen in (1_001, 2_002):
        assert (await till.buy(card, fen, account=MEDICAL)).fields[39] == "00"
    assert await till.code(till.pos.refund(till.pos.batch.receipts[0], 501)) == "00"
    settled = await till.ask(till.pos.settlement())
    assert (settled.fields[48][:31], settled.fields[48][-1]) == ("0000000030030020000000005010011", "1")
    assert await till.code(till.pos.batch_end(balanced=True)) == "00"


async def test_two_hundred_clients_at_both_accounts_of_one_holder_take_what_is_there_and_no_more(
    hospital: Two, told: Seen
) -> None:
    town, lines = hospital.town, (hospital.one.line, hospital.other.line)
    card = town.new_card("medical")
    tills = [Till(town.new_terminal(), told, lines[number % 2]) for number in range(CLIENTS)]
    for start in range(0, CLIENTS, 50):
        await asyncio.gather(*(till.sign_on() for till in tills[start : start + 50]))

    async def pay(till: Till, number: int) -> tuple[int, str]:
        account = (MEDICAL, ONLINE)[number // 2 % 2]
        answer = await till.buy(card, 1_000, account=account)
        return int(account), answer.fields[39]

    codes = Counter(await asyncio.gather(*(pay(till, number) for number, till in enumerate(tills))))
    assert {code for _, code in codes} == {"00", "51"}
    medical, online = await balances(tills[0], card)
    covered = min(codes[40, "00"] * 700, 8_000)
    own = codes[40, "00"] * 1_000 - covered
    assert (medical, online) == (OPENING_FEN - covered, OPENING_FEN - own - codes[10, "00"] * 1_000)
    assert 0 <= online < 1_000
    assert medical == OPENING_FEN - covered
