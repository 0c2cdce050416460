"""Blocks of the hot list 黑名單 in field 62 (60.3 = 390): packing, reading, and applying them to a list. Pure.

A full list (F) replaces what is held; an increment (I) applies only to the version it is based on, otherwise the full list
is fetched. docs/iso8583.md shows the layout. An entry names a card by its application serial number, so entries mask it.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from switch.domain.errors import FormatError
from switch.domain.identifiers import mask_asn
from switch.messages.spec import total
from switch.messages.structures import HOT_LIST_ANSWER, HOT_LIST_ENTRIES_MAX, HOT_LIST_ENTRY_BYTES

ADD, DELETE = "A", "D"
FULL, INCREMENT = "F", "I"
LEVEL_MAX: Final = 1  # 00 refuse, 01 lock the purse application
_HEAD_BYTES: Final = total(HOT_LIST_ANSWER)


class HotListEntry(NamedTuple):
    """One change of the list. asn: 20 digits."""

    operation: str
    asn: str
    level: int

    def __repr__(self) -> str:
        return f"HotListEntry({self.operation}, {mask_asn(self.asn)}, {self.level})"


class HotListBlock(NamedTuple):
    """One block of a download. base: the version an increment starts from, 0 for a full list; block_no from 1."""

    more: bool
    mode: str
    base: int
    version: int
    block_no: int
    entries: tuple[HotListEntry, ...]


def pack_block(block: HotListBlock) -> bytes:
    """The content of field 62. ValueError for numbers that do not fit: only our own fault can cause it."""
    packed = b"".join(
        entry.operation.encode() + bytes.fromhex(entry.asn) + bytes((entry.level,)) for entry in block.entries
    )
    return pack_packed_block(
        packed,
        more=block.more,
        mode=block.mode,
        base=block.base,
        version=block.version,
        block_no=block.block_no,
    )


def pack_packed_block(
    packed: bytes, *, more: bool, mode: str, base: int, version: int, block_no: int
) -> bytes:
    """The same, of entries that are packed already, 12 bytes each."""
    count, rest = divmod(len(packed), HOT_LIST_ENTRY_BYTES)
    numbers = f"{base:08d}{version:08d}{block_no:04d}{count:03d}"
    if rest or count > HOT_LIST_ENTRIES_MAX or len(numbers) != _HEAD_BYTES - 2:
        raise ValueError("a hot list block has at most 40 entries and versions of 8 digits")
    return f"{int(more)}{mode}{numbers}".encode() + packed


def read_block(raw: bytes) -> HotListBlock:
    """Read the content of field 62; FormatError names the rule."""
    head = raw[:_HEAD_BYTES].decode("ascii", errors="replace")
    if len(head) != _HEAD_BYTES or not (head[2:].isascii() and head[2:].isdecimal()):
        raise FormatError("head of the hot list block cannot be read", field="62")
    if head[0] not in "01" or head[1] not in (FULL, INCREMENT):
        raise FormatError("more flag or list mode is unknown", field="62")
    count = int(head[22:])
    if count > HOT_LIST_ENTRIES_MAX or len(raw) != _HEAD_BYTES + count * HOT_LIST_ENTRY_BYTES:
        raise FormatError("length does not follow from the number of entries", field="62")
    entries = tuple(
        _read_entry(raw[start : start + HOT_LIST_ENTRY_BYTES])
        for start in range(_HEAD_BYTES, len(raw), HOT_LIST_ENTRY_BYTES)
    )
    return HotListBlock(head[0] == "1", head[1], int(head[2:10]), int(head[10:18]), int(head[18:22]), entries)


def _read_entry(raw: bytes) -> HotListEntry:
    operation, asn, level = raw[:1].decode("latin-1"), raw[1:11].hex(), raw[11]
    if operation not in (ADD, DELETE) or not asn.isdecimal() or level > LEVEL_MAX:
        raise FormatError("hot list entry cannot be read", field="62")
    return HotListEntry(operation, asn, level)


def applies(block: HotListBlock, held_version: int) -> bool:
    """Whether a block may be applied by who holds that version; if not, the full list must be fetched."""
    return block.mode == FULL or block.base == held_version


def apply_blocks(held: Mapping[str, int], blocks: Sequence[HotListBlock]) -> dict[str, int]:
    """The list (ASN to level) after all blocks of one download, in order. The first block of a full list empties it."""
    listed = {} if blocks and blocks[0].mode == FULL else dict(held)
    for block in blocks:
        for entry in block.entries:
            if entry.operation == ADD:
                listed[entry.asn] = entry.level
            else:
                listed.pop(entry.asn, None)
    return listed
