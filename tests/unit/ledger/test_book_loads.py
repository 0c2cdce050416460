"""Loads on a real database: every way between the states, with its money, and the constraints behind it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from importlib.resources import files
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.domain.decisions import Outcome
from switch.domain.errors import InputRefused
from switch.domain.identifiers import asn_of
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    Kind,
    Load,
    LoadConfirm,
    LoadSource,
    Original,
    PurseConfirmData,
    PurseLoadData,
    PurseReversalData,
    Reversal,
)
from switch.ledger.book import ShardBook
from switch.ledger.items import REVERSAL, Item
from switch.ledger.load_desk import settle, suspend_unconfirmed, suspense
from switch.ledger.load_states import Loading, LoadMove, LoadState
from switch.purse.shadow import fold_purses
from switch.storage.pool import connect
from tests.helpers.books import OPENING_FEN, a_book, card_of, item, purchase, seed

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
AGENT = 99993350
PSAM = bytes.fromhex("335000000017")
CASH, ONLINE = LoadSource.CASH, LoadSource.ONLINE


def credit(at: datetime) -> bytes:
    return b"told at " + at.isoformat().encode()


PROVEN = Loading(AGENT, takes_cash=True, card_proven=True, credit=credit)


@dataclass
class Desk:
    """A counter where the card of holder 1 is loaded."""

    book: ShardBook
    day: date
    random: int = 0

    async def settle(self, asked: Item) -> Outcome:
        (outcome,) = await self.book.settle([asked])
        return outcome

    def load(
        self,
        fen: int = 300,
        *,
        atc: int = 0,
        source: LoadSource = CASH,
        loading: Loading = PROVEN,
        random: int | None = None,
        balance: int = 0,
        **how: Any,
    ) -> Item:
        self.random += 1
        card = card_of(1)
        made = (self.random if random is None else random).to_bytes(4, "big")
        data = PurseLoadData(asn_of(card), bytes(8), 1, 1, 0, Fen(balance), atc, made, bytes(4), PSAM)
        request = Load(card, source, Fen(fen), None, data, "051")
        return item(request, since=self.day, **how)._replace(loading=loading)

    def confirm(
        self, of: Item, told: Outcome, *, good: bool | None = True, fen: int = 0, stan: int = 0, **how: Any
    ) -> Item:
        """good None: the card is gone."""
        request = of.request
        assert isinstance(request, Load)
        assert request.purse is not None
        gone = good is None
        data = PurseConfirmData(
            request.purse.asn,
            how.pop("atc", request.purse.online_atc),
            PSAM,
            bytes(4),
            bytes(3),
            None if gone else bytes(4),
            None if gone else Fen(0),
            0 if gone else 0x9000,
        )
        named = Original(1, stan or of.key.stan, self.day.month, self.day.day)
        confirmed = LoadConfirm(
            request.card, request.source, Fen(fen or request.amount_fen), named, told.rrn, data, "051"
        )
        loading = Loading(tac_holds=lambda _load: bool(good))
        return item(confirmed, since=self.day, **how)._replace(loading=loading)

    def reversal(self, of: Item, *, atc: int | None = None, fen: int = 0) -> Item:
        request = of.request
        assert isinstance(request, Load)
        seen = None
        if atc is not None:
            seen = PurseReversalData(asn_of(request.card), Fen(0), atc, 0x9302)
        named = Original(1, of.key.stan, self.day.month, self.day.day)
        undone = Reversal(
            request.card,
            AccountKind.ONLINE,
            Fen(fen or request.amount_fen),
            named,
            Kind.LOAD,
            "98",
            "051",
            "630000",
            seen,
        )
        made = item(undone, since=self.day, stan=of.key.stan, rclass=REVERSAL)
        return made._replace(loading=Loading(AGENT))


async def prepared(pg: Pg) -> date:
    day = await seed(pg)
    await pg.execute(
        "INSERT INTO purse (shard, card_no, asn) SELECT 0, card_no, lpad(pan, 20, '0') FROM card"
    )
    return day


async def states(pg: Pg) -> str:
    """The loads in order, as words."""
    cursor = await pg.execute("SELECT state FROM purse_load ORDER BY entry_no")
    return " ".join(LoadState(row[0]).name for row in await cursor.fetchall())


async def money(pg: Pg) -> tuple[int, int, int, int]:
    """What is in the shadow purse, the float, suspense, and owed by the agent."""
    cursor = await pg.execute(
        "SELECT (SELECT loaded_fen FROM purse WHERE card_no = 1),"
        " coalesce(sum(amount_fen) FILTER (WHERE credit_code = 2002), 0) - coalesce(sum(amount_fen) FILTER (WHERE debit_code = 2002), 0),"
        " coalesce(sum(amount_fen) FILTER (WHERE credit_code = 2201), 0) - coalesce(sum(amount_fen) FILTER (WHERE debit_code = 2201), 0),"
        " coalesce(sum(amount_fen) FILTER (WHERE debit_code = 1002), 0) - coalesce(sum(amount_fen) FILTER (WHERE credit_code = 1002), 0)"
        " FROM posting"
    )
    row = await cursor.fetchone()
    assert row is not None
    return tuple(map(int, row))  # type: ignore[return-value]  # four columns


async def one(pg: Pg, query: str) -> Any:
    cursor = await pg.execute(query.encode())
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def test_a_cash_load_is_authorised_confirmed_and_each_repeat_gets_what_was_told(
    pg: Pg, postgres_url: str
) -> None:
    day = await prepared(pg)
    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        asked = desk.load()
        told = await desk.settle(asked)
        assert (told.answer, told.clearing_date, len(told.auth_code)) == ("00", day, 6)
        assert told.field55.startswith(b"told at ")
        assert (await states(pg), await money(pg)) == ("AUTHORISED", (300, 300, 0, 300))
        confirm = desk.confirm(asked, told)
        done = await desk.settle(confirm)
        assert (done.answer, done.rrn, done.clearing_date) == ("00", told.rrn, None)
        assert [await desk.settle(asked), await desk.settle(confirm)] == [told, done]
        assert (await states(pg), await money(pg)) == ("CONFIRMED", (300, 300, 0, 300))
        assert await one(pg, "SELECT online_atc FROM purse WHERE card_no = 1") == 1
        assert (await desk.settle(desk.reversal(asked))).answer == "12"
        again = desk.load()
        assert (await desk.settle(again)).answer == "34"


async def test_a_load_its_confirm_and_their_repeats_in_one_batch(pg: Pg, postgres_url: str) -> None:
    day = await prepared(pg)
    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        asked = desk.load()
        outcomes = await book.settle([asked, desk.load(), asked])
        assert [outcome.answer for outcome in outcomes] == ["00", "00", "00"]
        assert outcomes[0] == outcomes[2]
        assert (await states(pg), await money(pg)) == ("REVERSED AUTHORISED", (300, 300, 0, 300))


async def test_a_load_from_the_online_account_moves_money_of_the_holder(pg: Pg, postgres_url: str) -> None:
    day = await prepared(pg)
    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        poor = desk.load(OPENING_FEN + 1, source=ONLINE)
        assert (await desk.settle(poor)).answer == "51"
        asked = desk.load(400, source=ONLINE, loading=PROVEN._replace(takes_cash=False))
        assert (await desk.settle(asked)).answer == "00"
        assert await one(pg, "SELECT balance_fen FROM account WHERE account_id = 110") == OPENING_FEN - 400
        assert (await desk.settle(desk.reversal(asked))).answer == "00"
        assert await one(pg, "SELECT balance_fen FROM account WHERE account_id = 110") == OPENING_FEN
    assert (await states(pg), await money(pg)) == ("REVERSED", (0, 0, 0, 0))


#   what the terminal says after the approval, and what becomes of the load and its money (float, suspense, agent)
ENDINGS = """
    confirm                                 00           CONFIRMED    300    0  300
    confirm confirm                         00 00        CONFIRMED    300    0  300
    confirm reversal                        00 12        CONFIRMED    300    0  300
    confirm wrong                           00 00        CONFIRMED    300    0  300
    confirm gone                            00 00        CONFIRMED    300    0  300
    reversal                                00           REVERSED       0    0    0
    reversal confirm                        00 00        SUSPENSE       0    0    0
    reversal wrong                          00 00        SUSPENSE       0    0    0
    reversal gone                           00 00        SUSPENSE       0    0    0
    wrong                                   00           SUSPENSE       0  300  300
    wrong confirm                           00 00        CONFIRMED    300    0  300
    wrong reversal                          00 12        SUSPENSE       0  300  300
    gone                                    00           SUSPENSE       0  300  300
    gone confirm                            00 00        CONFIRMED    300    0  300
    gone reversal                           00 12        SUSPENSE       0  300  300
    ahead                                   12           SUSPENSE       0  300  300
    unmoved                                 00           REVERSED       0    0    0
    at-0                                    00           REVERSED+    300    0  300
    at-1                                    00           LOADED+      600    0  600
    gone at-0                               00 00        RETURNED+    300    0  300
    gone at-1                               00 00        LOADED+      600    0  600
    wrong at-1 confirm                      00 00 00     CONFIRMED+   600    0  600
    reversal at-1                           00 00        LOADED+      600    0  600
    reversal confirm at-0                   00 00 00     RETURNED+    300    0  300
    reversal confirm at-1                   00 00 00     LOADED+      600    0  600
    at-0 reversal                           00 00        REVERSED+    300    0  300
    at-0 confirm                            00 00        SUSPENSE+    300    0  300
    at-0 confirm at-1                       00 00 00     LOADED+      600    0  600
    at-1 reversal                           00 12        LOADED+      600    0  600
