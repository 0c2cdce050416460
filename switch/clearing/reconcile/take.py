"""A partner's CM file on its way in: read once, checked as a whole, and either all of it counts or nothing.

    read      blocks of lines are checked and copied into a table of the file's own, which nobody looks at yet
    end       count, amount and digest agree: the table is attached and the file is written down, in one transaction
    else      the table is dropped, and the refusal is written down with its reason

A taking that is killed leaves a table that the next one drops; run again it begins anew, and there is nothing half taken. A file that was taken
gives its receipt again. The next sequence number of a date is a new generation: the next comparison takes that one.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from hashlib import new as new_digest
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from psycopg import sql
from psycopg.errors import LockNotAvailable

from switch.clearing.day_files import Connection
from switch.clearing.files import (
    CRLF,
    HEADER_LENGTH,
    TRAILER_LENGTH,
    FileName,
    FileRefused,
    FileStatus,
    Head,
    digest_of,
    parse_name,
    read_head,
)
from switch.clearing.received import MISSING_MAX, Receipt, check_name
from switch.clearing.reconcile.blocks import COLUMNS, COPY_END, COPY_HEAD, KIND, LINE_BYTES, read_block
from switch.domain.errors import InputRefused
from switch.storage.sql import load

SQL: Final = load("switch.clearing.reconcile", "take.sql")
BLOCK_LINES: Final = 8_192
_BLOCKS_AT_ONCE: Final = 64
KEPT_DAYS: Final = 45  # lines of older files are dropped; a difference itself stays
NAME_LOCK: Final = 0x5245434E  # advisory, two-part: one taker of a name at a time
TABLE_LOCK: Final = 0x5245434C  # likewise: the table of a file that is being taken
_BOMS: Final = {b"\xef\xbb\xbf": "UTF-8 with a byte order mark", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}

Tell = Callable[[int, int], None]


class TakeTerms(NamedTuple):
    """partners: whose files are taken. addressee: who takes them. actor: who runs this, for the record."""

    partners: Collection[str]
    addressee: str
    actor: str


class _Content(NamedTuple):
    head: Head
    sm3: bytes
    effect_fen: int


async def take_partner_file(
    connection: Connection, path: Path, terms: TakeTerms, tell: Tell = lambda _done, _total: None
) -> Receipt:
    """Take a file, or say why not.

    connection: its own, in autocommit mode. tell: lines read and lines in all, now and then. Raises InputRefused when nothing can be said
    about the file (its name, another run at it, unreadable); everything else ends in a receipt.
    """
    name = parse_name(path.name)
    if name.kind != KIND:
        raise InputRefused(f"{name.kind} files are not compared with our books")
    async with _alone(connection, name):
        try:
            with path.open("rb") as stream:
                try:
                    return await _take(connection, stream, name, terms, tell)
                except FileRefused as refusal:
                    return await _refused(connection, path, stream, name, terms, refusal)
        except OSError as error:
            raise InputRefused(f"{path}: {error.strerror}") from error


@contextlib.asynccontextmanager
async def _alone(connection: Connection, name: FileName) -> AsyncIterator[None]:
    """Hold the name's lock; it ends with the connection, so a killed run leaves nothing behind."""
    values = {"space": NAME_LOCK, "name": str(name)}
    row = await (await connection.execute(SQL["lock_name"], values)).fetchone()
    if row is None or not row[0]:
        raise InputRefused(f"{name} is being taken by another process")
    try:
        yield
    finally:
        if not connection.closed:
            await connection.execute(SQL["unlock_all"])


async def _take(
    connection: Connection, stream: BinaryIO, name: FileName, terms: TakeTerms, tell: Tell
) -> Receipt:
    await _check_papers(connection, name, terms)
    await _clear(connection, name)
    row = await (await connection.execute(SQL["files_of_name"], {"name": str(name)})).fetchone()
    if row is not None:
        return await _again(connection, stream, name, row, tell)
    file_no = await _make_table(connection)
    try:
        content = await _read(connection, stream, name, file_no, tell)
    except BaseException:
        if not connection.closed:
            await _drop(connection, f"partner_line_{file_no}")
        raise
    head = content.head
    async with connection.transaction():
        await connection.execute(
            SQL["add_file"],
            {
                "file_no": file_no,
                "name": str(name),
                "partner": name.sender,
                "day": name.day,
                "sequence": name.sequence,
                "sm3": content.sm3,
                "line_count": head.line_count,
                "total_fen": head.total_fen,
                "effect_fen": content.effect_fen,
                "actor": terms.actor,
            },
        )
        await _attach(connection, file_no)
    return await _receipt(connection, name, head.line_count, head.total_fen, repeated=False)


