"""A file sent again 補發: the lines of one of a closed day's files, under the next sequence number.

The file of the day stays as it is. The new one differs from it in the header's sequence and so in the digest, and is an act of the open
day, with who and why. Its digest is worked out first, then it is written down, then the file is made: a run that was killed
anywhere is ended by the next one, and no number is used up by it.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import date, datetime
from hashlib import new as new_digest
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from psycopg import AsyncConnection

from switch.clearing.files import (
    HEADER_LENGTH,
    FileInMaking,
    Head,
    Written,
    digest_of,
    is_marked,
    mark_complete,
    parse_name,
    read_head,
    sync_folder,
)
from switch.clearing.signatures import Signer, sign_files, stored_signatures
from switch.domain.errors import InputRefused
from switch.ledger.gate import GATE, PURSE_GATE_SHARD, TAKE_SHARED
from switch.storage.sql import load

SQL = load("switch.clearing", "resends.sql")
RESEND_LOCK = 0x43435253  # advisory, two-part: one at a time for a file
SEQUENCE_MAX = 999
LINES_AT_ONCE = 4_096

Connection = AsyncConnection[tuple[Any, ...]]


class Resend(NamedTuple):
    """A row of clearing_resend. sm3: upper-case hex. finished: a run that had been stopped was ended, and nothing else was done."""

    name: str
    original: str
    of_date: date
    business_date: date
    reason: str
    actor: str
    made_at: datetime
    sm3: str
    size_bytes: int
    finished: bool = False


async def read_resends(connection: Connection, day: date) -> list[Resend]:
    """Files of a day that were sent again, by name."""
    cursor = await connection.execute(SQL["resends"], {"day": day})
    return [Resend(*row) for row in await cursor.fetchall()]


async def resend(
    connection: Connection, folder: Path, name: str, reason: str, actor: str, signer: Signer | None = None
) -> Resend:
    """Make the next generation of a closed day's file; name: of the file, or of an earlier generation of it.

    connection: its own, in autocommit mode. folder: of that day. A run that was stopped before is ended instead, and no new one made.
    Raises InputRefused (no such file of a closed day, not on disk as it was written, no number left), FolderError (disk).
    """
    base = str(parse_name(name))[:-3]
    async with _alone(connection, base):
        cursor = await connection.execute(
            SQL["original"], {"name": name, "base": base, "day": parse_name(name).day}
        )
        row = await cursor.fetchone()
        if row is None:
            raise InputRefused(f"{name} is no file of a closed day, and was never sent")
        original, of_date, sm3, last = row
        made = [again for again in await read_resends(connection, of_date) if again.original == original]
        if made and not await _is_whole(connection, folder, made[-1], signed=signer is not None):
            await _write(connection, folder, made[-1], signer)
            return made[-1]._replace(finished=True)
        _check_original(folder, original, sm3)
        head = _next_head(folder / original, last + 1)
        digest, size = _digest(folder / original, head)
        values = {
            "name": str(head.name),
            "of_date": of_date,
            "original": original,
            "reason": reason,
            "actor": actor,
            "sm3": digest,
            "size_bytes": size,
        }
        async with connection.transaction():
            # Under the gate, so that the day which names it is not sealed meanwhile.
            await connection.execute(TAKE_SHARED, (GATE, PURSE_GATE_SHARD))
            cursor = await connection.execute(SQL["add_resend"], values)
            if cursor.rowcount == 0:
                raise InputRefused("no business day covers this instant: run `cardswitch doctor`")
        rows = await read_resends(connection, of_date)
        new = next(again for again in rows if again.name == str(head.name))
        await _write(connection, folder, new, signer)
        return new


async def complete_resends(
    connection: Connection, folder: Path, day: date, signer: Signer | None = None
) -> list[str]:
    """Write what is not on disk as it should be of a day's files that were sent again; returns their names.

    One that was being made when its run was killed gets its signature too, if there is a signer.
    """
    done = []
    for again in await read_resends(connection, day):
        if not await _is_whole(connection, folder, again):
            await _write(connection, folder, again, signer)
            done.append(again.name)
    return done


@asynccontextmanager
async def _alone(connection: Connection, base: str) -> AsyncIterator[None]:
    values = {"space": RESEND_LOCK, "base": base}
    row = await (await connection.execute(SQL["lock"], values)).fetchone()
    if row is None or not row[0]:
        raise InputRefused(f"{base}... is being sent again by another process")
    try:
        yield
    finally:
        if not connection.closed:
            await connection.execute(SQL["unlock"], values)


async def _is_whole(connection: Connection, folder: Path, again: Resend, *, signed: bool = False) -> bool:
    """Whether it is on disk as it was made, with its signature. signed: it must have one."""
    path = folder / again.name
    try:
        if digest_of(path)[0] != again.sm3 or not is_marked(path, again.sm3):
            return False
        signature = (await stored_signatures(connection, [again.name])).get(again.name)
        return (
            not signed if signature is None else path.with_name(f"{path.name}.sig").read_bytes() == signature
        )
    except OSError:
        return False


def _check_original(folder: Path, original: str, sm3: str) -> None:
    try:
        good = digest_of(folder / original)[0] == sm3.upper()
    except OSError:
        good = False
    if not good:
        day = parse_name(original).day
        raise InputRefused(
            f"{original} is not on disk as it was written: `cardswitch close --date {day}` writes it again"
        )


def _next_head(original: Path, sequence: int) -> Head:
    if sequence > SEQUENCE_MAX:
        raise InputRefused(f"{original.name} has been sent {SEQUENCE_MAX} times: no sequence number is left")
    name = parse_name(original.name)
    with original.open("rb") as stream:
        head = read_head(name, stream)
    return head._replace(name=name._replace(sequence=sequence))


def _blocks(stream: BinaryIO, head: Head) -> Iterator[tuple[bytes, int]]:
    """The detail lines of a file, many at a time."""
    stream.seek(HEADER_LENGTH + 2)
    left, width = head.line_count, head.line_length + 2
    while left:
        lines = min(left, LINES_AT_ONCE)
        yield stream.read(lines * width), lines
        left -= lines


def _digest(original: Path, head: Head) -> tuple[bytes, int]:
    """SM3 and size that the new file will have."""
    header = head.header()
    digest, size = new_digest("sm3", header), len(header)
    with original.open("rb") as stream:
        for block, _ in _blocks(stream, head):
            digest.update(block)
            size += len(block)
    trailer = head.trailer(digest.hexdigest())
    digest.update(trailer)
    return digest.digest(), size + len(trailer)


async def _write(connection: Connection, folder: Path, again: Resend, signer: Signer | None) -> None:
    original = folder / again.original
    (folder / f"{again.name}.ok").unlink(missing_ok=True)
    head = _next_head(original, parse_name(again.name).sequence)
    with original.open("rb") as stream, FileInMaking(folder, head) as file:
        for block, lines in _blocks(stream, head):
            file.add_block(block, lines)
        written: Written = file.finish()
    if written.sm3 != again.sm3:
        raise InputRefused(
            f"{again.original} is not on disk as it was when it was sent again: `cardswitch close --date {again.of_date}`"
        )
    sync_folder(folder)
    await sign_files(connection, folder, [written], signer)
    mark_complete(folder, [written])
