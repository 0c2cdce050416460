"""Working keys of terminals in memory: small handles, and a bounded ring of cipher contexts behind them.

A handle is some 400 bytes. Its MAC contexts (about 1 KB, 5 us to make) are built when first needed; when more than the
ring allows are alive, the one not used for longest goes, roughly: a second-chance clock, which costs one attribute
store per MAC where a true least-recently-used list would cost a reordering.
"""

from collections import deque
from collections.abc import Callable
from hmac import compare_digest
from typing import Final

from switch.domain.errors import MacMismatch
from switch.keys.derivation import terminal_diversifier
from switch.keys.macs import MAC_ALGORITHMS, mac_engine
from switch.keys.primitives import (
    KCV_BYTES,
    Algorithm,
    BlockCipher,
    MacKey,
    PinKey,
    TrackKey,
    WrappingKey,
    block_cipher,
    kcv_of,
    random_key,
)
from switch.keys.sealing import Sealer, SealError
from switch.keys.vault import WorkingKeySet

ENGINES_MAX: Final = 8192
_LENGTHS = (1 + 32, 1 + 48)  # algorithm id ‖ PIK ‖ MAK [‖ TDK]


class EngineRing:
    """At most `limit` terminals with live cipher contexts."""

    __slots__ = ("_limit", "_ring")

    def __init__(self, limit: int = ENGINES_MAX) -> None:
        if limit < 1:
            raise ValueError("at least one engine")
        self._limit = limit
        self._ring: deque[SoftwareTerminalKeys] = deque()

    def __len__(self) -> int:
        return len(self._ring)

    def admit(self, keys: "SoftwareTerminalKeys") -> None:
        """Make room for one more: walk on until a handle unused since the last walk gives up its contexts."""
        while len(self._ring) >= self._limit:
            oldest = self._ring.popleft()
            if oldest.spare():
                self._ring.append(oldest)
        self._ring.append(keys)


class SoftwareTerminalKeys:
    """One terminal's working keys, opened. Implements `vault.TerminalKeys`."""

    __slots__ = (
        "_field64",
        "_mac_id",
        "_mak",
        "_pik",
        "_recent",
        "_ring",
        "_tdk",
        "algorithm",
        "terminal_id",
    )

    def __init__(self, terminal_id: str, clear: bytes, mac_id: int, ring: EngineRing) -> None:
        self.terminal_id = terminal_id
        self.algorithm = Algorithm(clear[0])
        if MAC_ALGORITHMS.get(mac_id) is not self.algorithm:
            raise ValueError("MAC id and working keys are not of the same algorithm")
        self._mac_id = mac_id
        self._pik, self._mak, self._tdk = clear[1:17], clear[17:33], clear[33:49]
        self._ring = ring
        self._field64: Callable[[bytes], bytes] | None = None
        self._recent = False

    def __repr__(self) -> str:
        return f"<working keys of terminal {self.terminal_id}, {self.algorithm.label}>"

    def mac(self, mab: bytes) -> bytes:
        """Field 64, 8 bytes, over the bytes from the MTI up to field 64; ValueError when there are none."""
        self._recent = True
        return (self._field64 or self._build())(mab)

    def verify(self, mab: bytes, field64: bytes) -> None:
        """Return None when field 64 is right, else raise MacMismatch."""
        self._recent = True
        if not compare_digest((self._field64 or self._build())(mab), field64):
            raise MacMismatch("field 64 is wrong")

    def _build(self) -> Callable[[bytes], bytes]:
        self._ring.admit(self)
        self._field64 = mac_engine(self._mac_id, MacKey(self._mak, self.algorithm)).field64
        return self._field64

    def spare(self) -> bool:
        """For the ring: whether it was used since last asked; if not, its contexts are dropped here."""
        recent, self._recent = self._recent, False
        if not recent:
            self._field64 = None
        return recent

    def pin_key(self) -> PinKey:
        """The PIK, for the vault."""
        return PinKey(self._pik, self.algorithm)

    def track_key(self) -> TrackKey | None:
        """The TDK, for the vault; None when the set has none."""
        return TrackKey(self._tdk, self.algorithm) if self._tdk else None


def _context(terminal_id: str, *, rehearsal: bool) -> bytes:
    mode = b"rehearsal" if rehearsal else b"production"
    return b"working keys\x1f" + mode + b"\x1f" + terminal_diversifier(terminal_id)


def wrap_for_field62(tmk: WrappingKey, keys: list[bytes]) -> bytes:
    """Each 16-byte key under the TMK in ECB, followed by its check value: 20 bytes per key."""
    cipher = block_cipher(tmk)
    return b"".join([cipher.encrypt(key) + kcv_of(key, tmk.algorithm) for key in keys])


def unwrap_key(tmk: WrappingKey, wrapped: bytes) -> bytes:
    """A key from under its wrapping key: whole blocks of ECB."""
    return BlockCipher(tmk.reveal(), tmk.algorithm).decrypt(wrapped)


def draw_working_keys(
    tmk: WrappingKey, terminal_id: str, sealer: Sealer, *, with_track_key: bool, rehearsal: bool
) -> WorkingKeySet:
    """Fresh PIK, MAK and maybe TDK of the TMK's algorithm, in their two wrapped forms."""
    keys = [random_key(tmk.algorithm) for _ in range(3 if with_track_key else 2)]
    clear = bytes((tmk.algorithm,)) + b"".join(keys)
    context = _context(terminal_id, rehearsal=rehearsal)
    return WorkingKeySet(wrap_for_field62(tmk, keys), sealer.seal_working_keys(context, clear))


def open_working_keys(
    terminal_id: str, stored: bytes, mac_id: int, sealer: Sealer, ring: EngineRing, *, rehearsal: bool
) -> SoftwareTerminalKeys:
    """A handle on a stored set; SealError when it is not this terminal's or was altered."""
    clear = sealer.open_working_keys(_context(terminal_id, rehearsal=rehearsal), stored)
    if len(clear) not in _LENGTHS:
        raise SealError("a set of working keys has an unknown form")
    return SoftwareTerminalKeys(terminal_id, clear, mac_id, ring)


assert KCV_BYTES + 16 == 20, "field 62 gives every key 20 bytes"
