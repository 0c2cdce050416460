"""The card service hall: kiosks that load money onto real cards, and every way in which that can go wrong.

A load is a conversation of three, and what becomes of it is told beforehand: lost answers are reversed, a card torn away in the middle
leaves its money in suspense, and the card itself settles that when it comes again.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any

from switch.domain.transactions import AccountKind
from terminal_sim.card import BALANCE_MAX_FEN, PurseCard
from terminal_sim.city.plan import CardState, CityCard
from terminal_sim.city.street import CARD_TRIES_MAX, Street, ask_again
from terminal_sim.city.tally import CountedKiosk
from terminal_sim.city.transit import Fleet
from terminal_sim.kiosk import Ended, From
from terminal_sim.pos_answers import NO_ANSWER
from terminal_sim.reading import FlakyReader

SOURCES = ((From.CASH, 2), (From.ONLINE, 2), (From.BOUND_BANK, 1))  # of a load, by weight
ACCOUNT_OF = {From.ONLINE: AccountKind.ONLINE, From.BOUND_BANK: AccountKind.BANK}
LOADS_PER_PURCHASE = 0.04
LOADS_MIN, LOADS_MAX = 24, 300
AMOUNT_FEN = (1_000, 20_000)
KEY_INDEXES = (0x41, 0x01)
CREDIT_COMMAND = 5  # of a load, counted from SELECT
CYCLE = 24


class Visit(Enum):
    """What happens at the kiosk. Others are plain loads."""

    ANSWER_LOST = 2
    TORN_LOADED = 4  # the card obeyed before it was gone
    TORN_EMPTY = 6
    TORN_FOR_GOOD = 9  # and is not seen again
    TOO_POOR = 13
    TOP_UP = 16


class End(Enum):
    """What became of a load, in the switch's words."""

    DECLINED = "DECLINED"
    CONFIRMED = "CONFIRMED"
    REVERSED = "REVERSED"
    SUSPENSE = "SUSPENSE"
    LOADED = "LOADED"
    RETURNED = "RETURNED"


WITH_THE_CARD = (End.CONFIRMED, End.LOADED)


@dataclass(slots=True)
class Load:
    """One load of a card."""

    card: CityCard
    source: From
    amount_fen: int
    end: End


@dataclass(slots=True)
class Torn:
    """A load whose card was gone before anybody knew; what it will prove if it comes again, and whether it does."""

    load: Load
    proves: End
    again: bool


