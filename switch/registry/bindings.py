"""Bound bank cards: from a citizen card to the bank account that pays when a terminal asks for it (account type 20, designated loads).

A terminal cannot say which of several it means, so it means the default one. The number rests sealed and is opened only for the message
to the bank; the bank card's PIN is never kept. Bindings change rarely and are cached; a change is announced, and whoever must not act on
one that has ended a moment ago reads it again by `binding_no`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple, Protocol

from psycopg import AsyncConnection

from switch.domain.decisions import Decline
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.registry.cache import Lookup
from switch.registry.cards import CardRoute
from switch.storage.sql import load

_SQL: Final = load("switch.registry", "bindings.sql")

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]

BINDINGS_MAX: Final = 20  # active ones of a card
CAPACITY: Final = 100_000  # about 500 bytes each
ABSENT_S: Final = 1.0  # a card bound a moment ago must not stay unbound


class Binding(NamedTuple):
    """The default active binding of a card. sealed: the bank card's number, see account_of. Limits: None does not bind."""

    binding_no: int
    institution_id: str
    agreement_id: str
    sealed: bytes
    transaction_limit_fen: Fen | None
    day_limit_fen: Fen | None

    def __repr__(self) -> str:
        return f"Binding({self.binding_no}, {self.institution_id})"


class OpenNumbers(Protocol):
    """The vault, as far as reading a number needs it."""

    def open_account(self, sealed: bytes, context: bytes) -> CardNumber:
        """The number, or SealError."""


def seal_context(card: CardNumber, institution_id: str, agreement_id: str) -> bytes:
    """What the number of a bank card is sealed for. None of it ever changes, and no part can hold the separator."""
    return "\x1f".join(("binding", card.reveal(), institution_id, agreement_id)).encode()


def account_of(vault: OpenNumbers, card: CardNumber, binding: Binding) -> CardNumber:
    """The number of the bank card that is bound to a card. SealError when the binding is not this card's, or was altered."""
    return vault.open_account(
        binding.sealed, seal_context(card, binding.institution_id, binding.agreement_id)
    )


def binding_refusal(binding: Binding | None, amount_fen: Fen) -> Decline | None:
    """Why a bound account does not pay this; None when it may.

    A payment above the day's limit is refused at once; the ledger counts what was paid earlier in the day (legs.intend).
    """
    if binding is None:
        return Decline.ACCOUNT_NOT_PERMITTED
    for limit_fen in (binding.transaction_limit_fen, binding.day_limit_fen):
        if limit_fen is not None and amount_fen > limit_fen:
            return Decline.LIMIT_AMOUNT
    return None


class BindingDirectory:
    """Default active bindings by card: at most `capacity` kept, absence for at most a second. A follower of the registry's notices.

    connect: gives a connection from a pool, as a context manager.
    """

    def __init__(self, connect: Connect, *, capacity: int = CAPACITY, absent_s: float = ABSENT_S) -> None:
        self._connect = connect
        self._bindings: Lookup[tuple[int, int], Binding] = Lookup(
            self._fetch, capacity=capacity, absent_s=absent_s
        )

    def get(self, card: CardRoute) -> Binding | None:
        """The binding if it is at hand; None means: ask `load`."""
        return self._bindings.get((card.shard, card.card_no))

    async def load(self, card: CardRoute) -> Binding | None:
        """The binding of a card; None when it has none. Raises DatabaseLost or Overloaded."""
        return await self._bindings.load((card.shard, card.card_no))

    def notice(self, payload: str) -> None:
        """A change announced by some process; see registry/invalidation.py."""
        word, *place = payload.split(":")
        if (
            word == "binding"
            and len(place) == 2
            and all(part.isascii() and part.isdecimal() for part in place)
        ):
            self._bindings.invalidate((int(place[0]), int(place[1])))
        elif word not in ("terminal", "routes", "card"):
            self._bindings.clear()

    def distrust(self) -> None:
        """Changes are not heard: forget all, keep nothing."""
        self._bindings.distrust()

    def trust(self) -> None:
        """Changes are heard again."""
        self._bindings.trust()

    async def close(self) -> None:
        """End look-ups that are on their way."""
        await self._bindings.close()

    def __len__(self) -> int:
        return len(self._bindings)

    async def _fetch(self, cards: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], Binding]:
        shards, card_nos = zip(*cards, strict=True)
        async with self._connect() as connection:
            cursor = await connection.execute(
                _SQL["default_bindings"],
                {"shards": list(shards), "card_nos": list(card_nos)},
                prepare=True,
                binary=True,
            )
            rows = await cursor.fetchall()
        return {(shard, card_no): Binding(*rest) for shard, card_no, *rest in rows}
