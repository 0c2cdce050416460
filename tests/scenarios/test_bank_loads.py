"""Loads that a bank pays, through its host: to the purse and to the online account, from the bound card and from another one."""

import asyncio
from collections.abc import Iterator

import pytest

from switch.messages.tlv import write_tlvs
from terminal_sim.frames import CardData
from terminal_sim.host.script import read_script
from terminal_sim.kiosk import From, KioskClient
from terminal_sim.reading import FlakyReader
from tests.helpers.banked import ANSWER_S, Banked, banked, being_asked, host_of, outbox, rows
from tests.helpers.till import Seen, check_books, stored
from tests.helpers.town import OPENING_FEN, Town, chip_of
from tests.scenarios.test_loads import (
    AUTHORISED,
    CONFIRMED,
    CREDIT_IS,
    LOADED,
    RETURNED,
    REVERSED,
    SM4,
    SUSPENSE,
    Counter,
    shadow,
    states,
)
from tests.scenarios.test_routed import bank_card_of

pytestmark = [pytest.mark.server, pytest.mark.slow]

ADVICE, REVERSAL_ADVICE, RETURN, LOAD = 3, 5, 2, 5


@pytest.fixture(scope="module")
def city(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Banked]:
    with banked(built_town.copy(tmp_path_factory.mktemp("bank-loads"))) as made:
        yield made


@pytest.fixture
def told(city: Banked) -> Iterator[Seen]:
    seen = Seen()
    yield seen
    check_books(city.town.database_url, [seen])


async def at_bank(city: Banked, card: CardData) -> list[int]:
    """How often the outbox has been emptied of what the card's bank is told; waits until it is."""
    async with asyncio.timeout(120):
        while rows(
            city,
            "SELECT 1 FROM host_outbox JOIN host_leg USING (shard, leg_no) WHERE pan = %s AND result IS NULL",
            card.pan,
        ):
            await asyncio.sleep(0.1)
    found = rows(
        city,
        "SELECT result FROM host_outbox JOIN host_leg USING (shard, leg_no) WHERE pan = %s ORDER BY outbox_no",
        card.pan,
    )
    return [result for (result,) in found]


async def test_a_bank_pays_a_load_of_the_purse(city: Banked, told: Seen) -> None:
    counter, card = await Counter.of(city, told), city.town.new_card("loaded")
    chip = chip_of(card.pan)
    async with host_of(city, "bank", [card]) as bank:
        request, answer = await counter.load(chip, card, 5_000, From.BOUND_BANK)
        assert (answer.fields[39], answer.fields[38]) == ("00", "000001")
        again = await counter.ask(request, city.other.line)
        assert (stored(again), again.fields[55]) == (stored(answer), answer.fields[55])
        status, tac = counter.pos.credit(chip, answer)
        assert status == 0x9000
        assert await counter.code(counter.pos.confirm(request, answer, status, tac)) == "00"
        assert bank.book.balance_fen(card.pan) == 95_000
    assert (shadow(city, card), states(city, card)) == ((5_000, 1), [CONFIRMED])
    owed = "SELECT DISTINCT debit_code, debit_owner FROM posting JOIN host_leg l ON l.ended_by = entry_no WHERE l.pan = %s"
    assert rows(city, owed.replace("debit", "posting.debit"), card.pan) == [(1101, 1_020_000)]


async def test_a_bank_that_declines_is_silent_or_away_loads_nothing(city: Banked, told: Seen) -> None:
    counter, card = await Counter.of(city, told), city.town.new_card("loaded")
    chip = chip_of(card.pan)
    assert (await counter.load(chip, card, 100, From.BOUND_BANK))[1].fields[39] == "91"
    async with host_of(city, "bank", [card], read_script("normal,silent"), balance_fen=1_000) as bank:
        assert (await counter.load(chip, card, 1_001, From.BOUND_BANK))[1].fields[39] == "51"
        assert (await counter.load(chip, card, 100, From.BOUND_BANK))[1].fields[39] == "68"
        assert await at_bank(city, card) == [1]
        assert bank.book.balance_fen(card.pan) == 1_000
    assert (shadow(city, card), states(city, card)) == ((0, 0), [])
    async with host_of(city, "bank", [card]):
        await counter.whole(chip, card, 700, source=From.BOUND_BANK)
    assert (shadow(city, card), states(city, card)) == ((700, 1), [CONFIRMED])


async def test_a_reversed_load_goes_back_to_its_bank(city: Banked, told: Seen) -> None:
    counter, card = await Counter.of(city, told), city.town.new_card("loaded")
    async with host_of(city, "bank", [card]) as bank:
        request, answer = await counter.load(chip_of(card.pan), card, 900, From.BOUND_BANK)
        assert answer.fields[39] == "00"
        assert await counter.code(counter.pos.reversal(request, "98")) == "00"
        assert await at_bank(city, card) == [1]
        assert bank.book.balance_fen(card.pan) == 100_000
    assert (shadow(city, card)[0], states(city, card)) == (0, [REVERSED])
    assert outbox(city, card) == [(REVERSAL_ADVICE, LOAD, "98", 900)]


