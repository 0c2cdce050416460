"""Key records: what is kept about a key besides its sealed bytes, and where records are kept.

A key's name says what it is: `TYPE/ALGORITHM/vVERSION/OWNER`, for example `DTK/SM4/v1/national`,
`DTK/3DES/v2/99993350FFFFFFFF` (issuer level) or `ZPK/SM4/v1/01020000` (a partner).
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import NamedTuple, Protocol

from switch.domain.errors import InputRefused, SwitchError
from switch.keys.primitives import KCV_BYTES, Algorithm, algorithm_named, kcv_of, sm3

# Ids of stored records. 00 and 04 are those of cards; the others are the project's own and never reach a card.
ALGORITHM_IDS = {"3DES": 0x00, "SM4": 0x04, "SM2": 0x12, "SM3": 0x13}
ALGORITHM_LABELS = {number: label for label, number in ALGORITHM_IDS.items()}
assert all(ALGORITHM_IDS[algorithm.label] == algorithm for algorithm in Algorithm)

ROOT_OWNER = "national"
LOCAL_OWNER = "local"


class KeyMissingError(SwitchError):
    """No key of that name or kind may be used for this: it is absent, or its state forbids it."""


class KeyState(Enum):
    """Life of a key. Only `active` makes anything new; `verify-only` still checks what cards and peers hold."""

    PRE_ACTIVE = "pre-active"
    ACTIVE = "active"
    VERIFY_ONLY = "verify-only"
    RETIRED = "retired"


class KeyLevel(Enum):
    """Where in the tree a key stands."""

    ROOT = "root"
    ISSUER = "issuer"
    ZONE = "zone"
    LOCAL = "local"


class TypeRule(NamedTuple):
    """What a key type may be."""

    levels: tuple[KeyLevel, ...]
    algorithms: tuple[str, ...]
    meaning: str


_BLOCK = ("3DES", "SM4")
_TREE = (KeyLevel.ROOT, KeyLevel.ISSUER)
KEY_TYPES = {
    "TMMK": TypeRule((KeyLevel.ROOT,), _BLOCK, "terminal master keys derive from it"),
    "DPK": TypeRule(_TREE, _BLOCK, "purchase 消費密鑰"),
    "DLK": TypeRule(_TREE, _BLOCK, "load 圈存密鑰"),
    "DTK": TypeRule(_TREE, _BLOCK, "TAC 密鑰"),
    "DAMK": TypeRule(_TREE, _BLOCK, "application maintenance 應用維護密鑰"),
    "DPUK": TypeRule(_TREE, _BLOCK, "PIN unblock 口令解鎖密鑰"),
    "DRPK": TypeRule(_TREE, _BLOCK, "PIN reload 口令重裝密鑰"),
    "DACK": TypeRule(_TREE, _BLOCK, "external authentication 外部認證密鑰"),
    "CCK": TypeRule(_TREE, _BLOCK, "card control 卡片主控密鑰"),
    "ACK": TypeRule(_TREE, _BLOCK, "application control 應用主控密鑰"),
    "ZMK": TypeRule((KeyLevel.ZONE,), _BLOCK, "wraps keys exchanged with a partner"),
    "ZPK": TypeRule((KeyLevel.ZONE,), _BLOCK, "PIN blocks exchanged with a partner"),
    "ZAK": TypeRule((KeyLevel.ZONE,), _BLOCK, "MACs exchanged with a partner"),
    "PVK": TypeRule((KeyLevel.LOCAL,), ("SM3",), "PIN verifiers, HMAC-SM3"),
    "SM2": TypeRule((KeyLevel.LOCAL,), ("SM2",), "signature of the key centre"),
    "LSK": TypeRule((KeyLevel.LOCAL,), ("SM2",), "signature of terminals' lists 名單簽名"),
    "ESK": TypeRule((KeyLevel.LOCAL,), ("SM2",), "signature of the seals of days 存證簽名"),
    "FSK": TypeRule((KeyLevel.LOCAL,), ("SM2",), "signature of clearing files 文件簽名"),
}

# Key pairs that sign, each for its own readers: whoever checks one kind of thing must not be told another kind by it.
SIGNING_TYPES = ("SM2", "LSK", "ESK", "FSK")
assert {kind for kind, rule in KEY_TYPES.items() if rule.algorithms == ("SM2",)} == set(SIGNING_TYPES)

_FIXED_OWNERS = {KeyLevel.ROOT: ROOT_OWNER, KeyLevel.LOCAL: LOCAL_OWNER}
_OWNER = re.compile(r"[A-Za-z0-9._-]{1,32}")
_ISSUER = re.compile(r"[0-9A-F]{16}")


class KeySpec(NamedTuple):
    """What a key is meant to be, before it exists. Check with `checked`."""

    key_type: str
    algorithm: str
    version: int
    owner: str
    level: KeyLevel
    key_index: int

    @property
    def name(self) -> str:
        """The key's name."""
        return f"{self.key_type}/{self.algorithm}/v{self.version}/{self.owner}"

    def checked(self) -> "KeySpec":
        """Itself, or InputRefused naming the rule that it breaks."""
        rule = KEY_TYPES.get(self.key_type)
        if rule is None:
            raise InputRefused(f"key type must be one of {', '.join(KEY_TYPES)}")
        if self.algorithm not in rule.algorithms:
            raise InputRefused(f"{self.key_type}: algorithm must be {' or '.join(rule.algorithms)}")
        if self.level not in rule.levels:
            raise InputRefused(
                f"{self.key_type}: level must be {' or '.join(level.value for level in rule.levels)}"
            )
        if not 1 <= self.version <= 255 or not 1 <= self.key_index <= 255:
            raise InputRefused(f"{self.key_type}: version and index must be 1 to 255")
        if not _OWNER.fullmatch(self.owner):
            raise InputRefused(f"{self.key_type}: owner must be 1 to 32 letters, digits, dots, dashes")
        if self.owner != _FIXED_OWNERS.get(self.level, self.owner):
            raise InputRefused(
                f"{self.key_type}: a {self.level.value} key is owned by {_FIXED_OWNERS[self.level]}"
            )
        if self.level is KeyLevel.ISSUER and not _ISSUER.fullmatch(self.owner):
            raise InputRefused(
                f"{self.key_type}: an issuer key is owned by its issuer id, 16 upper-case hex digits"
            )
        return self


