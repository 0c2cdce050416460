"""Where a request goes: an ordered table, compiled so that a look-up takes microseconds. No I/O, no clock, no state.

The first row that matches decides, by precedence. Behind the last row stand four rules that are built in:

    a bank card bound to one of ours   the hosts of its bank
    a card of ours                     own ledger
    a card of another known issuer     the link of its city
    any other card                     refused, 15

A row says what must be so of the card (leading digits, issuer, circle of the issuer), the account, the kind of transaction, the
merchant or its category, the amount and the time; what it does not say may be anything. It names destinations in order: the
first that this switch has is taken. What a table may not say is in route_check.py, how operators write it in route_format.py.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from typing import Final, NamedTuple

from switch.domain.calendar import SHANGHAI
from switch.domain.circles import Circle
from switch.domain.decisions import Decline
from switch.domain.transactions import AccountKind
from switch.registry.issuers import Issuer, Participants

DIGITS: Final = 12  # of a card number that rows may look at: no row names a single card
NUMBERS: Final = 10**DIGITS
CANDIDATES_MAX: Final = 100  # rows that a look-up may have to try, for each of four indexes


class Way(Enum):
    """Kinds of destination, as a file writes them."""

    LEDGER = "LEDGER"
    HOST = "HOST"
    CITY = "CITY"
    REFUSE = "REFUSE"


LEDGERS_OWN: Final = frozenset(
    {int(AccountKind.ONLINE), int(AccountKind.PURSE)}
)  # of our cards: money that only we have
_ACCOUNTS: Final = frozenset(map(int, AccountKind))
REFUSALS: Final = {
    "15": Decline.ISSUER_UNKNOWN,
    "57": Decline.ACCOUNT_NOT_PERMITTED,
    "92": Decline.NO_ROUTE,
}


class Destination(NamedTuple):
    """name: of a host, institution id of a city, code of a refusal; empty for the ledger."""

    way: Way
    name: str = ""

    @property
    def linked(self) -> bool:
        """Whether it lies behind a link."""
        return self.way is Way.HOST or self.way is Way.CITY

    def __str__(self) -> str:
        return f"{self.way.value}:{self.name}" if self.name else self.way.value


LEDGER: Final = Destination(Way.LEDGER)
UNKNOWN_ISSUER: Final = Destination(Way.REFUSE, "15")


class Row(NamedTuple):
    """One row. Empty and None: may be anything. Intervals are inclusive but the hours', whose end is exclusive."""

    precedence: int
    to: tuple[Destination, ...]
    cards: tuple[tuple[int, int], ...] = ()  # of the first DIGITS digits, in order and apart
    issuer: str = ""
    circles: frozenset[Circle] = frozenset()
    accounts: frozenset[int] = frozenset()
    kinds: frozenset[int] = frozenset()
    merchant: str = ""
    category: tuple[int, int] | None = None
    amount_fen: tuple[int, int] | None = None
    minutes: tuple[int, int] | None = None  # of the day in Shanghai; begin after end: over midnight
    valid_from: date | None = None
    valid_to: date | None = None
    cells: tuple[str, ...] = ()  # as the file has it

    @property
    def timed(self) -> bool:
        """Whether the time of a request matters."""
        return self.minutes is not None or self.valid_from is not None or self.valid_to is not None

    @property
    def about_cards(self) -> bool:
        """Whether it asks for the card at all."""
        return bool(self.cards or self.issuer or self.circles)


class Ask(NamedTuple):
    """What is known of a request. number: first DIGITS digits of the card. own: we have this card.

    bound: hosts of the bank whose card is bound to it and is to pay; None where no bound card is meant.
    """

    number: int
    own: bool
    account: int
    kind: int
    merchant_id: str
    category: str
    acquirer_id: str
    amount_fen: int
    at: datetime
    bound: tuple[Destination, ...] | None = None


class Decision(NamedTuple):
    """row: None for what is built in. to: in order of preference. refusal: the scopes of issuer or acquirer forbid it."""

    row: Row | None
    issuer: Issuer | None
    to: tuple[Destination, ...]
    refusal: Decline | None = None

    def choose(self, has: Callable[[Destination], bool]) -> Destination | Decline:
        """The first destination that there is; `has` is asked about those behind a link. No such one: 92."""
        if self.refusal is not None:
            return self.refusal
        for destination in self.to:
            if destination.way is Way.LEDGER or (destination.linked and has(destination)):
                return destination
            if destination.way is Way.REFUSE:
                return REFUSALS[destination.name]
        return Decline.NO_ROUTE


class Tried(NamedTuple):
    """A row that was tried, and why it did not match; empty when it decided."""

    row: Row
    miss: str


