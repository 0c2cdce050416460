"""The whole life of an account: two books on one database against a model in memory, whatever is asked in whatever order."""

import asyncio
import itertools
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from psycopg import AsyncConnection

from switch.domain.decisions import Outcome
from switch.domain.identifiers import asn_of
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    CardRequest,
    Completion,
    CompletionVoid,
    Kind,
    Load,
    LoadConfirm,
    LoadSource,
    Original,
    PreAuthorisation,
    PreAuthorisationVoid,
    Purchase,
    PurseConfirmData,
    PurseLoadData,
    Refund,
    Reversal,
    Void,
)
from switch.ledger.book import ShardBook
from switch.ledger.card_desk import change_card, find_card
from switch.ledger.card_states import Move
from switch.ledger.items import FINANCIAL, REVERSAL, Item
from switch.ledger.limit_desk import set_limit
from switch.ledger.limits import LimitRule
from switch.ledger.load_states import Loading
from switch.messages.answers import DE39
from switch.storage.pool import connect
from tests.helpers.account_model import BUYS, HOLDS, TAKES, VOIDS, AccountModel
from tests.helpers.books import OPENING_FEN, card_of, item, seed

pytestmark = [pytest.mark.server, pytest.mark.slow]

HOLDERS = 2_000
DAY_LIMIT = 1_500
ONLINE = AccountKind.ONLINE
KINDS = {
    BUYS: Kind.PURCHASE,
    HOLDS: Kind.PRE_AUTHORISATION,
    TAKES: Kind.COMPLETION,
    "void": Kind.VOID,
    "pre-authorisation void": Kind.PRE_AUTHORISATION_VOID,
    "completion void": Kind.COMPLETION_VOID,
}
AMOUNTS = st.one_of(st.integers(0, OPENING_FEN + 50), st.sampled_from([100, 115, 116, 200, 230, 500, 1_000]))


