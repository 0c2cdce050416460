"""CM and MR of a day, the long files: all of a kind out of one pass over its charges, formatted thousands at a time.

Blocks are worked on in a thread while the next comes: numpy, the digest and the disk let go of the interpreter.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

from switch.clearing.charges import member_lines, member_rows, merchant_lines, merchant_rows
from switch.clearing.columns import Lines, number_lines
from switch.clearing.copying import Blocks, Messages, each_in_thread
from switch.clearing.files import FileInMaking, Written


class Wanted(NamedTuple):
    """A file to write. party: institution or merchant id; open: begins it."""

    party: str
    line_count: int
    open: Callable[[], FileInMaking]


async def write_members(blocks: Blocks, wanted: Iterable[Wanted]) -> list[Written]:
    """CM of these members. blocks: of MEMBER_ROWS. All files are open at once: there are as many as institutions."""
    with ExitStack() as stack:
        files = {one.party: stack.enter_context(one.open()) for one in wanted}

        def work(messages: Messages) -> None:
            rows = member_rows(messages)
            for member, file in files.items():
                _add(file, member_lines(rows, member))

        await each_in_thread(blocks, work)
        return [file.finish() for file in files.values()]


async def write_merchants(blocks: Blocks, wanted: Iterable[Wanted], clearing_date: str) -> list[Written]:
    """MR of these merchants, in their order. blocks: of MERCHANT_ROWS."""
    with ExitStack() as stack:
        split = _Split(wanted, stack)
        await each_in_thread(blocks, lambda messages: split.take(messages, clearing_date))
        return split.finish()


def _add(file: FileInMaking, lines: Lines) -> None:
    if len(lines):
        file.add_block(lines.reshape(-1).data, len(lines))


class _Split:
    """Cuts rows that are sorted by merchant into their files, one open at a time."""

    def __init__(self, wanted: Iterable[Wanted], stack: ExitStack) -> None:
        self._wanted: Iterator[Wanted] = iter(wanted)
        self._stack = stack
        self._now: tuple[Wanted, FileInMaking] | None = None
        self._lines = 0  # in the open file
        self._written: list[Written] = []

    def take(self, messages: Messages, clearing_date: str) -> None:
        """The next rows, which may be of several merchants."""
        rows = merchant_rows(messages)
        lines = merchant_lines(rows, clearing_date)
        at = 0
        while at < len(rows):
            one, file = self._open()
            end = min(len(rows), at + one.line_count - self._lines)
            merchant = one.party.encode()
            # They are sorted by merchant: what holds for the first and the last holds for all.
            ends = rows["merchant_id"][[at, end - 1]]
            assert (ends == merchant).all(), f"{one.party}: another merchant's"
            number_lines(lines[at:end], self._lines + 1)
            _add(file, lines[at:end])
            self._lines += end - at
            at = end

    def _open(self) -> tuple[Wanted, FileInMaking]:
        """The file that takes the next row."""
        while self._now is None or self._lines == self._now[0].line_count:
            self._close()
            one = next(self._wanted, None)
            assert one is not None, "lines of merchants without a file"
            self._now = one, self._stack.enter_context(one.open())
        return self._now

    def _close(self) -> None:
        if self._now is not None:
            self._written.append(self._now[1].finish())
            self._stack.pop_all().close()
        self._now, self._lines = None, 0

    def finish(self) -> list[Written]:
        """After the last row."""
        self._close()
        for one in self._wanted:
            self._now = one, self._stack.enter_context(one.open())
            self._close()
        return self._written
