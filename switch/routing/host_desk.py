"""Requests that a host decides: which host, the question, and its end back into the book.

    reception > book (intent committed: Asked) > this desk > the host's link > book (answer written) > terminal

The desk forgets nothing that matters: the intent is in the journal before the question is put, and a leg whose end does not come back
into the book is ended by whoever sweeps (`keep_ending`), in this process or another.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Any, Final, NamedTuple, Protocol

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.domain.decisions import Decline, Outcome
from switch.domain.hosts import (
    HostDown,
    HostOutcome,
    HostRequest,
    HostService,
    HostStep,
    PinUnder,
    Refusal,
)
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    Balance,
    CardRequest,
    Kind,
    Load,
    LoadConfirm,
    LoadSource,
    PreAuthorisation,
    Purchase,
    Reversal,
)
from switch.keys.pin_blocks import PinBlockError
from switch.ledger.chart import Code
from switch.ledger.items import FINANCIAL, IN_DOUBT, Item, Key
from switch.ledger.leg_state import HostAsk, StandInTerms
from switch.ledger.legs import Asked, LegEnd
from switch.messages.envelope import Envelope
from switch.registry.bindings import Binding, OpenNumbers, account_of, binding_refusal
from switch.registry.terminals import TerminalEntry
from switch.routing.destinations import Destination, Way
from switch.routing.host_names import HostNames
from switch.routing.hosts import HostLink
from switch.storage.sql import load

log = structlog.get_logger(__name__)

SQL: Final = load("switch.ledger", "legs.sql")
Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]
Done = Callable[[Outcome | None], None]

OTHER_BANK_CODE: Final = "62"  # digits TT of field 3
REPEATS_MAX: Final = 4  # of one request that may wait for the answer of the first; more get none
ENDS_MAX: Final = 1_000  # abandoned legs ended at a time
ENDING_EVERY_S: Final = 1.0
RESUBMIT_S: Final = 0.05
RESUBMITS_MAX: Final = 100  # into a full queue; then whoever sweeps does it
_SERVICE: Final = {Purchase: HostService.PURCHASE, Balance: HostService.BALANCE, Load: HostService.LOAD}
ANYBODY: Final = 2**31 - 1  # the generation of what no terminal's key has authenticated


class Books(Protocol):
    """The ledger, as far as the end of a leg needs it."""

    def submit(self, shard: int, item: Item) -> bool:
        """Queue for a shard; False when its queue is full."""


class HostTerms(NamedTuple):
    """What routing knows of a host. answer_s: its time-out. stand_in: None when nobody stands in for it."""

    name: str
    institution: str
    answer_s: float
    stand_in: StandInTerms | None = None


class HostDesk:
    """Hosts of one process. links: by the name that settings and routes give them; those without keys are missing.

    shards: of the ledger. asking_max: questions on their way; one more is as if the host were down.
    """

    def __init__(
        self,
        terms: Iterable[HostTerms],
        links: Mapping[str, HostLink],
        books: Books,
        vault: OpenNumbers,
        *,
        shards: int,
        asking_max: int = 20_000,
    ) -> None:
        self._terms = {one.name: one for one in terms}
        self.names = HostNames(self._terms.values())
        self._shards = range(shards)
        self._links = links
        self._books = books
        self._vault = vault
        self._asking_max = asking_max
        # Who waits for the end of which question. With the digest: of one key each shard may have a question of its own.
        self._asking: dict[tuple[Key, bytes], list[Done]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self, within_s: float) -> None:
        """Wait for the questions that are on their way; what is left then is ended by a sweep."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        for task in self._tasks:
            task.cancel()

    # ------------------------------------------------------------------ what routing asks

    def has(self, destination: Destination) -> bool:
        """Whether there is such a host at all."""
        return self.names.has(destination)

    def usable(self, destination: Destination) -> bool:
        """Whether one of its links would be asked now."""
        return any(map(self._usable, self.names.names_of(destination)))

    def _usable(self, name: str) -> bool:
        link = self._links.get(name)
        return link is not None and link.usable and len(self._asking) < self._asking_max

    def plan(
        self,
        destination: Destination,
        request: CardRequest,
        entry: TerminalEntry,
        binding: Binding | None = None,
    ) -> HostAsk | Decline:
        """How a request is put to a destination that this switch has; when it is away, whether somebody stands in.

        binding: of the card, where its bound bank card is to pay. Only its own bank is told its number.
        """
        if destination.way is Way.CITY and isinstance(request, Load):
            return Decline.CARD_OUT_OF_SCOPE  # banks pay for purses, not cities
        names = self.names.names_of(destination)
        service = _SERVICE.get(type(request))
        if not names or service is None:
            return Decline.NO_ROUTE if not names else Decline.NOT_SUPPORTED
        up = next(filter(self._usable, names), None)
        terms = self._terms[up or names[0]]
        if up is None and terms.stand_in is None:
            return Decline.HOST_DOWN
        account = getattr(request, "account", AccountKind.BANK)
        code, owner = _owes(destination, account, int(terms.institution))
        card = request.card
        assert card is not None, "a purchase or a balance has a card"
        bound, day_limit_fen = 0, None
        if binding is not None and int(binding.institution_id) == int(terms.institution):
            refusal = binding_refusal(binding, getattr(request, "amount_fen", Fen(0)))
            if refusal is not None:
                return refusal
            card = account_of(self._vault, card, binding)
            if binding.day_limit_fen is not None and service != HostService.BALANCE:
                bound, day_limit_fen = binding.binding_no, binding.day_limit_fen
        return HostAsk(
            terms.name,
            service,
            int(code),
            owner,
            card,
            entry.terminal_id,
            entry.merchant_id,
            terms.answer_s,
            terms.stand_in if up is None else None,
            bound,
            day_limit_fen,
        )

    # ------------------------------------------------------------------ asking

    def ask(
        self,
        asked: Asked,
        item: Item,
        entry: TerminalEntry,
        pin: PinUnder | None,
        started_s: float,
        done: Done,
    ) -> None:
        """Put the question of a committed intent; `done` gets the stored answer, None or IN_DOUBT.

        started_s: monotonic, when the request came. From it the time for an answer counts: a process that was stopped in between asks
        nothing any more when its leg may have been ended, and its reversal be on its way.
        """
        self._asking[item.key, item.digest] = [done]
        task = asyncio.get_running_loop().create_task(self._ask(asked, item, entry, pin, started_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def join(self, item: Item, done: Done) -> None:
        """A repeat waits for the answer of the first; where that is not asked here, or by too many, it gets none."""
        waiting = self._asking.get((item.key, item.digest))
        if waiting is None or len(waiting) > REPEATS_MAX:
            done(IN_DOUBT)
        else:
            waiting.append(done)

    async def _ask(
        self, asked: Asked, item: Item, entry: TerminalEntry, pin: PinUnder | None, started_s: float
    ) -> None:
        ask = item.ask
        assert ask is not None
        end: HostOutcome | Decline | None
        try:
            link = self._links.get(ask.host)
            if link is None:
                end = HostDown(asked.key, Refusal.NO_LINE)
            else:
                request = _question(asked, item, entry)
                end = await link.ask(request, deadline_s=started_s + ask.budget_s, pin=pin)
        except PinBlockError:
            end = Decline.PIN_UNREADABLE
        except asyncio.CancelledError:
            self._end(item, IN_DOUBT)
            raise
        except Exception:  # our own fault, and nobody knows whether something was sent
            log.exception("a host could not be asked", host=ask.host)
            end = None
        await self._write(asked, item, end)

    async def _write(self, asked: Asked, item: Item, end: HostOutcome | Decline | None) -> None:
        request: Any = item.request
        load = request if isinstance(request, Load) else None
        ending = LegEnd(
            request.card,
            AccountKind.ONLINE if load is not None else request.account,  # the one that is loaded
            getattr(request, "amount_fen", Fen(0)),
            end,
            request.entry_mode,
            load,
        )
        back = item._replace(
            request=ending,
            since=asked.business_date,
            generation=ANYBODY,
            ask=None,
            pin=None,
            done=lambda _ending, outcome: self._end(item, outcome if isinstance(outcome, Outcome) else None),
        )
        for _ in range(RESUBMITS_MAX):
            if self._books.submit(asked.shard, back):
                return
            await asyncio.sleep(RESUBMIT_S)
        log.warning("the end of a question found no place in its book", shard=asked.shard)
        self._end(item, IN_DOUBT)

    def _end(self, item: Item, outcome: Outcome | None) -> None:
        # None: nothing was written, and the leg is still open. A 96 would be taken for a decline.
        told = IN_DOUBT if outcome is None else outcome
        for done in self._asking.pop((item.key, item.digest), ()):
            done(told)

    @property
    def depth(self) -> int:
        """Questions on their way."""
        return len(self._asking)

    # ------------------------------------------------------------------ what is booked under a key

    async def find_key(
        self, connect: Connect, terminal_no: int, envelope: Envelope, since: date | None
    ) -> list[tuple[int, str]]:
        """Class and card of what is booked under a request's key, in whatever shard."""
        async with connect() as connection:
            cursor = await connection.execute(
                SQL["find_anywhere"],
                {
                    "shards": list(self._shards),
                    "terminal_no": terminal_no,
                    "batch_no": envelope.batch_no,
                    "stan": envelope.stan,
                    "since": since,
                },
            )
            return [(rclass, pan or "") for rclass, pan in await cursor.fetchall()]

    # ------------------------------------------------------------------ abandoned legs

    async def end_abandoned(self, connection: AsyncConnection[Any], shard: int) -> int:
        """End legs of a shard that nobody has ended in time, as unknown; how many were found."""
        cursor = await connection.execute(SQL["find_abandoned"], {"shard": shard, "limit": ENDS_MAX})
        rows = await cursor.fetchall()
        for _, _leg_no, day, terminal_no, batch_no, stan, merchant_no, kind, pan, amount_fen in rows:
            ending = LegEnd(CardNumber(pan), AccountKind(kind), Fen(amount_fen), None)
            item = Item(
                Key(terminal_no, batch_no, stan, FINANCIAL),
                merchant_no,
                b"",
                ANYBODY,
                day,
                ending,
                0,
                None,
                False,
                lambda _ending, _outcome: None,
            )
            if not self._books.submit(shard, item):
                break
        return len(rows)

    async def keep_ending(self, connect: Connect, every_s: float = ENDING_EVERY_S) -> None:
        """End abandoned legs until cancelled. A failure is logged and the next round tries again."""
        while True:
            try:
                async with connect() as connection:
                    for shard in self._shards:
                        if found := await self.end_abandoned(connection, shard):
                            log.warning("abandoned questions are ended as unknown", shard=shard, legs=found)
            except psycopg.Error as error:
                log.warning("sweep of legs postponed", error=type(error).__name__)
            await asyncio.sleep(every_s)


def means_bank_account(request: Any) -> bool:
    """Whether a request is to be paid by the bank card that is bound to a card; what names an original goes where that went."""
    if isinstance(request, Load):
        return request.source is LoadSource.BOUND_BANK
    return isinstance(request, Purchase | Balance | PreAuthorisation) and request.account == AccountKind.BANK


def by_other_bank(request: Any) -> bool:
    """Whether field 2 is the card of a bank that pays a load: the request is about a purse, and which one is not said there."""
    if isinstance(request, Load | LoadConfirm):
        return request.source is LoadSource.OTHER_BANK and request.purse is not None
    return (
        isinstance(request, Reversal)
        and request.of == Kind.LOAD
        and request.processing_code.startswith(OTHER_BANK_CODE)
    )


def _owes(destination: Destination, account: AccountKind, institution: int) -> tuple[Code, int]:
    """Who owes us what is approved there: the city, the fund, or the bank."""
    if destination.way is Way.CITY or account not in (AccountKind.MEDICAL, AccountKind.BANK):
        return Code.INTEROP_RECEIVABLE, institution
    if account == AccountKind.MEDICAL:
        return Code.FUND_RECEIVABLE, 0
    return Code.BANKS_RECEIVABLE, institution


def _question(asked: Asked, item: Item, entry: TerminalEntry) -> HostRequest:
    request: Any = item.request
    ask = item.ask
    assert ask is not None
    # Of a bound card only the number is known. What else the terminal read is another card's, and no concern of its bank.
    bound = means_bank_account(request) and ask.number != request.card
    return HostRequest(
        step=HostStep.FINANCIAL,
        service=ask.service,
        key=asked.key,
        at=asked.at,
        card=ask.number,
        account=getattr(request, "account", AccountKind.BANK),
        amount_fen=getattr(request, "amount_fen", None),
        terminal_id=entry.terminal_id,
        merchant_id=entry.merchant_id,
        reference=asked.rrn,
        entry_mode=request.entry_mode,
        merchant_type=entry.category,
        expiry="" if bound else getattr(request, "expiry", ""),
        card_sequence="" if bound else getattr(request, "card_sequence", ""),
        track2="" if bound or getattr(request, "tracks_encrypted", False) else getattr(request, "track2", ""),
        business_date=asked.business_date,
    )
