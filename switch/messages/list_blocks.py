"""Signed lists for terminals, as they go out by topic: blocks of entries, and the manifest that says which are in force. Pure.

docs/lists.md shows the layout to terminal makers. Entries come packed: this module counts and frames them, and refuses to know what they
say. What is made here is the same to the last byte whoever makes it, so that a second process or a restart publishes nothing new.
"""

from binascii import crc_hqx
from collections.abc import Mapping, Sequence
from datetime import datetime
from struct import Struct
from types import MappingProxyType
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.hashes import SM3, Hash

from switch.domain.calendar import SHANGHAI

BLOCK_MAGIC: Final = b"ELB1"
MANIFEST_MAGIC: Final = b"ELM1"
BLOCK_ENTRIES_MAX: Final = 2_000
LIST_ENTRIES_MAX: Final = 1_000_000
BLOCKS_MAX: Final = 65_535
NAMED_MAX: Final = 4_096  # terminals that a manifest can name
FORMS_MAX: Final = 8  # of a version: the full list, and increments to it
SLOTS: Final = 100
DIGEST_BYTES: Final = 32

# magic, kind, mode, base, version, block number, blocks, entries, bytes of entries
_BLOCK_HEAD: Final = Struct(">4sssIIHHHI")
# magic, kind, serial, made at (BCD), key version, percent, terminals named
_MANIFEST_HEAD: Final = Struct(">4ssI7sBBH")
_TARGET_HEAD: Final = Struct(">II32sB")  # version, entries, SM3 of the list, forms
_FORM: Final = Struct(">sIHI32s")  # mode, base, blocks, entries, SM3 of the blocks' SM3s
assert (_BLOCK_HEAD.size, _MANIFEST_HEAD.size, _TARGET_HEAD.size, _FORM.size) == (24, 20, 41, 43)


class ListLayout(NamedTuple):
    """How entries of a kind look: an operation (A or D), then a key, then what the list says about it."""

    code: bytes
    topic: str
    entry_bytes: int
    key_bytes: int


LAYOUTS: Final[Mapping[str, ListLayout]] = MappingProxyType(
    {
        "HOT": ListLayout(b"H", "hot", 12, 10),  # ASN 10 | level 1
        "CITY": ListLayout(b"C", "city", 11, 9),  # what 1, value 8 | use 1
        "PARAM": ListLayout(b"P", "param", 20, 11),  # scope 1, whom 8, tag 2 | value 8
    }
)
assert all(layout.entry_bytes > 1 + layout.key_bytes for layout in LAYOUTS.values())


class Form(NamedTuple):
    """One way to get to a version: the full list (base 0), or an increment. digest: SM3 over its blocks' SM3s, in order."""

    base: int
    blocks: int
    entries: int
    digest: bytes


class Target(NamedTuple):
    """A version that a manifest puts in force. digest: SM3 over the entries of the full list, in order of their keys."""

    version: int
    entries: int
    digest: bytes
    forms: tuple[Form, ...]


class Manifest(NamedTuple):
    """What is in force. The first target is for terminals in a slot below percent and for those named; the second for all others."""

    kind: str
    serial: int
    made_at: datetime
    key_version: int
    percent: int
    named: tuple[str, ...]
    targets: tuple[Target, ...]


def slot_of(terminal_id: str) -> int:
    """Which of a hundred parts of all terminals one belongs to.

    >>> slot_of("33500001"), slot_of("33500002")
    (68, 35)
    """
    return crc_hqx(terminal_id.encode("ascii"), 0xFFFF) % SLOTS


def manifest_topic(kind: str) -> str:
    """Where the manifest of a kind is retained."""
    return f"ccs/v1/list/{LAYOUTS[kind].topic}/now"


def block_topic(kind: str, version: int, base: int, number: int) -> str:
    """Where a block is retained."""
    form = f"I{base}" if base else "F"
    return f"ccs/v1/list/{LAYOUTS[kind].topic}/{version}/{form}/{number}"


def blocks_of(entries: int) -> int:
    """How many blocks so many entries take; at least one, though it may be empty."""
    return max(1, -(-entries // BLOCK_ENTRIES_MAX))


def pack_block(kind: str, base: int, version: int, number: int, blocks: int, packed: bytes) -> bytes:
    """A block of packed entries. ValueError for what does not fit: only our own fault can cause it."""
    layout = LAYOUTS[kind]
    count, rest = divmod(len(packed), layout.entry_bytes)
    if rest or count > BLOCK_ENTRIES_MAX or not 1 <= number <= blocks <= BLOCKS_MAX:
        raise ValueError("a list block has at most 2000 whole entries, and a number within its list")
    mode = b"I" if base else b"F"
    head = _BLOCK_HEAD.pack(BLOCK_MAGIC, layout.code, mode, base, version, number, blocks, count, len(packed))
    body = head + packed
    return body + _sm3(body)


def pack_manifest(manifest: Manifest) -> bytes:
    """Everything that is signed. ValueError for what does not fit."""
    if not 1 <= len(manifest.targets) <= 2 or len(manifest.named) > NAMED_MAX:
        raise ValueError("a manifest has one or two targets, and names at most 4096 terminals")
    made_at = bytes.fromhex(f"{manifest.made_at.astimezone(SHANGHAI):%Y%m%d%H%M%S}")
    named = [terminal_id.encode("ascii") for terminal_id in sorted(manifest.named)]
    if any(len(terminal_id) != 8 for terminal_id in named) or not 0 <= manifest.percent <= SLOTS:
        raise ValueError("terminal ids have 8 characters, and percent is at most 100")
    code = LAYOUTS[manifest.kind].code
    head = _MANIFEST_HEAD.pack(
        MANIFEST_MAGIC, code, manifest.serial, made_at, manifest.key_version, manifest.percent, len(named)
    )
    return (
        head
        + b"".join(named)
        + bytes([len(manifest.targets)])
        + b"".join(map(_pack_target, manifest.targets))
    )


def _pack_target(target: Target) -> bytes:
    if len(target.forms) > FORMS_MAX or not target.forms or target.forms[0].base:
        raise ValueError("a target has at most 8 forms, the full list first")
    head = _TARGET_HEAD.pack(target.version, target.entries, target.digest, len(target.forms))
    return head + b"".join(_pack_form(form) for form in target.forms)


def _pack_form(form: Form) -> bytes:
    return _FORM.pack(b"I" if form.base else b"F", form.base, form.blocks, form.entries, form.digest)


def form_digest(block_digests: Sequence[bytes]) -> bytes:
    """What a manifest says about the blocks of a form."""
    return _sm3(b"".join(block_digests))


def _sm3(data: bytes) -> bytes:
    digest = Hash(SM3())
    digest.update(data)
    return digest.finalize()
