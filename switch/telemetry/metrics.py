"""What operators watch, for Prometheus. Made once per process and passed on; there is no global registry.

The hot path adds to plain dictionaries, a tenth of a microsecond each; a collector turns them into metrics when they are asked for.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from time import time
from typing import Protocol

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
        return HistogramMetricFamily(name, text, buckets=self.buckets(), sum_value=self.total)

    def buckets(self) -> list[tuple[str, float]]:
        buckets: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            running += count
            buckets.append((bound, running))
        return buckets


class Rollout(Protocol):
    """What is shown of a list that is being rolled out."""

    @property
    def kind(self) -> str:
        """HOT, CITY or PARAM."""

    @property
    def version(self) -> int:
        """The newest."""

    @property
    def percent(self) -> int:
        """Of the terminals that it is offered to, beside those of groups."""

    @property
    def reached(self) -> int:
        """Terminals that it is offered to."""

    @property
    def held(self) -> int:
        """Of these, those that have it."""

    @property
    def refused(self) -> int:
        """Terminals that refused it."""

    @property
    def silent(self) -> int:
        """Terminals that fetched it and were not heard since."""

    @property
    def state(self) -> str:
        """RUNNING, STOPPED, COMPLETE or SUPERSEDED."""


class Closing(Protocol):
    """What is shown of the closing of days."""

    @property
    def day(self) -> date | None:
        """The day that is being closed."""

    @property
    def step(self) -> str:
        """The step of it that runs, or ran last."""

    @property
    def days_overdue(self) -> int:
        """Days that should have been closed."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """By step, of the last close."""

    @property
    def failures(self) -> Mapping[str, int]:
        """By the step at which a close ended."""


def _age_s(since: datetime | None) -> float:
    return max(0.0, time() - since.timestamp()) if since is not None else 0.0


class Metrics:
    """Counters of one process. Also what rooms declare: Watch, LineWatch, HostsWatch, CompletenessWatch."""

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
        self.loop_late = _Histogram(LATENCY_BOUNDS_S)
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self.load_steps: Counter[tuple[str, str, str]] = Counter()
        self.suspense = 0
        self.suspense_since: datetime | None = None
        self.host_ends: Counter[tuple[str, str]] = Counter()
        self.host_seconds: defaultdict[str, _Histogram] = defaultdict(lambda: _Histogram(LATENCY_BOUNDS_S))
        self.host_oddities: Counter[tuple[str, str]] = Counter()
        self.host_lines_lost: Counter[tuple[str, str]] = Counter()
        self.mqtt_messages_refused: Counter[str] = Counter()
        self.mqtt_receipts: Counter[str] = Counter()
        self.mqtt_lines_ended: Counter[str] = Counter()
        self.mqtt_answers_undelivered: Counter[str] = Counter()
        self.mqtt_seconds = _Histogram(LATENCY_BOUNDS_S)
        self.hosts: dict[str, Callable[[], tuple[int, int, int, int]]] = {}
        self.host_told: Counter[tuple[str, str]] = Counter()
        self.host_late_answers: Counter[tuple[str, str]] = Counter()
        self.host_outbox: dict[str, tuple[int, int, float]] = {}
        self.purse_gaps: dict[str, tuple[int, int, float]] = {}
        self.purse_alarms: dict[str, int] = {}
        self.lists: dict[str, Rollout] = {}
        self.risk_hits: Counter[str] = Counter()
        self.risk_cases: dict[str, int] = {}
        self.risk_since: datetime | None = None
        self.closing: Closing | None = None
        self.api_answers: Counter[tuple[str, str]] = Counter()
        self.delivery_partners: dict[str, tuple[int, int, float, int]] = {}
        self.delivery_alarms: dict[str, int] = {}
        self.dispute_cases: dict[str, int] = {}
        self.dispute_waiting = 0
        self.dispute_overdue = 0
        self.partners: Mapping[str, tuple[int, int, int]] = {}
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

    def load_step(self, state: str, source: str, reason: str) -> None:
        """A load was asked for, or came to a state."""
        self.load_steps[(state, source, reason)] += 1

    def in_suspense(self, count: int, since: datetime | None) -> None:
        """So many loads are in suspense, the oldest of them authorised then."""
        self.suspense, self.suspense_since = count, since

    def reconciled(self, figures: Mapping[str, tuple[int, int, int]]) -> None:
        """By partner: files that are overdue, differences that are open, and the age in days of the oldest."""
        self.partners = figures

    def host_ended(self, host: str, end: str, seconds: float) -> None:
        """A request to a host ended: field 39 of its answer, or what went wrong. What was not sent took no time."""
        self.host_ends[(host, end)] += 1
        if seconds:
            self.host_seconds[host].add(seconds)

    def host_strange(self, host: str, what: str) -> None:
        """A host sent what ends no request."""
        self.host_oddities[(host, what)] += 1

    def host_line_closed(self, host: str, reason: str) -> None:
        """A connection to a host ended or could not be made."""
        self.host_lines_lost[(host, reason)] += 1

    def watch_host(self, host: str, read: Callable[[], tuple[int, int, int, int]]) -> None:
        """Show what a link keeps: usable connections, requests in flight, breaker, remembered keys."""
        self.hosts[host] = read

    def host_forwarded(self, host: str, end: str, count: int) -> None:
        """So many messages of the outbox ended: `confirmed`, `refused`, `later`, `unknown`, `not_sent`."""
        self.host_told[(host, end)] += count

    def host_late(self, host: str, what: str) -> None:
        """A late answer: `approved`, `declined`, `again`, `other`, `dropped`, `failed`."""
        self.host_late_answers[(host, what)] += 1

    def outbox(self, figures: Mapping[str, tuple[int, int, float]]) -> None:
        """By host: open messages, refused ones, age of the oldest open one in seconds. Hosts that have none any more show 0."""
        self.host_outbox = dict.fromkeys(self.host_outbox, (0, 0, 0.0)) | dict(figures)

    def mqtt_refused(self, reason: str) -> None:
        """A message over MQTT was turned away."""
        self.mqtt_messages_refused[reason] += 1

    def receipt(self, result: str) -> None:
        """A batch of offline records over MQTT got a receipt with this result."""
        self.mqtt_receipts[result] += 1

    def mqtt_acknowledged(self, seconds: float) -> None:
        """A message over MQTT was acknowledged so long after it came."""
        self.mqtt_seconds.add(seconds)

    def mqtt_line_ended(self, reason: str) -> None:
        """The line to the broker was `lost`, or could not be made: `connect`."""
        self.mqtt_lines_ended[reason] += 1

    def mqtt_undelivered(self, channel: str) -> None:
        """An answer found no way to the broker."""
        self.mqtt_answers_undelivered[channel] += 1

    def completeness(self, gaps: Mapping[str, tuple[int, int, float]], alarms: Mapping[str, int]) -> None:
        """By counter: open gaps, numbers missing in them, age of the oldest in seconds. By kind: alarms that nobody has acknowledged."""
        self.purse_gaps = dict(gaps)
        self.purse_alarms = dict.fromkeys(self.purse_alarms, 0) | dict(alarms)

    def rollouts(self, newest: Sequence[Rollout]) -> None:
        """The newest roll-out of each kind of list."""
        self.lists |= {rollout.kind: rollout for rollout in newest}

    def risk_marked(self, hits: Mapping[str, int]) -> None:
        """So many offline records were marked, by rule."""
        self.risk_hits.update(hits)

    def risk_open(self, cases: Mapping[str, int], since: datetime | None) -> None:
        """So many cases are open, by rule; the oldest since then. Rules that have none any more show 0."""
        self.risk_cases = dict.fromkeys(self.risk_cases, 0) | dict(cases)
        self.risk_since = since

    def api_answered(self, role: str, status: int) -> None:
        """A request to the API was answered; role `none` where there was no token that holds."""
        self.api_answers[(role, str(status))] += 1

    def watch_closing(self, closing: Closing) -> None:
        """Show how far the closing of days is."""
        self.closing = closing

    def deliveries(
        self, partners: Mapping[str, tuple[int, int, float, int]], alarms: Mapping[str, int]
    ) -> None:
        """By partner: files waiting, sent and not answered, age of the oldest waiting in seconds, failures in a row. Alarms of a day by kind."""
        self.delivery_partners = dict(partners)
        self.delivery_alarms = dict.fromkeys(self.delivery_alarms, 0) | dict(alarms)

    def disputes(self, cases: Mapping[str, int], waiting: int, overdue: int) -> None:
        """So many cases are open, by state; so many wait for a checker, and so many are overdue."""
        self.dispute_cases = dict.fromkeys(self.dispute_cases, 0) | dict(cases)
        self.dispute_waiting = waiting
        self.dispute_overdue = overdue

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
        yield self.loop_late.family(
            "cardswitch_loop_late_seconds", "How late the process was, ten times a second"
        )
        yield from self._of_loads()
        yield from self._of_risks()
        yield from self._of_disputes()
        yield from self._of_hosts()
        yield from self._of_mqtt()
        yield from self._of_purses()
        yield from self._of_lists()
        api = CounterMetricFamily("cardswitch_api_answers", "Requests to the API", labels=["role", "status"])
        for asked, count in self.api_answers.items():
            api.add_metric(asked, count)
        yield api
        if self.closing is not None:
            yield from self._of_closing(self.closing)
        yield from self._of_deliveries()
        yield from self._of_partners()
        for name, (text, read) in self.gauges.items():
            yield GaugeMetricFamily(f"cardswitch_{name}", text, value=read())

    def _of_closing(self, closing: Closing) -> Iterator[Metric]:
        day = closing.day
        yield GaugeMetricFamily(
            "cardswitch_close_days_overdue", "Days that should have been closed", value=closing.days_overdue
        )
        yield GaugeMetricFamily(
            "cardswitch_close_day",
            "The day that is being closed as a number, 0 for none",
            value=int(f"{day:%Y%m%d}") if day else 0,
        )
        seconds = GaugeMetricFamily(
            "cardswitch_close_step_seconds", "Duration of the last close's steps", labels=["step"]
        )
        for step, duration_s in dict(closing.seconds).items():
            seconds.add_metric([step], duration_s)
        yield seconds
        failures = CounterMetricFamily(
            "cardswitch_close_failures", "Closes that ended before they were done", labels=["step"]
        )
        for step, count in dict(closing.failures).items():
            failures.add_metric([step], count)
        yield failures

    def _of_loads(self) -> Iterator[Metric]:
        steps = CounterMetricFamily(
            "cardswitch_load_steps",
            "Purse loads by the state they came to",
            labels=["state", "source", "reason"],
        )
        for labels, count in self.load_steps.items():
            steps.add_metric(labels, count)
        yield steps
        yield GaugeMetricFamily("cardswitch_loads_in_suspense", "Loads in suspense", value=self.suspense)
        yield GaugeMetricFamily(
            "cardswitch_load_suspense_age_seconds",
            "Age of the oldest load in suspense",
            value=_age_s(self.suspense_since),
        )

    def _of_partners(self) -> Iterator[Metric]:
        for place, (name, text) in enumerate(
            (
                (
                    "files_overdue",
                    "Files of a partner that are not there, or not compared, behind their time",
                ),
                ("differences_open", "Differences that people must decide about"),
                ("difference_age_days", "Age of the oldest of them in business days"),
            )
        ):
            gauge = GaugeMetricFamily(f"cardswitch_reconcile_{name}", text, labels=["partner"])
            for partner, figures in self.partners.items():
                gauge.add_metric([partner], figures[place])
            yield gauge

    def _of_risks(self) -> Iterator[Metric]:
        hits = CounterMetricFamily(
            "cardswitch_risk_hits", "Offline records marked by a rule for risk", labels=["rule"]
        )
        for rule, count in self.risk_hits.items():
            hits.add_metric([rule], count)
        yield hits
        cases = GaugeMetricFamily("cardswitch_risk_cases_open", "Cases nobody has closed", labels=["rule"])
        for rule, count in self.risk_cases.items():
            cases.add_metric([rule], count)
        yield cases
        yield GaugeMetricFamily(
            "cardswitch_risk_case_age_seconds", "Age of the oldest open case", value=_age_s(self.risk_since)
        )

    def _of_disputes(self) -> Iterator[Metric]:
        cases = GaugeMetricFamily(
            "cardswitch_disputes_open", "Open cases about transactions", labels=["state"]
        )
        for state, count in self.dispute_cases.items():
            cases.add_metric([state], count)
        yield cases
        yield GaugeMetricFamily(
            "cardswitch_disputes_waiting", "Cases that wait for a checker", value=self.dispute_waiting
        )
        yield GaugeMetricFamily(
            "cardswitch_disputes_overdue",
            "Cases in which somebody should have done something",
            value=self.dispute_overdue,
        )

    def _of_mqtt(self) -> Iterator[Metric]:
        for name, text, label, counts in (
            (
                "cardswitch_mqtt_refused",
                "Messages over MQTT turned away",
                "reason",
                self.mqtt_messages_refused,
            ),
            ("cardswitch_mqtt_receipts", "Receipts for batches over MQTT", "result", self.mqtt_receipts),
            (
                "cardswitch_mqtt_lines_ended",
                "Lines to the MQTT broker that ended",
                "reason",
                self.mqtt_lines_ended,
            ),
            (
                "cardswitch_mqtt_undelivered",
                "Answers that found no way to the broker",
                "channel",
                self.mqtt_answers_undelivered,
            ),
        ):
            counter = CounterMetricFamily(name, text, labels=[label])
            for value, count in counts.items():
                counter.add_metric([value], count)
            yield counter
        yield self.mqtt_seconds.family("cardswitch_mqtt_seconds", "From a message's arrival to its PUBACK")

    def _of_purses(self) -> Iterator[Metric]:
        gauges = [
            GaugeMetricFamily(f"cardswitch_purse_{name}", text, labels=["counter"])
            for name, text in (
                ("gaps", "Holes in counters that are open"),
                ("missing", "Numbers that have not come"),
                ("gap_age_seconds", "Age of the oldest open hole"),
            )
        ]
        for counter, figures in self.purse_gaps.items():
            for gauge, figure in zip(gauges, figures, strict=True):
                gauge.add_metric([counter], figure)
        yield from gauges
        alarms = GaugeMetricFamily(
            "cardswitch_purse_alarms", "Alarms that nobody has acknowledged", labels=["kind"]
        )
        for kind, count in self.purse_alarms.items():
            alarms.add_metric([kind], count)
        yield alarms

    def _of_deliveries(self) -> Iterator[Metric]:
        gauges = [
            GaugeMetricFamily(f"cardswitch_delivery_{name}", text, labels=["partner"])
            for name, text in (
                ("waiting", "Files that wait for a partner"),
                ("unanswered", "Files sent, of which he has said nothing"),
                ("oldest_seconds", "Age of the oldest file that waits"),
                ("failures", "Visits that failed, one after the other"),
            )
        ]
        for partner, figures in self.delivery_partners.items():
            for gauge, figure in zip(gauges, figures, strict=True):
                gauge.add_metric([partner], figure)
        yield from gauges
        alarms = GaugeMetricFamily(
            "cardswitch_delivery_alarms", "Alarms of the last 24 hours", labels=["kind"]
        )
        for kind, count in self.delivery_alarms.items():
            alarms.add_metric([kind], count)
        yield alarms

    def _of_lists(self) -> Iterator[Metric]:
        for name, text, read in (
            ("version", "Newest version", lambda at: at.version),
            ("percent", "Per cent of all terminals that a roll-out has come to", lambda at: at.percent),
            ("reached", "Terminals that it is offered to", lambda at: at.reached),
            ("held", "Of these, those that have it", lambda at: at.held),
            ("refused", "Terminals that refused it", lambda at: at.refused),
            ("silent", "Terminals that fetched it and were not heard since", lambda at: at.silent),
            ("stopped", "1: its roll-out is stopped", lambda at: float(at.state == "STOPPED")),
        ):
            gauge = GaugeMetricFamily(f"cardswitch_list_{name}", text, labels=["list"])
            for kind, rollout in self.lists.items():
                gauge.add_metric([kind.lower()], read(rollout))
            yield gauge

    def _of_hosts(self) -> Iterator[Metric]:
        for name, text, label, counts in (
            ("cardswitch_host_requests", "Requests to hosts, by what became of them", "end", self.host_ends),
            ("cardswitch_host_oddities", "What hosts sent that ends no request", "what", self.host_oddities),
            (
                "cardswitch_host_lines_closed",
                "Connections to hosts that ended",
                "reason",
                self.host_lines_lost,
            ),
            (
                "cardswitch_host_forwarded",
                "Messages of the outbox, by what became of them",
                "end",
                self.host_told,
            ),
            ("cardswitch_host_late_answers", "Answers after the time-out", "what", self.host_late_answers),
        ):
            counter = CounterMetricFamily(name, text, labels=["host", label])
            for labels, count in counts.items():
                counter.add_metric(labels, count)
            yield counter
        seconds = HistogramMetricFamily(
            "cardswitch_host_seconds", "From a request to its end", labels=["host"]
        )
        for host, histogram in self.host_seconds.items():
            seconds.add_metric([host], histogram.buckets(), histogram.total)
        yield seconds
        gauges = [
            GaugeMetricFamily(f"cardswitch_host_{name}", text, labels=["host"])
            for name, text in (
                ("lines", "Signed-on connections"),
                ("in_flight", "Unanswered requests"),
                ("breaker", "0 closed, 1 half-open, 2 open"),
                ("remembered", "Ended requests whose late answer would be known"),
            )
        ]
        for host, read in self.hosts.items():
            for gauge, value in zip(gauges, read(), strict=True):
                gauge.add_metric([host], value)
        yield from gauges
        outbox = [
            GaugeMetricFamily(f"cardswitch_host_outbox_{name}", text, labels=["host"])
            for name, text in (
                ("open", "Messages the host has not confirmed"),
                ("refused", "Messages the host refused"),
                ("oldest_seconds", "Age of the oldest open message"),
            )
        ]
        for host, figures in self.host_outbox.items():
            for gauge, figure in zip(outbox, figures, strict=True):
                gauge.add_metric([host], figure)
        yield from outbox
