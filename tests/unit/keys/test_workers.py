import os
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from switch.keys import workers
from switch.keys.records import KeyState
from switch.keys.workers import TacWorkers, VaultSnapshot, tac_records, tac_snapshot, verify_columns_in_worker
from tests.helpers.switch_process import process_gone, until
from tests.unit.keys.helpers import UNLOCK, set_state, vector_vault
from tests.unit.keys.test_vault import columns_of, tac_items


def test_workers_begin_when_needed_with_vaults_of_their_own_and_anew_after_a_ceremony_or_a_murder(
    tmp_path, monkeypatch
):
    vault, store = vector_vault(tmp_path)
    assert {record.key_type for record in tac_snapshot(store).records} == {"DTK"}
    meta = store.load_meta()
    pool = TacWorkers(lambda: VaultSnapshot(meta, tac_records(vault.records())), UNLOCK, 1)
    items = tac_items()

    def check():
        columns = columns_of([*items, items[0]._replace(tac=b"0000")])
        return pool.submit(verify_columns_in_worker, columns).result(timeout=60).tolist()

    monkeypatch.setattr(
        workers, "BROKEN_FOR_S", 3600.0
    )  # counts from the worker's birth: the machine may be slow
    with pool:
        assert pool._pool is None
        assert check() == [True] * 12 + [False]
        assert workers._worker_vaults == []

        set_state(vault, store, "DTK/SM4/v1/national", KeyState.RETIRED)
        pool.renew()
        assert check() == [item.algorithm == 0 for item in items] + [False]

        (worker,) = pool._pool._processes.values()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(BrokenExecutor):
            check()
        with pytest.raises(BrokenExecutor):  # not again so soon
            check()
        monkeypatch.setattr(workers, "BROKEN_FOR_S", 0.0)
        assert check() == [item.algorithm == 0 for item in items] + [False]


PARENT = """
import os, signal, sys
from pathlib import Path
from switch.keys.workers import tac_pool, tac_snapshot
from tests.unit.keys.helpers import UNLOCK, vector_vault

if __name__ == "__main__":
    _, store = vector_vault(Path(sys.argv[1]))
    pool = tac_pool(tac_snapshot(store), UNLOCK, 1)
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_does_not_outlive_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[3]
    # The worker holds the write end of this pipe too: its end is the end of both processes.
    found = subprocess.run(
        [sys.executable, script, tmp_path],
        stdout=subprocess.PIPE,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        timeout=120,
        check=False,
    )
    assert found.returncode == -signal.SIGKILL
    # A process that ends closes its files a moment before it is a zombie.
    until(lambda: process_gone(int(found.stdout)), 60, "the worker's end")
