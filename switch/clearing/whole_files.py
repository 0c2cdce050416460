"""Files without a trailer (seals, proofs, exports) on their way to the disk: under their name only when all of them is there."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from switch.clearing.files import WholeFile, on_disk, sync_folder


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A file in making, with its name forced out at the end. Gives what writes its parts.

    Raises FolderError when the disk refuses; then, and when the block is left by any exception, nothing is left.
    """
    with WholeFile(path) as file:
        yield file.write
        file.finish()
    with on_disk(path):
        sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """A small file at once. Raises FolderError when the disk refuses."""
    with written_whole(path) as write:
        write(content)
