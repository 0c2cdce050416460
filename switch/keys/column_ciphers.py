"""CBC-MACs of many short messages, each under a key of its own: DES and SM4 over columns.

For a TAC the cipher itself is the small part. OpenSSL takes some 4 us to prepare a context and then 1 us for three blocks, and no
library takes many keys at once; here all messages go through each round together, and a MAC costs about 1 us. The tables are by
bytes, as those of OpenSSL's own DES and SM4, so this tells no more by its timing than that does.

Only for this: IV zero, whole blocks, the left four bytes of the last. Before an algorithm's first use in a process it must agree with
OpenSSL on random keys and messages; otherwise there is an AssertionError, and no TAC is judged.

DES: FIPS 46-3, SM4: GB/T 32907-2016. Bits are counted from 1 and from the left, as the standards do.
"""

import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from switch.keys.primitives import Algorithm, cbc_encryptor

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]
Table = NDArray[Any]

_MAC_BYTES: Final = 4
_PROOFS: Final = 64
_LOW_32: Final = 0xFFFFFFFF


def cbc_macs(algorithm: Algorithm, keys: Bytes, messages: Bytes) -> Bytes:
    """Left four bytes of the last block, a row each. keys: 8 bytes a row for DES, 16 for SM4; messages: whole blocks."""
    _prove(algorithm)
    return _cbc_macs(algorithm, keys, messages)


def _cbc_macs(algorithm: Algorithm, keys: Bytes, messages: Bytes) -> Bytes:
    made = _sm4_macs(keys, messages) if algorithm is Algorithm.SM4 else _des_macs(keys, messages)
    return made.astype(">u4").view(np.uint8).reshape(-1, _MAC_BYTES)


@lru_cache(maxsize=len(Algorithm))
def _prove(algorithm: Algorithm) -> None:
    key_bytes = 16 if algorithm is Algorithm.SM4 else 8
    keys = np.frombuffer(secrets.token_bytes(_PROOFS * key_bytes), np.uint8).reshape(_PROOFS, -1)
    messages = np.frombuffer(secrets.token_bytes(_PROOFS * 48), np.uint8).reshape(_PROOFS, 48)
    size = algorithm.block_bytes
    expected = [
        cbc_encryptor(key.tobytes(), algorithm).update(message.tobytes())[-size:][:_MAC_BYTES]
        for key, message in zip(keys, messages, strict=True)
    ]
    assert _cbc_macs(algorithm, keys, messages).tobytes() == b"".join(expected), "the ciphers disagree"


# ------------------------------------------------------------------ DES


_P = (
    *(16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10),
    *(2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25),
)
_CHOICE_1 = (
    *(
        57,
        49,
        41,
        33,
        25,
        17,
        9,
        1,
        58,
        50,
        42,
        34,
        26,
        18,
        10,
        2,
        59,
        51,
        43,
        35,
        27,
        19,
        11,
        3,
        60,
        52,
        44,
        36,
    ),
    *(
        63,
        55,
        47,
        39,
        31,
        23,
        15,
        7,
        62,
        54,
        46,
        38,
        30,
        22,
        14,
        6,
        61,
        53,
        45,
        37,
        29,
        21,
        13,
        5,
        28,
        20,
        12,
        4,
    ),
)
_CHOICE_2 = (
    *(14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2),
    *(41, 52, 31, 37, 47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32),
)
_SHIFTS = (1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1)
_BOXES = (  # each by its four rows, a hex digit a value
    "e4d12fb83a6c59070f74e2d1a6cb953841e8d62bfc973a50fc8249175b3ea06d",
    "f18e6b34972dc05a3d47f28ec01a69b50e7ba4d158c6932fd8a13f42b67c05e9",
    "a09e63f51dc7b428d709346a285ecbf1d6498f30b12c5ae71ad069874fe3b52c",
    "7de3069a1285bc4fd8b56f03472c1ae9a690cb7df13e52843f06a1d8945bc72e",
    "2c417ab6853fd0e9eb2c47d150fa3986421bad78f9c5630eb8c71e2d6f09a453",
    "c1af92680d34e75baf427c9561de0b389ef528c3704a1db6432c95fabe17608d",
    "4b2ef08d3c975a61d0b7491ae35c2f8614bdc37eaf6805926bd814a7950fe23c",
    "d2846fb1a93e50c71fd8a374c56b0e927b419ce206adf35821e74a8dfc90356b",
)


