"""Requests that hosts decide, on a real database: what meets their intents there, in one process or in two."""

import asyncio
import time
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.domain.decisions import Outcome
from switch.domain.hosts import HostAnswer, HostService
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    Kind,
    Load,
    LoadSource,
    Original,
    Purchase,
    Refused,
    Reversal,
)
from switch.ledger.batch import Batch
from switch.ledger.book import ShardBook
from switch.ledger.items import IN_FLIGHT, REVERSAL, Item
from switch.ledger.leg_state import HostAsk
from switch.ledger.legs import Asked, LegEnd
from switch.ledger.load_states import Loading
from switch.messages.answers import DE39
from switch.storage.pipeline import Pipeline
from switch.storage.pool import connect
from tests.helpers.books import a_book, card_of, item, purchase, seed

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
BANK = AccountKind.BANK
ASK = HostAsk("bank", HostService.PURCHASE, 1101, 1_020_000, card_of(1), "00000001", "993350054110001", 15.0)


def asked(day: date, fen: int = 500, *, account: AccountKind = BANK, **how: Any) -> Item:
    """A purchase that a bank decides."""
    request = Purchase(card_of(1), account, Fen(fen), None, "051")
    return item(request, since=day, **how)._replace(ask=ASK)


def reversal(of: Item, day: date, fen: int = 500, *, holder: int = 1) -> Item:
    """The reversal of a purchase."""
    named = Original(1, of.key.stan, day.month, day.day)
    undone = Reversal(card_of(holder), BANK, Fen(fen), named, Kind.PURCHASE, "98", "051", "002000")
    return item(undone, since=day, stan=of.key.stan, rclass=REVERSAL, content=b"reversal", holder_id=holder)


def approved(told: Asked) -> HostAnswer:
    return HostAnswer(told.key, "00", "B00001", "", None, "1127", None, "")


def approval(of: Item, told: Asked) -> Item:
    """The end of a question: the bank approves."""
    request = of.request
    assert isinstance(request, Purchase)
    ending = LegEnd(request.card, request.account, request.amount_fen, approved(told), "051")
    return of._replace(request=ending, since=told.business_date, generation=2**31 - 1, ask=None)


async def one(book: ShardBook, request: Item) -> Any:
    (told,) = await book.settle([request])
    return told


async def answer(book: ShardBook, request: Item) -> str:
    told = await one(book, request)
    assert isinstance(told, Outcome), told
    return told.answer


@pytest.mark.parametrize(("fen", "told"), [(499, "64"), (500, "00")])
async def test_a_reversal_of_another_amount_does_not_end_a_question_and_is_told_so(
    pg: Pg, postgres_url: str, fen: int, told: str
) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        bought = asked(day)
        question = await one(book, bought)
        assert await answer(book, reversal(bought, day, fen)) == told
        # 25 would be final for the terminal, and then the purchase would be booked after all.
        assert await answer(book, approval(bought, question)) == ("00" if told == "64" else "68")


async def test_the_purse_of_a_guest_is_asked_of_nobody_and_fails_no_batch(pg: Pg, postgres_url: str) -> None:
    """No host has it, and a leg could not be written down: each such request had the batch around it run again in halves."""
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        assert await answer(book, asked(day, account=AccountKind.PURSE, holder_id=0)) == "40"


async def settled_behind(url: str, first: Item, second: Item, *, patience_s: float = 1) -> tuple[Any, Any]:
    """What two books tell, of which the second comes while the first is about to commit.

    patience_s: how long the first leaves the second time to overtake it.
    """
    committing, seen = asyncio.Event(), asyncio.Event()

    class Slow(ShardBook):
        async def _write_and_commit(self, link: Pipeline, batch: Batch) -> None:
            committing.set()
            await asyncio.wait([asyncio.create_task(seen.wait())], timeout=patience_s)
            await super()._write_and_commit(link, batch)

    slow = Slow(0, lambda: connect(url), DE39)
    async with a_book(url) as book:
        ahead = asyncio.create_task(one(slow, first))
        await committing.wait()
        behind = asyncio.create_task(one(book, second))
        behind.add_done_callback(lambda _: seen.set())
        told = await ahead, await behind
    slow.stop()
    await slow.run()
    return told


async def test_a_copy_that_another_process_refuses_meets_the_question(pg: Pg, postgres_url: str) -> None:
    """To the other process the host seemed away. It must wait for the first, or the host's approval finds another answer there."""
    day = await seed(pg)
    bought = asked(day)
    copy = bought._replace(request=Refused(card_of(1), Fen(500), "91", "host_down"), ask=None)
    question, told = await settled_behind(postgres_url, bought, copy)
    assert isinstance(question, Asked)
    assert told is IN_FLIGHT


