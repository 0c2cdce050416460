"""A day of a bank against its file: how long taking and comparing last, and whether every planted fault is found and nothing else.

Our side is built in the tables; the bank's file is written from it line by line in SQL, then spoilt. Nothing is left out that a comparison
does: the file is checked and digested, its lines are copied in, and every step of the run is timed.
"""

import asyncio
import hashlib
import os
import resource
import tempfile
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from switch.clearing.reconcile.blocks import AT
from switch.clearing.reconcile.run import Partner, compare
from switch.clearing.reconcile.take import TakeTerms, take_partner_file
from switch.domain.calendar import SHANGHAI
from switch.ledger.days import ensure_days
from switch.storage.embedded import EmbeddedPostgres
from switch.storage.migrate import migrate
from switch.storage.pool import connect, connect_now
from terminal_sim.host.day_file import file_name

BANK, CENTRE = "01020000", "99990000"
LEGS_AT_ONCE: Final = 500_000
PLANTED: Final = 500  # of each kind
# What a bank can get wrong, and what it is called then. Each takes PLANTED items from the head of the file, one kind behind the other.
KINDS: Final = ("short", "amount", "status", "duplicate", "long", "undone")

_DAY: Final = """
INSERT INTO business_day (business_date, begins_at, ends_at, state, sealed_at)
SELECT d, (d - 1 + time '23:00') AT TIME ZONE 'Asia/Shanghai', (d + time '23:00') AT TIME ZONE 'Asia/Shanghai', 2, now()
  FROM (SELECT %(day)s::date AS d) AS one
"""
_LEGS: Final = """
INSERT INTO host_leg (shard, business_date, leg_no, terminal_no, batch_no, stan, merchant_no, terminal_id, merchant_id, kind, account_kind, pan, amount_fen,
                      entry_mode, rrn, host, debit_code, debit_owner, service, step, transmitted, trace, asked_at, gives_up_at, state, ended_at, ended_by,
                      host_code, host_auth)
SELECT n %% 2, %(day)s, n, 1 + n %% 1000, 1 + n / 1000000000, 1 + n / 1000, 1, '33500001', '993350054110001', 1, 20, '622848' || lpad((n %% 500000)::text, 13, '0'),
       100 + n * 7919 %% 50021, '051', lpad(n::text, 12, '0'), 'bank', 1101, 1020000, 1, 2,
       to_char(at AT TIME ZONE 'UTC' + interval '8 hours', 'MMDDHH24MISS'), n %% 999999 + 1, at, at + interval '25 s', 1, at + interval '20 ms',
       n + 100000000000, '00', lpad((n %% 1000000)::text, 6, '0')
  FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
 CROSS JOIN LATERAL (SELECT (SELECT begins_at FROM business_day WHERE business_date = %(day)s) + n * interval '86000 s' / %(count)s AS at) AS t
"""
# The faults that a changed value makes; `_copies` makes those that are lines of their own.
_LINES: Final = """
COPY (SELECT concat('D', rpad('49993350', 11), ' ', rpad('49993350', 11), ' ', lpad(trace::text, 6, '0'), ' ', transmitted, ' ', rpad(pan, 19), ' ',
                    lpad((amount_fen + CASE WHEN leg_no BETWEEN {amount} + 1 AND {amount} + {each} THEN 1 ELSE 0 END)::text, 12, '0'),
                    ' 000000000000 000000000000 0200 002000 5411 33500001 993350054110001 ', rrn, ' 00 ', rpad(host_auth, 6),
                    ' 01020000    000000 ', CASE WHEN leg_no BETWEEN {status} + 1 AND {status} + {each} THEN '51' ELSE '00' END,
                    ' 051 D00000000000 D00000000000 D00000000000 0 001 5 0 0000000000 01020000    0 01 00 000000000000               ')
        FROM host_leg
       WHERE NOT leg_no BETWEEN {short} + 1 AND {short} + {each}
       ORDER BY ended_at, leg_no) TO STDOUT
"""


