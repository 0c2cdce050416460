"""Does the switch find what is wrong? A planted set of rides goes through the real intake, fold and adjudication, and is scored by kind.

`python -m loadtests.planted_faults [--rides 1000000] [--faults 1000] [--seed 7] [--url URL] [--labels FILE] [--rules FILE] [--json]`
prints precision and recall of every kind of fault as a table (docs/risk.md). URL: a PostgreSQL server where a database may be made
and dropped; by default one is started. labels: where to write which records are faulty; rules: rules for risk to try on the set.
"""

import argparse
import asyncio
import csv
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import uvloop
from psycopg import AsyncConnection

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import Outcome
from switch.keys.ceremony import Custodian
from switch.keys.opening import create_vault
from switch.keys.records import KeyLevel, KeySpec
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import JsonKeyStore
from switch.keys.vault import Vault
from switch.ledger.days import ensure_days
from switch.purse.batches import stan_of
from switch.purse.intake import IntakeWriter, Upload, inline_tacs
from switch.purse.risk.bench import Label, RuleScore, try_rules
from switch.purse.risk.rules import Rule, read_rules
from switch.purse.shadow import adjudicate, fold_purses
from switch.storage.embedded import EmbeddedPostgres
from switch.storage.migrate import migrate
from switch.storage.pool import connect
from terminal_sim.planted import (
    MERCHANTS,
    OPENING_FEN,
    FaultKind,
    Key,
    PlantedCity,
    merchant_of,
    pan_of,
    psam_of,
    terminal_id_of,
)

OWN: Final = "99993350"
ISSUER: Final = bytes.fromhex(OWN + "FFFFFFFF")
ROOT: Final = bytes(range(1, 17))
SHARDS: Final = 2
IN_FLIGHT: Final = 40
FOLDS: Final = 5  # while records come, so that gaps open and close as they would

# What the switch found of each kind, as terminal and record serial. An alarm counts as found by the record that it is about.
FINDINGS: Final = {
    FaultKind.DUPLICATE: "SELECT terminal_no, record_serial FROM purse_record WHERE result = '03'",
    FaultKind.TAC_WRONG: "SELECT terminal_no, record_serial FROM purse_record WHERE result = '01'",
    # Its bytes are in quarantine; nothing of them is parsed, so the serial is read from the raw record by whoever looks.
    FaultKind.CRC_BROKEN: """
        SELECT terminal_no, ('x' || encode(substr(raw, 60, 4), 'hex'))::bit(32)::bigint
          FROM purse_quarantine WHERE reason LIKE 'CRC%'""",
    FaultKind.SERIAL_REUSED: """
        SELECT r.terminal_no, r.record_serial FROM purse_alarm a JOIN purse_record r USING (entry_no) WHERE a.kind = 'PSAM_COLLISION'""",
    FaultKind.CLONE: """
        SELECT r.terminal_no, r.record_serial FROM purse_alarm a JOIN purse_record r USING (entry_no) WHERE a.kind = 'ATC_COLLISION'""",
    # A hole in a terminal's own serials that no quarantined record fills.
    FaultKind.LOST: """
        SELECT g.owner, n.serial
          FROM purse_gap g CROSS JOIN LATERAL generate_series(lower(g.missing), upper(g.missing) - 1) AS n (serial)
         WHERE g.kind = 3 AND g.closed_at IS NULL
        EXCEPT
        SELECT terminal_no, ('x' || encode(substr(raw, 60, 4), 'hex'))::bit(32)::bigint FROM purse_quarantine""",
    FaultKind.CHAIN_BREAK: """
        SELECT r.terminal_no, r.record_serial FROM purse_alarm a JOIN purse_record r USING (entry_no) WHERE a.kind = 'CHAIN_BREAK'""",
    FaultKind.GREY_UNPAID: "SELECT terminal_no, record_serial FROM purse_record WHERE result = '94'",
    FaultKind.GREY_PAID: "SELECT terminal_no, record_serial FROM purse_record WHERE result = '00'",
    FaultKind.CLOCK_WRONG: "SELECT terminal_no, record_serial FROM purse_record WHERE result IN ('05', '07')",
}
assert FINDINGS.keys() == set(FaultKind)


