"""The keys of one link to a partner: a ZAK for MACs and a ZPK for PIN blocks, which change together.

A generation is a pair. The active one makes everything new. One that was sent to the partner waits (pre-active) until
the first good MAC under its ZAK proves that the partner has it; then `on_proved` is called, once, to activate it, and
`refresh` takes it into use. The generation before (verify-only) still checks answers to what was asked under it.
"""

from collections.abc import Callable
from typing import NamedTuple

from switch.domain.errors import MacMismatch
from switch.domain.transactions import PinFormat
from switch.keys.macs import MAC_ALGORITHMS
from switch.keys.primitives import Algorithm
from switch.keys.records import KeyMissingError, KeyRecord, KeyState
from switch.keys.vault import Vault

PIN_FORMATS = {Algorithm.TDES: PinFormat.ISO_0, Algorithm.SM4: PinFormat.SM4_PAN}
assert PIN_FORMATS.keys() == set(Algorithm)


class Generation(NamedTuple):
    """Names of two keys that are used together."""

    zak: str
    zpk: str


class ZoneKeys:
    """Keys of one partner for one MAC algorithm (id 1 to 5, docs/keys.md). KeyMissingError when there is no active pair."""

    def __init__(
        self, vault: Vault, owner: str, mac_id: int, on_proved: Callable[[Generation], None] | None = None
    ) -> None:
        self._vault = vault
        self._owner = owner
        self._mac_id = mac_id
        self._algorithm = MAC_ALGORITHMS[mac_id]
        self._on_proved = on_proved
        self.refresh()

    def __repr__(self) -> str:
        return f"<zone keys of {self._owner}: {self._active.zak}, {self._active.zpk}>"

    def refresh(self) -> None:
        """Look the keys up anew, after the vault has taken in changes."""
        active = self._newest("ZAK", KeyState.ACTIVE), self._newest("ZPK", KeyState.ACTIVE)
        if active[0] is None or active[1] is None:
            missing = "ZAK" if active[0] is None else "ZPK"
            raise KeyMissingError(f"{self._owner} has no active {missing} for {self._algorithm.label}")
        self._active = Generation(active[0], active[1])
        waiting = self._newest("ZAK", KeyState.PRE_ACTIVE), self._newest("ZPK", KeyState.PRE_ACTIVE)
        self.waiting = (
            Generation(waiting[0], waiting[1]) if waiting[0] is not None and waiting[1] is not None else None
        )
        self._previous = self._newest("ZAK", KeyState.VERIFY_ONLY)
        self._proved = False

    def _newest(self, key_type: str, state: KeyState) -> str | None:
        found: list[KeyRecord] = [
            record
            for record in self._vault.records()
            if (record.owner, record.key_type, record.algorithm, record.state)
            == (self._owner, key_type, self._algorithm.label, state)
        ]
        return max(found, key=lambda record: record.version).name if found else None

    @property
    def pin_key(self) -> tuple[str, PinFormat]:
        """Name of the ZPK in use, and the format of blocks under it."""
        return self._active.zpk, PIN_FORMATS[self._algorithm]

    def mac(self, mab: bytes) -> bytes:
        """Eight bytes under the ZAK in use."""
        return self._vault.zone_mac(self._active.zak, self._mac_id, mab)

    def verify(self, mab: bytes, mac: bytes) -> None:
        """Return None when the MAC is right under one of the keys that may be used, else raise MacMismatch."""
        candidates = (self._active.zak, self.waiting.zak if self.waiting else None, self._previous)
        for name in candidates:
            if name is None:
                continue
            try:
                self._vault.verify_zone_mac(name, self._mac_id, mab, mac)
            except (MacMismatch, KeyMissingError):  # retired since we looked: it checks nothing any more
                continue
            if self.waiting is not None and name == self.waiting.zak and not self._proved:
                self._proved = True
                if self._on_proved is not None:
                    self._on_proved(self.waiting)
            return
        raise MacMismatch("the MAC is wrong under every key of this link")

    def key_change(self) -> bytes | None:
        """Field 62 of a key change: ZPK 16 ‖ KCV 4 ‖ ZAK 16 ‖ KCV 4, wrapped under the ZMK; None when none waits."""
        if self.waiting is None:
            return None
        zmk = self._newest("ZMK", KeyState.ACTIVE)
        if zmk is None:
            raise KeyMissingError(f"{self._owner} has no active ZMK for {self._algorithm.label}")
        parts = [self._vault.wrap(name, zmk) for name in (self.waiting.zpk, self.waiting.zak)]
        return b"".join(part.wrapped + part.kcv for part in parts)
