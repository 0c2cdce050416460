"""Customers at tills: purchases right and wrong, voids, refunds, enquiries, on good lines and bad ones.

Every answer is predicted before the request leaves. On a bad line a purchase may come to nothing; then its reversal must.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from switch.domain.transactions import AccountKind
from terminal_sim.city.plan import CityCard, Holder, Trade
from terminal_sim.city.process import HouseError
from terminal_sim.city.street import Street, ask_again, same_answer, unknown_card
from terminal_sim.city.tally import CountedClient
from terminal_sim.pos_answers import UnusableAnswerError
from terminal_sim.pos_batch import NotNowError, Receipt
from terminal_sim.pos_client import NoAnswerError, Outcome, RefusedError

PAUSE_S = 0.1
CHOOSY = 2
BY_BANK_CARD = 0.4  # of those who have one
PATIENCE = 40  # tries of a till on a bad line before the city calls it a fault
LINE_TROUBLE = (NoAnswerError, UnusableAnswerError, NotNowError, RefusedError)


def wrong(pin: str) -> str:
    """Another PIN."""
    return f"{(int(pin) + 1) % 10 ** len(pin):0{len(pin)}d}"


@dataclass(slots=True)
class Wish:
    """What a customer is about to do."""

    card: CityCard
    account: AccountKind
    amount_fen: int
    pin: str | None = field(repr=False)


class Till:
    """One terminal and the queue in front of it."""

    def __init__(self, street: Street, client: CountedClient, trade: Trade, random: Random) -> None:
        self.street = street
        self.client = client
        self.trade = trade
        self.random = random

    async def work(self, take: Callable[[], bool], sold: Callable[[], None]) -> None:
        """Serve customers while `take` hands them out; `sold` is told of each."""
        while take():
            await self.serve_one()
            sold()

    async def serve_one(self) -> None:
        """One customer, with whatever goes wrong."""
        chance = self.random.random()
        if chance < 0.01:
            await self._stranger_card()
        elif chance < 0.05:
            wish = self._wish()
            with self.street.held(wish.card.holder):
                await self._enquire(wish)
        else:
            wish = self._wish()
            with self.street.held(wish.card.holder):
                await self._sell(wish)

    # --- wishes -------------------------------------------------------------------------------------------------

    def _wish(self) -> Wish:
        random, street = self.random, self.street
        special = random.random() < 0.03 and street.special_cards
        card = street.free_card(random, street.special_cards if special else street.good_cards)
        if self.client.bad_line:
            # A lost answer leaves open whether a PIN try was counted, so only who has a clean record comes here.
            while street.books.has_pin_failures(card.holder.number):
                card = street.free_card(random, street.good_cards)
        amount = random.randint(*self.trade.usual_fen)
        for _ in range(CHOOSY):  # who has no money mostly stays at home
            balance = street.books.balance_fen(card.holder, AccountKind.ONLINE)
            if special or self.client.bad_line or (balance is not None and balance >= amount):
                break
            card = street.free_card(random, street.good_cards)
        holder = card.holder
        if random.random() < 0.01:
            amount = 9_000_000  # a gold bar
        account = AccountKind.ONLINE
        if self.trade.medical and holder.medical_fen is not None and random.random() < 0.7:
            account = AccountKind.MEDICAL
        elif (
            not special
            and street.books.balance_fen(holder, AccountKind.BANK) is not None
            and random.random() < BY_BANK_CARD
        ):
            return Wish(card, AccountKind.BANK, amount, None)  # this bank asks for no PIN
        return Wish(card, account, amount, self._pin(holder))

    def _pin(self, holder: Holder) -> str | None:
        if holder.pin is None or self.client.bad_line:
            return holder.pin
        chance = self.random.random()
        forgetful = holder.number % 50 == 7
        if chance < (0.9 if forgetful else 0.02):
            return wrong(holder.pin)
        return None if chance < 0.03 and not forgetful else holder.pin

    # --- at the till --------------------------------------------------------------------------------------------

    async def _sell(self, wish: Wish) -> None:
        client, books = self.client, self.street.books
        await self._ready()
        expected = self.street.expected(wish.card, wish.account, wish.amount_fen, wish.pin)
        request = client.pos.purchase(
            wish.card.data,
            wish.amount_fen,
            pin=wish.pin,
            account=wish.account,
            entry=self.random.choice(("05", "07")),
            with_pan=self.random.random() < 0.8,
        )
        outcome = await client.transact(request)
        if outcome.answer is None:
            await self._reversed(outcome, f"purchase at {client.pos.terminal.terminal_id}")
            return
        books.expect(f"answer to {request!r}", expected=expected, found=outcome.answer.code)
        receipt = outcome.receipt
        if receipt is None:
            return
        books.book(wish.card.holder, receipt, outcome.answer)
        chance = self.random.random()
        if chance < 0.03:
            await self._void(wish, receipt)
        elif chance < 0.06:
            await self._refund(wish, receipt)
        elif chance < 0.08 and not client.bad_line:
            again = await ask_again(client, request)
            self.street.happened("repeats answered as before")
            if not same_answer(outcome.answer.message, again):
                books.fault(f"the repeat of {request!r} was answered otherwise")
        elif chance < 0.085 and not client.bad_line:
            other = request._replace(fields={**request.fields, 4: f"{wish.amount_fen + 1:012d}"})
            found = (await ask_again(client, other)).fields[39]
            self.street.happened("trace numbers used twice, refused with 94")
            books.expect("one trace, two amounts", expected="94", found=found)

    async def _void(self, wish: Wish, receipt: Receipt) -> None:
        client, books = self.client, self.street.books
        await self._ready()
        outcome = await client.transact(client.pos.void(receipt))
        if outcome.answer is None:
            await self._reversed(outcome, f"void at {client.pos.terminal.terminal_id}")
            return
        books.expect("answer to a void", expected="00", found=outcome.answer.code)
        if outcome.receipt is not None:
            books.book(wish.card.holder, outcome.receipt, outcome.answer)
        if self.random.random() < 0.2 and not client.bad_line:
            second = await client.void(receipt)
            code = second.answer.code if second.answer else None
            books.expect("answer to a second void", expected="12", found=code)

    async def _refund(self, wish: Wish, receipt: Receipt) -> None:
        client, books = self.client, self.street.books
        await self._ready()
        too_much = self.random.random() < 0.1
        amount = receipt.amount_fen + 1 if too_much else self.random.randint(1, receipt.amount_fen)
        request = client.pos.refund(receipt, amount)
        for _ in range(PATIENCE):
            try:
                answer = await client.insist(request)
            except LINE_TROUBLE:
                continue
            books.expect("answer to a refund", expected="64" if too_much else "00", found=answer.code)
            if answer.receipt is not None:
                books.book(wish.card.holder, answer.receipt, answer)
            return
        books.fault(f"a refund at {client.pos.terminal.terminal_id} was never answered")

    async def _enquire(self, wish: Wish) -> None:
        client, street = self.client, self.street
        await self._ready()
        try:
            answer = await client.balance(wish.card.data, pin=wish.pin, account=wish.account)
        except LINE_TROUBLE:
            return  # nothing was asked for that must be undone
        expected = street.expected(wish.card, wish.account, 0, wish.pin)
        street.books.expect("answer to an enquiry", expected=expected, found=answer.code)
        if answer.approved:
            found = shown_balance_fen(answer.message.fields.get(54, ""), wish.account)
            street.books.expect(
                "balance shown at a till",
                expected=street.books.balance_fen(wish.card.holder, wish.account),
                found=found,
            )

    async def _stranger_card(self) -> None:
        if self.client.bad_line:
            return
        amount = self.random.randint(*self.trade.usual_fen)
        outcome = await self.client.purchase(unknown_card(self.random), amount)
        code = outcome.answer.code if outcome.answer else None
        self.street.books.expect("answer to a card nobody issued", expected="14", found=code)

    # --- bad lines ----------------------------------------------------------------------------------------------

    async def _ready(self) -> None:
        trouble = ""
        for _ in range(PATIENCE):
            try:
                await self.client.ready()
            except LINE_TROUBLE as error:
                trouble = str(error)
                continue
            return
        raise HouseError(f"till {self.client.pos.terminal.terminal_id} cannot go on: {trouble}")

    async def _reversed(self, outcome: Outcome, what: str) -> None:
        """Wait until nothing is owed: only then may the customer go."""
        self.street.happened("answers lost and reversed")
        code = outcome.reversal
        for _ in range(PATIENCE):
            if not self.client.pos.reversals:
                break
            owed = self.client.pos.reversals[0]
            try:
                code = (await self.client.insist(owed)).code
            except LINE_TROUBLE:
                continue
            if self.client.pos.reversals:
                await asyncio.sleep(PAUSE_S)  # answered, but not to an end
        else:
            raise HouseError(f"the reversal of a {what} does not end: answered {code or 'nothing'}")
        if code == "25":
            self.street.happened("requests that never arrived, barred by a tombstone")
        elif code not in ("00", "done"):
            self.street.books.fault(f"the reversal of a {what} was answered {code}")


def shown_balance_fen(field54: str, account: AccountKind) -> int | None:
    """What field 54 says of an account: its ledger balance (amount type 01), of a bank's what may be spent (02); None when it is not there."""
    wanted = "02" if account is AccountKind.BANK else "01"
    for at in range(0, len(field54), 20):
        part = field54[at : at + 20]
        if part[2:4] == wanted:
            return int(part[8:]) * (-1 if part[7] == "D" else 1)
    return None
