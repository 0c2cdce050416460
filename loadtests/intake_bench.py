"""How many offline records a second: parsed, TACs verified, deduplicated, durable. And the plain COPY to compare with.

`python -m loadtests.intake_bench [URL]` prints JSON. URL: a PostgreSQL server where a database may be made and dropped; by
default one is started. The comparison is a server-side COPY of the very rows that intake wrote, from a file, into the
same indexed tables, emptied.
"""

import asyncio
import json
import multiprocessing
import os
import random
import struct
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import uvloop

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import Outcome
from switch.domain.identifiers import luhn_digit
from switch.keys.ceremony import Custodian
from switch.keys.derivation import issuer_key, many_children
from switch.keys.opening import create_vault
from switch.keys.primitives import Algorithm, MasterKey, TacKey, block_cipher
from switch.keys.purse import tac
from switch.keys.records import KeyLevel, KeySpec
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import JsonKeyStore
from switch.keys.workers import tac_pool, tac_snapshot
from switch.ledger.days import ensure_days
from switch.purse.batches import stan_of
from switch.purse.digest import tac_input
from switch.purse.intake import DigestAll, IntakeLanes, IntakeWriter, Upload, inline_tacs, pooled_tacs
from switch.purse.record import crc16
from switch.storage.embedded import EmbeddedPostgres
from switch.storage.migrate import migrate
from switch.storage.pool import connect

ISSUER = bytes.fromhex("99993350FFFFFFFF")
ROOT = bytes(range(1, 17))
ROOTS = {Algorithm.TDES: ROOT, Algorithm.SM4: ROOT}
SHARDS = 2
LANES = 2
_HEAD = struct.Struct(">6B10s8s2s2BH2I4s3s6sI")
_TAIL = struct.Struct(">4sI8s2sI2B2s2s2s4s4sB")


def make_records(
    count: int,
    cards: int,
    terminals: int,
    seed: int = 7,
    *,
    first_card: int = 0,
    first_psam: int = 0,
    roots: Mapping[Algorithm, bytes] = ROOTS,
) -> list[bytes]:
    """Good records in random order of cards, half of them 3DES and half SM4; every PSAM's serials follow each other.

    Record n is of PSAM n % terminals, numbered from first_psam + 1. roots: DTK of each algorithm.
    """
    rng = random.Random(seed)
    pans = [_pan(first_card + number) for number in range(cards)]
    diversifiers = [bytes.fromhex(pan[3:]) for pan in pans]
    keys = {}
    for algorithm, root in roots.items():
        master = issuer_key(MasterKey(root, algorithm, "DTK"), ISSUER)
        keys[algorithm] = many_children(block_cipher(master), diversifiers)
    moment = (datetime.now(SHANGHAI) - timedelta(hours=3)).strftime("%Y%m%d%H%M%S")
    date, clock = bytes.fromhex(moment[:8]), bytes.fromhex(moment[8:])
    acquirer = bytes.fromhex("99993350FFFFFFFF")
    psams = [bytes.fromhex(f"{first_psam + number + 1:012d}") for number in range(terminals)]
    next_atc = [0] * cards
    records = []
    for number in range(count):
        card = rng.randrange(cards)
        algorithm = Algorithm.SM4 if card % 2 else Algorithm.TDES
        terminal, serial = number % terminals, number // terminals
        amount = rng.randrange(100, 900)
        index = 0x41 if algorithm is Algorithm.SM4 else 1
        head = _HEAD.pack(
            *(1, 0, 6, algorithm, 1, index, bytes.fromhex("0" + pans[card]), ISSUER, b"\x33\x50", 1, 0),
            *(next_atc[card], amount, 100_000, date, clock, psams[terminal], serial),
        )
        next_atc[card] += 1
        made = tac(TacKey(keys[algorithm][card], algorithm), tac_input(head))
        tail = _TAIL.pack(
            made,
            serial,
            acquirer,
            b"\x33\x50",
            amount,
            0,
            2,
            b"\0\7",
            b"\0\0",
            b"\0\0",
            b"\0\1\x23\x45",
            b"\0\0\0\x21",
            0,
        )
        body = head + tail
        records.append(body + crc16(body).to_bytes(2))
    return records


def _pan(number: int) -> str:
    digits = f"31335001{number:010d}"
    return digits + luhn_digit(digits)


