"""The incident that closed a load service: bank accounts debited, cards never written. Here 20 000 loads meet every fault there is.

After the run of the next day no question to the bank is open, each load in suspense is listed with its age and its reason, and what the
bank has taken is what the cards hold or what is in doubt. When the doubtful cards have come once more nothing is in doubt.
"""

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.ledger.load_desk import suspend_unconfirmed
from switch.storage.pool import connect_writer
from terminal_sim.card import PurseCard
from terminal_sim.frames import CardData
from terminal_sim.host.script import Behaviour, Script, Step
from terminal_sim.kiosk import From, Kiosk, KioskClient
from terminal_sim.reading import CardGoneError, FlakyReader
from tests.helpers.banked import ANSWER_S, Banked, banked, host_of, rows
from tests.helpers.town import PSAM_OF_KIOSKS, Town, chip_of, pan_of
from tests.scenarios.test_loads import SM4

pytestmark = [pytest.mark.server, pytest.mark.slow]

LOADS = 20_000
KIOSKS, CARDS_EACH = 32, 5
FEN = 10
FIRST_CARD = 800_000
OPENING_FEN = 1_000_000
EXPLAINED = {"card_gone", "no_word", "tac_wrong"}


class Moods(Script):
    """A bank on a bad day: most of it is normal."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self.died = 0

    def next(self) -> Step:
        """What it does with the next request."""
        pick = self._chance.random()
        if pick < 0.004:
            return Step(Behaviour.SILENT)
        if pick < 0.006:
            return Step(Behaviour.SLOW, ANSWER_S + 0.3)
        if pick < 0.010:
            return Step(Behaviour.WRONG_MAC)
        if pick < 0.014:
            return Step(Behaviour.GARBLED)
        if pick < 0.020:
            return Step(Behaviour.DUPLICATE)
        if pick < 0.024:
            return Step(Behaviour.REFUSES)
        if pick < 0.028:
            return Step(Behaviour.OTHER_AMOUNT)
        if pick < 0.0284 and self.died < 3:
            self.died += 1
            return Step(Behaviour.DIES, 0.5)
        return Step(Behaviour.NORMAL)


class Desk:
    """One kiosk with its cards, on a day on which everything can happen to it."""

    def __init__(self, kiosk: Kiosk, lines: Banked, cards: list[CardData], chance: random.Random) -> None:
        self.client = KioskClient(kiosk, lines.one.line, timeout_s=ANSWER_S + 30)
        self.lines = (lines.one.line, lines.other.line)
        self.cards = [(card, chip_of(card.pan)) for card in cards]
        self.chance = chance
        self.met: Counter[str] = Counter()

    async def work(self, loads: int) -> None:
        """So many loads."""
        for number in range(loads):
            card, chip = self.cards[number % len(self.cards)]
            if self.chance.random() < 0.02:  # the other process from now on
                self.client.line = self.chance.choice(self.lines)
                self.client.close()
            await self.load(card, chip)

    async def load(self, card: CardData, chip: PurseCard, *, honest: bool = False) -> None:
        """One load. honest: nothing goes wrong on this side."""
        kiosk, pick = self.client.kiosk, 1.0 if honest else self.chance.random()
        await self.client.ready()
        await self.client.finish_confirms()
        start = kiosk.initialize(chip, FEN, SM4)
        request = kiosk.load(card, FEN, From.BOUND_BANK, start)
        outcome = await self.client.transact(request)
        self.met[outcome.answer.code if outcome.answer is not None else "none"] += 1
        if outcome.answer is None or not outcome.approved:
            await asyncio.sleep(0.3)  # who is turned away tries again later
            return
        answer = outcome.answer.message
        if pick < 0.01:  # the kiosk loses its power, before or after the card took the money
            self.met["power lost"] += 1
            if self.chance.random() < 0.5:
                kiosk.credit(chip, answer)
            return
        reader = FlakyReader(chip, 1, obeyed=self.chance.random() < 0.5) if pick < 0.03 else chip
        try:
            status, tac = kiosk.credit(reader, answer)
        except CardGoneError:
            self.met["card gone"] += 1
            await self.client._tell(kiosk.confirm(request, answer, 0, None))
            return
        assert status == 0x9000
        if pick > 0.03 and pick < 0.033:
            self.met["TAC spoilt"] += 1
            tac = bytes(4)
        await self.client._tell(kiosk.confirm(request, answer, status, tac))


def more_cards(town: Town, folder: Path, count: int) -> list[CardData]:
    """Cards with a purse, brought into the registry."""
    cards = [CardData(pan_of(FIRST_CARD + number), "001") for number in range(count)]
    document = {
        "format": "citizen-card-registry",
        "version": 1,
        "cards": [
            {
                "pan": card.pan,
                "valid_from": "2024-01-01",
                "valid_through": "2044-01-01",
                "online_opening_fen": 0,
                "purse_opening_fen": 0,
            }
            for card in cards
        ],
    }
    path = folder / "more-cards.json"
    path.write_text(json.dumps(document))
    town.run("registry", "import", str(path))
    return cards


async def the_next_day(city: Banked) -> int:
    """What the sweep of the day after the next cut-off does with loads that nobody has spoken of."""
    url = city.town.database_url

    def move(days: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "UPDATE purse_load SET business_date = business_date + %s WHERE state IN (1, 4)", [days]
            )

    move(-2)
    done = [await suspend_unconfirmed(lambda: connect_writer(url), shard) for shard in range(2)]
    move(2)
    return sum(done)


async def all_told(city: Banked) -> None:
    """Wait until no leg is open and the outbox is empty."""
    open_ones = "SELECT (SELECT count(*) FROM host_leg WHERE state = 0) + (SELECT count(*) FROM host_outbox WHERE result IS NULL)"
    async with asyncio.timeout(600):
        while rows(city, open_ones)[0][0]:
            await asyncio.sleep(0.5)


def suspense(city: Banked) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(
        city.town.run("loads", "list", "--state", "SUSPENSE", "--limit", "10000", "--json")
    )
    return listed


async def test_20_000_loads_with_every_fault_leave_no_fen_unexplained(
    built_town: Town, tmp_path: Path
) -> None:
    chance = random.Random(15_270)
    town = built_town.copy(tmp_path)
    with banked(town) as city:
        cards = more_cards(town, tmp_path, KIOSKS * CARDS_EACH)
        moods = Moods(random.Random(chance.random()))
        async with host_of(city, "bank", cards, moods, balance_fen=OPENING_FEN) as bank:
            desks = [
                Desk(
                    Kiosk(town.new_kiosk(), PSAM_OF_KIOSKS),
                    city,
                    cards[number * CARDS_EACH : (number + 1) * CARDS_EACH],
                    random.Random(chance.random()),
                )
                for number in range(KIOSKS)
            ]
            await asyncio.gather(*(desk.work(LOADS // KIOSKS) for desk in desks))
            for desk in desks:
                await desk.client.finish_confirms()
            await all_told(city)
            await the_next_day(city)

            met = sum((desk.met for desk in desks), Counter[str]())
            assert met["00"] > LOADS * 0.9, met
            assert min(met["power lost"], met["card gone"], met["TAC spoilt"], met["68"]) > 0, met
            assert rows(city, "SELECT count(*) FROM host_leg WHERE state = 0") == [(0,)]
            assert rows(city, "SELECT count(*) FROM host_outbox WHERE result IS DISTINCT FROM 1") == [(0,)]
            assert rows(city, "SELECT count(*) FROM purse_load WHERE state = 1") == [(0,)]
            listed = suspense(city)
            assert listed, "the next contact of a card settles its doubts; these cards have not come again"
            assert {one["reason"] for one in listed} <= EXPLAINED
            assert all(one["authorised_at"] and one["money"] == "suspense" for one in listed)

            taken = sum(OPENING_FEN - bank.book.balance_fen(card.pan) for card in cards)
            held = sum(chip.balance_fen for desk in desks for _, chip in desk.cards)
            assert taken - FEN * len(listed) <= held <= taken, "what is not on a card is in doubt, and listed"

            for desk in desks:  # every card comes once more, on a good day
                for card, chip in desk.cards:
                    moods._chance = _Calm()
                    await desk.load(card, chip, honest=True)
                desk.client.close()
            await all_told(city)
            assert suspense(city) == []
            taken = sum(OPENING_FEN - bank.book.balance_fen(card.pan) for card in cards)
            held = sum(chip.balance_fen for desk in desks for _, chip in desk.cards)
            assert held == taken, "what the bank has taken is on the cards, to the fen"


class _Calm(random.Random):
    def random(self) -> float:
        """Nothing happens."""
        return 1.0
