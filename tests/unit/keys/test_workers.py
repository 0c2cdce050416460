from switch.keys import workers
from switch.keys.workers import tac_pool, tac_snapshot, verify_columns_in_worker
from tests.unit.keys.helpers import UNLOCK, vector_vault
from tests.unit.keys.test_vault import columns_of, tac_items


def test_worker_processes_check_tacs_with_vaults_of_their_own(tmp_path):
    _, store = vector_vault(tmp_path)
    snapshot = tac_snapshot(store)
    assert {record.key_type for record in snapshot.records} == {"DTK"}
    items = [*tac_items(), tac_items()[0]._replace(tac=b"0000")]
    with tac_pool(snapshot, UNLOCK, 1) as pool:
        found = pool.submit(verify_columns_in_worker, columns_of(items)).result(timeout=60)
    assert found.tolist() == [True] * 12 + [False]
    assert workers._worker_vaults == []