async def _populate(url: str, cards: int, terminals: int) -> None:
    async with await connect(url) as link:
        await ensure_days(link)
        await link.execute("INSERT INTO institution VALUES ('99993350', 'own', 'ISSUER')")
        await link.execute("INSERT INTO card_issuer VALUES (%s, '99993350', true)", (ISSUER,))
        await link.execute(
            "INSERT INTO merchant (merchant_id, name, category, acquirer_id)"
            " VALUES ('993350054110001', 'bus', '4111', '99993350')"
        )
        for statement in (
            (
                "INSERT INTO terminal (terminal_id, merchant_no, mac_algorithm)"
                " SELECT lpad(n::text, 8, '0'), 1, 5 FROM generate_series(1, %s) n"
            ),
            "INSERT INTO psam SELECT lpad(n::text, 12, '0'), 1 FROM generate_series(1, %s) n",
            "INSERT INTO terminal_session SELECT n, 1, 1, 1, now() FROM generate_series(1, %s) n",
            (
                "INSERT INTO terminal_batch SELECT n, 1, business_date FROM generate_series(1, %s) n, business_day"
                " WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at"
            ),
        ):
            await link.execute(statement, (terminals,))
        async with link.cursor() as cursor:
            async with cursor.copy("COPY card_route FROM STDIN") as copy:
                for number in range(cards):
                    await copy.write_row((_pan(number), number % SHARDS, number + 1, number + 1))
            async with cursor.copy(
                "COPY card (shard, pan, card_no, holder_id, state, valid_from, valid_through) FROM STDIN"
            ) as copy:
                for number in range(cards):
                    row = (
                        number % SHARDS,
                        _pan(number),
                        number + 1,
                        number + 1,
                        1,
                        "2020-01-01",
                        "2040-12-31",
                    )
                    await copy.write_row(row)
        await link.execute("VACUUM ANALYZE card_route, card")


def _uploads(records: Sequence[bytes], terminals: int, size: int) -> list[Upload]:
    made: list[Upload] = []
    today = datetime.now(SHANGHAI).date() - timedelta(days=1)
    for number, start in enumerate(range(0, len(records), size)):
        part = tuple(records[start : start + size])
        serial = number // terminals + 1
        bulk = size > 99
        made.append(
            Upload(
                terminal_no=number % terminals + 1,
                terminal_id=f"{number % terminals + 1:08d}",
                merchant_no=1,
                acquirer_id="99993350",
                batch_no=1,
                stan=stan_of(serial) if bulk else serial,
                digest=number.to_bytes(32),
                generation=1,
                since=today,
                records=part,
                bulk=bulk,
                serial=serial if bulk else 0,
            )
        )
    return made


class _Drive(NamedTuple):
    """Seconds until every upload was answered, records accepted, and processor seconds of who took part."""

    seconds: float
    accepted: int
    processor_s: dict[str, float]


async def _drive(url: str, digest_all: DigestAll, uploads: Sequence[Upload], *, in_flight: int) -> _Drive:
    """Send all uploads, at most in_flight at a time."""
    writer = IntakeLanes(
        lambda: IntakeWriter(lambda: connect(url), digest_all, SHARDS, queue_max=1_000_000), LANES
    )
    task = asyncio.create_task(writer.run())
    room = asyncio.Semaphore(in_flight)
    accepted = 0
    left = len(uploads)
    failed = False
    finished = asyncio.Event()

    def done(outcome: Outcome | None) -> None:
        nonlocal accepted, failed, left
        if outcome is None:
            failed = True
        else:
            accepted += outcome.field62[2:].count(b"10")
        left -= 1
        room.release()
        if not left:
            finished.set()

    before = _processor_s(url)
    started = time.perf_counter()
    for upload in uploads:
        await room.acquire()
        assert writer.submit(upload, done)
    await finished.wait()
    seconds = time.perf_counter() - started
    spent = {name: now - before.get(name, 0.0) for name, now in _processor_s(url).items()}
    writer.stop()
    await task
    if failed:
        raise RuntimeError("an upload was answered 96: see the log")
    return _Drive(seconds, accepted, spent)


def _stat_s(pid: int) -> float:
    """Processor seconds of a process, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _processor_s(url: str) -> dict[str, float]:
    """Processor seconds so far: of this process, of those that it started, and of the server's that live now."""
    workers = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
    with psycopg.connect(url, autocommit=True) as link:
        server = [pid for (pid,) in link.execute("SELECT pid FROM pg_stat_activity")]
    return {
        "switch": time.process_time(),
        "workers": sum(map(_stat_s, workers)),
        "postgres": sum(_stat_s(pid) for pid in server if Path(f"/proc/{pid}").exists()),
    }


