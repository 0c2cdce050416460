"""Files that come to us: checked as a whole, then taken line by line, each line once whatever happens in between.

    check     name, header, length and form of every line, count, amount, digest; addressee, date, sender. Nothing is written
    take      blocks of lines, each with its progress in one database transaction
    again     a file that was taken gives its stored receipt; one that was begun goes on where it stopped

Memory is flat: the first reading keeps a short digest of every block, and the second checks each block against it before
anything of it is committed, so a file that is changed meanwhile stops the work. `take` of a file type says what its lines
mean: depot_files.py for XF, own_cards.py for DF, foreign.py for DT, disputes/incoming.py for ER, and centre.py for what comes to an interop centre.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from psycopg.types.json import Jsonb

from switch.clearing.day_files import Connection
from switch.clearing.files import (
    HEADER_LENGTH,
    FileName,
    FileRefused,
    FileStatus,
    Head,
    check_file,
    digest_of,
    parse_name,
    read_head,
)
from switch.clearing.layouts import LAYOUTS, Value, read_line
from switch.domain.errors import InputRefused
from switch.ledger.gate import GATE, PURSE_GATE_SHARD, TAKE_SHARED
from switch.storage.sql import load

SQL: Final = load("switch.clearing", "received.sql")
BLOCK_LINES: Final = 4_096
NAME_LOCK: Final = 0x43435246  # advisory, two-part: one taker of a name at a time
MISSING_MAX: Final = 20  # sequence numbers named in a receipt
DAYS_AHEAD_MAX: Final = 1

Results = dict[str, tuple[int, int]]  # what became of lines: code to count and fen
Each = Callable[[int, dict[str, Value]], None]


class Terms(NamedTuple):
    """Who we are, and who takes files. interop_centre: who sends answers about other cities' cards; empty: nobody."""

    own_id: str
    centre_id: str
    shards: int
    actor: str
    interop_centre: str = ""


class Receipt(NamedTuple):
    """What became of a file. repeated: it had been taken, or refused, before. missing: sequence numbers before it that have not come."""

    file: str
    status: str
    reason: str
    lines: int
    total_fen: int
    results: Mapping[str, tuple[int, int]]
    business_date: date | None
    repeated: bool = False
    missing: tuple[int, ...] = ()


class Block(NamedTuple):
    """Lines that one transaction takes: the number of the first, from 1, and the values of each."""

    first_line: int
    lines: Sequence[Mapping[str, Value]]


class Progress(NamedTuple):
    """How far a file has been taken, and what became of its lines so far."""

    file_no: int
    line_count: int
    lines_done: int
    results: Results

    def after(self, lines: int, results: Mapping[str, tuple[int, int]]) -> "Progress":
        """With so many lines more."""
        merged = dict(self.results)
        for code, (count, fen) in results.items():
            before = merged.get(code, (0, 0))
            merged[code] = (before[0] + count, before[1] + fen)
        return self._replace(lines_done=self.lines_done + lines, results=merged)

    def statement(self, today: date) -> tuple[str, Mapping[str, Any]]:
        """What writes it down; with the last line the file has ended, on this day."""
        return SQL["move_on"], {
            "file_no": self.file_no,
            "lines_done": self.lines_done,
            "results": Jsonb({code: list(pair) for code, pair in sorted(self.results.items())}),
            "today": today,
        }


TakeBlock = Callable[[Progress, Block], Awaitable[Progress]]


class Kind(NamedTuple):
    """What is particular to a type of file. check: of one line's values, ValueError-free: raises FileRefused.

    take: takes a block in one transaction that also writes the progress, and returns that.
    """

    addressee: str
    sender: str  # whose files only; empty: any member's
    check: Each
    take: TakeBlock
    role: str = ""  # which members', by their role in the registry; those of this installation's own city too. Empty: any
    own_id: str = ""


class _Content(NamedTuple):
    head: Head
    sm3: bytes
    digests: Sequence[bytes]


