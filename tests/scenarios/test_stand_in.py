"""A host that is away: who stands in, up to where, and that nobody stands in for a host that is there."""

from collections.abc import Iterator

import pytest

from switch.domain.transactions import AccountKind
from tests.helpers.banked import Banked, banked, host_of, legs, outbox, rows
from tests.helpers.till import Seen, Till, check_books, stored
from tests.helpers.town import Town

pytestmark = [pytest.mark.server, pytest.mark.slow]

STOOD_IN, APPROVED = 5, 1
ADVICE, REVERSAL_ADVICE, PURCHASE, RETURN = 3, 5, 1, 2
BANK = AccountKind.BANK


@pytest.fixture(scope="module")
def city(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Banked]:
    limits = {
        "stand_in_amount_fen": 500,
        "stand_in_outstanding_fen": 4_000,
        "stand_in_outstanding_count": 12,
    }
    with banked(built_town.copy(tmp_path_factory.mktemp("stand-in")), **limits) as made:
        yield made


async def test_a_purchase_is_approved_in_the_place_of_a_bank_that_is_away(city: Banked) -> None:
    seen, card = Seen(), city.town.new_card()
    till = await Till(city.town.new_terminal(), seen, city.one.line).sign_on()
    request = till.pos.purchase(card, 500, account=BANK)
    first = await till.ask(request)
    assert first.fields[39] == "00"
    assert stored(await till.ask(request, city.other.line)) == stored(first)
    assert await till.code(till.pos.purchase(card, 501, account=BANK)) == "91"
    assert await till.code(till.pos.purchase(card, 100, account=BANK, pin="123456")) == "91"
    assert legs(city, card) == [(STOOD_IN, 500)]
    assert outbox(city, card)[0] == (ADVICE, PURCHASE, "", 500)

    receipt = till.pos.batch.receipts[-1]
    assert await till.code(till.pos.void(receipt)) == "00"
    assert outbox(city, card)[1] == (ADVICE, RETURN, "", 500)
    check_books(city.town.database_url, [seen])


async def test_the_sum_that_a_host_was_not_told_is_bounded_over_both_processes(city: Banked) -> None:
    seen, first = Seen(), city.town.new_card()
    cards = [first, city.town.card_in_the_shard_of(first)]
    till = await Till(city.town.new_terminal(), seen, city.one.line).sign_on()
    before = rows(
        city,
        "SELECT coalesce(sum(outstanding_fen), 0) FROM stand_in JOIN card_route USING (shard) WHERE pan = %s",
        first.pan,
    )[0][0]
    codes = [
        await till.code(
            till.pos.purchase(cards[n % 2], 300, account=BANK), (city.one, city.other)[n % 2].line
        )
        for n in range(8)
    ]
    room = int(2_000 - before) // 300  # half of the sum belongs to this shard
    assert codes == ["00"] * room + ["91"] * (8 - room)
    check_books(city.town.database_url, [seen])


async def test_nobody_stands_in_for_a_bank_that_answers(city: Banked) -> None:
    seen, card = Seen(), city.town.new_card()
    till = await Till(city.town.new_terminal(), seen, city.one.line).sign_on()
    async with host_of(city, "bank", [card], balance_fen=100):
        assert await till.code(till.pos.purchase(card, 101, account=BANK)) == "51"
        assert await till.code(till.pos.purchase(card, 100, account=BANK)) == "00"
    assert legs(city, card)[-1] == (APPROVED, 100)
