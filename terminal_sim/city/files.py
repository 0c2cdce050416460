"""The day's clearing files, read as a merchant would: by docs/clearing_files.md alone, with no code of the switch."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date
from hashlib import new as new_hash
from pathlib import Path
from typing import NamedTuple

from switch.domain.transactions import AccountKind
from terminal_sim.city.books import Books, MerchantDay

HEADER_CHARS, TRAILER_CHARS, MR_CHARS, NAME_CHARS = 80, 90, 150, 29
FILES_MAX = 10_000
TITLES = {
    "MR": "merchant's transactions",
    "CM": "member's general detail",
    "NP": "net positions",
    "NS": "files received",
    "SS": "refusals and adjustments",
    "QS": "offline summary",
    "TR": "rides of a merchant's lines",
    "FH": "other cities' cards",
    "ER": "cases",
    "DT": "answers to other cities",
}


class FileFact(NamedTuple):
    """One file as it lies there."""

    name: str
    size_bytes: int
    lines: int
    fault: str  # empty when name, header, counts and digest agree


class MrLine(NamedTuple):
    """What is used of a merchant's line."""

    merchant_id: str
    rrn: str
    account: AccountKind
    amount_fen: int
    fee_fen: int  # what the merchant pays
    net_fen: int


@dataclass(slots=True)
class DayFiles:
    """A day folder."""

    folder: Path
    facts: list[FileFact] = field(default_factory=list)
    merchant_lines: list[MrLine] = field(default_factory=list)


def _signed(text: str) -> int:
    return int(text[1:]) * (-1 if text[0] == "D" else 1)


def _mr_line(text: str) -> MrLine:
    return MrLine(
        text[9:24],
        text[44:56],
        AccountKind(int(text[56:58])),
        _signed(text[78:94]),
        -_signed(text[94:110]),
        _signed(text[110:126]),
    )


def _fault_of(name: str, raw: bytes, lines: list[str]) -> str:
    """Why a file is not as it should be; the `.ok` beside it is looked at by whoever reads the folder."""
    if len(lines) < 2 or len(lines[0]) != HEADER_CHARS or len(lines[-1]) != TRAILER_CHARS:
        return "no header or trailer of the right length"
    head, tail = lines[0], lines[-1]
    if (head[0], tail[0]) != ("H", "T") or head[1:3] + head[5:21] + head[21:29] + head[29:32] != name:
        return "name and header differ"
    if not int(head[46:54]) == int(tail[3:11]) == len(lines) - 2:
        return "the counts differ"
    if head[54:69] != tail[11:26]:
        return "the total amounts differ"
    before_trailer = raw[: -(TRAILER_CHARS + 2)]
    if new_hash("sm3", before_trailer).hexdigest().upper() != tail[26:90]:
        return "the digest in the trailer differs"
    return ""


def read_day(folder: Path) -> DayFiles:
    """Every file of a day folder, checked; the merchants' lines kept."""
    found = DayFiles(folder)
    names = sorted(entry.name for entry in folder.iterdir() if len(entry.name) == NAME_CHARS)
    for name in names[:FILES_MAX]:
        path = folder / name
        raw = path.read_bytes()
        lines = raw.decode("ascii").split("\r\n")
        fault = "no end of line" if lines.pop() else _fault_of(name, raw, lines)
        okay = path.with_name(name + ".ok")
        if not fault and not (
            okay.is_file() and new_hash("sm3", raw).hexdigest() in okay.read_text("ascii").lower()
        ):
            fault = "the .ok beside it is missing or names another digest"
        found.facts.append(FileFact(name, len(raw), max(len(lines) - 2, 0), fault))
        if name[:2] == "MR" and not fault:
            found.merchant_lines += [_mr_line(line) for line in lines[1:-1]]
    return found


def compare(books: Books, day: date, files: DayFiles) -> dict[str, MerchantDay]:
    """Hold the merchants' files against what their terminals believe. Returns what the files say, by merchant.

    A purchase whose answer was lost stands in the files with its reversal, and the city only knows that both are
    nothing together; so what it does not know must cancel out, and what it knows must be there once.
    """
    for fact in files.facts:
        books.expect(f"clearing file {fact.name}", expected="", found=fact.fault)
    known = books.bookings[day]
    seen: set[str] = set()
    by_account: dict[tuple[str, AccountKind], MerchantDay] = defaultdict(MerchantDay)
    by_merchant: dict[str, MerchantDay] = defaultdict(MerchantDay)
    for line in files.merchant_lines:
        by_account[line.merchant_id, line.account].add(line.amount_fen, line.fee_fen)
        by_merchant[line.merchant_id].add(line.amount_fen, line.fee_fen)
        booking = known.get(line.rrn)
        if booking is None or line.account is AccountKind.PURSE or line.rrn in seen:
            continue  # a reversal repeats the reference of its original
        seen.add(line.rrn)
        books.expect(
            f"line {line.rrn} of merchant {line.merchant_id}",
            expected=(booking.merchant_id, booking.account, booking.amount_fen, booking.fee_fen),
            found=(line.merchant_id, line.account, line.amount_fen, line.fee_fen),
        )
    books.expect("receipts that are in no merchant's file", expected=0, found=len(known.keys() - seen))
    expected = books.merchant_days(day)
    for place in sorted(expected.keys() | by_account.keys()):
        ours, theirs = expected.get(place, MerchantDay()), by_account.get(place, MerchantDay())
        books.expect(
            f"day of merchant {place[0]}, {place[1].name.lower()} account: amount, fees, net in fen",
            expected=(ours.sales_fen - ours.back_fen, ours.fee_fen, ours.net_fen),
            found=(theirs.sales_fen - theirs.back_fen, theirs.fee_fen, theirs.net_fen),
        )
    return dict(by_merchant)