async def take_file(
    connection: Connection,
    path: Path,
    terms: Terms,
    kind_of: Callable[[FileName], Kind],
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> Receipt:
    """Take a file, or say why not. kind_of: raises InputRefused for types that are not taken.

    connection: its own, in autocommit mode. tell: lines taken and lines in all, now and then. Raises InputRefused when nothing
    can be said about the file (its name, another run at it, unreadable); everything else ends in a receipt.
    """
    name = parse_name(path.name)
    kind = kind_of(name)
    async with _alone(connection, str(name)):
        try:
            with path.open("rb") as stream:
                return await _take(connection, path, stream, name, terms, kind, tell)
        except OSError as error:
            raise InputRefused(f"{path}: {error.strerror}") from error


@asynccontextmanager
async def _alone(connection: Connection, name: str) -> AsyncIterator[None]:
    """Hold the name's lock; it ends with the connection, so a killed run leaves nothing behind."""
    values = {"space": NAME_LOCK, "name": name}
    row = await (await connection.execute(SQL["lock_name"], values)).fetchone()
    if row is None or not row[0]:
        raise InputRefused(f"{name} is being taken by another process")
    try:
        yield
    finally:
        if not connection.closed:
            await connection.execute(SQL["unlock_name"], values)


async def _take(
    connection: Connection,
    path: Path,
    stream: BinaryIO,
    name: FileName,
    terms: Terms,
    kind: Kind,
    tell: Callable[[int, int], None],
) -> Receipt:
    try:
        content = _read_whole(name, stream, kind.check)
        await _check_papers(connection, name, kind)
    except FileRefused as refusal:
        return await _refused(connection, path, stream, name, terms, refusal)
    cursor = await connection.execute(SQL["files_of_name"], {"name": str(name)})
    taken = [row for row in await cursor.fetchall() if row[2] == FileStatus.TAKEN]
    if taken and bytes(taken[0][1]) != content.sm3:
        other = FileRefused(FileStatus.REPEATED, "a file of this name and other content was taken before")
        return await _refused(connection, path, stream, name, terms, other)
    if taken:
        file_no, _, _, _, lines, _, done, results, day = taken[0]
        before = {code: (count, fen) for code, (count, fen) in results.items()}
        if day is not None:
            receipt = Receipt(
                str(name), FileStatus.TAKEN, "", lines, content.head.total_fen, before, day, repeated=True
            )
            return receipt._replace(missing=await _missing(connection, name))
        progress = Progress(file_no, lines, done, before)
    else:
        progress = await _begin(connection, content, terms)
    while progress.lines_done < progress.line_count:
        progress = await kind.take(progress, _block(stream, content, progress.lines_done))
        tell(progress.lines_done, progress.line_count)
    if progress.line_count == 0:
        await _end_empty(connection, progress)
    cursor = await connection.execute(SQL["files_of_name"], {"name": str(name)})
    day = next(row[8] for row in await cursor.fetchall() if row[2] == FileStatus.TAKEN)
    missing = await _missing(connection, name)
    head = content.head
    return Receipt(
        str(name),
        FileStatus.TAKEN,
        "",
        head.line_count,
        head.total_fen,
        progress.results,
        day,
        missing=missing,
    )


def _read_whole(name: FileName, stream: BinaryIO, check: Each) -> _Content:
    """The first reading: everything the file says of itself holds."""
    digests: list[bytes] = []
    block = blake2b(digest_size=16)

    def each(number: int, values: dict[str, Value]) -> None:
        nonlocal block
        check(number, values)
        block.update(_bytes_of(values))
        if number % BLOCK_LINES == 0:
            digests.append(block.digest())
            block = blake2b(digest_size=16)

    checked = check_file(str(name), stream, each)
    digests.append(block.digest())
    return _Content(checked.head, bytes.fromhex(checked.sm3), digests)


def _bytes_of(values: Mapping[str, Value]) -> bytes:
    return "|".join(str(value) for value in values.values()).encode()


def _block(stream: BinaryIO, content: _Content, done: int) -> Block:
    """The block in which the next line lies, checked against the first reading, from that line on."""
    layout = LAYOUTS[content.head.name.kind]
    number = done // BLOCK_LINES
    first = number * BLOCK_LINES
    count = min(BLOCK_LINES, content.head.line_count - first)
    width = layout.length + 2
    stream.seek(HEADER_LENGTH + 2 + first * width)
    raw = stream.read(count * width)
    digest = blake2b(digest_size=16)
    lines: list[dict[str, Value]] = []
    try:
        for at in range(0, count * width, width):
            values = read_line(layout, raw[at : at + layout.length].decode("ascii"))
            digest.update(_bytes_of(values))
            lines.append(values)
    except ValueError:
        digest.update(b"changed")
    if digest.digest() != content.digests[number]:
        raise InputRefused(
            f"{content.head.name} was changed while it was being taken, behind line {done + 1}"
        )
    return Block(done + 1, lines[done - first :])


async def check_name(connection: Connection, name: FileName, addressee: str, open_date: str) -> None:
    """Addressee, sequence and date. open_date: the query for the day that is open."""
    if name.receiver != addressee:
        raise FileRefused(FileStatus.CONTENT, "the receiver in the name is not this switch", line=1)
    if name.sequence == 0:
        raise FileRefused(FileStatus.CONTENT, "sequence 000 names what came without a file", line=1)
    row = await (await connection.execute(open_date)).fetchone()
    if row is None:
        raise InputRefused("no business day covers this instant: run `cardswitch doctor`")
    if name.day > row[0] + timedelta(days=DAYS_AHEAD_MAX):
        raise FileRefused(FileStatus.CONTENT, "clearing date lies ahead", line=1)


async def _check_papers(connection: Connection, name: FileName, kind: Kind) -> None:
    """Addressee, sequence, date and sender, by what the registry says now."""
    await check_name(connection, name, kind.addressee, SQL["open_date"])
    papers = {"sender": name.sender, "role": kind.role, "own": kind.own_id}
    member = await (await connection.execute(SQL["is_member"], papers)).fetchone()
    assert member is not None
    if not (name.sender == kind.sender if kind.sender else member[0]):
        raise FileRefused(FileStatus.NOT_A_MEMBER, "the sender is not a member that sends such files")


async def _begin(connection: Connection, content: _Content, terms: Terms) -> Progress:
    head = content.head
    cursor = await connection.execute(
        SQL["add_file"],
        {
            "name": str(head.name),
            "sender": head.name.sender,
            "sm3": content.sm3,
            "line_count": head.line_count,
            "total_fen": head.total_fen,
            "actor": terms.actor,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return Progress(row[0], head.line_count, 0, {})


async def _today(connection: Connection) -> date:
    """The open day, which is not sealed before the running transaction ends."""
    await connection.execute(TAKE_SHARED, (GATE, PURSE_GATE_SHARD))
    row = await (await connection.execute(SQL["open_date"])).fetchone()
    if row is None:
        raise InputRefused("no business day covers this instant: run `cardswitch doctor`")
    today: date = row[0]
    return today


async def _end_empty(connection: Connection, progress: Progress) -> None:
    async with connection.transaction():
        await connection.execute(*progress.statement(await _today(connection)))


async def _refused(
    connection: Connection,
    path: Path,
    stream: BinaryIO,
    name: FileName,
    terms: Terms,
    refusal: FileRefused,
) -> Receipt:
    """Write down that a file was refused, and why; the same bytes refused again are the same refusal."""
    sm3 = bytes.fromhex(digest_of(path)[0])
    stream.seek(0)
    try:
        head = read_head(name, stream)
        lines, total_fen = head.line_count, head.total_fen
    except FileRefused:
        lines = total_fen = 0
    async with connection.transaction():
        today = await _today(connection)
        cursor = await connection.execute(
            SQL["add_refusal"],
            {
                "name": str(name),
                "sender": name.sender,
                "sm3": sm3,
                "line_count": lines,
                "total_fen": total_fen,
                "status": refusal.status,
                "reason": str(refusal),
                "actor": terms.actor,
                "today": today,
            },
        )
        repeated = cursor.rowcount == 0
    return Receipt(str(name), refusal.status, str(refusal), lines, total_fen, {}, today, repeated)


async def _missing(connection: Connection, name: FileName) -> tuple[int, ...]:
    cursor = await connection.execute(SQL["sequences_before"], {"name": str(name)})
    came = {row[0] for row in await cursor.fetchall()}
    return tuple(number for number in range(1, name.sequence) if number not in came)[:MISSING_MAX]
