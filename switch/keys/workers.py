"""TAC checks in worker processes, for intakes larger than one core.

Each worker opens its own vault from a snapshot of sealed records with the same passphrase or key file; clear keys
never pass between processes. Workers are spawned, not forked, so they inherit no sockets and no half-used state.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from switch.keys.primitives import TacKey
from switch.keys.records import KeyRecord, KeyStore
from switch.keys.sealing import Sealer, UnlockSecret, unlock_lmk
from switch.keys.software_vault import SoftwareVault
from switch.keys.tac_columns import Flags, TacColumns


class VaultSnapshot(NamedTuple):
    """What a worker needs to open a vault that can check TACs: sealed values only."""

    meta: dict[str, bytes]
    records: list[KeyRecord]


def tac_snapshot(store: KeyStore) -> VaultSnapshot:
    """The store's TAC masters, sealed as they rest."""
    return VaultSnapshot(
        store.load_meta(), [record for record in store.load_all() if record.key_type == TacKey.kind]
    )


_worker_vaults: list[SoftwareVault] = []  # one per worker process, filled by its initializer


def _open_in_worker(snapshot: VaultSnapshot, unlock: UnlockSecret) -> None:
    rehearsal = snapshot.meta["mode"] != b"production"
    lmk = unlock_lmk(snapshot.meta, unlock)
    _worker_vaults[:] = [SoftwareVault(snapshot.records, Sealer(lmk), rehearsal=rehearsal)]


def verify_columns_in_worker(columns: TacColumns) -> Flags:
    """Check TACs inside a worker of `tac_pool`; functions that are submitted to the pool call it there."""
    return _worker_vaults[0].verify_tac_columns(columns)


def tac_pool(snapshot: VaultSnapshot, unlock: UnlockSecret, processes: int) -> ProcessPoolExecutor:
    """A pool of workers that check TACs. The caller shuts it down, and makes a new one after a key ceremony.

    unlock travels to the workers through the pool's own pipe: a passphrase or key file content, no card key.
    """
    return ProcessPoolExecutor(
        max_workers=processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_open_in_worker,
        initargs=(snapshot, unlock),
    )