def _plain_copy(url: str, folder: Path) -> dict[str, float]:
    """Seconds of a server-side COPY of the stored rows into the same tables, emptied; guards with and without."""
    with psycopg.connect(url, autocommit=True) as link:
        row = link.execute("SELECT business_date FROM purse_record LIMIT 1").fetchone()
        assert row is not None
        partition = f"purse_record_{row[0]:%Y%m%d}"
        seconds = {}
        link.execute(f"ALTER TABLE {partition} DISABLE TRIGGER append_only")
        folder.chmod(0o777)  # the server writes and reads these files as its own user
        for table in (partition, "purse_atc", "purse_serial"):
            path = folder / table
            link.execute(f"COPY {table} TO '{path}' (FORMAT BINARY)")
            link.execute(f"TRUNCATE {table}")
            link.execute("CHECKPOINT")
            started = time.perf_counter()
            link.execute(f"COPY {table} FROM '{path}' (FORMAT BINARY)")
            seconds[table.removesuffix(f"_{row[0]:%Y%m%d}")] = time.perf_counter() - started
        link.execute(f"ALTER TABLE {partition} ENABLE TRIGGER append_only")
    return seconds


async def _measure(
    url: str, folder: Path, *, records: int, cards: int, terminals: int, size: int, workers: int
) -> dict[str, Any]:
    await _populate(url, cards, terminals)
    made = make_records(records, cards, terminals)
    store = JsonKeyStore(folder / "keys.json")
    unlock = UnlockSecret(b"a key file for the benchmark, 32 b", "hkdf")
    vault = create_vault(store, unlock, rehearsal=True)
    first = bytes(range(100, 116))
    for algorithm in ("3DES", "SM4"):
        spec = KeySpec("DTK", algorithm, 1, "national", KeyLevel.ROOT, 1)
        Custodian(vault, store).enter(
            spec, [first, bytes(a ^ b for a, b in zip(first, ROOT, strict=True))], ("a", "b")
        )
    uploads = _uploads(made, terminals, size)
    if workers:
        with tac_pool(tac_snapshot(store), unlock, workers) as pool:
            check = pooled_tacs(pool, vault, share=max(1_024, 4_096 // workers))
            await check(b"".join(made[:1_000]))  # nothing is measured of their start
            found = await _drive(url, check, uploads, in_flight=max(2, 40_000 // size))
    else:
        found = await _drive(url, inline_tacs(vault), uploads, in_flight=max(2, 40_000 // size))
    return {
        "seconds": found.seconds,
        "records": records,
        "accepted": found.accepted,
        "records_per_s": records / found.seconds,
        "processor_us_per_record": {
            name: round(spent / records * 1e6, 2) for name, spent in found.processor_s.items()
        },
    }


def measure(
    server_url: str,
    *,
    records: int = 200_000,
    cards: int = 50_000,
    terminals: int = 200,
    size: int = 1_000,
    workers: int = 0,
) -> dict[str, Any]:
    """Figures of one run: records_per_s, and as a ratio to plain COPY of the same rows into the same indexed table.

    size: records of one upload. workers: processes that check TACs; 0: the writer's own. A database is made for it.
    """
    name = f"intake_bench_{time.time_ns()}"
    url = psycopg.conninfo.make_conninfo(server_url, dbname=name)
    with psycopg.connect(server_url, autocommit=True) as link:
        link.execute(f"CREATE DATABASE {name}")
    try:
        migrate(url)
        with tempfile.TemporaryDirectory() as folder:
            figures = uvloop.run(
                _measure(
                    url,
                    Path(folder),
                    records=records,
                    cards=cards,
                    terminals=terminals,
                    size=size,
                    workers=workers,
                )
            )
            copies = _plain_copy(url, Path(folder))
    finally:
        with psycopg.connect(server_url, autocommit=True) as link:
            link.execute(f"DROP DATABASE {name} WITH (FORCE)")
    plain = records / copies["purse_record"]
    with_guards = records / sum(copies.values())
    return figures | {
        "upload_size": size,
        "tac_workers": workers,
        "plain_copy_per_s": plain,
        "plain_copy_with_guards_per_s": with_guards,
        "ratio": figures["records_per_s"] / plain,
        "ratio_with_guards": figures["records_per_s"] / with_guards,
    }


def main() -> None:
    """Print the figures of small and large uploads as JSON."""
    cases = [{"size": 1_000}, {"size": 1_000, "workers": 1}, {"size": 5, "records": 50_000}]
    if len(sys.argv) > 1:
        found = [measure(sys.argv[1], **case) for case in cases]
    else:
        with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder), memory_mb=1024) as url:
            found = [measure(url, **case) for case in cases]
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
