"""From a card number to its holder's shard. Routes never change once stored, so a found one may be kept for ever."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from switch.domain.identifiers import CardNumber
from switch.registry.cache import Lookup
from switch.storage.sql import load

_SQL = load("switch.registry")

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]

ROUTES_MAX = 200_000  # about 250 bytes each
ABSENT_S = 1.0  # a card imported a moment ago must not stay unknown


class CardRoute(NamedTuple):
    """Where the money of a card lives. Account ids are holder_id * 100 + account kind; card_no owns its purse float."""

    shard: int
    holder_id: int
    card_no: int


class CardDirectory:
    """Routes by card number: at most `capacity` kept, absent ones for at most a second.

    connect: gives a connection from a pool, as a context manager.
    """

    def __init__(self, connect: Connect, *, capacity: int = ROUTES_MAX, absent_s: float = ABSENT_S) -> None:
        self._connect = connect
        self._routes: Lookup[str, CardRoute] = Lookup(
            self._fetch, capacity=capacity, absent_s=absent_s, batch_max=1000
        )

    def get(self, card: CardNumber) -> CardRoute | None:
        """The route if it is at hand; None means: ask `load`."""
        return self._routes.get(card.reveal())

    async def load(self, cards: Collection[CardNumber]) -> dict[CardNumber, CardRoute | None]:
        """The routes of many cards, None for those that do not exist; waiting look-ups share one query.

        Raises DatabaseLost or Overloaded.
        """
        found = await self._routes.load_many([card.reveal() for card in cards])
        return {card: found[card.reveal()] for card in cards}

    def notice(self, payload: str) -> None:
        """A change elsewhere: only absence can be out of date. Terminals and routes are no concern of this cache."""
        if not payload.startswith(("terminal:", "routes", "binding")):
            self._routes.forget_absent()

    def distrust(self) -> None:
        """Nothing to forget but absence, and that lapses by itself."""
        self._routes.forget_absent()

    def trust(self) -> None:
        """As after any change."""
        self._routes.forget_absent()

    async def close(self) -> None:
        """End look-ups that are on their way."""
        await self._routes.close()

    def __len__(self) -> int:
        return len(self._routes)

    async def _fetch(self, pans: Sequence[str]) -> Mapping[str, CardRoute]:
        async with self._connect() as connection:
            cursor = await connection.execute(
                _SQL["routes_by_pan"], {"pans": list(pans)}, prepare=True, binary=True
            )
            rows = await cursor.fetchall()
        return {pan: CardRoute(shard, holder_id, card_no) for pan, shard, holder_id, card_no in rows}
