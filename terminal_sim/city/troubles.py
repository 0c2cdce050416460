"""Bad lines, strangers and a power cut: what a switch must stand without losing or doubling a fen."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import NamedTuple

from switch.domain.transactions import AccountKind
from terminal_sim.city.house import House
from terminal_sim.city.plan import CityCard
from terminal_sim.city.street import Street, ask_again, same_answer
from terminal_sim.city.tally import CountedClient
from terminal_sim.faults import Faults
from terminal_sim.frames import Terminal
from terminal_sim.pos import Pos
from terminal_sim.pos_answers import Answer, Request, UnusableAnswerError
from terminal_sim.pos_client import Line, NoAnswerError, PosClient, RefusedError

BAD_UP = Faults(drop=0.02, repeat=0.03, cut=0.008, delay=0.05, delay_s=(0.01, 0.08))
BAD_DOWN = Faults(drop=0.03, repeat=0.03, cut=0.008, delay=0.05, delay_s=(0.01, 0.08))
TILLS_IN_THE_DARK = 12
LIGHTS_OUT_AFTER_S = 0.5
STRANGERS = 6
NOISE_BYTES = 4_096


class Sold(NamedTuple):
    """A purchase and the answer it had."""

    client: CountedClient
    request: Request
    answer: Answer


async def strangers(street: Street, client: CountedClient, random: Random) -> None:
    """Somebody signs on as a living terminal, without its key; its session must not end. And plain noise."""
    real = client.pos.terminal
    await client.ready()
    for _ in range(STRANGERS):
        false = Terminal(real.terminal_id, real.merchant_id, random.randbytes(16), real.mac_id)
        stranger = PosClient(Pos(false), street.line, tries=1, timeout_s=60.0)
        try:
            await stranger.sign_on()
            street.books.fault("a stranger could read working keys")
        except UnusableAnswerError:
            street.happened("strangers who got keys they cannot read")
        except (RefusedError, NoAnswerError) as error:
            street.books.fault(f"a stranger's sign-on ended with: {error}")
        finally:
            stranger.close()
    unknown = Terminal("NOBODY00", real.merchant_id, random.randbytes(16), 1)
    stranger = PosClient(Pos(unknown), street.line, tries=1, timeout_s=60.0)
    try:
        await stranger.sign_on()
        street.books.fault("an unknown terminal could sign on")
    except RefusedError as error:
        street.books.expect("answer to an unknown terminal", expected="97", found=error.code)
    finally:
        stranger.close()
    await _noise(street, random)
    sessions = client.pos.must_sign_on
    card = street.card_that_can_pay(random, 100)
    await _buy(street, client, card, 100)
    street.books.expect(
        "the true terminal still has its session",
        expected=(False, False),
        found=(sessions, client.pos.must_sign_on),
    )


async def _noise(street: Street, random: Random) -> None:
    reader, writer = await asyncio.open_connection(street.line.host, street.line.port)
    with suppress(OSError):
        writer.write(random.randbytes(NOISE_BYTES))
        await writer.drain()
        async with asyncio.timeout(60.0):
            while await reader.read(4_096):
                pass
        street.happened("lines full of noise, closed")
    writer.close()


async def _buy(street: Street, client: CountedClient, card: CityCard, amount_fen: int) -> None:
    with street.held(card.holder):
        outcome = await client.purchase(card.data, amount_fen, pin=card.holder.pin)
        found = outcome.answer.code if outcome.answer else None
        street.books.expect("answer to a purchase beside a stranger", expected="00", found=found)
        if outcome.answer is not None and outcome.receipt is not None:
            street.books.book(card.holder, outcome.receipt, outcome.answer)


async def power_cut(
    street: Street, house: House, clients: list[CountedClient], random: Random, tell: Callable[[str], None]
) -> None:
    """SIGKILL the switch, its database with it, while tills sell; then every till asks again, and nothing is booked twice."""
    chosen = clients[:TILLS_IN_THE_DARK]
    for client in chosen:
        await client.ready()
    held: list[tuple[CountedClient, CityCard, Request]] = []
    sold: list[Sold] = []
    works = [asyncio.ensure_future(_sell_until_dark(street, client, random, sold, held)) for client in chosen]
    await asyncio.sleep(LIGHTS_OUT_AFTER_S)
    tell(f"the switch is killed (SIGKILL) with {len(street.busy)} purchases in flight")
    await house.kill()
    await asyncio.gather(*works)
    await house.serve()
    tell(f"it is back; {len(held)} purchases without an answer are sent again")
    for client, card, request in held:
        answer = await client.insist(request)
        street.books.expect("a purchase sent again after the power cut", expected="00", found=answer.code)
        street.happened("purchases sent again after the power cut")
        if answer.receipt is not None:
            street.books.book(card.holder, answer.receipt, answer)
            sold.append(Sold(client, request, answer))
        street.busy.discard(card.holder.number)
    for client, request, answer in sold[-2 * TILLS_IN_THE_DARK :]:
        if not same_answer(answer.message, await ask_again(client, request)):
            street.books.fault(f"after the power cut, the repeat of {request!r} was answered otherwise")
        street.happened("repeats answered as before")


async def _sell_until_dark(
    street: Street,
    client: CountedClient,
    random: Random,
    sold: list[Sold],
    held: list[tuple[CountedClient, CityCard, Request]],
) -> None:
    while True:
        amount = random.randint(100, 900)
        card = street.card_that_can_pay(random, amount)
        expected = street.expected(card, AccountKind.ONLINE, amount, card.holder.pin)
        street.busy.add(card.holder.number)
        request = client.pos.purchase(card.data, amount, pin=card.holder.pin)
        try:
            answer = await client.exchange(request)
        except NoAnswerError:
            held.append((client, card, request))
            return  # the customer waits in the dark
        street.books.expect("answer before the power cut", expected=expected, found=answer.code)
        if answer.receipt is not None:
            street.books.book(card.holder, answer.receipt, answer)
            sold.append(Sold(client, request, answer))
        street.busy.discard(card.holder.number)


def through(client: CountedClient, line: Line, *, bad: bool, timeout_s: float) -> CountedClient:
    """The same till on another line; what it owes and knows goes with it."""
    client.close()
    return CountedClient(client.pos, line, tally=client.tally, bad_line=bad, timeout_s=timeout_s)
