"""Files without a trailer (seals, proofs, exports) on their way to the disk: under their name only when all of them is there."""

import contextlib
import os
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from switch.clearing.files import on_disk, open_private, sync_folder


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A file in making: beside its name, forced out, renamed at the end. Gives what writes its parts.

    Raises FolderError when the disk refuses; then, and when the block is left by any exception, nothing is left.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with on_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(temporary, "w", opener=open_private)

    def write(part: bytes) -> None:
        view = memoryview(part)
        with on_disk(path):
            while view:  # a full disk may take less than it is given before it refuses
                view = view[file.write(view) :]

    try:
        yield write
        with on_disk(path):
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
