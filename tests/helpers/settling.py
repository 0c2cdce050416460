"""A city whose closed days can be settled: days of some journal rows, accounts of everybody, and the steps of a settlement by name."""

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from switch.clearing.close import CloseTerms, close_day
from switch.clearing.settlement.order import Ordered, OrderTerms, order
from switch.clearing.settlement.payouts import Awaited, approve
from switch.clearing.settlement.prepare import Prepared, prepare
from switch.clearing.settlement.statements import StatementTerms, Taken, take_statement
from switch.clearing.settlement.terms import confirm_account, propose_account
from switch.keys.software_vault import SoftwareVault
from switch.ledger.bookings import Booking, book
from switch.ledger.days import open_day
from switch.ledger.fold import fold_all
from tests.helpers.clearing_day import CENTRE, OWN, add_journal, add_participants
from tests.helpers.days import make_days

Pg = AsyncConnection[Any]

GROCER, BUSES, NOODLES, HOSPITAL = (
    "993350054110001",
    "993350041110002",
    "993310058120003",
    "993350080620004",
)
MERCHANTS = (GROCER, BUSES, NOODLES, HOSPITAL)
OTHER = "99993310"  # the second acquirer, which is owed shares of fees
CUSTODY = "6222000000000000012"


class Settling:
    """One city. Days follow each other at once; holidays: which of its days (0 the first) no money moves on."""

    def __init__(self, pg: Pg, vault: SoftwareVault, folder: Path, holidays: Iterable[int] = ()) -> None:
        self.pg = pg
        self.vault = vault
        self.folder = folder
        self.first = date.min
        self._holidays = frozenset(holidays)
        self._rows = 5_000_000  # beyond the serials that bookings take
        self.awaited: tuple[Awaited, ...] = ()

    async def found(self) -> None:
        """Participants and business days."""
        self.first, *_ = await make_days(self.pg, 6)
        await add_participants(self.pg)

    def is_workday(self, day: date) -> bool:
        """All days but the holidays."""
        return (day - self.first).days not in self._holidays

    async def trade(self, count: int = 40) -> date:
        """Some journal rows on the open day; which day that is."""
        day = await open_day(self.pg)
        assert day is not None
        if count:
            await add_journal(self.pg, day.day, count, self._rows)
            self._rows += 1_000
        return day.day

    async def close(self) -> date:
        """Close the open day."""
        terms = CloseTerms(OWN, CENTRE, "49993350", (0, 1), self.folder, self.is_workday, lead_s=0.02)
        day = await self.trade(0)
        await close_day(self.pg, day, terms, "a tester")
        await self.pg.execute("SET enable_nestloop = on")
        return day

    async def account(
        self, party: str, number: str = "", actor: str = "li wei", since: date | None = None
    ) -> int:
        """Where somebody is paid, proposed and confirmed."""
        account_no = await propose_account(
            self.pg,
            self.vault,
            party,
            account_name=f"Holder of {party[-4:]} & sons",
            number=number or f"6222{int(party):015d}"[-19:],
            bank_code="102331002029" if len(party) == 15 else "ICBKCNBJHAN",
            valid_from=since or self.first,
            actor=actor,
            reason="as agreed",
        )
        await confirm_account(self.pg, account_no, actor="wang fang")
        return account_no

    async def accounts(self) -> None:
        """Everybody's, ours included."""
        for party in (*MERCHANTS, OTHER):
            await self.account(party)
        await self.account(OWN, CUSTODY)

    async def prepare(self, day: date | None = None) -> Prepared:
        return await prepare(self.pg, day, "li wei")

    async def approve(self, day: date, ids: list[str] | None = None) -> list[str]:
        return await approve(self.pg, day, ids, actor="wang fang")

    @property
    def order_terms(self) -> OrderTerms:
        return OrderTerms(OWN, self.folder, (0, 1), self.is_workday, self.awaited)

    async def order(self, day: date, override: str = "") -> Ordered:
        return await order(self.pg, day, self.order_terms, self.vault, actor="zhao min", override=override)

    async def settle(self, day: date | None = None) -> date:
        """Prepare, approve and order."""
        made = await self.prepare(day)
        await self.approve(made.settlement_date)
        await self.order(made.settlement_date)
        return made.settlement_date

    async def take(self, path: Path, bytes_max: int = 1 << 24) -> list[Taken]:
        terms = StatementTerms(OWN, (0, 1), bytes_max)
        return await take_statement(self.pg, path, terms, self.vault, actor="zhao min")

    async def pay(self, *bookings: Booking) -> None:
        """Book what no terminal moves."""
        async with self.pg.transaction():
            await book(self.pg, bookings, actor="li wei", checker="wang fang")
        await self.fold()

    async def fold(self) -> None:
        await fold_all(self.pg, (0, 1))

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query says."""
        return await (await self.pg.execute(query.encode(), values)).fetchall()

    async def one(self, query: str, *values: object) -> Any:
        """The one value that a query says."""
        ((value,),) = await self.rows(query, *values)
        return value

    def settled_by(self, days: int) -> date:
        """A settlement date, so many days after the first."""
        return self.first + timedelta(days=days)