async def test_a_reversal_during_the_question_ends_the_load(city: Banked, told: Seen) -> None:
    counter, card = await Counter.of(city, told), city.town.new_card("loaded")
    other = Counter(counter.terminal, told, city.other.line)
    other.pos = counter.pos
    async with host_of(city, "bank", [card], read_script("slow:3")) as bank:
        start = counter.pos.initialize(chip_of(card.pan), 900, SM4)
        request = counter.pos.load(card, 900, From.BOUND_BANK, start)
        question = asyncio.ensure_future(counter.ask(request))
        await being_asked(city, card)
        assert await other.code(counter.pos.reversal(request, "98")) == "00"
        assert (await question).fields[39] == "68"
        await asyncio.sleep(1)
        assert await at_bank(city, card) == [1]
        assert bank.book.balance_fen(card.pan) == 100_000
    assert (shadow(city, card)[0], states(city, card)) == (0, [])


async def test_what_the_card_proves_is_told_to_the_bank(city: Banked, told: Seen) -> None:
    counter, card = await Counter.of(city, told), city.town.new_card("loaded")
    chip = chip_of(card.pan)
    async with host_of(city, "bank", [card]) as bank:
        torn, answer = await counter.load(chip, card, 600, From.BOUND_BANK)
        assert await counter.code(counter.pos.confirm(torn, answer, 0, None)) == "00"
        assert states(city, card) == [SUSPENSE]
        await counter.whole(chip, card, 200, source=From.BOUND_BANK)  # the same counter: not credited
        assert states(city, card) == [RETURNED, CONFIRMED]
        torn, answer = await counter.load(chip, card, 300, From.BOUND_BANK)
        assert counter.pos.credit(chip, answer)[0] == 0x9000
        assert await counter.code(counter.pos.confirm(torn, answer, 0, None)) == "00"
        await counter.whole(chip, card, 400, source=From.BOUND_BANK)  # the next counter: credited
        assert await at_bank(city, card) == [1]
        assert bank.book.balance_fen(card.pan) == 100_000 - 200 - 300 - 400
    assert states(city, card) == [RETURNED, CONFIRMED, LOADED, CONFIRMED]
    assert outbox(city, card) == [(ADVICE, RETURN, "", 600)]
    assert shadow(city, card) == (900, 3)


async def test_two_kiosks_load_one_card_at_once_and_the_bank_pays_once_in_the_end(
    city: Banked, told: Seen
) -> None:
    first, second = await Counter.of(city, told), await Counter.of(city, told)
    second.line = city.other.line
    card = city.town.new_card("loaded")
    chip = chip_of(card.pan)
    async with host_of(city, "bank", [card]) as bank:
        starts = [counter.pos.initialize(chip, 500, SM4) for counter in (first, second)]
        requests = [
            counter.pos.load(card, 500, From.BOUND_BANK, start)
            for counter, start in zip((first, second), starts, strict=True)
        ]
        answers = await asyncio.gather(first.ask(requests[0]), second.ask(requests[1]))
        codes = sorted(answer.fields[39] for answer in answers)
        assert codes in (["00", "00"], ["00", "34"])
        await asyncio.sleep(0.5)
        await at_bank(city, card)
        assert bank.book.balance_fen(card.pan) == 99_500
    assert sorted(states(city, card))[:1] == [AUTHORISED]
    assert shadow(city, card)[0] == 500


async def test_a_bank_loads_the_online_account_and_takes_it_back(city: Banked, told: Seen) -> None:
    counter, card = await Counter.of(city, told), city.town.new_card()
    async with host_of(city, "bank", [card], pin="246813") as bank:
        assert await counter.code(counter.pos.load(card, 700, From.BOUND_BANK, pin="246814")) == "55"
        first = counter.pos.load(card, 700, From.BOUND_BANK, pin="246813")
        second = counter.pos.load(card, 800, From.BOUND_BANK, pin="246813")
        assert [await counter.code(one) for one in (first, second)] == ["00", "00"]
        assert await counter.balance(card) == OPENING_FEN + 1_500
        assert await counter.code(counter.pos.reversal(first, "98")) == "00"
        assert (await counter.buy(card, OPENING_FEN + 1)).fields[39] == "00"
        assert await counter.code(counter.pos.reversal(second, "98")) == "12"
        assert await at_bank(city, card) == [1]
        assert bank.book.balance_fen(card.pan) == 100_000 - 800
    assert await counter.balance(card) == 799


