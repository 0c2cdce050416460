"""Clearing files as bytes: name, header, trailer, digest; how one is checked and how one reaches the disk.

A file is a header of 80 characters, detail lines of one length and a trailer of 90, ASCII with CRLF after every line.
The trailer ends with the SM3 digest of all bytes before it. On disk a file is written beside its name, forced out,
renamed and only then marked complete by `NAME.ok`; whatever goes wrong before leaves nothing under its name.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from hashlib import new as new_digest
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self

from switch.clearing.layouts import LAYOUTS, LineFault, Total, Value, read_line, share_of_total
from switch.domain.calendar import SHANGHAI
from switch.domain.errors import DependencyError, InputRefused

CRLF = b"\r\n"
HEADER_LENGTH = 80
TRAILER_LENGTH = 90
NAME_LENGTH = 29
VERSION = "01"
LINES_MAX = 99_999_999  # eight digits
BUFFER_BYTES = 1 << 20


class FileStatus:
    """Field `status` of NS: what became of a file."""

    TAKEN = "00"
    DIGEST = "01"
    CONTENT = "02"  # header, count, amount
    REPEATED = "03"
    NOT_A_MEMBER = "04"


class FileRefused(InputRefused):
    """A received file breaks a rule. status: a FileStatus; line, column: where in the file, from 1, if known."""

    def __init__(self, status: str, rule: str, *, line: int | None = None, column: int | None = None) -> None:
        self.status = status
        self.rule = rule
        self.line = line
        self.column = column
        place = (
            "" if line is None else f"line {line}: " if column is None else f"line {line}, column {column}: "
        )
        super().__init__(place + rule)


class FolderError(DependencyError):
    """The clearing folder cannot be written: disk full, no right, gone. Nothing half-written is left under a file's name."""


class FileName(NamedTuple):
    """Type 2, sender 8, receiver 8, clearing date 8, sequence 3."""

    kind: str
    sender: str
    receiver: str
    day: date
    sequence: int = 1

    def __str__(self) -> str:
        return f"{self.kind}{self.sender}{self.receiver}{self.day:%Y%m%d}{self.sequence:03d}"


def parse_name(name: str) -> FileName:
    """Take a file name apart. Raises FileRefused (02)."""
    kind, sender, receiver, day, sequence = name[:2], name[2:10], name[10:18], name[18:26], name[26:]
    digits = sender + receiver + day + sequence
    if len(name) != NAME_LENGTH or kind not in LAYOUTS or not (digits.isascii() and digits.isdecimal()):
        raise FileRefused(FileStatus.CONTENT, "name must be type 2, sender 8, receiver 8, date 8, sequence 3")
    return FileName(kind, sender, receiver, _date(day), int(sequence))


def _date(digits: str) -> date:
    if digits[0] == "0":  # the calendar has such years, but they are not written with four digits again
        raise FileRefused(FileStatus.CONTENT, "clearing date is not a date")
    try:
        return datetime.strptime(digits, "%Y%m%d").replace(tzinfo=SHANGHAI).date()
    except ValueError:
        raise FileRefused(FileStatus.CONTENT, "clearing date is not a date") from None


class Head(NamedTuple):
    """What a header says. created: switch time, whole seconds. total_fen: by the layout's rule."""

    name: FileName
    created: datetime
    line_count: int
    total_fen: int

    @property
    def line_length(self) -> int:
        """Characters of a detail line without CRLF."""
        return LAYOUTS[self.name.kind].length

    def header(self) -> bytes:
        """The first line, with CRLF."""
        if not (0 <= self.line_count <= LINES_MAX and 0 <= self.total_fen < 10**15):
            raise ValueError("count or total amount does not fit into the header")
        name = self.name
        created = self.created.astimezone(SHANGHAI)
        line = (
            f"H{name.kind}{VERSION}{name.sender}{name.receiver}{name.day:%Y%m%d}{name.sequence:03d}"
            f"{created:%Y%m%d%H%M%S}{self.line_count:08d}{self.total_fen:015d}{self.line_length:04d}       "
        )
        assert len(line) == HEADER_LENGTH
        return line.encode() + CRLF

    def trailer(self, digest: str) -> bytes:
        """The last line, with CRLF. digest: SM3 of all bytes before it, as hex."""
        line = f"T{self.name.kind}{self.line_count:08d}{self.total_fen:015d}{digest.upper()}"
        assert len(line) == TRAILER_LENGTH
        return line.encode() + CRLF