class KindScore(NamedTuple):
    """planted: faults. hit: of these, found as what they are. found: everything found as this kind. right: of that, planted."""

    kind: str
    planted: int
    hit: int
    found: int
    right: int

    @property
    def recall(self) -> float:
        """Part of the planted faults that were found."""
        return self.hit / self.planted if self.planted else 1.0

    @property
    def precision(self) -> float:
        """Part of the findings that were planted."""
        return self.right / self.found if self.found else 1.0


@dataclasses.dataclass(frozen=True)
class Report:
    """A run. refused: good records that were not accepted, beside those that a planted twin took the counter of."""

    rides: int
    faults: int
    seed: int
    day: str
    records: int
    refused: int
    seconds: float
    kinds: tuple[KindScore, ...]
    rules: tuple[RuleScore, ...]

    def lines(self) -> Iterator[str]:
        """A table for people, in Markdown."""
        yield f"{self.rides:,} rides, {self.faults:,} faults, seed {self.seed}, {self.day}: {self.records:,} records in {self.seconds:.0f} s"
        yield f"good records refused: {self.refused}"
        yield ""
        yield "| kind | planted | recall | found | precision |"
        yield "|---|---|---|---|---|"
        for kind in self.kinds:
            yield f"| {kind.kind} | {kind.planted} | {kind.recall:.4f} | {kind.found} | {kind.precision:.4f} |"
        if self.rules:
            yield ""
            yield "| rule | records | cases | precision |"
            yield "|---|---|---|---|"
        for rule in self.rules:
            precision = "–" if rule.precision is None else f"{rule.precision:.4f}"
            yield f"| {rule.rule} | {rule.records:,} | {rule.matters:,} | {precision} |"


async def _populate(link: AsyncConnection[Any], city: PlantedCity) -> None:
    """Everybody who takes part; purses opened, sessions with an open batch."""
    await ensure_days(link)
    await link.execute("INSERT INTO institution VALUES (%s, 'own', 'ISSUER')", (OWN,))
    await link.execute("INSERT INTO card_issuer VALUES (%s, %s, true)", (ISSUER, OWN))
    for number in range(1, MERCHANTS + 1):
        await link.execute(
            "INSERT INTO merchant (merchant_id, name, category, acquirer_id) VALUES (%s, 'bus', '4111', %s)",
            (f"99335005412{number:04d}", OWN),
        )
    async with link.cursor() as cursor:
        terminals = range(1, city.terminals + 1)
        rows: list[tuple[str, list[tuple[Any, ...]]]] = [
            (
                "terminal (terminal_id, merchant_no, mac_algorithm)",
                [(terminal_id_of(n), merchant_of(n), 5) for n in terminals],
            ),
            (
                "psam (psam_no, merchant_no, terminal_no)",
                [(psam_of(n), merchant_of(n), n) for n in terminals],
            ),
            (
                "terminal_session (terminal_no, generation, last_generation, batch_no)",
                [(n, 1, 1, 1) for n in terminals],
            ),
            ("card_route", [(pan_of(n), n % SHARDS, n + 1, n + 1) for n in range(city.cards)]),
            (
                "card (shard, pan, card_no, holder_id, state, valid_from, valid_through)",
                [
                    (n % SHARDS, pan_of(n), n + 1, n + 1, 1, "2020-01-01", "2040-12-31")
                    for n in range(city.cards)
                ],
            ),
            (
                "purse (shard, card_no, asn, loaded_fen)",
                [(n % SHARDS, n + 1, "0" + pan_of(n), OPENING_FEN) for n in range(city.cards)],
            ),
        ]
        for table, values in rows:
            async with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                for value in values:
                    await copy.write_row(value)
    await link.execute(
        "INSERT INTO terminal_batch (terminal_no, batch_no, opened_on)"
        " SELECT terminal_no, 1, business_date FROM terminal, business_day"
        " WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at"
    )
    await link.execute("ANALYZE")


