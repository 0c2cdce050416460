"""Is a routing table fit to be used? Checked as a whole before it can take effect, against everybody whom it names.

Faults keep a table out; warnings are told. The laws:

    every issuer, merchant and city named is registered          a host that is not set up is a warning: its requests get 92
    every row can be reached                                     else it is shadowed by a row, or by several together
    ranges of card numbers lie in one another or apart           crossing ones are a slip of the pen in one of them
    money of our own online accounts and purses stays with the ledger, and some request of every own issuer reaches it

Sets of requests are boxes: for each thing that a row may ask for, a bit mask over the pieces into which all rows cut it. That
makes "row 30 is covered by rows 10 and 20 together" a matter of subtracting boxes. It could be made to take for ever, so work is
counted: a table too entangled to be checked within WORK_MAX is refused.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from datetime import date
from typing import Final, NamedTuple

from switch.domain.money import FIELD4_MAX
from switch.registry.import_files import Fault, Faults
from switch.registry.issuers import Participants
from switch.routing.destinations import LEDGERS_OWN, RouteTable, Row, TooManyCandidates, Way
from switch.routing.route_format import ACCOUNTS, KINDS

WORK_MAX: Final = 1_000_000  # comparisons of two boxes or ranges: some seconds
PIECES_MAX: Final = 2_000  # of what is left of one box
WARNINGS_MAX: Final = 100

Box = tuple[int, ...]
_CATEGORY_MAX: Final = 9_999
_MINUTE_MAX: Final = 24 * 60 - 1
_DAY_MAX: Final = date.max.toordinal()
_CARDS: Final = 6  # place of the cards in a box


class Known(NamedTuple):
    """Whom a table may name. hosts: those this switch is set up for. merchants: of those that the rows name."""

    participants: Participants
    cities: Set[str]
    merchants: Set[str]
    hosts: Set[str]


class Warned(NamedTuple):
    """What an operator should look at. precedence: 0 for the table as a whole."""

    precedence: int
    text: str

    def __str__(self) -> str:
        return f"row {self.precedence}: {self.text}" if self.precedence else self.text


class TooEntangled(Exception):
    """The work allowed is used up. precedence: the row at which it was."""

    def __init__(self, precedence: int) -> None:
        self.precedence = precedence
        super().__init__(precedence)


def check(
    rows: Sequence[Row], known: Known, faults: Faults, *, name: str, today: date
) -> tuple[RouteTable | None, list[Warned]]:
    """Look for everything that is wrong; the table, unless it has faults, and what is only worth a look.

    name: of the file, for faults.
    """

    def fault(row: Row, field: str, rule: str) -> None:
        faults.add(Fault(name, f"row {row.precedence}", field, rule))

    before = len(faults.found)
    warned = list(_strangers(rows, known, fault))
    try:
        table = RouteTable(rows, known.participants)
    except TooManyCandidates as error:
        faults.add(Fault(name, f"row {error.precedence}", "", str(error).partition(": ")[2]))
        return None, warned
    check_ = _Check(table, fault)
    try:
        check_.crossings()
        check_.shadows()
        check_.own_issuers()
    except TooEntangled as error:
        rule = "overlaps more rows than can be checked: say less with more precise rows"
        faults.add(Fault(name, f"row {error.precedence}", "", rule))
    for issuer_id in check_.without_ledger:
        faults.add(Fault(name, "", "", f"no request of our own issuer {issuer_id} would reach the ledger"))
    warned += _doubts(table, today)
    if len(warned) > WARNINGS_MAX:
        warned = [*warned[:WARNINGS_MAX], Warned(0, "and more")]
    return (None if len(faults.found) > before else table), warned


def _strangers(rows: Sequence[Row], known: Known, fault: Callable[[Row, str, str], None]) -> Iterator[Warned]:
    issuers = {issuer.issuer_id for issuer in known.participants.issuers}
    for row in rows:
        if row.issuer and row.issuer not in issuers:
            fault(row, "issuer", "is no registered card issuer")
        if row.merchant and row.merchant not in known.merchants:
            fault(row, "merchant", "is no registered merchant")
        for destination in row.to:
            if destination.way is Way.CITY and destination.name not in known.cities:
                fault(row, "to", f"{destination} is no registered institution of role CITY or CENTRE")
            elif destination.way is Way.HOST and destination.name not in known.hosts:
                yield Warned(row.precedence, f"{destination} is not set up: passed over, or answered 92")


def _doubts(table: RouteTable, today: date) -> Iterator[Warned]:
    if not any(issuer.own for issuer in table.participants.issuers):
        yield Warned(0, "no issuer is ours: see card_issuers in the registry")
    for row in table.rows:
        if row.valid_to is not None and row.valid_to < today:
            yield Warned(row.precedence, "is no longer valid")
        if not row.about_cards:
            continue
        issuers = [table.issuers[segment] for segment in table.segments_of(row)]
        if not issuers:
            yield Warned(row.precedence, "matches no card: issuer, scope and cards exclude each other")
        elif any(one.way is Way.LEDGER for one in row.to) and not any(one and one.own for one in issuers):
            yield Warned(row.precedence, "LEDGER answers 14 to cards that are not ours")


class _Check:
    """Faults that take more than one row to see."""

    def __init__(self, table: RouteTable, fault: Callable[[Row, str, str], None]) -> None:
        self._table = table
        self._fault = fault
        self._work = 0
        self._axes = _Axes(table)
        self._boxes = [self._axes.box(row) for row in table.rows]
        self.without_ledger: list[str] = []

    def _spend(self, row: Row, work: int = 1) -> None:
        self._work += work
        if self._work > WORK_MAX:
            raise TooEntangled(row.precedence)

    def crossings(self) -> None:
        """Ranges of two rows that share some cards, each with others of its own, while all else can be the same."""
        ranges = sorted(
            ((low, -high, place) for place, row in enumerate(self._table.rows) for low, high in row.cards)
        )
        open_: list[tuple[int, int]] = []  # end and row of ranges that began before and still go on
        told: set[tuple[int, int]] = set()
        for low, minus_high, place in ranges:
            row = self._table.rows[place]
            open_ = [one for one in open_ if one[0] >= low]
            self._spend(row, len(open_))
            for end, other_place in open_:
                pair = (min(place, other_place), max(place, other_place))
                if end < -minus_high and place != other_place and pair not in told and self._meet(*pair):
                    told.add(pair)
                    first = self._table.rows[pair[0]].precedence
                    self._fault(self._table.rows[pair[1]], "cards", f"a range crosses one of row {first}")
            open_.append((-minus_high, place))

    def _meet(self, first: int, second: int) -> bool:
        one, other = self._table.rows[first], self._table.rows[second]
        if one.merchant and other.merchant and one.merchant != other.merchant:
            return False
        return _meet(self._boxes[first][:_CARDS], self._boxes[second][:_CARDS])

    def shadows(self) -> None:
        """Rows of which rows before them leave nothing.

        A row for one merchant takes nothing of a row for all, so rows are only held against their like and those for all. And
        where some card is touched by no row about cards, such rows need not be looked at: they cannot take all.
        """
        every = (1 << len(self._table.starts)) - 1
        touched = 0
        of_all: dict[str, list[int]] = {}  # by merchant, rows that are not about cards
        of_some: dict[str, list[int]] = {}
        at: dict[tuple[int, str], list[int]] = {}  # by segment and merchant, rows that are
        for place, row in enumerate(self._table.rows):
            likes = {"", row.merchant}
            before = {one for like in likes for one in of_all.get(like, ())}
            segments = list(self._table.segments_of(row)) if row.about_cards else []
            if row.about_cards:
                before.update(one for like in likes for n in segments for one in at.get((n, like), ()))
            elif touched == every:
                before.update(one for like in likes for one in of_some.get(like, ()))
            self._shadow(place, row, sorted(before))
            if row.about_cards:
                touched |= self._boxes[place][_CARDS]
                of_some.setdefault(row.merchant, []).append(place)
                for segment in segments:
                    at.setdefault((segment, row.merchant), []).append(place)
            else:
                of_all.setdefault(row.merchant, []).append(place)

    def _shadow(self, place: int, row: Row, before: Iterable[int]) -> None:
        box = self._boxes[place]
        if not all(box):
            return  # matches nothing at all, which is a warning
        left = [box]
        takers: list[int] = []
        for earlier in before:
            self._spend(row, len(left))
            taken = self._boxes[earlier]
            if not any(_meet(piece, taken) for piece in left):
                continue
            number = self._table.rows[earlier].precedence
            takers = [number] if _within(box, taken) else [*takers, number]
            left = self._subtract(row, left, taken)
            if not left:
                named = ", ".join(map(str, takers[:5])) + (" and others" if len(takers) > 5 else "")
                verb = "takes" if len(takers) == 1 else "together take"
                self._fault(row, "precedence", f"is never reached: {named} {verb} all of it")
                return

    def own_issuers(self) -> None:
        """Money that only the ledger knows goes nowhere else, and the ledger is not cut off from it."""
        strays: set[int] = set()
        for issuer in self._table.participants.issuers:
            segments = [
                n
                for n, holder in enumerate(self._table.issuers)
                if holder is not None and holder.issuer_id == issuer.issuer_id
            ]
            if not issuer.own or not segments:
                continue
            left = [self._axes.of_own(segments)]
            reached = False
            for place, row in enumerate(self._table.rows):
                self._spend(row, len(left))
                box = self._boxes[place]
                if not any(_meet(piece, box) for piece in left):
                    continue
                if row.to[0].linked:
                    strays.add(place)
                reached = reached or row.to[0].way is not Way.REFUSE  # a stray is told once
                if not row.merchant:
                    left = self._subtract(row, left, box)
            if not left and not reached:
                self.without_ledger.append(issuer.issuer_id)
        for place in sorted(strays):
            rule = "takes requests on own online accounts or purses, whose money is in the ledger: name account or cards"
            self._fault(self._table.rows[place], "to", rule)

    def _subtract(self, row: Row, left: Sequence[Box], taken: Box) -> list[Box]:
        pieces: list[Box] = []
        for piece in left:
            self._spend(row)
            pieces += _minus(piece, taken)
        if len(pieces) > PIECES_MAX:
            raise TooEntangled(row.precedence)
        return pieces


class _Axes:
    """The pieces into which all rows together cut cards, account, kind, category, amount, hours and days."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        rows = table.rows
        self._category = _cuts((row.category for row in rows), _CATEGORY_MAX)
        self._amount = _cuts((row.amount_fen for row in rows), FIELD4_MAX)
        self._minute = _cuts((one for row in rows for one in _minutes(row)), _MINUTE_MAX)
        self._day = _cuts((_days(row) for row in rows), _DAY_MAX)

    def box(self, row: Row) -> Box:
        """All requests that a row matches, but for the merchant. Cards come last: that keeps what is left in few pieces."""
        many = len(self._table.starts)
        minutes = _minutes(row) or [(0, _MINUTE_MAX)]
        return (
            _mask(row.accounts or ACCOUNTS.values(), ACCOUNTS.values()),
            _mask(row.kinds or KINDS.values(), KINDS.values()),
            _pieces(self._category, row.category or (0, _CATEGORY_MAX)),
            _pieces(self._amount, row.amount_fen or (0, FIELD4_MAX)),
            sum(_pieces(self._minute, one) for one in minutes),
            _pieces(self._day, _days(row) or (0, _DAY_MAX)),
            _bits(self._table.segments_of(row), many) if row.about_cards else (1 << many) - 1,
        )

    def of_own(self, segments: Iterable[int]) -> Box:
        """Every request on the ledger's own accounts by cards of some segments."""
        whole = self.box(Row(0, ()))
        own = _mask(LEDGERS_OWN, ACCOUNTS.values())
        return (own, *whole[1:_CARDS], _bits(segments, len(self._table.starts)))


