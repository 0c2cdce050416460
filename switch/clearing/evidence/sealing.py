"""Sealing a day: its tree, its files and the seal before it become one signed document, once.

What cannot be made again is stored by the run that made it: the secret when the day's close begins, with its instant, so that a database that is restored into
the middle of a close makes the same tree; then, in one transaction, the tree and the signature. Every later run writes the file out of the row. A day of a
vault without a key for it is sealed and not signed, and says so. There is never a second seal of a day: one that lies on disk already, signed and saying the
same, is taken over.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import structlog

from switch.clearing.evidence.leaves import SQL, Block, Connection, DayTree, LeafKey, read_tree
from switch.clearing.evidence.seal_file import (
    Before,
    Seal,
    SealedFile,
    SealKey,
    SealRefused,
    digest_of_seal,
    read_seal,
    seal_name,
)
from switch.clearing.files import Written, digest_of, is_marked, mark_complete, refused_beside
from switch.clearing.whole_files import write_whole
from switch.domain.errors import InputRefused
from switch.keys.records import KeyState
from switch.keys.vault import Vault
from switch.storage.pool import end_tasks

SECRET_BYTES: Final = 32
log = structlog.get_logger(__name__)


class SealSigner(NamedTuple):
    """The key that signs days: the active one of its type in the vault."""

    vault: Vault

    def key(self) -> SealKey | None:
        """The key; None when there is no active one."""
        for record in self.vault.records():
            if record.key_type == "ESK" and record.state is KeyState.ACTIVE:
                return SealKey(record.name, self.vault.public_key(record.name))
        return None

    def signed(self, seal: Seal) -> Seal:
        """The seal with key and signature, or as it is where there is no key."""
        key = self.key()
        if key is None:
            return seal
        named = seal._replace(key=key)
        return named._replace(signature=self.vault.sign(key.name, named.signed_part()))


class StoredSeal(NamedTuple):
    """The row of a sealed day. last_entry: 0 of a day with nothing; document: the bytes of its file."""

    secret: bytes
    leaves: int
    root: bytes
    last_entry: int
    shards: tuple[int, ...]
    document: bytes
    sm3: str

    @property
    def seal(self) -> Seal:
        """What the document says."""
        return read_seal(self.document)


async def stored_seal(connection: Connection, day: date) -> StoredSeal | None:
    """The seal of a day; None when it has none."""
    cursor = await connection.execute(SQL["seal"], {"day": day})
    row = await cursor.fetchone()
    if row is None or row[6] is None:
        return None
    secret, leaves, root, last_entry, shards, document, sm3 = row
    return StoredSeal(
        *(bytes(secret), leaves, bytes(root), last_entry or 0, tuple(shards)),
        bytes(document),
        sm3.hex().upper(),
    )


async def needed_seal(connection: Connection, day: date) -> StoredSeal:
    """The seal of a day; InputRefused when it has none."""
    found = await stored_seal(connection, day)
    if found is None:
        raise InputRefused(
            f"business day {day} is not sealed: it is not closed, or was before there were seals"
        )
    return found


async def stored_tree(connection: Connection, day: date) -> DayTree:
    """The blocks of a sealed day."""
    cursor = await connection.execute(SQL["blocks"], {"day": day})
    blocks = tuple([Block(LeafKey(*row[:3]), row[3], bytes(row[4])) for row in await cursor.fetchall()])
    sealed = await needed_seal(connection, day)
    return DayTree(blocks, sealed.last_entry or None, sealed.shards)


class TreeAhead:
    """A day's tree, read on a connection of its own while the day's files are written: nothing that is in it changes any more.

    One processor of two would otherwise wait, first while the files are written and then while leaves are hashed.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], day: date) -> None:
        self._day = day
        self._reading = asyncio.create_task(self._read(connect))
        self._tell: Callable[[int, int], None] = lambda _done, _total: None

    async def _read(self, connect: Callable[[], Awaitable[Connection]]) -> DayTree:
        async with await connect() as connection:
            await connection.execute("SET work_mem = '128MB'")  # a range is sorted in memory
            await connection.execute("SET max_parallel_workers_per_gather = 0")
            return await _tree(connection, self._day, lambda done, total: self._tell(done, total))

    async def tree(self, connection: Connection, tell: Callable[[int, int], None]) -> DayTree:
        """The tree, when it is read; where its own connection was refused or lost, it is read on this one."""
        self._tell = tell
        try:
            return await self._reading
        except psycopg.Error as error:
            log.warning(
                "the tree of a day is read after its files", day=str(self._day), error=type(error).__name__
            )
            return await _tree(connection, self._day, tell)

    async def end(self) -> None:
        """Stop reading, if somebody still does. Whatever became of it is nobody's business now."""
        await end_tasks(self._reading)
        if not self._reading.cancelled():
            self._reading.exception()


