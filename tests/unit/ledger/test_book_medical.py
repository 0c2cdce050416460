"""The medical policy on a real database: shares, what undoes them, limits of each account, and two books at once."""

import asyncio
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.domain.decisions import Decline, Outcome
from switch.domain.errors import InputRefused
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    Kind,
    Original,
    PreAuthorisation,
    Purchase,
    Refund,
    Reversal,
    Void,
)
from switch.ledger.book import ShardBook
from switch.ledger.items import REVERSAL, Item
from switch.ledger.limit_desk import set_limit
from switch.ledger.limits import LimitRule
from switch.ledger.medical import CoverWindow, PolicyRule, Shares
from switch.ledger.medical_desk import end_policy, set_policy, stored_policies
from tests.helpers.books import OPENING_FEN, a_book, card_of, item, purchase, seed
from tests.unit.operations.test_audit_refusals import named as faults

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
MEDICAL, ONLINE = AccountKind.MEDICAL, AccountKind.ONLINE
SHOP = "5411"  # the category of the ledger's merchant
CHECKS = (
    "purchase_splits",
    "purchases_divided",
    "split_postings",
    "medical_windows",
    "medical_policies",
    "entry_postings",
    "account_balance",
    "original_use",
    "limit_windows",
)


async def opened(pg: Pg, holders: int = 5) -> date:
    """A ledger whose holders have 10 yuan in the medical account too."""
    day = await seed(pg, holders=holders)
    await pg.execute(
        "INSERT INTO account (shard, account_id, holder_id, kind, balance_fen)"
        " SELECT 0, holder_id * 100 + 40, holder_id, 40, balance_fen FROM account WHERE kind = 10"
    )
    await pg.execute(
        "INSERT INTO posting (shard, business_date, entry_no, debit_code, debit_owner, credit_code, credit_owner, amount_fen)"
        " SELECT 0, %s, 800000 + account_id, 1001, 0, CASE kind WHEN 10 THEN 2001 ELSE 2003 END, account_id, balance_fen FROM account",
        (day,),
    )
    return day


async def governed(
    pg: Pg,
    day: date,
    ppm: int = 300_000,
    transaction_fen: int | None = None,
    day_fen: int | None = None,
    year_fen: int | None = None,
    *,
    category: str = SHOP,
    splits: bool = True,
) -> int:
    """A row of the policy that has been in force since today."""
    terms = PolicyRule(
        0, category, ppm, transaction_fen, day_fen, year_fen, splits, day + timedelta(days=1), None
    )
    number = await set_policy(pg, terms, actor="ann", reason="council 7")
    await pg.execute("SET session_replication_role = replica")
    await pg.execute("UPDATE medical_policy SET valid_from = valid_from - 1 WHERE policy_no = %s", (number,))
    await pg.execute(
        "UPDATE registry_change SET at = at - interval '1 hour',"
        " change = jsonb_set(change, '{after,valid_from}', to_jsonb(%s::text)) WHERE subject = %s",
        (day.isoformat(), f"medical policy {number}"),
    )
    await pg.execute("RESET session_replication_role")
    return number


def pay(fen: int, *, holder_id: int = 1) -> Purchase:
    return Purchase(card_of(holder_id), MEDICAL, Fen(fen), None, "051")


def named(of: Item, day: date) -> Original:
    return Original(1, of.key.stan, day.month, day.day)


def void_of(of: Item, outcome: Outcome, fen: int, day: date) -> Item:
    request = Void(card_of(1), MEDICAL, Fen(fen), named(of, day), outcome.rrn, outcome.auth_code, "051")
    return item(request, since=day)


def refund_of(of: Item, outcome: Outcome, fen: int, day: date, account: AccountKind = MEDICAL) -> Item:
    return item(
        Refund(card_of(1), account, Fen(fen), named(of, day), outcome.rrn, "051"),
        since=day,
        content=f"refund {fen} {of.key.stan}".encode(),
    )


def reversal_of(of: Item, fen: int, day: date, was: Kind = Kind.PURCHASE) -> Item:
    request = Reversal(card_of(1), MEDICAL, Fen(fen), named(of, day), was, "98", "051", "000000")
    return item(request, since=day, stan=of.key.stan, rclass=REVERSAL)


async def codes(book: ShardBook, *items: Item) -> list[str]:
    return [outcome.answer for outcome in await book.settle(items)]


