"""Block ciphers, SM3 and the typed keys. Knows no purpose beyond "this key may do that"; keeps no key by name.

One class per purpose, so that handing a PIN key to the MAC functions fails in the type checker. A key prints as its
purpose, algorithm and check value, and refuses to be pickled.

Two-key 3DES is K1-K2-K1 (NIST SP 800-67); a single-length DES key is the same with K1 = K2. Parity bits are ignored.
SM4: GB/T 32907-2016. SM3: GB/T 32905-2016.
"""

import secrets
from collections.abc import Callable
from enum import IntEnum
from typing import ClassVar, NoReturn

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB

KCV_BYTES = 4


class Algorithm(IntEnum):
    """Algorithm id 算法標識 of cards, records and key records."""

    TDES = 0x00
    SM4 = 0x04

    @property
    def block_bytes(self) -> int:
        """8 for 3DES, 16 for SM4."""
        return 16 if self is Algorithm.SM4 else 8

    @property
    def label(self) -> str:
        """The name used in key names, files and printouts: `3DES` or `SM4`."""
        return "SM4" if self is Algorithm.SM4 else "3DES"


def algorithm_named(label: str) -> Algorithm:
    """Algorithm from its label, `3DES` or `SM4`; anything else is a ValueError."""
    for algorithm in Algorithm:
        if algorithm.label == label:
            return algorithm
    raise ValueError("algorithm must be 3DES or SM4")


class SecretKey:
    """Key bytes with an algorithm and a purpose. Lengths: 16 bytes, and 8 where a subclass allows single DES."""

    __slots__ = ("_material", "algorithm")
    purpose: ClassVar[str] = "secret"
    single_des: ClassVar[bool] = False

    def __init__(self, material: bytes, algorithm: Algorithm) -> None:
        single = self.single_des and algorithm is Algorithm.TDES and len(material) == 8
        if len(material) != 16 and not single:
            raise ValueError(f"{self.purpose} key has the wrong length")
        self._material = material
        self.algorithm = algorithm

    def reveal(self) -> bytes:
        """The clear bytes: for ciphers and wrapping inside this room only."""
        return self._material

    def __repr__(self) -> str:
        return f"<{self.purpose} key, {self.algorithm.label}, KCV {kcv(self).hex().upper()}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys do not leave the process")


class MacKey(SecretKey):
    """MAK or ZAK: message authentication with terminals and partners."""

    __slots__ = ()
    purpose = "MAC"
    single_des = True


class PinKey(SecretKey):
    """PIK or ZPK: encrypts PIN blocks and nothing else."""

    __slots__ = ()
    purpose = "PIN"


class TrackKey(SecretKey):
    """TDK: encrypts track data on the wire."""

    __slots__ = ()
    purpose = "track"


class WrappingKey(SecretKey):
    """TMK or ZMK: encrypts other keys."""

    __slots__ = ()
    purpose = "wrapping"


class MasterKey(SecretKey):
    """A national root or issuer key: child keys are derived from it. `kind` says which child (DPK, DLK, DTK ...)."""

    __slots__ = ("kind",)
    purpose = "master"

    def __init__(self, material: bytes, algorithm: Algorithm, kind: str) -> None:
        super().__init__(material, algorithm)
        self.kind = kind


class LoadKey(SecretKey):
    """DLK 圈存密鑰 of one card."""

    __slots__ = ()
    purpose = "load"
    kind = "DLK"


class PurchaseKey(SecretKey):
    """DPK 消費密鑰 of one card."""

    __slots__ = ()
    purpose = "purchase"
    kind = "DPK"


class TacKey(SecretKey):
    """DTK of one card: the transaction authentication code TAC 交易驗證碼."""

    __slots__ = ()
    purpose = "TAC"
    kind = "DTK"


class MaintenanceKey(SecretKey):
    """DAMK 應用維護密鑰 of one card: secure messaging."""

    __slots__ = ()
    purpose = "maintenance"
    kind = "DAMK"


