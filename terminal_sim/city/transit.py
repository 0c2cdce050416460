"""Buses and metro gates: a day's rides on real cards with real PSAMs.

For every record the city knows beforehand what the back office must say (docs/purse_record.md names the results), and which records
will never reach it. How they come home: homecoming.py.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import NamedTuple

from terminal_sim.card import PurseCard
from terminal_sim.city.plan import FOREIGN_ISSUER, OWN_ISSUER, CardState, CityCard, CityPlan, Vehicle
from terminal_sim.crypto import KeyKind
from terminal_sim.psam import Psam
from terminal_sim.reading import CardGoneError, CardRejectedError, FlakyReader
from terminal_sim.records import Phase, Place, RecordKind, crc16
from terminal_sim.validator import Rules, Validator

GREY, ACCEPTED, FOREIGN, DAMAGED = "04", "10", "11", "02"
PAID_LATER, NEVER_DEBITED = "00", "94"
DEBIT_COMMAND = 5  # of a plain ride, counted from SELECT
KIND, PHASE = 1, 77
AMOUNT = slice(30, 34)
PSAM_SERIAL = slice(51, 55)
SERIAL = slice(59, 63)
WINDOW = timedelta(hours=6)


class Record(NamedTuple):
    """What a vehicle brings home, and what must come of it. final: after the day's close, where that differs."""

    raw: bytes
    expected: str
    final: str = ""

    @property
    def amount_fen(self) -> int:
        """Amount field."""
        return int.from_bytes(self.raw[AMOUNT])

    @property
    def serial(self) -> int:
        """Record serial of its terminal."""
        return int.from_bytes(self.raw[SERIAL])

    @property
    def psam_serial(self) -> int:
        """Transaction serial of its PSAM."""
        return int.from_bytes(self.raw[PSAM_SERIAL])

    @property
    def phase(self) -> Phase:
        """Entry, exit or supplement of a trip."""
        return Phase(self.raw[PHASE])


@dataclass(slots=True)
class Bus:
    """A vehicle on the road."""

    vehicle: Vehicle
    psam: Psam
    validator: Validator
    records: list[Record] = field(default_factory=list)
    lost: list[Record] = field(default_factory=list)  # made, and gone from its memory

    @property
    def merchant_id(self) -> str:
        """Whose it is."""
        return self.vehicle.terminal.merchant_id