@dataclass(slots=True)
class Hall:
    """The kiosks' day."""

    street: Street
    fleet: Fleet
    loads: list[Load] = field(default_factory=list)
    torn: list[Torn] = field(default_factory=list)
    top_ups: int = 0
    top_ups_fen: int = 0
    ever_in_suspense: int = 0
    _cards: list[CityCard] = field(default_factory=list)  # that can still come, each once
    _next: int = 0

    def __post_init__(self) -> None:
        self._cards = [card for card in self.fleet.riders if card.state is CardState.GOOD]

    @property
    def visits(self) -> int:
        """How many customers the day has."""
        wanted = round(self.street.plan.purchases * LOADS_PER_PURCHASE)
        return max(LOADS_MIN, min(wanted, LOADS_MAX))

    async def work(self, client: CountedKiosk, until: int) -> None:
        """Serve visitors by their numbers, up to (not including) one; several kiosks share them."""
        while self._next < until:
            number, self._next = self._next, self._next + 1
            await self._serve(client, number)

    async def _serve(self, client: CountedKiosk, number: int) -> None:
        random = Random(f"{self.street.plan.seed}/load/{number}")
        place = number % CYCLE
        visit = Visit(place) if any(place == one.value for one in Visit) else None
        amount = random.randrange(*AMOUNT_FEN, 100)
        source = random.choices([one for one, _ in SOURCES], [weight for _, weight in SOURCES])[0]
        if visit is Visit.TOO_POOR:
            source, amount = From.ONLINE, AMOUNT_FEN[1]
        elif visit is Visit.TOP_UP:
            source = From.CASH
        card = self._visitor(random, source, amount, poor=visit is Visit.TOO_POOR)
        if card is None:
            return
        self._cards.remove(card)
        with self.street.held(card.holder):
            load = Load(card, source, amount, End.CONFIRMED)
            key_index = random.choice(KEY_INDEXES)
            if visit is Visit.TOP_UP:
                await self._top_up(client, load)
            elif visit is Visit.ANSWER_LOST:
                await self._answer_lost(client, load, key_index)
            elif visit in (Visit.TORN_LOADED, Visit.TORN_EMPTY, Visit.TORN_FOR_GOOD):
                await self._torn_away(client, load, key_index, visit)
            else:
                await self._load(client, load, key_index, declined="51" if visit is Visit.TOO_POOR else "")

    async def load_from_bank(self, client: CountedKiosk, number: int) -> str:
        """A load by bank card when the bank may be away; field 39. 68 and 91 leave the card as it was, and it may come again."""
        random = Random(f"{self.street.plan.seed}/bank load/{number}")
        load_fen = random.randrange(*AMOUNT_FEN, 100)
        card = self._visitor(random, From.BOUND_BANK, load_fen, poor=False)
        if card is None:
            return ""
        load, chip = Load(card, From.BOUND_BANK, load_fen, End.CONFIRMED), self._chip(card)
        with self.street.held(card.holder):
            before = chip.balance_fen
            ended = await client.perform(chip, card.data, load_fen, KEY_INDEXES[0], load.source)
            approved = ended.code == "00"
            expected = Ended(ended.code, on_card=approved, told="00" if approved else "")
            self.street.books.expect("a load by bank card", expected=expected, found=ended)
            added = load_fen if approved else 0
            self.street.books.expect("balance on the card", expected=before + added, found=chip.balance_fen)
            self.loads.append(load)
            if approved:
                self._pay(load)
            else:
                load.end = End.DECLINED
        return ended.code

    def _visitor(self, random: Random, source: From, amount_fen: int, *, poor: bool) -> CityCard | None:
        """A card that was not here before, has room, and whose holder can pay (or, poor, cannot)."""
        books, account = self.street.books, ACCOUNT_OF.get(source)
        for _ in range(CARD_TRIES_MAX):
            card = random.choice(self._cards)
            holder = card.holder
            if holder.number in self.street.busy or books.has_pin_failures(holder.number):
                continue
            if self._chip(card).balance_fen + amount_fen > BALANCE_MAX_FEN:
                continue
            balance = books.balance_fen(holder, account or AccountKind.ONLINE)
            if balance is not None and (account is None or (balance < amount_fen) == poor):
                return card
        return None

    def _chip(self, card: CityCard) -> PurseCard:
        return self.fleet.card(card)

    # --- visits -------------------------------------------------------------------------------------------------

    async def _load(
        self, client: CountedKiosk, load: Load, key_index: int, *, declined: str = "", again: bool = False
    ) -> None:
        chip = self._chip(load.card)
        before = chip.balance_fen
        pin = load.card.holder.pin if load.source is From.ONLINE else None
        ended = await client.perform(chip, load.card.data, load.amount_fen, key_index, load.source, pin=pin)
        expected = Ended(declined, on_card=False) if declined else Ended("00", on_card=True, told="00")
        what = "a load of a card that came again" if again else "a load"
        self.street.books.expect(what, expected=expected, found=ended)
        load.end = End.DECLINED if declined else End.CONFIRMED
        self.loads.append(load)
        if not declined:
            self._pay(load)
            self.street.books.expect(
                "balance on the card", expected=before + load.amount_fen, found=chip.balance_fen
            )

    async def _answer_lost(self, client: CountedKiosk, load: Load, key_index: int) -> None:
        """The switch has paid, and its answer does not arrive: reversed, and then the customer tries again."""
        kiosk, books = client.kiosk, self.street.books
        await client.ready()
        start = kiosk.initialize(self._chip(load.card), load.amount_fen, key_index)
        pin = load.card.holder.pin if load.source is From.ONLINE else None
        request = kiosk.load(load.card.data, load.amount_fen, load.source, start, pin=pin)
        lost = await ask_again(client, request)
        books.expect("answer to a load, lost on its way", expected="00", found=lost.fields[39])
        owed = kiosk.give_up(request, NO_ANSWER)
        assert owed is not None
        answer = await client.insist(owed)
        books.expect("answer to the reversal of a load", expected="00", found=answer.code)
        load.end = End.REVERSED
        self.loads.append(load)
        await self._load(
            client, Load(load.card, load.source, load.amount_fen, End.CONFIRMED), key_index, again=True
        )

    async def _torn_away(self, client: CountedKiosk, load: Load, key_index: int, visit: Visit) -> None:
        obeyed = visit is not Visit.TORN_EMPTY
        chip = self._chip(load.card)
        pin = load.card.holder.pin if load.source is From.ONLINE else None
        ended = await client.perform(
            FlakyReader(chip, CREDIT_COMMAND, obeyed=obeyed),
            load.card.data,
            load.amount_fen,
            key_index,
            load.source,
            pin=pin,
        )
        self.street.books.expect("a card torn away", expected=Ended("00", None, "00"), found=ended)
        load.end = End.SUSPENSE
        self.loads.append(load)
        self._pay(load)
        self.ever_in_suspense += 1
        proves = End.LOADED if obeyed else End.RETURNED
        self.torn.append(Torn(load, proves, again=visit is not Visit.TORN_FOR_GOOD))

    async def come_back(self, client: CountedKiosk, came: Callable[[], None]) -> None:
        """Cards that were torn away come for another load; that contact tells what became of the first."""
        for torn in [one for one in self.torn if one.again]:
            first = torn.load
            with self.street.held(first.card.holder):
                torn.load.end = torn.proves
                if torn.proves is End.RETURNED:
                    self._pay(first, back=True)
                await self._load(
                    client,
                    Load(first.card, From.CASH, AMOUNT_FEN[0], End.CONFIRMED),
                    KEY_INDEXES[0],
                    again=True,
                )
            torn.again = False
            came()

    @property
    def awaited(self) -> int:
        """Cards that `come_back` waits for."""
        return sum(one.again for one in self.torn)

    async def _top_up(self, client: CountedKiosk, load: Load) -> None:
        ended = await client.top_up(load.card.data, load.amount_fen)
        books = self.street.books
        books.expect("cash to an online account", expected=Ended("00", on_card=False), found=ended)
        books.balances[load.card.holder.number, AccountKind.ONLINE] += load.amount_fen
        self.top_ups += 1
        self.top_ups_fen += load.amount_fen

    def _pay(self, load: Load, *, back: bool = False) -> None:
        account = ACCOUNT_OF.get(load.source)
        if account is not None:
            fen = -load.amount_fen if back else load.amount_fen
            self.street.books.balances[load.card.holder.number, account] -= fen

    # --- what it came to ----------------------------------------------------------------------------------------

    @property
    def ends(self) -> Counter[End]:
        """Loads by what became of them."""
        return Counter(load.end for load in self.loads)

    def fen(self, *ends: End, source: From | None = None) -> int:
        """Money of loads with these ends."""
        return sum(
            load.amount_fen for load in self.loads if load.end in ends and source in (None, load.source)
        )

    @property
    def cash_fen(self) -> int:
        """What lies in the kiosks' drawers, and their operator owes."""
        kept = self.fen(*WITH_THE_CARD, End.SUSPENSE, source=From.CASH)
        return kept + self.top_ups_fen

    def document(self) -> dict[str, Any]:
        """The funnel, for programs."""
        ends = self.ends
        return {
            "asked": len(self.loads),
            "declined": ends[End.DECLINED],
            "authorised": len(self.loads) - ends[End.DECLINED],
            "confirmed": ends[End.CONFIRMED],
            "reversed": ends[End.REVERSED],
            "suspense": self.ever_in_suspense,
            "suspense_loaded": ends[End.LOADED],
            "suspense_returned": ends[End.RETURNED],
            "suspense_waiting": ends[End.SUSPENSE],
            "suspense_waiting_fen": self.fen(End.SUSPENSE),
            "on_cards_fen": self.fen(*WITH_THE_CARD),
            "by_source": dict(sorted(Counter(load.source.name for load in self.loads).items())),
            "top_ups": self.top_ups,
            "top_ups_fen": self.top_ups_fen,
            "cash_fen": self.cash_fen,
        }