async def balances(pg: Pg, holder_id: int = 1) -> tuple[int, int]:
    """Medical, online."""
    cursor = await pg.execute(
        "SELECT balance_fen FROM account WHERE holder_id = %s ORDER BY kind DESC", (holder_id,)
    )
    medical, online = await cursor.fetchall()
    return medical[0], online[0]


async def window(pg: Pg) -> tuple[Any, ...] | None:
    cursor = await pg.execute("SELECT day_fen, year_fen FROM medical_window WHERE account_id = 140")
    return await cursor.fetchone()


async def postings(pg: Pg) -> list[tuple[Any, ...]]:
    cursor = await pg.execute(
        "SELECT line, debit_code, debit_owner, credit_code, credit_owner, amount_fen FROM posting"
        " WHERE entry_no < 800000 ORDER BY entry_no, line"
    )
    return await cursor.fetchall()


async def in_order(pg: Pg) -> bool:
    """Whether the audit finds nothing."""
    return [place for check in CHECKS for place in await faults(pg, check)] == []


async def test_without_a_policy_the_medical_account_pays_everything_everywhere(
    pg: Pg, postgres_url: str
) -> None:
    day = await opened(pg)
    async with a_book(postgres_url) as book:
        assert await codes(book, item(pay(OPENING_FEN), since=day), item(pay(1), since=day)) == ["00", "51"]
        later = PolicyRule(0, "9999", 0, None, None, None, True, day + timedelta(days=1), None)
        await set_policy(pg, later, actor="ann", reason="council 7")
        assert await codes(book, item(pay(10, holder_id=2), since=day, holder_id=2)) == ["00"]
    assert await balances(pg) == (0, OPENING_FEN)
    assert await window(pg) is None
    assert await in_order(pg)


async def test_a_purchase_is_divided_in_one_entry_with_a_posting_for_each_share(
    pg: Pg, postgres_url: str
) -> None:
    day = await opened(pg)
    await governed(pg, day, 300_000)
    async with a_book(postgres_url) as book:
        bought = item(pay(500), since=day)
        first, again = await book.settle([bought, bought])
        assert (first.answer, again) == ("00", first)
    assert await balances(pg) == (650, 850)
    assert await postings(pg) == [(0, 2003, 140, 2101, 1, 350), (1, 2001, 110, 2101, 1, 150)]
    cursor = await pg.execute("SELECT account_id, amount_fen, effect_fen FROM journal")
    assert await cursor.fetchall() == [(140, 500, 500)]
    assert await window(pg) == (350, 350)
    assert await in_order(pg)


async def test_another_category_is_refused_and_so_is_one_whose_row_has_ended(
    pg: Pg, postgres_url: str
) -> None:
    day = await opened(pg)
    number = await governed(pg, day, category="8062")
    async with a_book(postgres_url) as book:
        assert await codes(book, item(pay(1), since=day), item(purchase(1), since=day)) == ["57", "00"]
        await pg.execute("UPDATE merchant SET category = '8062'")
        assert await codes(book, item(pay(1), since=day)) == ["00"]
        await pg.execute(
            "UPDATE medical_policy SET valid_from = valid_from - 2, valid_to = valid_from - 1 WHERE policy_no = %s",
            (number,),
        )
        assert await codes(book, item(pay(1), since=day)) == ["57"]


async def test_shares_of_zero_have_no_posting_and_the_line_before_has_number_zero(
    pg: Pg, postgres_url: str
) -> None:
    day = await opened(pg)
    await governed(pg, day, 0, day_fen=100)
    async with a_book(postgres_url) as book:
        bought = [item(pay(100), since=day), item(pay(40), since=day)]
        outcomes = await book.settle(bought)
        assert [one.answer for one in outcomes] == ["00", "00"]
        assert await codes(book, void_of(bought[1], outcomes[1], 40, day)) == ["00"]
    assert await postings(pg) == [
        (0, 2003, 140, 2101, 1, 100),
        (0, 2001, 110, 2101, 1, 40),
        (0, 2101, 1, 2001, 110, 40),
    ]
    assert await in_order(pg)


