"""What must hold between the fields of a line, and between the lines of a file, by type."""

from binascii import crc_hqx
from collections.abc import Callable
from typing import ClassVar, Final

from switch.clearing.layouts import LAYOUTS
from switch.clearing.lint.patterns import is_date, line_pattern

# Called with the field to blame, the rule and what is expected; the place is the caller's business.
Say = Callable[[str, str, str], None]
_POSITIVE: Final = ord("C")


def signed(value: bytes) -> int:
    """An amount with its sign letter, in fen."""
    amount = int(value[1:])
    return amount if value[0] == _POSITIVE else -amount


class Rules:
    """Rules of one file. wanted: fields that `line` gets, in their order in the line; the line number comes first where there is one.

    day: the clearing date of the header; total: its total amount. Both as they stand there, empty when it could not be read.
    """

    wanted: ClassVar[tuple[str, ...]] = ()
    dates: ClassVar[tuple[int, ...]] = ()  # which of the wanted fields are dates

    def __init__(self, kind: str, day: bytes, total: bytes) -> None:
        self.kind = kind
        self.layout = LAYOUTS[kind]
        self.numbered = self.layout.fields[1].name == "line_no"
        wanted = ("line_no", *self.wanted) if self.numbered else self.wanted
        self.pattern = line_pattern(self.layout, wanted)
        self.day = day
        self.total = total

    def check(self, values: tuple[bytes, ...], say: Say) -> int:
        """Check the wanted fields of a line that its pattern let through; returns what it adds to the total."""
        values = values[1:] if self.numbered else values
        for place in self.dates:
            if not is_date(values[place]):
                say(self.wanted[place], "not a day of the calendar", "YYYYMMDD")
        return self.line(values, say)

    def line(self, values: tuple[bytes, ...], say: Say) -> int:
        """What is particular to the type."""
        raise NotImplementedError

    def end(self, say: Say, note: Callable[[str], None]) -> None:
        """When all lines have been seen."""

    def share(self, line: bytes) -> int | None:
        """What a line that its pattern refused would add, where its amount can still be read."""
        column = 0
        for field in self.layout.fields:
            if field.name == self.amount_field:
                try:
                    return self.amount(line[column : column + field.width])
                except ValueError:
                    return None
            column += field.width
        return None

    amount_field: ClassVar[str] = "amount"

    def amount(self, value: bytes) -> int:
        """The field that is summed up. ValueError when it is no number."""
        return int(value)

    def own_day(self, value: bytes, say: Say, field: str) -> None:
        """A date that must be the file's clearing date."""
        if self.day and value != self.day:
            say(field, "not the clearing date of the header", "the same date in every line")


class Records(Rules):
    """XF, FH, DF."""

    wanted: ClassVar[tuple[str, ...]] = ("record",)
    amount_field = "record"

    def __init__(self, kind: str, day: bytes, total: bytes) -> None:
        super().__init__(kind, day, total)
        self.odd = 0

    def amount(self, value: bytes) -> int:
        """Bytes 31 to 34 of the record."""
        return int(value[60:68], 16)

    def line(self, values: tuple[bytes, ...], say: Say) -> int:
        raw = bytes.fromhex(values[0].decode())
        if raw[0] != 1 or crc_hqx(raw[:94], 0xFFFF) != int.from_bytes(raw[94:]):
            self.odd += 1
        return int.from_bytes(raw[30:34])

    def end(self, say: Say, note: Callable[[str], None]) -> None:
        if self.odd:
            note(
                f"{self.odd} records have another format byte or a wrong checksum: each of them would get result 02"
            )


class Results(Records):
    """DT."""

    wanted: ClassVar[tuple[str, ...]] = ("record", "result_date")
    dates: ClassVar[tuple[int, ...]] = (1,)


class Received(Rules):
    """NS."""

    wanted: ClassVar[tuple[str, ...]] = ("amount",)

    def line(self, values: tuple[bytes, ...], say: Say) -> int:
        return int(values[0])


class Refusals(Rules):
    """SS."""

    wanted: ClassVar[tuple[str, ...]] = ("source_line", "decided_on", "amount", "date")
    dates: ClassVar[tuple[int, ...]] = (1, 3)

    def line(self, values: tuple[bytes, ...], say: Say) -> int:
        source_line, decided_on, amount, _ = values
        if not int(source_line):
            say("source_line", "zero", "lines are counted from 1")
        self.own_day(decided_on, say, "decided_on")
        return int(amount)


