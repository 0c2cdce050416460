"""A reply lost and the request sent again: the stored answer comes back, and the money has moved once."""

import psycopg
import pytest

from terminal_sim.pos_answers import Request
from tests.helpers.till import Seen, Till, stored
from tests.scenarios.conftest import Two

pytestmark = pytest.mark.server


def rows_of(two: Two, till: Till, request: Request) -> int:
    """Journal rows under the key of a request, over all days and shards."""
    with psycopg.connect(two.town.database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM journal JOIN terminal USING (terminal_no)"
            " WHERE terminal_id = %s AND batch_no = %s AND stan = %s AND class = %s",
            (
                till.terminal.terminal_id,
                int(request.fields[60][2:8]),
                int(request.fields[11]),
                1 if request.mti == "0400" else 0,
            ),
        ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("mac_id", [1, 2, 3, 4, 5])
async def test_a_purchase_sent_again_gets_its_stored_answer_whatever_process_and_keys(
    two: Two, seen: Seen, mac_id: int
) -> None:
    till = await Till(two.town.new_terminal(mac_id), seen, two.one.line).sign_on()
    purchase = till.pos.purchase(two.town.new_card(), 4_000)
    first = await till.ask(purchase)
    assert first.fields[39] == "00"
    assert {38, 15} <= first.fields.keys()
    again = [await till.ask(purchase), await till.ask(purchase, two.other.line)]
    await till.sign_on(two.other.line)  # new keys, drawn by the other process
    again += [await till.ask(purchase, two.one.line), await till.ask(purchase, two.other.line)]
    await till.sign_on(two.one.line)
    again += [await till.ask(purchase, two.other.line), await till.ask(purchase, two.one.line)]
    assert [stored(answer) for answer in again] == [stored(first)] * 6
    assert rows_of(two, till, purchase) == 1


async def test_an_answer_that_never_arrived_is_given_to_the_repeat(two: Two, seen: Seen) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    purchase = till.pos.purchase(two.town.new_card(), 4_000)
    for line in (two.one.line, two.other.line, two.one.line):
        await till.send(purchase, line)
        till.break_off()
    assert (await till.ask(purchase, two.other.line)).fields[39] == "00"
    assert rows_of(two, till, purchase) == 1


async def test_a_decline_sent_again_is_the_same_decline_even_when_it_would_now_be_approved(
    two: Two, seen: Seen
) -> None:
    card = two.town.new_card()
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    bought = till.pos.purchase(card, 9_000)
    assert await till.code(bought) == "00"
    declined = till.pos.purchase(card, 2_000)
    first = await till.ask(declined)
    assert first.fields[39] == "51"
    assert not {15, 38} & first.fields.keys()
    assert await till.code(till.pos.reversal(bought, "06")) == "00"
    assert stored(await till.ask(declined, two.other.line)) == stored(first)
    assert rows_of(two, till, declined) == 1


async def test_a_purchase_for_the_whole_balance_sent_again_is_not_refused_for_want_of_its_own_money(
    two: Two, seen: Seen
) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    purchase = till.pos.purchase(two.town.new_card(), 10_000)
    first = await till.ask(purchase)
    assert first.fields[39] == "00"
    assert stored(await till.ask(purchase, two.other.line)) == stored(first)


async def test_the_same_key_with_other_content_is_94_and_the_first_answer_stands(
    two: Two, seen: Seen
) -> None:
    town = two.town
    till = await Till(town.new_terminal(), seen, two.one.line).sign_on()
    card = town.new_card()
    purchase = till.pos.purchase(card, 4_000)
    first = await till.ask(purchase)
    for number, value in (
        (4, "000000004001"),
        (22, "072"),
        (2, town.card_in_the_shard_of(card).pan),
        (3, "004000"),
    ):
        other = purchase._replace(fields=purchase.fields | {number: value})
        for line in (two.one.line, two.other.line):
            assert await till.code(other, line) == "94"
    assert stored(await till.ask(purchase)) == stored(first)


async def test_void_refund_and_reversal_sent_again_through_the_other_process_move_money_once(
    two: Two, seen: Seen
) -> None:
    town = two.town
    till = await Till(town.new_terminal(), seen, two.one.line).sign_on()
    card = town.new_card()
    for _ in range(3):
        assert (await till.buy(card, 3_000)).fields[39] == "00"
    voided, refunded, reversed_ = till.pos.batch.receipts
    original = till.pos._request("22", "0200", reversed_.fields)
    for request in (
        till.pos.void(voided),
        till.pos.refund(refunded, 1_000),
        till.pos.reversal(original, "98"),
    ):
        first = await till.ask(request, two.one.line)
        assert first.fields[39] == "00"
        await till.sign_on(two.other.line)
        for line in (two.other.line, two.one.line):
            assert stored(await till.ask(request, line)) == stored(first)
        assert rows_of(two, till, request) == 1
    assert (await till.buy(card, 7_000 + 1_000)).fields[39] == "00"  # 10 000 - 3 000 + 1 000
    assert (await till.buy(card, 1)).fields[39] == "51"


async def test_the_reason_of_a_reversal_may_differ_from_try_to_try(two: Two, seen: Seen) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    purchase = till.pos.purchase(two.town.new_card(), 100)
    assert await till.code(purchase) == "00"
    answers = [await till.ask(till.pos.reversal(purchase, reason)) for reason in ("98", "96", "A0", "06")]
    assert [stored(answer) for answer in answers] == [stored(answers[0])] * 4
    assert answers[0].fields[39] == "00"


async def test_a_retyped_pin_or_a_repeat_without_keys_in_common_is_still_the_same_request(
    two: Two, seen: Seen
) -> None:
    for mac_id in (1, 5):  # PIN block in field 52, and in tag DF51
        till = await Till(two.town.new_terminal(mac_id), seen, two.one.line).sign_on()
        card = two.town.new_card("pin")
        purchase = till.pos.purchase(card, 4_000, pin="123456")
        first = await till.ask(purchase)
        assert first.fields[39] == "00"
        await till.sign_on(two.other.line)
        again = till.pos.purchase(card, 4_000, pin="123456")  # the PIN under today's key
        again = again._replace(
            fields=again.fields | {11: purchase.fields[11]}, key=(again.key[0], purchase.key[1])
        )
        assert again.fields[52 if mac_id == 1 else 55] != purchase.fields[52 if mac_id == 1 else 55]
        assert stored(await till.ask(again, two.other.line)) == stored(first)
        assert rows_of(two, till, purchase) == 1


async def test_sixty_four_copies_in_one_instant_over_both_processes_are_one_purchase(
    two: Two, seen: Seen
) -> None:
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    purchase = till.pos.purchase(two.town.new_card(), 4_000)
    frame = till.pos.pack(purchase)
    wires = [await till.wire(two.one.line), await till.wire(two.other.line)]
    for wire in wires:
        wire.send(frame * 32)
    bodies = [await wire.body() for wire in wires for _ in range(32)]
    answers = [till.pos.take(purchase, body).message for body in bodies[:1]]
    assert answers[0].fields[39] == "00"
    assert len({body[11:] for body in bodies}) == 1  # the header may ask one of them to fetch something
    assert rows_of(two, till, purchase) == 1
