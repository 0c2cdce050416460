"""The end of the day: every batch settled, the day closed while shops are still selling, every account counted."""

import asyncio
from collections.abc import Callable
from datetime import date
from random import Random

from switch.domain.transactions import AccountKind
from terminal_sim.city.books import PIN_FAILURES_MAX
from terminal_sim.city.house import House, Ran
from terminal_sim.city.plan import CardState, CityCard
from terminal_sim.city.shopping import shown_balance_fen
from terminal_sim.city.street import Street, everyone
from terminal_sim.city.tally import CountedClient
from terminal_sim.pos_answers import Balanced

SETTLED_AT_ONCE = 16
LATE_TILLS = 6
LATE_SALES_MIN = 5  # of each late till, after the close
LATE_SALES_MAX = 2_000
MISCOUNT_FEN = 100


async def settle_all(
    street: Street, clients: list[CountedClient], wrong: CountedClient, settled: Callable[[], None]
) -> None:
    """批結算 of everybody; `wrong` miscounts, and must end with a detail upload and the switch's figures."""
    gate = asyncio.Semaphore(SETTLED_AT_ONCE)

    async def one(client: CountedClient) -> None:
        async with gate:
            await client.ready()
            terminal_id = client.pos.terminal.terminal_id
            expected = (Balanced.YES, Balanced.YES)
            if client is wrong:
                accounts = client.pos.batch.accounts
                client.pos.batch.accounts = accounts._replace(debit_fen=accounts.debit_fen + MISCOUNT_FEN)
                expected = (Balanced.NO, Balanced.YES)
            flags = await client.settle()
            street.books.expect(f"settlement of {terminal_id}", expected=expected, found=flags)
            street.happened("batches unbalanced, details sent" if client is wrong else "batches balanced")
            settled()

    await asyncio.gather(*(one(client) for client in clients))


async def close_while_selling(street: Street, house: House, clients: list[CountedClient]) -> Ran:
    """`cardswitch close` while late shops sell on: each purchase in exactly one day, and none refused for the close."""
    closed = asyncio.Event()
    works: list[asyncio.Task[None]] = [
        asyncio.ensure_future(_sell_late(street, client, Random(f"{street.plan.seed}/late/{n}"), closed))
        for n, client in enumerate(clients[:LATE_TILLS])
    ]

    async def close() -> Ran:
        try:
            return await house.run("close", "--yes", "--json")
        finally:
            closed.set()

    closing = asyncio.ensure_future(close())
    try:
        await everyone(works)
    finally:
        if not closing.done() and not closed.is_set():
            closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
    return closing.result()


async def _sell_late(street: Street, client: CountedClient, random: Random, closed: asyncio.Event) -> None:
    after = 0
    for _ in range(LATE_SALES_MAX):
        if after >= LATE_SALES_MIN:
            return
        after += closed.is_set()
        amount = random.randint(100, 400)
        card = street.card_that_can_pay(random, amount)
        with street.held(card.holder):
            outcome = await client.purchase(card.data, amount, pin=card.holder.pin)
            found = outcome.answer.code if outcome.answer else None
            street.books.expect("answer while the day is closed", expected="00", found=found)
            if outcome.answer is not None and outcome.receipt is not None:
                street.books.book(card.holder, outcome.receipt, outcome.answer)
        await asyncio.sleep(0.02)  # a slow evening
    await closed.wait()


def days_sold(street: Street) -> list[date]:
    """Business days of everything that was approved, oldest first."""
    return sorted(day for day, bookings in street.books.bookings.items() if bookings)


async def count_up(street: Street, clients: list[CountedClient], counted: Callable[[], None]) -> int:
    """Ask every account's balance over the wire and compare; how many could be asked.

    Lost, expired and replaced cards get no answer, so their accounts are asked through a good card of the same holder, if any.
    """
    asked: set[tuple[int, AccountKind]] = set()
    queue: list[tuple[CityCard, AccountKind]] = []
    for card in street.plan.cards:
        for account in (AccountKind.ONLINE, AccountKind.BANK, AccountKind.MEDICAL):
            if (
                card.state is CardState.GOOD
                and street.books.balance_fen(card.holder, account) is not None
                and (card.holder.number, account) not in asked
            ):
                asked.add((card.holder.number, account))
                queue.append((card, account))
    queue.reverse()
    found = [0]

    async def work(client: CountedClient) -> None:
        while queue:
            card, account = queue.pop()
            same = await _compare_balance(street, client, card, account)
            found[0] += same
            counted()

    await everyone([asyncio.ensure_future(work(client)) for client in clients])
    return found[0]


async def _compare_balance(
    street: Street, client: CountedClient, card: CityCard, account: AccountKind
) -> bool:
    books, holder = street.books, card.holder
    pin = holder.pin if account is not AccountKind.BANK else None
    blocked = pin is not None and books.pin_failures[holder.number, account] >= PIN_FAILURES_MAX
    answer = await client.balance(card.data, pin=pin, account=account)
    books.expect("answer to a last enquiry", expected="75" if blocked else "00", found=answer.code)
    if blocked or not answer.approved:
        return False
    books.pin_failures[holder.number, account] = 0
    return books.expect(
        f"{account.name.lower()} balance of holder {holder.number} in fen",
        expected=books.balance_fen(holder, account),
        found=shown_balance_fen(answer.message.fields.get(54, ""), account),
    )


def accounts_to_ask(street: Street) -> int:
    """How many enquiries `count_up` will make at most."""
    holders = {card.holder.number for card in street.plan.cards if card.state is CardState.GOOD}
    return sum(number in holders for number, _ in street.books.balances)
