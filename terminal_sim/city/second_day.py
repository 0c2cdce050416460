"""The day after: a dispute, an answer of the interop centre, a second close; then files go out, money is ordered, and one purchase is proven.

Everybody outside is played here by people who know the documents and nothing of the switch: a centre, a partner with an SFTP server, a
custody bank, and somebody who checks a proof with no more than two files.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from switch.domain.calendar import SHANGHAI
from switch.domain.money import yuan
from switch.domain.transactions import AccountKind
from terminal_sim import centre, partner
from terminal_sim.city import bank
from terminal_sim.city.books import Booking
from terminal_sim.city.house import House, Ran
from terminal_sim.city.plan import NEIGHBOUR, OWN
from terminal_sim.city.process import HouseError
from terminal_sim.city.street import Street
from terminal_sim.custody_bank import CustodyBank

INTEROP_CENTRE = "99999999"
CUSTODY_ACCOUNT, CUSTODY_BANK = "33050100001234567890", "105335000017"
CLERK, CHECKER = "li.wei", "wang.fang"
DISPUTED_MIN_FEN = 1_000
CANDIDATES_MAX = 8
PAID_MERCHANTS = 3  # the others have not told their accounts yet
EMPTY_DAYS_MAX = 12  # a weekend or a holiday before money moves: days without anything, closed too


@dataclass(slots=True)
class SecondDay:
    """What it came to. Amounts in fen."""

    day: date = date.min
    settlement_date: date = date.min
    disputed_fen: int = 0
    disputed_fee_fen: int = 0
    disputed_merchant: str = ""
    case_no: int = 0
    foreign: dict[str, int] = field(default_factory=dict)  # by the answer of the card's city
    sent: int = 0
    acknowledged: int = 0
    days_closed: int = 1
    payouts: int = 0
    paid_fen: int = 0
    staying: int = 0
    staying_fen: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    proven_rrn: str = ""
    proven: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "business_date": str(self.day),
            "settlement_date": str(self.settlement_date),
            "dispute": {
                "case": self.case_no,
                "merchant_id": self.disputed_merchant,
                "amount_fen": self.disputed_fen,
                "fee_fen": self.disputed_fee_fen,
            },
            "foreign_records": self.foreign,
            "files": {"sent": self.sent, "acknowledged": self.acknowledged},
            "settlement": {
                "payouts": self.payouts,
                "paid_fen": self.paid_fen,
                "staying": self.staying,
                "staying_fen": self.staying_fen,
                "bank": self.outcomes,
            },
            "proof": {"rrn": self.proven_rrn, "says": self.proven},
        }


def settings() -> tuple[tuple[str, str], ...]:
    """What the switch must know of it from the first day on."""
    return (("CARDSWITCH_INTEROP__CENTRE_ID", INTEROP_CENTRE), ("CARDSWITCH_CLEARING__AUTO_CLOSE", "false"))


async def live(
    street: Street, house: House, first: date, folder: Path, say: Callable[[str], None]
) -> SecondDay:
    """All of it. first: the day that was closed, whose files are in `folder`. say: tells the story."""
    found = SecondDay()
    await _dispute(street, house, first, found)
    say(f"case {found.case_no}: a purchase of {yuan(found.disputed_fen)} is disputed and given back")
    await _answer_of_the_centre(street, house, folder, found)
    say(f"the interop centre has answered for {sum(found.foreign.values())} rides of the neighbour's cards")
    closed = (await house.run("close", "--yes", "--json")).document
    found.day = date.fromisoformat(closed["day"])
    street.books.expect("the day after the first", expected=first + timedelta(days=1), found=found.day)
    nets = {line["merchant"]: line for line in closed["merchants"]}
    back = nets.get(found.disputed_merchant, {}).get("credit_fen", 0)
    street.books.expect(
        "given back by the disputed merchant", expected=True, found=back >= found.disputed_fen
    )
    street.books.expect(
        "records of other cities' cards paid on the second day",
        expected=found.foreign.get(centre.ACCEPTED, 0),
        found=sum(1 for _ in _paid_later(folder.parent / f"{found.day:%Y%m%d}")),
    )
    async with _partner(street, house, first) as one:
        await _deliver(street, house, one, found)
    await _settle(street, house, first, found)
    await _prove(street, house, first, folder, found)
    return found


async def _dispute(street: Street, house: House, first: date, found: SecondDay) -> None:
    """A holder does not know a purchase of the first day: one person opens the case, another gives the money back."""
    online = [
        (rrn, booking)
        for rrn, booking in sorted(street.books.bookings[first].items())
        if booking.account is AccountKind.ONLINE and booking.amount_fen >= DISPUTED_MIN_FEN
    ]
    rrn, booking, opened = await _open_case(house, first, online[:CANDIDATES_MAX])
    found.case_no = int(opened.document["case_no"])
    found.disputed_fen, found.disputed_fee_fen = booking.amount_fen, booking.fee_fen
    found.disputed_merchant, found.proven_rrn = booking.merchant_id, rrn
    alone = await house.run("cases", "approve", str(found.case_no), "--actor", CLERK, "--json", may_fail=True)
    street.books.expect("a case approved by who opened it", expected=1, found=alone.status)
    await house.run("cases", "approve", str(found.case_no), "--actor", CHECKER, "--json")
    street.books.balances[booking.holder, AccountKind.ONLINE] += booking.amount_fen
    street.happened("purchases disputed by their holder, and given back")


async def _open_case(
    house: House, first: date, purchases: list[tuple[str, Booking]]
) -> tuple[str, Booking, Ran]:
    """Of the first of these that was not voided or refunded before."""
    for rrn, booking in purchases:
        opened = await house.run(
            *("cases", "open", "--action", "04", "--date", str(first), "--rrn", rrn, "--reason", "20"),
            *("--why", "the holder does not know the payment", "--actor", CLERK, "--json"),
            may_fail=True,
        )
        if opened.status == 0:
            return rrn, booking, opened
    raise HouseError("no purchase of the first day could be disputed")


async def _answer_of_the_centre(street: Street, house: House, folder: Path, found: SecondDay) -> None:
    """The centre has the first day's FH; the cards' city accepts all but the last record."""
    files = _files(folder, "FH*[0-9]")
    street.books.expect("files for the interop centre", expected=1, found=len(files))
    if not files:
        return
    (path,) = files
    content = path.read_bytes()
    records = centre.records_of(content)
    today = datetime.now(SHANGHAI)
    name, answer = centre.answer(
        path.name,
        content,
        lambda record: centre.TAC_WRONG if record == records[-1] else centre.ACCEPTED,
        today.date(),
        today,
    )
    target = house.folder / name
    target.write_bytes(answer)
    (receipt,) = (await house.run("files", "take", str(target), "--json")).document
    found.foreign = dict(
        Counter(centre.TAC_WRONG if one == records[-1] else centre.ACCEPTED for one in records)
    )
    taken = {code: count for code, (count, _) in receipt["results"].items()}
    expected = {("00" if code == centre.ACCEPTED else code): count for code, count in found.foreign.items()}
    street.books.expect("answers of the interop centre", expected=expected, found=taken)


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


def _paid_later(folder: Path) -> Iterator[str]:
    """Lines of the day's SS that say that a record of an earlier day is paid (00)."""
    for path in folder.glob("SS*[0-9]"):
        for line in path.read_text("ascii").splitlines()[1:-1]:
            if line[46:48] == "00":
                yield line


