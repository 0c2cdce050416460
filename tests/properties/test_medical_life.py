"""A medical and an online account that pay together: two books on one database against a model, whatever is asked in whatever order."""

import asyncio
import itertools
from collections.abc import Iterator
from datetime import date
from fractions import Fraction
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from psycopg import AsyncConnection

from switch.domain.decisions import Outcome
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    CardRequest,
    Kind,
    Original,
    Purchase,
    Refund,
    Reversal,
    Void,
)
from switch.ledger.book import ShardBook
from switch.ledger.items import FINANCIAL, REVERSAL, Item
from switch.messages.answers import DE39
from switch.storage.pool import connect
from tests.helpers.books import OPENING_FEN, card_of, item
from tests.helpers.medical_model import BUYS, MEDICAL, ONLINE, MedicalModel
from tests.unit.ledger.test_book_medical import governed, in_order, opened

pytestmark = [pytest.mark.server, pytest.mark.slow]

HOLDERS = 2_000
OWN_PPM = 333_333
MOST, MOST_A_DAY = 400, 700
AMOUNTS = st.one_of(
    st.integers(0, OPENING_FEN + 50), st.integers(1, 9), st.sampled_from([100, 599, 600, 601])
)


class MedicalLife(RuleBasedStateMachine):
    """One holder of a ledger that all examples share."""

    loop: ClassVar[asyncio.Runner]
    books: ClassVar[tuple[ShardBook, ShardBook]]
    desk: ClassVar[AsyncConnection[Any]]
    day: ClassVar[date]
    holders: ClassVar[Iterator[int]]

    @initialize()
    def begin(self) -> None:
        self.holder = next(self.holders)
        self.model = MedicalModel(OPENING_FEN, Fraction(OWN_PPM, 1_000_000), MOST, MOST_A_DAY)
        self.items: list[Item] = []
        self.outcomes: list[Outcome] = []
        self.reversed: set[int] = set()

    # ------------------------------------------------------------------ what can be asked

    def _root(self, number: int) -> str:
        """The kind of purchase that a request is about."""
        deal = self.model.deals[number]
        return deal.kind if deal.of is None else self._root(deal.of)

    def _number(self, data: st.DataObject, *kinds: str) -> int:
        fitting = [n for n, deal in enumerate(self.model.deals) if deal.kind in kinds and deal.answer == "00"]
        return data.draw(st.sampled_from(fitting or range(len(self.model.deals))))

    def _request(self, kind: str, fen: int, of: int | None) -> CardRequest:
        card = card_of(self.holder)
        root = kind if of is None else self._root(of)
        account = AccountKind.MEDICAL if root == MEDICAL else AccountKind.ONLINE
        if of is None:
            return Purchase(card, account, Fen(fen), None, "051")
        first, day = self.items[of], self.day
        named = Original(1, first.key.stan, day.month, day.day)
        rrn, code = self.outcomes[of].rrn, self.outcomes[of].auth_code
        if kind == "reversal":
            was = Kind.PURCHASE if self.model.deals[of].kind in BUYS else Kind.VOID
            return Reversal(card, account, Fen(fen), named, was, "98", "051", "000000")
        if kind == "refund":
            return Refund(card, account, Fen(fen), named, rrn, "051")
        return Void(card, account, Fen(fen), named, rrn, code, "051")

    def _ask(self, kind: str, fen: int, of: int | None = None) -> None:
        turning_back = kind == "reversal" and of is not None
        asked = item(
            self._request(kind, fen, of),
            since=self.day,
            holder_id=self.holder,
            stan=self.items[of].key.stan if turning_back and of is not None else 0,
            rclass=REVERSAL if turning_back else FINANCIAL,
            content=f"{kind} {fen} {of}".encode(),
        )
        outcome = self._settle(asked)
        assert outcome.answer == self.model.ask(kind, fen, of), (kind, fen, of, self.model.deals)
        self.items.append(asked)
        self.outcomes.append(outcome)

    def _settle(self, asked: Item) -> Outcome:
        book = self.books[len(self.items) % 2]
        return self.loop.run(book.settle([asked]))[0]

    @rule(data=st.data(), fen=AMOUNTS, kind=st.sampled_from([ONLINE, MEDICAL, MEDICAL]))
    def buy(self, data: st.DataObject, fen: int, kind: str) -> None:
        both = self.model.medical + self.model.online
        self._ask(kind, data.draw(st.sampled_from([fen, fen, both // 3, self.model.online])))

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        of = self._number(data, *BUYS)
        self._ask("void", self.model.deals[of].fen, of)

    @precondition(lambda self: self.items)
    @rule(data=st.data(), fen=AMOUNTS)
    def refund(self, data: st.DataObject, fen: int) -> None:
        of = self._number(data, *BUYS)
        left = max(self.model.deals[of].fen - self.model.deals[of].refunded, 0)
        self._ask("refund", data.draw(st.sampled_from([fen, left // 3, left // 2, left, left + 1])), of)

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        of = self._number(data, *BUYS, "void")
        if self.model.deals[of].kind in (*BUYS, "void") and of not in self.reversed:
            self.reversed.add(of)
            self._ask("reversal", self.model.deals[of].fen, of)

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.items) - 1))
        assert self._settle(self.items[number]) == self.outcomes[number]

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def books_and_model_agree(self) -> None:
        async def read() -> Any:
            cursor = await self.desk.execute(
                "SELECT m.balance_fen, o.balance_fen, coalesce(w.day_fen, 0), coalesce(w.year_fen, 0)"
                " FROM account m JOIN account o ON o.account_id = m.account_id - 30"
                " LEFT JOIN medical_window w ON w.account_id = m.account_id WHERE m.account_id = %s",
                (self.holder * 100 + 40,),
            )
            return await cursor.fetchone()

        model = self.model
        assert self.loop.run(read()) == (model.medical, model.online, model.covered, model.covered)


def test_whatever_is_asked_of_two_accounts_that_pay_together_the_book_answers_as_the_model_does(
    postgres_url: str,
) -> None:
    async def prepare() -> None:
        desk = await connect(postgres_url)
        MedicalLife.day = await opened(desk, holders=HOLDERS)
        MedicalLife.desk = desk
        await governed(desk, MedicalLife.day, OWN_PPM, MOST, MOST_A_DAY)

    async def audit() -> None:
        assert await in_order(MedicalLife.desk)
        cursor = await MedicalLife.desk.execute(
            "SELECT count(*) > 50 FROM purchase_split WHERE own_fen > 0 AND medical_fen > 0"
        )
        assert await cursor.fetchone() == (True,)

    with asyncio.Runner() as runner:
        runner.run(prepare())
        MedicalLife.loop = runner
        MedicalLife.holders = itertools.count(1)
        MedicalLife.books = (
            ShardBook(0, lambda: connect(postgres_url), DE39),
            ShardBook(0, lambda: connect(postgres_url), DE39),
        )
        try:
            life = MedicalLife.TestCase()
            life.settings = settings(
                max_examples=40,  # so that enough of them divide a purchase: see audit
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            life.runTest()
            runner.run(audit())
        finally:
            for book in MedicalLife.books:
                book.stop()
                runner.run(book.run())
            runner.run(MedicalLife.desk.close())