async def _check_papers(connection: Connection, name: FileName, terms: TakeTerms) -> None:
    await check_name(connection, name, terms.addressee, SQL["open_date"])
    if name.sender not in terms.partners:
        raise FileRefused(
            FileStatus.NOT_A_MEMBER, "the sender is no partner of the reconciliation (reconcile.partners)"
        )


async def _clear(connection: Connection, name: FileName) -> None:
    """Drop what a killed taking has left, and lines that are too old to be asked for."""
    for table, file_no in await (await connection.execute(SQL["loose_tables"])).fetchall():
        values = {"space": TABLE_LOCK, "key": file_no}
        row = await (await connection.execute(SQL["lock"], values)).fetchone()
        if row is not None and row[0]:  # nobody is at it
            await _drop(connection, table)
    old = await connection.execute(SQL["old_tables"], {"day": name.day, "days": KEPT_DAYS})
    for (table,) in await old.fetchall():
        # Whoever reads lines now would have to be waited for, and everybody else behind us: the next taking does it as well.
        with contextlib.suppress(LockNotAvailable):
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '1s'")
                await _drop(connection, table)


async def _drop(connection: Connection, table: str) -> None:
    await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(table)))


async def _make_table(connection: Connection, file_no: int | None = None) -> int:
    """A table for a file's lines, under a lock that says that somebody is at it. Without a number: a new one's."""
    if file_no is None:
        row = await (await connection.execute(SQL["next_file"])).fetchone()
        assert row is not None
        file_no = int(row[0])
    await connection.execute(SQL["lock"], {"space": TABLE_LOCK, "key": file_no})
    await connection.execute(SQL["make_lines"], {"file_no": file_no})
    return file_no


async def _attach(connection: Connection, file_no: int) -> None:
    table = sql.Identifier(f"partner_line_{file_no}")
    attach = sql.SQL("ALTER TABLE partner_line ATTACH PARTITION {} FOR VALUES IN ({})")
    await connection.execute(attach.format(table, sql.Literal(file_no)))
    await connection.execute(sql.SQL("ANALYZE {}").format(table))


async def _again(
    connection: Connection, stream: BinaryIO, name: FileName, row: tuple[Any, ...], tell: Tell
) -> Receipt:
    """A name that was taken before: the same content gives its receipt, and its lines again where a crash has emptied them."""
    file_no, sm3, line_count, total_fen = row
    whole = new_digest("sm3")
    while chunk := stream.read(LINE_BYTES * BLOCK_LINES):
        whole.update(chunk)
    if whole.digest() != bytes(sm3):
        raise FileRefused(FileStatus.REPEATED, "a file of this name and other content was taken before")
    found = await (await connection.execute(SQL["line_count"], {"file_no": file_no})).fetchone()
    assert found is not None
    if found[0] != line_count:
        await _drop(connection, f"partner_line_{file_no}")
        await _make_table(connection, file_no)
        stream.seek(0)
        await _read(connection, stream, name, file_no, tell)
        async with connection.transaction():
            await _attach(connection, file_no)
    return await _receipt(connection, name, line_count, total_fen, repeated=True)


async def _read(
    connection: Connection, stream: BinaryIO, name: FileName, file_no: int, tell: Tell
) -> _Content:
    """Check everything that the file says of itself, and copy its lines into their table on the way."""
    _check_coding(stream)
    head = read_head(name, stream)
    stream.seek(0)
    digest = new_digest("sm3", stream.read(HEADER_LENGTH + len(CRLF)))
    done = total_fen = effect_fen = 0
    query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        sql.Identifier(f"partner_line_{file_no}"), sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    )
    while done < head.line_count:
        # A transaction for each stretch: one that lasts for all of it would hold back whoever waits for old transactions to end.
        async with connection.cursor() as cursor, cursor.copy(query) as copy:
            await copy.write(COPY_HEAD)
            for _ in range(_BLOCKS_AT_ONCE):
                wanted = min(BLOCK_LINES, head.line_count - done)
                if not wanted:
                    break
                block = stream.read(wanted * LINE_BYTES)
                rows = read_block(_lines_of(block, wanted, done), done + 1)
                digest.update(block)
                await copy.write(rows.copy)
                done += rows.lines
                total_fen += rows.total_fen
                effect_fen += rows.effect_fen
            await copy.write(COPY_END)
        tell(done, head.line_count)
    sm3 = _check_trailer(stream, head, total_fen, digest)
    return _Content(head, sm3, effect_fen)


