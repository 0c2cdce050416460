"""Files of closed days: every byte on disk against lines made again from the journal and the offline records.

Lines are written out here once more, from docs/clearing_files.md and not from the code that wrote the files. A fault names file
and line and never shows a line, for those of members hold card numbers.
"""

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from hashlib import new as new_digest
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO, Final, NamedTuple

from switch.operations.audit.disk import DiskAudit, Row
from switch.operations.audit.generations import listed_lines, on_their_way
from switch.storage.sql import load

SQL: Final = load(__package__ or "", "lines.sql")
EIGHT_HOURS: Final = timedelta(hours=8)  # Asia/Shanghai is UTC+8 all year
LINE_BYTES_MAX: Final = 512
FETCHED_AT_ONCE: Final = 5_000
TELL_EVERY: Final = 100_000
LENGTHS: Final = {
    "NP": 113,
    "CM": 300,
    "NS": 63,
    "QS": 170,
    "SS": 180,
    "MR": 150,
    "TR": 169,
    "FH": 201,
    "ER": 352,
    "DF": 201,
    "DT": 211,
    "BF": 40,
    "BI": 40,
}
_BASE36: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Day(NamedTuple):
    """Terms of a closed day."""

    day: date
    created_at: datetime
    settlement_date: date
    own_id: str
    centre_id: str
    acquirer_code: str


class File(NamedTuple):
    """A row of clearing_file."""

    name: str
    party: str
    party_no: int | None
    line_count: int
    total_fen: int
    sm3: str | None
    size: int | None


class Fee(NamedTuple):
    """A transaction's fee and the shares of issuer and switch, in fen, with the sign of its amount."""

    fen: int
    issuer_fen: int
    switch_fen: int


