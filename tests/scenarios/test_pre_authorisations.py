"""Pre-authorisation and what can follow it, over the wire, by two processes on one database."""

from typing import Any

import pytest

from switch.domain.transactions import AccountKind
from switch.messages.message import Message
from terminal_sim.frames import CardData
from terminal_sim.pos import Pos
from terminal_sim.pos_answers import Request
from terminal_sim.pos_batch import Receipt
from tests.helpers.till import Seen, Till, stored
from tests.helpers.town import OPENING_FEN, PIN
from tests.scenarios.conftest import Two

pytestmark = pytest.mark.server


async def till_of(two: Two, seen: Seen) -> Till:
    return await Till(two.town.new_terminal(), seen, two.one.line).sign_on()


def receipt_of(request: Request, answer: Message) -> Receipt:
    """What the terminal prints and remembers."""
    assert answer.fields[39] == "00", answer.fields[39]
    kind: Any = request.kind
    return Receipt(kind, request.fields, answer.fields[37], answer.fields.get(38, ""), answer.fields[13])


async def available(till: Till, card: CardData) -> tuple[int, int]:
    """Field 54: ledger balance, available balance."""
    answer = await till.ask(till.pos.balance(card))
    text = answer.fields[54]
    assert (text[:8], text[20:28]) == ("1001156C", "1002156C")
    return int(text[8:20]), int(text[28:40])


async def opened(till: Till, card: CardData, fen: int) -> Receipt:
    request = till.pos.pre_authorisation(card, fen)
    return receipt_of(request, await till.ask(request))


async def test_a_stay_from_pre_authorisation_to_settlement(two: Two, seen: Seen) -> None:
    till, card = await till_of(two, seen), two.town.new_card()
    request = till.pos.pre_authorisation(card, 6_000)
    answer = await till.ask(request)
    held = receipt_of(request, answer)
    assert answer.mti == "0110"
    assert 15 not in answer.fields
    assert len(held.auth_code) == 6
    assert await available(till, card) == (OPENING_FEN, 4_000)
    assert (await till.buy(card, 4_001)).fields[39] == "51"
    completion = till.pos.completion(held, 6_900)
    answer = await till.ask(completion, two.other.line)
    assert answer.fields[39] == "00"
    assert answer.fields[38] == held.auth_code
    assert 15 in answer.fields
    assert await till.code(till.pos.completion(held, 6_000)) == "12"
    assert await available(till, card) == (3_100, 3_100)
    assert await till.code(till.pos.settlement()) == "00"
    assert await till.code(till.pos.batch_end(balanced=True)) == "00"
    await till.sign_on()
    assert await till.code(till.pos.refund(receipt_of(completion, answer), 900)) == "00"
    assert await available(till, card) == (4_000, 4_000)


async def test_totals_count_completions_and_their_voids_and_no_pre_authorisation(
    two: Two, seen: Seen
) -> None:
    till, card = await till_of(two, seen), two.town.new_card()
    first, second = await opened(till, card, 1_000), await opened(till, card, 2_000)
    third, fourth = await opened(till, card, 500), await opened(till, card, 600)
    completion = till.pos.completion(first, 1_000)
    taken = receipt_of(completion, await till.ask(completion))
    assert await till.code(till.pos.completion(second, 1_500, advice=True)) == "00"
    assert await till.code(till.pos.completion_void(taken)) == "00"
    assert await till.code(till.pos.pre_authorisation_void(third)) == "00"
    lost = till.pos.completion(fourth, 600)
    assert await till.code(lost) == "00"
    assert await till.code(till.pos.reversal(lost, "98")) == "00"
    assert await available(till, card) == (8_500, 8_500 - 1_000 - 600)
    answer = await till.ask(till.pos.settlement())
    assert answer.fields[48] == "000000002500002000000001000001" + "1" + "0" * 30 + "1"
    assert await till.code(till.pos.batch_end(balanced=True)) == "00"