class RouteTable:
    """Rows compiled against the issuers of one moment. Immutable: who holds one decides by it to the end.

    version: 0 when only what is built in is in force. own_accounts: see _own_accounts. Raises TooManyCandidates, if bounded: a table that was
    checked once must serve on, if more slowly, whatever the registry has become.
    """

    def __init__(
        self, rows: Sequence[Row], participants: Participants, *, version: int = 0, bounded: bool = True
    ) -> None:
        self.version = version
        self.rows = tuple(sorted(rows, key=lambda row: row.precedence))
        self.participants = participants
        self._timed = any(row.timed for row in self.rows)
        self._cut()
        self._index(bounded=bounded)
        self.own_accounts = self._own_accounts()

    # ------------------------------------------------------------------ compiling

    def _cut(self) -> None:
        """Cut the range of numbers wherever an issuer or a row begins or ends; within a segment all cards are alike."""
        owned: list[tuple[int, int, Issuer]] = []
        for issuer in self.participants.issuers:
            owned += [(*interval_of(digits), issuer) for digits in issuer.bins]
        ends = {0}
        for low, high in [one[:2] for one in owned] + [pair for row in self.rows for pair in row.cards]:
            ends |= {low, high + 1}
        ends.discard(NUMBERS)
        self.starts = sorted(ends)
        self.issuers: list[Issuer | None] = [None] * len(self.starts)
        # Wide ones first, so that longer digits overwrite them; of equally long ones the given, then the own, come last.
        owned.sort(key=lambda one: (one[0] - one[1], one[2].given, one[2].own))
        for low, high, issuer in owned:
            for segment in self._segments(low, high):
                self.issuers[segment] = issuer
        self._held: dict[str, list[int]] = {}
        self._near: dict[Circle, list[int]] = {}
        for segment, holder in enumerate(self.issuers):
            if holder is not None:
                self._held.setdefault(holder.issuer_id, []).append(segment)
                self._near.setdefault(holder.circle, []).append(segment)

    def _segments(self, low: int, high: int) -> range:
        return range(bisect_left(self.starts, low), bisect_right(self.starts, high))

    def segments_of(self, row: Row) -> Iterator[int]:
        """The segments whose cards a row that is about cards can match."""
        if row.cards:
            for low, high in row.cards:
                within = self._segments(low, high)
                if row.issuer or row.circles:
                    yield from (n for n in within if not _card_miss(row, self.starts[n], self.issuers[n]))
                else:
                    yield from within
            return
        held = self._held.get(row.issuer, []) if row.issuer else None
        if held is None:
            held = [segment for circle in row.circles for segment in self._near.get(circle, [])]
        for segment in held:
            if not _card_miss(row, self.starts[segment], self.issuers[segment]):
                yield segment

    def _index(self, *, bounded: bool) -> None:
        """Each row into one index: merchant, else cards, else category, else the rest."""
        by_merchant: dict[str, list[Row]] = {}
        by_segment: list[list[Row]] = [[] for _ in self.starts]
        by_category: dict[str, list[Row]] = {}
        general: list[Row] = []
        for row in self.rows:
            if row.merchant:
                places = [by_merchant.setdefault(row.merchant, [])]
            elif row.about_cards:
                places = [by_segment[segment] for segment in self.segments_of(row)]
            elif row.category is not None and row.category[0] == row.category[1]:
                places = [by_category.setdefault(f"{row.category[0]:04d}", [])]
            else:
                places = [general]
            for place in places:
                place.append(row)
                if bounded and len(place) > CANDIDATES_MAX:
                    raise TooManyCandidates(row.precedence)
        nothing: tuple[Row, ...] = ()
        self._by_merchant: Mapping[str, tuple[Row, ...]] = {k: tuple(v) for k, v in by_merchant.items()}
        self._by_segment = [tuple(rows) if rows else nothing for rows in by_segment]
        self._by_category: Mapping[str, tuple[Row, ...]] = {k: tuple(v) for k, v in by_category.items()}
        self._general = tuple(general)

    def _own_accounts(self) -> frozenset[int]:
        """Accounts with which a card of ours may be sent elsewhere than to the ledger; for the others nobody need ask."""
        found: set[int] = set()
        for row in self.rows:
            if row.to[0].way is not Way.LEDGER and (
                not row.about_cards or any(_is_own(self.issuers[place]) for place in self.segments_of(row))
            ):
                found |= row.accounts or _ACCOUNTS
        return frozenset(found)

    # ------------------------------------------------------------------ looking up

    def decide(self, ask: Ask) -> Decision:
        """The first row that matches, or what is built in."""
        segment = bisect_right(self.starts, ask.number) - 1
        issuer = self.issuers[segment]
        local = ask.at.astimezone(SHANGHAI) if self._timed else None
        best: Row | None = None
        for rows in (
            self._by_segment[segment],
            self._by_merchant.get(ask.merchant_id, ()),
            self._by_category.get(ask.category, ()),
            self._general,
        ):
            for row in rows:
                if best is not None and row.precedence > best.precedence:
                    break
                if not _miss(row, ask, issuer, local):
                    best = row
                    break
        return self._decided(best, ask, issuer)

    def explain(self, ask: Ask) -> tuple[Decision, list[Tried]]:
        """The same by trying row after row, with the reason of each that did not match."""
        issuer = self.issuers[bisect_right(self.starts, ask.number) - 1]
        local = ask.at.astimezone(SHANGHAI)
        tried: list[Tried] = []
        for row in self.rows:
            tried.append(Tried(row, _miss(row, ask, issuer, local)))
            if not tried[-1].miss:
                return self._decided(row, ask, issuer), tried
        return self._decided(None, ask, issuer), tried

    def _decided(self, row: Row | None, ask: Ask, issuer: Issuer | None) -> Decision:
        if row is not None:
            to = row.to
            if to[0].linked and ask.account in LEDGERS_OWN and (ask.own or _is_own(issuer)):
                to = (LEDGER,)  # the check keeps such rows out, but digits can become ours after it
        elif ask.own and ask.bound is not None:
            to = ask.bound
        elif ask.own or _is_own(issuer):
            to = (LEDGER,)
        elif issuer is None:
            to = (UNKNOWN_ISSUER,)
        else:
            to = (Destination(Way.CITY, issuer.institution_id),)
        refusal = None
        if not ask.own and to[0].linked and issuer is not None:
            refusal = self._out_of_scope(issuer, ask.acquirer_id)
        return Decision(row, issuer, to, refusal)

    def _out_of_scope(self, issuer: Issuer, acquirer_id: str) -> Decline | None:
        """The circle that holds both must be within the scope of the issuer's cards and of the acquirer."""
        if issuer.scope < issuer.circle:
            return Decline.CARD_OUT_OF_SCOPE
        if acquirer_id and self.participants.scopes.get(acquirer_id, Circle.LOCAL) < issuer.circle:
            return Decline.ACQUIRER_OUT_OF_SCOPE
        return None


