"""Questions on their way to hosts: who gets which answer."""

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

from switch.domain.decisions import Outcome
from switch.domain.hosts import HostAnswer, HostKey, HostRequest, HostService
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, Purchase
from switch.ledger.items import FINANCIAL, Item, Key
from switch.ledger.leg_state import HostAsk
from switch.ledger.legs import Asked
from switch.registry.terminals import TerminalEntry
from switch.routing.host_desk import HostDesk, HostTerms
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
        item.done(Outcome(ending.end.code, f"{shard:012d}", NOW))
        return True

    def shard_of_terminal(self, _terminal_no: int) -> int:
        return 0


def asks(card: CardNumber) -> Item:
    ask = HostAsk("bank", HostService.PURCHASE, 1101, 1_020_000, card, "33500001", "993350054110001", 15.0)
    request = Purchase(card, AccountKind.BANK, Fen(500), None, "051")
    digest = card.reveal().encode().ljust(32, b".")
    return Item(
        Key(1, 1, 7, FINANCIAL), 1, digest, 1, TODAY, request, 1, None, False, lambda _told: None, ask
    )


async def test_two_cards_under_one_trace_number_get_each_its_own_answer() -> None:
    """The cards of two holders can lie in two shards, and neither knows what keys the other has seen."""
    bank = Bank()
    links: Any = {"bank": bank}
    vault: Any = None
    desk = HostDesk([HostTerms("bank", 1_020_000, 15.0)], links, Books(), vault)
    told: list[tuple[str, Outcome | None]] = []

    def to(name: str) -> Callable[[Outcome | None], None]:
        return lambda outcome: told.append((name, outcome))

    for shard, holder in ((0, 1), (1, 2)):
        item = asks(card_of(holder))
        key = HostKey("1126000000", holder)
        desk.ask(
            Asked(shard, holder, key, f"{shard:012d}", NOW, TODAY), item, ENTRY, None, to(f"holder {holder}")
        )
        desk.join(item, to(f"holder {holder}"))
    assert desk.depth == 2
    bank.let.set()
    await desk.close(5)
    answers = sorted((name, outcome.answer) for name, outcome in told if outcome is not None)
    assert answers == [("holder 1", "00")] * 2 + [("holder 2", "51")] * 2
