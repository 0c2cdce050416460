"""Checking thousands of TACs at a time: what goes in and comes out are columns, not objects.

The card keys of one issuer key come out of a single cipher call, and the MACs under them of `column_ciphers` where there are
many; a few are quicker one by one. `purse.tac` is the definition, and the tests compare the two.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from switch.keys.column_ciphers import cbc_macs
from switch.keys.primitives import Algorithm, MasterKey, TacKey, block_cipher, cbc_encryptor
from switch.keys.purse import MAC_BYTES, PURCHASE_TAC_INPUT_BYTES

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
IssuerKey = Callable[[int, int, bytes], MasterKey | None]  # algorithm id, version, issuer id -> issuer DTK

COLUMNS_FROM: Final = (
    128  # MACs of one issuer key; below, some 400 calls for the whole cost more than one context each
)
_PADDED: Final = {Algorithm.TDES: 24, Algorithm.SM4: 32}  # the input with 80 00.. to whole blocks


class TacColumns(NamedTuple):
    """TACs to check, one row each, bytes as they stand in records."""

    group: Bytes  # (n, 10): algorithm id, key version, issuer id
    diversifier: Bytes  # (n, 8): the last 16 digits of the ASN
    tac_input: Bytes  # (n, 22)
    tac: Bytes  # (n, 4)

    def part(self, at: slice | NDArray[np.intp]) -> "TacColumns":
        """Some of the rows."""
        return TacColumns(*(column[at] for column in self))


def verify_tac_columns(columns: TacColumns, issuer_key: IssuerKey) -> Flags:
    """One answer per row. False also where the issuer key is missing."""
    verdicts = np.zeros(len(columns.tac), np.bool_)
    # As one opaque value per row: groups are few, and numpy finds them by sorting.
    opaque = np.ascontiguousarray(columns.group).view("V10").ravel()
    groups, members = np.unique(opaque, return_inverse=True)
    for number, group in enumerate(groups):
        name = group.tobytes()
        master = issuer_key(name[0], name[1], name[2:])
        if master is None:
            continue
        if master.kind != TacKey.kind:
            raise ValueError("TACs are checked under a DTK master only")
        places = np.flatnonzero(members == number)
        verdicts[places] = _verify_group(master, columns.part(places))
    return verdicts


def _verify_group(master: MasterKey, columns: TacColumns) -> Flags:
    algorithm = master.algorithm
    count = len(columns.tac)
    spread = np.concatenate(
        [columns.diversifier, ~columns.diversifier], axis=1
    )  # d then ~d, as derivation says
    keys = np.frombuffer(block_cipher(master).encrypt(spread.tobytes()), np.uint8).reshape(count, 16)
    if algorithm is Algorithm.TDES:
        keys = keys[:, :8] ^ keys[:, 8:]
    size = _PADDED[algorithm]
    padded = np.zeros((count, size), np.uint8)
    padded[:, :PURCHASE_TAC_INPUT_BYTES] = columns.tac_input
    padded[:, PURCHASE_TAC_INPUT_BYTES] = 0x80
    tacs = (
        cbc_macs(algorithm, keys, padded) if count >= COLUMNS_FROM else _one_by_one(algorithm, keys, padded)
    )
    # All four bytes of every row are looked at, whatever they are: no time tells how many were right.
    return np.asarray((tacs == columns.tac).all(axis=1))


def _one_by_one(algorithm: Algorithm, keys: Bytes, messages: Bytes) -> Bytes:
    """The same as `cbc_macs`, by the library."""
    start = messages.shape[1] - algorithm.block_bytes
    made = [
        cbc_encryptor(key.tobytes(), algorithm).update(message.tobytes())[start : start + MAC_BYTES]
        for key, message in zip(keys, messages, strict=True)
    ]
    return np.frombuffer(b"".join(made), np.uint8).reshape(-1, MAC_BYTES)