async def test_each_account_must_have_its_share_and_a_refusal_moves_nothing(
    pg: Pg, postgres_url: str
) -> None:
    day = await opened(pg)
    await governed(pg, day, 500_000)
    async with a_book(postgres_url) as book:
        assert await codes(book, item(purchase(950), since=day), item(pay(102), since=day)) == ["00", "51"]
        assert await codes(book, item(pay(100), since=day)) == ["00"]
        assert await balances(pg) == (950, 0)
        await pg.execute("UPDATE account SET balance_fen = 60 WHERE account_id = 240")
        assert await codes(book, item(pay(122, holder_id=2), since=day, holder_id=2)) == ["51"]
        await pg.execute("UPDATE account SET frozen = true WHERE account_id = 310")
        assert await codes(book, item(pay(2, holder_id=3), since=day, holder_id=3)) == ["62"]
        await pg.execute("DELETE FROM account WHERE account_id = 410")
        assert await codes(book, item(pay(2, holder_id=4), since=day, holder_id=4)) == ["57"]
    assert await balances(pg, 2) == (60, OPENING_FEN)


async def test_without_the_online_account_what_exceeds_the_cover_refuses_the_whole(
    pg: Pg, postgres_url: str
) -> None:
    day = await opened(pg)
    await governed(pg, day, 0, 300, 500, splits=False)
    async with a_book(postgres_url) as book:
        asked = [item(pay(fen), since=day) for fen in (301, 300, 201, 200, 1)]
        assert await codes(book, *asked) == ["61", "00", "61", "00", "61"]
    assert await balances(pg) == (500, OPENING_FEN)
    assert await in_order(pg)


async def test_void_and_reversal_give_back_both_shares_and_their_room(pg: Pg, postgres_url: str) -> None:
    day = await opened(pg)
    await governed(pg, day, 300_000, day_fen=400)
    async with a_book(postgres_url) as book:
        bought = [item(pay(500), since=day), item(pay(500), since=day)]
        outcomes = await book.settle(bought)
        assert await balances(pg) == (600, 400)  # 350 + 150, then 50 + 450
        assert await codes(book, void_of(bought[0], outcomes[0], 500, day)) == ["00"]
        assert (await balances(pg), await window(pg)) == ((950, 550), (50, 50))
        undone = reversal_of(bought[1], 500, day)
        assert await codes(book, undone, undone) == ["00", "00"]
        assert (await balances(pg), await window(pg)) == ((1_000, 1_000), (0, 0))
        assert await codes(book, refund_of(bought[1], outcomes[1], 1, day)) == ["12"]
    assert await in_order(pg)


async def test_a_void_that_is_undone_takes_both_shares_again_or_neither(pg: Pg, postgres_url: str) -> None:
    day = await opened(pg)
    await governed(pg, day, 300_000)
    async with a_book(postgres_url) as book:
        for spent, answer, left in ((0, "00", (650, 850)), (900, "12", (1_000, 100))):
            await pg.execute("UPDATE account SET balance_fen = 1000 WHERE holder_id = 1")
            bought = item(pay(500), since=day)
            (outcome,) = await book.settle([bought])
            voided = void_of(bought, outcome, 500, day)
            assert await codes(book, voided) == ["00"]
            if spent:
                assert await codes(book, item(purchase(spent), since=day)) == ["00"]
            assert await codes(book, reversal_of(voided, 500, day, Kind.VOID)) == [answer]
            assert await balances(pg) == left
    assert [
        await faults(pg, check) for check in ("purchase_splits", "split_postings", "medical_windows")
    ] == [
        [],
        [],
        [],
    ]


async def test_refunds_return_each_share_its_part_and_never_more(pg: Pg, postgres_url: str) -> None:
    day = await opened(pg)
    await governed(pg, day, 333_333)
    async with a_book(postgres_url) as book:
        bought = item(pay(100), since=day)
        (outcome,) = await book.settle([bought])
        assert await balances(pg) == (933, 967)
        asked = [refund_of(bought, outcome, fen, day) for fen in (10, 11, 80, 79, 1)]
        assert await codes(book, *asked[:2]) == ["00", "00"]
        assert await balances(pg) == (933 + 14, 967 + 7)
        assert await window(pg) == (53, 53)
        assert await codes(book, *asked[2:], asked[0]) == ["64", "00", "64", "00"]
        assert await codes(book, refund_of(bought, outcome, 1, day, ONLINE)) == [
            "12"
        ]  # never across accounts
        assert await codes(book, void_of(bought, outcome, 100, day)) == ["12"]
        assert await codes(book, reversal_of(bought, 100, day)) == ["12"]
    assert (await balances(pg), await window(pg)) == ((1_000, 1_000), (0, 0))
    assert await in_order(pg)


