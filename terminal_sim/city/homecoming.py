"""The depot rush: buses and gates come home and hand their records in, half of them over MQTT, out of order and twice.

The result of every record is known beforehand, and so is what will be missing when all are home: the serials of records that were lost
or came damaged, and the bus that stays away. Bounds: UPLOADS_AT_ONCE at a time; a batch of a device at a time, RECEIPT_S until it is sent again.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from random import Random
from time import perf_counter as now
from typing import Any

from terminal_sim.city.street import Street, ask_again
from terminal_sim.city.tally import CountedClient
from terminal_sim.city.transit import ACCEPTED, DAMAGED, PAID_LATER, SERIAL, Bus, Fleet, Record
from terminal_sim.mqtt import Broker, Delivered
from terminal_sim.mqtt_batches import TAKEN, Batches, ReceiptError, read_receipt
from terminal_sim.mqtt_device import MqttDevice
from terminal_sim.pos_batch import COUNTED_RESULTS, results_of
from terminal_sim.records import Phase

DUPLICATE = "03"
UPLOADS_AT_ONCE = 10
BATCH_RECORDS = 50
BROKER_S = 60.0
RECEIPT_S = 3.0  # then a batch is sent again: one device loses its first receipt
COPIES = 20
RECORD_SERIAL, PSAM_SERIAL = "record_serial", "psam_serial"  # as `cardswitch purse missing` calls them
Holes = dict[tuple[str, str], list[tuple[int, int]]]  # by counter and owner: first and last number of each


@dataclass(slots=True)
class Rush:
    """What the evening came to. over_mqtt, over_tcp: records. receipts_s: from the first publication of a batch to its receipt."""

    over_mqtt: int = 0
    over_tcp: int = 0
    elapsed_s: float = 0.0
    batches: int = 0
    published: int = 0
    receipts_lost: int = 0
    receipts_s: list[float] = field(default_factory=list)
    missing: Holes = field(default_factory=dict)  # as the switch says
    damaged: int = 0
    away: list[Bus] = field(default_factory=list)  # as the switch says
    trips: dict[str, int] = field(default_factory=dict)  # complete, incomplete, open

    @property
    def records_per_s(self) -> float:
        """Both ways together."""
        return (self.over_mqtt + self.over_tcp) / self.elapsed_s if self.elapsed_s else 0.0

    def receipt_ms(self, percent: int) -> float:
        """A percentile of the time until a receipt."""
        times = sorted(self.receipts_s)
        return times[min(len(times) - 1, len(times) * percent // 100)] * 1000 if times else 0.0

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "records_over_mqtt": self.over_mqtt,
            "records_over_tcp": self.over_tcp,
            "records_per_s": round(self.records_per_s, 1),
            "batches": self.batches,
            "published": self.published,
            "receipts_lost": self.receipts_lost,
            "receipt_ms": {"p50": round(self.receipt_ms(50), 1), "p99": round(self.receipt_ms(99), 1)},
            "missing": [
                {"counter": counter, "owner": owner, "holes": holes}
                for (counter, owner), holes in sorted(self.missing.items())
            ],
            "damaged": self.damaged,
            "away": [bus.vehicle.terminal.terminal_id for bus in self.away],
            "trips": self.trips,
        }


class HomeDevice(MqttDevice):
    """A vehicle's device at the depot's broker: it may publish every batch twice, or miss its first receipt."""

    __slots__ = (
        "_another",
        "_sent_at",
        "_told",
        "came",
        "differing",
        "lost",
        "published",
        "receipts_s",
        "twice",
    )

    def __init__(self, client: CountedClient, broker: Broker, *, twice: bool, loses: bool) -> None:
        """client: the terminal as it was on the road; session, batch and totals go on."""
        terminal = client.pos.terminal
        super().__init__(
            terminal,
            broker,
            batches=Batches(terminal, records_max=BATCH_RECORDS),
            receipt_s=RECEIPT_S,
        )
        self.pos = client.pos
        self.twice = twice
        self.lost = -int(loses)  # receipts; below zero: still to be lost
        self.published = self.came = self.differing = 0
        self.receipts_s: list[float] = []
        self._told: dict[int, bytes] = {}  # by batch serial: the receipt without its MAC
        self._sent_at: dict[int, float] = {}
        self._another = asyncio.Event()

    async def send_batch(self) -> None:
        """Once, or twice as it is."""
        began = now()
        for _ in range(1 + self.twice):
            await super().send_batch()
            self._sent_at.setdefault(self.batches.open_serial, began)
            self.published += 1

    def _take(self, message: Delivered, mid: int) -> bool:
        if not message.topic.endswith("/purse/down"):
            return super()._take(message, mid)
        self.came += 1
        self._another.set()
        if self.lost < 0:
            self.lost = -self.lost
            return True
        with contextlib.suppress(ReceiptError):  # whoever waits for one will not believe it
            receipt = read_receipt(message.payload)
            if receipt.result == TAKEN:
                self.differing += self._told.setdefault(receipt.serial, receipt.signed) != receipt.signed
        return super()._take(message, mid)

    def _believed(self, payload: bytes) -> bool:
        believed = super()._believed(payload)
        if believed:
            self.receipts_s.append(now() - self._sent_at[read_receipt(payload).serial])
        return believed

    async def unanswered(self) -> int:
        """Publications without a receipt when each has had its time: the broker lost them, or the receipts, and no harm is done."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECEIPT_S):
                while self.came < self.published:
                    self._another.clear()
                    await self._another.wait()
        return max(self.published - self.came, 0)