async def test_a_reversal_that_names_another_account_waits_for_the_question_too(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    bought = asked(day)
    undone = reversal(bought, day)
    assert isinstance(undone.request, Reversal)
    other = undone._replace(request=undone.request._replace(account=AccountKind.ONLINE))
    question, told = await settled_behind(postgres_url, bought, other)
    assert isinstance(question, Asked)
    assert told.answer == "00"


async def test_books_that_are_busy_and_idle_never_name_two_messages_alike(
    pg: Pg, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trace numbers come again after a hundred blocks of serials: by then nobody may still use the first."""
    day = await seed(pg)
    async with a_book(postgres_url) as idle, a_book(postgres_url) as busy:
        await one(idle, item(purchase(), since=day))
        await pg.execute("SELECT setval('entry_no_block', 100)")
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 11)
        monkeypatch.setattr("switch.ledger.book.time", later)
        first = await one(busy, asked(day))
        names = {first.key.trace} | {(await one(idle, asked(day))).key.trace for _ in range(3)}
    # What the idle one had left over begins with the numbers of the busy one's block.
    assert first.leg_no > 1_000_000
    assert len(names) == 4


async def test_a_question_whose_key_another_request_has_taken_is_undone(pg: Pg, postgres_url: str) -> None:
    """A terminal that uses a trace twice at once: the other one, on an account of ours, did not wait for the lock on its terminal."""
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        bought = asked(day)
        another = item(purchase(100), since=day, stan=bought.key.stan, content=b"another")
        question, plain = await settled_behind(postgres_url, bought, another, patience_s=60)  # it must
        assert isinstance(question, Asked)
        assert plain.answer == "00"
        assert await answer(book, approval(bought, question)) == "94"
        assert await answer(book, approval(bought, question)) == "00", "what stands under the key"
    cursor = await pg.execute("SELECT state FROM host_leg")
    assert await cursor.fetchall() == [(4,)]
    cursor = await pg.execute("SELECT step, reason, amount_fen FROM host_outbox")
    assert await cursor.fetchall() == [(5, "98", 500)]


def bound(day: date, fen: int, *, limit: int = 1_000, **how: Any) -> Item:
    """A payment by a bound card that pays so much a day."""
    return asked(day, fen, **how)._replace(ask=ASK._replace(binding_no=7, day_limit_fen=limit))


async def test_a_bound_card_pays_no_more_than_its_limit_of_a_day_whatever_it_is_asked_at_once(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book, a_book(postgres_url) as other:
        first = bound(day, 600)
        question, refused, small = await book.settle([first, bound(day, 401), bound(day, 400)])
        assert isinstance(question, Asked)
        assert isinstance(refused, Outcome)
        assert (refused.answer, isinstance(small, Asked)) == ("61", True)
        assert await answer(other, bound(day, 1)) == "61", "another process counts the same"
        declined = approval(first, question)
        await one(
            book, declined._replace(request=declined.request._replace(end=None))
        )  # nobody knows: undone
        told = await asyncio.gather(*(one(each, bound(day, 500)) for each in (book, other)))
    assert sorted(isinstance(each, Asked) for each in told) == [False, True], "there is room for one of them"


async def test_what_was_voided_does_not_count_and_another_day_begins_at_nothing(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    async with a_book(postgres_url) as book:
        first = bound(day, 1_000)
        assert await answer(book, approval(first, await one(book, first))) == "00"
        assert await answer(book, bound(day, 1)) == "61"
        undone = reversal(first, day, 1_000)
        assert await answer(book, undone) == "00"
        assert isinstance(await one(book, bound(day, 900)), Asked)
        await pg.execute("UPDATE host_leg SET business_date = business_date - 1")
        assert isinstance(await one(book, bound(day, 1_000)), Asked)


async def test_a_load_that_was_taken_back_does_not_count_in_the_day_of_its_bound_card(
    pg: Pg, postgres_url: str
) -> None:
    day = await seed(pg)
    request = Load(card_of(1), LoadSource.BOUND_BANK, Fen(1_000), None, None, "051")
    ask = ASK._replace(service=HostService.LOAD, binding_no=7, day_limit_fen=1_000)
    load = item(request, since=day)._replace(ask=ask, loading=Loading(7))
    async with a_book(postgres_url) as book:
        told = await one(book, load)
        ending = LegEnd(request.card, AccountKind.ONLINE, request.amount_fen, approved(told), "051", request)
        back = load._replace(request=ending, since=told.business_date, generation=2**31 - 1, ask=None)
        assert await answer(book, back) == "00"
        assert await answer(book, bound(day, 1)) == "61"
        undone = Reversal(
            card_of(1),
            AccountKind.ONLINE,
            Fen(1_000),
            Original(1, load.key.stan, day.month, day.day),
            Kind.LOAD,
            "98",
            "051",
            "600010",
        )
        undo = item(undone, since=day, stan=load.key.stan, rclass=REVERSAL, content=b"reversal")
        assert await answer(book, undo._replace(loading=Loading(7))) == "00"
        assert isinstance(await one(book, bound(day, 1_000)), Asked)
