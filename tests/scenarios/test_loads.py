"""Loads over the wire with a simulated card: every end that a load can come to, by two processes on one database."""

import asyncio
import json
from typing import Any

import psycopg
import pytest

from switch.messages.message import Message
from switch.messages.tlv import tlv_values, write_tlvs
from terminal_sim import crypto
from terminal_sim.card import PurseCard
from terminal_sim.frames import CardData
from terminal_sim.kiosk import Ended, From, Kiosk, KioskClient
from terminal_sim.pos_answers import Request
from terminal_sim.reading import FlakyReader
from tests.helpers.till import Seen, Till, stored
from tests.helpers.town import KEY_INDEX, OPENING_FEN, PIN, PSAM_OF_KIOSKS, chip_of
from tests.scenarios.conftest import Two

pytestmark = pytest.mark.server

SM4, DES = KEY_INDEX[crypto.Algorithm.SM4], KEY_INDEX[crypto.Algorithm.TRIPLE_DES]
CREDIT_IS = 5  # the command that credits the card, after SELECT, two files and INITIALIZE


class Counter(Till):
    """A kiosk whose every frame the test sees."""

    pos: Kiosk

    @classmethod
    async def of(cls, two: Two, seen: Seen) -> "Counter":
        counter = cls(two.town.new_kiosk(), seen, two.one.line)
        counter.pos = Kiosk(counter.terminal, PSAM_OF_KIOSKS)
        await counter.sign_on()
        return counter

    async def load(
        self,
        chip: PurseCard,
        card: CardData,
        fen: int,
        source: From = From.CASH,
        *,
        key_index: int = SM4,
        **how: Any,
    ) -> tuple[Request, Message]:
        """INITIALIZE and the request with its answer."""
        start = self.pos.initialize(chip, fen, key_index)
        request = self.pos.load(card, fen, source, start, **how)
        return request, await self.ask(request)

    async def whole(self, chip: PurseCard, card: CardData, fen: int, **how: Any) -> None:
        """A load from beginning to end."""
        request, answer = await self.load(chip, card, fen, **how)
        assert answer.fields[39] == "00"
        status, tac = self.pos.credit(chip, answer)
        assert status == 0x9000
        assert await self.code(self.pos.confirm(request, answer, status, tac)) == "00"

    async def balance(self, card: CardData, **how: Any) -> int:
        """What is in the online account."""
        text: str = (await self.ask(self.pos.balance(card, **how))).fields[54]
        return int(text[8:20])


def row(two: Two, query: str, card: CardData) -> tuple[Any, ...]:
    with psycopg.connect(two.town.database_url) as connection:
        found = connection.execute(query.encode(), [card.pan]).fetchone()
    assert found is not None
    return tuple(found)


def shadow(two: Two, card: CardData) -> tuple[int, int]:
    """Balance and online counter of the shadow purse."""
    balance, atc = row(
        two,
        "SELECT balance_fen, online_atc FROM purse JOIN card_route USING (card_no) WHERE pan = %s",
        card,
    )
    return balance, atc


def states(two: Two, card: CardData) -> list[int]:
    (found,) = row(
        two,
        "SELECT coalesce(array_agg(state ORDER BY authorised_at), '{}') FROM purse_load JOIN card_route USING (card_no)"
        " WHERE pan = %s",
        card,
    )
    return list(found)


AUTHORISED, CONFIRMED, REVERSED, SUSPENSE, LOADED, RETURNED = 1, 2, 3, 4, 5, 6


@pytest.mark.parametrize("key_index", [SM4, DES])
async def test_a_card_is_loaded_with_cash_and_each_message_sent_again_gets_the_same_answer(
    two: Two, seen: Seen, key_index: int
) -> None:
    counter, card = await Counter.of(two, seen), two.town.new_card("loaded")
    chip = chip_of(card.pan)
    request, answer = await counter.load(chip, card, 5_000, key_index=key_index)
    assert (answer.fields[39], 15 in answer.fields, len(answer.fields[38])) == ("00", True, 6)
    await counter.sign_on(two.other.line)
    again = await counter.ask(request, two.other.line)
    assert (stored(again), again.fields[55]) == (stored(answer), answer.fields[55])
    status, tac = counter.pos.credit(chip, again)
    assert (status, chip.balance_fen, chip.online_atc) == (0x9000, 5_000, 1)
    confirm = counter.pos.confirm(request, answer, status, tac)
    told = await counter.ask(confirm, two.other.line)
    assert (told.mti, told.fields[39], told.fields[37]) == ("0230", "00", answer.fields[37])
    assert stored(await counter.ask(confirm)) == stored(told)
    assert (shadow(two, card), states(two, card)) == ((5_000, 1), [CONFIRMED])
    assert await counter.code(counter.pos.reversal(request, "06")) == "12"