# --- coming home --------------------------------------------------------------------------------------------------------


async def bring_home(
    street: Street, fleet: Fleet, day: date, broker: tuple[str, int], brought: Callable[[int], None]
) -> Rush:
    """Everything but what is with the bus that stays away; what is paid is booked. brought: told how many records more are home."""
    random = Random(f"{street.plan.seed}/home")
    order = [bus for bus in fleet.buses if bus is not fleet.away]
    random.shuffle(order)
    gate = asyncio.Semaphore(UPLOADS_AT_ONCE)
    rush, began = Rush(), now()

    async def one(place: int, bus: Bus) -> None:
        async with gate:
            records = list(bus.records)
            random.shuffle(records)  # the serials inside tell; the order does not
            if not records:
                return
            client = street.client(bus.vehicle.terminal)
            if bus.vehicle.over_mqtt:
                line = Broker(*broker, f"terminal-{bus.vehicle.terminal.terminal_id}", timeout_s=BROKER_S)
                device = HomeDevice(client, line, twice=place % 3 == 0, loses=bus is impatient)
                found = await _hand_in(street, device, records, rush)
            else:
                found = await _upload(street, client, records, again=place % 3 == 0)
                rush.over_tcp += len(records)
            _compare(street, bus, records, found, day)
            brought(len(records))

    by_broker = [
        bus for place, bus in enumerate(order) if bus.vehicle.over_mqtt and bus.records and place % 3
    ]
    impatient = by_broker[0] if by_broker else None
    await asyncio.gather(*(one(place, bus) for place, bus in enumerate(order)))
    rush.elapsed_s = now() - began
    await _depot(street, fleet)
    return rush


def _compare(street: Street, bus: Bus, records: list[Record], found: dict[int, str], day: date) -> None:
    for record in records:
        result = found.get(record.serial, "none")
        name = f"offline record {bus.vehicle.psam_no}/{record.serial}"
        street.books.expect(name, expected=record.expected, found=result)
        street.happened(f"record {result}")
        if ACCEPTED in (result, record.final) or record.final == PAID_LATER:
            street.books.book_ride(day, bus.merchant_id, record.amount_fen)


# --- over MQTT ----------------------------------------------------------------------------------------------------------


async def _hand_in(street: Street, device: HomeDevice, records: list[Record], rush: Rush) -> dict[int, str]:
    """In batches, each until its receipt; the results by record serial."""
    try:
        await device.sign_on()  # over the broker, as everything now
        device.batches.add(record.raw for record in records)
        results = await device.hand_in()
        lost_on_the_way = await device.unanswered()
    finally:
        device.close()
    street.books.expect(
        "receipts that differ from the first of their batch", expected=0, found=device.differing
    )
    batches = len(device.receipts_s)
    rush.over_mqtt += len(records)
    rush.batches += batches
    rush.published += device.published
    rush.receipts_lost += max(device.lost, 0) + lost_on_the_way
    rush.receipts_s += device.receipts_s
    if device.published > batches:
        street.happened("batches published again, receipts alike", device.published - batches)
    return {int.from_bytes(serial): result for serial, result in results.items()}


# --- over TCP -----------------------------------------------------------------------------------------------------------


async def _upload(
    street: Street, client: CountedClient, records: list[Record], *, again: bool
) -> dict[int, str]:
    for record in records:
        client.pos.store_record(record.raw)
    await client.ready()
    first = client.pos.upload()
    assert first is not None
    answer = await client.insist(first)
    repeat = await ask_again(client, first)
    street.happened("uploads sent twice and answered alike")
    street.books.expect(
        "results of a repeated upload",
        expected=answer.message.fields.get(62, b"").hex(),
        found=repeat.fields.get(62, b"").hex(),
    )
    found = await client.upload_records()
    if again:
        await _upload_again(street, client, records)
    return found


