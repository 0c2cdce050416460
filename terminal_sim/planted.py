"""A city's rides with planted faults: which records are bad, and how, is known, so whoever looks for faults can be measured.

Seeded: the same seed and day give the same bytes. Every card rides twice a day, every reader writes its serials without a hole, and every
upload is one reader's day, in an order in which some come days late. A card has at most one fault, so that none hides another.

    kind            what is planted                                                     what must come of it
    duplicate       the same record again in a later upload                             03
    tac_wrong       a bit of the TAC turned, or the amount raised after it              01
    crc_broken      a bit turned on the way                                             02 and quarantine
    serial_reused   a reader gives two rides one PSAM serial                            02 for one of them, an alarm
    clone           two chips: the same counter on another reader                       02 for one of them, an alarm
    lost            a record never comes                                                a gap at its reader's serial
    chain_break     a purse that holds less than its last ride left                     an alarm
    grey_unpaid     torn away before the debit, then ridden again under the counter     04, then 94
    grey_paid       torn away after the debit                                           04, then 00
    clock_wrong     a clock a year behind or ahead                                      05 or 07
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from switch.domain.identifiers import luhn_digit
from terminal_sim import crypto
from terminal_sim.records import GREY_TAC, OfflineRecord, Phase, Place, RecordKind, bcd_moment, crc16

OPENING_FEN: Final = 100_000
RIDES_PER_CARD: Final = 20
RIDES_PER_TERMINAL: Final = 2_000
TERMINALS_MIN: Final = 8
MERCHANTS: Final = 4
_WAVES = ((6, 30), (16, 30))  # hours and minutes at which people begin to ride
_WAVE_S = 3 * 3600
_CHAIN_FEN = 700


class FaultKind(StrEnum):
    """What can be wrong with a record."""

    DUPLICATE = "duplicate"
    TAC_WRONG = "tac_wrong"
    CRC_BROKEN = "crc_broken"
    SERIAL_REUSED = "serial_reused"
    CLONE = "clone"
    LOST = "lost"
    CHAIN_BREAK = "chain_break"
    GREY_UNPAID = "grey_unpaid"
    GREY_PAID = "grey_paid"
    CLOCK_WRONG = "clock_wrong"


class Key(NamedTuple):
    """A record as its terminal knows it: the terminal's number from 1 on, and its record serial."""

    terminal: int
    serial: int


class Fault(NamedTuple):
    """A planted fault. keys: its record first; where two collide, both, since the first to arrive is taken."""

    kind: FaultKind
    keys: tuple[Key, ...]


class Upload(NamedTuple):
    """Records that a terminal sends at once."""

    terminal: int
    records: tuple[bytes, ...]

    def __repr__(self) -> str:  # records hold card numbers
        return f"Upload(terminal={self.terminal}, {len(self.records)} records)"


def pan_of(card: int) -> str:
    """Number of a card, counted from 0."""
    digits = f"31335002{card:010d}"
    return digits + luhn_digit(digits)


def psam_of(terminal: int) -> str:
    """PSAM in a terminal, 12 digits."""
    return f"33500000{terminal:04d}"


def terminal_id_of(terminal: int) -> str:
    """Field 41."""
    return f"{terminal:08d}"


def merchant_of(terminal: int) -> int:
    """Number of the merchant of a terminal, from 1 on."""
    return terminal % MERCHANTS + 1