def _vault(folder: Path) -> Vault:
    """A vault with the root of the purses' TAC keys."""
    store = JsonKeyStore(folder / "keys.json")
    vault = create_vault(store, UnlockSecret(b"a key file for the planted set, 32 b", "hkdf"), rehearsal=True)
    first = bytes(range(100, 116))
    for algorithm in ("3DES", "SM4"):
        spec = KeySpec("DTK", algorithm, 1, "national", KeyLevel.ROOT, 1)
        second = bytes(a ^ b for a, b in zip(first, ROOT, strict=True))
        Custodian(vault, store).enter(spec, [first, second], ("a", "b"))
    return vault


async def _send_all(url: str, vault: Vault, city: PlantedCity, tell: Callable[[str], None]) -> int:
    """Send every upload through the intake; how many records."""
    writer = IntakeWriter(lambda: connect(url), inline_tacs(vault), SHARDS)
    task = asyncio.create_task(writer.run())
    room = asyncio.Semaphore(IN_FLIGHT)
    failed = False
    sent = 0

    def done(outcome: Outcome | None) -> None:
        nonlocal failed
        failed = failed or outcome is None or outcome.answer != "00"
        room.release()

    since = datetime.now(SHANGHAI).date() - timedelta(days=1)
    fold_at = city.rides // FOLDS
    async with await connect(url) as link:
        for number, upload in enumerate(city.uploads(), 1):
            await room.acquire()
            taken = writer.submit(
                Upload(
                    terminal_no=upload.terminal,
                    terminal_id=terminal_id_of(upload.terminal),
                    merchant_no=merchant_of(upload.terminal),
                    acquirer_id=OWN,
                    batch_no=1,
                    stan=stan_of(number),
                    digest=number.to_bytes(32),
                    generation=1,
                    since=since,
                    records=upload.records,
                    bulk=True,
                    serial=number,
                ),
                done,
            )
            if failed or not taken:
                raise RuntimeError("an upload was not taken: see the log")
            sent += len(upload.records)
            if sent >= fold_at:
                fold_at += city.rides // FOLDS
                tell(f"{sent:,} records sent")
                await fold_purses(link)
        for _ in range(IN_FLIGHT):
            await room.acquire()
        writer.stop()
        await task
        if failed:
            raise RuntimeError("an upload was not taken: see the log")
        tell("folding and deciding grey records")
        await fold_purses(link)
        await adjudicate(link)
        await fold_purses(link)
    return sent


async def score(link: AsyncConnection[Any], city: PlantedCity) -> tuple[tuple[KindScore, ...], int]:
    """Findings by kind against what was planted, and how many good records were refused."""
    scores = []
    involved = {key for fault in city.faults for key in fault.keys}
    for kind, query in FINDINGS.items():
        cursor = await link.execute(query.encode())
        found = {Key(*row) for row in await cursor.fetchall()}
        faults = [fault for fault in city.faults if fault.kind is kind]
        keys = {key for fault in faults for key in fault.keys}
        hit = sum(1 for fault in faults if not found.isdisjoint(fault.keys))
        scores.append(KindScore(kind.value, len(faults), hit, len(found), len(found & keys)))
    cursor = await link.execute(
        "SELECT terminal_no, record_serial FROM purse_record WHERE result <> '10' AND original_entry IS NULL"
    )
    refused = sum(1 for row in await cursor.fetchall() if row[1] is not None and Key(*row) not in involved)
    return tuple(scores), refused


