"""The bank dies while people pay with its cards, and comes back with the books that it had.

It falls silent first: who asked it then has been debited there and hears 68, since nobody here can know. Who asks while it is away is refused (91), or trusted up to a small sum
that the switch answers for. Everybody else goes on paying. When the bank is back it is told what was decided without it, and
what is to be undone.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from time import perf_counter as now
from typing import Any

from switch.domain.transactions import AccountKind
from terminal_sim.city import bank
from terminal_sim.city.bank_house import BankHouse
from terminal_sim.city.loading import Hall
from terminal_sim.city.plan import CityCard
from terminal_sim.city.street import Street, everyone
from terminal_sim.city.tally import CountedClient, CountedKiosk

TILLS = 16  # every second one takes bank cards
UNTIL_SILENCE_S = 0.6
UNTIL_DEATH_MAX_S = 20.0  # below the time-out of a question
AWAY_S = 2.5
PAUSE_S = 0.1
BIG_FEN = (bank.STAND_IN_FEN + 1, 4 * bank.STAND_IN_FEN)
SMALL_FEN = (300, bank.STAND_IN_FEN)
RICH = 20  # times what is paid: a debit that waits for its reversal must not empty an account
SALES_MAX = 2_000  # of one till


@dataclass(slots=True)
class Outage:
    """How it went. Amounts in fen."""

    answered: int = 0  # by the bank, before it died
    unknown: int = 0  # 68: asked, and never answered
    unknown_loads: int = 0  # 68 at a kiosk: nothing on the card
    refused: int = 0  # 91
    refused_loads: int = 0
    trusted: int = 0  # approved in the bank's place
    trusted_fen: int = 0
    others: int = 0  # purchases from online accounts meanwhile
    owed: int = 0  # messages that waited for the bank
    away_s: float = 0.0
    told_s: float = 0.0  # from its return until it had confirmed them all

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "answered_before": self.answered,
            "unknown": self.unknown,
            "unknown_loads": self.unknown_loads,
            "refused": self.refused,
            "refused_loads": self.refused_loads,
            "stood_in": self.trusted,
            "stood_in_fen": self.trusted_fen,
            "others_meanwhile": self.others,
            "messages_owed": self.owed,
            "away_s": round(self.away_s, 2),
            "told_within_s": round(self.told_s, 2),
        }


@dataclass(slots=True)
class _Hour:
    """What the tills know: whether the bank is dead, and whether they may stop taking its cards, or at all."""

    street: Street
    outage: Outage
    rich: list[CityCard]
    dead: bool = False
    back: bool = False
    over: bool = False
    loads: int = 0  # by bank card, tried
    codes: Counter[str] = field(default_factory=Counter)


async def bank_outage(
    street: Street,
    house: BankHouse,
    clients: list[CountedClient],
    hall: Hall,
    random: Random,
    tell: Callable[[str], None],
) -> Outage:
    """Kill the bank among its customers, wait, let it come back, and wait until it has been told everything."""
    outage = Outage()
    await house.settled()  # so that what it is owed later is of these minutes
    rich = [card for card in street.good_cards if _rich(street, card)]
    hour = _Hour(street, outage, rich)
    chosen = clients[:TILLS]
    kiosks = [street.kiosk(place) for place in street.plan.kiosks]
    banking = [
        *(asyncio.ensure_future(_by_bank_card(hour, client, random)) for client in chosen[::2]),
        *(asyncio.ensure_future(_load_by_bank_card(hour, hall, kiosk)) for kiosk in kiosks),
    ]
    works: list[asyncio.Task[None]] = [
        *banking,
        *(asyncio.ensure_future(_by_account(hour, client, random)) for client in chosen[1::2]),
    ]
    try:
        await asyncio.sleep(UNTIL_SILENCE_S)
        house.fall_silent()
        # Not by the clock: on a busy machine nobody has asked yet. More than there are tills, so that a kiosk is among them.
        await house.wait_unanswered(len(chosen[::2]) + 1, UNTIL_DEATH_MAX_S)
        hour.dead = True
        began = now()
        await house.kill()
        tell(
            "the bank falls silent and is killed (SIGKILL) while its customers pay; its books are on its disk"
        )
        await asyncio.sleep(AWAY_S)
        hour.back = True  # nobody asks for it now, so that what it is owed can be counted
        await asyncio.gather(*banking)
        owed, before = await house.owed(), await house.told()
        outage.owed = int(owed["open"])
        _compare(hour, owed)
        await house.open()
        returned = now()
        outage.away_s = returned - began
        await house.wait_told(before + outage.owed)
        outage.told_s = now() - returned
        tell(
            f"it is back after {outage.away_s:.1f} s, and has been told {outage.owed} things within {outage.told_s:.2f} s"
        )
    finally:
        hour.back = hour.over = True
        await everyone(works)
    await house.linked()
    return outage


def _rich(street: Street, card: CityCard) -> bool:
    return (street.books.balance_fen(card.holder, AccountKind.BANK) or 0) >= RICH * BIG_FEN[1]


def _compare(hour: _Hour, owed: dict[str, Any]) -> None:
    """What terminals believe of these minutes, and what the switch says that it owes."""
    books, outage = hour.street.books, hour.outage
    in_flight = hour.codes["00 in flight"]
    trusted = int(owed["stood_in_outstanding"])
    books.expect(
        "purchases approved in the bank's place",
        expected=True,
        found=outage.trusted <= trusted <= outage.trusted + in_flight,
    )
    unknown = outage.unknown + outage.unknown_loads
    books.expect("messages for the bank", expected=trusted + unknown, found=int(owed["open"]))
    within = int(owed["stood_in_outstanding_fen"]) <= bank.STAND_IN_SUM_FEN and trusted <= bank.STAND_IN_COUNT
    books.expect("the limits of what is approved in its place", expected=True, found=within)
    outage.trusted, outage.trusted_fen = trusted, int(owed["stood_in_outstanding_fen"])
    outage.answered -= trusted - hour.codes["00 without it"]


async def _by_bank_card(hour: _Hour, client: CountedClient, random: Random) -> None:
    for _ in range(SALES_MAX):
        if hour.back:
            return
        small = random.random() < 0.5
        await _sell_by_bank_card(hour, client, random, random.randint(*(SMALL_FEN if small else BIG_FEN)))
        if hour.dead:
            await asyncio.sleep(PAUSE_S)


async def _sell_by_bank_card(hour: _Hour, client: CountedClient, random: Random, amount_fen: int) -> None:
    street, outage = hour.street, hour.outage
    card = street.card_that_can_pay(random, amount_fen, AccountKind.BANK, among=hour.rich)
    with street.held(card.holder):
        asked_dead = hour.dead
        outcome = await client.purchase(card.data, amount_fen, account=AccountKind.BANK)
        code = outcome.answer.code if outcome.answer else "none"
        allowed = {"00", "68", "91"} if hour.dead else {"00"}
        if asked_dead:
            # 68 too: for a moment the switch still has a line on which nobody listens.
            allowed = {"00", "68", "91"} if amount_fen <= bank.STAND_IN_FEN else {"68", "91"}
        if code not in allowed:
            street.books.fault(f"a purchase by bank card was answered {code}; expected {sorted(allowed)}")
        if outcome.answer is not None and outcome.receipt is not None:
            street.books.book(card.holder, outcome.receipt, outcome.answer)
        outage.unknown += code == "68"
        outage.refused += code == "91"
        if code != "00":
            return
        if asked_dead:
            hour.codes["00 without it"] += 1
            outage.trusted += 1
            return
        outage.answered += 1
        hour.codes["00 in flight"] += hour.dead


async def _load_by_bank_card(hour: _Hour, hall: Hall, kiosk: CountedKiosk) -> None:
    """The load that a bank has paid and no card has seen: what once could not be found again here goes back by itself."""
    for _ in range(SALES_MAX):
        if hour.back:
            return
        asked_dead = hour.dead
        hour.loads += 1
        code = await hall.load_from_bank(kiosk, hour.loads)
        allowed = {"68", "91"} if asked_dead else {"00", "68", "91"} if hour.dead else {"00"}
        if code and code not in allowed:  # nobody stands in for a bank that must pay a load
            hour.street.books.fault(f"a load by bank card was answered {code}; expected {sorted(allowed)}")
        hour.outage.unknown_loads += code == "68"
        hour.outage.refused_loads += code == "91"
        if hour.dead or not code:
            await asyncio.sleep(2 * PAUSE_S)


async def _by_account(hour: _Hour, client: CountedClient, random: Random) -> None:
    """Customers to whom the bank means nothing."""
    street = hour.street
    for _ in range(SALES_MAX):
        if hour.over:
            return
        amount = random.randint(100, 900)
        card = street.card_that_can_pay(random, amount)
        with street.held(card.holder):
            outcome = await client.purchase(card.data, amount, pin=card.holder.pin)
            code = outcome.answer.code if outcome.answer else "none"
            street.books.expect("answer beside a bank that is away", expected="00", found=code)
            if outcome.answer is not None and outcome.receipt is not None:
                street.books.book(card.holder, outcome.receipt, outcome.answer)
        hour.outage.others += hour.dead
        await asyncio.sleep(PAUSE_S)
