"""Where files of a settlement lie, and how one that another program has written gets its name."""

import os
from datetime import date
from pathlib import Path

from switch.clearing.files import Written, digest_of, on_disk


def settlement_folder(folder: Path, day: date) -> Path:
    """Where the files of a settlement date lie, below the clearing folder."""
    return folder / "settlement" / f"{day:%Y%m%d}"


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
