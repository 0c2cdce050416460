"""Purchases and balances that a host decides: every way a question can end, what is booked, and what the host must still be told."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from switch.domain.identifiers import luhn_digit
from switch.domain.transactions import AccountKind
from terminal_sim.frames import CardData
from terminal_sim.host.script import Script, read_script
from tests.helpers.banked import ANSWER_S, Banked, banked, being_asked, host_of, legs, neighbour, outbox, rows
from tests.helpers.till import Seen, Till, check_books, stored
from tests.helpers.town import Town

pytestmark = [pytest.mark.server, pytest.mark.slow]

APPROVED, DECLINED, NOT_SENT, UNKNOWN = 1, 2, 3, 4
ADVICE, REVERSAL_ADVICE = 3, 5
PURCHASE, RETURN = 1, 2
BANK, MEDICAL = AccountKind.BANK, AccountKind.MEDICAL


@pytest.fixture(scope="module")
def city(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Banked]:
    with banked(built_town.copy(tmp_path_factory.mktemp("banked"))) as made:
        yield made


@pytest.fixture
def told(city: Banked) -> Iterator[Seen]:
    seen = Seen()
    yield seen
    check_books(city.town.database_url, [seen])


async def till_of(city: Banked, seen: Seen) -> Till:
    return await Till(city.town.new_terminal(), seen, city.one.line).sign_on()


def bank_card_of(number: int) -> CardData:
    payload = f"622848{number:012d}"
    return CardData(payload + luhn_digit(payload), "")


async def test_a_bank_approves_a_purchase_and_owes_it(city: Banked, told: Seen) -> None:
    till, card = await till_of(city, told), city.town.new_card()
    async with host_of(city, "bank", [card]) as bank:
        answer = await till.buy(card, 1234, account=BANK)
        assert answer.fields[39] == "00"
        assert answer.fields[38] == "000001", "the bank's authorisation code"
        assert bank.book.balance_fen(card.pan) == 100_000 - 1234
    assert legs(city, card) == [(APPROVED, 1234)]
    owed = rows(
        city,
        "SELECT p.debit_code, p.debit_owner, p.credit_code, p.amount_fen FROM posting p JOIN host_leg l ON l.ended_by = p.entry_no WHERE pan = %s",
        card.pan,
    )
    assert owed == [(1101, 1_020_000, 2101, 1234)]


@pytest.mark.parametrize(("script", "code"), [("refuses", "91"), ("other-amount", "68"), ("wrong-mac", "68")])
async def test_what_a_bank_answers_badly_is_not_booked(
    city: Banked, told: Seen, script: str, code: str
) -> None:
    till, card = await till_of(city, told), city.town.new_card()
    async with host_of(city, "bank", [card], read_script(script)):
        assert await till.code(till.pos.purchase(card, 500, account=BANK)) == code
    if code == "68":
        assert legs(city, card) == [(UNKNOWN, 500)]
        assert [row[:2] for row in outbox(city, card)] == [(REVERSAL_ADVICE, PURCHASE)]
    else:
        assert legs(city, card) == [(DECLINED, 500)]


async def test_a_bank_declines_and_its_reason_is_told(city: Banked, told: Seen) -> None:
    till, card = await till_of(city, told), city.town.new_card()
    async with host_of(city, "bank", [card], balance_fen=100):
        assert await till.code(till.pos.purchase(card, 500, account=BANK)) == "51"
    assert legs(city, card) == [(DECLINED, 500)]
    assert outbox(city, card) == []


async def test_a_silent_bank_is_reversed_and_the_terminal_hears_68(city: Banked, told: Seen) -> None:
    till, card = await till_of(city, told), city.town.new_card()
    request = till.pos.purchase(card, 700, account=BANK)
    async with host_of(city, "bank", [card], read_script("silent")):
        first = await till.ask(request)
        assert first.fields[39] == "68"
        assert stored(await till.ask(request, city.other.line)) == stored(first), "a repeat elsewhere"
    assert legs(city, card) == [(UNKNOWN, 700)]
    assert outbox(city, card) == [(REVERSAL_ADVICE, PURCHASE, "98", 700)]


async def test_a_bank_that_is_away_is_91_and_nothing_is_left_to_undo(city: Banked, told: Seen) -> None:
    till, card = await till_of(city, told), city.town.new_card()
    assert await till.code(till.pos.purchase(card, 700, account=BANK)) == "91"
    assert outbox(city, card) == []


async def test_an_answer_after_the_time_out_changes_nothing(city: Banked, told: Seen) -> None:
    till, card = await till_of(city, told), city.town.new_card()
    async with host_of(city, "bank", [card], read_script(f"slow:{ANSWER_S + 0.5}")):
        assert await till.code(till.pos.purchase(card, 700, account=BANK)) == "68"
        await asyncio.sleep(1.0)
        assert await till.code(till.pos.purchase(card, 300, account=BANK)) == "00"
    assert legs(city, card) == [(UNKNOWN, 700), (APPROVED, 300)]
    assert len(outbox(city, card)) == 1


async def test_a_repeat_during_the_question_waits_for_the_same_answer(city: Banked, told: Seen) -> None:
    till, card = await till_of(city, told), city.town.new_card()
    request = till.pos.purchase(card, 900, account=BANK)
    async with host_of(city, "bank", [card], read_script("slow:1")) as bank:
        again = Till(till.terminal, told, city.one.line)
        again.pos = till.pos
        first, second = await asyncio.gather(till.ask(request), again.ask(request))
        assert stored(first) == stored(second)
        assert bank.counts["0200"] == 1
    assert legs(city, card) == [(APPROVED, 900)]


async def test_a_reversal_during_the_question_ends_it(city: Banked, told: Seen) -> None:
    till, card = await till_of(city, told), city.town.new_card()
    request = till.pos.purchase(card, 900, account=BANK)
    reversal = till.pos.reversal(request, "98")
    async with host_of(city, "bank", [card], read_script("slow:3")):
        other = Till(till.terminal, told, city.other.line)
        other.pos = till.pos
        question = asyncio.ensure_future(till.ask(request))
        await being_asked(city, card)
        assert await other.code(reversal) == "00"
        assert (await question).fields[39] == "68"
        assert await other.code(reversal) == "00"
    assert legs(city, card) == [(UNKNOWN, 900)]
    assert outbox(city, card) == [(REVERSAL_ADVICE, PURCHASE, "98", 900)]


async def test_a_reversal_of_another_amount_during_the_question_ends_nothing_and_the_books_hold(
    city: Banked, told: Seen
) -> None:
    till, card = await till_of(city, told), city.town.new_card()
    request = till.pos.purchase(card, 900, account=BANK)
    reversal = till.pos.reversal(request, "98")
    reversal.fields[4] = f"{901:012d}"
    async with host_of(city, "bank", [card], read_script("slow:2")):
        other = Till(till.terminal, told, city.other.line)
        other.pos = till.pos
        question = asyncio.ensure_future(till.ask(request))
        await being_asked(city, card)
        assert await other.code(reversal) == "64"
        assert (await question).fields[39] == "00"
    assert legs(city, card) == [(APPROVED, 900)]
    city.town.run("audit")


async def test_a_reversal_a_void_and_refunds_are_booked_and_told(city: Banked, told: Seen) -> None:
    till = await till_of(city, told)
    reversed_card, voided, refunded = (city.town.new_card() for _ in range(3))
    async with host_of(city, "bank", [reversed_card, voided, refunded]):
        request = till.pos.purchase(reversed_card, 100, account=BANK)
        assert await till.code(request) == "00"
        reversal = till.pos.reversal(request, "98")
        assert [await till.code(reversal) for _ in range(2)] == ["00", "00"]

        request = till.pos.purchase(voided, 200, account=BANK)
        await till.ask(request)
        receipt = till.pos.batch.receipts[-1]
        void = till.pos.void(receipt)
        assert await till.code(void) == "00"
        assert await till.code(till.pos.reversal(void, "98")) == "12", "the bank has been told"

        request = till.pos.purchase(refunded, 300, account=BANK)
        await till.ask(request)
        receipt = till.pos.batch.receipts[-1]
        codes = [await till.code(till.pos.refund(receipt, fen)) for fen in (100, 200, 1)]
        assert codes == ["00", "00", "64"]
    assert outbox(city, reversed_card) == [(REVERSAL_ADVICE, PURCHASE, "98", 100)]
    assert outbox(city, voided) == [(ADVICE, RETURN, "", 200)]
    assert outbox(city, refunded) == [(ADVICE, RETURN, "", 100), (ADVICE, RETURN, "", 200)]


async def test_the_fund_decides_on_medical_accounts_and_the_city_on_its_cards(
    city: Banked, told: Seen
) -> None:
    till, card, guest = await till_of(city, told), city.town.new_card(), neighbour(7)
    async with host_of(city, "fund", [card]), host_of(city, "city", [guest]):
        assert await till.code(till.pos.purchase(card, 150, account=MEDICAL)) == "00"
        request = till.pos.purchase(guest, 250)
        await till.ask(request)
        receipt = till.pos.batch.receipts[-1]
        assert await till.code(till.pos.void(receipt)) == "00"
    owed = "SELECT debit_code, debit_owner, amount_fen FROM host_leg WHERE pan = %s"
    assert rows(city, owed, card.pan) == [(1103, 0, 150)]
    assert rows(city, owed, guest.pan) == [(1102, 99_993_310, 250)]


async def test_the_pin_goes_to_the_bank_under_its_own_key(city: Banked, told: Seen) -> None:
    till, card = await till_of(city, told), city.town.new_card()
    async with host_of(city, "bank", [card], pin="246813"):
        assert await till.code(till.pos.purchase(card, 100, account=BANK, pin="246814")) == "55"
        assert await till.code(till.pos.purchase(card, 100, account=BANK, pin="246813")) == "00"


async def test_a_bound_bank_card_pays_under_its_own_number(city: Banked, told: Seen, tmp_path: Path) -> None:
    till, card, bank_card = (
        await till_of(city, told),
        city.town.new_card(),
        bank_card_of(1),
    )
    document = {
        "format": "citizen-card-registry",
        "version": 1,
        "bindings": [
            {
                "pan": card.pan,
                "institution_id": "01020000",
                "bank_card": bank_card.pan,
                "agreement_id": "A-1",
                "holder_confirmed": True,
                "confirmed_at": "2026-03-15T10:30:00+08:00",
                "transaction_limit_fen": 5_000,
            }
        ],
    }
    path = tmp_path / "bindings.json"
    path.write_text(json.dumps(document))
    city.town.run("registry", "import", str(path))
    async with host_of(city, "bank", [bank_card], pin="246813") as bank:
        assert await till.code(till.pos.purchase(card, 5_001, account=BANK, pin="246813")) == "61"
        assert await till.code(till.pos.purchase(card, 5_000, account=BANK, pin="246814")) == "55"
        request = till.pos.purchase(card, 5_000, account=BANK, pin="246813")
        assert await till.code(request) == "00"
        assert await till.code(till.pos.reversal(request, "98")) == "00"
        assert bank.book.balance_fen(bank_card.pan) in (95_000, 100_000)
    assert outbox(city, bank_card) == [(REVERSAL_ADVICE, PURCHASE, "98", 5_000)]


async def test_a_balance_is_the_hosts_and_leaves_nothing_to_undo(city: Banked, told: Seen) -> None:
    till, card = await till_of(city, told), city.town.new_card()
    async with host_of(city, "bank", [card], read_script("normal,silent"), balance_fen=4321):
        answer = await till.ask(till.pos.balance(card, account=BANK))
        assert answer.fields[39] == "00"
        assert answer.fields[54] == "2002156C000000004321"
        assert await till.code(till.pos.balance(card, account=BANK)) == "68"
    assert outbox(city, card) == []


async def test_a_lost_card_is_refused_before_its_bank_is_asked(city: Banked, told: Seen) -> None:
    till, card = await till_of(city, told), city.town.new_card("lost")
    async with host_of(city, "bank", [card]) as bank:
        assert await till.code(till.pos.purchase(card, 100, account=BANK)) == "41"
        assert bank.counts["0200"] == 0


async def test_a_hundred_at_once_over_both_processes_with_a_bank_of_all_moods(
    city: Banked, told: Seen
) -> None:
    moods = (
        "normal*3,slow:0.2*2,silent,duplicate*2,wrong-mac,other-amount,dies:0.3,refuses,old-sequence,garbled"
    )
    script = Script(*[step for _ in range(7) for step in read_script(moods).steps])
    cards = [city.town.new_card() for _ in range(20)]
    tills = [await till_of(city, told) for _ in range(10)]

    async def shop(till: Till, line: int) -> None:
        for card in cards:
            request = till.pos.purchase(card, 10, account=BANK)
            assert await till.code(request, (city.one, city.other)[line].line) in ("00", "68", "91")

    async with host_of(city, "bank", cards, script):
        async with asyncio.timeout(300):
            await asyncio.gather(*(shop(till, number % 2) for number, till in enumerate(tills)))
    for card in cards:
        undone = sum(row[0] == REVERSAL_ADVICE for row in outbox(city, card))
        assert sum(state == UNKNOWN for state, _ in legs(city, card)) == undone
    assert rows(city, "SELECT count(*) FROM host_leg WHERE state = 0") == [(0,)]