async def _upload_again(street: Street, client: CountedClient, records: list[Record]) -> None:
    """The whole day's records once more, under new traces: nothing may count twice."""
    expected = {record.raw[SERIAL]: record.expected for record in records}
    for request in client.pos.records_again():
        answer = await client.insist(request)
        sent, field62 = request.fields[62], answer.message.fields.get(62, b"")
        serials = [field62[at : at + 4] for at in range(1, len(field62), 6)]
        for serial, result in zip(serials, results_of(field62), strict=True):
            before = expected[serial]
            wanted = DUPLICATE if before in COUNTED_RESULTS else before
            street.books.expect("an offline record sent again", expected=wanted, found=result)
        street.happened("records sent again", sent[0] & 0x0F)


async def _depot(street: Street, fleet: Fleet) -> None:
    """The depot's reader empties a bus once more, through its own terminal."""
    client = street.client(street.plan.depot)
    for record in depot_copies(fleet):
        client.pos.store_record(record.raw)
    results = await client.upload_records()
    for result in results.values():
        street.books.expect("a record read twice, at the depot", expected=DUPLICATE, found=result)
        street.happened(f"record {result}")


def depot_copies(fleet: Fleet) -> list[Record]:
    """Paid records of a bus that came over MQTT, one behind the other, as a reader finds them in its memory."""
    bus = max(
        (bus for bus in fleet.buses if bus.vehicle.over_mqtt and not bus.vehicle.gate),
        key=lambda bus: len(bus.records),
    )
    copies: list[Record] = []
    for record in sorted(bus.records, key=lambda record: record.serial):
        if record.expected == ACCEPTED and (not copies or record.serial == copies[-1].serial + 1):
            copies.append(record)
        elif copies:
            break
    return copies[:COPIES]


# --- what is missing ----------------------------------------------------------------------------------------------------


def missing_of(fleet: Fleet, depot_id: str) -> Holes:
    """What the switch must miss: numbers between the first and the last that came in good form. Of the bus that is away nothing came."""
    came: dict[tuple[str, str], set[int]] = {}
    for bus in fleet.buses:
        if bus is fleet.away:
            continue
        good = [record for record in bus.records if record.expected != DAMAGED]
        came[RECORD_SERIAL, bus.vehicle.terminal.terminal_id] = {record.serial for record in good}
        came[PSAM_SERIAL, bus.vehicle.psam_no] = {record.psam_serial for record in good}
    came[RECORD_SERIAL, depot_id] = {record.serial for record in depot_copies(fleet)}
    return {whose: found for whose, numbers in came.items() if (found := holes(numbers))}


def holes(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Ranges between the lowest and the highest that are not there.

    >>> holes([1, 2, 5, 7])
    [(3, 4), (6, 6)]
    """
    return [(low + 1, high - 1) for low, high in pairwise(sorted(numbers)) if high - low > 1]


def _within(number: int, found: Iterable[tuple[int, int]]) -> bool:
    return any(first <= number <= last for first, last in found)


def trips_of(fleet: Fleet) -> dict[str, int]:
    """What became of trips through gates. A gate sells an exit only to who has entered, and all gates come home."""
    phases = [record.phase for bus in fleet.buses if bus.vehicle.gate for record in bus.records]
    complete, incomplete = phases.count(Phase.EXIT), phases.count(Phase.SUPPLEMENT)
    return {
        "complete": complete,
        "incomplete": incomplete,
        "open": phases.count(Phase.ENTRY) - complete - incomplete,
    }


def take_stock(
    street: Street,
    fleet: Fleet,
    rush: Rush,
    *,
    missing: dict[str, Any],
    members: Sequence[dict[str, Any]],
    lines: Sequence[dict[str, Any]],
) -> None:
    """What the operator's commands say when all are home, against what the city knows. members: those that are away; lines: of trips."""
    expect = street.books.expect
    for counter in missing["counters"]:
        if counter["gaps"]:
            found = sorted((hole["from"], hole["to"]) for hole in counter["gaps"])
            rush.missing[counter["counter"], counter["owner"]] = found
        rush.damaged += len(counter["damaged"])
    by_id = {bus.vehicle.terminal.terminal_id: bus for bus in fleet.buses}
    expected = missing_of(fleet, street.plan.depot.terminal_id)
    for whose in sorted(expected.keys() | rush.missing.keys()):
        expect(f"missing of {whose}", expected=expected.get(whose), found=rush.missing.get(whose))
    damaged = sum(
        record.expected == DAMAGED and _within(record.serial, expected.get((RECORD_SERIAL, name), ()))
        for name, bus in by_id.items()
        for record in bus.records
    )
    expect("damaged records among the missing", expected=damaged, found=rush.damaged)
    silent = {name for name, bus in by_id.items() if bus is fleet.away or not bus.records}
    away = {member["terminal_id"] for member in members}
    expect("who has not come home", expected=sorted(silent), found=sorted(away))
    rush.away = [bus for name, bus in by_id.items() if name in away]
    wanted = trips_of(fleet)
    rush.trips = {name: sum(line[name] for line in lines) for name in wanted}
    expect("trips through gates", expected=wanted, found=rush.trips)
