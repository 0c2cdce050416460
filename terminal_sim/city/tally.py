"""What happened on the wire: how often, how it was answered, how long it took. Bounded by kinds, answers and samples."""

from collections import Counter, defaultdict
from random import Random
from time import perf_counter as now
from typing import NamedTuple

from switch.domain.transactions import AccountKind, Kind
from terminal_sim.kiosk import KioskClient
from terminal_sim.pos_answers import Answer, Request
from terminal_sim.pos_client import NoAnswerError, PosClient

SAMPLES_MAX = 20_000
NO_ANSWER = "none"
_NAMES = {
    Kind.PURCHASE: "purchase",
    Kind.BALANCE: "balance",
    Kind.VOID: "void",
    Kind.REFUND: "refund",
    Kind.REVERSAL: "reversal",
    Kind.LOAD: "load",
    Kind.LOAD_CONFIRM: "load confirm",
    Kind.UPLOAD: "offline upload",
    Kind.SETTLEMENT: "settlement",
    Kind.DETAIL_UPLOAD: "detail upload",
    Kind.BATCH_END: "batch end",
}
_BANK = f"{AccountKind.BANK:02d}"  # account type, digits 3 and 4 of field 3
_MANAGEMENT = {"001", "003", "004", "005", "006"}
ORDER = (
    "sign-on",
    "purchase",
    "bank purchase",
    "balance",
    "void",
    "refund",
    "reversal",
    "load",
    "load confirm",
    "offline upload",
    "settlement",
    "detail upload",
    "batch end",
    "other",
)


def kind_name(request: Request) -> str:
    """The row in which a request is counted."""
    if request.kind is Kind.PURCHASE and request.fields[3][2:4] == _BANK:
        return "bank purchase"  # its time is the bank's
    if isinstance(request.kind, Kind):
        return _NAMES.get(request.kind, "other")
    return "sign-on" if request.kind in _MANAGEMENT else "other"


class Latency(NamedTuple):
    """Of one kind, in milliseconds, over good lines only."""

    measured: int
    p50_ms: float
    p99_ms: float


class Tally:
    """Counts of everything the city sent, with samples of how long good lines took."""

    def __init__(self, seed: int) -> None:
        self.answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._samples: defaultdict[str, list[float]] = defaultdict(list)
        self._seen: Counter[str] = Counter()
        self._random = Random(seed)

    def add(self, kind: str, code: str, seconds: float | None) -> None:
        """One request and its end. seconds None: a bad line, not to be measured."""
        self.answers[kind][code] += 1
        if seconds is None:
            return
        self._seen[kind] += 1
        samples = self._samples[kind]
        if len(samples) < SAMPLES_MAX:
            samples.append(seconds)
            return
        place = self._random.randrange(self._seen[kind])
        if place < SAMPLES_MAX:
            samples[place] = seconds

    def count(self, kind: str, code: str | None = None) -> int:
        """How often; with a code, how often it was answered so."""
        found = self.answers.get(kind, Counter())
        return found.total() if code is None else found[code]

    @property
    def answered(self) -> int:
        """Requests that were answered at all."""
        return sum(found.total() - found[NO_ANSWER] for found in self.answers.values())

    def latency(self, kind: str) -> Latency | None:
        """None when nothing was measured."""
        samples = sorted(self._samples.get(kind, ()))
        if not samples:
            return None
        p99 = samples[min(len(samples) - 1, len(samples) * 99 // 100)]
        return Latency(self._seen[kind], samples[len(samples) // 2] * 1000, p99 * 1000)


class CountedClient(PosClient):
    """A POS whose every exchange is counted. `bad_line`: its times say nothing about the switch."""

    __slots__ = ("bad_line", "tally")

    def __init__(self, *arguments: object, tally: Tally, bad_line: bool = False, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]  # passed on as they come
        self.tally = tally
        self.bad_line = bad_line

    async def exchange(self, request: Request) -> Answer:
        """As a POS does it, with a stop-watch."""
        began = now()
        try:
            answer = await super().exchange(request)
        except NoAnswerError:
            self.tally.add(kind_name(request), NO_ANSWER, None)
            raise
        self.tally.add(kind_name(request), answer.code, None if self.bad_line else now() - began)
        return answer


class CountedKiosk(CountedClient, KioskClient):
    """A kiosk, counted likewise."""

    __slots__ = ()
