"""Evidence of a case: a text, and a file if there is one, kept in a folder under its SM3. Rows say what lies there; nothing is ever replaced.

The file is in its place before a row names it, so a crash leaves at most a file that nobody names; the next one with the same content uses it.
"""

import os
import tempfile
from hashlib import new as new_digest
from pathlib import Path
from typing import Any, Final, NamedTuple

from switch.clearing.disputes.originals import SQL
from switch.clearing.disputes.people import one
from switch.clearing.disputes.states import OPEN, Rule, State
from switch.clearing.disputes.steps import (
    ActionRefused,
    Case,
    Connection,
    lock_case,
    note_refusal,
    row_of,
    take_stamp,
)
from switch.domain.errors import InputRefused

NOTE_MAX: Final = 2000  # characters of a text
PIECES_MAX: Final = 200  # texts and files of a case
_READ_BYTES: Final = 1 << 20

# What may be kept, by the end of its name, with the bytes that it must begin with.
TYPES: Final[dict[str, tuple[str, bytes]]] = {
    ".pdf": ("application/pdf", b"%PDF-"),
    ".png": ("image/png", b"\x89PNG\r\n\x1a\n"),
    ".jpg": ("image/jpeg", b"\xff\xd8\xff"),
    ".jpeg": ("image/jpeg", b"\xff\xd8\xff"),
    ".txt": ("text/plain", b""),
    ".csv": ("text/csv", b""),
}


class Store(NamedTuple):
    """Where files are kept, and how much of it. Of a case files_max files, each of at most file_bytes_max."""

    folder: Path
    files_max: int
    file_bytes_max: int
    total_bytes_max: int


class Kept(NamedTuple):
    """A file in the folder."""

    name: str
    media_type: str
    size_bytes: int
    sm3: bytes


def place_of(folder: Path, sm3: bytes) -> Path:
    """Where the file of a digest lies."""
    name = sm3.hex().upper()
    return folder / name[:2] / name


async def add_evidence(
    connection: Connection, case_no: int, store: Store, *, note: str, actor: str, path: Path | None = None
) -> Kept | None:
    """Add a text, and a file, to an open case. InputRefused for what cannot be kept, ActionRefused where the case takes no more."""
    actor, note = one("actor", actor), note.strip()
    if not 0 < len(note) <= NOTE_MAX or not all(line.isprintable() for line in note.splitlines()):
        raise InputRefused(f"note: 1 to {NOTE_MAX} printable characters")
    await _check_room(connection, case_no, store, None)
    kept = None if path is None else await _keep(connection, store, path)
    try:
        async with connection.transaction():
            case = await lock_case(connection, case_no)
            await _check_room(connection, case_no, store, kept, case)
            await _write(connection, case, kept, note, actor)
    except ActionRefused as refusal:
        await note_refusal(connection, case_no, None, "evidence", None, actor, refusal)
        raise
    return kept


async def _check_room(
    connection: Connection, case_no: int, store: Store, kept: Kept | None, case: Case | None = None
) -> None:
    """Whether the case takes more. Asked before a file is copied, and under the lock on the case."""
    if case is not None and case.state not in OPEN:
        raise ActionRefused(Rule.STATE, f"case: is {State(case.state)}")
    row = await row_of(connection, "count_evidence", {"case_no": case_no, "sm3": kept and kept.sm3})
    assert row is not None
    files, same, pieces = row
    if kept is not None and same:
        raise ActionRefused(Rule.STATE, "evidence: the case has this file")
    if kept is not None and files >= store.files_max:
        raise ActionRefused(Rule.STATE, f"evidence: at most {store.files_max} files for a case")
    if pieces >= PIECES_MAX:
        raise ActionRefused(Rule.STATE, f"evidence: at most {PIECES_MAX} pieces for a case")


async def _write(connection: Connection, case: Case, kept: Kept | None, note: str, actor: str) -> None:
    stamp = await take_stamp(connection)
    seq = case.events + 1
    event = {
        "case_no": case.case_no,
        "seq": seq,
        "at": stamp.now,
        "today": stamp.today,
        "what": "EVIDENCE",
        "action": None,
        "before_state": case.state,
        "after_state": case.state,
        "amount_fen": None,
        "reason": "",
        "note": "",
        "actor": actor,
        "checker": "",
        "entry_no": None,
    }
    await connection.execute(SQL["add_event"], event)
    row: dict[str, Any] = {"case_no": case.case_no, "seq": seq, "note": note}
    empty = {"name": "", "media_type": "", "size_bytes": None, "sm3": None}
    await connection.execute(SQL["add_evidence"], row | (empty if kept is None else kept._asdict()))
    await connection.execute(SQL["count_event"], {"case_no": case.case_no, "seq": seq})


async def _keep(connection: Connection, store: Store, path: Path) -> Kept:
    """Copy a file into the folder under its digest; what is there already is left as it is."""
    media_type, begins = TYPES.get(path.suffix.lower(), ("", b""))
    if not media_type:
        raise InputRefused(f"{path.name}: one of {', '.join(TYPES)}")
    if len(path.name) > 255 or not path.name.isprintable():
        raise InputRefused("evidence: a name of at most 255 printable characters")
    row = await row_of(connection, "evidence_bytes", {})
    assert row is not None
    room = min(store.file_bytes_max, store.total_bytes_max - row[0])
    try:
        return _copy(store.folder, path, media_type, begins, room)
    except OSError as error:
        raise InputRefused(f"{error.filename or path}: {error.strerror}") from error


def _copy(folder: Path, path: Path, media_type: str, begins: bytes, room: int) -> Kept:
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    digest, size = new_digest("sm3"), 0
    with path.open("rb") as source, tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp") as copy:
        while block := source.read(_READ_BYTES):
            if not size and not block.startswith(begins):
                raise InputRefused(f"{path.name}: does not begin like {media_type}")
            size += len(block)
            if size > room:
                raise InputRefused(
                    f"{path.name}: more than {max(room, 0)} bytes, which is what may still be kept"
                )
            digest.update(block)
            copy.write(block)
        if not size:
            raise InputRefused(f"{path.name}: is empty")
        place = place_of(folder, digest.digest())
        if not place.exists():
            copy.flush()
            os.fsync(copy.fileno())
            place.parent.mkdir(exist_ok=True, mode=0o750)
            _name(Path(copy.name), place)
    return Kept(path.name, media_type, size, digest.digest())


def _name(copy: Path, place: Path) -> None:
    """Give the copy its name for good; who comes second finds the same content there."""
    try:
        os.link(copy, place)
    except FileExistsError:
        return
    handle = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_file(folder: Path, sm3: bytes, size_bytes: int) -> str:
    """What is wrong with a kept file; empty when it is as it was."""
    place = place_of(folder, sm3)
    digest, size = new_digest("sm3"), 0
    try:
        with place.open("rb") as stream:
            while block := stream.read(_READ_BYTES):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return "" if (digest.digest(), size) == (sm3, size_bytes) else "changed"