class PlantedCity:
    """Rides of some days before `today`, with `faults` of them wrong in the ways of FaultKind, each equally often.

    root: DTK of both algorithms. issuer: issuer id on cards and acquirer in records, 8 bytes. `faults` and `uploads` are filled at once.
    """

    def __init__(
        self, *, rides: int, faults: int, seed: int, today: datetime, root: bytes, issuer: bytes
    ) -> None:
        self.cards = max(rides // RIDES_PER_CARD, 1)
        self.terminals = max(rides // RIDES_PER_TERMINAL, TERMINALS_MIN)
        self.rides = rides
        self.faults: list[Fault] = []
        self._waves = -(-rides // self.cards)
        if self._waves < 8 or faults > self.cards // 2:
            raise ValueError("there are too few rides for so many faults")
        self._rng = random.Random(seed)
        self._root, self._issuer = root, issuer
        self._midnight = today.replace(hour=0, minute=0, second=0, microsecond=0)
        self._masters = {
            algorithm: crypto.diversify(algorithm, root, issuer) for algorithm in crypto.Algorithm
        }
        self._cards: dict[int, tuple[bytes, bytes]] = {}  # serial number and TAC key
        self._atc = [0] * self.cards
        self._balance_fen = [OPENING_FEN] * self.cards
        self._psam_serial = [0] * (self.terminals + 1)
        self._serial = [0] * (self.terminals + 1)
        self._clean: dict[
            int, tuple[int, Key]
        ] = {}  # by terminal: a serial of a card without a fault, and its record
        self._places = {
            terminal: Place(issuer, line=f"{terminal % 40:04d}", vehicle=f"{terminal:08d}")
            for terminal in range(1, self.terminals + 1)
        }
        self._days: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
        self._again: list[tuple[int, int, bytes]] = []
        self._planned = self._plan(faults)
        self._ride_all()

    def __repr__(self) -> str:
        return f"PlantedCity({self.rides} rides, {len(self.faults)} faults)"

    def _plan(self, faults: int) -> dict[int, tuple[FaultKind, int]]:
        """By card: which fault, on which of its rides. The first rides and the last ones stay good, for evidence."""
        kinds = list(FaultKind)
        cards = self._rng.sample(range(self.cards), faults)
        return {
            card: (kinds[number % len(kinds)], self._rng.randrange(2, self._waves - 3))
            for number, card in enumerate(cards)
        }

    def _ride_all(self) -> None:
        left = self.rides
        days = -(-self._waves // len(_WAVES))
        for wave in range(self._waves):
            day, half = divmod(wave, len(_WAVES))
            hour, minute = _WAVES[half]
            begin = self._midnight + timedelta(days=day - days, hours=hour, minutes=minute)
            order = self._rng.sample(range(self.cards), min(left, self.cards))
            left -= len(order)
            for place, card in enumerate(order):
                when = begin + timedelta(seconds=place * _WAVE_S // len(order))
                self._ride(card, wave, day, when)

    def _ride(self, card: int, wave: int, day: int, when: datetime) -> None:
        rng = self._rng
        terminal = card % self.terminals + 1
        if rng.random() < 0.2:
            terminal = (card * 7 + 3) % self.terminals + 1
        amount = rng.randrange(100, 501, 10)
        kind, at = self._planned.get(card, (None, -1))
        if kind is None or at != wave:
            raw, key = self._record(card, terminal, amount, when)
            self._days[day, terminal].append(raw)
            if kind is None:
                self._clean[terminal] = (self._psam_serial[terminal], key)
            self._move(card, amount)
            return
        keys = self._plant(kind, card, terminal, amount, day, when)
        self.faults.append(Fault(kind, keys))

    def _plant(
        self, kind: FaultKind, card: int, terminal: int, amount: int, day: int, when: datetime
    ) -> tuple[Key, ...]:
        """A ride with its fault; keys of the records that it may be found by."""
        rng, days = self._rng, self._days
        if kind is FaultKind.CHAIN_BREAK:
            self._balance_fen[card] -= _CHAIN_FEN
        if kind is FaultKind.CLOCK_WRONG:
            when += timedelta(days=rng.choice((-365, 365)))
        if kind is FaultKind.SERIAL_REUSED and terminal not in self._clean:
            terminal = next(iter(self._clean))
        twin: tuple[Key, ...] = ()
        psam_serial = None
        if kind is FaultKind.SERIAL_REUSED:
            psam_serial, other = self._clean.pop(terminal)
            twin = (other,)
        grey = kind in (FaultKind.GREY_UNPAID, FaultKind.GREY_PAID)
        raised = amount + 100 if kind is FaultKind.TAC_WRONG and rng.random() < 0.5 else None
        raw, key = self._record(
            card, terminal, amount, when, grey=grey, psam_serial=psam_serial, raised_fen=raised
        )
        if kind is FaultKind.TAC_WRONG and raised is None:
            raw = _resealed(_turned(raw, 55 + rng.randrange(4), rng.randrange(8)))
        if kind is FaultKind.CRC_BROKEN:
            raw = _turned(raw, 30 + rng.randrange(8), rng.randrange(8))
        if kind is not FaultKind.LOST:
            days[day, terminal].append(raw)
        if kind is FaultKind.DUPLICATE:
            self._again.append((day + rng.randrange(3), terminal, raw))
        if kind is FaultKind.CLONE:
            elsewhere = terminal % self.terminals + 1
            second, other = self._record(card, elsewhere, amount, when + timedelta(minutes=15))
            days[day, elsewhere].append(second)
            twin = (other,)
        if kind is FaultKind.GREY_UNPAID:  # the card comes back and pays under the same counter
            second, _ = self._record(card, terminal, amount, when + timedelta(minutes=1))
            days[day, terminal].append(second)
        self._move(card, amount)
        return (key, *twin)

    def _move(self, card: int, amount: int) -> None:
        self._atc[card] += 1
        self._balance_fen[card] -= amount

    def _record(
        self,
        card: int,
        terminal: int,
        amount: int,
        when: datetime,
        *,
        grey: bool = False,
        psam_serial: int | None = None,
        raised_fen: int | None = None,
    ) -> tuple[bytes, Key]:
        """A record of the card as it is now. raised_fen: an amount that the TAC does not cover."""
        algorithm = crypto.Algorithm.SM4 if card % 2 else crypto.Algorithm.TRIPLE_DES
        if card not in self._cards:
            asn = bytes.fromhex("0" + pan_of(card))
            self._cards[card] = (asn, crypto.diversify(algorithm, self._masters[algorithm], asn[2:]))
        asn, dtk = self._cards[card]
        if psam_serial is None:
            self._psam_serial[terminal] += 1
            psam_serial = self._psam_serial[terminal]
        self._serial[terminal] += 1
        key = Key(terminal, self._serial[terminal])
        moment, psam, serial = bcd_moment(when), bytes.fromhex(psam_of(terminal)), psam_serial.to_bytes(4)
        signed = amount.to_bytes(4) + b"\x06" + psam + serial + moment
        stated = amount if raised_fen is None else raised_fen
        record = OfflineRecord(
            kind=RecordKind.GREY if grey else RecordKind.NORMAL,
            tti=6,
            algorithm_id=4 if card % 2 else 0,
            key_version=1,
            key_index=0x41 if card % 2 else 1,
            asn=asn,
            issuer_id=self._issuer,
            card_city=b"\x33\x50",
            card_type=1,
            card_subtype=0,
            offline_atc=self._atc[card],
            amount_fen=stated,
            balance_before_fen=self._balance_fen[card],
            moment=moment,
            psam_number=psam,
            psam_serial=serial,
            tac=GREY_TAC if grey else crypto.tac(algorithm, dtk, signed),
            full_fare_fen=stated,
            phase=Phase.NONE,
            place=self._places[terminal],
        )
        return record.pack(key.serial), key

    def uploads(self) -> Iterator[Upload]:
        """Everything that the terminals send: one upload for each day of each, some later than others. Empties the city."""
        rng = random.Random(self._rng.random())
        again: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
        for day, terminal, raw in self._again:
            again[day, terminal].append(raw)
        waiting = [
            (day + rng.random() * 1.5, terminal, tuple(raws)) for (day, terminal), raws in self._days.items()
        ]
        waiting += [
            (day + rng.random() * 1.5, terminal, tuple(raws)) for (day, terminal), raws in again.items()
        ]
        self._days.clear()
        waiting.sort(key=lambda one: one[:2], reverse=True)
        while waiting:
            _, terminal, raws = waiting.pop()
            yield Upload(terminal, raws)


def _turned(raw: bytes, byte: int, bit: int) -> bytes:
    turned = bytearray(raw)
    turned[byte] ^= 1 << bit
    return bytes(turned)


def _resealed(raw: bytes) -> bytes:
    """The same with a CRC that fits."""
    return raw[:-2] + crc16(raw[:-2]).to_bytes(2)