class Steps:
    """Seconds of each step, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name = ""
        self._since = 0.0

    def begin(self, name: str) -> None:
        """A step begins, and the one before has ended."""
        now = time.perf_counter()
        if self._name:
            self.seconds[self._name] = round(self.seconds.get(self._name, 0.0) + now - self._since, 2)
        self._name, self._since = name, now


def measure(count: int) -> dict[str, Any]:
    """Take and compare a file of about so many lines; figures, and what was found against what was planted."""
    day = datetime.now(SHANGHAI).date() - timedelta(days=5)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "pg", memory_mb=1024) as url,
    ):
        migrate(url)
        with connect_now(url) as connection:
            _build(connection, day, count)
            path = Path(folder) / file_name(BANK, CENTRE, day, 1)
            lines = _write(connection, path, count)
        return {"items": count, "lines": lines, "file_mb": round(path.stat().st_size / 1e6)} | asyncio.run(
            _compare(url, path, day)
        )


def _build(connection: psycopg.Connection[Any], day: date, count: int) -> None:
    with connection.transaction():
        connection.execute(
            "INSERT INTO institution (institution_id, name, role) VALUES ('01020000', 'Bank', 'BANK')"
        )
        connection.execute(_DAY, {"day": day})
    for first in range(1, count + 1, LEGS_AT_ONCE):
        last = min(first + LEGS_AT_ONCE - 1, count)
        values = {"day": day, "first": first, "last": last, "count": count}
        connection.execute(_LEGS, values)
    connection.execute("VACUUM ANALYZE host_leg")


def _planted(count: int) -> dict[str, int]:
    """Where each kind of fault begins, spread over the day."""
    assert count >= len(KINDS) * 2 * PLANTED, "room for every fault"
    return {kind: place * (count // len(KINDS)) for place, kind in enumerate(KINDS)}


def _changed(row: bytes, field: str, value: bytes) -> bytes:
    at = AT[field]
    assert len(value) == at.stop - at.start
    return row[: at.start] + value + row[at.stop :]


def _copies(row: bytes, places: dict[str, int]) -> list[bytes]:
    """A line with what a fault puts behind it."""
    number = int(row[AT["rrn"]])

    def spoilt(kind: str) -> bool:
        return places[kind] < number <= places[kind] + PLANTED

    if spoilt("duplicate"):
        return [row, row]
    if spoilt("long"):  # an item that nobody of ours knows
        return [row, _changed(row, "transmitted_at", b"0101000000")]
    if spoilt("undone"):  # likewise, and taken back
        strange = _changed(row, "transmitted_at", b"0102000000")
        back = _changed(_changed(strange, "mti", b"0420"), "original_trace", row[AT["trace"]])
        return [row, strange, _changed(back, "original_at", b"0102000000")]
    return [row]


def _write(connection: psycopg.Connection[Any], path: Path, count: int) -> int:
    """The bank's file: its details first, since what stands before them counts them."""
    places = _planted(count)
    details = path.with_suffix(".details")
    total_fen = lines = 0
    query = _LINES.format(each=PLANTED, **places)
    with details.open("wb") as stream, connection.cursor() as cursor, cursor.copy(query.encode()) as copy:
        rest = b""
        while data := copy.read():
            *rows, rest = (rest + bytes(data)).split(b"\n")
            for row in rows:
                for line in _copies(row, places):
                    stream.write(line + b"\r\n")
                    lines += 1
                    total_fen += int(line[AT["amount"]])
    head = f"HCM01{path.name[2:]}20240315235900{lines:08d}{total_fen:015d}0300{'':7}\r\n".encode()
    digest = hashlib.new("sm3", head)
    with path.open("wb") as whole, details.open("rb") as stream:
        whole.write(head)
        while block := stream.read(1 << 20):
            digest.update(block)
            whole.write(block)
        whole.write(f"TCM{lines:08d}{total_fen:015d}{digest.hexdigest().upper()}\r\n".encode())
    details.unlink()
    return lines


def _processor_s(pid: int) -> float:
    """What a process has used of the processors: on a machine that others use, this and not the clock says what the work costs."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _compare(url: str, path: Path, day: date) -> dict[str, Any]:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps = Steps()
    async with await connect(url) as connection:
        await ensure_days(connection, 1)
        backend, python_s = connection.info.backend_pid, time.process_time()
        steps.begin("take")
        receipt = await take_partner_file(connection, path, TakeTerms({BANK}, CENTRE, "bench"))
        assert receipt.status == "00", receipt
        (done,) = await compare(connection, Partner(BANK, roll_days=0), day, "bench", steps.begin)
        steps.begin("")
        python_s, backend_s = time.process_time() - python_s, _processor_s(backend)
        again = time.perf_counter()
        (repeated,) = await compare(connection, Partner(BANK, roll_days=0), day, "bench")
        assert repeated.repeated
        again_s = time.perf_counter() - again
    found = {outcome: side.theirs_count or side.ours_count for outcome, side in done.totals.items()}
    even = found.pop("match")
    planted = dict.fromkeys(KINDS, PLANTED) | {"undone": 2 * PLANTED}
    return {
        "match": even,
        "planted": planted,
        "found": found,
        "all_found_and_none_more": found == planted,
        "step_s": steps.seconds,
        "whole_s": round(sum(steps.seconds.values()), 2),
        "python_processor_s": round(python_s, 2),
        "backend_processor_s": round(backend_s, 2),  # without its parallel workers
        "again_s": round(again_s, 3),
        "memory_grew_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb,
    }