class TooManyCandidates(ValueError):
    """A look-up would have to try more rows than CANDIDATES_MAX. precedence: the row that was one too many."""

    def __init__(self, precedence: int) -> None:
        self.precedence = precedence
        super().__init__(f"row {precedence}: more than {CANDIDATES_MAX} rows for the same cards or merchant")


def number_of(digits: str) -> int:
    """What rows look at of a card number of 13 to 19 digits."""
    return int(digits[:DIGITS])


def interval_of(low: str, high: str = "") -> tuple[int, int]:
    """The numbers that begin with these digits, or with any from low to high, which are equally long."""
    return int(low.ljust(DIGITS, "0")), int((high or low).ljust(DIGITS, "9"))


def _is_own(issuer: Issuer | None) -> bool:
    return issuer is not None and issuer.own


def _card_miss(row: Row, number: int, issuer: Issuer | None) -> str:
    if row.cards and not any(low <= number <= high for low, high in row.cards):
        return "the card number begins otherwise"
    if row.issuer and (issuer is None or issuer.issuer_id != row.issuer):
        return "the card has another issuer"
    if row.circles and (issuer is None or issuer.circle not in row.circles):
        return "the issuer lies in another circle"
    return ""


def _miss(row: Row, ask: Ask, issuer: Issuer | None, local: datetime | None) -> str:
    """Why a row does not match; empty when it does. local: may be None when no row is timed."""
    if row.about_cards:
        if ask.own and not _is_own(
            issuer
        ):  # taken over from elsewhere: digits say nothing about whose it is now
            return "the card is ours, under a number of others"
        if why := _card_miss(row, ask.number, issuer):
            return why
    if row.accounts and ask.account not in row.accounts:
        return "another account"
    if row.kinds and ask.kind not in row.kinds:
        return "another kind of transaction"
    if row.merchant and ask.merchant_id != row.merchant:
        return "another merchant"
    if row.category is not None and not (
        ask.category and row.category[0] <= int(ask.category) <= row.category[1]
    ):
        return "the merchant is of another category"
    if row.amount_fen is not None and not row.amount_fen[0] <= ask.amount_fen <= row.amount_fen[1]:
        return "another amount"
    return _time_miss(row, local) if local is not None else ""


def _time_miss(row: Row, local: datetime) -> str:
    if row.valid_from is not None and local.date() < row.valid_from:
        return "not valid yet"
    if row.valid_to is not None and local.date() > row.valid_to:
        return "no longer valid"
    if row.minutes is not None:
        begin, end = row.minutes
        minute = local.hour * 60 + local.minute
        inside = begin <= minute < end if begin < end else minute >= begin or minute < end
        if not inside:
            return "outside its hours"
    return ""