@asynccontextmanager
async def _partner(street: Street, house: House, first: date) -> AsyncIterator[partner.Partner]:
    """The bank, which also keeps the books of one merchant, opens its SFTP server, and the switch is told."""
    merchant = street.plan.merchants[0].merchant_id
    async with partner.opened(house.folder / "partner") as one:
        house.set(
            "CARDSWITCH_DELIVERY__PARTNERS",
            json.dumps(
                [
                    {
                        "name": "bank",
                        "parties": [bank.BANK, merchant],
                        "types": ["CM", "NP", "MR"],
                        "since": str(first),
                        "host": "127.0.0.1",
                        "port": one.port,
                        "user": partner.USER,
                        "key_file": str(one.client_key),
                        "host_key": one.host_key,
                        "folder": f"/{partner.IN}",
                    }
                ]
            ),
        )
        yield one


async def _deliver(street: Street, house: House, one: partner.Partner, found: SecondDay) -> None:
    """Both days' files go out; the partner checks and acknowledges each, and the switch reads that."""
    await house.run("deliver", "--once", "--json")
    received = await asyncio.to_thread(one.look)
    for file in received:
        street.books.expect(f"file {file.name} at its partner", expected="", found=file.fault)
        one.receipt(file)
    found.sent = len(received)
    await house.run("deliver", "--once", "--json")
    shown = (await house.run("deliveries", "show", "bank", "--all", "--json")).document
    found.acknowledged = sum(file["state"] == "ACKNOWLEDGED" for file in shown["files"])
    street.books.expect("files acknowledged by their partner", expected=found.sent, found=found.acknowledged)