"""


@pytest.mark.parametrize("line", [line for line in ENDINGS.splitlines() if line.strip()])
async def test_what_follows_an_approved_load(pg: Pg, postgres_url: str, line: str) -> None:
    words = line.split()
    at = next(place for place, word in enumerate(words) if word.isupper() or word.endswith("+"))
    told_words, (state, in_float, suspense, agent) = words[:at], words[at:]
    steps = [word for word in told_words if not word[0].isdigit()]
    answers = [word for word in told_words if word[0].isdigit()]
    day = await prepared(pg)
    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        asked = desk.load()
        told = await desk.settle(asked)
        following: dict[str, Callable[[], Item]] = {
            "confirm": lambda: desk.confirm(asked, told),
            "wrong": lambda: desk.confirm(asked, told, good=False),
            "gone": lambda: desk.confirm(asked, told, good=None),
            "reversal": lambda: desk.reversal(asked),
            "ahead": lambda: desk.reversal(asked, atc=1),
            "unmoved": lambda: desk.reversal(asked, atc=0),
            "at-0": lambda: desk.load(atc=0),
            "at-1": lambda: desk.load(atc=1),
        }
        assert [(await desk.settle(following[step]())).answer for step in steps] == answers
    expected = state.replace("+", " AUTHORISED")
    if "at-1" in steps and "at-0" in steps:
        expected = "LOADED REVERSED AUTHORISED"
    assert await states(pg) == expected
    fen = int(in_float)
    assert await money(pg) == (fen, fen, int(suspense), int(agent))


async def test_a_confirm_is_taken_after_its_batch_is_closed_and_a_reversal_is_not(
    pg: Pg, postgres_url: str
) -> None:
    day = await prepared(pg)
    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        asked = desk.load()
        told = await desk.settle(asked)
        for state in (1, 2):  # frozen by the settlement, closed by the batch end
            await pg.execute("UPDATE terminal_batch SET state = %s", (state,))
            assert (await desk.settle(desk.load())).answer == ("90" if state == 1 else "77")
        assert (await desk.settle(desk.reversal(asked))).answer == "12"
        assert (await states(pg), await money(pg)) == ("AUTHORISED", (300, 300, 0, 300))
        assert (await desk.settle(desk.confirm(asked, told))).answer == "00"
        assert await states(pg) == "CONFIRMED"


async def test_confirms_of_another_amount_counter_source_or_reference(pg: Pg, postgres_url: str) -> None:
    day = await prepared(pg)
    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        asked = desk.load()
        told = await desk.settle(asked)
        own = desk.confirm(asked, told)
        other_source = own._replace(
            request=own.request._replace(source=ONLINE),  # type: ignore[union-attr,call-arg]  # it is a LoadConfirm
            key=own.key._replace(stan=own.key.stan + 40_000),
        )
        assert [
            (await desk.settle(one)).answer
            for one in (
                desk.confirm(asked, told, fen=301),
                desk.confirm(asked, told, atc=1),
                desk.confirm(asked, told, stan=77_777),
                desk.confirm(asked, told._replace(rrn="0" * 12)),
                other_source,
            )
        ] == ["64", "25", "25", "25", "12"]
        assert await states(pg) == "AUTHORISED"
        assert (await desk.settle(desk.reversal(asked, fen=299))).answer == "64"


async def a_day_later(pg: Pg, days: int) -> None:
    """The loads were authorised so many business days ago."""
    await pg.execute("UPDATE purse_load SET business_date = business_date - %s", (days,))


async def test_who_says_nothing_until_the_cut_off_and_a_day_is_in_suspense_and_a_late_word_still_counts(
    pg: Pg, postgres_url: str
) -> None:
    day = await prepared(pg)

    async def sweep() -> int:
        moves: list[LoadMove] = []
        done = await suspend_unconfirmed(lambda: connect(postgres_url), 0, moves.extend)
        assert [moved.reason for moved in moves] == ["no_word"] * done
        return done

    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        asked = desk.load()
        told = await desk.settle(asked)
        await a_day_later(pg, 1)
        assert await sweep() == 0
        await a_day_later(pg, 1)
        assert await asyncio.gather(sweep(), sweep()) in ([1, 0], [0, 1])
        assert (await states(pg), await money(pg)) == ("SUSPENSE", (0, 0, 300, 300))
        assert await suspense(pg, [0]) == (1, told.decided_at)
        assert (await desk.settle(desk.reversal(asked))).answer == "00"  # its first word
        assert (await states(pg), await money(pg)) == ("RETURNED", (0, 0, 0, 0))
        second = desk.load()
        told = await desk.settle(second)
        await a_day_later(pg, 2)
        assert await sweep() == 1
        assert (await desk.settle(desk.confirm(second, told))).answer == "00"
        assert (await states(pg), await money(pg)) == ("RETURNED CONFIRMED", (300, 300, 0, 300))


async def test_two_people_settle_within_thirty_days_and_the_card_counts_more(
    pg: Pg, postgres_url: str
) -> None:
    day = await prepared(pg)

    async def decide(number: int, to: LoadState, checker: str = "wang fang") -> None:
        await settle(
            lambda: connect(postgres_url),
            number,
            to,
            actor="li wei",
            checker=checker,
            reason="read at the desk",
        )

    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        asked = desk.load(400, source=ONLINE)
        told = await desk.settle(asked)
        number = await one(pg, "SELECT max(entry_no) FROM purse_load")
        for to, checker, why in (
            (LoadState.LOADED, "wang fang", "not in suspense"),
            (LoadState.RETURNED, " LI WEI ", "another person"),
            (LoadState.CONFIRMED, "wang fang", "loaded or returned"),
        ):
            with pytest.raises(InputRefused, match=why):
                await decide(number, to, checker)
        with pytest.raises(InputRefused, match="no such load"):
            await decide(number + 1, LoadState.LOADED)
        await desk.settle(desk.confirm(asked, told, good=None))
        await a_day_later(pg, 31)
        with pytest.raises(InputRefused, match="30 days"):
            await decide(number, LoadState.RETURNED)
        await a_day_later(pg, -1)
        await decide(number, LoadState.RETURNED)
        assert (await states(pg), await money(pg)) == ("RETURNED", (0, 0, 0, 0))
        assert await one(pg, "SELECT balance_fen FROM account WHERE account_id = 110") == OPENING_FEN
        await desk.settle(desk.load(atc=1))  # the card itself says that it has the money
        assert await states(pg) == "LOADED AUTHORISED"
        assert await one(pg, "SELECT balance_fen FROM account WHERE account_id = 110") == OPENING_FEN - 400


async def test_a_counter_is_good_for_one_load_in_the_database_too(pg: Pg, postgres_url: str) -> None:
    day = await prepared(pg)
    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        await desk.settle(desk.load())
        await desk.settle(desk.load())
    with pytest.raises(psycopg.errors.UniqueViolation):
        await pg.execute("UPDATE purse_load SET state = 2, held = 1")
    with pytest.raises(psycopg.errors.CheckViolation):
        await pg.execute("UPDATE purse_load SET held = 2 WHERE state = 1")
    with pytest.raises(psycopg.errors.RestrictViolation):
        await pg.execute("DELETE FROM purse_load_move")


async def test_two_books_and_the_fold_of_records_over_one_card_end_in_order(
    pg: Pg, postgres_url: str
) -> None:
    day = await prepared(pg)

    async def fold() -> None:
        await fold_purses(pg)

    answers: list[Outcome | None] = []
    async with a_book(postgres_url) as first, a_book(postgres_url) as second:
        desks = Desk(first, day, random=0), Desk(second, day, random=1_000)
        for number in range(3):
            answers += await asyncio.gather(*(desk.settle(desk.load(10 + number)) for desk in desks), fold())
    assert [told.answer for told in answers if told is not None] == ["00"] * 6
    assert sorted((await states(pg)).split()) == ["AUTHORISED"] + ["REVERSED"] * 5
    last = await one(pg, "SELECT amount_fen FROM purse_load WHERE state = 1")
    assert await money(pg) == (last, last, 0, last)


async def test_a_confirm_without_a_purse_does_not_answer_for_a_load_of_one(pg: Pg, postgres_url: str) -> None:
    """As of a load to the online account, which has nothing to confirm: a 00 would leave the load open for ever."""
    day = await prepared(pg)
    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        load = desk.load()
        told = await desk.settle(load)
        confirm = desk.confirm(load, told)
        assert isinstance(confirm.request, LoadConfirm)
        bare = confirm._replace(request=confirm.request._replace(purse=None), loading=None)
        assert (await desk.settle(bare)).answer == "12"
        assert (await desk.settle(desk.confirm(load, told))).answer == "00"
        assert await states(pg) == "CONFIRMED"


@pytest.mark.parametrize("account", [AccountKind.BANK, AccountKind.MEDICAL])
async def test_money_of_a_reversed_load_goes_home_whatever_account_the_reversal_names(
    pg: Pg, postgres_url: str, account: AccountKind
) -> None:
    """That field names the source of a load, and who paid is kept with it; the account must only be locked."""
    day = await prepared(pg)
    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        load = desk.load(source=ONLINE)
        assert (await desk.settle(load)).answer == "00"
        undone = desk.reversal(load)
        assert isinstance(undone.request, Reversal)
        other = undone._replace(request=undone.request._replace(account=account))
        assert (await desk.settle(other)).answer == "00"
    cursor = await pg.execute("SELECT balance_fen FROM account WHERE account_id = 110")
    assert await cursor.fetchone() == (OPENING_FEN,)


async def declare_loaded(pg: Pg, url: str) -> None:
    """Two people say of the only load that its card has the money."""
    number = await one(pg, "SELECT entry_no FROM purse_load")
    people = {"actor": "li", "checker": "wang", "reason": "seen at the desk"}
    await settle(lambda: connect(url), number, LoadState.LOADED, **people)


@pytest.mark.parametrize("wrong_confirm", [False, True])
async def test_neither_people_nor_a_wrong_tac_prove_that_a_card_was_credited(
    pg: Pg, postgres_url: str, wrong_confirm: bool
) -> None:
    day = await prepared(pg)
    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        load = desk.load(400, source=ONLINE)
        told = await desk.settle(load)
        await desk.settle(desk.confirm(load, told, good=None))
        await declare_loaded(pg, postgres_url)
        if wrong_confirm:
            assert (await desk.settle(desk.confirm(load, told, good=False))).answer == "00"
        again = await desk.settle(desk.load(100))  # the card comes, and its counter has not moved
    assert (again.answer, await states(pg)) == ("00", "RETURNED AUTHORISED")
    assert await one(pg, "SELECT balance_fen FROM account WHERE account_id = 110") == OPENING_FEN


async def test_a_claim_that_turns_out_to_be_none_goes_back_to_suspense_and_not_to_the_holder(
    pg: Pg, postgres_url: str
) -> None:
    """Reversed and spent, then declared loaded, so that suspense paid; then the card proves that it was not."""
    day = await prepared(pg)
    async with a_book(postgres_url) as book:
        desk = Desk(book, day)
        load = desk.load(400, source=ONLINE)
        told = await desk.settle(load)
        assert (await desk.settle(desk.reversal(load))).answer == "00"
        assert (await desk.settle(item(purchase(OPENING_FEN), since=day))).answer == "00"
        await desk.settle(desk.confirm(load, told, good=None))
        await declare_loaded(pg, postgres_url)
        assert (await money(pg))[2] == -400
        await pg.execute(
            "UPDATE purse_load SET claimed = false"
        )  # as before migration 0047, which finds it by its postings
        migration = (files("switch.storage.migrations") / "0047_claims_of_loads.sql").read_text(
            encoding="utf-8"
        )
        await pg.execute(migration.split(";")[1].encode())
        assert await one(pg, "SELECT claimed FROM purse_load")
        await desk.settle(desk.load(100))
    assert await states(pg) == "RETURNED AUTHORISED"
    assert await one(pg, "SELECT balance_fen FROM account WHERE account_id = 110") == 0
    assert (await money(pg))[2] == 0
