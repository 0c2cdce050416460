"""The last reckoning: what the bank has in its own books, what lies in the kiosks and what no card has proved, held against the switch's."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from switch.domain.transactions import AccountKind
from terminal_sim.city.bank_house import BankHouse
from terminal_sim.city.books import Books
from terminal_sim.city.house import House
from terminal_sim.city.loading import End, Hall
from terminal_sim.city.street import Street

AGENTS, BANKS, SUSPENSE = "1002", "1101", "2201"  # as `cardswitch audit` calls them
LISTED_MAX = 10_000


class Reckoning(NamedTuple):
    """Amounts in fen. moved: paid by the bank's accounts and not got back, by its own books; owed: by the switch's. cash: in the kiosks, by the switch's."""

    moved_fen: int
    owed_fen: int
    purchases: int  # by bank card, approved, as terminals know
    entries: int  # of the bank's books
    cash_fen: int

    @property
    def agrees(self) -> bool:
        """Bank and switch, to the fen."""
        return self.moved_fen == self.owed_fen

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "purchases": self.purchases,
            "messages_booked": self.entries,
            "moved_fen": self.moved_fen,
            "owed_fen": self.owed_fen,
            "agrees": self.agrees,
        }


async def reckon(
    street: Street, house: House, bank: BankHouse, hall: Hall, balances: Mapping[str, int]
) -> Reckoning:
    """Compare three accounts with those who know better. balances: by code, debit positive, as the audit summed them up."""
    books = street.books
    owed = await bank.settled()
    books.expect(
        "messages that the bank was not told", expected=(0, 0), found=(owed["open"], owed["refused"])
    )
    kept = bank.books()
    found = Reckoning(
        kept.moved_fen,
        int(balances.get(BANKS, 0)),
        _purchases(books),
        len(kept.entries),
        int(balances.get(AGENTS, 0)),
    )
    books.expect("1101, by the bank's own books, in fen", expected=kept.moved_fen, found=found.owed_fen)
    books.expect("1002, by what lies in the kiosks, in fen", expected=hall.cash_fen, found=found.cash_fen)
    books.expect(
        "2201, by the loads that no card has proved, in fen",
        expected=-hall.fen(End.SUSPENSE),
        found=int(balances.get(SUSPENSE, 0)),
    )
    await _compare_loads(hall, house, books)
    return found


def _purchases(books: Books) -> int:
    return sum(
        booking.account is AccountKind.BANK and booking.amount_fen > 0
        for day in books.bookings.values()
        for booking in day.values()
    )


async def _compare_loads(hall: Hall, house: House, books: Books) -> None:
    """Every load is in the state in which its kiosk believes it, by `cardswitch loads list`."""
    states = [end.value for end in End if end is not End.DECLINED]
    options = [part for state in states for part in ("--state", state)]
    ran = await house.run("loads", "list", "--json", "--limit", str(LISTED_MAX), *options)
    listed: list[dict[str, Any]] = ran.document
    found = Counter((str(one["state"]), int(one["amount_fen"])) for one in listed)
    wanted = Counter((load.end.value, load.amount_fen) for load in hall.loads if load.end is not End.DECLINED)
    books.expect("loads by state and amount", expected=sorted(wanted.items()), found=sorted(found.items()))
