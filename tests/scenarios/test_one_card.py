"""Two hundred clients at one card with money for ten purchases, over two processes at once."""

import asyncio
from collections import Counter

import pytest

from tests.helpers.till import Seen, Till
from tests.helpers.town import OPENING_FEN
from tests.scenarios.conftest import Two

pytestmark = pytest.mark.server

CLIENTS = 200
ROOM_FOR = 10


async def test_exactly_ten_of_two_hundred_purchases_are_approved(two: Two, seen: Seen) -> None:
    town = two.town
    card = town.new_card()
    lines = (two.one.line, two.other.line)
    tills = [Till(town.new_terminal(), seen, lines[number % 2]) for number in range(CLIENTS)]
    for start in range(0, CLIENTS, 50):
        await asyncio.gather(*(till.sign_on() for till in tills[start : start + 50]))
    answers = await asyncio.gather(*(till.buy(card, OPENING_FEN // ROOM_FOR) for till in tills))
    assert Counter(answer.fields[39] for answer in answers) == {"00": ROOM_FOR, "51": CLIENTS - ROOM_FOR}
    references = {answer.fields[37] for answer in answers}
    assert len(references) == CLIENTS  # no two transactions share one, over both processes
    again = await asyncio.gather(
        *(
            till.ask(till.raw("0200", dict(till.pos.batch.receipts[0].fields)), lines[1 - number % 2])
            for number, till in enumerate(tills)
            if till.pos.batch.receipts
        )
    )
    assert [answer.fields[39] for answer in again] == ["00"] * ROOM_FOR


async def test_purchases_and_reversals_of_one_card_from_both_processes_never_pass_its_balance(
    two: Two, seen: Seen
) -> None:
    town = two.town
    card = town.new_card()
    tills = [Till(town.new_terminal(), seen, two.one.line) for _ in range(16)]
    await asyncio.gather(*(till.sign_on() for till in tills))
    share = OPENING_FEN // 4

    async def work(till: Till, number: int) -> int:
        held = 0
        for turn in range(8):
            line = (two.one.line, two.other.line)[(turn + number) % 2]
            purchase = till.pos.purchase(card, share)
            code = await till.code(purchase, line)
            assert code in ("00", "51")
            if code == "00" and turn < 7:
                assert await till.code(till.pos.reversal(purchase, "06"), two.one.line) == "00"
            elif code == "00":
                held += 1
        return held

    held = sum(await asyncio.gather(*(work(till, number) for number, till in enumerate(tills))))
    assert held <= 4
    last = await Till(town.new_terminal(), seen, two.other.line).sign_on()
    left = [(await last.buy(card, share)).fields[39] for _ in range(5)]
    assert left == ["00"] * (4 - held) + ["51"] * (1 + held)