def labels_of(city: PlantedCity) -> list[Label]:
    """The faulty records, as `cardswitch risk try --labels` knows them."""
    return [
        Label(terminal_id_of(key.terminal), key.serial, fault.kind.value)
        for fault in city.faults
        for key in fault.keys
    ]


async def _measure(
    url: str, folder: Path, city: PlantedCity, rules: tuple[Rule, ...], tell: Callable[[str], None]
) -> tuple[int, tuple[KindScore, ...], int, tuple[RuleScore, ...]]:
    async with await connect(url) as link:
        await _populate(link, city)
        records = await _send_all(url, _vault(folder), city, tell)
        tell("scoring")
        kinds, refused = await score(link, city)
        scores: tuple[RuleScore, ...] = ()
        if rules:
            cursor = await link.execute("SELECT min(business_date), max(business_date) FROM purse_record")
            row = await cursor.fetchone()
            assert row is not None
            await link.execute("ANALYZE purse_record, purse_atc, purse_waiting")
            scores = (await try_rules(link, rules, row[0], row[1], labels_of(city))).rules
    return records, kinds, refused, scores


@contextmanager
def _database(server_url: str) -> Iterator[str]:
    name = f"planted_{time.time_ns()}"
    with psycopg.connect(server_url, autocommit=True) as link:
        link.execute(f"CREATE DATABASE {name}".encode())
    url = psycopg.conninfo.make_conninfo(server_url, dbname=name)
    try:
        migrate(url)
        yield url
    finally:
        with psycopg.connect(server_url, autocommit=True) as link:
            link.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def measure(
    url: str,
    *,
    rides: int,
    faults: int,
    seed: int,
    rules: tuple[Rule, ...] = (),
    labels: Path | None = None,
    tell: Callable[[str], None] = lambda _text: None,
) -> Report:
    """Score a planted set on a migrated, empty database."""
    started = time.perf_counter()
    today = datetime.now(SHANGHAI)
    tell(f"making {rides:,} rides")
    city = PlantedCity(rides=rides, faults=faults, seed=seed, today=today, root=ROOT, issuer=ISSUER)
    if labels is not None:
        with labels.open("w", encoding="utf-8", newline="") as stream:
            lines = csv.writer(stream, lineterminator="\n")
            lines.writerow(Label._fields)
            lines.writerows(labels_of(city))
    with tempfile.TemporaryDirectory() as folder:
        found = await _measure(url, Path(folder), city, rules, tell)
    records, kinds, refused, scores = found
    seconds = time.perf_counter() - started
    return Report(
        rides, len(city.faults), seed, f"{today:%Y-%m-%d}", records, refused, seconds, kinds, scores
    )


def main() -> None:
    """Run it from the command line. Exit status 1 when something planted was missed or something good was refused."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.planted_faults")
    parser.add_argument("--rides", type=int, default=1_000_000)
    parser.add_argument("--faults", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--url", default="")
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--rules", type=Path)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rules = read_rules(asked.rules.read_bytes()) if asked.rules else ()
    with tempfile.TemporaryDirectory() as folder:
        server = nullcontext(asked.url) if asked.url else EmbeddedPostgres(Path(folder), memory_mb=512)
        with server as server_url, _database(server_url) as url:
            work = measure(
                url,
                rides=asked.rides,
                faults=asked.faults,
                seed=asked.seed,
                rules=rules,
                labels=asked.labels,
                tell=lambda text: print(text, file=sys.stderr, flush=True),  # noqa: T201  progress
            )
            report = uvloop.run(work)
    if asked.json:
        document = dataclasses.asdict(report) | {"kinds": [kind._asdict() for kind in report.kinds]}
        document["rules"] = [rule._asdict() for rule in report.rules]
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stdout.write("\n".join(report.lines()) + "\n")
    perfect = all(kind.recall == kind.precision == 1.0 for kind in report.kinds)
    sys.exit(0 if perfect and not report.refused else 1)


if __name__ == "__main__":
    main()