def _lines_of(block: bytes, wanted: int, done: int) -> bytes:
    """The block, unless the file ends before the lines that its header counts."""
    if len(block) < wanted * LINE_BYTES:
        whole = len(block) // LINE_BYTES
        for place in range(whole + 1):
            if block[place * LINE_BYTES : place * LINE_BYTES + 3] == b"T" + KIND.encode():
                raise FileRefused(
                    FileStatus.CONTENT,
                    "count differs between header, lines and trailer",
                    line=done + place + 2,
                )
        if not len(block) % LINE_BYTES:
            raise FileRefused(FileStatus.CONTENT, "the file ends before its trailer", line=done + whole + 2)
    return block


def _check_coding(stream: BinaryIO) -> None:
    """Say what is wrong with a file that a text editor or another system has saved anew."""
    begin = stream.read(4)
    stream.seek(0)
    coding = next((name for mark, name in _BOMS.items() if begin.startswith(mark)), "")
    if not coding and begin[1:2] == b"\0":
        coding = "UTF-16"
    if coding:
        raise FileRefused(
            FileStatus.CONTENT, f"the file is {coding}; it must be ASCII without a mark", line=1, column=1
        )


def _check_trailer(stream: BinaryIO, head: Head, total_fen: int, digest: Any) -> bytes:
    """The last line, and that nothing follows; SM3 over the whole file."""
    line = stream.read(TRAILER_LENGTH + len(CRLF))
    number = head.line_count + 2
    if line[:1] == b"D":
        raise FileRefused(FileStatus.CONTENT, "count differs between header, lines and trailer", line=number)
    if (
        len(line) != TRAILER_LENGTH + len(CRLF)
        or line[-2:] != CRLF
        or line[:3] != b"T" + KIND.encode()
        or line[3:11] != b"%08d" % head.line_count
    ):
        raise FileRefused(
            FileStatus.CONTENT, "neither a detail line nor a trailer of 90 characters", line=number
        )
    if total_fen != head.total_fen or line[11:26] != b"%015d" % head.total_fen:
        raise FileRefused(
            FileStatus.CONTENT, "total amount differs between header, lines and trailer", line=number
        )
    if line[26:90] != digest.hexdigest().upper().encode():
        raise FileRefused(FileStatus.DIGEST, "digest in the trailer is not the file's")
    if stream.read(1):
        raise FileRefused(FileStatus.CONTENT, "bytes after the trailer")
    digest.update(line)
    sm3: bytes = digest.digest()
    return sm3


async def _refused(
    connection: Connection,
    path: Path,
    stream: BinaryIO,
    name: FileName,
    terms: TakeTerms,
    refusal: FileRefused,
) -> Receipt:
    """Write down that a file was refused, and why; the same bytes refused again are the same refusal."""
    stream.seek(0)
    try:
        head = read_head(name, stream)
        lines, total_fen = head.line_count, head.total_fen
    except FileRefused:
        lines = total_fen = 0
    values = {
        "name": str(name),
        "partner": name.sender,
        "day": name.day,
        "sequence": name.sequence,
        "sm3": bytes.fromhex(digest_of(path)[0]),
        "line_count": lines,
        "total_fen": total_fen,
        "status": refusal.status,
        "reason": str(refusal),
        "actor": terms.actor,
    }
    cursor = await connection.execute(SQL["add_refusal"], values)
    return Receipt(
        str(name), refusal.status, str(refusal), lines, total_fen, {}, None, repeated=cursor.rowcount == 0
    )


async def _receipt(
    connection: Connection, name: FileName, lines: int, total_fen: int, *, repeated: bool
) -> Receipt:
    values = {"partner": name.sender, "day": name.day, "sequence": name.sequence}
    cursor = await connection.execute(SQL["sequences_before"], values)
    came = {row[0] for row in await cursor.fetchall()}
    missing = tuple(number for number in range(1, name.sequence) if number not in came)[:MISSING_MAX]
    return Receipt(
        str(name), FileStatus.TAKEN, "", lines, total_fen, {}, name.day, repeated=repeated, missing=missing
    )
