"""Reversals in every order that a bad line can bring: before their original, twice, late, and of what cannot be undone."""

import pytest

from tests.helpers.till import Seen, Till, stored
from tests.scenarios.conftest import Two

pytestmark = pytest.mark.server


async def till_of(two: Two, seen: Seen) -> Till:
    return await Till(two.town.new_terminal(), seen, two.one.line).sign_on()


async def test_a_reversal_before_its_original_is_25_and_the_late_original_is_refused(
    two: Two, seen: Seen
) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    purchase = till.pos.purchase(card, 10_000)
    reversal = till.pos.reversal(purchase, "98")
    first = await till.ask(reversal)
    assert first.fields[39] == "25"
    late = await till.ask(purchase, two.other.line)
    assert late.fields[39] == "22"
    assert not {15, 38} & late.fields.keys()
    assert stored(await till.ask(purchase)) == stored(late)
    assert stored(await till.ask(reversal, two.other.line)) == stored(first)
    assert (await till.buy(card, 10_000)).fields[39] == "00"  # the money never moved


async def test_a_reversal_sent_again_gets_the_same_answer_and_the_money_back_once(
    two: Two, seen: Seen
) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    purchase = till.pos.purchase(card, 6_000)
    approved = await till.ask(purchase)
    reversal = till.pos.reversal(purchase, "98")
    first = await till.ask(reversal)
    assert first.fields[39] == "00"
    assert first.fields[37] == approved.fields[37]  # the original's
    await till.sign_on(two.other.line)
    assert stored(await till.ask(reversal, two.other.line)) == stored(first)
    assert stored(await till.ask(reversal, two.one.line)) == stored(first)
    assert (await till.buy(card, 10_000)).fields[39] == "00"
    assert (await till.buy(card, 1)).fields[39] == "51"
    assert stored(await till.ask(purchase)) == stored(approved)  # what was told stays told


async def test_original_and_reversal_sent_in_one_instant_by_two_processes_leave_nothing_booked(
    two: Two, seen: Seen
) -> None:
    till = await till_of(two, seen)
    for _ in range(20):
        card = two.town.new_card("rich")
        two.town._free["rich"].append(int(card.pan[8:18]))  # its balance does not matter
        purchase = till.pos.purchase(card, 500)
        reversal = till.pos.reversal(purchase, "98")
        await till.send(purchase, two.one.line)
        await till.send(reversal, two.other.line)
        bought = till.pos.take(purchase, await (await till.wire(two.one.line)).body()).message
        undone = till.pos.take(reversal, await (await till.wire(two.other.line)).body()).message
        assert (bought.fields[39], undone.fields[39]) in {("00", "00"), ("22", "25")}


async def test_the_reversal_of_a_declined_purchase_is_00_and_undoes_nothing(two: Two, seen: Seen) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    purchase = till.pos.purchase(card, 10_001)
    assert await till.code(purchase) == "51"
    assert await till.code(till.pos.reversal(purchase, "98")) == "00"
    assert (await till.buy(card, 10_000)).fields[39] == "00"
    assert (await till.buy(card, 1)).fields[39] == "51"


async def test_the_reversal_of_a_voided_or_refunded_purchase_is_12(two: Two, seen: Seen) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    for undo in ("void", "refund"):
        purchase = till.pos.purchase(card, 1_000)
        assert await till.code(purchase) == "00"
        receipt = till.pos.batch.receipts[-1]
        request = till.pos.void(receipt) if undo == "void" else till.pos.refund(receipt, 1)
        assert await till.code(request) == "00"
        assert await till.code(till.pos.reversal(purchase, "98")) == "12"


async def test_a_reversal_with_another_amount_is_64_and_with_another_card_undoes_nothing(
    two: Two, seen: Seen
) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    purchase = till.pos.purchase(card, 1_000)
    assert await till.code(purchase) == "00"
    reversal = till.pos.reversal(purchase, "98")
    assert await till.code(reversal._replace(fields=reversal.fields | {4: "000000000999"})) == "64"
    purchase = till.pos.purchase(card, 1_000)
    assert await till.code(purchase) == "00"
    stranger = two.town.card_in_the_shard_of(card)
    reversal = till.pos.reversal(purchase, "98")
    assert await till.code(reversal._replace(fields=reversal.fields | {2: stranger.pan})) == "12"
    assert (await till.buy(card, 8_001)).fields[39] == "51"
    assert (await till.buy(card, 8_000)).fields[39] == "00"


async def test_a_void_reversed_stands_as_a_purchase_again(two: Two, seen: Seen) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    purchase = till.pos.purchase(card, 10_000)
    assert await till.code(purchase) == "00"
    void = till.pos.void(till.pos.batch.receipts[0])
    assert await till.code(void) == "00"
    assert await till.code(till.pos.reversal(void, "98"), two.other.line) == "00"
    assert (await till.buy(card, 1)).fields[39] == "51"
    assert await till.code(till.pos.reversal(purchase, "98")) == "00"  # it lives again, so it can be reversed
    assert (await till.buy(card, 10_000)).fields[39] == "00"


async def test_after_the_batch_is_settled_and_closed_a_reversal_is_12_but_its_repeat_keeps_its_answer(
    two: Two, seen: Seen
) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    kept = till.pos.purchase(card, 1_000)
    undone = till.pos.purchase(card, 1_000)
    first = await till.ask(kept)
    assert await till.code(undone) == "00"
    reversal = till.pos.reversal(undone, "98")
    reversed_ = await till.ask(reversal)
    assert await till.code(till.pos.settlement()) == "00"
    assert await till.code(till.pos.purchase(card, 1)) == "90"
    assert await till.code(till.pos.batch_end(balanced=True)) == "00"
    assert await till.code(till.pos.reversal(kept, "98")) == "12"
    assert stored(await till.ask(reversal)) == stored(reversed_)
    assert stored(await till.ask(kept, two.other.line)) == stored(first)
    old_batch = till.pos.batch_no
    await till.sign_on(two.other.line)
    assert till.pos.batch_no == old_batch + 1
    assert stored(await till.ask(kept)) == stored(first)
    assert stored(await till.ask(reversal, two.other.line)) == stored(reversed_)
    stale = till.pos.purchase(card, 1)
    stale.fields[60] = kept.fields[60]  # a new request in the old batch
    assert await till.code(stale) == "77"


async def test_between_settlement_and_batch_end_a_reversal_is_still_taken(two: Two, seen: Seen) -> None:
    till = await till_of(two, seen)
    purchase = till.pos.purchase(two.town.new_card(), 1_000)
    assert await till.code(purchase) == "00"
    assert await till.code(till.pos.settlement()) == "00"
    assert await till.code(till.pos.reversal(purchase, "98"), two.other.line) == "00"
