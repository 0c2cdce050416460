"""Sessions of terminals, with a real vault and a real PostgreSQL; two directories stand for two processes."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg
import pytest

from switch.domain.errors import ConfigurationError, MacMismatch
from switch.domain.transactions import SignOn
from switch.keys.software_vault import SoftwareVault
from switch.registry.invalidation import RegistryListener
from switch.registry.sessions import PENDING_MAX, SignOnRefused, SignOnResult, promote, sign_off, sign_on
from switch.registry.terminals import TerminalDirectory, TerminalEntry, Unknown
from tests.unit.registry.helpers import CLOSED_MERCHANT, DAY, MERCHANT

pytestmark = pytest.mark.server

Connection = psycopg.AsyncConnection[Any]
Connect = Callable[[], Awaitable[Connection]]
MAB = b"\x02\x00 message"
TDES_TERMINAL, SM4_TERMINAL = "33500001", "33500005"


def pooled(connect: Connect) -> Callable[[], AbstractAsyncContextManager[Connection]]:
    @asynccontextmanager
    async def one() -> AsyncIterator[Connection]:
        connection = await connect()
        try:
            yield connection
        finally:
            await connection.close()

    return one


def request(mode: str) -> SignOn:
    return SignOn(mode, "00000001", "01")


async def entry_of(directory: TerminalDirectory, terminal_id: str) -> TerminalEntry:
    entry = await directory.reload(terminal_id)
    assert isinstance(entry, TerminalEntry)
    return entry


@pytest.fixture
async def directory(connect: Connect, vault: SoftwareVault) -> AsyncIterator[TerminalDirectory]:
    directory = TerminalDirectory(pooled(connect), vault)
    yield directory
    await directory.close()


@pytest.fixture
async def connection(connect: Connect) -> Connection:
    return await connect()


async def signed_on(
    connection: Connection,
    vault: SoftwareVault,
    directory: TerminalDirectory,
    terminal_id: str = SM4_TERMINAL,
) -> tuple[SignOnResult, TerminalEntry]:
    """Sign on and bring the new keys into force, as a first good MAC does."""
    mode = "005" if terminal_id == SM4_TERMINAL else "003"
    result = await sign_on(connection, vault, await entry_of(directory, terminal_id), request(mode))
    assert isinstance(result, SignOnResult)
    entry = await entry_of(directory, terminal_id)
    assert await promote(connection, entry.terminal_no, result.generation)
    return result, await entry_of(directory, terminal_id)


async def test_the_first_sign_on_opens_batch_one_on_the_open_day(
    connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    entry = await entry_of(directory, SM4_TERMINAL)
    assert (entry.batch_no, entry.batch_opened_on, entry.usable_keys(0)) == (0, None, ())
    result = await sign_on(connection, vault, entry, request("005"))
    assert isinstance(result, SignOnResult)
    assert (result.batch_no, result.generation, len(result.field62)) == (1, 1, 40)
    entry = await entry_of(directory, SM4_TERMINAL)
    assert (entry.batch_no, entry.batch_opened_on, entry.generation) == (1, DAY, 0)
    assert [one.generation for one in entry.usable_keys(0)] == [1]
    assert await directory.batch_opened_on(entry.terminal_no, 1) == DAY
    assert await directory.batch_opened_on(entry.terminal_no, 2) is None


@pytest.mark.parametrize(("mode", "length"), [("001", 40), ("003", 40), ("004", 60)])
async def test_a_3des_terminal_gets_the_keys_it_asks_for(
    connection: Connection, vault: SoftwareVault, directory: TerminalDirectory, mode: str, length: int
) -> None:
    result = await sign_on(connection, vault, await entry_of(directory, TDES_TERMINAL), request(mode))
    assert isinstance(result, SignOnResult)
    assert len(result.field62) == length


@pytest.mark.parametrize(
    ("terminal_id", "mode", "answer"),
    [
        (TDES_TERMINAL, "005", "58"),
        (SM4_TERMINAL, "003", "58"),
        (SM4_TERMINAL, "001", "58"),
        ("33500009", "005", "97"),
        ("33500010", "005", "03"),
    ],
)
async def test_who_may_not_sign_on_this_way_is_told_and_nothing_is_opened(
    connection: Connection,
    vault: SoftwareVault,
    directory: TerminalDirectory,
    terminal_id: str,
    mode: str,
    answer: str,
) -> None:
    result = await sign_on(connection, vault, await entry_of(directory, terminal_id), request(mode))
    assert isinstance(result, SignOnRefused)
    assert result.answer == answer
    entry = await entry_of(directory, terminal_id)
    assert (entry.batch_no, entry.key_sets) == (0, ())


async def test_an_open_or_frozen_batch_goes_on_and_a_closed_one_is_followed_by_the_next(
    connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    entry = await entry_of(directory, SM4_TERMINAL)
    numbers = []
    for state in (0, 1, 2, 2):
        result = await sign_on(connection, vault, entry, request("005"))
        assert isinstance(result, SignOnResult)
        numbers.append(result.batch_no)
        await connection.execute("UPDATE terminal_batch SET state = %s", (state,))
    assert numbers == [1, 1, 1, 2]


async def test_after_the_last_batch_number_comes_the_first_again(
    connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    entry = await entry_of(directory, SM4_TERMINAL)
    await sign_on(connection, vault, entry, request("005"))
    await connection.execute("UPDATE terminal_batch SET state = 2, claimed = 'old', opened_on = '2020-01-01'")
    await connection.execute("UPDATE terminal_session SET batch_no = 999999")
    result = await sign_on(connection, vault, entry, request("005"))
    assert isinstance(result, SignOnResult)
    assert result.batch_no == 1
    cursor = await connection.execute("SELECT opened_on, state, claimed FROM terminal_batch")
    assert await cursor.fetchall() == [(DAY, 0, None)]


async def test_a_strangers_sign_on_leaves_the_old_keys_serving(
    connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    _, entry = await signed_on(connection, vault, directory)
    field64 = entry.key_sets[0].keys.mac(MAB)
    for _ in range(10):
        await sign_on(connection, vault, entry, request("005"))
    entry = await entry_of(directory, SM4_TERMINAL)
    assert [one.generation for one in entry.key_sets] == [1, 11, 10, 9, 8]
    assert len(entry.key_sets) == 1 + PENDING_MAX
    entry.key_sets[0].keys.verify(MAB, field64)


async def test_the_first_good_mac_under_waiting_keys_ends_the_old_ones(
    connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    _, entry = await signed_on(connection, vault, directory)
    old = entry.key_sets[0].keys.mac(MAB)
    second = await sign_on(connection, vault, entry, request("005"))
    assert isinstance(second, SignOnResult)
    assert await promote(connection, entry.terminal_no, second.generation)
    assert await promote(connection, entry.terminal_no, second.generation)  # again: nothing more happens
    assert not await promote(connection, entry.terminal_no, entry.generation)
    entry = await entry_of(directory, SM4_TERMINAL)
    assert [one.generation for one in entry.key_sets] == [second.generation]
    with pytest.raises(MacMismatch):
        entry.key_sets[0].keys.verify(MAB, old)


async def test_keys_that_were_pushed_out_cannot_be_brought_into_force(
    connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    _, entry = await signed_on(connection, vault, directory)
    for _ in range(PENDING_MAX + 1):
        await sign_on(connection, vault, entry, request("005"))
    assert not await promote(connection, entry.terminal_no, entry.generation + 1)
    assert (await entry_of(directory, SM4_TERMINAL)).generation == entry.generation


async def test_of_two_processes_that_promote_at_once_the_younger_keys_win(
    connect: Connect, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    first, second, third = [await connect() for _ in range(3)]
    entry = await entry_of(directory, SM4_TERMINAL)
    for _ in range(3):
        await sign_on(first, vault, entry, request("005"))
    async with third.transaction():
        await third.execute("SELECT FROM terminal_session FOR UPDATE")
        tasks = [
            asyncio.create_task(promote(first, entry.terminal_no, 3)),
            asyncio.create_task(promote(second, entry.terminal_no, 2)),
        ]
        await asyncio.sleep(0.05)
    assert (await asyncio.gather(*tasks))[0]
    entry = await entry_of(directory, SM4_TERMINAL)
    assert (entry.generation, [one.generation for one in entry.key_sets]) == (3, [3])


async def test_sign_off_ends_all_keys_and_the_batch_stays_open(
    connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    _, entry = await signed_on(connection, vault, directory)
    await sign_on(connection, vault, entry, request("005"))
    assert await sign_off(connection, entry.terminal_no, entry.generation)
    assert not await sign_off(connection, entry.terminal_no, entry.generation)
    after = await entry_of(directory, SM4_TERMINAL)
    assert after.key_sets == ()
    assert after.generation > entry.generation + 1
    assert not await promote(connection, entry.terminal_no, entry.generation + 1)
    result, again = await signed_on(connection, vault, directory)
    assert result.batch_no == entry.batch_no
    assert [one.generation for one in again.key_sets] == [again.generation]


async def test_an_old_sign_off_that_comes_late_does_not_end_the_session_after_it(
    connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    _, before = await signed_on(connection, vault, directory)
    _, after = await signed_on(connection, vault, directory)
    assert not await sign_off(connection, before.terminal_no, before.generation)
    assert (await entry_of(directory, SM4_TERMINAL)).generation == after.generation
    assert (await entry_of(directory, SM4_TERMINAL)).key_sets


async def test_a_session_survives_a_restart(
    connect: Connect, connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    _, entry = await signed_on(connection, vault, directory)
    field64 = entry.key_sets[0].keys.mac(MAB)
    reborn = TerminalDirectory(pooled(connect), vault)
    again = await entry_of(reborn, SM4_TERMINAL)
    again.key_sets[0].keys.verify(MAB, field64)
    assert again._replace(key_sets=()) == entry._replace(key_sets=())
    await reborn.close()


async def test_keys_older_than_their_limit_do_not_serve(
    connect: Connect, connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    _, entry = await signed_on(connection, vault, directory)
    until_s = entry.key_sets[0].until_s
    assert len(entry.usable_keys(until_s)) == 1
    assert entry.usable_keys(until_s + 1) == ()
    await connection.execute("UPDATE terminal_key_set SET drawn_at = drawn_at - interval '1 hour'")
    await sign_on(connection, vault, entry, request("005"))
    entry = await entry_of(directory, SM4_TERMINAL)
    assert [one.generation for one in entry.usable_keys(until_s - 1800)] == [2]


async def test_keys_of_another_vault_count_as_gone(
    connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    await signed_on(connection, vault, directory)
    await signed_on(connection, vault, directory, TDES_TERMINAL)
    await connection.execute(
        "UPDATE terminal_key_set k SET keys = '\\x00' FROM terminal t"
        " WHERE t.terminal_no = k.terminal_no AND t.terminal_id = %s",
        (SM4_TERMINAL,),
    )
    directory.notice("all")
    loaded = await asyncio.gather(directory.load(SM4_TERMINAL), directory.load(TDES_TERMINAL))
    assert [len(one.key_sets) for one in loaded if isinstance(one, TerminalEntry)] == [0, 1]


async def test_without_a_business_day_nobody_signs_on(
    connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    await connection.execute("UPDATE business_day SET ends_at = begins_at + interval '1 minute'")
    with pytest.raises(ConfigurationError):
        await sign_on(connection, vault, await entry_of(directory, SM4_TERMINAL), request("005"))


async def test_merchant_and_terminal_must_belong_together(directory: TerminalDirectory) -> None:
    active = await directory.load(TDES_TERMINAL)
    closed = await directory.load("33500009")
    homeless = await directory.load("33500010")
    unknown = await directory.load("no such!")
    assert isinstance(unknown, Unknown)
    assert isinstance(active, TerminalEntry)
    assert active.serves(MERCHANT)
    cases = [
        (active, MERCHANT, ""),
        (active, CLOSED_MERCHANT, "03"),
        (active, "no such merchan", "03"),
        (closed, MERCHANT, "97"),
        (homeless, CLOSED_MERCHANT, "03"),
        (homeless, MERCHANT, "97"),
        (unknown, MERCHANT, "97"),
        (unknown, "no such merchan", "03"),
    ]
    for entry, merchant_id, answer in cases:
        assert await directory.refusal(entry, merchant_id) == answer


@asynccontextmanager
async def process(connect: Connect, vault: SoftwareVault) -> AsyncIterator[TerminalDirectory]:
    """A directory with its listener, as one `cardswitch serve` has them."""
    directory = TerminalDirectory(pooled(connect), vault)
    listener = RegistryListener(connect, [directory], retry_s=0.01)
    task = asyncio.create_task(listener.run())
    await listener.listening.wait()
    try:
        yield directory
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await directory.close()


async def _until_forgotten(directory: TerminalDirectory, terminal_id: str) -> None:
    async with asyncio.timeout(60):
        while directory.get(terminal_id) is not None:
            await asyncio.sleep(0.005)


async def test_a_sign_on_in_one_process_is_heard_in_the_other(
    connect: Connect, connection: Connection, vault: SoftwareVault
) -> None:
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(process(connect, vault)) for _ in range(2)]
        before = await there.load(SM4_TERMINAL)
        other = await there.load(TDES_TERMINAL)
        assert there.get(SM4_TERMINAL) is before
        await signed_on(connection, vault, here)
        await _until_forgotten(there, SM4_TERMINAL)
        entry = await there.load(SM4_TERMINAL)
        assert isinstance(entry, TerminalEntry)
        assert entry.generation == 1
        assert there.get(TDES_TERMINAL) is other
        await connection.execute("SELECT pg_notify('registry', 'all')")
        await _until_forgotten(there, TDES_TERMINAL)


async def test_a_lost_listening_connection_empties_the_cache_until_it_is_back(
    connect: Connect, connection: Connection, vault: SoftwareVault
) -> None:
    async with process(connect, vault) as directory:
        await directory.load(SM4_TERMINAL)
        assert directory.get(SM4_TERMINAL) is not None
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN registry'"
            " AND datname = current_database()"
        )
        await _until_forgotten(directory, SM4_TERMINAL)
        async with asyncio.timeout(60):
            while directory.get(SM4_TERMINAL) is None:
                await directory.load(SM4_TERMINAL)
                await asyncio.sleep(0.005)


async def test_ten_thousand_idle_terminals_need_a_few_kilobytes_each(
    connect: Connect, connection: Connection, vault: SoftwareVault, directory: TerminalDirectory
) -> None:
    await connection.execute(
        "INSERT INTO terminal (terminal_id, merchant_no, mac_algorithm)"
        " SELECT to_char(n, 'FM00000000'), (SELECT merchant_no FROM merchant LIMIT 1), 5 FROM generate_series(1, 10000) n"
    )
    drawn = {number: await sign_on(connection, vault, await entry_of(directory, f"{number:08d}"), request("005"))
             for number in range(1, 201)}  # fmt: skip
    assert len(drawn) == 200
    directory.notice("all")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        entries = await asyncio.gather(*(directory.load(f"{number:08d}") for number in range(1, 201)))
        each = (tracemalloc.get_traced_memory()[0] - before) / 200
    finally:
        tracemalloc.stop()
    assert all(isinstance(entry, TerminalEntry) and entry.key_sets for entry in entries)
    assert each < 4_000
    await asyncio.gather(*(directory.load(f"{number:08d}") for number in range(1, 10_001)))
    assert len(directory) == 10_000