class SessionKey(SecretKey):
    """Session key of one purse transaction: 8 bytes in 3DES, 16 in SM4."""

    __slots__ = ()
    purpose = "session"
    single_des = True


def _cipher_algorithm(material: bytes, algorithm: Algorithm) -> TripleDES | SM4:
    if algorithm is Algorithm.SM4:
        return SM4(material)
    return TripleDES(material * 3 if len(material) == 8 else material + material[:8])


_ZERO_IV = {
    algorithm: CBC(bytes(algorithm.block_bytes)) for algorithm in Algorithm
}  # checked once, shared by all contexts
_ECB = ECB()  # noqa: S305  the trade's own constructions (derivation, key wrapping) are defined block by block


def cbc_encryptor(material: bytes, algorithm: Algorithm) -> CipherContext:
    """A fresh CBC context with IV zero over raw key bytes (8 or 16). Feed it whole blocks only."""
    return Cipher(_cipher_algorithm(material, algorithm), _ZERO_IV[algorithm]).encryptor()


class BlockCipher:
    """ECB over one key with the contexts kept; many blocks go through in one call (0.1 to 0.3 us a block).

    Whole blocks only: a remainder would stay in the context and spoil the next call, so it is refused before.
    """

    __slots__ = ("_block_bytes", "_decrypt", "_encrypt", "_key")

    def __init__(self, material: bytes, algorithm: Algorithm) -> None:
        self._key = _cipher_algorithm(material, algorithm)
        self._block_bytes = algorithm.block_bytes
        self._encrypt: Callable[[bytes], bytes] | None = None
        self._decrypt: Callable[[bytes], bytes] | None = None

    def encrypt(self, blocks: bytes) -> bytes:
        """Encrypt whole blocks, each by itself."""
        if len(blocks) % self._block_bytes:
            raise ValueError("not a whole number of blocks")
        if self._encrypt is None:
            self._encrypt = Cipher(self._key, _ECB).encryptor().update
        return self._encrypt(blocks)

    def decrypt(self, blocks: bytes) -> bytes:
        """Decrypt whole blocks, each by itself."""
        if len(blocks) % self._block_bytes:
            raise ValueError("not a whole number of blocks")
        if self._decrypt is None:
            self._decrypt = Cipher(self._key, _ECB).decryptor().update
        return self._decrypt(blocks)


def block_cipher(key: SecretKey) -> BlockCipher:
    """The ECB operations of a key."""
    return BlockCipher(key.reveal(), key.algorithm)


def kcv_of(material: bytes, algorithm: Algorithm) -> bytes:
    """Key check value: the first four bytes of E(key, zero block)."""
    return BlockCipher(material, algorithm).encrypt(bytes(algorithm.block_bytes))[:KCV_BYTES]


def kcv(key: SecretKey) -> bytes:
    """Key check value of a typed key, 4 bytes."""
    return kcv_of(key.reveal(), key.algorithm)


def odd_parity(material: bytes) -> bytes:
    """Set the lowest bit of every byte so that each has an odd number of ones (DES convention).

    >>> odd_parity(bytes.fromhex("0002FE")).hex()
    '0102fe'
    """
    return bytes(byte & 0xFE | (~(byte >> 1).bit_count() & 1) for byte in material)


def random_key(algorithm: Algorithm) -> bytes:
    """Sixteen fresh key bytes; odd parity for 3DES, and never with equal halves."""
    if algorithm is Algorithm.SM4:
        return secrets.token_bytes(16)
    while True:
        material = odd_parity(secrets.token_bytes(16))
        if material[:8] != material[8:]:
            return material


def sm3(data: bytes) -> bytes:
    """SM3 digest, 32 bytes (GB/T 32905-2016)."""
    digest = hashes.Hash(hashes.SM3())
    digest.update(data)
    return digest.finalize()