def render(head: Head, lines: Iterable[str]) -> bytes:
    """A whole file in memory; for small ones. lines: without CRLF, as many as head.line_count."""
    details = [line.encode("ascii") for line in lines]
    assert len(details) == head.line_count, "the header must count the lines"
    assert all(len(line) == head.line_length for line in details)
    body = head.header() + b"".join(line + CRLF for line in details)
    return body + head.trailer(new_digest("sm3", body).hexdigest())


class Checked(NamedTuple):
    """A file that holds what its header says. sm3: over the whole file, upper-case hex."""

    head: Head
    sm3: str
    size: int


def _parse_header(line: bytes, name: FileName) -> Head:
    if len(line) != HEADER_LENGTH + 2 or line[:1] != b"H" or line[-2:] != CRLF or not line.isascii():
        raise FileRefused(FileStatus.CONTENT, "header must be H and 80 characters, then CRLF", line=1)
    text = line.decode()
    if text[3:5] != VERSION:
        raise FileRefused(FileStatus.CONTENT, "version must be 01", line=1)
    if text[1:3] + text[5:32] != str(name):
        raise FileRefused(FileStatus.CONTENT, "header and file name differ", line=1)
    numbers = text[32:73]
    if not numbers.isdecimal() or text[73:80] != " " * 7:
        raise FileRefused(FileStatus.CONTENT, "created, count, amount and length must be digits", line=1)
    try:
        created = datetime.strptime(numbers[:14], "%Y%m%d%H%M%S").replace(tzinfo=SHANGHAI)
    except ValueError:
        raise FileRefused(FileStatus.CONTENT, "created is not a time", line=1) from None
    head = Head(name, created, int(numbers[14:22]), int(numbers[22:37]))
    if int(numbers[37:41]) != head.line_length:
        raise FileRefused(FileStatus.CONTENT, "detail line length is not the type's", line=1)
    return head


def read_head(name: FileName, stream: BinaryIO) -> Head:
    """The header of a received file. Raises FileRefused (02)."""
    return _parse_header(stream.readline(HEADER_LENGTH + 3), name)


def check_file(
    name: str, stream: BinaryIO, each: Callable[[int, dict[str, Value]], None] | None = None
) -> Checked:
    """Check a received file: name and header, line length and fields, count, amount, digest, in this order.

    each: called with the line number (from 1, of the details) and the values of every detail line; what it did must be
    undone when this raises FileRefused. Memory stays flat whatever the size.
    """
    parsed = parse_name(name)
    layout = LAYOUTS[parsed.kind]
    line = stream.readline(HEADER_LENGTH + 3)
    head = _parse_header(line, parsed)
    digest = new_digest("sm3", line)
    whole = new_digest("sm3", line)
    count = total_fen = 0
    size = len(line)
    limit = max(layout.length, TRAILER_LENGTH) + 3
    while True:
        line = stream.readline(limit)
        whole.update(line)
        size += len(line)
        if line[:1] != b"D":
            break
        count += 1
        total_fen += _detail(line, count, parsed.kind, each)
        digest.update(line)
    _check_trailer(line, head, count, None if layout.total is Total.LIST_VERSION else total_fen)
    if line[26:90] != digest.hexdigest().upper().encode():
        raise FileRefused(FileStatus.DIGEST, "digest in the trailer is not the file's")
    if stream.read(1):
        raise FileRefused(FileStatus.CONTENT, "bytes after the trailer")
    return Checked(head, whole.hexdigest().upper(), size)


