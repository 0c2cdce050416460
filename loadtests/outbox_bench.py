"""A host comes back to an outbox that has grown: messages a second, and what terminals notice of it meanwhile.

Everything is real: serving processes, PostgreSQL, a simulated host in a process of its own, its link over TCP. The messages are reversals of
requests that the host never saw, put into the tables directly; it answers 25 and leaves a tombstone for each.
"""

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

from loadtests.town import Serving, Town

BANK: Final = "01020000"
ZONE_KEYS: Final = {
    "ZMK": "CB437418FDFDC062835272B424849C3E",
    "ZAK": "57B8095B45537849C2773301DFB990D7",
    "ZPK": "E24A0E05CC26CF8923899246CD3D934A",
}
CARD: Final = "6228480123456789006"
PIECE_S: Final = 4.0  # of live load: figures are taken piece by piece while the outbox drains
DRAIN_S: Final = 600.0  # given up after that

_LEGS = """
INSERT INTO host_leg (shard, leg_no, business_date, terminal_no, batch_no, stan, merchant_no, terminal_id, merchant_id, kind, account_kind,
                      pan, amount_fen, entry_mode, rrn, host, debit_code, debit_owner, service, step, transmitted, trace, asked_at,
                      gives_up_at, state, ended_at, ended_by)
SELECT n %% 2, n, current_date, 1, 999, n, 1, '33600000', '993350054100000', 1, 20, %(pan)s, 1234, '051', lpad(n::text, 12, '0'), 'bank',
       1101, 1, 1, 2, '1125103015', n, now() - interval '1 hour', now() - interval '1 hour', 4, now() - interval '1 hour', n
  FROM generate_series(1, %(count)s) AS n
"""
_MESSAGES = """
INSERT INTO host_outbox (shard, outbox_no, leg_no, host, step, service, reason, amount_fen, entry_no, rrn, transmitted, trace, created_at,
                         due_at)
SELECT n %% 2, n, n, 'bank', 5, 1, '98', 1234, n, lpad(n::text, 12, '0'), '1125103046', n, now() - interval '1 hour',
       now() - interval '1 hour'
  FROM generate_series(1, %(count)s) AS n
"""
_DONE = """
SELECT count(*) FILTER (WHERE result IS NULL), count(*) FILTER (WHERE result = 1), max(tries),
       extract(epoch FROM max(done_at) - min(done_at))::float
  FROM host_outbox
"""


def rehearsal_keys() -> dict[str, object]:
    """The bank's zone keys, as a rehearsal file."""
    keys = [
        {"type": kind, "algorithm": "SM4", "owner": BANK, "level": "zone", "components": [clear]}
        for kind, clear in ZONE_KEYS.items()
    ]
    return {"format": "cardswitch-rehearsal-keys/1", "keys": keys}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _host(keys: Path, port: int, habit: str) -> Iterator[None]:
    command = [sys.executable, "-m", "switch", "sim", "host", "--institution", BANK, "--keys", str(keys)]
    command += ["--port", str(port), "--habit", habit]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        if not process.stdout.readline().startswith("ready: host "):
            raise RuntimeError("the host did not start")
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)


def measure(
    processes: int,
    count: int,
    rate: float,
    load: Callable[[Serving], Callable[[float], dict[str, Any]]],
    *,
    habit: str = "normal",
) -> dict[str, Any]:
    """Drain so many messages at a host that comes back, under live load of so many authorisations a second.

    load: of a served town, gives a function that runs live load for so many seconds and returns its figures.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = _free_port()
        town = Town(folder, terminals=256, cards=20_000, processes=processes)
        link = {
            "name": "bank",
            "institution": BANK,
            "host": "127.0.0.1",
            "port": port,
            "reconnect_max_s": 0.5,
        }
        town.environment["CARDSWITCH_HOSTS__LINKS"] = json.dumps([link])
        town.build()
        keys = folder / "zone-keys.json"
        keys.write_text(json.dumps(rehearsal_keys()), encoding="utf-8")
        town.run("keys", "ceremony", "--rehearsal", str(keys))
        with town.serving() as serving, psycopg.connect(serving.database_url, autocommit=True) as connection:
            for statement in (_LEGS, _MESSAGES):
                connection.execute(statement, {"count": count, "pan": CARD})
            live = load(serving)
            live(PIECE_S)  # warms up
            before = [live(PIECE_S) for _ in range(3)]
            during: list[dict[str, Any]] = []
            started = time.monotonic()
            with _host(keys, port, habit):
                while time.monotonic() - started < DRAIN_S:
                    piece = live(PIECE_S)
                    row = connection.execute(_DONE).fetchone()
                    assert row is not None
                    if row[0] == 0 and during:
                        break
                    during.append(piece)
            after = [live(PIECE_S) for _ in range(2)]
        assert row is not None
        left, confirmed, tries, seconds = row
    return {
        "messages": count,
        "confirmed": confirmed,
        "left": left,
        "tries_max": tries,
        "drain_s": round(seconds, 2),
        "per_second": round(confirmed / seconds) if seconds else None,
        "live_per_second": rate,
        "live_before": _shown(before),
        "live_during": _shown(during),
        "live_after": _shown(after),
    }


def _shown(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Median over the pieces, and the worst p99."""
    if not pieces:
        return {}
    return {
        "pieces": len(pieces),
        "p50_ms": round(statistics.median(piece["p50_ms"] for piece in pieces), 2),
        "p99_ms": round(statistics.median(piece["p99_ms"] for piece in pieces), 2),
        "p99_ms_worst": round(max(piece["p99_ms"] for piece in pieces), 2),
    }
