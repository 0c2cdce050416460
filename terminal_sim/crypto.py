"""The simulator's own cryptography: what cards, PSAMs and terminals compute. It shares nothing with `switch/keys`.

Only single blocks come from a library (OpenSSL by way of `cryptography`); chaining, padding and every construction is
spelled out here once more, block by block, so that a mistake on one side of the wire cannot cancel itself out on the other.
Known answers: tests/vectors (mac, pin, keys, epurse).
"""

from collections.abc import Mapping
from enum import Enum, IntEnum
from hmac import compare_digest
from types import MappingProxyType
from typing import NamedTuple, Protocol

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

KCV_BYTES = 4
WORKING_KEY_BYTES = 16


class Algorithm(IntEnum):
    """算法標識 as a card reports it."""

    TRIPLE_DES = 0
    SM4 = 4


class KeyKind(Enum):
    """Card keys by their trade names; a root and an issuer key of the same kind stand above each."""

    PURCHASE = "DPK"
    LOAD = "DLK"
    TAC = "DTK"
    MAINTENANCE = "DAMK"
    RELOAD_PIN = "DRPK"
    EXTERNAL = "DACK"
    INTERNAL = (
        "DIAK"  # apart from DACK: one key for both directions would let a card answer its own challenge
    )


class CheckValueError(Exception):
    """A key that was delivered does not have the check value that came with it."""


class Block:
    """A block cipher under one key, one block at a time; keeps its contexts, so a call costs well under a microsecond."""

    __slots__ = ("_decrypt", "_encrypt", "_key", "size")
    _key: TripleDES | algorithms.SM4

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        """key: 16 bytes, or 8 for single DES."""
        if len(key) not in (8, 16) or (algorithm is Algorithm.SM4 and len(key) != 16):
            raise ValueError("a key has 16 bytes, or 8 in single DES")
        if algorithm is Algorithm.SM4:
            self.size = 16
            self._key = algorithms.SM4(key)
        else:
            self.size = 8
            self._key = TripleDES(key * 3 if len(key) == 8 else key + key[:8])
        self._encrypt: CipherContext | None = None
        self._decrypt: CipherContext | None = None

    def __repr__(self) -> str:
        return f"Block({self.size} bytes)"

    def encrypt(self, blocks: bytes) -> bytes:
        """ECB over whole blocks."""
        assert len(blocks) % self.size == 0
        if self._encrypt is None:
            self._encrypt = Cipher(self._key, modes.ECB()).encryptor()
        return self._encrypt.update(blocks)

    def decrypt(self, blocks: bytes) -> bytes:
        """ECB over whole blocks, backwards."""
        assert len(blocks) % self.size == 0
        if self._decrypt is None:
            self._decrypt = Cipher(self._key, modes.ECB()).decryptor()
        return self._decrypt.update(blocks)

    def chain(self, data: bytes, iv: bytes = b"") -> bytes:
        """Last block of CBC over data, whose length is a multiple of the block; IV zero unless given."""
        size, encrypt = self.size, self.encrypt
        state = int.from_bytes(iv)
        for at in range(0, len(data), size):
            mixed = state ^ int.from_bytes(data[at : at + size])
            state = int.from_bytes(encrypt(mixed.to_bytes(size)))
        return state.to_bytes(size)


def inverted(data: bytes) -> bytes:
    """Every bit turned over."""
    return bytes(byte ^ 0xFF for byte in data)


def padded_80(data: bytes, size: int) -> bytes:
    """ISO/IEC 9797-1 padding 2: 80 and zeros to a multiple of size; a full block grows by one."""
    return data + b"\x80" + bytes(-(len(data) + 1) % size)


def padded_zero(data: bytes, size: int) -> bytes:
    """ISO/IEC 9797-1 padding 1: zeros to a multiple of size."""
    return data + bytes(-len(data) % size)


# --- keys ---------------------------------------------------------------------------------------------------------


def diversify(algorithm: Algorithm, parent: bytes, diversifier: bytes) -> bytes:
    """密鑰分散: the 16-byte child key of an 8-byte diversifier (issuer id, last 16 ASN digits, or field 41)."""
    assert len(diversifier) == 8
    return Block(algorithm, parent).encrypt(diversifier + inverted(diversifier))