class Charge(NamedTuple):
    """One transaction of a day, as the query has it."""

    merchant_no: int
    at: str  # in UTC+8: YDDD, then MMDDhhmmss
    entry_no: int
    merchant_id: str
    terminal_id: str
    batch_no: int
    stan: int
    rrn: str | None
    account_kind: int
    pan: str
    fen: int
    local_time: str  # YYYYMMDDhhmmss
    kind: int
    auth_code: str
    entry_mode: str
    category: str
    acquirer_id: str
    original_stan: int
    original_at: str  # MMDDhhmmss
    original_kind: int
    other: str
    rate_ppm: int | None
    minimum_fen: int
    cap_fen: int | None
    weight_issuer: int
    weight_switch: int
    weight_acquirer: int
    issuer_id: str
    issuer_pan: str  # the card as its issuer knows it
    tariff_ppm: (
        int | None
    )  # of a card of another city: what cities charge each other; None: by the merchant's rule
    tariff_minimum_fen: int | None
    tariff_cap_fen: int | None
    tariff_issuer: int | None
    tariff_centre: int | None
    tariff_acquirer: int | None

    def __repr__(self) -> str:  # holds a card number
        return f"Charge(entry_no={self.entry_no})"

    @property
    def fee(self) -> Fee:
        """What the merchant pays, and what issuer and switch get of it, or of the tariff between cities."""
        fee = _fee(self.fen, self.rate_ppm, self.minimum_fen, self.cap_fen)
        shared, issuer, switch, acquirer = fee, self.weight_issuer, self.weight_switch, self.weight_acquirer
        if self.tariff_ppm is not None:
            shared = _fee(self.fen, self.tariff_ppm, self.tariff_minimum_fen or 0, self.tariff_cap_fen)
            issuer, switch = self.tariff_issuer or 0, self.tariff_centre or 0
            acquirer = self.tariff_acquirer or 0
        weights = issuer + switch + acquirer or 1
        sign = 1 if self.fen > 0 else -1
        return Fee(sign * fee, sign * (shared * issuer // weights), sign * (shared * switch // weights))

    @property
    def reference(self) -> str:
        """Field 37; of an offline record made of the instant and number under which it was taken."""
        if self.rrn is not None:
            return self.rrn
        digits, number = "", self.entry_no
        for _ in range(6):
            number, digit = divmod(number, 36)
            digits = _BASE36[digit] + digits
        return self.at[:4] + self.at[8:10] + digits


def _fee(fen: int, rate_ppm: int | None, minimum_fen: int, cap_fen: int | None) -> int:
    """Of an amount without its sign: nearest fen, half away from zero, at least the minimum, at most the cap and the amount."""
    if rate_ppm is None or not fen:
        return 0
    whole, rest = divmod(abs(fen) * rate_ppm, 1_000_000)
    fee = min(max(whole + (rest >= 500_000), minimum_fen), abs(fen))
    return fee if cap_fen is None else min(fee, cap_fen)


def signed(fen: int) -> str:
    """C for what is received, also nothing, D for what is paid; 15 digits."""
    return f"{'D' if fen < 0 else 'C'}{abs(fen):015d}"


def fee_field(fen: int) -> str:
    """As `signed`, but 11 digits and D for nothing."""
    return f"{'C' if fen > 0 else 'D'}{abs(fen):011d}"


def merchant_line(number: int, charge: Charge, day: Day) -> str:
    """A line of MR."""
    fee_fen = charge.fee.fen
    card = f"{charge.pan[:6]}{'*' * (len(charge.pan) - 10)}{charge.pan[-4:]}"
    return (
        f"D{number:08d}{charge.merchant_id}{charge.terminal_id}{charge.batch_no:06d}{charge.stan:06d}{charge.reference}"
        f"{charge.account_kind:02d}{card:20}{signed(charge.fen)}{signed(-fee_fen)}{signed(charge.fen - fee_fen)}"
        f"{charge.local_time}{day.day:%Y%m%d}00"
    )


_REFUND, _REVERSAL, _UPLOAD = 4, 5, 20
_GIVING_BACK, _COLLECTING = (14, 16), (15, 17)  # in cases
_COMPLETING = (8, 9, 10)  # completion, its void, completion advice


def member_line(charge: Charge, member: str, day: Day) -> str:
    """A line of CM: 34 fields with a space between them."""
    fee = charge.fee
    agent = day.acquirer_code if charge.acquirer_id == day.own_id else charge.acquirer_id
    mti = {_REFUND: "0220", 10: "0220", _REVERSAL: "0400", _UPLOAD: "0320"}.get(charge.kind, "0200")
    if charge.kind in _GIVING_BACK + _COLLECTING:
        mti = "0220"
    undoing = charge.kind in (3, 9, _REFUND, *_GIVING_BACK) or (charge.kind == _REVERSAL and charge.fen > 0)
    said = charge.original_kind if charge.kind == _REVERSAL else charge.kind
    completing = said in _COMPLETING
    issuing, acquiring = member == charge.issuer_id, member == charge.acquirer_id
    fields = (
        f"{agent:11}",
        f"{agent:11}",
        f"{charge.stan:06d}",
        charge.at[4:],
        f"{charge.issuer_pan if issuing else charge.pan:19}",
        f"{abs(charge.fen):012d}",
        "0" * 12,
        "0" * 12,
        mti,
        f"{'20' if undoing else '00'}{charge.account_kind:02d}00",
        charge.category,
        charge.terminal_id,
        charge.merchant_id,
        charge.reference,
        "06" if completing else "00",
        f"{charge.auth_code:6}",
        f"{charge.issuer_id:11}",
        f"{charge.original_stan:06d}",
        "00",
        charge.entry_mode or "000",
        fee_field(fee.issuer_fen if issuing else 0),
        fee_field(-fee.issuer_fen if acquiring else 0),
        fee_field(-fee.switch_fen if acquiring else 0),
        "0",
        "001",
        "5",
        "0",
        charge.original_at,
        f"{charge.issuer_id:11}",
        "0",
        "01",
        "00",
        "0" * 12,
        f"{charge.other:14}",
    )
    return "D" + " ".join(fields)


def refusal_line(number: int, row: Row, day: Day, party: str) -> str:
    """A line of SS."""
    taken_on, source, line, result, merchant, terminal, raw, atc, serial, balance, fen, moment, kind = row
    source = source or f"XF{party}{day.centre_id}{taken_on:%Y%m%d}000"
    tac = raw[55:59].hex().upper()
    # A terminal's clock may say any year, and %Y has no leading zeros.
    when = f"{moment.year:04d}{moment:%m%d%H%M%S}" if moment is not None else "0" * 14
    grey = "1" if kind == 1 or tac in ("FFFFFFFF", "00000000") else "0"
    return (
        f"D{number:08d}{source}{line:08d}{result}{day.day:%Y%m%d}{merchant}{terminal}"
        f"{raw[6:16].hex().upper()}{atc or 0:05d}{raw[45:51].hex().upper()}{serial or 0:010d}{balance or 0:012d}{fen or 0:012d}"
        f"{when}{raw[2:3].hex().upper()}{tac}{grey}     "
    )


def net_line(number: int, row: Row) -> str:
    """A line of NP."""
    who, issued, issued_fen, acquired, acquired_fen, *nets = row
    return (
        f"D{number:08d}{who}{issued:08d}{signed(issued_fen)}{acquired:08d}{signed(acquired_fen)}"
        + "".join(map(signed, nets))
    )


class FileAudit(DiskAudit):
    """Compares the files of closed days; at most two faults for each file are kept."""

    table = "clearing_file"
    sql = SQL

    def run(self, only: date | None) -> None:
        """Compare all files of the closed days in the connection's snapshot, or of one of them."""
        for row in self._rows("closed_days", first=only or "-infinity", last=only or "infinity"):
            day = Day(*row)
            files = [File(*entry) for entry in self._rows("files", day=day.day)]
            merchants = self._by_merchant(day)
            waiting = next(merchants, None)
            for file in files:
                if file.name[:2] != "MR":
                    self._compare(day, file, self._lines_of(day, file))
            for file in sorted(
                (one for one in files if one.name[:2] == "MR"), key=lambda one: one.party_no or 0
            ):
                while waiting is not None and waiting[0] < (file.party_no or 0):
                    waiting = self._without_file(day, waiting, merchants)
                if waiting is not None and waiting[0] == file.party_no:
                    lines = (merchant_line(number, one, day) for number, one in enumerate(waiting[1], 1))
                    self._compare(day, file, lines)
                    waiting = next(merchants, None)
                else:
                    self._compare(day, file, iter(()))
            while waiting is not None:
                waiting = self._without_file(day, waiting, merchants)
            folder = self._folder / f"{day.day:%Y%m%d}"
            again, signed = self._rows("sent_again", day=day.day), self._rows("signed", day=day.day)
            for fault in on_their_way(folder, again, signed):
                self._fault(*fault)

    def _by_merchant(self, day: Day) -> Iterator[tuple[int, Iterator[Charge]]]:
        return groupby(self._charges(day, ""), key=itemgetter(0))

    def _without_file(
        self,
        day: Day,
        waiting: tuple[int, Iterator[Charge]],
        merchants: Iterator[tuple[int, Iterator[Charge]]],
    ) -> tuple[int, Iterator[Charge]] | None:
        self._fault(f"MR of merchant_no {waiting[0]} on {day.day}", "a file for his transactions", "none")
        return next(merchants, None)

    def _charges(self, day: Day, member: str) -> Iterator[Charge]:
        """Transactions of a day in the order of a member's file; of '' in that of the merchants' files."""
        name = f"audit_{member or 'merchants'}_{day.day:%Y%m%d}"
        with self._connection.cursor(name) as cursor:
            cursor.itersize = FETCHED_AT_ONCE
            cursor.execute(
                SQL["charges"],
                {"day": day.day, "member": member, "own": day.own_id, "entry": 0},
            )
            for row in cursor:
                yield Charge(*row)

    def _lines_of(self, day: Day, file: File) -> Iterator[str]:
        kind = file.name[:2]
        if kind == "CM":
            for charge in self._charges(day, file.party):
                yield member_line(charge, file.party, day)
        elif kind == "SS":
            for number, row in enumerate(self._rows("listed", day=day.day, party=file.party), 1):
                yield refusal_line(number, row, day, file.party)
        elif kind == "TR":
            for number, row in enumerate(self._rows("rides", day=day.day, party=file.party), 1):
                merchant, ridden, industry, line, *figures = row
                counts = "".join(f"{count:08d}" for count in figures[:6])
                sums = "".join(f"{fen:015d}" for fen in figures[6:])
                yield f"D{number:08d}{merchant}{ridden}{industry:02X}{line}{counts}{sums}{day.day:%Y%m%d}"
        elif kind == "ER":
            yield from self._said(day, file.party)
        elif kind in ("BF", "BI"):
            yield from listed_lines(self._rows("listed_cards", day=day.day, party=file.party))
        elif kind == "FH":
            for number, (raw,) in enumerate(self._rows("forwarded", day=day.day), 1):
                yield f"D{number:08d}{raw.hex().upper()}"
        elif kind == "DT":
            query = "decided" if file.party_no is None else "answered"
            for number, raw, result, decided in self._rows(
                query, day=day.day, party=file.party, file_no=file.party_no
            ):
                yield f"D{number:08d}{raw.hex().upper()}{result}{decided}"
        elif kind == "NS":
            alone = f"XF{file.party}{day.centre_id}{day.day:%Y%m%d}000"
            came = [
                (alone, *row, "00") for row in self._rows("came", day=day.day, party=file.party) if row[0]
            ]
            came += self._rows("arrived", day=day.day, party=file.party)
            for number, (name, count, fen, status) in enumerate(came, 1):
                yield f"D{number:08d}{name}{count:08d}{fen:015d}{status}"
        elif kind == "QS":
            for number, (merchant, *figures) in enumerate(
                self._rows("quick", day=day.day, party=file.party), 1
            ):
                pairs = "".join(f"{figures[at]:08d}{figures[at + 1]:015d}" for at in (0, 2, 4, 6))
                net_fen = figures[1] + figures[5] - figures[8]
                yield (
                    f"D{number:08d}{merchant}{day.day:%Y%m%d}{pairs}{figures[8]:015d}{signed(net_fen)}"
                    f"{day.settlement_date:%Y%m%d}       "
                )
        elif kind == "NP":
            for number, row in enumerate(self._rows("positions", day=day.day), 1):
                yield net_line(number, row)

    def _said(self, day: Day, party: str) -> Iterator[str]:
        """Lines of ER. The line of an original is made again from the day on which it stood in CM."""
        days = {row[0]: Day(*row) for row in self._rows("closed_days", first="-infinity", last=day.day)}
        for number, row in enumerate(self._rows("disputed", day=day.day, party=party), 1):
            case_text, action, fen, reason, line_date, entry_no, original_date, line = row
            if line is None and line_date in days:
                terms = days[line_date]
                found = self._rows("charges", day=line_date, member=party, own=terms.own_id, entry=entry_no)
                line = member_line(Charge(*found[0]), party, terms)[1:] if found else ""
            yield f"D{number:08d}{case_text:16}{action}{line or '':299}{signed(fen)}{reason:2}{original_date}"

    def _compare(self, day: Day, file: File, expected: Iterator[str]) -> None:
        """One file: its lines, the digest in its trailer, the stored digest and size, and its mark of completeness."""
        path = self._folder / f"{day.day:%Y%m%d}" / file.name
        try:
            with path.open("rb") as stream:
                place, sm3, size = self._content(stream, file, chain_of(day, file, expected))
            complete = path.with_name(f"{file.name}.ok").read_text(encoding="ascii", errors="replace")
        except OSError as error:
            self._fault(
                f"{file.name} on {day.day}", "a file and its .ok", error.strerror or type(error).__name__
            )
            return
        if place:
            self._fault(f"{file.name}, {place}", "what the books of the day say", "something else")
        if (sm3, size) != (file.sm3, file.size):
            self._fault(
                f"{file.name} on {day.day}",
                f"stored: SM3 {file.sm3}, {file.size} bytes",
                f"SM3 {sm3}, {size} bytes",
            )
        if complete.split() != [sm3, file.name]:
            self._fault(f"{file.name}.ok on {day.day}", f"{sm3} and the name", "something else")

    def _content(self, stream: BinaryIO, file: File, expected: Iterable[bytes]) -> tuple[str, str, int]:
        """Where the first difference is ('' for none), SM3 of the file, and its size."""
        digest, size, place, number = new_digest("sm3"), 0, "", 0
        for number, want in enumerate(expected, 1):
            line = stream.readline(LINE_BYTES_MAX)
            if line != want and not place:
                at = next(
                    (i for i, (a, b) in enumerate(zip(line, want, strict=False)) if a != b),
                    min(len(line), len(want)),
                )
                place = f"line {number}, character {at + 1}"
            digest.update(line)
            size += len(line)
            self.rows += 1
            if self.rows % TELL_EVERY == 0:
                self._progress(f"files: {self.rows:,} lines")
        trailer = f"T{file.name[:2]}{file.line_count:08d}{file.total_fen:015d}{digest.hexdigest().upper()}\r\n".encode()
        line = stream.readline(LINE_BYTES_MAX)
        if line != trailer and not place:
            place = f"line {number + 1}, the trailer"
        if number - 1 != file.line_count and not place:
            place = f"{number - 1} lines, where {file.line_count} are counted"
        while line:
            digest.update(line)
            size += len(line)
            line = stream.readline(LINE_BYTES_MAX)
            if line and not place:
                place = "after the trailer"
        return place, digest.hexdigest().upper(), size


def chain_of(day: Day, file: File, lines: Iterator[str]) -> Iterator[bytes]:
    """Header and lines of a file as they must be, each with its CRLF."""
    kind, receiver = file.name[:2], file.name[10:18]
    sender = day.own_id if kind in ("FH", "DF", "DT", "BF", "BI") else day.centre_id
    sequence = file.name[26:] if kind == "DT" else "001"
    created = day.created_at + EIGHT_HOURS
    header = (
        f"H{kind}01{sender}{receiver}{day.day:%Y%m%d}{sequence}{created:%Y%m%d%H%M%S}{file.line_count:08d}{file.total_fen:015d}"
        f"{LENGTHS.get(kind, 0):04d}       "
    )
    yield f"{header}\r\n".encode()
    for line in lines:
        yield f"{line}\r\n".encode()