class Credits(Rules):
    """Files whose total is the sum of the nets marked C."""

    amount_field = "net"

    def amount(self, value: bytes) -> int:
        return max(signed(value), 0)


class Settlement(Credits):
    """QS."""

    wanted: ClassVar[tuple[str, ...]] = (
        "clearing_date",
        "confirmed",
        "adjusted",
        "fee",
        "net",
        "settlement_date",
    )
    dates: ClassVar[tuple[int, ...]] = (0, 5)

    def line(self, values: tuple[bytes, ...], say: Say) -> int:
        day, confirmed, adjusted, fee, net, settled = values
        self.own_day(day, say, "clearing_date")
        fen = signed(net)
        if int(confirmed) + int(adjusted) - int(fee) != fen:
            say("net", "does not add up", "confirmed + adjusted - fee")
        if settled <= day:
            say("settlement_date", "not after the clearing date", "money moves on a later workday")
        return max(fen, 0)


class Merchant(Credits):
    """MR."""

    wanted: ClassVar[tuple[str, ...]] = ("amount", "fee", "net", "date", "clearing_date")
    dates: ClassVar[tuple[int, ...]] = (3, 4)

    def line(self, values: tuple[bytes, ...], say: Say) -> int:
        amount, fee, net, _, day = values
        self.own_day(day, say, "clearing_date")
        sale, charged, fen = signed(amount), signed(fee), signed(net)
        if sale + charged != fen:
            say("net", "does not add up", "amount and fee together: net = amount - what the fee takes")
        if sale * charged > 0 or abs(charged) > abs(sale):
            say(
                "fee",
                "has the sign of the amount, or is above it",
                "a sale pays a fee, what undoes it gets it back",
            )
        return max(fen, 0)


class Positions(Credits):
    """NP."""

    wanted: ClassVar[tuple[str, ...]] = (
        "institution",
        "issuing_count",
        "issuing",
        "acquiring_count",
        "acquiring",
        "issuer_fee",
        "fees_paid",
        "net",
    )

    def __init__(self, kind: str, day: bytes, total: bytes) -> None:
        super().__init__(kind, day, total)
        self.counts = self.amounts = 0
        self.institutions: set[bytes] = set()  # eight digits each, and an NP has tens of them
        self.repeated = False

    def line(self, values: tuple[bytes, ...], say: Say) -> int:
        institution, issued, issuing, acquired, acquiring, received, paid, net = values
        fen = signed(net)
        if signed(issuing) + signed(acquiring) + signed(received) + signed(paid) != fen:
            say("net", "does not add up", "issuing + acquiring + issuer fee + fees paid")
        if institution in self.institutions:
            say("institution", "stands twice", "one line for each institution")
        if len(self.institutions) < _INSTITUTIONS_MAX:
            self.institutions.add(institution)
        self.counts += int(issued) - int(acquired)
        self.amounts += signed(issuing) + signed(acquiring)
        return max(fen, 0)

    def end(self, say: Say, note: Callable[[str], None]) -> None:
        if self.counts:
            say(
                "issuing_count",
                "all lines together: not as many transactions issued as acquired",
                "each transaction has both",
            )
        if self.amounts:
            say(
                "issuing",
                f"all lines together: issuing and acquiring differ by {abs(self.amounts)} fen",
                "they sum to zero",
            )


_INSTITUTIONS_MAX: Final = 100_000


class Rides(Rules):
    """TR."""

    wanted: ClassVar[tuple[str, ...]] = (
        "ride_date",
        "entry_count",
        "open_count",
        "amount",
        "maximum",
        "full_fare",
        "transfer_discount",
        "other_discount",
        "clearing_date",
    )
    dates: ClassVar[tuple[int, ...]] = (0, 8)

    def line(self, values: tuple[bytes, ...], say: Say) -> int:
        _, entries, left_open, amount, maximum, full, transfer, other, day = values
        self.own_day(day, say, "clearing_date")
        fen = int(amount)
        if fen + int(transfer) + int(other) != int(full):
            say("full_fare", "does not add up", "amount + transfer discount + other discount")
        if int(maximum) > fen:
            say("maximum", "above the amount", "maximum fares are a part of it")
        if left_open > entries:
            say("open_count", "above the entry count", "open ones are a part of them")
        return fen


