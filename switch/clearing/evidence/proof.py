"""A proof: that a transaction is among the leaves of a sealed day, as a small JSON document. Pure; the form is in docs/evidence.md.

A leaf shows a card by its first six and last four digits and ends with a commitment: SHA-256 over a salt of its own and what is not shown.
Without the salt nobody can try card numbers against it, nor guess a neighbour's leaf from the hashes in a path. A proof may be opened for somebody who
knows the card number: it then holds the salt and the rest, and the number that he brings either fits or does not.
"""

import json
import re
from collections.abc import Mapping
from datetime import date
from hashlib import sha256
from typing import Any, Final, NamedTuple, NoReturn

from switch.clearing.evidence.merkle import HASH_BYTES, PATH_MAX, leaf_hash, root_by_path
from switch.domain.errors import InputRefused
from switch.domain.identifiers import CardNumber, asn_of

FORMAT: Final = "citizen-card-proof/1"
PROOF_BYTES_MAX: Final = 1 << 20
ENTRIES_MAX: Final = 64  # leaves of one transaction: its entry and its further postings
LEAF_BYTES_MAX: Final = 4096
RECORD_BYTES: Final = 96
CARD_IN_RECORD: Final = slice(6, 16)  # the ASN, BCD
_HASH: Final = re.compile("[0-9A-F]{64}")
# What is shown to people moves no cursor and begins no line.
_LEAF: Final = re.compile(f"[\t -~]{{0,{LEAF_BYTES_MAX}}}")
_FEN: Final = re.compile("(-?[0-9]{1,19})?")

# Fields of a leaf, separated by tabs. E: a journal entry with its first posting, or a posting alone. R: an offline record.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "E": (
        *("form", "entry", "shard", "line", "business_date"),
        *("debit_code", "debit_owner", "credit_code", "credit_owner", "posted_fen"),
        *("kind", "class", "terminal_no", "batch_no", "trace", "merchant_no", "account_id", "card", "amount_fen", "effect_fen"),
        *("answer", "rrn", "auth_code", "entry_mode", "decided_at", "original_date", "original_entry", "more_bytes", "commitment"),
    ),
    "R": (
        *("form", "entry", "shard", "line", "business_date"),
        *("result", "card_no", "card", "amount_fen", "balance_fen", "credit_code", "credit_owner"),
        *("psam", "psam_serial", "record_serial", "atc", "record_kind", "happened_at", "received_at"),
        *("terminal_no", "merchant_no", "batch_no", "original_date", "original_entry", "commitment"),
    ),
}  # fmt: skip


class ProofRefused(InputRefused):
    """A document that is not a proof as this program writes them."""


class Opening(NamedTuple):
    """What the commitment of a leaf is over, without the card number. E: request and more; R: record, zeros where the card stands."""

    salt: bytes
    request: bytes = b""
    more: bytes = b""
    record: bytes = b""

    def fits(self, card: CardNumber, commitment: str) -> bool:
        """Whether this card number makes it the commitment, in hex as the leaf has it."""
        if self.record:
            record = bytearray(self.record)
            record[CARD_IN_RECORD] = bytes.fromhex(asn_of(card))
            hidden = bytes(record)
        else:
            hidden = self.request + card.reveal().encode() + b"\0" + self.more
        return sha256(self.salt + hidden).hexdigest() == commitment


class ProvenLeaf(NamedTuple):
    """One leaf with its way to the root. place: where it stands among the day's leaves, from 0."""

    place: int
    leaf: str
    path: tuple[bytes, ...]
    opening: Opening | None = None

    def fields(self) -> dict[str, str]:
        """The leaf's content by name. ProofRefused when it has another form."""
        values = self.leaf.split("\t")
        names = FIELDS.get(values[0], ())
        if len(values) != len(names):
            raise ProofRefused("leaf: neither an entry (E) nor a record (R)")
        fields = dict(zip(names, values, strict=True))
        for name in ("amount_fen", "posted_fen"):
            if not _FEN.fullmatch(fields.get(name, "")):
                raise ProofRefused(f"leaf: {name} must be a whole number")
        return fields

    def root(self, leaves: int) -> bytes:
        """The root that it leads to in a day of so many leaves."""
        return root_by_path(self.place, leaves, leaf_hash(self.leaf.encode()), self.path)


