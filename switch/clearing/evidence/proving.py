"""Proofs out of the books, and the comparison of the books with what was sealed."""

from collections.abc import Callable
from datetime import date
from hashlib import sha256
from typing import Final, NamedTuple

from switch.clearing.evidence.leaves import (
    SQL,
    BooksChanged,
    Connection,
    DayTree,
    LeafKey,
    key_of,
    read_leaves,
    read_tree,
    reading,
)
from switch.clearing.evidence.merkle import leaf_hashes, path_of, root_of
from switch.clearing.evidence.proof import (
    CARD_IN_RECORD,
    RECORD_BYTES,
    Opening,
    Proof,
    ProvenLeaf,
)
from switch.clearing.evidence.sealing import StoredSeal, needed_seal, stored_tree
from switch.domain.errors import InputRefused

_BASE36: Final = 36
_SERIAL_DIGITS: Final = 6  # at the end of a retrieval reference
_SERIALS: Final = _BASE36**_SERIAL_DIGITS
_REFERENCE_LENGTH: Final = 12
_NUMBERS_MAX: Final = 64  # a day that spans more than 10^11 numbers is not one of ours
NUMBER_MAX: Final = (1 << 63) - 1
DIFFERENCES_MAX: Final = 20


async def find_reference(connection: Connection, day: date, rrn: str) -> list[int]:
    """Entry numbers of a day under a retrieval reference; InputRefused when there are none.

    The end of a reference is the entry's number, modulo 36^6. Only what repeats another day's reference takes reading the whole day.
    """
    if len(rrn) != _REFERENCE_LENGTH or not rrn.isascii() or not rrn.isalnum():
        raise InputRefused("rrn: must be a retrieval reference of twelve letters and digits")
    sealed = await needed_seal(connection, day)
    tree = await stored_tree(connection, day)
    found: list[int] = []
    if tree.blocks:
        first, serial = tree.blocks[0].first.entry_no, int(rrn[-_SERIAL_DIGITS:], _BASE36)
        numbers = list(range(first + (serial - first) % _SERIALS, sealed.last_entry + 1, _SERIALS))
        async with reading(connection):
            values = {"day": day, "numbers": numbers[:_NUMBERS_MAX], "rrn": rrn}
            cursor = await connection.execute(SQL["entries_of_number"], values)
            found = [row[0] for row in await cursor.fetchall()]
    if not found:
        cursor = await connection.execute(SQL["entries_of_reference"], {"day": day, "rrn": rrn})
        found = [row[0] for row in await cursor.fetchall()]
    if not found:
        raise InputRefused(f"there is nothing under that reference on business day {day}")
    return found


async def prove(
    connection: Connection, day: date, entry_no: int, *, opened: bool = False
) -> tuple[Proof, StoredSeal]:
    """The proof for an entry or record of a sealed day, with all of its postings. Reads one block of leaves, or two at their border.

    opened: with what a holder of the card number needs to check it. InputRefused: no such entry, or the day is not sealed.
    BooksChanged: the rows around it are not those that were sealed.
    """
    sealed = await needed_seal(connection, day)
    tree = await stored_tree(connection, day)
    if sealed.seal.root != tree.root or sealed.root != tree.root:
        raise BooksChanged(
            f"the stored blocks of {day} do not lead to its sealed root: run `cardswitch audit`"
        )
    first, last = _blocks_with(tree, entry_no)
    proven: list[ProvenLeaf] = []
    roots = [block.root for block in tree.blocks]
    async with reading(connection):
        openings = await _openings(connection, day, entry_no, sealed.secret) if opened else {}
        for number in range(first, last + 1):
            leaves = await _leaves_of(connection, day, sealed.secret, tree, number)
            hashes = leaf_hashes(leaves)
            if root_of(hashes) != roots[number]:
                raise BooksChanged(_where(tree, number, day))
            above = path_of(roots, number)
            start = sum(block.leaf_count for block in tree.blocks[:number])
            for place, leaf in enumerate(leaves):
                key = key_of(leaf)
                if key.entry_no == entry_no:
                    path = (*path_of(hashes, place), *above)
                    proven.append(ProvenLeaf(start + place, leaf.decode(), path, openings.get(key)))
    if not proven:
        raise InputRefused(f"business day {day} has no entry {entry_no}")
    seal = sealed.seal
    proof = Proof(seal.institution, day, sealed.leaves, sealed.root, sealed.sm3, tuple(proven))
    return proof, sealed


