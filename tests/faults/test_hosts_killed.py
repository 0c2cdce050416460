"""kill -9 of a switch at every point of a question to a host: what the terminal, the bank and the books believe afterwards agrees."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from switch.domain.transactions import AccountKind
from terminal_sim.frames import CardData
from terminal_sim.host.script import read_script
from terminal_sim.kiosk import From, Kiosk
from tests.helpers.banked import Banked, banked, being_asked, host_of, legs, outbox, rows
from tests.helpers.till import LineClosedError, Seen, Till, check_books
from tests.helpers.town import PSAM_OF_KIOSKS, Town, chip_of
from tests.scenarios.test_loads import SM4, Counter

pytestmark = [pytest.mark.server, pytest.mark.slow]

BANK = AccountKind.BANK
SWEPT_S = 90.0  # a leg that nobody asks for any more is ended 10 s behind its time-out
APPROVED, UNKNOWN = 1, 4
UNTOLD = "SELECT result FROM host_outbox JOIN host_leg USING (shard, leg_no) WHERE pan = %s"


@pytest.fixture(scope="module")
def city(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Banked]:
    with banked(built_town.copy(tmp_path_factory.mktemp("killed"))) as made:
        yield made


async def ended(city: Banked, card: CardData) -> list[tuple[int, int]]:
    """The card's legs, when none is open any more."""
    async with asyncio.timeout(SWEPT_S):
        while True:
            found = await asyncio.to_thread(legs, city, card)
            if found and all(state for state, _ in found):
                return found
            await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    ("point", "state"),
    [("intent committed", UNKNOWN), ("host has answered", UNKNOWN), ("answer committed", APPROVED)],
)
async def test_a_switch_that_dies_during_a_question_leaves_nothing_in_the_dark(
    city: Banked, point: str, state: int
) -> None:
    seen, card = Seen(), city.town.new_card()
    doomed = await asyncio.to_thread(city.town.serve_beside, point)
    till = await Till(city.town.new_terminal(), seen, city.one.line).sign_on()
    request = till.pos.purchase(card, 800, account=BANK)
    async with host_of(city, "bank", [card], processes=[city.one, doomed]) as bank:
        with contextlib.suppress(LineClosedError, OSError):
            await till.ask(request, doomed.line)
        assert await asyncio.to_thread(doomed.wait) == -9
        city.town.processes.remove(doomed)
        assert await ended(city, card) == [(state, 800)]
        code = await till.code(request)
        paid = bank.book.balance_fen(card.pan)
    if state == APPROVED:
        assert code == "00"
        assert (paid, outbox(city, card)) == (99_200, [])
    else:
        assert code == "68"
        assert [row[2:] for row in outbox(city, card)] == [("98", 800)]
    check_books(city.town.database_url, [seen])


async def test_a_switch_that_is_stopped_ends_its_questions_first(city: Banked) -> None:
    seen, card = Seen(), city.town.new_card()
    stopped = await asyncio.to_thread(city.town.serve_beside)
    till = await Till(city.town.new_terminal(), seen, city.one.line).sign_on()
    async with host_of(city, "bank", [card], read_script("slow:1"), processes=[city.one, stopped]):
        question = asyncio.ensure_future(till.code(till.pos.purchase(card, 800, account=BANK), stopped.line))
        await being_asked(city, card)
        await asyncio.to_thread(city.town.stop, stopped)
        assert await question == "00"
    assert legs(city, card) == [(APPROVED, 800)]
    check_books(city.town.database_url, [seen])


@pytest.mark.parametrize("point", ["intent committed", "host has answered", "answer committed"])
async def test_a_load_whose_switch_dies_is_on_the_card_or_with_the_bank(city: Banked, point: str) -> None:
    seen, card = Seen(), city.town.new_card("loaded")
    chip = chip_of(card.pan)
    doomed = await asyncio.to_thread(city.town.serve_beside, point)
    counter = Counter(city.town.new_kiosk(), seen, city.one.line)
    counter.pos = Kiosk(counter.terminal, PSAM_OF_KIOSKS)
    await counter.sign_on()
    request = counter.pos.load(card, 800, From.BOUND_BANK, counter.pos.initialize(chip, 800, SM4))
    async with host_of(city, "bank", [card], processes=[city.one, doomed]) as bank:
        with contextlib.suppress(LineClosedError, OSError):
            await counter.ask(request, doomed.line)
        assert await asyncio.to_thread(doomed.wait) == -9
        city.town.processes.remove(doomed)
        ((state, _),) = await ended(city, card)
        answer = await counter.ask(request)  # the repeat finds what was committed
        if state == APPROVED:
            status, tac = counter.pos.credit(chip, answer)
            assert await counter.code(counter.pos.confirm(request, answer, status, tac)) == "00"
        else:
            assert answer.fields[39] == "68"
        async with asyncio.timeout(120):
            while [row for row in rows(city, UNTOLD, card.pan) if row[0] is None]:
                await asyncio.sleep(0.1)
        assert (
            100_000 - bank.book.balance_fen(card.pan) == chip.balance_fen == (800 if state == APPROVED else 0)
        )
    check_books(city.town.database_url, [seen])