async def test_another_banks_card_loads_a_purse_that_the_chip_names(city: Banked, told: Seen) -> None:
    counter, card, paying = await Counter.of(city, told), city.town.new_card("loaded"), bank_card_of(77)
    chip = chip_of(card.pan)
    async with host_of(city, "bank", [paying], pin="246813") as bank:
        start = counter.pos.initialize(chip, 300, SM4)
        request = counter.pos.load(paying, 300, From.OTHER_BANK, start, pin="246813")
        answer = await counter.ask(request)
        assert (answer.fields[39], answer.fields[2]) == ("00", paying.pan)
        status, tac = counter.pos.credit(chip, answer)
        assert await counter.code(counter.pos.confirm(request, answer, status, tac)) == "00"

        start = counter.pos.initialize(chip, 400, SM4)
        lost = counter.pos.load(paying, 400, From.OTHER_BANK, start, pin="246813")
        assert await counter.code(lost) == "00"
        assert await counter.code(counter.pos.reversal(lost, "98"), city.other.line) == "00"  # names no purse

        start = counter.pos.initialize(chip, 500, SM4)
        late = counter.pos.load(paying, 500, From.OTHER_BANK, start, pin="246813")
        assert await counter.code(counter.pos.reversal(late, "98"), city.other.line) == "25"
        assert await counter.code(late) == "22"
        await at_bank(city, paying)
        assert bank.book.balance_fen(paying.pan) == 99_700
    assert (shadow(city, card), states(city, card)) == ((300, 1), [CONFIRMED, REVERSED])
    assert rows(city, "SELECT count(*) FROM journal WHERE pan = %s AND answer = '00'", paying.pan) == [(0,)]


async def test_a_reversal_that_shows_another_chip_leaves_its_load_in_suspense(
    city: Banked, told: Seen
) -> None:
    """Whichever shard the other card lies in: the load is that of the trace."""
    counter, card, paying = await Counter.of(city, told), city.town.new_card("loaded"), bank_card_of(81)
    others = [city.town.new_card("loaded") for _ in range(4)]
    found = []
    async with host_of(city, "bank", [paying]):
        for other in others:
            start = counter.pos.initialize(chip_of(card.pan), 300, SM4)
            request = counter.pos.load(paying, 300, From.OTHER_BANK, start)
            assert await counter.code(request) == "00"
            foreign = counter.pos.initialize(chip_of(other.pan), 300, SM4)
            undo = counter.pos.reversal(request, "98")
            undo.fields[55] = write_tlvs(
                {
                    "DF11": bytes.fromhex(foreign.facts.asn),
                    "DF13": bytes(4),
                    "DF14": bytes(2),
                    "DF33": b"\x93\x02",
                }
            )
            found.append((await counter.code(undo), states(city, card)[-1]))
    assert found == [("12", SUSPENSE)] * 4


async def test_a_load_from_another_banks_card_that_nobody_can_pay_is_refused_and_its_number_stays_nowhere(
    city: Banked, told: Seen
) -> None:
    counter, card, paying = await Counter.of(city, told), city.town.new_card("loaded"), bank_card_of(82)
    chip = chip_of(card.pan)
    mistyped = CardData(paying.pan[:-1] + str((int(paying.pan[-1]) + 1) % 10), paying.sequence)
    start = counter.pos.initialize(chip, 300, SM4)
    assert await counter.code(counter.pos.load(mistyped, 300, From.OTHER_BANK, start)) == "14"
    start = counter.pos.initialize(chip, 300, SM4)
    lost = counter.pos.load(paying, 300, From.OTHER_BANK, start)
    assert await counter.code(counter.pos.reversal(lost, "98")) == "25"
    assert await counter.code(lost) == "22"
    assert rows(city, "SELECT count(*) FROM journal WHERE pan = %s", paying.pan) == [(0,)]


async def test_a_kiosk_with_a_bad_line_and_a_moody_bank_leaves_nothing_unexplained(
    city: Banked, told: Seen
) -> None:
    moods = read_script("normal*3,slow:0.2,silent,dies:0.3,normal*2,wrong-mac,garbled,normal*4")
    kiosk = KioskClient((await Counter.of(city, told)).pos, city.one.line, timeout_s=ANSWER_S + 20)
    card = city.town.new_card("loaded")
    chip = chip_of(card.pan)
    async with host_of(city, "bank", [card], moods) as bank:
        for number in range(14):
            reader = FlakyReader(chip, CREDIT_IS, obeyed=number == 3) if number in (3, 9) else chip
            await kiosk.perform(reader, card, 100, SM4, From.BOUND_BANK)
        await kiosk.finish_confirms()
        kiosk.close()
        await at_bank(city, card)
        taken = 100_000 - bank.book.balance_fen(card.pan)
    held = rows(
        city,
        "SELECT coalesce(sum(amount_fen) FILTER (WHERE state IN (1, 4)), 0), coalesce(sum(amount_fen) FILTER (WHERE state IN (2, 5)), 0)"
        " FROM purse_load JOIN card_route USING (card_no) WHERE pan = %s",
        card.pan,
    )
    in_doubt, credited = held[0]
    assert taken == credited + in_doubt
    assert credited <= chip.balance_fen <= credited + in_doubt