class _Des(NamedTuple):
    """Tables of DES, for halves that are kept rotated right by 3.

    Then the six input bits of boxes 1, 3, 5, 7 end their bytes, and after a rotation left by 4 those of boxes 2, 4, 6, 8.

    initial: 8 × 256 → both halves. final: 8 × 256 → the left half of the block. schedule: 8 × 256 → 16 rounds of two words, for the odd
    boxes and the even ones. boxes: for two boxes at a time, by their two bytes: 1 and 3, 5 and 7, 2 and 4, 6 and 8.
    """

    initial: Table
    final: Table
    schedule: Table
    boxes: tuple[Table, Table, Table, Table]


def _rotated(word: int, left: int) -> int:
    return (word << left | word >> (32 - left)) & _LOW_32


def _by_bytes(of_bit: Sequence[int] | Table, dtype: type[Any]) -> Table:
    """A linear map of 64 bits as eight tables. of_bit: what each bit alone gives."""
    images = np.array(of_bit, dtype)
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.bool_)
    tables = np.zeros((8, 256, *images.shape[1:]), dtype)
    for place in range(64):
        tables[place // 8, bits[:, place % 8]] ^= images[place]
    return tables


@lru_cache(maxsize=1)
def _des() -> _Des:
    initial_order = [row + 8 * (7 - column) for row in (2, 4, 6, 8, 1, 3, 5, 7) for column in range(8)]
    initial, final = [0] * 64, [0] * 64
    for place, bit in enumerate(initial_order):
        half = _rotated(1 << (31 - place % 32), 29)
        initial[bit - 1] = half << 32 if place < 32 else half
        # What comes out is the right half and then the left: the same places the other way round, in rotated halves.
        held = (place % 32 + 3) % 32 + (0 if place < 32 else 32)
        final[held] = 1 << (32 - bit) if bit <= 32 else 0

    schedule = np.zeros((64, 16, 2), np.uint32)
    turned = 0
    for number, shift in enumerate(_SHIFTS):
        turned += shift
        for place, choice in enumerate(_CHOICE_2):
            half, at = divmod(choice - 1, 28)
            bit = _CHOICE_1[half * 28 + (at + turned) % 28]
            box, within = divmod(place, 6)
            schedule[bit - 1, number, box % 2] |= np.uint32(1 << (31 - (box // 2 * 8 + 2 + within)))

    single = np.zeros((8, 64), np.uint32)
    for box, digits in enumerate(_BOXES):
        for value in range(64):
            row, column = (value >> 4 & 2) | (value & 1), value >> 1 & 15
            nibble = int(digits[row * 16 + column], 16)
            out = sum(
                1 << (31 - place)
                for place, bit in enumerate(_P)
                if (bit - 1) // 4 == box and nibble >> (3 - (bit - 1) % 4) & 1
            )
            single[box, value] = _rotated(out, 29)
    both = np.arange(0x4000)
    pair = [single[one][both >> 8 & 63] ^ single[one + 2][both & 63] for one in (0, 4, 1, 5)]
    return _Des(
        _by_bytes(initial, np.uint64),
        _by_bytes(final, np.uint32),
        _by_bytes(schedule, np.uint32),
        (pair[0], pair[1], pair[2], pair[3]),
    )


def _mapped(tables: Table, columns: Bytes) -> Table:
    """A linear map of rows of eight bytes."""
    made: Table = tables[0][columns[:, 0]]
    for place in range(1, 8):
        made ^= tables[place][columns[:, place]]
    return made


def _des_macs(keys: Bytes, messages: Bytes) -> Words:
    tables = _des()
    schedule = np.ascontiguousarray(_mapped(tables.schedule, keys).transpose(1, 2, 0))
    odd_1, odd_2, even_1, even_2 = tables.boxes
    mask = np.uint32(0x3F3F3F3F)
    left = np.zeros(len(keys), np.uint32)
    right = left.copy()
    for start in range(0, messages.shape[1], 8):
        halves = _mapped(tables.initial, messages[:, start : start + 8])
        # The last round's halves come out crosswise.
        left, right = right ^ (halves >> np.uint64(32)).astype(np.uint32), left ^ halves.astype(np.uint32)
        for odd_key, even_key in schedule:
            odd = (right ^ odd_key) & mask
            even = ((right << np.uint32(4) | right >> np.uint32(28)) ^ even_key) & mask
            made = odd_1[odd >> np.uint32(16)]
            made ^= odd_2[odd & np.uint32(0x3F3F)]
            made ^= even_1[even >> np.uint32(16)]
            made ^= even_2[even & np.uint32(0x3F3F)]
            left, right = right, left ^ made
    out = np.empty((len(keys), 2), ">u4")
    out[:, 0], out[:, 1] = right, left
    return _mapped(tables.final, out.view(np.uint8))


# ------------------------------------------------------------------ SM4


_SM4_BOX = np.frombuffer(
    bytes.fromhex(
        "d690e9fecce13db716b614c228fb2c052b679a762abe04c3aa44132649860699"
        "9c4250f491ef987a33540b43edcfac62e4b31ca9c908e89580df94fa758f3fa6"
        "4707a7fcf37317ba83593c19e6854fa8686b81b27164da8bf8eb0f4b70569d35"
        "1e240e5e6358d1a225227c3b01217887d40046579fd327524c3602e7a0c4c89e"
        "eabf8ad240c738b5a3f7f2cef96115a1e0ae5da49b341a55ad933230f58cb1e3"
        "1df6e22e8266ca60c02923ab0d534e6fd5db3745defd8e2f03ff6a726d6c5b51"
        "8d1baf92bbddbc7f11d95c411f105ad80ac13188a5cd7bbd2d74d012b8e5b4b0"
        "8969974a0c96777e65b9f109c56ec68418f07dec3adc4d2079ee5f3ed7cb3948"
    ),
    np.uint8,
)
_SM4_FIRST = (0xA3B1BAC6, 0x56AA3350, 0x677D9197, 0xB27022DC)
_SM4_ROUNDS = tuple(
    int.from_bytes(bytes((4 * number + place) * 7 % 256 for place in range(4))) for number in range(32)
)


@lru_cache(maxsize=2)
def _sm4_tables(turns: tuple[int, ...]) -> tuple[Table, Table, Table, Table]:
    """Box and linear part together, for each byte of a word; turns: the rotations whose sum the linear part is."""
    made = []
    for place in range(4):
        word = _SM4_BOX.astype(np.uint32) << np.uint32(24 - 8 * place)
        table = np.zeros(256, np.uint32)
        for turn in turns:
            table ^= word << np.uint32(turn) | word >> np.uint32((32 - turn) % 32) if turn else word
        made.append(table)
    return made[0], made[1], made[2], made[3]


def _substituted(tables: tuple[Table, Table, Table, Table], word: Words) -> Words:
    parts = word.view(np.uint8).reshape(-1, 4)  # the lowest first
    made: Words = tables[3][parts[:, 0]]
    made ^= tables[2][parts[:, 1]]
    made ^= tables[1][parts[:, 2]]
    made ^= tables[0][parts[:, 3]]
    return made


def _words(rows: Bytes) -> list[Words]:
    """Four words a row, as columns."""
    return [np.ascontiguousarray(column, np.uint32) for column in np.ascontiguousarray(rows).view(">u4").T]


def _sm4_macs(keys: Bytes, messages: Bytes) -> Words:
    of_key, of_text = _sm4_tables((0, 13, 23)), _sm4_tables((0, 2, 10, 18, 24))
    a, b, c, d = (word ^ np.uint32(first) for word, first in zip(_words(keys), _SM4_FIRST, strict=True))
    round_keys: list[Words] = []
    for constant in _SM4_ROUNDS:
        a, b, c, d = b, c, d, a ^ _substituted(of_key, b ^ c ^ d ^ np.uint32(constant))
        round_keys.append(d)
    state = [np.zeros(len(keys), np.uint32)] * 4
    for start in range(0, messages.shape[1], 16):
        a, b, c, d = (
            word ^ before for word, before in zip(_words(messages[:, start : start + 16]), state, strict=True)
        )
        for round_key in round_keys:
            a, b, c, d = b, c, d, a ^ _substituted(of_text, b ^ c ^ d ^ round_key)
        state = [d, c, b, a]
    return state[0]
