"""A close in a process of its own, for tests that kill it or let its disk be full.

    python -m tests.helpers.closing URL FOLDER DAY [STEP | files:N | files:half | reports:N | reports:half]

Kills itself (SIGKILL) when STEP has begun, when N files or reports have got their names, or in the middle of one. Exit 7: the folder could not be written.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

from switch.clearing import day_files, day_reports
from switch.clearing.close import CloseTerms, Progress, close_day
from switch.clearing.files import FileInMaking, FolderError, WholeFile, Written
from switch.storage.pool import connect
from tests.helpers.clearing_day import CENTRE, OWN


def die() -> None:
    """End as if the power had gone."""
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal(WholeFile):
    """Dies when enough files have got their names, or (half) when one of them is half on the disk."""

    left = -1
    half = False

    @classmethod
    def at(cls, when: str) -> None:
        """When to die: `N` or `half`."""
        cls.half = when == "half"
        cls.left = -1 if cls.half else int(when)

    def finish(self) -> Written:
        if self.half:
            self._flush()
            os.truncate(self._temporary, self._size // 2)
            die()
        written = super().finish()
        type(self).left -= 1
        if type(self).left == 0:
            die()
        return written


class MortalFile(Mortal, FileInMaking):
    """A file of the day."""


class MortalReport(Mortal):
    """A report of the day."""


def killer(at: str) -> Callable[[Progress], None]:
    """What kills at a step's beginning (`fees`) or at its end (`fees.`)."""

    def tell(progress: Progress) -> None:
        if at == progress.step + ("." if progress.finished else ""):
            die()

    return tell


def terms(url: str, folder: Path) -> CloseTerms:
    """Terms of the test city."""
    return CloseTerms(
        own_id=OWN,
        centre_id=CENTRE,
        acquirer_code="49993350",
        shards=(0, 1),
        folder=folder,
        is_workday=lambda day: day.weekday() < 5,
        lead_s=0.05,
        connect=partial(connect, url),
    )


async def run(url: str, folder: Path, day: date, at: str) -> int:
    """Close the day; the exit status."""
    if at.startswith("files:"):
        MortalFile.at(at.removeprefix("files:"))
        day_files.FileInMaking = MortalFile  # type: ignore[misc]  # the place where a file is made
    if at.startswith("reports:"):
        MortalReport.at(at.removeprefix("reports:"))
        day_reports.WholeFile = MortalReport  # type: ignore[misc]  # likewise
    async with await connect(url) as connection:
        try:
            await close_day(connection, day, terms(url, folder), f"process {os.getpid()}", killer(at))
        except FolderError as error:
            sys.stderr.write(str(error))
            return 7
    return 0


if __name__ == "__main__":
    sys.exit(
        asyncio.run(
            run(sys.argv[1], Path(sys.argv[2]), date.fromisoformat(sys.argv[3]), "".join(sys.argv[4:]))
        )
    )
