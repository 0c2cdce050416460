"""Records and TACs checked by worker processes are as checked here, and a worker that is killed costs nothing but time."""

import os
import random
import signal
from datetime import UTC, datetime
from pathlib import Path

from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import JsonKeyStore
from switch.keys.workers import TacWorkers, tac_snapshot
from switch.purse.columns import joined
from switch.purse.intake import inline_tacs, pooled_tacs
from tests.helpers.mixtures import digest_of, mixed_record
from tests.helpers.offline import UNLOCK


async def test_workers_find_what_this_process_finds_and_one_that_is_killed_is_not_missed(
    vault: SoftwareVault, tmp_path: Path
) -> None:
    rng = random.Random(3)
    records = [mixed_record(rng.choice, datetime.now(UTC)) for _ in range(300)]
    expected = bytes(map(digest_of, records))
    blob = joined(records)
    assert await inline_tacs(vault)(blob) == expected
    with TacWorkers(lambda: tac_snapshot(JsonKeyStore(tmp_path / "keys.json")), UNLOCK, 1) as pool:
        check = pooled_tacs(pool, vault, share=100)
        assert await check(blob) == expected
        assert pool._pool is not None
        for worker in list(pool._pool._processes):
            os.kill(worker, signal.SIGKILL)
        assert await check(blob) == expected
        assert await check(blob[: 96 * 255]) == expected[:255]  # not worth a worker
