"""Seals of closed days: every leaf made again out of the rows, the tree over them, and the document and file that say so.

Leaves, tree and document are written out here once more, from docs/evidence.md and not from the code that seals. Rows are put together in Python and hashed by
another library, a tree is folded leaf by leaf, and memory holds a few hashes and the roots of blocks.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from hashlib import new as new_digest
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from switch.domain.errors import PeerError
from switch.keys import sm2
from switch.operations.audit.disk import DiskAudit, Row
from switch.storage.sql import load

SQL: Final = load(__package__ or "", "seals.sql")
BLOCK: Final = 4096
FETCHED_AT_ONCE: Final = 5_000
TELL_EVERY: Final = 100_000
CARD_FIELD: Final = {"E": 12, "R": 2}
ROUNDED: Final = timedelta(seconds=1)  # a seal's instant is cut to whole seconds


class Day(NamedTuple):
    """A closed day with its seal; the last ones are None where it has none."""

    day: date
    own_id: str
    created_at: datetime
    finished_at: datetime | None
    outcome: dict[str, Any] | None
    secret: bytes | None
    leaf_count: int | None
    root: bytes | None
    last_entry: int | None
    shards: list[int] | None
    document: bytes | None
    sm3: bytes | None
    needed: bool


def sm3(content: bytes) -> bytes:
    """SM3 as OpenSSL has it."""
    return new_digest("sm3", content).digest()


class Fold:
    """A Merkle tree that is never there as a whole: roots of full subtrees, the largest first, by their heights."""

    def __init__(self) -> None:
        self._subtrees: list[tuple[int, bytes]] = []

    def add(self, hashed: bytes) -> None:
        """The next leaf's hash, or the root of the next block."""
        height = 0
        while self._subtrees and self._subtrees[-1][0] == height:
            hashed = sm3(b"\x01" + self._subtrees.pop()[1] + hashed)
            height += 1
        self._subtrees.append((height, hashed))

    def root(self) -> bytes:
        """Over all that came."""
        if not self._subtrees:
            return sm3(b"")
        *others, (_, made) = self._subtrees
        for _, left in reversed(others):
            made = sm3(b"\x01" + left + made)
        return made


def leaf_of(row: Row, day: date, secret: bytes) -> str:
    """A leaf's content."""
    form, entry_no, shard, line, fields, digest, extra, raw = row
    at = CARD_FIELD[form]
    pan = fields[at]
    if pan is not None:
        fields[at] = f"{pan[:6]}{'*' * max(len(pan) - 10, 0)}{pan[-4:]}"
    if form == "R":
        hidden = raw
    elif digest is None:
        hidden = b""
    else:
        hidden = b"".join(
            (digest, (pan or "").encode(), b"\x00", b"" if extra is None else sha256(extra).digest())
        )
    salt = sha256(secret + b"".join((entry_no.to_bytes(8), shard.to_bytes(2), line.to_bytes(2)))).digest()
    said = [form, str(entry_no), str(shard), str(line), day.isoformat()]
    said += ["" if field is None else field for field in fields]
    return "\t".join((*said, sha256(salt + hidden).hexdigest()))