def default_index(algorithm: str) -> int:
    """The first key index of an algorithm: 01 in 3DES sets, 41 (hex) in SM4 sets."""
    return 0x41 if algorithm == "SM4" else 0x01


def check_value(algorithm: str, clear: bytes) -> bytes:
    """Four bytes that identify a key: KCV of block cipher keys, else the start of an SM3 over what may be known.

    SM2: over the public half. PVK: over the key behind a label, since it encrypts nothing.
    """
    if algorithm == "SM2":
        return sm3(clear[32:])[:KCV_BYTES]
    if algorithm == "SM3":
        return sm3(b"check value\x1f" + clear)[:KCV_BYTES]
    return kcv_of(clear, algorithm_named(algorithm))


class KeyRecord(NamedTuple):
    """One key as it is stored. `ciphertext` is sealed under the local master key with the rest of the record bound in."""

    name: str
    owner: str
    key_type: str
    key_index: int
    version: int
    algorithm: str
    level: KeyLevel
    state: KeyState
    valid_from: datetime | None
    valid_to: datetime | None
    kcv: bytes
    ciphertext: bytes
    rehearsal: bool

    def __repr__(self) -> str:
        return f"<key record {self.name}, {self.state.value}, KCV {self.kcv.hex().upper()}>"

    @property
    def usable(self) -> bool:
        """Whether it may still check what others made."""
        return self.state in (KeyState.ACTIVE, KeyState.VERIFY_ONLY)

    def bound_context(self) -> bytes:
        """What the sealing binds to the key bytes: everything but the dates and the check value."""
        mode = "rehearsal" if self.rehearsal else "production"
        parts = (self.name, self.owner, self.key_type, str(self.key_index), str(self.version), self.algorithm)
        return "\x1f".join((*parts, self.level.value, self.state.value, mode)).encode()


class CeremonyEntry(NamedTuple):
    """One line of the ceremony log: what happened to which key, by whom."""

    action: str
    key_name: str
    operators: tuple[str, ...]
    kcv: bytes | None


class KeyStore(Protocol):
    """Where a vault keeps its records. Holds nothing in clear."""

    def load_meta(self) -> dict[str, bytes]:
        """Vault-wide values by name; empty when there is no vault yet."""

    def create(
        self, meta: Mapping[str, bytes], records: Iterable[KeyRecord], log: Iterable[CeremonyEntry]
    ) -> None:
        """Write a new vault at once; InputRefused when there is one already."""

    def replace_meta(self, meta: Mapping[str, bytes]) -> None:
        """Replace vault-wide values by name, at once (change of passphrase)."""

    def load_all(self) -> list[KeyRecord]:
        """All records, by name."""

    def save(self, records: Iterable[KeyRecord], log: Iterable[CeremonyEntry]) -> None:
        """Insert or replace records and append to the log, all or nothing."""

    def load_log(self) -> list[tuple[datetime, CeremonyEntry]]:
        """The ceremony log, oldest first."""
