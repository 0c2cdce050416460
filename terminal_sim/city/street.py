"""What everybody in the city shares during the day: tills with their lines, cards that are in use, books and counts."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from switch.domain.identifiers import luhn_digit
from switch.domain.transactions import AccountKind
from switch.messages.message import Message
from terminal_sim.city.bank import LIMIT_FEN
from terminal_sim.city.books import PIN_FAILURES_MAX, Books
from terminal_sim.city.plan import CardState, CityCard, CityPlan, Holder, KioskPlace
from terminal_sim.city.tally import CountedClient, CountedKiosk, Tally
from terminal_sim.frames import CardData, Terminal
from terminal_sim.kiosk import Kiosk
from terminal_sim.pos import Pos
from terminal_sim.pos_answers import Request, checked_answer
from terminal_sim.pos_client import Line

REPEAT_TIMEOUT_S = 20.0
GOOD_LINE_TIMEOUT_S = 30.0
BAD_LINE_TIMEOUT_S = 0.8
CARD_TRIES_MAX = 500


@dataclass(slots=True)
class Street:
    """The city awake. One holder stands at one till at a time, so that every answer can be told beforehand."""

    plan: CityPlan
    books: Books
    tally: Tally
    line: Line
    clients: dict[str, CountedClient] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)  # holders
    happenings: dict[str, int] = field(default_factory=dict)  # what the story tells at the end
    good_cards: list[CityCard] = field(default_factory=list)
    special_cards: list[CityCard] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.good_cards = [card for card in self.plan.cards if card.state is CardState.GOOD]
        self.special_cards = [card for card in self.plan.cards if card.state is not CardState.GOOD]

    def happened(self, what: str, times: int = 1) -> None:
        """Count something worth telling."""
        self.happenings[what] = self.happenings.get(what, 0) + times

    def client(self, terminal: Terminal) -> CountedClient:
        """The till with this terminal; made at first sight."""
        found = self.clients.get(terminal.terminal_id)
        if found is None:
            found = CountedClient(Pos(terminal), self.line, tally=self.tally, timeout_s=GOOD_LINE_TIMEOUT_S)
            self.clients[terminal.terminal_id] = found
        return found

    def kiosk(self, place: KioskPlace) -> CountedKiosk:
        """The kiosk with this terminal; made at first sight."""
        found = self.clients.get(place.terminal.terminal_id)
        if found is None:
            mind = Kiosk(place.terminal, place.psam_no)
            found = CountedKiosk(mind, self.line, tally=self.tally, timeout_s=GOOD_LINE_TIMEOUT_S)
            self.clients[place.terminal.terminal_id] = found
        assert isinstance(found, CountedKiosk)
        return found

    @contextmanager
    def held(self, holder: Holder) -> Iterator[None]:
        """While somebody pays, nobody else uses the same account."""
        self.busy.add(holder.number)
        try:
            yield
        finally:
            self.busy.discard(holder.number)

    def free_card(self, random: Random, cards: list[CityCard]) -> CityCard:
        """Somebody who is not at a till just now."""
        for _ in range(CARD_TRIES_MAX):
            card = random.choice(cards)
            if card.holder.number not in self.busy:
                return card
        raise AssertionError("the city has too few cards for its tills")

    def card_that_can_pay(
        self, random: Random, amount_fen: int, *accounts: AccountKind, among: list[CityCard] | None = None
    ) -> CityCard:
        """A good card with the money in each of these accounts (online, if none is named), whose holder knows the PIN of each."""
        for _ in range(CARD_TRIES_MAX):
            card = self.free_card(random, self.good_cards if among is None else among)
            if all(
                (self.books.balance_fen(card.holder, account) or -1) >= amount_fen
                and not self.books.pin_failures[card.holder.number, account]
                for account in accounts or (AccountKind.ONLINE,)
            ):
                return card
        raise AssertionError("nobody in the city has money left")

    def expected(self, card: CityCard, account: AccountKind, amount_fen: int, pin: str | None) -> str:
        """What the switch must answer to a purchase (or, amount 0, an enquiry), and what becomes of the PIN tries."""
        holder = card.holder
        if card.state is not CardState.GOOD:
            return str(card.state.value)
        balance = self.books.balance_fen(holder, account)
        if balance is None:
            return "57"
        if account is AccountKind.BANK:
            if amount_fen > LIMIT_FEN:
                return "61"  # by the agreement with the bank, which is not even asked
        elif holder.pin is not None:
            failures, tries = self.books.pin_failures, (holder.number, account)  # each account counts its own
            if failures[tries] >= PIN_FAILURES_MAX:
                return "75"
            if pin is None:
                return "55"
            if pin != holder.pin:
                failures[tries] += 1
                return "55"
            failures[tries] = 0
        return "51" if balance < amount_fen else "00"


async def ask_again(client: CountedClient, request: Request) -> Message:
    """Send a request once more, behind the till's back: its own totals must not hear of it."""
    link = await client.connect()
    body = await link.ask(request.key, client.pos.pack(request), REPEAT_TIMEOUT_S)
    return checked_answer(request, body, client.pos.pin_pad)


def same_answer(first: Message, again: Message) -> bool:
    """Whether a repeat was given the stored answer: all fields but the MAC."""
    return {n: v for n, v in first.fields.items() if n != 64} == {
        n: v for n, v in again.fields.items() if n != 64
    }


def unknown_card(random: Random) -> CardData:
    """A well-formed number that nobody issued."""
    digits = f"3133500199{random.randrange(10**8):08d}"
    return CardData(digits + luhn_digit(digits), expiry="3012")


async def everyone(works: list[asyncio.Task[None]]) -> None:
    """Wait for all; the first failure ends the others and is raised."""
    try:
        await asyncio.gather(*works)
    finally:
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
