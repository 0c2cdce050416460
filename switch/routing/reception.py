"""One request from its first byte to its answer, in the order that docs/iso8583.md promises.

    fields readable (30) > merchant and terminal known (03, 97) > keys present (77) > MAC (A0) > then by kind:
    a card request to its holder's book, a batch message to the batches, network management to sessions

Nothing waits on the usual way: terminal, keys and card route are at hand, the request is queued in a book, and the book calls
back when it is committed. Only a miss (first message after a start, a changed terminal, an unknown card) makes a task, and of
those there is a bounded number.

This room refuses to know sockets and tables: a Peer takes the answer, books and batches take the request.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import structlog
from psycopg import Error

from switch.domain.decisions import Decline, Outcome
from switch.domain.errors import DependencyError, FormatError, FramingError, MacMismatch
from switch.domain.hosts import PinUnder
from switch.domain.identifiers import CardNumber, luhn_holds
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    Balance,
    BatchEnd,
    CardRequest,
    DetailUpload,
    HotListDownload,
    Load,
    LoadSource,
    OfflineUpload,
    ParameterDownload,
    PinEntry,
    PinFormat,
    PreAuthorisation,
    Purchase,
    Refused,
    Request,
    Reversal,
    Settlement,
)
from switch.keys.pin_blocks import PinBlockError
from switch.keys.vault import TerminalKeys, Vault
from switch.ledger.items import IN_DOUBT, IN_FLIGHT, REVERSAL, Item, Key
from switch.ledger.leg_state import HostAsk
from switch.ledger.legs import Asked
from switch.messages.answers import DE39, Code, Processing
from switch.messages.codec import MessageFormatError, decode
from switch.messages.digest import content_digest
from switch.messages.envelope import read_envelope
from switch.messages.mapping import read_request
from switch.messages.message import Message
from switch.registry.bindings import Binding, BindingDirectory
from switch.registry.cards import CardDirectory, CardRoute
from switch.registry.list_keeping import LastSeen
from switch.registry.sessions import promote
from switch.registry.terminals import KeySet, TerminalDirectory, TerminalEntry
from switch.routing.answering import Answers, Connect, Peer, Visit, Watch
from switch.routing.batches import BatchDesk
from switch.routing.card_proofs import loading_of
from switch.routing.destinations import RouteTable
from switch.routing.downloads import DownloadDesk
from switch.routing.host_desk import HostDesk, by_other_bank, means_bank_account
from switch.routing.management import Management
from switch.routing.routes import Routes

log = structlog.get_logger(__name__)

FETCHED_IN_TRAINING = (ParameterDownload, HotListDownload)  # a trainee's terminal works by them too
SLOW_S = 20.0  # a look-up or a session may take so long; then the request is answered 96


class OtherSenderError(FramingError):
    """A line that belongs to one terminal brought a frame of another."""


class Books(Protocol):
    """The ledger, as far as a request needs it."""

    def submit(self, shard: int, item: Item) -> bool:
        """Queue for a shard; False when its queue is full."""

    def shard_of_terminal(self, terminal_no: int) -> int:
        """The shard of messages that have no card holder."""


class Reception:
    """Receives requests of all terminals of this process, whatever line they come by.

    acquirer: digits of field 32. slow_max: requests that may wait for a look-up or a session at the same time.
    log_answers: one line for each answer, with its story.
    """

    def __init__(
        self,
        *,
        vault: Vault,
        terminals: TerminalDirectory,
        cards: CardDirectory,
        routes: Routes,
        books: Books,
        desk: BatchDesk,
        hosts: HostDesk,
        bindings: BindingDirectory,
        connect: Connect,
        watch: Watch,
        acquirer: str,
        slow_max: int = 2_000,
        log_answers: bool = False,
        seen: LastSeen | None = None,
    ) -> None:
        """seen: is told of every terminal that is heard."""
        self._seen = seen or LastSeen()
        self._vault = vault
        self._terminals = terminals
        self._cards = cards
        self._routes = routes
        self._books = books
        self._desk = desk
        self._hosts = hosts
        self._bindings = bindings
        self._connect = connect
        self._watch = watch
        self._slow_max = slow_max
        self._slow: set[asyncio.Task[None]] = set()
        self._promotions: dict[tuple[int, int], asyncio.Task[TerminalEntry | None]] = {}
        downloads = DownloadDesk(connect, terminals)
        self._answers = Answers(connect, desk, downloads, watch, acquirer=acquirer, log_answers=log_answers)
        self._management = Management(connect, vault, terminals, downloads, self._answers, self._later)

    async def start(self) -> None:
        """Fetch the first block of serials."""
        await self._answers.refill()

    async def close(self) -> None:
        """Wait for the tasks that are on their way; call when nothing more comes in."""
        if self._slow:
            await asyncio.wait(self._slow, timeout=SLOW_S)

    # ------------------------------------------------------------------ the way in

    def receive(self, body: bytes, peer: Peer, *, sender: str = "") -> None:
        """Take one frame body; the peer gets exactly one answer, now or later.

        sender: field 41 must name it, where the line knows who speaks.
        Raises FramingError (UnsupportedMti, OtherSenderError among them) when it cannot be answered at all: close the connection.
        """
        try:
            message = decode(body)
        except MessageFormatError as error:
            if sender and read_envelope(error.readable).terminal_id != sender:
                raise OtherSenderError("field 41 is not the sender's") from None
            self._unreadable(error, peer)
            return
        envelope = read_envelope(message)
        if sender and envelope.terminal_id != sender:
            raise OtherSenderError("field 41 is not the sender's")
        visit = Visit(peer, message, envelope)
        try:
            entry = self._terminals.get(envelope.terminal_id)
            if entry is None:
                self._later(visit, self._look_up(visit))
            else:
                visit.entry = entry
                self._admit(visit)
        except FramingError:
            raise
        except Exception:  # our own fault, and no reason to end the connection
            log.exception("request failed", terminal=envelope.terminal_id)
            self._answers.fail(visit)

    def _admit(self, visit: Visit) -> None:
        envelope, entry = visit.envelope, visit.entry
        if not entry.serves(envelope.merchant_id):
            self._later(visit, self._turn_away(visit))
            return
        if not envelope.mac_required:
            visit.message.fields.pop(64, None)  # not asked for, not checked: so not answered with one either
            self._management.manage(visit)
            return
        # Without keys too: another process may have drawn some a moment ago.
        if not self._authenticate(visit, entry.usable_keys(time.time())):
            self._later(visit, self._authenticate_again(visit))
            return
        self._authenticated(visit)

    def _authenticate(self, visit: Visit, usable: tuple[KeySet, ...]) -> bool:
        message = visit.message
        field64 = message.field64
        if not field64:
            return False
        mab = message.mab
        for key_set in usable:
            try:
                key_set.keys.verify(mab, field64)
            except MacMismatch:
                continue
            visit.keys = key_set
            return True
        return False

    def _authenticated(self, visit: Visit) -> None:
        assert visit.keys is not None
        if visit.keys.generation != visit.entry.generation:
            self._later(visit, self._promote(visit))
        else:
            self._proceed(visit)

    def _proceed(self, visit: Visit) -> None:
        """The MAC was good under keys that serve. Training is answered here, before anything could be booked."""
        message, envelope = visit.message, visit.envelope
        try:
            content: Request = read_request(message)
        except FormatError as error:
            log.info("request refused", terminal=envelope.terminal_id, rule=str(error))
            content = Refused(_card_named(message), Fen(0), Code.FORMAT, error.rule)
        visit.content = content
        self._seen.heard(visit.entry.terminal_no, visit.started_s)
        if envelope.training and not isinstance(content, FETCHED_IN_TRAINING):
            self._answers.reply(visit, self._answers.training(content))
        elif envelope.request_class is None:
            self._management.manage(visit)
        elif envelope.stan is None or envelope.batch_no is None:
            self._answers.bare(
                visit, Code.FORMAT
            )  # without them the message has no key under which an answer could be kept
        elif isinstance(content, OfflineUpload | Settlement | DetailUpload | BatchEnd):
            self._with_since(visit, self._to_desk)
        else:
            self._with_since(visit, self._to_book)

    def _with_since(self, visit: Visit, go: Callable[[Visit, Any], None]) -> None:
        """Find the day from which on this key can have been booked."""
        entry = visit.entry
        batch_no = visit.envelope.batch_no
        if batch_no == entry.batch_no:
            go(visit, entry.batch_opened_on)
        else:
            self._later(visit, self._old_batch(visit, go))

    # ------------------------------------------------------------------ to the ledger

    def _to_book(self, visit: Visit, since: Any) -> None:
        request = visit.content
        assert request is not None
        card: CardNumber | None = getattr(request, "card", None)
        if by_other_bank(request):
            self._later(visit, self._find_purse(visit, since))
            return
        if card is None:
            shard = self._books.shard_of_terminal(visit.entry.terminal_no)
            self._enqueue(visit, since, shard, 0)
            return
        route = self._cards.get(card)
        if route is None:
            self._later(visit, self._find_card(visit, since, card))
        elif self._routes.may_move_own or means_bank_account(request):
            self._route(visit, since, route)
        else:
            self._enqueue(visit, since, route.shard, route.holder_id)

    def _route(self, visit: Visit, since: Any, card: CardRoute) -> None:
        """A card of ours, by the table in force at this moment, which may have to be read."""
        table = self._routes.table
        binding = self._bindings.get(card) if means_bank_account(visit.content) else None
        if table is None or (binding is None and means_bank_account(visit.content)):
            self._later(visit, self._read_way(visit, since, card))
        else:
            self._send_on(visit, since, card, table, binding)

    async def _read_way(self, visit: Visit, since: Any, card: CardRoute) -> None:
        binding = await self._bindings.load(card) if means_bank_account(visit.content) else None
        self._send_on(visit, since, card, await self._routes.current(), binding)

    def _send_on(
        self,
        visit: Visit,
        since: Any,
        card: CardRoute | None,
        table: RouteTable,
        binding: Binding | None = None,
    ) -> None:
        """To the ledger: to be booked, or to be refused there, so that a repeat finds the same answer."""
        request: CardRequest = visit.content  # type: ignore[assignment]  # _proceed sorted the others out
        bank = binding.institution_id if binding is not None else ""
        way = self._routes.route(table, request, visit.entry, own=card is not None, bank=bank)
        ask: HostAsk | Decline | None = None
        if isinstance(way, Decline):
            ask = way
        elif way.linked:
            ask = self._hosts.plan(way, request, visit.entry, binding)
        elif means_bank_account(request) and card is not None and getattr(request, "amount_fen", True):
            ask = Decline.ACCOUNT_NOT_PERMITTED  # no bank card is bound to it, and no row knows another way
        if isinstance(ask, Decline):
            amount_fen = getattr(request, "amount_fen", Fen(0))
            visit.content = Refused(request.card, amount_fen, DE39[ask], ask.value)
            ask = None
        if card is None:
            self._enqueue(visit, since, self._books.shard_of_terminal(visit.entry.terminal_no), 0, ask)
        else:
            self._enqueue(visit, since, card.shard, card.holder_id, ask)

    async def _find_purse(self, visit: Visit, since: Any) -> None:
        """A load from another bank's card: field 2 is that bank's, and whose purse it is says the chip, or the load that is named.

        From here on the request is about the citizen card; the bank's number goes to the bank and stays nowhere else.
        """
        request: Any = visit.content
        found = await self._hosts.find_key(self._connect, visit.entry.terminal_no, visit.envelope, since)
        purse = request.purse
        asn = purse.asn if purse is not None else ""
        kept = next((pan for rclass, pan in found if rclass != REVERSAL and pan), "")
        # What names a load is about that load's purse; should the chip be another's, the ledger sees the contradiction.
        pan = (asn[1:] or kept) if isinstance(request, Load) else (kept or asn[1:])
        card = CardNumber(pan) if pan else None
        route = (await self._cards.load([card]))[card] if card is not None else None
        ask: HostAsk | Decline | None = None
        if isinstance(request, Load):
            if any(rclass == REVERSAL for rclass, _ in found):  # its tombstone may lie in another shard
                ask = Decline.TOMBSTONED
            elif (request.amount_fen and not luhn_holds(request.card.reveal())) or route is None:
                ask = Decline.CARD_UNKNOWN
            else:
                table = await self._routes.current()
                way = self._routes.route(table, request, visit.entry, own=False)
                if isinstance(way, Decline):
                    ask = way
                elif way.linked:
                    ask = self._hosts.plan(way, request, visit.entry)
        if isinstance(ask, Decline):
            visit.content = Refused(card, request.amount_fen, DE39[ask], ask.value)
            ask = None
        elif card is not None:
            visit.content = request._replace(card=card)
        elif (
            isinstance(request, Reversal) and not found
        ):  # the bank's number is nobody's here, and does not stay
            visit.content = Refused(None, request.amount_fen, DE39[Decline.ORIGINAL_UNKNOWN], "load unknown")
        if route is None:
            self._enqueue(visit, since, self._books.shard_of_terminal(visit.entry.terminal_no), 0)
        else:
            self._enqueue(visit, since, route.shard, route.holder_id, ask)

    def _enqueue(
        self, visit: Visit, since: Any, shard: int, holder_id: int, ask: HostAsk | None = None
    ) -> None:
        envelope, entry, keys = visit.envelope, visit.entry, visit.keys
        request: CardRequest = visit.content  # type: ignore[assignment]  # _proceed sorted the others out
        assert keys is not None
        assert envelope.stan is not None
        assert envelope.batch_no is not None
        assert envelope.request_class is not None
        pin, unreadable = (None, False) if ask is not None else self._pin(request, keys.keys, holder_id)
        item = Item(
            Key(entry.terminal_no, envelope.batch_no, envelope.stan, int(envelope.request_class)),
            entry.merchant_no,
            content_digest(visit.message),
            keys.generation,
            since,
            request,
            holder_id,
            pin,
            unreadable,
            partial(self._decided, visit),
            ask,
            None if type(request) is Purchase else loading_of(self._vault, request, entry),
        )
        if not self._books.submit(shard, item):
            self._answers.bare(visit, Code.MALFUNCTION)

    def _pin(self, request: CardRequest, keys: TerminalKeys, holder_id: int) -> tuple[bytes | None, bool]:
        if isinstance(request, Load):
            if request.source is not LoadSource.ONLINE:
                return None, False  # cash has no PIN
            account = AccountKind.ONLINE
        elif isinstance(request, Purchase | Balance | PreAuthorisation):
            account = request.account
        else:
            return None, False
        if request.pin is None or not holder_id:
            return None, False
        account_id = holder_id * 100 + int(account)
        try:
            return (
                self._vault.pin_verifier(
                    keys, request.pin.block, request.pin.format, request.card, account_id
                ),
                False,
            )
        except PinBlockError:
            return None, True

    def _decided(self, visit: Visit, item: Item, outcome: Outcome | Asked | None) -> None:
        """What the book says of a card request: mostly the answer, or that its host is to be asked."""
        if isinstance(outcome, Asked):
            request, keys = visit.content, visit.keys
            entry = getattr(request, "pin", None)
            under = None
            if entry is not None:
                assert keys is not None
                card = CardNumber(str(visit.message.fields[2]))  # with which the terminal made the block
                under = _translation(self._vault, keys.keys, entry, card, item)
            self._hosts.ask(
                outcome, item, visit.entry, under, visit.started_s, lambda told: self._booked(visit, told)
            )
        elif outcome is IN_FLIGHT:
            self._hosts.join(item, lambda told: self._booked(visit, told))
        else:
            self._booked(visit, outcome)

    def _booked(self, visit: Visit, outcome: Outcome | None) -> None:
        try:
            if outcome is None:
                self._answers.bare(visit, Code.MALFUNCTION)
            elif outcome is IN_DOUBT:
                self._answers.leave_unanswered(visit)
            elif outcome.answer == Code.MAC_WRONG:
                self._answers.bare(visit, Code.MAC_WRONG, processing=Processing.SIGN_ON)
            else:
                self._answers.reply(visit, outcome)
        except Exception:  # booked, but not to be told: silence, and the terminal asks again or reverses
            log.exception("answer cannot be made", terminal=visit.envelope.terminal_id)
            self._answers.leave_unanswered(visit)

    def _to_desk(self, visit: Visit, since: Any) -> None:
        envelope, keys = visit.envelope, visit.keys
        assert keys is not None
        assert envelope.stan is not None
        assert envelope.batch_no is not None
        taken = self._desk.submit(
            visit.entry,
            Key(visit.entry.terminal_no, envelope.batch_no, envelope.stan, int(envelope.request_class or 0)),
            content_digest(visit.message),
            keys.generation,
            since,
            visit.content,  # type: ignore[arg-type]  # _proceed sorted the others out
            lambda outcome: self._booked(visit, outcome),
        )
        if not taken:
            self._answers.bare(visit, Code.MALFUNCTION)

    def _unreadable(self, error: MessageFormatError, peer: Peer) -> None:
        """Fields that cannot be read: 30, with a MAC when the sender is known and has keys."""
        message = error.readable
        visit = Visit(peer, message, read_envelope(message))
        log.info("frame refused", terminal=visit.envelope.terminal_id, rule=str(error))
        entry = self._terminals.get(visit.envelope.terminal_id)
        if entry is None:
            self._later(visit, self._unreadable_of_stranger(visit))
            return
        visit.entry = entry
        self._answers.bare(visit, Code.FORMAT)

    async def _unreadable_of_stranger(self, visit: Visit) -> None:
        entry = await self._terminals.load(visit.envelope.terminal_id)
        if isinstance(entry, TerminalEntry):
            visit.entry = entry
        self._answers.bare(visit, Code.FORMAT)

    # ------------------------------------------------------------------ what must wait

    def _later(self, visit: Visit, work: Coroutine[Any, Any, None]) -> bool:
        """Do it in a task of its own; False when there are too many, and then the request is answered."""
        if len(self._slow) >= self._slow_max:
            work.close()
            self._answers.bare(visit, Code.MALFUNCTION)
            return False
        task = asyncio.get_running_loop().create_task(self._surely(visit, work))
        self._slow.add(task)
        task.add_done_callback(self._slow.discard)
        return True

    async def _surely(self, visit: Visit, work: Coroutine[Any, Any, None]) -> None:
        """Whatever happens, the peer is answered."""
        try:
            async with asyncio.timeout(SLOW_S):
                await work
        except (DependencyError, Error, TimeoutError) as error:
            log.warning("look-up failed", terminal=visit.envelope.terminal_id, error=type(error).__name__)
            self._answers.fail(visit)
        except Exception:  # our own fault
            log.exception("request failed", terminal=visit.envelope.terminal_id)
            self._answers.fail(visit)

    async def _look_up(self, visit: Visit) -> None:
        entry = await self._terminals.load(visit.envelope.terminal_id)
        if isinstance(entry, TerminalEntry):
            visit.entry = entry
            self._admit(visit)
        else:
            self._answers.bare(visit, await self._terminals.refusal(entry, visit.envelope.merchant_id))

    async def _turn_away(self, visit: Visit) -> None:
        entry = await self._terminals.reload(visit.envelope.terminal_id)
        answer = await self._terminals.refusal(entry, visit.envelope.merchant_id)
        if not answer and isinstance(entry, TerminalEntry):
            visit.entry = entry
            self._admit(visit)
        else:
            self._answers.bare(visit, answer or Code.TERMINAL_UNKNOWN)

    async def _authenticate_again(self, visit: Visit) -> None:
        """The keys at hand did not fit: look once whether the database has newer ones."""
        entry = await self._terminals.reload(visit.envelope.terminal_id)
        if isinstance(entry, TerminalEntry):
            visit.entry = entry
            usable = entry.usable_keys(time.time())
            if not usable:
                self._answers.bare(visit, Code.SIGN_ON_AGAIN, processing=Processing.SIGN_ON)
                return
            if self._authenticate(visit, usable):
                self._authenticated(visit)
                return
        self._watch.mac_failed()
        log.info("MAC wrong", terminal=visit.envelope.terminal_id)
        self._answers.bare(visit, Code.MAC_WRONG, processing=Processing.SIGN_ON)

    async def _promote(self, visit: Visit) -> None:
        """The first good MAC under new keys: put them in force, once for all requests that bring it."""
        assert visit.keys is not None
        name = (visit.entry.terminal_no, visit.keys.generation)
        task = self._promotions.get(name)
        if task is None:
            task = asyncio.get_running_loop().create_task(
                self._promote_once(visit.envelope.terminal_id, *name)
            )
            self._promotions[name] = task
            task.add_done_callback(lambda _task: self._promotions.pop(name, None))
        entry = await asyncio.shield(task)
        if entry is None:
            self._answers.bare(visit, Code.MAC_WRONG, processing=Processing.SIGN_ON)
            return
        visit.entry = entry
        self._proceed(visit)

    async def _promote_once(
        self, terminal_id: str, terminal_no: int, generation: int
    ) -> TerminalEntry | None:
        async with self._connect() as connection:
            serves = await promote(connection, terminal_no, generation)
        entry = await self._terminals.reload(terminal_id)
        return entry if serves and isinstance(entry, TerminalEntry) else None

    async def _old_batch(self, visit: Visit, go: Callable[[Visit, Any], None]) -> None:
        batch_no = visit.envelope.batch_no
        assert batch_no is not None
        go(visit, await self._terminals.batch_opened_on(visit.entry.terminal_no, batch_no))

    async def _find_card(self, visit: Visit, since: Any, card: CardNumber) -> None:
        route = (await self._cards.load([card]))[card]
        if route is None:
            self._send_on(visit, since, None, await self._routes.current())
        elif self._routes.may_move_own or means_bank_account(visit.content):
            await self._read_way(visit, since, route)
        else:
            self._enqueue(visit, since, route.shard, route.holder_id)


def _translation(vault: Vault, keys: TerminalKeys, pin: PinEntry, card: CardNumber, item: Item) -> PinUnder:
    """Makes the PIN block anew under the key that the host's link names; the PIN stays in the vault."""
    assert item.ask is not None
    number = item.ask.number

    def under(zpk_name: str, zone_format: PinFormat) -> bytes:
        return vault.translate_pin(keys, pin.block, pin.format, card, zpk_name, zone_format, zone_card=number)

    return under


def _card_named(message: Message) -> CardNumber | None:
    """Field 2 where it is a card number: a malformed message meets its original in the shard of the card."""
    try:
        return CardNumber(str(message.fields[2]))
    except (KeyError, ValueError):
        return None


assert set(DE39.values()) >= {Code.FORMAT, Code.SIGN_ON_AGAIN, Code.MALFUNCTION}
