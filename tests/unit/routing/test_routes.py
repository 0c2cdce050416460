"""The table in a serving process: exchanged whole when it changes, not kept when changes are not heard."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import date
from typing import Any

import psycopg
import pytest

from switch.domain.decisions import Decline
from switch.domain.errors import ConfigurationError
from switch.domain.identifiers import CardNumber, luhn_digit
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    Balance,
    CardRequest,
    Load,
    LoadSource,
    Original,
    Purchase,
    Refund,
    Refused,
)
from switch.registry.invalidation import RegistryListener
from switch.registry.route_versions import activate, add, hold, roll_back, step_back
from switch.registry.terminals import TerminalEntry
from switch.routing.destinations import LEDGER, Destination, Way
from switch.routing.routes import Routes
from tests.unit.routing.tables import HEADER, SHOP, table_of, text

OWN_ID = "99993350FFFFFFFF"
Connection = psycopg.AsyncConnection[Any]
ENTRY = TerminalEntry(1, "33500001", 1, SHOP, "99993350", 1, True, True, 1, date(2026, 3, 15), 1, (), "5411")


def card(digits: str, *, good: bool = True) -> CardNumber:
    payload = digits.ljust(18, "0")
    last = int(luhn_digit(payload))
    return CardNumber(payload + str(last if good else (last + 1) % 10))


def purchase(
    number: CardNumber, account: AccountKind = AccountKind.ONLINE, amount_fen: int = 100
) -> Purchase:
    return Purchase(number, account, Fen(amount_fen), None, "051")


OURS, OTHERS, NOBODYS = card("313350"), card("313310"), card("622202")
ORIGINAL = Original(1, 1, 3, 15)


def load(number: CardNumber, source: LoadSource) -> Load:
    return Load(number, source, Fen(100), None, None, "051")


def routes_of_nothing() -> Routes:
    def connect() -> AbstractAsyncContextManager[Connection]:
        raise AssertionError("nobody reads")

    return Routes(connect, own_ids=[OWN_ID])


#   request                                            ours   where
ASKED: list[tuple[CardRequest, bool, object]] = [
    (purchase(OURS), True, LEDGER),
    (purchase(OURS, AccountKind.MEDICAL), True, Decline.NO_ROUTE),
    (Balance(OURS, AccountKind.MEDICAL, None, "051"), True, Decline.NO_ROUTE),
    (purchase(OURS, AccountKind.MEDICAL, 0), True, LEDGER),  # 13 comes first
    (purchase(OURS), False, LEDGER),  # ours by its number, and unknown: 14
    (purchase(OTHERS), False, Decline.NO_ROUTE),
    (purchase(NOBODYS), False, Decline.ISSUER_UNKNOWN),
    (purchase(card("622202", good=False)), False, LEDGER),  # 14 comes first
    (Balance(NOBODYS, AccountKind.ONLINE, None, "051"), False, Decline.ISSUER_UNKNOWN),
    (load(NOBODYS, LoadSource.OTHER_BANK), False, Decline.NO_ROUTE),
    (load(OURS, LoadSource.OTHER_BANK), True, Decline.NO_ROUTE),
    (load(OURS, LoadSource.BOUND_BANK), True, Decline.NO_ROUTE),
    (load(OURS, LoadSource.ONLINE), True, LEDGER),
    (load(OURS, LoadSource.CASH), True, LEDGER),
    (Refund(NOBODYS, AccountKind.ONLINE, Fen(1), ORIGINAL, "0" * 12, "051"), False, LEDGER),  # goes where its original went
    (Refused(NOBODYS, Fen(1), "57", "cash"), False, LEDGER),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "own", "where"), ASKED)
def test_what_begins_something_is_asked_about_and_the_rest_is_the_ledgers(
    request_: CardRequest, own: bool, where: object
) -> None:
    table = table_of("10 account=MEDICAL HOST:social", "20 type=LOAD account=BANK HOST:icbc")
    assert routes_of_nothing().route(table, request_, ENTRY, own=own) == where


def test_a_bound_bank_card_is_asked_about_though_no_row_moves_our_cards() -> None:
    icbc = Destination(Way.HOST, "icbc")
    routes = routes_of_nothing()
    routes.join(
        has=lambda one: one == icbc,
        usable=lambda _one: False,
        hosts_of=lambda bank: (icbc,) if bank == "01020000" else (),
    )
    by_bank = purchase(OURS, AccountKind.BANK)
    for request in (by_bank, load(OURS, LoadSource.BOUND_BANK), Balance(OURS, AccountKind.BANK, None, "051")):
        assert routes.route(table_of(), request, ENTRY, own=True, bank="01020000") == icbc
        assert routes.route(table_of(), request, ENTRY, own=True, bank="01030000") == Decline.NO_ROUTE
        assert routes.route(table_of(), request, ENTRY, own=True) == LEDGER
    moved = table_of("10 account=BANK REFUSE:57")
    assert routes.route(moved, by_bank, ENTRY, own=True, bank="01020000") == Decline.ACCOUNT_NOT_PERMITTED


# ---------------------------------------------------------------------- with a database

pytestmark = pytest.mark.server


@pytest.fixture
async def connect(postgres_url: str) -> Callable[[], AbstractAsyncContextManager[Connection]]:
    @asynccontextmanager
    async def one() -> AsyncIterator[Connection]:
        async with await Connection.connect(postgres_url, autocommit=True) as connection:
            yield connection

    return one


@pytest.fixture
async def routes(connect: Callable[[], AbstractAsyncContextManager[Connection]]) -> AsyncIterator[Routes]:
    kept = Routes(connect, own_ids=[OWN_ID])
    yield kept
    await kept.close()


def put(url: str, *rows: str, back: bool = False) -> None:
    """Put a table in force as the commands do."""
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        hold(connection)
        if back:
            roll_back(connection, step_back(connection), "tests")
        else:
            stored = add(connection, text(*rows), rows=len(rows), actor="tests", note="")
            activate(connection, stored.version, "tests")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(url: str, routes: Routes) -> AsyncIterator[RegistryListener]:
    async def connect_now() -> Connection:
        return await Connection.connect(url, autocommit=True)

    listener = RegistryListener(connect_now, [routes])
    task = asyncio.create_task(listener.run())
    await listener.listening.wait()
    yield listener
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_change_takes_effect_by_itself_and_so_does_a_step_back(
    postgres_url: str, routes: Routes
) -> None:
    async with listening(postgres_url, routes):
        await routes.start()
        await until(lambda: routes.table is not None)
        assert (routes.version, routes.may_move_own) == (0, False)
        put(postgres_url, "10 account=MEDICAL HOST:social")
        await until(lambda: routes.version == 1)
        assert routes.may_move_own
        put(postgres_url, "10 cards=622202 HOST:icbc")
        await until(lambda: routes.version == 2 and not routes.may_move_own)
        put(postgres_url, back=True)
        await until(lambda: routes.version == 1 and routes.may_move_own)
        put(postgres_url, back=True)
        await until(lambda: routes.version == 0 and not routes.may_move_own)


async def test_of_many_changes_at_once_the_last_is_kept(postgres_url: str, routes: Routes) -> None:
    async with listening(postgres_url, routes):
        for n in range(1, 30):
            put(postgres_url, f"{n} cards=622202 HOST:h{n}")
            await asyncio.sleep(0)
        await until(lambda: routes.table is not None and routes.table.version == 29)
        assert routes.table is not None
        assert routes.table.rows[0].precedence == 29


async def test_a_registered_issuer_is_known_to_the_table_at_once(postgres_url: str, routes: Routes) -> None:
    async with listening(postgres_url, routes):
        await until(lambda: routes.table is not None)
        with psycopg.connect(postgres_url) as connection:
            connection.execute(
                "INSERT INTO institution (institution_id, name, role) VALUES ('99993310', 'x', 'CITY')"
            )
            connection.execute(
                "INSERT INTO card_issuer (issuer_id, institution_id, own) VALUES (%s, '99993310', false)",
                (bytes.fromhex("99993310FFFFFFFF"),),
            )
            connection.execute("SELECT pg_notify('registry', 'all')")
        await until(lambda: routes.table is not None and len(routes.table.participants.issuers) == 2)


async def test_while_changes_are_not_heard_each_who_asks_gets_what_is_in_force(
    postgres_url: str, routes: Routes
) -> None:
    routes.distrust()
    assert routes.may_move_own  # nobody knows, so everybody asks
    for n in (1, 2, 3):
        put(postgres_url, f"{n} cards=622202 HOST:h{n}")
        tables = await asyncio.gather(*(routes.current() for _ in range(50)))
        assert {table.version for table in tables} == {n}
        assert len({id(table) for table in tables}) == 1  # they share one reading
        assert routes.table is None
    routes.trust()
    await until(lambda: routes.table is not None and routes.table.version == 3)


async def test_word_of_terminals_and_cards_makes_nobody_read(routes: Routes) -> None:
    await routes.start()
    for payload in ("terminal:33500001", "card"):
        routes.notice(payload)
        assert routes._refreshing is None
    routes.notice("something new")
    assert routes._refreshing is not None


async def test_a_request_keeps_the_table_it_took(postgres_url: str, routes: Routes) -> None:
    async with listening(postgres_url, routes):
        put(postgres_url, "10 cards=622202 HOST:icbc")
        await until(lambda: routes.table is not None and routes.version == 1)
        taken = routes.table
        assert taken is not None
        put(postgres_url, "10 cards=622202 REFUSE:57")
        await until(lambda: routes.version == 2)
        assert routes.route(taken, purchase(NOBODYS), ENTRY, own=False) is Decline.NO_ROUTE
        now = await routes.current()
        assert routes.route(now, purchase(NOBODYS), ENTRY, own=False) is Decline.ACCOUNT_NOT_PERMITTED


def break_in(url: str) -> None:
    """A version that no command would have stored."""
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        stored = add(connection, f"{HEADER}\nnonsense\n", rows=1, actor="tests", note="")
        activate(connection, stored.version, "tests")


async def test_a_table_that_cannot_be_read_never_replaces_one_that_serves(
    postgres_url: str, routes: Routes
) -> None:
    async with listening(postgres_url, routes):
        put(postgres_url, "10 cards=622202 HOST:icbc")
        await until(lambda: routes.table is not None and routes.table.version == 1)
        break_in(postgres_url)
        await until(lambda: bool(routes.problem))
        assert routes.table is not None
        assert routes.table.version == 1
        put(postgres_url, back=True)
        await until(lambda: not routes.problem)
        assert routes.table.version == 1


async def test_a_process_does_not_start_on_a_table_that_it_cannot_read(
    postgres_url: str, routes: Routes
) -> None:
    break_in(postgres_url)
    with pytest.raises(ConfigurationError, match="routing table: version 1: line 2"):
        await routes.start()


async def test_a_database_that_is_away_is_tried_again(postgres_url: str) -> None:
    away = True

    @asynccontextmanager
    async def connect() -> AsyncIterator[Connection]:
        if away:
            raise psycopg.OperationalError("away")
        async with await Connection.connect(postgres_url, autocommit=True) as connection:
            yield connection

    kept = Routes(connect, own_ids=[])
    kept.notice("routes")
    await until(lambda: bool(kept.problem))
    with pytest.raises(psycopg.OperationalError):
        await kept.current()
    away = False
    await until(lambda: kept.table is not None)
    assert not kept.problem
    await kept.close()


async def test_changes_that_never_cease_do_not_keep_an_old_table_in_force(
    postgres_url: str, routes: Routes
) -> None:
    async with listening(postgres_url, routes):
        await until(lambda: routes.table is not None)
        put(postgres_url, "10 cards=622202 HOST:icbc")

        async def rain() -> None:
            while True:
                routes.notice("all")
                await asyncio.sleep(0)

        raining = asyncio.create_task(rain())
        try:
            await until(lambda: routes.table is not None and routes.table.version == 1)
        finally:
            raining.cancel()
            await asyncio.gather(raining, return_exceptions=True)