def _detail(line: bytes, number: int, kind: str, each: Callable[[int, dict[str, Value]], None] | None) -> int:
    layout = LAYOUTS[kind]
    if len(line) != layout.length + 2 or line[-2:] != CRLF or not line.isascii():
        column = min(len(line.rstrip(CRLF)), layout.length) + 1
        column = next((place for place, byte in enumerate(line[:column], 1) if byte > 0x7F), column)
        rule = "detail line has the wrong length" if line.isascii() else "ASCII only"
        raise FileRefused(FileStatus.CONTENT, rule, line=number + 1, column=column)
    try:
        values = read_line(layout, line[:-2].decode())
        share_fen = share_of_total(layout, values)
    except LineFault as error:
        raise FileRefused(FileStatus.CONTENT, str(error), line=number + 1, column=error.column) from None
    if values.get("line_no", number) != number:
        raise FileRefused(FileStatus.CONTENT, "line numbers must count from 1", line=number + 1, column=2)
    if each is not None:
        each(number, values)
    return share_fen


def _check_trailer(line: bytes, head: Head, count: int, total_fen: int | None) -> None:
    if len(line) != TRAILER_LENGTH + 2 or line[-2:] != CRLF or line[:3] != b"T" + head.name.kind.encode():
        raise FileRefused(
            FileStatus.CONTENT, "neither a detail line nor a trailer of 90 characters", line=count + 2
        )
    if count != head.line_count or line[3:11] != b"%08d" % count:
        raise FileRefused(
            FileStatus.CONTENT, "count differs between header, lines and trailer", line=count + 2
        )
    if (total_fen is not None and total_fen != head.total_fen) or line[11:26] != b"%015d" % head.total_fen:
        raise FileRefused(
            FileStatus.CONTENT, "total amount differs between header, lines and trailer", line=count + 2
        )


class Written(NamedTuple):
    """A file on disk. sm3: over the whole file, upper-case hex."""

    name: str
    sm3: str
    size: int


@contextlib.contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Tell what the disk refuses as FolderError."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise FolderError(
            f"cannot write {path}: {reason}. Nothing half-written was left; run the same command again when it is cured"
        ) from error


def sync_folder(folder: Path) -> None:
    """Force a folder's entries out, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class WholeFile:
    """A file on its way to its name: written beside it, forced out, renamed. As a context it removes what was not finished.

    Memory is one buffer, whatever the size. Raises FolderError when the disk refuses. buffer_bytes: less where many are made
    at once, which then do not hold their descriptors either.
    """

    def __init__(self, path: Path, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._buffer_bytes = buffer_bytes
        self._path = path
        self._temporary = path.with_name(f"{path.name}.tmp")
        self._digest = new_digest("sm3")
        self._pending: list[bytes | memoryview] = []
        self._pending_bytes = 0
        self._size = 0
        self._finished = False
        with on_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: FileIO = FileIO(self._temporary, "w", opener=_open_private)
            self._rest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._finished:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def write(self, block: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._pending.append(block)
        self._pending_bytes += len(block)
        if self._pending_bytes >= self._buffer_bytes:
            self._flush()

    def _flush(self) -> None:
        block = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        self._digest.update(block)
        self._size += len(block)
        view = memoryview(block)
        with on_disk(self._path):
            self._wake()
            while view:  # a full disk may take less than it is given before it refuses
                view = view[self._file.write(view) :]
            self._rest()

    def _rest(self) -> None:
        if self._buffer_bytes < BUFFER_BYTES:
            self._file.close()

    def _wake(self) -> None:
        if self._file.closed:
            self._file = FileIO(self._temporary, "a")

    def finish(self) -> Written:
        """Force the file out and give it its name. The name itself is forced out by `sync_folder`."""
        self._flush()
        with on_disk(self._path):
            self._wake()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._path)
            self._finished = True
        return Written(self._path.name, self._digest.hexdigest().upper(), self._size)


class FileInMaking(WholeFile):
    """A file with header and trailer on its way to its name. `add` lines, then `finish`.

    promised: SM3 that receivers were told under this name before; a file of other content does not take its place, and FolderError says so.
    """

    def __init__(
        self, folder: Path, head: Head, buffer_bytes: int = BUFFER_BYTES, *, promised: str = ""
    ) -> None:
        super().__init__(folder / str(head.name), buffer_bytes)
        self._promised = promised
        self._head = head
        self._lines = 0
        self.write(head.header())

    def add(self, line: bytes) -> None:
        """Take the next detail line, without CRLF."""
        self.add_block(line + CRLF, 1)

    def add_block(self, block: bytes | memoryview, lines: int) -> None:
        """Take many detail lines at once, each with its CRLF."""
        assert len(block) == lines * (self._head.line_length + 2), (
            f"{self._head.name}: a line of wrong length"
        )
        self._lines += lines
        self.write(block)

    def finish(self) -> Written:
        """Write the trailer, force the file out and give it its name. The name itself is forced out by `sync_folder`."""
        head = self._head
        assert self._lines == head.line_count, (
            f"{head.name}: {self._lines} lines where the day's figures say {head.line_count}"
        )
        self._flush()
        self.write(head.trailer(self._digest.hexdigest()))
        self._flush()
        if self._promised not in ("", self._digest.hexdigest().upper()):
            raise refused_beside(self._path)
        return super().finish()


def _open_private(path: str, flags: int) -> int:
    """An opener of new files that only their owner and its group may read."""
    return os.open(path, flags | os.O_TRUNC, 0o640)  # files of members hold card numbers in full


def mark_complete(folder: Path, files: Iterable[Written]) -> None:
    """Write `NAME.ok` for each, after which receivers may take it. It holds the file's SM3 and name. Idempotent."""
    for written in files:
        write_companion(folder / f"{written.name}.ok", _mark(written.name, written.sm3))
    with on_disk(folder):
        sync_folder(folder)


