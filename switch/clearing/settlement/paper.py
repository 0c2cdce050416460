"""Files of a settlement on disk: written beside their name, forced out, renamed, and only then marked complete by `NAME.ok`."""

import contextlib
import os
from collections.abc import Iterator
from datetime import date
from hashlib import new as new_digest
from pathlib import Path
from typing import BinaryIO, Final, Self

from switch.clearing.files import FolderError, Written, digest_of, is_marked

_BUFFER_BYTES: Final = 1 << 20


def settlement_folder(folder: Path, day: date) -> Path:
    """Where the files of a settlement date lie, below the clearing folder."""
    return folder / "settlement" / f"{day:%Y%m%d}"


@contextlib.contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """What the disk refuses, as FolderError."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise FolderError(
            f"cannot write {path}: {reason}. Nothing half-written was left; run the same command again when it is cured"
        ) from error


class Paper:
    """One file on its way to its name; as a context it removes what was not finished. Memory is one buffer."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name
        self._temporary = folder / f"{name}.tmp"
        self._digest = new_digest("sm3")
        self._size = 0
        self._finished = False
        with on_disk(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = os.fdopen(os.open(self._temporary, _FLAGS, 0o640), "wb", _BUFFER_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._finished:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def write(self, block: bytes) -> None:
        """Take the next bytes."""
        self._digest.update(block)
        self._size += len(block)
        with on_disk(self._path):
            self._file.write(block)

    def finish(self) -> Written:
        """Force the file out and give it its name; the name itself is forced out by `sync_folder`."""
        with on_disk(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._path)
            self._finished = True
        return Written(self._path.name, self._digest.hexdigest().upper(), self._size)


_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC  # mode 640: account numbers stand in them in full


def adopt(folder: Path, name: str) -> Written:
    """Give `NAME.tmp`, which somebody else has written to its end, its name."""
    temporary = folder / f"{name}.tmp"
    with on_disk(folder / name):
        sm3, size = digest_of(temporary)
        handle = os.open(temporary, os.O_RDONLY)
        try:
            os.fchmod(handle, 0o640)
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(folder / name)
    return Written(name, sm3, size)


def fault_of(folder: Path, name: str, sm3: str, size: int) -> str:
    """What is wrong with a file on disk; empty when it is whole and marked complete."""
    path = folder / name
    try:
        found = digest_of(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    if found != (sm3, size):
        return "content differs from the stored digest"
    return "" if is_marked(path, sm3) else "not marked complete"