async def test_void_and_reversal_set_free_and_their_own_reversal_freezes_again(two: Two, seen: Seen) -> None:
    till, card = await till_of(two, seen), two.town.new_card()
    held = await opened(till, card, 8_000)
    void = till.pos.pre_authorisation_void(held)
    assert await till.code(void, two.other.line) == "00"
    assert await available(till, card) == (OPENING_FEN, OPENING_FEN)
    assert await till.code(till.pos.reversal(void, "98")) == "00"
    assert await available(till, card) == (OPENING_FEN, 2_000)
    assert await till.code(till.pos.pre_authorisation_void(held)) == "00"
    assert await till.code(till.pos.pre_authorisation_void(held)) == "12"
    request = till.pos.pre_authorisation(card, 10_000)
    assert await till.code(request) == "00"
    reversal = till.pos.reversal(request, "98")
    assert [await till.code(reversal), await till.code(reversal, two.other.line)] == ["00", "00"]
    assert await available(till, card) == (OPENING_FEN, OPENING_FEN)


async def test_each_of_them_sent_again_gets_the_same_answer_and_counts_once(two: Two, seen: Seen) -> None:
    till, card = await till_of(two, seen), two.town.new_card()

    async def twice(request: Request) -> Receipt:
        first = await till.ask(request)
        await till.sign_on(two.other.line)
        assert stored(await till.ask(request, two.other.line)) == stored(first)
        return receipt_of(request, first)

    held = await twice(till.pos.pre_authorisation(card, 3_000))
    taken = await twice(till.pos.completion(held, 3_450))
    await twice(till.pos.completion_void(taken))
    assert await available(till, card) == (OPENING_FEN, 7_000)
    await twice(till.pos.completion(held, 2_000, advice=True))
    other = await twice(till.pos.pre_authorisation(card, 8_000))
    await twice(till.pos.pre_authorisation_void(other))
    assert await available(till, card) == (8_000, 8_000)


async def test_who_may_not_freeze(two: Two, seen: Seen) -> None:
    till = await till_of(two, seen)

    async def code(card: CardData, fen: int = 100, **how: Any) -> str:
        return await till.code(till.pos.pre_authorisation(card, fen, **how))

    plain, secret = two.town.new_card(), two.town.new_card("pin")
    assert await code(two.town.new_card("medical only"), account=AccountKind.MEDICAL) == "57"
    assert await code(plain, account=AccountKind.PURSE) == "57"
    assert await code(plain, 0) == "13"
    assert await code(plain, OPENING_FEN + 1) == "51"
    assert await code(two.town.new_card("lost")) == "41"
    assert await code(secret) == "55"
    assert await code(secret, pin="000000") == "55"
    assert await code(secret, pin=PIN) == "00"


async def test_a_completion_of_nothing_of_another_or_of_too_much_is_refused(two: Two, seen: Seen) -> None:
    till, card, other = await till_of(two, seen), two.town.new_card(), two.town.new_card()
    held = await opened(till, card, 1_000)
    bought = till.pos.purchase(card, 100)
    purchase = receipt_of(bought, await till.ask(bought))

    async def code(receipt: Receipt, fen: int, **changes: Any) -> str:
        request = till.pos.completion(receipt, fen)
        request.fields.update({int(name[1:]): value for name, value in changes.items()})
        return await till.code(request)

    assert await code(held, 1_151) == "61"
    assert await code(held, 1_000, f38="ZZZZZZ") == "25"
    assert await code(held, 1_000, f61=f"000001999999{held.day}") == "25"
    assert await code(held, 1_000, f2=other.pan) == "25"
    assert await code(held, 1_000, f3="004000") == "12"
    assert await code(purchase, 100, f25="06") == "12"
    assert await code(held, 1_150) == "00"
    assert await till.code(till.pos.pre_authorisation_void(held)) == "12"


async def test_a_terminal_that_starts_anew_completes_what_it_froze_in_an_earlier_batch(
    two: Two, seen: Seen
) -> None:
    till, card = await till_of(two, seen), two.town.new_card()
    held = await opened(till, card, 5_000)
    assert await till.code(till.pos.settlement()) == "00"
    assert await till.code(till.pos.batch_end(balanced=True)) == "00"
    till.pos = Pos(till.terminal, batch_no=till.pos.batch_no, next_trace=500)
    await till.sign_on(two.other.line)
    completion = till.pos.completion(held, 5_000)
    taken = receipt_of(completion, await till.ask(completion, two.other.line))
    assert await till.code(till.pos.completion_void(taken)) == "00"
    assert await till.code(till.pos.pre_authorisation_void(held)) == "00"
    assert await available(till, card) == (OPENING_FEN, OPENING_FEN)
