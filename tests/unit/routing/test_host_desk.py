"""Questions on their way to hosts: who gets which answer."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from switch.domain.decisions import Decline, Outcome
from switch.domain.hosts import HostAnswer, HostKey, HostRequest, HostService
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, CardRequest, Load, LoadSource, PreAuthorisation, Purchase
from switch.ledger.items import FINANCIAL, Item, Key
from switch.ledger.leg_state import HostAsk
from switch.ledger.legs import Asked
from switch.messages.host_mapping import Parties, request_fields
from switch.registry.terminals import TerminalEntry
from switch.routing.destinations import Destination, Way
from switch.routing.host_desk import HostDesk, HostTerms, _question, means_bank_account
from tests.helpers.books import card_of

TODAY = date(2026, 11, 26)
NOW = datetime(2026, 11, 26, tzinfo=UTC)
ENTRY = TerminalEntry(1, "33500001", 1, "993350054110001", "99993350", 1, True, True, 1, TODAY, 1, ())


class Bank:
    """Approves the card of holder 1 and declines all others, when it is let."""

    name = "bank"
    usable = True

    def __init__(self) -> None:
        self.let = asyncio.Event()

    async def ask(self, request: HostRequest, **_how: Any) -> HostAnswer:
        await self.let.wait()
        code = "00" if request.card == card_of(1) else "51"
        return HostAnswer(request.key, code, "", "", None, "", None, "")


class Books:
    """Write down what the bank said, each in its own shard."""

    def submit(self, shard: int, item: Item) -> bool:
        ending: Any = item.request
        item.done(item, Outcome(ending.end.code, f"{shard:012d}", NOW))
        return True

    def shard_of_terminal(self, _terminal_no: int) -> int:
        return 0


def asks(card: CardNumber) -> Item:
    ask = HostAsk("bank", HostService.PURCHASE, 1101, 1_020_000, card, "33500001", "993350054110001", 15.0)
    request = Purchase(card, AccountKind.BANK, Fen(500), None, "051")
    digest = card.reveal().encode().ljust(32, b".")
    return Item(
        Key(1, 1, 7, FINANCIAL), 1, digest, 1, TODAY, request, 1, None, False, lambda _item, _told: None, ask
    )


async def test_two_cards_under_one_trace_number_get_each_its_own_answer() -> None:
    """The cards of two holders can lie in two shards, and neither knows what keys the other has seen."""
    bank = Bank()
    links: Any = {"bank": bank}
    vault: Any = None
    desk = HostDesk([HostTerms("bank", "01020000", 15.0)], links, Books(), vault, shards=2)
    told: list[tuple[str, Outcome | None]] = []

    def to(name: str) -> Callable[[Outcome | None], None]:
        return lambda outcome: told.append((name, outcome))

    for shard, holder in ((0, 1), (1, 2)):
        item = asks(card_of(holder))
        key = HostKey("1126000000", holder)
        question = Asked(shard, holder, key, f"{shard:012d}", NOW, TODAY)
        desk.ask(question, item, ENTRY, None, time.monotonic(), to(f"holder {holder}"))
        desk.join(item, to(f"holder {holder}"))
    assert desk.depth == 2
    bank.let.set()
    await desk.close(5)
    answers = sorted((name, outcome.answer) for name, outcome in told if outcome is not None)
    assert answers == [("holder 1", "00")] * 2 + [("holder 2", "51")] * 2


class Paused(Bank):
    """Says when it was asked for an answer until then."""

    async def ask(self, request: HostRequest, *, deadline_s: float, **_how: Any) -> HostAnswer:
        self.deadline_s = deadline_s
        return await super().ask(request)


async def test_the_time_for_an_answer_counts_from_the_request_and_not_from_the_question() -> None:
    """A process that was stopped in between must not ask what has been given up meanwhile."""
    bank = Paused()
    bank.let.set()
    links: Any = {"bank": bank}
    vault: Any = None
    desk = HostDesk([HostTerms("bank", "01020000", 15.0)], links, Books(), vault, shards=2)
    item = asks(card_of(1))
    question = Asked(0, 1, HostKey("1126000000", 1), "0" * 12, NOW, TODAY)
    desk.ask(question, item, ENTRY, None, 1_000.0, lambda _outcome: None)
    await desk.close(5)
    assert bank.deadline_s == 1_015.0


def test_of_several_links_of_a_city_the_first_that_can_be_asked_is_taken() -> None:
    first, second = Bank(), Bank()
    links: Any = {"one": first, "two": second}
    vault: Any = None
    terms = [HostTerms("one", "99993310", 15.0), HostTerms("two", "99993310", 15.0)]
    desk = HostDesk(terms, links, Books(), vault, shards=2)
    request: Any = asks(card_of(1)).request
    for up, name in (((True, True), "one"), ((False, True), "two")):
        first.usable, second.usable = up
        planned: Any = desk.plan(Destination(Way.CITY, "99993310"), request, ENTRY)
        assert planned.host == name
    second.usable = False
    assert desk.plan(Destination(Way.CITY, "99993310"), request, ENTRY) is Decline.HOST_DOWN
    load = Load(card_of(1), LoadSource.OTHER_BANK, Fen(500), None, None, "021")
    assert desk.plan(Destination(Way.CITY, "99993310"), load, ENTRY) is Decline.CARD_OUT_OF_SCOPE


@pytest.mark.parametrize(
    "request_",
    [
        Purchase(card_of(1), AccountKind.BANK, Fen(500), None, "051", card_sequence="007", expiry="2912"),
        Load(
            card_of(1),
            LoadSource.BOUND_BANK,
            Fen(500),
            None,
            None,
            "021",
            track2=card_of(1).reveal() + "=2912",
        ),
    ],
)
def test_a_bank_is_told_the_number_of_its_bound_card_and_nothing_of_the_citizen_card(
    request_: CardRequest,
) -> None:
    bank_card = CardNumber("6228480123456789006")
    asked = Asked(0, 1, HostKey("1126120000", 1), "633002000001", NOW, TODAY)
    item = asks(bank_card)._replace(request=request_)
    _, fields = request_fields(_question(asked, item, ENTRY), Parties("99993350", "01020000"), None)
    assert fields[2] == bank_card.reveal()
    assert not fields.keys() & {14, 23, 35}


def test_a_pre_authorisation_names_the_bound_bank_card_as_a_purchase_does() -> None:
    """So it is answered 57 without a binding, and 40 with one: hosts freeze nothing for us yet."""
    assert means_bank_account(PreAuthorisation(card_of(1), AccountKind.BANK, Fen(500), None, "051"))
    assert not means_bank_account(PreAuthorisation(card_of(1), AccountKind.ONLINE, Fen(500), None, "051"))
