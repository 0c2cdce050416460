"""A small ledger with cases: what tests of disputes do again and again."""

from datetime import date
from typing import Any

from psycopg import AsyncConnection

from switch.clearing.disputes.cases import ask, open_case
from switch.clearing.disputes.deciding import decide
from switch.clearing.disputes.originals import find_transaction
from switch.clearing.disputes.states import Action
from switch.clearing.disputes.steps import Ask, Done
from switch.domain.decisions import Outcome
from switch.domain.hosts import HostAnswer, HostService
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, Kind, Original, Purchase, Refund, Reversal, Void
from switch.ledger.book import ShardBook
from switch.ledger.items import REVERSAL, Item
from switch.ledger.leg_state import HostAsk
from switch.ledger.legs import Asked, LegEnd
from switch.storage.pool import connect
from tests.helpers.books import card_of, item, purchase

OWN, BANK = "99993350", "01020000"
BANK_ASK = HostAsk(
    "bank", HostService.PURCHASE, 1101, int(BANK), card_of(1), "00000001", "993350054110001", 15.0
)
REASON = {
    Action.CREDIT: "11",
    Action.DEBIT: "40",
    Action.RETRIEVAL: "30",
    Action.CHARGEBACK: "20",
    Action.REPRESENTMENT: "50",
    Action.GREY: "60",
    Action.REFUSED_RECORD: "62",
    Action.LOAD: "71",
}


def asking(action: str, fen: int | None = None, maker: str = "li wei", **more: Any) -> Ask:
    """What a person asks for."""
    wanted = Action(action)
    return Ask(wanted, REASON[wanted], "the slip says so", maker, fen, **more)


class Disputes:
    """Cases of shard 0 of a small ledger, with the terminal that sold."""

    def __init__(self, url: str, pg: AsyncConnection[Any], book: ShardBook, day: date) -> None:
        self.url, self.pg, self.book, self.day = url, pg, book, day

    async def tell(self, asked: Item) -> Outcome:
        """One request of a terminal."""
        (outcome,) = await self.book.settle([asked])
        assert isinstance(outcome, Outcome)
        return outcome

    async def buy(self, fen: int = 500, holder: int = 1) -> tuple[Item, Outcome]:
        """An approved purchase."""
        bought = item(purchase(fen, holder_id=holder), since=self.day, holder_id=holder)
        outcome = await self.tell(bought)
        assert outcome.answer == "00"
        return bought, outcome

    async def bank_buy(self, fen: int = 500, holder: int = 1, code: str = "00") -> tuple[Item, Outcome]:
        """A purchase that the bank decides; with another code one that it declines, with none one whose end nobody knows."""
        request = Purchase(card_of(holder), AccountKind.BANK, Fen(fen), None, "051")
        asked = item(request, since=self.day, holder_id=holder)._replace(ask=BANK_ASK)
        (told,) = await self.book.settle([asked])
        assert isinstance(told, Asked)
        said = HostAnswer(told.key, code, "B00001", "", None, "1127", None, "") if code else None
        ending = LegEnd(request.card, request.account, request.amount_fen, said, "051")
        outcome = await self.tell(
            asked._replace(request=ending, since=told.business_date, generation=2**31 - 1, ask=None)
        )
        return asked, outcome

    def undoing(
        self,
        kind: type[Void] | type[Refund] | type[Reversal],
        of: tuple[Item, Outcome],
        fen: int = 0,
        was: Kind = Kind.PURCHASE,
    ) -> Item:
        """What the terminal sends to undo a purchase (or with `was` a void)."""
        bought, outcome = of
        request = bought.request
        assert isinstance(request, Purchase | Void)
        account: AccountKind = request.account
        fen = fen or request.amount_fen
        named = Original(1, bought.key.stan, self.day.month, self.day.day)
        holder = bought.holder_id
        if kind is Reversal:
            undone = Reversal(card_of(holder), account, Fen(fen), named, was, "98", "051", "001000")
            return item(
                undone,
                since=self.day,
                holder_id=holder,
                stan=bought.key.stan,
                rclass=REVERSAL,
                content=b"reversal",
            )
        if kind is Void:
            return item(
                Void(card_of(holder), account, Fen(fen), named, outcome.rrn, outcome.auth_code, "051"),
                since=self.day,
                holder_id=holder,
            )
        return item(
            Refund(card_of(holder), account, Fen(fen), named, outcome.rrn, "051"),
            since=self.day,
            holder_id=holder,
        )

    async def open(self, of: tuple[Item, Outcome], asked: Ask) -> Done:
        """A case about a purchase."""
        original = await find_transaction(self.pg, self.day, OWN, rrn=of[1].rrn)
        return await open_case(self.pg, original, asked)

    async def ask(self, case_no: int, asked: Ask) -> Done:
        """The next action."""
        return await ask(self.pg, case_no, asked)

    async def decide(self, case_no: int, checker: str = "wang fang") -> Done:
        """Another person agrees."""
        return await decide(lambda: connect(self.url), case_no, checker=checker)

    async def did(self, of: tuple[Item, Outcome], action: str, fen: int | None = None) -> Done:
        """A case that is opened and decided at once."""
        return await self.decide((await self.open(of, asking(action, fen))).case_no)

    async def balance(self, holder: int = 1) -> int:
        """Of the holder's online account."""
        (row,) = await self.rows(f"SELECT balance_fen FROM account WHERE account_id = {holder}10")
        return int(row[0])

    async def merchant(self) -> int:
        """What the merchant is owed."""
        (row,) = await self.rows(
            "SELECT coalesce(sum(CASE WHEN credit_code = 2101 THEN amount_fen ELSE -amount_fen END), 0)::bigint"
            " FROM posting WHERE 2101 IN (debit_code, credit_code)"
        )
        return int(row[0])

    async def use(self) -> list[Any]:
        """What is used up of originals."""
        return await self.rows(
            "SELECT refunded_fen, undone_by IS NOT NULL FROM original_use ORDER BY entry_no"
        )

    async def rows(self, query: str) -> list[Any]:
        """Of a query."""
        return await (await self.pg.execute(query.encode())).fetchall()