def _mark(name: str, sm3: str) -> bytes:
    return f"{sm3}  {name}\n".encode("ascii")


def is_marked(path: Path, sm3: str) -> bool:
    """Whether a file is marked complete, with this digest: a mark that a power cut left empty is none."""
    try:
        return path.with_name(f"{path.name}.ok").read_bytes() == _mark(path.name, sm3)
    except OSError:
        return False


def promised_digest(path: Path) -> str:
    """The SM3 that receivers were told of a file, upper-case hex; empty when it is not marked complete."""
    try:
        sm3, _, rest = path.with_name(f"{path.name}.ok").read_bytes()[:200].partition(b"  ")
    except OSError:
        return ""
    return sm3.decode("ascii") if rest == b"%s\n" % path.name.encode() and len(sm3) == 64 else ""


def refused_beside(path: Path) -> FolderError:
    """Another file was handed out under this name: after a restore to a moment before it was made, for instance."""
    return FolderError(
        f"{path} was handed out with other content, and stays. Has the database been restored to an earlier moment? "
        "Restore a later one; only if nobody has taken the files of that day, move its folder away and close it again"
    )


def write_companion(path: Path, content: bytes) -> None:
    """A small file beside a clearing file, whole or not at all. Raises FolderError when the disk refuses."""
    temporary = path.with_name(f"{path.name}.tmp")
    with on_disk(path):
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def digest_of(path: Path) -> tuple[str, int]:
    """SM3 (upper-case hex) and size of a file on disk; OSError when it cannot be read."""
    digest = new_digest("sm3")
    size = 0
    with path.open("rb") as file:
        while block := file.read(BUFFER_BYTES):
            digest.update(block)
            size += len(block)
    return digest.hexdigest().upper(), size


UNMARKED: Final = "not marked complete"


def fault_of(path: Path, sm3: str | None, size: int | None) -> str:
    """What is wrong with a file on disk, against its stored digest and size; empty when it is whole and marked complete."""
    if sm3 is None:
        return "not written yet"
    try:
        if digest_of(path) != (sm3, size):
            return "content differs from the stored digest"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return "" if is_marked(path, sm3) else UNMARKED