async def test_of_a_cancelled_card_both_shares_go_to_suspense(pg: Pg, postgres_url: str) -> None:
    day = await opened(pg)
    await governed(pg, day, 300_000)
    async with a_book(postgres_url) as book:
        bought = item(pay(100), since=day)
        (outcome,) = await book.settle([bought])
        await pg.execute("UPDATE card SET state = 8 WHERE holder_id = 1")
        assert await codes(book, refund_of(bought, outcome, 50, day)) == ["00"]
    assert (await postings(pg))[2:] == [(0, 2101, 1, 2201, 0, 35), (1, 2101, 1, 2201, 0, 15)]
    assert await balances(pg) == (930, 970)
    assert await in_order(pg)


async def test_of_a_replaced_card_both_shares_go_to_the_holders_accounts(pg: Pg, postgres_url: str) -> None:
    day = await opened(pg)
    await governed(pg, day, 300_000)
    async with a_book(postgres_url) as book:
        bought = item(pay(100), since=day)
        (outcome,) = await book.settle([bought])
        await pg.execute("UPDATE card SET state = 6 WHERE holder_id = 1")
        assert await codes(book, item(pay(1), since=day), refund_of(bought, outcome, 50, day)) == ["62", "00"]
    assert await balances(pg) == (965, 985)
    assert await in_order(pg)


async def test_what_a_pre_authorisation_freezes_pays_no_share(pg: Pg, postgres_url: str) -> None:
    day = await opened(pg)
    await governed(pg, day, 500_000)
    async with a_book(postgres_url) as book:
        held = PreAuthorisation(card_of(1), ONLINE, Fen(950), None, "051")
        asked = [item(request, since=day) for request in (held, pay(102), pay(100))]
        assert await codes(book, *asked) == ["00", "51", "00"]
        # The hold expires, and the next batch sets it free though no request of it names the online account.
        await pg.execute("UPDATE hold SET expires_at = clock_timestamp()")
        await pg.execute("UPDATE account SET holds_due = clock_timestamp() WHERE held_fen > 0")
        assert await codes(book, item(pay(102), since=day)) == ["00"]


async def test_a_purchase_of_before_the_policy_is_undone_as_it_was_made(pg: Pg, postgres_url: str) -> None:
    day = await opened(pg)
    async with a_book(postgres_url) as book:
        bought = [item(pay(100), since=day) for _ in range(3)]
        outcomes = await book.settle(bought)
        await governed(pg, day, 300_000)
        asked = (
            void_of(bought[0], outcomes[0], 100, day),
            refund_of(bought[1], outcomes[1], 40, day),
            reversal_of(bought[2], 100, day),
        )
        assert await codes(book, *asked) == ["00"] * 3
    assert await balances(pg) == (OPENING_FEN - 60, OPENING_FEN)
    assert await window(pg) is None


async def test_limits_bind_each_account_for_its_share(pg: Pg, postgres_url: str) -> None:
    day = await opened(pg)
    await governed(pg, day, 400_000)
    for kind, fen, count in ((10, 100, None), (40, None, 3)):
        terms = LimitRule(kind, None, None, fen, None, count, None, day + timedelta(days=1), None)
        await set_limit(pg, terms, range(1), actor="ann", reason="as agreed")
    await pg.execute("UPDATE limit_rule SET valid_from = valid_from - 1")
    await pg.execute("UPDATE account SET limited_from = limited_from - 1")
    async with a_book(postgres_url) as book:
        first = item(pay(200), since=day)
        (outcome,) = await book.settle([first])
        assert await codes(book, item(pay(60), since=day)) == ["61"]  # 24 more of the online account's 20
        assert await codes(book, item(pay(50), since=day), item(pay(1), since=day)) == ["00", "00"]
        assert await codes(book, item(pay(1), since=day), item(pay(100), since=day)) == ["65", "61"]
        assert await codes(book, void_of(first, outcome, 200, day), item(pay(100), since=day)) == ["00", "00"]
    cursor = await pg.execute("SELECT account_id, day_fen, day_count FROM limit_window ORDER BY 1")
    assert await cursor.fetchall() == [(110, 60, 2), (140, 91, 3)]
    assert await in_order(pg)


async def test_yesterdays_cover_is_over_and_its_years_is_not(pg: Pg, postgres_url: str) -> None:
    day = await opened(pg)
    await governed(pg, day, 0, day_fen=500, year_fen=700)
    yesterday = day - timedelta(days=1)
    await pg.execute("INSERT INTO medical_window VALUES (0, 140, %s, 500, 600)", (yesterday,))
    async with a_book(postgres_url) as book:
        assert await codes(book, item(pay(200), since=day)) == ["00"]
    assert await window(pg) == ((100, 700) if yesterday.year == day.year else (200, 200))