async def test_totals_of_a_batch_count_purse_loads_that_were_not_reversed_and_no_others(
    two: Two, seen: Seen
) -> None:
    counter, card = await Counter.of(two, seen), two.town.new_card("loaded")
    chip = chip_of(card.pan)
    await counter.whole(chip, card, 300)
    undone, _ = await counter.load(chip, card, 400)
    assert await counter.code(counter.pos.reversal(undone, "98")) == "00"
    torn, answer = await counter.load(chip, card, 500)
    assert await counter.code(counter.pos.confirm(torn, answer, 0, None)) == "00"
    assert await counter.code(counter.pos.load(card, 700)) == "00"
    settled = await counter.ask(counter.pos.settlement())
    assert settled.fields[48] == "0" * 30 + "1" + "0" * 15 + "000000000800002" + "1"
    assert await counter.code(counter.pos.batch_end(balanced=True)) == "00"
    await counter.sign_on()
    await counter.whole(chip, card, 200)  # the card comes at the same counter: the torn load goes back
    assert (states(two, card), shadow(two, card)) == ([CONFIRMED, REVERSED, RETURNED, CONFIRMED], (500, 2))


async def test_an_online_account_is_loaded_with_cash_and_that_is_undone_while_the_money_is_there(
    two: Two, seen: Seen
) -> None:
    counter, card = await Counter.of(two, seen), two.town.new_card()
    first, second = counter.pos.load(card, 700), counter.pos.load(card, 800)
    for request in (first, second):
        answer = await counter.ask(request)
        assert (answer.fields[39], 55 in answer.fields) == ("00", False)
    assert await counter.balance(card) == OPENING_FEN + 1_500
    assert await counter.code(counter.pos.reversal(first, "98")) == "00"
    assert (await counter.buy(card, OPENING_FEN + 1)).fields[39] == "00"
    assert await counter.code(counter.pos.reversal(second, "98")) == "12"
    assert await counter.balance(card) == 799


async def test_a_card_is_loaded_from_its_own_online_account_with_the_pin_of_that(
    two: Two, seen: Seen
) -> None:
    counter, card = await Counter.of(two, seen), two.town.new_card("loaded pin")
    chip = chip_of(card.pan)
    assert (await counter.load(chip, card, 100, From.ONLINE))[1].fields[39] == "55"
    assert (await counter.load(chip, card, 100, From.ONLINE, pin="654321"))[1].fields[39] == "55"
    assert (await counter.load(chip, card, OPENING_FEN + 1, From.ONLINE, pin=PIN))[1].fields[39] == "51"
    await counter.whole(chip, card, 4_000, source=From.ONLINE, pin=PIN)
    assert await counter.balance(card, pin=PIN) == OPENING_FEN - 4_000
    assert (shadow(two, card), chip.balance_fen) == ((4_000, 1), 4_000)


async def test_who_may_not_load(two: Two, seen: Seen) -> None:
    counter, card = await Counter.of(two, seen), two.town.new_card("loaded")
    till = Till(two.town.new_terminal(), seen, two.one.line)
    shop = Kiosk(till.terminal, PSAM_OF_KIOSKS)
    till.pos = shop
    await till.sign_on()
    chip = chip_of(card.pan)
    other, lost, bare = two.town.new_card("loaded"), two.town.new_card("loaded lost"), two.town.new_card()

    async def code(fen: int = 100, on: CardData = card, **how: Any) -> str:
        chip.balance_max_fen = 10_000_000
        return (await counter.load(chip_of(on.pan, balance_max_fen=10**7), on, fen, **how))[1].fields[39]

    assert await till.code(shop.load(card, 100, From.CASH, shop.initialize(chip, 100, SM4))) == "58"
    assert await till.code(shop.load(card, 100)) == "58"
    assert await code(0) == "13"
    assert await code(on=lost) == "41"
    assert await code(on=bare) == "57"
    assert await code(100_001) == "61"
    assert await code(source=From.BOUND_BANK) == "57"
    # Another card in field 2 than in the reader, a spoilt MAC1, a key version that nobody has, an amount that no card can hold.
    start = counter.pos.initialize(chip, 100, SM4)
    assert await counter.code(counter.pos.load(other, 100, From.CASH, start)) == "14"
    for tag, value in (("DF17", bytes(4)), ("DF15", b"\x09\x04"), ("DF12", bytes(8))):
        request = counter.pos.load(card, 100, From.CASH, start)
        request.fields[55] = write_tlvs({**tlv_values(request.fields[55]), tag: value})
        assert await counter.code(request) == "A7", tag
    request = counter.pos.load(card, 100, From.CASH, start)
    request.fields[4] = "999999999999"
    assert await counter.code(request) == "61"
    assert (shadow(two, card), states(two, card)) == ((0, 0), [])
    assert await counter.code(counter.pos.load(card, 100, From.CASH, start)) == "00"


