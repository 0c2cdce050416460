"""The tree over a day: the Merkle tree hash of RFC 6962, section 2.1, with SM3 in the place of SHA-256. Pure.

    leaf = SM3(00 ‖ content)      node = SM3(01 ‖ left ‖ right)      nothing = SM3 of no bytes

The first byte keeps leaves and nodes apart, so that no content of a leaf can pass for a node. A tree of n leaves is split at the largest
power of two below n; built from the bottom that means: pairs are hashed, and the odd one at the end goes up as it is. Whole subtrees of
2^k leaves are therefore nodes of the tree, and a day can be hashed block by block.
"""

from collections.abc import Sequence
from typing import Final

from gmssl_pyx import sm3_hash

from switch.domain.errors import InputRefused

HASH_BYTES: Final = 32
BLOCK_LEAVES: Final = 4096  # a power of two; a proof reads one block
EMPTY_ROOT: Final[bytes] = sm3_hash(b"")
PATH_MAX: Final = 64


class PathRefused(InputRefused):
    """An audit path that cannot belong to a leaf of that index in a tree of that size."""


def leaf_hash(content: bytes) -> bytes:
    """Of a leaf's content, 32 bytes."""
    made: bytes = sm3_hash(b"\0" + content)
    return made


def leaf_hashes(contents: Sequence[bytes]) -> list[bytes]:
    """Of many leaves."""
    return [sm3_hash(b"\0" + content) for content in contents]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Of two subtrees, 32 bytes."""
    made: bytes = sm3_hash(b"\1" + left + right)
    return made


def _above(level: Sequence[bytes]) -> list[bytes]:
    """The next level: pairs hashed, an odd one at the end as it is."""
    pairs = zip(level[::2], level[1::2], strict=False)
    made = [sm3_hash(b"\1" + left + right) for left, right in pairs]
    if len(level) % 2:
        made.append(level[-1])
    return made


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Root over the hashes of leaves, or over the roots of blocks, which are all of BLOCK_LEAVES but the last."""
    if not hashes:
        return EMPTY_ROOT
    level = hashes
    while len(level) > 1:
        level = _above(level)
    return level[0]


def path_of(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Siblings on the way from one of the hashes to their root, the lowest first."""
    if not 0 <= index < len(hashes):
        raise ValueError("index must be that of one of the hashes")
    path, level = [], hashes
    while len(level) > 1:
        if (sibling := index ^ 1) < len(level):
            path.append(level[sibling])
        index //= 2
        level = _above(level)
    return path


def root_by_path(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """The root that a leaf's hash and its path lead to (RFC 9162, section 2.1.3.2). PathRefused when index, size and length do not fit.

    Left or right is not said by the path: it follows from index and size, so both are proven with the leaf.
    """
    if not 0 <= index < size:
        raise PathRefused("index must be below the number of leaves")
    at, last, made = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise PathRefused("path is longer than the tree is high")
        if at % 2 or at == last:
            made = node_hash(sibling, made)
            while at % 2 == 0 and at:
                at //= 2
                last //= 2
        else:
            made = node_hash(made, sibling)
        at //= 2
        last //= 2
    if last:
        raise PathRefused("path is shorter than the tree is high")
    return made
