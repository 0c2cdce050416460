"""A purchase between a terminal that voids, refunds and reverses, and people with cases about it: the money is always where a small model says."""

import asyncio
import itertools
from collections.abc import Awaitable, Iterator
from typing import Any, ClassVar, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from switch.clearing.disputes.deciding import close, deny
from switch.clearing.disputes.states import NEXT, OPEN, Action, State
from switch.clearing.disputes.steps import ActionRefused, Done
from switch.domain.decisions import Outcome
from switch.domain.transactions import Refund, Reversal, Void
from switch.ledger.book import ShardBook
from switch.ledger.items import Item
from switch.messages.answers import DE39
from switch.storage.pool import connect
from tests.helpers.books import OPENING_FEN, seed
from tests.helpers.disputed import Disputes, asking

pytestmark = [pytest.mark.server, pytest.mark.slow]

HOLDERS = 400
ROUNDS_MAX = 6
FEN = st.sampled_from([1, 99, 300, 301, 500])
MONEY = st.sampled_from(["01", "02", "04"])
T = TypeVar("T")


class CaseLife(RuleBasedStateMachine):
    """given: what has gone back of the purchase. undone: whether a void or reversal stands. charged: whether there ever was a chargeback."""

    loop: ClassVar[asyncio.Runner]
    town: ClassVar[Disputes]
    holders: ClassVar[Iterator[int]]

    @initialize(fen=st.sampled_from([300, 500]))
    def buy(self, fen: int) -> None:
        self.holder, self.fen, self.given, self.undone, self.reversed = (
            next(self.holders),
            fen,
            0,
            False,
            False,
        )
        self.case_no, self.state, self.asked, self.charged, self.charged_fen = 0, State.CLOSED, None, False, 0
        self.bought: tuple[Item, Outcome] = self.run_(self.town.buy(fen, self.holder))

    asked: tuple[Action, int] | None

    def run_(self, coming: Awaitable[T]) -> T:
        async def wait() -> T:
            return await coming

        return self.loop.run(wait())

    def tried(self, coming: Awaitable[Done]) -> Done | None:
        try:
            return self.run_(coming)
        except ActionRefused:
            return None

    # ------------------------------------------------------------------ the terminal

    @rule(fen=FEN)
    def refund(self, fen: int) -> None:
        good = not self.undone and self.given + fen <= self.fen
        told = self.run_(self.town.tell(self.town.undoing(Refund, self.bought, fen)))
        assert told.answer == ("00" if good else "12" if self.undone else "64")
        if good:
            self.given += fen

    @rule()
    def void(self) -> None:
        good = not self.undone and not self.given
        told = self.run_(self.town.tell(self.town.undoing(Void, self.bought)))
        assert told.answer == ("00" if good else "12")
        self.undone |= good

    @precondition(lambda self: not self.reversed)
    @rule()
    def reverse(self) -> None:
        good = not self.undone and not self.given
        told = self.run_(self.town.tell(self.town.undoing(Reversal, self.bought)))
        assert told.answer == ("00" if good else "12")
        self.undone |= good
        self.reversed = True

    # ------------------------------------------------------------------ people

    @rule(action=st.one_of(MONEY, st.just("03")), fen=FEN)
    def open_case(self, action: str, fen: int) -> None:
        wanted = Action(action)
        good = self.state not in OPEN and not (
            self.charged and wanted in (Action.CHARGEBACK, Action.RETRIEVAL)
        )
        good = good and (wanted == Action.RETRIEVAL or fen <= self.fen)
        done = self.tried(self.town.open(self.bought, asking(action, fen)))
        assert (done is not None) == good, (action, fen, self.state)
        if done is not None:
            self.case_no, self.state = done.case_no, done.state
            self.asked = None if wanted == Action.RETRIEVAL else (wanted, fen)

    @precondition(lambda self: self.case_no)
    @rule(action=st.sampled_from(["01", "02", "04", "05"]), fen=FEN)
    def ask(self, action: str, fen: int) -> None:
        wanted = Action(action)
        most = self.charged_fen if wanted == Action.REPRESENTMENT else self.fen
        good = (self.state, wanted) in NEXT and self.asked is None and fen <= most
        done = self.tried(self.town.ask(self.case_no, asking(action, fen)))
        assert (done is not None) == good, (action, fen, self.state, self.asked)
        if good:
            self.asked = wanted, fen

    @precondition(lambda self: self.case_no)
    @rule()
    def approve(self) -> None:
        done = self.tried(self.town.decide(self.case_no))
        if self.asked is None:
            assert done is None
            return
        action, fen = self.asked
        if action in (Action.CREDIT, Action.CHARGEBACK):
            good, given = not self.undone and self.given + fen <= self.fen, self.given + fen
        else:
            back = self.fen if self.undone else self.given
            good, given = fen <= back, back - fen
        assert (done is not None) == good, (self.asked, self.given, self.undone)
        if done is None:
            return
        self.given, self.undone = given, False
        self.state, self.asked = NEXT[self.state, action], None
        assert done.state == self.state
        if action == Action.CHARGEBACK:
            self.charged, self.charged_fen = True, fen

    @rule(fen=FEN)
    def carry_on(self, fen: int) -> None:
        """What state and money allow, asked for and approved: left to themselves few cases would come to their end."""
        left = 0 if self.undone else self.fen - self.given
        if self.asked is None and self.state == State.CHARGED_BACK:
            self.ask("05", min(fen, self.charged_fen))
        elif self.asked is None and self.state == State.RETRIEVAL:
            self.ask("04", min(fen, left or self.fen))
        elif self.asked is None:
            action = "02" if not left else "01" if self.charged else "04"
            self.open_case(action, min(fen, left or self.fen))
        if self.asked is not None:
            self.approve()

    @precondition(lambda self: self.case_no)
    @rule()
    def deny(self) -> None:
        done = self.tried(deny(self.town.pg, self.case_no, checker="wang fang", note="no"))
        assert (done is not None) == (self.asked is not None)
        if done is not None:
            self.asked = None
            if self.state == State.NEW:
                self.state = State.DENIED

    @precondition(lambda self: self.case_no)
    @rule()
    def close(self) -> None:
        done = self.tried(close(self.town.pg, self.case_no, actor="li wei", note="enough"))
        assert (done is not None) == (self.state in OPEN and self.asked is None)
        if done is not None:
            self.state = State.CLOSED

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def holder_and_merchant_have_it_all(self) -> None:
        account = self.holder * 100 + 10
        back = self.fen if self.undone else self.given
        query = (
            f"SELECT a.balance_fen, (SELECT coalesce(sum(CASE debit_code WHEN 2001 THEN amount_fen ELSE -amount_fen END), 0)::bigint FROM posting"
            f" WHERE {account} IN (debit_owner, credit_owner)), (SELECT coalesce(sum(effect_fen), 0)::bigint FROM journal WHERE account_id = {account})"
            f" FROM account a WHERE account_id = {account}"
        )
        (row,) = self.run_(self.town.rows(query))
        assert row == (OPENING_FEN - self.fen + back, self.fen - back, self.fen - back)


def test_whoever_comes_first_a_purchase_goes_back_once_and_never_beyond_its_amount(postgres_url: str) -> None:
    with asyncio.Runner() as runner:
        pg: Any = runner.run(connect(postgres_url))
        day = runner.run(seed(pg, holders=HOLDERS, terminals=1))
        book = ShardBook(0, lambda: connect(postgres_url), DE39)
        CaseLife.loop, CaseLife.holders = runner, itertools.count(1)
        CaseLife.town = Disputes(postgres_url, pg, book, day)
        try:
            life = CaseLife.TestCase()
            life.settings = settings(
                max_examples=12,
                stateful_step_count=16,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            for _ in range(ROUNDS_MAX):  # chance may decide few cases in one
                life.runTest()
                ((decided,),) = runner.run(CaseLife.town.rows("SELECT count(*) FROM journal WHERE class = 3"))
                if decided > 5:
                    break
        finally:
            book.stop()
            runner.run(book.run())
            runner.run(pg.close())
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) > 5 FROM journal WHERE class = 3").fetchone() == (True,)