class Fleet:
    """All vehicles, and the cards that ride."""

    def __init__(self, plan: CityPlan, random: Random, now: datetime) -> None:
        """now: local time without a zone, as devices know it."""
        self._random = random
        self._plan = plan
        self._now = now
        self._issuers = {foreign: plan.issuer(foreign=foreign) for foreign in (False, True)}
        self._cards: dict[str, PurseCard] = {}
        able = [
            card
            for card in plan.cards
            if card.purse_fen is not None and card.state in (CardState.GOOD, CardState.LOST)
        ]
        old = [card for card in plan.cards if card.state is CardState.REPLACED and card.purse_fen is not None]
        self._hot = old[:3]
        random.shuffle(able)
        rich = [card for card in able if (card.purse_fen or 0) >= 2_000]
        self._torn, rich = rich[:9], rich[9:]
        long_held = [
            card
            for card in rich
            if (now.date() - card.valid_from).days > 200 and card.state is CardState.GOOD
        ]
        self._odd = long_held[:8]
        reserved = {card.pan for card in (*self._torn, *self._odd)}
        self.riders = [card for card in able if card.pan not in reserved]
        self.told: Counter[str] = Counter()
        hot_list = {card.asn: (0 if place == 0 else 1) for place, card in enumerate(self._hot)}
        self.buses = [self._bus(vehicle, hot_list) for vehicle in plan.vehicles]
        self.away = [bus for bus in self.buses if not bus.vehicle.gate][-1]  # does not come home tonight

    def _bus(self, vehicle: Vehicle, hot_list: dict[str, int]) -> Bus:
        sets = self._plan.keys.root_sets
        purchase = {(one.version, one.algorithm): one.roots[KeyKind.PURCHASE] for one in sets}
        maintenance = {(one.version, one.algorithm): one.roots[KeyKind.MAINTENANCE] for one in sets}
        psam = Psam(vehicle.psam_no, purchase, maintenance_roots=maintenance)
        rules = Rules(
            {OWN_ISSUER, FOREIGN_ISSUER},
            known_cities={bytes.fromhex("3310")},
            hot_list=hot_list,
            key_indexes=(0x41, 0x01) if self._random.random() < 0.7 else (0x01, 0x41),
        )
        return Bus(vehicle, psam, Validator(psam, self._place(vehicle), rules))

    def _place(self, vehicle: Vehicle) -> Place:
        return Place(
            bytes.fromhex(self._plan.bus_company.acquirer_id + "FFFFFFFF"),
            industry=1 if vehicle.gate else 2,
            line=vehicle.line,
            station=f"{self._random.randrange(1, 30):04d}",
            vehicle=vehicle.number,
        )

    def card(self, card: CityCard) -> PurseCard:
        """The plastic; made when it is first needed."""
        found = self._cards.get(card.pan)
        if found is None:
            found = PurseCard(
                card.profile,
                self._issuers[card.foreign].card_keys(card.asn),
                balance_fen=card.purse_fen or 0,
                offline_atc=card.offline_atc,
                random=self._random.randbytes,
            )
            self._cards[card.pan] = found
        return found

    # --- the day's rides ----------------------------------------------------------------------------------------

    def ride_all_day(self, rides: int, rode: Callable[[], None]) -> None:
        """Everybody's rides in order of time, then the odd ones; fills the buses' records."""
        random, start = self._random, self._now - WINDOW
        inside: dict[str, CityCard] = {}
        gates = [bus for bus in self.buses if bus.vehicle.gate]
        roads = [bus for bus in self.buses if not bus.vehicle.gate]
        for number in range(rides):
            when = start + (WINDOW - timedelta(minutes=30)) * number / rides
            at_gate = random.random() < 0.35
            try:
                if at_gate:
                    self._gate(random.choice(gates), inside, when)
                else:
                    self._board(random.choice(roads), inside, when)
            except CardRejectedError:
                self.told["turned away at the validator"] += 1
            rode()
        for card in self._plan.foreign_cards:
            bus = random.choice(roads)
            bus.validator.ride(self.card(card), 200, self._now - timedelta(minutes=25))
        self._collect()
        # Whatever must be seen by the switch to come out as told here is not left to the bus that stays away.
        roads.remove(self.away)
        self._mishaps(roads)
        self._hot_cards(roads)
        self._torn_cards(roads)
        self._odd_records(roads)
        self.told["cards reported lost that still rode (the purse cannot be reported lost)"] = sum(
            card.state is CardState.LOST and self._cards[card.pan].offline_atc > card.offline_atc
            for card in self.riders
            if card.pan in self._cards
        )

    def _gate(self, bus: Bus, inside: dict[str, CityCard], when: datetime) -> None:
        random = self._random
        if inside and random.random() < 0.5:
            pan = random.choice(list(inside))
            card = inside.pop(pan)
            bus.validator.leave(self.card(card), random.randrange(200, 800, 100), when)
            return
        card = random.choice(self.riders)
        if card.pan in inside:
            return
        bus.validator.enter(self.card(card), when)
        inside[card.pan] = card

    def _board(self, bus: Bus, inside: dict[str, CityCard], when: datetime) -> None:
        card = self._random.choice(self.riders)
        if card.pan in inside:
            return
        full = 200
        fare = 120 if card.holder.number % 9 == 0 else full  # seniors
        bus.validator.ride(self.card(card), fare, when, full_fare_fen=full, capp=self._random.random() < 0.3)

    def _collect(self) -> None:
        """What is done so far leaves the validators; records of other cities' cards are provisional."""
        foreign = FOREIGN_ISSUER
        for bus in self.buses:
            for raw in bus.validator.take_records():
                bus.records.append(Record(raw, FOREIGN if raw[16:24] == foreign else ACCEPTED))

    # --- what goes wrong ----------------------------------------------------------------------------------------

    def _mishaps(self, roads: list[Bus]) -> None:
        """One bus loses a record out of its memory; another one's memory flips a bit, so that the record comes damaged."""
        most = sorted(roads, key=lambda bus: -len(bus.records))
        loser, forgetful = most[0], next(bus for bus in most[1:] if bus.vehicle.over_mqtt)
        if (place := _inner(loser)) is not None:
            loser.lost.append(loser.records.pop(place))
        if (place := _inner(forgetful)) is not None:
            raw = forgetful.records[place].raw
            forgetful.records[place] = Record(_flipped(raw), DAMAGED)

    def _hot_cards(self, roads: list[Bus]) -> None:
        for card in self._hot:
            bus = self._random.choice(roads)
            try:
                bus.validator.ride(self.card(card), 200, self._now - timedelta(minutes=24))
            except CardRejectedError:
                self.told["hot cards stopped"] += 1
        self._collect()

    def _torn_cards(self, roads: list[Bus]) -> None:
        """閃卡: three that come back at once, three that ride again elsewhere, three that are not seen again."""
        when = self._now - timedelta(minutes=20)
        for number, card in enumerate(self._torn):
            obeyed = number % 2 == 0
            bus, other = self._random.sample(roads, 2)
            plastic = self.card(card)
            try:
                bus.validator.ride(FlakyReader(plastic, DEBIT_COMMAND, obeyed=obeyed), 200, when)
            except CardGoneError:
                self.told["cards torn away in the middle"] += 1
            if number < 3:
                ride = bus.validator.ride(plastic, 200, when + timedelta(seconds=20))
                self.told["torn rides proved by the card"] += ride.repaired
                self._collect()
                continue
            self._collect()
            again = number < 6
            final = (PAID_LATER if obeyed else NEVER_DEBITED) if again else ""
            bus.records += [Record(raw, GREY, final) for raw in bus.validator.take_records(with_grey=True)]
            if again:
                other.validator.ride(plastic, 200, when + timedelta(minutes=10))
                self._collect()

    def _odd_records(self, roads: list[Bus]) -> None:
        """Records that must be refused, each for its own reason."""
        cards = iter(self._odd)
        for result, make in (
            ("01", self._spoilt_tac),
            ("02", self._spoilt_crc),
            ("05", self._overdue),
            ("07", self._ahead_of_time),
            ("06", self._test_ride),  # last: its validator counts serials by itself
        ):
            card = next(cards, None)
            if card is None:
                return
            bus = self._random.choice(roads)
            bus.records.append(Record(make(bus, self.card(card)), result))

    def _one(self, bus: Bus, card: PurseCard, when: datetime) -> bytes:
        bus.validator.ride(card, 200, when)
        return bus.validator.take_records()[0]

    def _spoilt_tac(self, bus: Bus, card: PurseCard) -> bytes:
        raw = bytearray(self._one(bus, card, self._now - timedelta(minutes=5)))
        raw[55] ^= 0x01
        return bytes(raw[:94]) + crc16(bytes(raw[:94])).to_bytes(2)

    def _spoilt_crc(self, bus: Bus, card: PurseCard) -> bytes:
        return _flipped(self._one(bus, card, self._now - timedelta(minutes=5)))

    def _overdue(self, bus: Bus, card: PurseCard) -> bytes:
        return self._one(bus, card, self._now - timedelta(days=120))

    def _ahead_of_time(self, bus: Bus, card: PurseCard) -> bytes:
        return self._one(bus, card, self._now + timedelta(days=3))

    def _test_ride(self, bus: Bus, card: PurseCard) -> bytes:
        serial = max(int.from_bytes(record.raw[SERIAL]) for record in bus.records) + 1 if bus.records else 1
        bench = Validator(
            bus.psam, self._place(bus.vehicle), bus.validator.rules, next_serial=serial, test=True
        )
        bench.ride(card, 200, self._now - timedelta(minutes=5))
        return bench.take_records()[0]


def _inner(bus: Bus) -> int | None:
    """Place of a paid record about the middle, with others before and behind it; None in a bus that hardly drove."""
    paid = [place for place, record in enumerate(bus.records[1:-1], 1) if record.expected == ACCEPTED]
    paid = [place for place in paid if bus.records[place].raw[KIND] == RecordKind.NORMAL]
    return paid[len(paid) // 2] if paid else None


def _flipped(raw: bytes) -> bytes:
    """The record with a CRC that is not its own."""
    return raw[:95] + bytes((raw[95] ^ 0xFF,))
