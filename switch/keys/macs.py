"""The five terminal MACs of field 64, over the bytes from the MTI up to, not including, field 64 (the MAB).

| id | name                                               | field 64                             |
|----|----------------------------------------------------|--------------------------------------|
| 1  | CUP-ECB, 3DES (single DES under an 8-byte key)     | first 8 of 16 upper-case hex digits  |
| 2  | ANSI X9.9, DES under the left half                 | 8 bytes                              |
| 3  | ANSI X9.19 = ISO/IEC 9797-1 algorithm 3, padding 1 | 8 bytes                              |
| 4  | CUP-ECB, SM4                                       | first 8 of 32 upper-case hex digits  |
| 5  | SM4-CBC-MAC, GB/T 15852.1 algorithm 1, padding 1   | first 8 of 16 bytes                  |

Speed comes from never rebuilding a cipher context. A CBC context goes on from the last block it made; XORing that
block into the first block of the next message cancels it, which is the same as starting again from IV zero. Byte
order is big-endian throughout, the default of int.from_bytes and int.to_bytes.
"""

from collections.abc import Callable
from hmac import compare_digest
from typing import Protocol

from switch.domain.errors import MacMismatch
from switch.keys.primitives import Algorithm, BlockCipher, MacKey, cbc_encryptor

FIELD64_BYTES = 8
MAC_ALGORITHMS = {1: Algorithm.TDES, 2: Algorithm.TDES, 3: Algorithm.TDES, 4: Algorithm.SM4, 5: Algorithm.SM4}

_from_bytes = int.from_bytes


def cbc_chain(material: bytes, algorithm: Algorithm) -> Callable[[bytes], bytes]:
    """A function that computes the last CBC block (IV zero, zero padding) of one message after another under one key.

    It returns 8 bytes (DES) or 16 (SM4), and raises ValueError for an empty message. A closure and not an object,
    because every attribute look-up would be felt here.

    The context and its last block travel as one pair. Who computes takes the pair out of the list and puts the new
    pair back only when all went well: after an exception, or in a second thread, the list is empty and a fresh
    context is made. A half-chained state is never used again.
    """
    size = algorithm.block_bytes
    mask = size - 1
    padding = [bytes(-length % size) for length in range(size)]
    idle: list[tuple[Callable[[bytes], bytes], int]] = []

    def last_block(data: bytes) -> bytes:
        if len(data) < size:
            if not data:
                raise ValueError("nothing to authenticate")
            data = data.ljust(size, b"\0")
        try:
            update, last = idle.pop()
        except IndexError:
            update, last = cbc_encryptor(material, algorithm).update, 0
        first = (_from_bytes(data[:size]) ^ last).to_bytes(size)
        block = update(first + data[size:] + padding[len(data) & mask])[-size:]
        idle.append((update, _from_bytes(block)))
        return block

    return last_block


def xor_of_blocks(data: bytes, block_bytes: int) -> int:
    """XOR of all blocks of the zero-padded data, as an integer of block_bytes bytes.

    Folds one long integer in halves: log2(blocks) steps instead of one per block.

    >>> f"{xor_of_blocks(bytes.fromhex('0102030405060708FF'), 8):016X}"
    'FE02030405060708'
    """
    folded = _from_bytes(data) << (-len(data) % block_bytes << 3)
    block_bits = block_bytes << 3
    width = block_bits
    while width < folded.bit_length():
        width <<= 1
    while width > block_bits:
        width >>= 1
        folded ^= folded >> width
    return folded & ((1 << block_bits) - 1)


class MacEngine(Protocol):
    """Computes field 64 under one key and keeps the cipher contexts for it."""

    def field64(self, mab: bytes) -> bytes:
        """The eight bytes of field 64. mab: not empty, or ValueError."""


class CupEcbMac:
    """Ids 1 and 4: XOR all blocks, write the result as hex, encrypt that in two linked steps, write hex again."""

    __slots__ = ("_block_bytes", "_encrypt")

    def __init__(self, key: MacKey) -> None:
        self._encrypt = BlockCipher(key.reveal(), key.algorithm).encrypt
        self._block_bytes = key.algorithm.block_bytes

    def steps(self, mab: bytes) -> tuple[int, bytes, bytes, bytes]:
        """XOR of the blocks, E of its first hex half, input of the second E, and the result, 8 (DES) or 16 bytes."""
        if not mab:
            raise ValueError("nothing to authenticate")
        size = self._block_bytes
        xor = xor_of_blocks(mab, size)
        digits = b"%0*X" % (size * 2, xor)  # twice the block size in ASCII: exactly two blocks
        first = self._encrypt(digits[:size])
        second_input = (_from_bytes(first) ^ _from_bytes(digits[size:])).to_bytes(size)
        return xor, first, second_input, self._encrypt(second_input)

    def field64(self, mab: bytes) -> bytes:
        """Eight ASCII characters."""
        return self.steps(mab)[3][:4].hex().upper().encode()


class CbcMac:
    """Ids 2 (DES, left half of the key) and 5 (SM4): the last CBC block."""

    __slots__ = ("block",)

    def __init__(self, key: MacKey) -> None:
        material = key.reveal() if key.algorithm is Algorithm.SM4 else key.reveal()[:8]
        self.block = cbc_chain(material, key.algorithm)

    def field64(self, mab: bytes) -> bytes:
        """Eight bytes, binary."""
        return self.block(mab)[:8]


class RetailMac:
    """Id 3: DES-CBC under the left half; the last block decrypted with the right half, encrypted with the left."""

    __slots__ = ("_chain", "_left", "_right")

    def __init__(self, key: MacKey) -> None:
        material = key.reveal()
        if len(material) != 16:
            raise ValueError("X9.19 needs a double-length key")
        self._chain = cbc_chain(material[:8], Algorithm.TDES)
        self._left = BlockCipher(material[:8], Algorithm.TDES)
        self._right = BlockCipher(material[8:], Algorithm.TDES)

    def field64(self, mab: bytes) -> bytes:
        """Eight bytes, binary."""
        return self._left.encrypt(self._right.decrypt(self._chain(mab)))


_ENGINES: dict[int, type[CupEcbMac] | type[CbcMac] | type[RetailMac]] = {
    1: CupEcbMac,
    2: CbcMac,
    3: RetailMac,
    4: CupEcbMac,
    5: CbcMac,
}
assert _ENGINES.keys() == MAC_ALGORITHMS.keys()


def mac_engine(mac_id: int, key: MacKey) -> MacEngine:
    """The engine of a MAC id for one key; ValueError when the id is unknown or the key is of the other algorithm."""
    if MAC_ALGORITHMS.get(mac_id) is not key.algorithm:
        raise ValueError("MAC id and key algorithm do not belong together")
    return _ENGINES[mac_id](key)


def verify_field64(engine: MacEngine, mab: bytes, field64: bytes) -> None:
    """Return None when field 64 (8 bytes) is right, else raise MacMismatch. Compares in constant time."""
    if not compare_digest(engine.field64(mab), field64):
        raise MacMismatch("field 64 is wrong")