class Proof(NamedTuple):
    """A transaction of a day. seal: SM3 of the day's seal, upper-case hex."""

    institution: str
    day: date
    leaves: int
    root: bytes
    seal: str
    entries: tuple[ProvenLeaf, ...]

    def packed(self) -> bytes:
        """As a document."""
        document = {
            "format": FORMAT,
            "institution": self.institution,
            "day": self.day.isoformat(),
            "leaves": self.leaves,
            "root": self.root.hex().upper(),
            "seal": self.seal,
            "entries": [_entry(entry) for entry in self.entries],
        }
        return (json.dumps(document, indent=1) + "\n").encode()


def _entry(entry: ProvenLeaf) -> dict[str, Any]:
    document: dict[str, Any] = {
        "index": entry.place,
        "leaf": entry.leaf,
        "path": [sibling.hex().upper() for sibling in entry.path],
    }
    if entry.opening is not None:
        parts = entry.opening._asdict().items()
        document["opening"] = {name: value.hex().upper() for name, value in parts if value}
    return document


def _fail(rule: str) -> NoReturn:
    raise ProofRefused(f"proof: {rule}")


def _fields(
    document: object, what: str, names: set[str], may: frozenset[str] = frozenset()
) -> dict[str, Any]:
    if not isinstance(document, dict) or not names <= document.keys() <= names | may:
        _fail(f"{what} must have {', '.join(sorted(names))} and nothing else")
    return document


def _hash(text: object, what: str) -> bytes:
    if not isinstance(text, str) or not _HASH.fullmatch(text):
        _fail(f"{what} must be {2 * HASH_BYTES} upper-case hex digits")
    return bytes.fromhex(text)


def _number(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << PATH_MAX:
        _fail(f"{what} must be a whole number")
    return value


def read_proof(packed: bytes) -> Proof:
    """Read a proof; nothing is checked but its form. ProofRefused names the field."""
    if len(packed) > PROOF_BYTES_MAX:
        _fail(f"larger than {PROOF_BYTES_MAX >> 20} MiB")
    try:
        document = json.loads(packed)
    except (ValueError, RecursionError):
        # Without the cause: a parser's error would quote the file.
        raise ProofRefused("proof: not readable as JSON") from None
    names = {"format", "institution", "day", "leaves", "root", "seal", "entries"}
    document = _fields(document, "the document", names)
    if document["format"] != FORMAT:
        _fail(f"format must be {FORMAT}")
    if not isinstance(document["institution"], str) or not re.fullmatch("[0-9]{8}", document["institution"]):
        _fail("institution must be eight digits")
    try:
        day = date.fromisoformat(document["day"])
    except (TypeError, ValueError):
        _fail("day must be a date")
    entries = document["entries"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= ENTRIES_MAX:
        _fail(f"entries must be a list of 1 to {ENTRIES_MAX}")
    return Proof(
        document["institution"],
        day,
        _number(document["leaves"], "leaves"),
        _hash(document["root"], "root"),
        _hash(document["seal"], "seal").hex().upper(),
        tuple(_read_entry(entry) for entry in entries),
    )


def _read_entry(document: object) -> ProvenLeaf:
    entry = _fields(document, "an entry", {"index", "leaf", "path"}, frozenset({"opening"}))
    leaf, path = entry["leaf"], entry["path"]
    if not isinstance(leaf, str) or not _LEAF.fullmatch(leaf):
        _fail(f"leaf must be at most {LEAF_BYTES_MAX} characters of printable ASCII, and tabs")
    if not isinstance(path, list) or len(path) > PATH_MAX:
        _fail(f"path must be a list of at most {PATH_MAX}")
    opening = _read_opening(entry["opening"]) if "opening" in entry else None
    siblings = tuple(_hash(sibling, "path") for sibling in path)
    return ProvenLeaf(_number(entry["index"], "index"), leaf, siblings, opening)


def _read_opening(document: object) -> Opening:
    parts = _fields(document, "opening", {"salt"}, frozenset({"request", "more", "record"}))
    try:
        opening = Opening(**{name: bytes.fromhex(value) for name, value in parts.items()})
    except (TypeError, ValueError):
        _fail("opening must be hex")
    if len(opening.salt) != HASH_BYTES or len(opening.record) not in (0, RECORD_BYTES):
        _fail("opening: salt has 32 bytes, a record 96")
    return opening
