"""CM and MR of a day, the long files: all of them out of one pass over its charges, formatted thousands at a time.

Every line of both stands in the order in which the switch decided, so the pass needs one sort and each file takes what is its own.
Blocks are worked on in a thread while the next comes: numpy, the digest and the disk let go of the interpreter.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from switch.clearing.charges import charges, member_lines, merchant_lines
from switch.clearing.columns import Lines, Rows, number_lines
from switch.clearing.copying import Blocks, Messages, each_in_thread
from switch.clearing.files import BUFFER_BYTES, FileInMaking, Written

BUFFERS_BYTES = 64 << 20  # of all merchants' files together
BUFFER_BYTES_MIN = 4 << 10


class Wanted(NamedTuple):
    """A file to write. key: institution, or number of the merchant. open: begins it, with a buffer of so many bytes."""

    key: str | int
    open: Callable[[int], FileInMaking]


async def write_charges(
    blocks: Blocks, members: Sequence[Wanted], merchants: Sequence[Wanted], clearing_date: str
) -> tuple[list[Written], list[Written]]:
    """CM of these members and MR of these merchants, in their orders. blocks: of CHARGES, with all their rows and perhaps others."""
    buffer_bytes = max(BUFFER_BYTES_MIN, min(BUFFER_BYTES // 2, BUFFERS_BYTES // max(1, len(merchants))))
    with ExitStack() as stack:
        of_members = {str(one.key): stack.enter_context(one.open(BUFFER_BYTES)) for one in members}
        of_merchants = _Merchants(
            [int(one.key) for one in merchants],
            [stack.enter_context(one.open(buffer_bytes)) for one in merchants],
            clearing_date,
        )

        def work(messages: Messages) -> None:
            rows = charges(messages)
            for member, file in of_members.items():
                _add(file, member_lines(rows, member))
            of_merchants.take(rows)

        await each_in_thread(blocks, work)
        return [file.finish() for file in of_members.values()], [file.finish() for file in of_merchants.files]


def _add(file: FileInMaking, lines: Lines) -> None:
    if len(lines):
        file.add_block(lines.reshape(-1).data, len(lines))


class _Merchants:
    """Shares rows out among merchants' files. numbers: merchant_no of each file."""

    def __init__(self, numbers: list[int], files: list[FileInMaking], clearing_date: str) -> None:
        self.files = files
        order = np.argsort(numbers, kind="stable")
        self._numbers = np.array(numbers, np.int64)[order]
        self._place = order
        self._lines = np.zeros(len(files), np.int64)
        self._clearing_date = clearing_date

    def take(self, rows: Rows) -> None:
        """The next rows, each to its merchant's file; those of others are left out."""
        if not self.files:
            return
        merchant = rows["merchant_no"].astype(np.int64)
        at = np.minimum(np.searchsorted(self._numbers, merchant), len(self._numbers) - 1)
        here = np.flatnonzero(self._numbers[at] == merchant)
        order = here[np.argsort(at[here], kind="stable")]  # by merchant, each still in the order of the day
        if not len(order):
            return
        at = at[order]
        first = np.flatnonzero(np.diff(at, prepend=-1))
        count = np.diff(first, append=len(at))
        lines = merchant_lines(rows[order], self._clearing_date)
        number_lines(lines, np.arange(1, len(at) + 1) + np.repeat(self._lines[at[first]] - first, count))
        self._lines[at[first]] += count
        for start, length in zip(first.tolist(), count.tolist(), strict=True):
            # A copy: a file that fills slowly must not keep its block.
            self.files[self._place[at[start]]].add_block(lines[start : start + length].tobytes(), length)