def _blocks_with(tree: DayTree, entry_no: int) -> tuple[int, int]:
    """First and last block in which leaves of an entry may stand."""
    last = max((n for n, block in enumerate(tree.blocks) if block.first.entry_no <= entry_no), default=-1)
    first = max((n for n, block in enumerate(tree.blocks) if block.first.entry_no < entry_no), default=0)
    return first, last


async def _leaves_of(
    connection: Connection, day: date, secret: bytes, tree: DayTree, number: int
) -> list[bytes]:
    """The leaves of one block."""
    begins = tree.blocks[number].first
    following = tree.blocks[number + 1].first if number + 1 < len(tree.blocks) else None
    last = following.entry_no if following is not None else NUMBER_MAX
    content = await read_leaves(connection, day, secret, tree.shards, begins.entry_no, last)
    leaves = content.split(b"\n") if content else []
    return [
        leaf for leaf in leaves if begins <= key_of(leaf) and (following is None or key_of(leaf) < following)
    ]


async def _openings(
    connection: Connection, day: date, entry_no: int, secret: bytes
) -> dict[LeafKey, Opening]:
    cursor = await connection.execute(SQL["openings"], {"day": day, "entry_no": entry_no})
    openings = {}
    for shard, line, digest, more, raw in await cursor.fetchall():
        salt = sha256(
            secret + entry_no.to_bytes(8, signed=True) + shard.to_bytes(2) + line.to_bytes(2)
        ).digest()
        if raw is None:
            opening = Opening(salt, bytes(digest), bytes(more or b""))
        elif len(raw) == RECORD_BYTES:
            record = bytearray(raw)
            record[CARD_IN_RECORD] = bytes(CARD_IN_RECORD.stop - CARD_IN_RECORD.start)
            opening = Opening(salt, record=bytes(record))
        else:
            continue
        openings[LeafKey(entry_no, shard, line)] = opening
    return openings


class Difference(NamedTuple):
    """A block that is not what was sealed; what it should be and what the books give."""

    number: int
    text: str


async def compare(
    connection: Connection, day: date, sealed: StoredSeal, tell: Callable[[int, int], None]
) -> list[Difference]:
    """Hash the whole day again and compare block by block; the first DIFFERENCES_MAX of what differs."""
    stored = await stored_tree(connection, day)
    found = await read_tree(connection, day, sealed.secret, tell)
    differences = [
        Difference(number, _where(stored, number, day))
        for number, (was, now) in enumerate(zip(stored.blocks, found.blocks, strict=False))
        if was != now
    ]
    if len(stored.blocks) != len(found.blocks):
        text = f"{day} had {stored.leaves:,} leaves when it was sealed, and has {found.leaves:,} now"
        differences.append(Difference(min(len(stored.blocks), len(found.blocks)), text))
    if stored.root != sealed.root or sealed.seal.root != sealed.root:
        differences.append(Difference(0, f"the stored blocks of {day} do not lead to its sealed root"))
    return differences[:DIFFERENCES_MAX]


def _where(tree: DayTree, number: int, day: date) -> str:
    begins = tree.blocks[number].first.entry_no
    ends = (
        f"before {tree.blocks[number + 1].first.entry_no}" if number + 1 < len(tree.blocks) else "to the last"
    )
    return f"rows of {day} were changed since it was sealed: among entries from {begins} {ends}"