class Details(Rules):
    """CM."""

    wanted: ClassVar[tuple[str, ...]] = (
        "transmitted_at",
        "amount",
        "partial_amount",
        "fee_receivable",
        "fee_payable",
        "switching_fee",
        "original_at",
    )

    def line(self, values: tuple[bytes, ...], say: Say) -> int:
        at, amount, partial, receivable, payable, switching, original = values
        fen = int(amount)
        _check_member(at, fen, partial, (receivable, payable, switching), original, say)
        return fen


def _check_member(
    at: bytes, fen: int, partial: bytes, fees: tuple[bytes, bytes, bytes], original: bytes, say: Say
) -> None:
    # The year is not in the line; of a leap year's day the calendar says nothing else.
    if not is_date(b"2024" + at[:4]):
        say("transmitted_at", "not a day of the calendar", "MMDDhhmmss")
    if original[0:4] != b"0000" and not is_date(b"2024" + original[:4]):
        say("original_at", "not a day of the calendar", "MMDDhhmmss, or zeros")
    if int(partial) > fen:
        say("partial_amount", "above the amount", "a part of it")
    for name, fee in zip(("fee_receivable", "fee_payable", "switching_fee"), fees, strict=True):
        if int(fee[1:]) > fen:
            say(name, "above the amount", "a fee never is")


class Disputes(Rules):
    """ER."""

    wanted: ClassVar[tuple[str, ...]] = ("line", "amount", "original_date")
    dates: ClassVar[tuple[int, ...]] = (2,)

    def amount(self, value: bytes) -> int:
        return max(signed(value), 0)

    def line(self, values: tuple[bytes, ...], say: Say) -> int:
        inner, amount, _ = values
        fees = (inner[192:204], inner[205:217], inner[218:230])
        _check_member(inner[31:41], int(inner[62:74]), inner[75:87], fees, inner[241:251], say)
        return max(signed(amount), 0)


class HotList(Rules):
    """BF, BI. The total is the version of the list, not a sum."""

    wanted: ClassVar[tuple[str, ...]] = ("operation", "asn", "effective_date")
    dates: ClassVar[tuple[int, ...]] = (2,)
    amount_field = ""

    def __init__(self, kind: str, day: bytes, total: bytes) -> None:
        super().__init__(kind, day, total)
        self.seen = 0
        self.before = b""

    def line(self, values: tuple[bytes, ...], say: Say) -> int:
        operation, asn, _ = values
        self.seen += 1
        if operation == b"V":
            if self.kind == "BF":
                say("operation", "V in a full list", "V is the base version of a list of changes (BI)")
            elif self.seen > 1:
                say("operation", "V below the first line", "once, in the first line of BI")
            elif self.total and int(asn) >= int(self.total):
                say(
                    "asn", "base version not below the list's own", "the version that the changes are made to"
                )
        elif self.kind == "BI" and self.seen == 1:
            say(
                "operation",
                "the base version is missing",
                "V in the first line, the version in the ASN field",
            )
        elif self.kind == "BF" and operation != b"A":
            say("operation", "D in a full list", "A only")
        elif asn[:1] != b"0":
            say("asn", "does not begin with 0", "0 and the 19 digits of the card number")
        if operation != b"V" and (operation, asn) == (b"A", self.before):
            say("asn", "stands twice", "one line for each card")
        self.before = asn if operation == b"A" else b""
        return 0

    def end(self, say: Say, note: Callable[[str], None]) -> None:
        if self.kind == "BI" and not self.seen:
            say(
                "operation",
                "the base version is missing",
                "V in the first line, the version in the ASN field",
            )


RULES: Final[dict[str, type[Rules]]] = {
    "XF": Records,
    "FH": Records,
    "DF": Records,
    "DT": Results,
    "NS": Received,
    "SS": Refusals,
    "QS": Settlement,
    "CM": Details,
    "ER": Disputes,
    "MR": Merchant,
    "NP": Positions,
    "TR": Rides,
    "BF": HotList,
    "BI": HotList,
}
assert RULES.keys() == LAYOUTS.keys()