def _minutes(row: Row) -> list[tuple[int, int]]:
    """Hours as inclusive minutes of the day; two parts when they go over midnight."""
    if row.minutes is None:
        return []
    begin, end = row.minutes
    if begin < end:
        return [(begin, end - 1)]
    return [(begin, _MINUTE_MAX)] + ([(0, end - 1)] if end else [])


def _days(row: Row) -> tuple[int, int] | None:
    if row.valid_from is None and row.valid_to is None:
        return None
    first = row.valid_from.toordinal() if row.valid_from is not None else 0
    return first, row.valid_to.toordinal() if row.valid_to is not None else _DAY_MAX


def _cuts(spans: Iterable[tuple[int, int] | None], most: int) -> list[int]:
    """Where pieces begin."""
    starts = {0}
    for span in spans:
        if span is not None:
            starts |= {span[0], span[1] + 1}
    return sorted(start for start in starts if start <= most)


def _pieces(starts: Sequence[int], span: tuple[int, int]) -> int:
    """The pieces of a span, whose ends are among the cuts."""
    return (1 << bisect_right(starts, span[1])) - (1 << bisect_left(starts, span[0]))


def _bits(numbers: Iterable[int], most: int) -> int:
    """A mask with these bits."""
    mask = bytearray(most // 8 + 1)
    for number in numbers:
        mask[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(mask, "little")


def _mask(chosen: Collection[int], all_: Iterable[int]) -> int:
    return sum(1 << n for n, one in enumerate(all_) if one in chosen)


def _meet(one: Box, other: Box) -> bool:
    return all(a & b for a, b in zip(one, other, strict=True))


def _within(inner: Box, outer: Box) -> bool:
    return all(a & b == a for a, b in zip(inner, outer, strict=True))


def _minus(box: Box, taken: Box) -> list[Box]:
    """What is left of a box, in pieces that do not overlap."""
    if not _meet(box, taken):
        return [box]
    pieces: list[Box] = []
    rest = list(box)
    for axis, mask in enumerate(taken):
        outside = rest[axis] & ~mask
        if outside:
            pieces.append((*rest[:axis], outside, *rest[axis + 1 :]))
        rest[axis] &= mask
    return pieces