async def _settle(street: Street, house: House, first: date, found: SecondDay) -> None:
    """Accounts are told and confirmed, the first day's money is ordered, and the custody bank says what it did."""
    custody = CustodyBank(CUSTODY_ACCOUNT, 10**11)
    parties = [OWN, *(merchant.merchant_id for merchant in street.plan.merchants[:PAID_MERCHANTS])]
    await asyncio.gather(*(_account(house, party, number) for number, party in enumerate(parties)))
    report = (await house.run("close", "--date", str(first), "--json")).document
    found.settlement_date = date.fromisoformat(str(report["settlement_date"]))
    day = found.day
    while day + timedelta(days=1) < found.settlement_date and found.days_closed < EMPTY_DAYS_MAX:
        day = date.fromisoformat((await house.run("close", "--yes", "--json")).document["day"])
        found.days_closed += 1
    on = ("--date", str(found.settlement_date))
    # The neighbour's rides are settled by way of the centre, and must not be paid here too.
    await house.run(
        *("settlement", "terms", "set", NEIGHBOUR, "--held-all", "--held-reason", "settled by the centre"),
        *("--reason", "interop agreement", "--actor", CLERK, "--json"),
    )
    await house.run("settlement", "prepare", *on, "--actor", CLERK, "--json")
    await house.run("settlement", "approve", *on, "--actor", CHECKER, "--json")
    await house.run("settlement", "order", *on, "--actor", CHECKER, "--json", may_fail=True)
    for path in _files(house.folder, "clearing/settlement/*/*.xml"):
        for payment in custody.order(path.read_bytes()):
            found.payouts += 1
            found.paid_fen += payment.fen
    paper = house.folder / "custody.xml"
    paper.write_bytes(custody.notification(datetime.now(SHANGHAI)))
    told = await house.run("settlement", "statement", "take", str(paper), "--json")
    found.outcomes = _outcomes(told.document)
    listed = (await house.run("settlement", "list", *on, "--json")).document
    states = Counter(payout["state"] for payout in listed["payouts"])
    street.books.expect("payouts that the bank has paid", expected=found.payouts, found=states["PAID"])
    found.staying = len(listed["left"])
    found.staying_fen = sum(one["held_fen"] + one["carried_fen"] for one in listed["left"])


async def _account(house: House, party: str, number: int) -> None:
    """One person tells an account, another confirms it. The number comes by standard input, where nobody sees it."""
    account = CUSTODY_ACCOUNT if party == OWN else f"6228480{number:012d}"
    told = await house.run(
        *("settlement", "terms", "account", party, "--name", f"Account of {party}", "--bank", CUSTODY_BANK),
        *("--reason", "contract", "--actor", CLERK, "--json"),
        words=f"{account}\n",
    )
    confirmed = str(told.document["account"])
    await house.run("settlement", "terms", "confirm", confirmed, "--actor", CHECKER, "--json")


def _outcomes(document: Any) -> dict[str, int]:
    found: Counter[str] = Counter()
    for paper in document:
        found.update({outcome: figures[0] for outcome, figures in paper["counts"].items()})
    return dict(found)


async def _prove(street: Street, house: House, first: date, folder: Path, found: SecondDay) -> None:
    """The disputed purchase is proven from two files, by a program that sees neither database nor settings."""
    proof = house.folder / "proof.json"
    await house.run("seal", "prove", "--date", str(first), "--rrn", found.proven_rrn, "-o", str(proof))
    (seal,) = _files(folder, "*.seal")
    said = await house.run("verify", str(proof), "--seal", str(seal), may_fail=True)
    street.books.expect("a proof of a purchase", expected=0, found=said.status)
    found.proven = [line for line in said.out.splitlines() if line.strip()]
    chain = await house.run("verify", "--folder", str(folder.parent), may_fail=True)
    street.books.expect("files and seals of both days", expected=0, found=chain.status)
