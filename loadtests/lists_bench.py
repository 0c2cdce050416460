"""How long a hot list of half a million cards takes from the draft to its last signed block, and what memory it takes on the way."""

import asyncio
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psycopg

from switch.keys.opening import create_vault
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import JsonKeyStore
from switch.registry import hot_list
from switch.registry.fleet import chosen, read_fleet
from switch.registry.list_publication import ListPublication, ListSigner
from switch.storage.embedded import EmbeddedPostgres
from switch.storage.migrate import migrate
from switch.storage.pool import connect

CARDS: Final = 500_000
CHANGES: Final = 2_000  # of a day


_DRAW: Final = """
INSERT INTO hot_list_draft (asn, level, reason, actor)
SELECT '0313350019' || lpad(n::text, 10, '0'), mod(n, 2), 'COUNTERFEIT', 'bench' FROM generate_series(%s::int, %s) n
"""


_FLEET: Final = (
    "INSERT INTO institution (institution_id, name, role) VALUES ('99993350', 'bench', 'ISSUER')",
    "INSERT INTO merchant (merchant_id, name, category, acquirer_id) VALUES ('993350054110001', 'bench', '4111', '99993350')",
    """
    INSERT INTO terminal (terminal_id, merchant_no, mac_algorithm)
    SELECT lpad(n::text, 8, '0'), merchant_no, 5 FROM merchant, generate_series(1, 5000) n
    """,
    """
    INSERT INTO psam (psam_no, merchant_no, terminal_no)
    SELECT lpad(terminal_no::text, 12, '0'), merchant_no, terminal_no FROM terminal
    """,
    "INSERT INTO terminal_seen SELECT terminal_no, clock_timestamp(), clock_timestamp() - interval '1 day' FROM terminal",
    """
    INSERT INTO terminal_status (terminal_no, hot_list_held, reported_at, reported)
    SELECT terminal_no, 1 + mod(terminal_no, 2), clock_timestamp(), '{"32": "000007"}' FROM terminal
    """,
)


class _Counting:
    """Takes what is published as a broker on the same machine would, and keeps nothing."""

    def __init__(self) -> None:
        self.messages = self.size = self.largest = 0

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        self.messages += 1
        self.size += len(payload)
        self.largest = max(self.largest, len(payload))


def measure(cards: int = CARDS) -> dict[str, Any]:
    """Publish a full list, then a day's changes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = JsonKeyStore(folder / "keys.json")
        vault = create_vault(
            store, UnlockSecret(b"a key file for a bench, 32 bytes.", "hkdf"), rehearsal=True
        )
        with EmbeddedPostgres(folder / "data", memory_mb=512) as url:
            migrate(url)
            signer = ListSigner(vault)
            return {
                "cards": cards,
                "full": _publish(url, signer, 0, cards),
                "changes": _publish(url, signer, cards, CHANGES),
                "fleet": _fleet(url),
            }


def _fleet(url: str) -> dict[str, Any]:
    """Read a fleet of which everything is known."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _FLEET:
            connection.execute(statement.encode())
        started = time.perf_counter()
        found = read_fleet(connection, 2)
        read_s = time.perf_counter() - started
        started = time.perf_counter()
        behind = chosen(found, ["behind"], "", "behind")
        return {
            "terminals": len(found.members),
            "behind": len(behind),
            "read_s": round(read_s, 2),
            "chosen_s": round(time.perf_counter() - started, 3),
        }


def _publish(url: str, signer: ListSigner, first: int, count: int) -> dict[str, Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_DRAW, [first, first + count - 1])
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        hot_list.publish(connection, "bench", beyond_line=True)
        version_s = time.perf_counter() - started

    async def out(broker: _Counting) -> None:
        async with await connect(url) as connection:
            await ListPublication(signer, broker).publish_due(connection)

    broker = _Counting()
    started = time.perf_counter()
    asyncio.run(out(broker))
    topics_s = time.perf_counter() - started
    return {
        "version_s": round(version_s, 2),
        "built_signed_published_s": round(topics_s, 2),
        "messages": broker.messages,
        "bytes": broker.size,
        "largest_message": broker.largest,
        "memory_grew_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb,
    }
