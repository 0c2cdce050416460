"""A dump of the books loaded into another cluster, whose transactions are numbered otherwise: nothing is folded twice or never."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.keys.ceremony import Custodian
from switch.keys.opening import create_vault
from switch.keys.records import KeyLevel, KeySpec
from switch.keys.sealing import UnlockSecret
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import JsonKeyStore
from switch.ledger.days import ensure_days
from switch.operations.audit import audit as run_audit
from switch.storage.embedded import EmbeddedPostgres, binaries
from switch.storage.migrate import migrate
from switch.storage.pool import connect, connect_now
from tests.helpers.audited_city import City
from tests.helpers.audited_days import live_three_days
from tests.helpers.offline import ROOT, Ride
from tests.helpers.switch_process import cardswitch

pytestmark = [pytest.mark.server, pytest.mark.slow]

QUICK = {"fsync": "off", "full_page_writes": "off"}
AGE = 20_000  # transactions by which one cluster is older than the other


@pytest.fixture
def vault(tmp_path: Path) -> SoftwareVault:
    """A vault with the root under which rides are signed."""
    store = JsonKeyStore(tmp_path / "keys.json")
    vault = create_vault(store, UnlockSecret(b"a key file for the tests, 32 bytes", "hkdf"), rehearsal=True)
    first = bytes(range(100, 116))
    second = bytes(a ^ b for a, b in zip(first, ROOT, strict=True))
    for algorithm in ("3DES", "SM4"):
        spec = KeySpec("DTK", algorithm, 1, "national", KeyLevel.ROOT, 1)
        Custodian(vault, store).enter(spec, [first, second], ("li wei", "wang fang"))
    return vault


def grow_old(url: str) -> None:
    """Let a cluster have seen many transactions."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(
            f"DO $$ BEGIN FOR n IN 1..{AGE} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$".encode()
        )


def move(source: str, target: str) -> None:
    """pg_dump | psql, as docs/operations.md says."""
    dump = subprocess.run([binaries() / "pg_dump", source], stdout=subprocess.PIPE, check=True, timeout=600)
    subprocess.run(
        [binaries() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target],
        input=dump.stdout,
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=600,
    )


def faults(url: str, folder: Path) -> list[str]:
    """What the audit names."""
    with connect_now(url) as connection:
        return [
            f"{one.name}: {place}"
            for one in run_audit(connection, folder, None).verdicts
            for place in one.places
        ]


def owed_to_merchants(url: str) -> Any:
    with connect_now(url) as connection:
        return connection.execute(
            "SELECT sum(credit_fen - debit_fen) FROM folded_balance WHERE code = 2101"
        ).fetchone()


@pytest.fixture
async def clusters(tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """Two servers."""
    async with AsyncExitStack() as stack:
        urls = []
        for name in ("one", "other"):
            folder = tmp_path / name
            folder.mkdir()
            server = EmbeddedPostgres(folder, memory_mb=64, settings=QUICK)
            urls.append(server.start())
            stack.callback(server.stop)
        yield urls[0], urls[1]


@pytest.mark.parametrize("older", ["the one it comes from", "the one it goes to"])
async def test_books_that_were_loaded_into_another_cluster_are_folded_once_and_audited_clean(
    clusters: tuple[str, str], vault: SoftwareVault, tmp_path: Path, older: str
) -> None:
    source, target = clusters
    folder = tmp_path / "clearing"
    await asyncio.to_thread(grow_old, source if older == "the one it comes from" else target)
    migrate(source)
    await asyncio.to_thread(
        asyncio.run, live_three_days(source, vault, folder)
    )  # ends with postings not folded
    await asyncio.to_thread(move, source, target)
    owed = owed_to_merchants(source)

    assert any(
        "transaction_numbers" in fault for fault in faults(target, folder)
    )  # told before anything is booked
    if older == "the one it comes from":  # as every start of the service does
        async with await connect(target) as connection:
            await ensure_days(connection, 4)
    else:
        environment = os.environ | {"CARDSWITCH_DATABASE__URL": target}
        for moved in (True, False):
            said = await asyncio.to_thread(cardswitch, "migrate", "--json", environment=environment)
            assert json.loads(said) == {"applied": [], "moved": moved}
    assert faults(target, folder) == []
    assert owed_to_merchants(target) == owed

    async with City(target, vault, folder) as city:
        city.trace_from(5_000)
        await city.fold()  # what the dump brought and the old cluster had not folded
        assert faults(target, folder) == []
        async with await connect(source) as connection:
            old = City(source, vault, folder)
            await old.fold()
        assert owed_to_merchants(target) == owed_to_merchants(source)
        before = owed_to_merchants(target)[0]
        _, outcome = await city.buy(9, 321)
        assert outcome.answer == "00"
        await city.bring(Ride(card=9, atc=40, amount_fen=55, balance_fen=90_000))
        await city.fold()
        assert owed_to_merchants(target)[0] == before + 321 + 55
        if older == "the one it comes from":  # the new cluster reaches the numbers of the old one
            await asyncio.to_thread(grow_old, target)
            await city.fold()
            assert owed_to_merchants(target)[0] == before + 321 + 55
        await city.close()
        assert faults(target, folder) == []


async def test_a_database_that_stays_in_its_cluster_keeps_its_numbers(postgres_url: str) -> None:
    async with await connect(postgres_url) as connection:
        for _ in range(2):
            await ensure_days(connection, 4)
        cursor = await connection.execute(
            "SELECT ahead, cluster_id = (SELECT system_identifier FROM pg_control_system()) FROM transaction_numbers"
        )
        assert await cursor.fetchone() == (0, True)
        plan = await connection.execute(
            "EXPLAIN (VERBOSE, COSTS OFF) INSERT INTO posting (shard, business_date, entry_no, debit_code, debit_owner,"
            " credit_code, credit_owner, amount_fen) SELECT 0, current_date, 1, 1, 1, 2, 2, n FROM generate_series(1, 9) n"
        )
        text = "\n".join(row[0] for row in await plan.fetchall())
    assert "pg_current_xact_id" in text  # inlined: a writer pays for no call
    assert "transaction_number" not in text