async def test_a_card_torn_away_is_in_suspense_until_it_comes_again_and_tells(two: Two, seen: Seen) -> None:
    counter = await Counter.of(two, seen)
    for obeyed in (False, True):
        card = two.town.new_card("loaded")
        chip = chip_of(card.pan)
        client = KioskClient(counter.pos, two.one.line)
        reader = FlakyReader(chip, CREDIT_IS, obeyed=obeyed)
        assert await client.perform(reader, card, 600, SM4) == Ended("00", None, "00")
        assert (states(two, card), shadow(two, card)) == ([SUSPENSE], (0, 0))
        listed = json.loads(two.town.run("loads", "list", "--json"))
        assert any(one["reason"] == "card_gone" and one["amount_fen"] == 600 for one in listed)
        assert await client.perform(chip, card, 50, SM4) == Ended("00", on_card=True, told="00")
        client.close()
        assert states(two, card) == [LOADED if obeyed else RETURNED, CONFIRMED]
        assert shadow(two, card)[0] == chip.balance_fen == (650 if obeyed else 50)


async def test_a_card_that_refuses_the_credit_is_reversed(two: Two, seen: Seen) -> None:
    counter, card = await Counter.of(two, seen), two.town.new_card("loaded")
    chip = chip_of(card.pan)
    request, answer = await counter.load(chip, card, 100)
    spoilt = Message(answer.tpdu, answer.header, answer.mti, dict(answer.fields))
    spoilt.fields[55] = write_tlvs({**tlv_values(answer.fields[55]), "DF23": bytes(4)})
    status, _ = counter.pos.credit(chip, spoilt)
    assert status == 0x9302
    owed = counter.pos.refused_by_card(request, answer, status)
    assert await counter.code(owed, two.other.line) == "00"
    assert (states(two, card), shadow(two, card), counter.pos.reversals) == (
        [REVERSED],
        (0, 0),
        type(counter.pos.reversals)(),
    )
    await counter.whole(chip, card, 100)


async def test_a_wrong_tac_and_a_wrong_balance_go_to_suspense_and_the_answer_is_00(
    two: Two, seen: Seen
) -> None:
    counter = await Counter.of(two, seen)
    for tag in ("DF31", "DF32"):
        card = two.town.new_card("loaded")
        chip = chip_of(card.pan)
        request, answer = await counter.load(chip, card, 100)
        status, tac = counter.pos.credit(chip, answer)
        confirm = counter.pos.confirm(request, answer, status, tac)
        confirm.fields[55] = write_tlvs({**tlv_values(confirm.fields[55]), tag: b"wrng"})
        assert await counter.code(confirm) == "00"
        assert (states(two, card), shadow(two, card)) == ([SUSPENSE], (0, 0))
        late = counter.pos.confirm(request, answer, status, tac)
        assert await counter.code(late) == "00"
        assert (states(two, card), shadow(two, card)) == ([CONFIRMED], (100, 1))


async def test_confirms_of_nothing_of_another_amount_and_of_a_declined_load(two: Two, seen: Seen) -> None:
    counter, card = await Counter.of(two, seen), two.town.new_card("loaded")
    chip = chip_of(card.pan)
    request, answer = await counter.load(chip, card, 100)
    status, tac = counter.pos.credit(chip, answer)

    async def code(**changes: Any) -> str:
        confirm = counter.pos.confirm(request, answer, status, tac)
        confirm.fields.update({int(name[1:]): value for name, value in changes.items()})
        return await counter.code(confirm)

    named: str = counter.pos.confirm(request, answer, status, tac).fields[61]
    assert await code(f61=named[:6] + "999999" + named[12:]) == "25"
    assert await code(f37="000000000000") == "25"
    assert await code(f4="000000000101") == "64"
    declined, refusal = await counter.load(chip, card, 100, From.BOUND_BANK)
    refusal.fields[55] = answer.fields[55]
    assert await counter.code(counter.pos.confirm(declined, refusal, status, tac)) == "12"
    assert states(two, card) == [AUTHORISED]
    assert await code() == "00"
    assert states(two, card) == [CONFIRMED]