async def draw_secret(connection: Connection, day: date) -> None:
    """Draw the secret of a day, once."""
    await connection.execute(SQL["begin_seal"], {"day": day, "secret": secrets.token_bytes(SECRET_BYTES)})


async def seal_day_and_files(
    connection: Connection,
    day: date,
    institution: str,
    folder: Path,
    signer: SealSigner | None,
    tell: Callable[[int, int], None],
    ahead: TreeAhead | None = None,
) -> dict[str, Any]:
    """Seal a day whose files are all written, unless it is sealed, and write the `.seal` file. Idempotent; returns figures.

    connection: in autocommit mode and not in a transaction. ahead: reads the tree already; None: it is read now. Raises FolderError when
    the disk refuses.
    """
    found = await stored_seal(connection, day)
    if found is None:
        await draw_secret(connection, day)
        tree = await (_tree(connection, day, tell) if ahead is None else ahead.tree(connection, tell))
        await _make_seal(connection, day, institution, folder, signer, tree)
        found = await needed_seal(connection, day)
    await write_seal(connection, day, folder)
    seal = found.seal
    return {
        "leaves": found.leaves,
        "root": found.root.hex().upper(),
        "sm3": found.sm3,
        "signed_by": "" if seal.key is None else f"{seal.key.name} {seal.key.kcv}",
    }


async def _tree(connection: Connection, day: date, tell: Callable[[int, int], None]) -> DayTree:
    cursor = await connection.execute(SQL["seal"], {"day": day})
    row = await cursor.fetchone()
    assert row is not None, "the secret is drawn when the close begins"
    return await read_tree(connection, day, bytes(row[0]), tell)


async def _make_seal(
    connection: Connection,
    day: date,
    institution: str,
    folder: Path,
    signer: SealSigner | None,
    tree: DayTree,
) -> None:
    async with connection.transaction():
        cursor = await connection.execute(SQL["before"], {"day": day})
        last = await cursor.fetchone()
        cursor = await connection.execute(SQL["files"], {"day": day})
        files = tuple([SealedFile(name, sm3.upper(), size) for name, sm3, size in await cursor.fetchall()])
        cursor = await connection.execute(
            "SELECT created_at FROM clearing_day WHERE business_date = %s", (day,)
        )
        now = await cursor.fetchone()
        assert now is not None
        before = None if last is None else Before(last[0], last[1].upper())
        seal = Seal(institution, day, now[0], tree.leaves, tree.root, before, files)
        if signer is not None:
            seal = signer.signed(seal)
        document = (_made_before(folder, seal) or seal).packed()
        seal = read_seal(document)
        blocks = tree.blocks
        await connection.execute(
            SQL["add_blocks"],
            {
                "day": day,
                "entry_nos": [block.first.entry_no for block in blocks],
                "shards": [block.first.shard for block in blocks],
                "lines": [block.first.line for block in blocks],
                "leaf_counts": [block.leaf_count for block in blocks],
                "roots": [block.root for block in blocks],
            },
        )
        await connection.execute(
            SQL["finish_seal"],
            {
                "day": day,
                "leaves": tree.leaves,
                "root": tree.root,
                "last_entry": tree.last_entry,
                "shards": list(tree.shards),
                "document": document,
                "sm3": bytes.fromhex(digest_of_seal(document)),
            },
        )


def _made_before(folder: Path, seal: Seal) -> Seal | None:
    """A seal on disk that differs from this one in its signature alone, which holds: it was made before the database was restored.

    Raises FolderError when one lies there that is signed and says something else: a day has one seal.
    """
    path = folder / seal_name(seal.institution, seal.day)
    try:
        found = read_seal(path.read_bytes())
        found.check_signature()
    except (OSError, SealRefused):
        return None
    if found._replace(signature=seal.signature) != seal:
        raise refused_beside(path)
    return found


async def write_seal(connection: Connection, day: date, folder: Path) -> list[str]:
    """Write the seal of a day, if it has one, where it is not on disk as it was made; returns the names written."""
    found = await stored_seal(connection, day)
    if found is None:
        return []
    path = folder / seal_name(found.seal.institution, day)
    written = Written(path.name, found.sm3, len(found.document))
    if _on_disk(path) != (written.sm3, written.size):
        write_whole(path, found.document)
        mark_complete(folder, [written])
        return [path.name]
    if not is_marked(path, written.sm3):
        mark_complete(folder, [written])
    return []


def _on_disk(path: Path) -> tuple[str, int]:
    try:
        return digest_of(path)
    except OSError:
        return "", 0