async def test_two_books_at_once_from_both_accounts_never_overdraw_and_never_deadlock(
    pg: Pg, postgres_url: str
) -> None:
    day = await opened(pg)
    await governed(pg, day, 500_000, year_fen=400)
    answers: list[str] = []

    def noted(_item: Item, outcome: Outcome | None) -> None:
        answers.append(outcome.answer if outcome else "96")

    async with a_book(postgres_url, batch_max=7) as one, a_book(postgres_url, batch_max=5) as two:
        for number in range(240):
            holder = number % 3 + 1
            request = pay(20, holder_id=holder) if number // 3 % 2 else purchase(10, holder_id=holder)
            asked = item(request, since=day, holder_id=holder, done=noted)
            assert (one, two)[number % 2].submit(asked)
        one.stop()
        two.stop()
        await asyncio.gather(one.run(), two.run())
    assert len(answers) == 240
    assert set(answers) <= {"00", "51"}
    for holder in (1, 2, 3):
        assert min(await balances(pg, holder)) >= 0
    assert await in_order(pg)


async def test_another_policy_can_be_plugged_in(pg: Pg, postgres_url: str) -> None:
    day = await opened(pg)
    await governed(pg, day, 0)

    def half(_rule: PolicyRule, amount_fen: int, _window: CoverWindow) -> Shares | Decline:
        return (
            Shares(amount_fen // 2, amount_fen - amount_fen // 2)
            if amount_fen < 100
            else Decline.NOT_SUPPORTED
        )

    async with a_book(postgres_url, medical_policy=half) as book:
        assert await codes(book, item(pay(31), since=day), item(pay(100), since=day)) == ["00", "40"]
    assert await balances(pg) == (OPENING_FEN - 15, OPENING_FEN - 16)


async def test_what_was_divided_is_never_changed(pg: Pg, postgres_url: str) -> None:
    day = await opened(pg)
    await governed(pg, day)
    async with a_book(postgres_url) as book:
        assert await codes(book, item(pay(10), since=day)) == ["00"]
    for statement in ("UPDATE purchase_split SET own_fen = 0", "DELETE FROM purchase_split"):
        with pytest.raises(psycopg.errors.RestrictViolation):
            await pg.execute(statement.encode())


async def test_rows_of_the_policy_are_set_once_and_bad_ones_refused(pg: Pg) -> None:
    day = await seed(pg)
    tomorrow = day + timedelta(days=1)
    terms = PolicyRule(0, "8062", 300_000, 5_000, None, 100_000, True, tomorrow, None)
    assert await set_policy(pg, terms, actor="ann", reason="council 7") == 1
    assert await set_policy(pg, terms, actor="ann", reason="council 7") == 1
    for bad, words in (
        (terms._replace(own_pay_ppm=1), "another row"),
        (terms._replace(category="806"), "four digits"),
        (terms._replace(category="５９１２"), "four digits"),
        (terms._replace(category="5912", own_pay_ppm=1_000_001), "ppm"),
        (terms._replace(category="5912", splits=False), "without a row"),
        (terms._replace(category="5912", day_fen=-1), "below zero"),
        (terms._replace(category="5912", valid_from=day), "after the open business day"),
        (terms._replace(category="5912", valid_to=day), "before it begins"),
    ):
        with pytest.raises(InputRefused, match=words):
            await set_policy(pg, bad, actor="ann", reason="council 7")
    with pytest.raises(InputRefused, match="reason"):
        await set_policy(pg, terms._replace(category="5912"), actor="ann", reason=" ")
    await end_policy(pg, 1, tomorrow, actor="ann", reason="council 8")
    after = terms._replace(own_pay_ppm=1, valid_from=tomorrow + timedelta(days=1))
    number = await set_policy(pg, after, actor="ann", reason="council 8")
    assert [one.policy_no for one in await stored_policies(pg)] == [1, number]
    for policy_no, last, words in (
        (99, tomorrow, "no such"),
        (1, day - timedelta(days=1), "can end with"),
        (1, tomorrow + timedelta(days=9), "ends before"),
    ):
        with pytest.raises(InputRefused, match=words):
            await end_policy(pg, policy_no, last, actor="ann", reason="so")
    assert await faults(pg, "medical_policies") == []
