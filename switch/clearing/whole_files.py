"""Files without a trailer (seals, proofs, exports) on their way to the disk: under their name only when all of them is there."""

import contextlib
import os
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from switch.clearing.files import FolderError, sync_folder


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise FolderError(
            f"cannot write {path}: {reason}. Nothing half-written was left; run the same command again when it is cured"
        ) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_TRUNC, 0o640)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A file in making: beside its name, forced out, renamed at the end. Gives what writes its parts.

    Raises FolderError when the disk refuses; then, and when the block is left by any exception, nothing is left.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(temporary, "w", opener=_private)

    def write(part: bytes) -> None:
        view = memoryview(part)
        with _disk(path):
            while view:  # a full disk may take less than it is given before it refuses
                view = view[file.write(view) :]

    try:
        yield write
        with _disk(path):
            os.fsync(file.fileno())
            file.close()
            temporary.replace(path)
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """A small file at once. Raises FolderError when the disk refuses."""
    with written_whole(path) as write:
        write(content)
