"""What operators watch, for Prometheus. Made once per process and passed on; there is no global registry.

The hot path adds to plain dictionaries, a tenth of a microsecond each; a collector turns them into metrics when they are asked for.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from time import time

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

LATENCY_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class _Histogram:
    """Counts by upper bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        place = 0
        for bound in self.bounds:
            if value <= bound:
                break
            place += 1
        self.counts[place] += 1
        self.total += value

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        buckets: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            running += count
            buckets.append((bound, running))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self.total)


class Metrics:
    """Counters of one process. Also the Watch of the reception and the LineWatch of the listener."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.answers: Counter[tuple[str, str, str]] = Counter()
        self.lines_refused: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self.mac_failures = 0
        self.lines_open = 0
        self.latency = _Histogram(LATENCY_BOUNDS_S)
        self.batch_size = _Histogram(BATCH_BOUNDS)
        self.batch_seconds = _Histogram(LATENCY_BOUNDS_S)
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._started = time()
        self.registry.register(self)

    def answered(self, mti: str, transaction: str, answer: str, seconds: float) -> None:
        """A request was answered after so many seconds."""
        self.answers[(mti, transaction, answer)] += 1
        self.latency.add(seconds)

    def mac_failed(self) -> None:
        """A MAC was wrong under every key that may be used."""
        self.mac_failures += 1

    def connected(self, count: int) -> None:
        """So many connections are open now."""
        self.lines_open = count

    def refused(self, reason: str) -> None:
        """A connection was turned away or ended by a rule."""
        self.lines_refused[reason] += 1

    def batch(self, size: int, seconds: float) -> None:
        """A batch of so many requests was settled."""
        self.batch_size.add(size)
        self.batch_seconds.add(seconds)

    def taken_in(self, results: Counter[str]) -> None:
        """Offline records were classified, so many by result."""
        self.records.update(results)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a number that somebody else keeps."""
        self.gauges[name] = (text, read)

    def text(self) -> bytes:
        """The exposition that /metrics serves."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        answers = CounterMetricFamily(
            "cardswitch_answers", "Requests answered", labels=["mti", "transaction", "answer"]
        )
        for labels, count in self.answers.items():
            answers.add_metric(labels, count)
        yield answers
        refused = CounterMetricFamily(
            "cardswitch_lines_refused", "Connections ended by a rule", labels=["reason"]
        )
        for reason, count in self.lines_refused.items():
            refused.add_metric([reason], count)
        yield refused
        records = CounterMetricFamily(
            "cardswitch_offline_records", "Offline records by result", labels=["result"]
        )
        for result, count in self.records.items():
            records.add_metric([result], count)
        yield records
        yield CounterMetricFamily(
            "cardswitch_mac_failures", "Messages with a wrong MAC", value=self.mac_failures
        )
        yield GaugeMetricFamily("cardswitch_lines_open", "Terminal connections", value=self.lines_open)
        yield GaugeMetricFamily("cardswitch_start_time_seconds", "Start of the process", value=self._started)
        yield self.latency.family("cardswitch_answer_seconds", "From a whole frame to its answer")
        yield self.batch_size.family("cardswitch_batch_size", "Requests per database transaction")
        yield self.batch_seconds.family("cardswitch_batch_seconds", "Duration of a batch")
        for name, (text, read) in self.gauges.items():
            yield GaugeMetricFamily(f"cardswitch_{name}", text, value=read())