async def test_two_kiosks_load_the_same_card_at_once_and_one_of_them_does(two: Two, seen: Seen) -> None:
    one, other = await Counter.of(two, seen), await Counter.of(two, seen)
    other.line = two.other.line
    await other.sign_on()
    card = two.town.new_card("loaded")
    chip = chip_of(card.pan)
    first = one.pos.load(card, 100, From.CASH, one.pos.initialize(chip, 100, SM4))
    second = other.pos.load(card, 200, From.CASH, other.pos.initialize(chip, 200, SM4))
    answers = await asyncio.gather(one.ask(first), other.ask(second))
    assert [answer.fields[39] for answer in answers] == ["00", "00"]
    assert sorted(states(two, card)) == [AUTHORISED, REVERSED]
    status, _ = one.pos.credit(chip, answers[0])  # the card made another random number since
    assert status == 0x9302
    again = other.pos.initialize(chip, 200, SM4)
    retry = other.pos.load(card, 200, From.CASH, again)
    answer = await other.ask(retry)
    status, tac = other.pos.credit(chip, answer)
    assert (status, chip.balance_fen) == (0x9000, 200)
    assert await other.code(other.pos.confirm(retry, answer, status, tac)) == "00"
    assert await one.code(one.pos.refused_by_card(first, answers[0], 0x9302)) == "00"
    assert await other.code(other.pos.reversal(second, "98")) == "00"
    assert (sorted(states(two, card)), shadow(two, card)) == ([CONFIRMED, REVERSED, REVERSED], (200, 1))
    # An INITIALIZE that was approved once is good for nothing else, under whatever trace it comes.
    assert await one.code(one.pos.load(card, 200, From.CASH, again)) == "34"


async def test_a_lost_answer_is_reversed_and_a_confirm_after_that_is_for_people(two: Two, seen: Seen) -> None:
    counter, card = await Counter.of(two, seen), two.town.new_card("loaded")
    chip = chip_of(card.pan)
    request, answer = await counter.load(chip, card, 100, From.ONLINE)
    status, tac = counter.pos.credit(chip, answer)
    assert await counter.code(counter.pos.reversal(request, "98")) == "00"
    assert (await counter.balance(card), shadow(two, card)) == (OPENING_FEN, (0, 0))
    assert (await counter.buy(card, OPENING_FEN - 50)).fields[39] == "00"
    assert await counter.code(counter.pos.confirm(request, answer, status, tac)) == "00"
    assert (states(two, card), shadow(two, card), await counter.balance(card)) == ([SUSPENSE], (0, 0), 50)
    # The card itself then proves that it has the money: the account cannot pay any more, so that stands as a claim in suspense.
    await counter.whole(chip, card, 10)
    assert (states(two, card), shadow(two, card)) == ([LOADED, CONFIRMED], (110, 2))
    assert chip.balance_fen == 110


async def test_two_people_settle_what_no_card_will_tell_any_more(two: Two, seen: Seen) -> None:
    counter, card = await Counter.of(two, seen), two.town.new_card("loaded")
    chip = chip_of(card.pan)
    request, answer = await counter.load(chip, card, 300, From.ONLINE)
    assert await counter.code(counter.pos.confirm(request, answer, 0, None)) == "00"
    (number,) = row(
        two, "SELECT entry_no FROM purse_load JOIN card_route USING (card_no) WHERE pan = %s", card
    )
    settle = ("loads", "settle", str(number), "--reason", "read at the counter", "--actor", "li wei")
    with pytest.raises(AssertionError, match="another person"):
        two.town.run(*settle, "--as", "returned", "--checker", "Li Wei")
    text = two.town.run(*settle, "--as", "returned", "--checker", "wang fang")
    assert "RETURNED" in text
    assert (await counter.balance(card), shadow(two, card)) == (OPENING_FEN, (0, 0))
    with pytest.raises(AssertionError, match="not in suspense"):
        two.town.run(*settle, "--as", "loaded", "--checker", "wang fang")
    history = json.loads(two.town.run("loads", "show", str(number), "--json"))
    assert [step["to"] for step in history] == ["AUTHORISED", "SUSPENSE", "RETURNED"]
    assert "wang fang" in history[2]["note"]
