"""How the day is told while it runs: bars for a person at a terminal, plain lines for everything else."""

import sys
from time import perf_counter as now
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

EVERY_S = 5.0  # plain lines of progress


class Narrator:
    """One phase at a time. Writes to standard error, so that standard output holds the summary or JSON alone."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._quiet = quiet
        self._bars = sys.stderr.isatty() and not quiet
        self._progress = Progress(
            TextColumn("{task.description:<36}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task: TaskID | None = None
        self._name = ""
        self._total = 0
        self._done = 0
        self._began = self._told = now()

    def __enter__(self) -> Self:
        if self._bars:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if self._bars:
            self._progress.stop()

    def say(self, text: str) -> None:
        """One line of the story."""
        if not self._quiet:
            self._console.print(f"  {text}" if self._name else text)

    def begin(self, name: str, total: int = 0) -> None:
        """A phase begins; total 0: of unknown length."""
        self.end()
        self._name, self._total, self._done = name, total, 0
        self._began = self._told = now()
        if self._bars:
            self._task = self._progress.add_task(name, total=total or None)

    def advance(self, by: int = 1) -> None:
        """So much of the phase is done."""
        self._done += by
        if self._task is not None:
            self._progress.advance(self._task, by)
        elif not self._quiet and now() - self._told > EVERY_S:
            self._told = now()
            of = f" of {self._total:,}" if self._total else ""
            self._console.print(f"  {self._name}: {self._done:,}{of}")

    def end(self) -> None:
        """The phase is over; in plain lines its time is told."""
        if not self._name:
            return
        if self._task is not None:
            self._progress.update(self._task, total=self._done or 1, completed=self._done or 1)
            self._progress.stop_task(self._task)
            self._task = None
        elif not self._quiet:
            count = f" {self._done:,}" if self._done else ""
            self._console.print(f"{self._name}:{count} {now() - self._began:.1f} s")
        self._name = ""