def check_value(algorithm: Algorithm, key: bytes) -> bytes:
    """KCV: four bytes of an encrypted zero block."""
    block = Block(algorithm, key)
    return block.encrypt(bytes(block.size))[:KCV_BYTES]


class WorkingKeys(NamedTuple):
    """工作密鑰 of one sign-on, 16 bytes each, in clear: this is a terminal's PIN pad. Shows nothing of them."""

    pin: bytes
    mac: bytes
    track: bytes | None

    def __repr__(self) -> str:
        return "WorkingKeys(<hidden>)"


def unwrap_working_keys(algorithm: Algorithm, tmk: bytes, field62: bytes) -> WorkingKeys:
    """Decrypt PIK, MAK and, in 60 bytes, TDK, each followed by its check value.

    Raises CheckValueError for a wrong KCV or a length other than 40 or 60.
    """
    step = WORKING_KEY_BYTES + KCV_BYTES
    if len(field62) not in (2 * step, 3 * step):
        raise CheckValueError("working keys come in 40 or 60 bytes")
    master = Block(algorithm, tmk)
    clear = []
    for at in range(0, len(field62), step):
        key = master.decrypt(field62[at : at + WORKING_KEY_BYTES])
        if not compare_digest(check_value(algorithm, key), field62[at + WORKING_KEY_BYTES : at + step]):
            raise CheckValueError("the check value of a working key is wrong")
        clear.append(key)
    return WorkingKeys(clear[0], clear[1], clear[2] if len(clear) == 3 else None)


# --- terminal MACs ------------------------------------------------------------------------------------------------


class TerminalMac(Protocol):
    """One terminal's MAC: field 64 of a MAB (the packed message from the MTI up to field 64; never empty)."""

    def field64(self, mab: bytes) -> bytes:
        """Eight bytes."""


class _FoldedMac:
    """CUP-ECB, ids 1 and 4: XOR all blocks, write the sum as hex, encrypt one half into the other."""

    __slots__ = ("_block",)

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        self._block = Block(algorithm, key)

    def field64(self, mab: bytes) -> bytes:
        size = self._block.size
        folded = 0
        for at in range(0, len(mab), size):
            folded ^= int.from_bytes(mab[at : at + size].ljust(size, b"\0"))
        text = f"{folded:0{2 * size}X}".encode("ascii")
        return self._block.chain(text).hex()[:8].upper().encode("ascii")


class _ChainedMac:
    """Ids 2 (X9.9) and 5 (GB/T 15852.1 algorithm 1): CBC over the zero-padded MAB."""

    __slots__ = ("_block",)

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        self._block = Block(algorithm, key)

    def field64(self, mab: bytes) -> bytes:
        return self._block.chain(padded_zero(mab, self._block.size))[:8]


class _RetailMac:
    """Id 3 (X9.19, ISO/IEC 9797-1 algorithm 3): single DES CBC, then once backwards and once forwards."""

    __slots__ = ("_left", "_right")

    def __init__(self, key: bytes) -> None:
        self._left = Block(Algorithm.TRIPLE_DES, key[:8])
        self._right = Block(Algorithm.TRIPLE_DES, key[8:])

    def field64(self, mab: bytes) -> bytes:
        return self._left.encrypt(self._right.decrypt(self._left.chain(padded_zero(mab, 8))))


MAC_ALGORITHM: Mapping[int, Algorithm] = MappingProxyType(
    {
        1: Algorithm.TRIPLE_DES,
        2: Algorithm.TRIPLE_DES,
        3: Algorithm.TRIPLE_DES,
        4: Algorithm.SM4,
        5: Algorithm.SM4,
    }
)


def terminal_mac(mac_id: int, key: bytes) -> TerminalMac:
    """The MAC with id 1 CUP-ECB 3DES, 2 X9.9, 3 X9.19, 4 CUP-ECB SM4 or 5 SM4-CBC under a MAK of 16 bytes (1, 2: or 8)."""
    algorithm = MAC_ALGORITHM[mac_id]
    if mac_id in (1, 4):
        return _FoldedMac(algorithm, key)
    if mac_id == 3:
        return _RetailMac(key)
    return _ChainedMac(algorithm, key[:8] if mac_id == 2 else key)