class SealAudit(DiskAudit):
    """Compares the seals of closed days with the books and the disk."""

    table = "clearing_seal"
    sql = SQL
    binary = True

    def run(self, only: date | None) -> None:
        """Compare the seals of all closed days in the connection's snapshot, or of one of them."""
        for row in self._rows("closed_days", first=only or "-infinity", last=only or "infinity"):
            day = Day(*row)
            on_disk = self._folder / f"{day.day:%Y%m%d}" / f"{day.own_id}{day.day:%Y%m%d}.seal"
            if day.document is not None:
                self._compare(day, on_disk)
            elif day.needed or on_disk.exists():
                self._fault(str(day.day), "a seal", "none")

    def _compare(self, day: Day, on_disk: Path) -> None:
        assert day.document is not None
        key, last, shards = str(day.day), *self._blocks(day)
        blocks = self._rows("blocks", day=day.day)
        whole = Fold()
        for row in blocks:
            whole.add(bytes(row[5]))
        root, leaves = bytes(day.root or b""), day.leaf_count
        signed_by = self._document(day, root, leaves)
        document_sm3 = sm3(day.document).hex().upper()
        for what, expected, found in (
            ("leaves", sum(row[4] for row in blocks), leaves),
            ("last entry", last, day.last_entry),
            ("shards of postings", shards, day.shards),
            ("root", whole.root().hex().upper(), root.hex().upper()),
            ("SM3 of the document", document_sm3, bytes(day.sm3 or b"").hex().upper()),
        ):
            if expected != found:
                self._fault(f"{key}, {what}", expected, found)
        outcome = day.outcome or {}
        for name, said in (
            ("leaves", leaves),
            ("root", root.hex().upper()),
            ("sm3", bytes(day.sm3 or b"").hex().upper()),
            ("signed_by", signed_by),
        ):
            if outcome.get(name) != said:
                self._fault(
                    f"evidence of {key}", f"{name} {said}", outcome.get(name, "nothing"), "clearing_step"
                )
        self._disk(day, on_disk, document_sm3)

    def _blocks(self, day: Day) -> tuple[int | None, list[int]]:
        """Compare each stored block with the rows of the day; last entry of the leaves, and the shards of postings, as the rows give them.

        Each link is compared by itself, rows with blocks, blocks with the root, the root with the document, so that what was changed is named and
        not everything above it.
        """
        stored = self._rows("blocks", day=day.day)
        block, begins, count, number, last = Fold(), (0, 0, 0), 0, 0, None
        shards: set[int] = set()
        for row in self._leaves(day):
            if not count:
                begins = row[1:4]
            block.add(sm3(b"\x00" + leaf_of(row, day.day, bytes(day.secret or b"")).encode()))
            count += 1
            last = row[1]
            if row[0] == "E" and row[4][0] is not None:
                shards.add(row[2])
            if count == BLOCK:
                self._block(day, number, stored, (number, *begins, count, block.root()))
                block, count, number = Fold(), 0, number + 1
        if count:
            self._block(day, number, stored, (number, *begins, count, block.root()))
            number += 1
        for row in stored[number:]:
            self._fault(f"block {row[0]} of {day.day}", "no block", "one more", "clearing_seal_block")
        return last, sorted(shards)

    def _leaves(self, day: Day) -> Iterator[Row]:
        with self._connection.cursor(f"seal_{day.day:%Y%m%d}", binary=True) as cursor:
            cursor.itersize = FETCHED_AT_ONCE
            cursor.execute(SQL["rows"], {"day": day.day})
            for row in cursor:
                self.rows += 1
                if self.rows % TELL_EVERY == 0:
                    self._progress(f"seals: {self.rows:,} leaves")
                yield row

    def _block(self, day: Day, number: int, stored: list[Row], made: Row) -> None:
        kept = stored[number] if number < len(stored) else None
        if kept is None or (*kept[:5], bytes(kept[5])) != made:
            said = (
                "no block"
                if kept is None
                else f"block {kept[0]}: {kept[4]} leaves from entry {kept[1]}, {bytes(kept[5]).hex()[:16]}"
            )
            self._fault(
                f"block {number if kept is None else kept[0]} of {day.day}",
                f"{made[4]} leaves from entry {made[1]}, {made[5].hex()[:16]}",
                said,
                "clearing_seal_block",
            )

    def _document(self, day: Day, root: bytes, leaves: int | None) -> str:
        """Compare the document line by line with what it must say; returns who signed it, as the step notes it."""
        assert day.document is not None
        lines = day.document.decode("ascii", errors="replace").split("\n")
        before = self._rows("before", day=day.day)
        files = self._rows("files", day=day.day)
        expected = [
            "citizen-card-seal 1",
            f"institution {day.own_id}",
            f"day {day.day}",
            "",
            "tree SM3 RFC6962",
            f"leaves {leaves}",
            f"root {root.hex().upper()}",
            f"previous {before[0][0]} {bytes(before[0][1] or b'').hex().upper()}"
            if before
            else "previous none",
            f"files {len(files)}",
            *(f"file {bytes(digest or b'').hex().upper()} {size} {name}" for name, digest, size in files),
        ]
        key, signature, *rest = [*lines[len(expected) :], "", "", ""][:3]
        for number, (want, line) in enumerate(zip(expected, lines, strict=False), 1):
            if number == 4:
                self._created(day, line)
            elif line != want:
                self._fault(f"{day.day}, line {number} of the seal", want, line)
        if len(lines) != len(expected) + 3 or rest != [""]:
            self._fault(f"{day.day}, lines of the seal", len(expected) + 2, len(lines) - 1)
        return self._signature(day, key, signature)

    def _created(self, day: Day, line: str) -> None:
        """Its instant lies between the begin of the close and the end of the step that made it."""
        try:
            at = datetime.strptime(line, "created %Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            self._fault(f"{day.day}, line 4 of the seal", "created and an instant", "something else")
            return
        if at < day.created_at - ROUNDED or (day.finished_at is not None and at > day.finished_at):
            self._fault(f"{day.day}, line 4 of the seal", f"{day.created_at} to {day.finished_at}", at)

    def _signature(self, day: Day, key_line: str, signature_line: str) -> str:
        assert day.document is not None
        if (key_line, signature_line) == ("key none", "signature none"):
            return ""
        words = key_line.split(" ")
        try:
            _, name, check, public = words
            signature = bytes.fromhex(signature_line.removeprefix("signature "))
            body = day.document[: day.document.rindex(b"signature ")]
            sm2.verify(bytes.fromhex(public), body, signature)
            good = sm3(bytes.fromhex(public))[:4].hex().upper() == check
        except (ValueError, PeerError):
            good = False
        if not good:
            self._fault(f"{day.day}, signature of the seal", "that of the key in it", "something else")
            return " ".join(words[1:3])
        return f"{name} {check}"

    def _disk(self, day: Day, path: Path, digest: str) -> None:
        try:
            content = path.read_bytes()
            complete = path.with_name(f"{path.name}.ok").read_text(encoding="ascii", errors="replace")
        except OSError as error:
            self._fault(
                f"{day.day}, {path.name}", "the seal and its .ok", error.strerror or type(error).__name__
            )
            return
        if content != day.document:
            self._fault(f"{day.day}, {path.name}", "the seal as it was made", "something else")
        if complete.split() != [digest, path.name]:
            self._fault(f"{day.day}, {path.name}.ok", f"{digest} and the name", "something else")