class AccountLife(RuleBasedStateMachine):
    """One holder of a ledger that all examples share."""

    loop: ClassVar[asyncio.Runner]
    books: ClassVar[tuple[ShardBook, ShardBook]]
    desk: ClassVar[AsyncConnection[Any]]
    day: ClassVar[date]
    holders: ClassVar[Iterator[int]]

    @initialize()
    def begin(self) -> None:
        self.holder = next(self.holders)
        self.model = AccountModel(OPENING_FEN, DAY_LIMIT)
        self.items: list[Item] = []
        self.outcomes: list[Outcome] = []
        self.reversed: set[int] = set()
        self.random = 0

    # ------------------------------------------------------------------ what can be asked

    def _number(self, data: st.DataObject, *kinds: str) -> int:
        """One of the requests so far, of these kinds where there are any."""
        fitting = [n for n, deal in enumerate(self.model.deals) if deal.kind in kinds and deal.answer == "00"]
        return data.draw(st.sampled_from(fitting or range(len(self.model.deals))))

    def _request(self, kind: str, fen: int, of: int | None) -> CardRequest:
        card = card_of(self.holder)
        if of is None:
            return (Purchase if kind == BUYS else PreAuthorisation)(card, ONLINE, Fen(fen), None, "051")
        first, day = self.items[of], self.day
        named = Original(1, first.key.stan, day.month, day.day)
        rrn, code = self.outcomes[of].rrn, self.outcomes[of].auth_code
        if kind == "reversal":
            return Reversal(
                card, ONLINE, Fen(fen), named, KINDS[self.model.deals[of].kind], "98", "051", "000000"
            )
        if kind == "refund":
            return Refund(card, ONLINE, Fen(fen), named, rrn, "051")
        if kind == TAKES:
            return Completion(card, ONLINE, Fen(fen), named, code, "051", advice=False)
        if kind == "pre-authorisation void":
            return PreAuthorisationVoid(card, ONLINE, Fen(fen), named, code, "051")
        return (Void if kind == "void" else CompletionVoid)(card, ONLINE, Fen(fen), named, rrn, code, "051")

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

    @rule(data=st.data(), fen=AMOUNTS, kind=st.sampled_from([BUYS, HOLDS, HOLDS]))
    def spend(self, data: st.DataObject, fen: int, kind: str) -> None:
        free, left = self.model.free, max(DAY_LIMIT - self.model.spent, 0)
        self._ask(kind, data.draw(st.sampled_from([fen, free // 3, free, free + 1, left, left + 1])))

    @precondition(lambda self: self.items)
    @rule(data=st.data(), fen=AMOUNTS)
    def complete(self, data: st.DataObject, fen: int) -> None:
        of = self._number(data, HOLDS)
        whole = self.model.deals[of].fen
        most = whole * 115 // 100
        self._ask(TAKES, data.draw(st.sampled_from([fen, whole // 2, whole, most, most + 1])), of)

    @precondition(lambda self: self.items)
    @rule(data=st.data(), kind=st.sampled_from(sorted(VOIDS)))
    def void(self, data: st.DataObject, kind: str) -> None:
        of = self._number(data, VOIDS[kind])
        self._ask(kind, self.model.deals[of].fen, of)

    @precondition(lambda self: self.items)
    @rule(data=st.data(), fen=AMOUNTS)
    def refund(self, data: st.DataObject, fen: int) -> None:
        self._ask("refund", fen, self._number(data, BUYS, TAKES))

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        of = self._number(data, *KINDS)
        if self.model.deals[of].kind in KINDS and of not in self.reversed:
            self.reversed.add(of)
            self._ask("reversal", self.model.deals[of].fen, of)

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.items) - 1))
        assert self._settle(self.items[number]) == self.outcomes[number]

    # ------------------------------------------------------------------ loads

    @rule(data=st.data(), fen=AMOUNTS, own=st.booleans())
    def load(self, data: st.DataObject, fen: int, own: bool) -> None:
        """The card is loaded; what it does with it, and what its terminal says of that, comes with it or never."""
        fen = data.draw(st.sampled_from([fen, self.model.free, self.model.free + 1]))
        asked = self._of_load(self._load_request(fen, own=own), credit=True)
        outcome = self._settle(asked)
        assert outcome.answer == self.model.load(fen, own=own)
        self.items.append(asked)
        self.outcomes.append(outcome)
        if outcome.answer != "00":
            return
        # A terminal reverses only what was not credited; whatever else it says or leaves out, the card settles it next time.
        credited, how = data.draw(
            st.sampled_from(
                [
                    (True, "confirm"),
                    (True, "wrong"),
                    (True, "gone"),
                    (True, ""),
                    (False, "gone"),
                    (False, "reversal"),
                    (False, ""),
                ]
            )
        )
        if credited:
            self.model.credit()
        if how:
            self._end_load(asked, outcome, how)

    def _load_request(self, fen: int, *, own: bool) -> Load:
        card = card_of(self.holder)
        self.random += 1
        purse = PurseLoadData(
            asn_of(card),
            bytes(8),
            1,
            1,
            0,
            Fen(self.model.card_fen),
            self.model.card_counter,
            self.random.to_bytes(4),
            bytes(4),
            bytes(6),
        )
        return Load(card, LoadSource.ONLINE if own else LoadSource.CASH, Fen(fen), None, purse, "051")

    def _of_load(
        self, request: CardRequest, *, credit: bool = False, good: bool = False, stan: int = 0
    ) -> Item:
        loading = Loading(
            99993350,
            takes_cash=True,
            card_proven=credit,
            credit=lambda _at: b"55",
            tac_holds=lambda _load: good,
        )
        asked = item(
            request,
            since=self.day,
            holder_id=self.holder,
            stan=stan,
            rclass=REVERSAL if isinstance(request, Reversal) else FINANCIAL,
            content=f"load {len(self.items)}".encode(),
        )
        return asked._replace(loading=loading)

    def _end_load(self, loaded: Item, told: Outcome, how: str) -> None:
        request = loaded.request
        assert isinstance(request, Load)
        assert request.purse is not None
        named = Original(1, loaded.key.stan, self.day.month, self.day.day)
        if how == "reversal":
            content: CardRequest = Reversal(
                request.card, ONLINE, request.amount_fen, named, Kind.LOAD, "98", "051", "630000"
            )
            asked = self._of_load(content, stan=loaded.key.stan)
        else:
            gone = how == "gone"
            data = PurseConfirmData(
                request.purse.asn,
                request.purse.online_atc,
                bytes(6),
                bytes(4),
                bytes(3),
                None if gone else bytes(4),
                None if gone else Fen(0),
                0 if gone else 0x9000,
            )
            content = LoadConfirm(
                request.card, request.source, request.amount_fen, named, told.rrn, data, "051"
            )
            asked = self._of_load(content, good=how == "confirm")
        outcome = self._settle(asked)
        assert outcome.answer == self.model.end_load(how)
        self.items.append(asked)
        self.outcomes.append(outcome)

    # ------------------------------------------------------------------ what happens meanwhile

    @rule()
    def lose_or_lift(self) -> None:
        async def change() -> None:
            place = await find_card(self.desk, card_of(self.holder).reveal())
            move = Move.LIFT if self.model.lost else Move.LOSE
            await change_card(self.desk, place, move, actor="a tester", reason="so it went")

        self.loop.run(change())
        self.model.lost = not self.model.lost
        if self.model.lost:  # in force from the next whole millisecond
            self.loop.run(asyncio.sleep(0.001))

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def a_hold_expires(self, data: st.DataObject) -> None:
        number = self._number(data, HOLDS)

        async def let_expire() -> None:
            await self.desk.execute(
                "UPDATE hold SET expires_at = clock_timestamp() WHERE entry_no = (SELECT entry_no FROM journal"
                " WHERE terminal_no = 1 AND stan = %s AND class = 0)",
                (self.items[number].key.stan,),
            )
            await self.desk.execute(
                "UPDATE account SET holds_due = clock_timestamp() WHERE holder_id = %s AND holds_due IS NOT NULL",
                (self.holder,),
            )

        self.loop.run(let_expire())
        self.model.expire(number)

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def books_and_model_agree(self) -> None:
        async def read() -> tuple[Any, ...]:
            cursor = await self.desk.execute(
                "SELECT a.balance_fen,"
                " (SELECT coalesce(sum(frozen_fen), 0) FROM hold h WHERE h.account_id = a.account_id"
                "   AND ended_by IS NULL AND expires_at > clock_timestamp()),"
                " coalesce((SELECT day_fen FROM limit_window w WHERE w.account_id = a.account_id), 0),"
                " (SELECT coalesce(sum(CASE WHEN credit_code = 2001 THEN amount_fen ELSE -amount_fen END), 0) FROM posting"
                "   WHERE (credit_code, credit_owner) = (2001, a.account_id) OR (debit_code, debit_owner) = (2001, a.account_id)),"
                " (SELECT loaded_fen FROM purse WHERE card_no = a.holder_id)"
                " FROM account a WHERE a.holder_id = %s",
                (self.holder,),
            )
            row = await cursor.fetchone()
            assert row is not None
            return tuple(row)

        balance, held, spent, moved, in_float = self.loop.run(read())
        assert in_float == self.model.in_float
        assert (balance, held, spent) == (self.model.balance, self.model.held, self.model.spent)
        assert balance == OPENING_FEN + moved


def test_whatever_is_asked_of_an_account_the_book_answers_as_the_model_does(postgres_url: str) -> None:
    async def prepare() -> None:
        desk = await connect(postgres_url)
        day = await seed(desk, holders=HOLDERS, terminals=1)
        await desk.execute(
            "INSERT INTO purse (shard, card_no, asn) SELECT 0, card_no, lpad(pan, 20, '0') FROM card"
        )
        limit = LimitRule(10, None, None, DAY_LIMIT, None, None, None, day + timedelta(days=1), None)
        await set_limit(desk, limit, range(1), actor="a tester", reason="as agreed")
        await desk.execute("UPDATE limit_rule SET valid_from = valid_from - 1")
        await desk.execute("UPDATE account SET limited_from = limited_from - 1")
        AccountLife.day, AccountLife.desk = day, desk

    with asyncio.Runner() as runner:
        runner.run(prepare())
        AccountLife.loop = runner
        AccountLife.holders = itertools.count(1)
        AccountLife.books = (
            ShardBook(0, lambda: connect(postgres_url), DE39),
            ShardBook(0, lambda: connect(postgres_url), DE39),
        )
        try:
            life = AccountLife.TestCase()
            life.settings = settings(
                max_examples=30,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            life.runTest()
        finally:
            for book in AccountLife.books:
                book.stop()
                runner.run(book.run())
            runner.run(AccountLife.desk.close())
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) > 100 FROM journal").fetchone() == (True,)