# --- PIN blocks ---------------------------------------------------------------------------------------------------


def _pin_text(pin: str, nibbles: int) -> int:
    if not (4 <= len(pin) <= 12 and pin.isascii() and pin.isdecimal()):
        raise ValueError("a PIN has 4 to 12 digits")
    return int(f"{len(pin):02X}{pin}".ljust(nibbles, "F"), 16)


def clear_pin_block(pin: str, pan: str | None, size: int) -> bytes:
    """ISO 9564-1 format 0 in 8 bytes, its SM4 form in 16, or, without a PAN, the plain PIN field."""
    block = _pin_text(pin, 2 * size)
    if pan is not None:
        block ^= int(pan[-13:-1], 16)  # the twelve digits left of the check digit, right-aligned
    return block.to_bytes(size)


def pin_block(algorithm: Algorithm, pik: bytes, pin: str, pan: str | None) -> bytes:
    """The encrypted PIN block: 8 bytes for field 52 (3DES) or 16 for tag DF51 (SM4)."""
    cipher = Block(algorithm, pik)
    return cipher.encrypt(clear_pin_block(pin, pan, cipher.size))


# --- purse --------------------------------------------------------------------------------------------------------


def session_key(algorithm: Algorithm, card_key: bytes, seed: bytes) -> bytes:
    """過程密鑰 SESLK or SESPK of an 8-byte seed: 8 bytes with 3DES, 16 with SM4."""
    assert len(seed) == 8
    return Block(algorithm, card_key).encrypt(
        seed if algorithm is Algorithm.TRIPLE_DES else seed + inverted(seed)
    )


def load_seed(card_random: bytes, online_atc: int) -> bytes:
    """Seed of SESLK."""
    return card_random + online_atc.to_bytes(2) + b"\x80\x00"


def purchase_seed(card_random: bytes, offline_atc: int, psam_serial: bytes) -> bytes:
    """Seed of SESPK."""
    return card_random + offline_atc.to_bytes(2) + psam_serial[-2:]


def purse_mac(algorithm: Algorithm, key: bytes, data: bytes) -> bytes:
    """MAC1 or MAC2 under a session key: CBC over 80-padded data, left four bytes."""
    block = Block(algorithm, key)
    return block.chain(padded_80(data, block.size))[:4]


def tac(algorithm: Algorithm, dtk: bytes, data: bytes) -> bytes:
    """交易驗證碼 TAC: with 3DES under the XOR of the key's halves, with SM4 under the whole key."""
    return purse_mac(algorithm, _tac_key(algorithm, dtk), data)


def _tac_key(algorithm: Algorithm, key: bytes) -> bytes:
    if algorithm is Algorithm.SM4:
        return key
    return bytes(left ^ right for left, right in zip(key[:8], key[8:], strict=True))


def secure_messaging_mac(
    algorithm: Algorithm, damk: bytes, challenge: bytes, header: bytes, data: bytes
) -> bytes:
    """MAC of a maintenance command: header CLA INS P1 P2 Lc (counting the MAC), IV the card's 4-byte challenge."""
    assert len(challenge) == 4
    assert len(header) == 5
    if algorithm is Algorithm.SM4:
        block = Block(algorithm, damk)
        return block.chain(padded_80(header + data, 16), challenge + bytes(12))[:4]
    left, right = Block(algorithm, damk[:8]), Block(algorithm, damk[8:])
    last = left.chain(padded_80(header + data, 8), challenge + bytes(4))
    return left.encrypt(right.decrypt(last))[:4]


def authentication_cryptogram(algorithm: Algorithm, key: bytes, challenge: bytes) -> bytes:
    """EXTERNAL and INTERNAL AUTHENTICATE: the 8-byte challenge encrypted; with SM4 followed by its complement, 16 bytes."""
    assert len(challenge) == 8
    return Block(algorithm, key).encrypt(
        challenge if algorithm is Algorithm.TRIPLE_DES else challenge + inverted(challenge)
    )
