"""Load that survives bad days: tills that buy without end, send what was not answered again, and remember every answer.

A till takes any of its lines; when one breaks it goes on with the next, and sends the very same request until somebody answers it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random

from switch.messages.codec import decode
from terminal_sim.frames import CardData
from terminal_sim.pos_answers import Request, UnusableAnswerError
from terminal_sim.pos_client import Line
from tests.helpers.till import LineClosedError, Till

RECOVER_S = 300.0  # how long a till tries before the test has failed
TRY_S = 5.0  # a switch that cannot say what became of a request says nothing
PAUSE_S = 0.05
AGAIN = frozenset({"96"})  # said when nothing is known to have happened


class Load:
    """Tills at work until told to stop. `lines` may be changed while they work: it is asked before each try."""

    def __init__(
        self,
        tills: Sequence[Till],
        cards: Sequence[CardData],
        lines: Callable[[], Sequence[Line]],
        seed: int,
        *,
        try_s: float = TRY_S,
    ) -> None:
        self.tills = tills
        self.cards = cards
        self.lines = lines
        self._try_s = try_s
        self.broken = 0  # tries that found no answer
        self.malfunctions = 0
        self.answered = 0
        self._random = Random(seed)
        self._stop = asyncio.Event()
        self._progress = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Load":
        for till in self.tills:
            if till.pos.must_sign_on:
                await till.sign_on(self.lines()[0])
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        assert self._task is not None
        if kind is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        else:
            await self._task

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number, till in enumerate(self.tills):
                group.create_task(self._work(till, number))

    async def _work(self, till: Till, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            turn += 1
            card = self._random.choice(self.cards)
            purchase = till.pos.purchase(card, self._random.randrange(1, 500))
            await self.insist(till, purchase, turn)
            if self._random.random() < 0.1:
                await self.insist(till, till.pos.reversal(purchase, "06"), turn + 1)

    async def insist(self, till: Till, request: Request, turn: int = 0) -> str:
        """Send a request until it is answered; field 39. Whatever was told is remembered."""
        async with asyncio.timeout(RECOVER_S):
            while True:
                lines = self.lines()
                line = lines[turn % len(lines)]
                turn += 1
                try:
                    async with asyncio.timeout(self._try_s):
                        code = await self._try(till, request, line)
                except (LineClosedError, OSError):  # TimeoutError is one
                    till.break_off()
                    self.broken += 1
                    await asyncio.sleep(PAUSE_S)
                    continue
                if code in AGAIN:
                    self.malfunctions += 1
                    await asyncio.sleep(PAUSE_S)
                    continue
                self.answered += 1
                async with self._progress:
                    self._progress.notify_all()
                return code

    @staticmethod
    async def _try(till: Till, request: Request, line: Line) -> str:
        body = await (await till.wire(line)).ask(till.pos.pack(request))
        try:
            answer = till.pos.take(request, body)
        except UnusableAnswerError:
            if (
                decode(body).fields.get(39) in AGAIN
            ):  # a switch without its database may be without our keys too
                return "96"
            raise
        if answer.code not in AGAIN:
            till.seen.note(till.terminal, request, answer.message)
        till.pos.batch.receipts.clear()  # a till of this load never settles
        return answer.code

    async def more(self, count: int) -> None:
        """Wait until so many more requests have been answered."""
        goal = self.answered + count
        async with asyncio.timeout(RECOVER_S), self._progress:
            await self._progress.wait_for(lambda: self.answered >= goal or self.failed)
        assert not self.failed, self._task

    @property
    def failed(self) -> bool:
        """Whether a till has given up."""
        return self._task is not None and self._task.done()
