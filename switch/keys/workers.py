"""TAC checks in worker processes, for intakes larger than one core.

Each worker opens its own vault from a snapshot of sealed records with the same passphrase or key file; clear keys
never pass between processes. Workers are spawned, not forked, so they inherit no sockets and no half-used state.
"""

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar

from switch.keys.primitives import TacKey
from switch.keys.records import KeyRecord, KeyStore
from switch.keys.sealing import Sealer, UnlockSecret, unlock_lmk
from switch.keys.software_vault import SoftwareVault
from switch.keys.tac_columns import Flags, TacColumns

BROKEN_FOR_S: Final = 30.0
NICE: Final = 5  # whoever waits at a till goes before a bus that has come home
_PR_SET_PDEATHSIG: Final = 1
ResultT = TypeVar("ResultT")


class VaultSnapshot(NamedTuple):
    """What a worker needs to open a vault that can check TACs: sealed values only."""

    meta: dict[str, bytes]
    records: list[KeyRecord]


def tac_snapshot(store: KeyStore) -> VaultSnapshot:
    """The store's TAC masters, sealed as they rest."""
    return VaultSnapshot(store.load_meta(), tac_records(store.load_all()))


def tac_records(records: Iterable[KeyRecord]) -> list[KeyRecord]:
    """Those of the records that TACs are checked with."""
    return [record for record in records if record.key_type == TacKey.kind]


_worker_vaults: list[SoftwareVault] = []  # one per worker process, filled by its initializer


def _open_in_worker(snapshot: VaultSnapshot, unlock: UnlockSecret, parent: int) -> None:
    # A worker waits for tasks on a pipe whose other end it has too: without this it would outlive a killed parent for ever.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which lets its work end
    os.nice(NICE)
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
        initargs=(snapshot, unlock, os.getpid()),
    )


class TacWorkers(Executor):
    """A pool that begins when it is first needed: a small town never pays for it.

    snapshot: what the workers open, asked for each time a pool begins. A pool that broke (somebody killed a worker) is made anew by
    the next task, but not within BROKEN_FOR_S of its beginning: what cannot live is not born again and again. Until then
    submit raises BrokenExecutor. Not for several threads.
    """

    def __init__(self, snapshot: Callable[[], VaultSnapshot], unlock: UnlockSecret, processes: int) -> None:
        self._snapshot = snapshot
        self._unlock = unlock
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self._begun_s = 0.0

    def submit(self, fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> Future[ResultT]:
        """As Executor.submit."""
        if self._pool is not None:
            try:
                return self._pool.submit(fn, *args, **kwargs)
            except BrokenExecutor:
                if time.monotonic() - self._begun_s < BROKEN_FOR_S:
                    raise
                self.renew()
        self._begun_s = time.monotonic()
        self._pool = tac_pool(self._snapshot(), self._unlock, self._processes)
        return self._pool.submit(fn, *args, **kwargs)

    def renew(self) -> None:
        """Keys have changed: what has been submitted ends, and the next task finds a new pool."""
        self.shutdown(wait=False)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As Executor.shutdown; another submit begins again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=wait, cancel_futures=cancel_futures)
