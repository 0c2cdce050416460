"""A bus or gate validator 車載機/閘機: a card, a PSAM, a fare; out comes an offline record for the switch.

Before DEBIT it keeps a grey record 灰記錄; a good answer makes it a normal one. When the card has vanished in between, the
record waits for the card to come back and is settled by what the card says, or leaves as it is. Record serials are given
when a record leaves, so that a dropped grey record leaves no gap. Moments are local times without a zone, as on the device.
"""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from terminal_sim.apdu import Sw
from terminal_sim.crypto import Algorithm
from terminal_sim.personalisation import ENABLED
from terminal_sim.pos_batch import NotNowError
from terminal_sim.psam import Psam
from terminal_sim.reading import CardFacts, CardRejectedError, Reader, ask, body_of, read_facts
from terminal_sim.records import (
    GREY_TAC,
    OfflineRecord,
    Phase,
    Place,
    RecordKind,
    RideKind,
    RideRecord,
    bcd_moment,
    open_entry,
)
from terminal_sim.tariff import Price, Tariff

PURCHASE, CAPP = 0x06, 0x09
GREY_WINDOW = timedelta(seconds=120)
RECORDS_MAX = 5_000
GREY_MAX = 500
_RIDE_KIND = {
    Phase.NONE: RideKind.SINGLE,
    Phase.ENTRY: RideKind.ENTRY,
    Phase.EXIT: RideKind.EXIT,
    Phase.SUPPLEMENT: RideKind.SUPPLEMENT,
}


@dataclass(slots=True)
class Rules:
    """Whom the validator lets ride. hot_list: ASN -> level, 0 refuse, 1 lock the purse application.

    list_fresh_at: when the switch last said that this hot list is in force; None: a device without that rule. list_days: how long
    that is believed (tag 30).
    """

    issuers: Collection[bytes]
    own_city: bytes = bytes.fromhex("3350")
    known_cities: Collection[bytes] = ()
    hot_list: Mapping[str, int] = field(default_factory=dict)
    key_indexes: tuple[int, ...] = (0x41, 0x01)  # in order of preference
    list_fresh_at: datetime | None = None
    list_days: int = 7
    purchase_max_fen: int = 100_000  # parameter 28


class Ride(NamedTuple):
    """A completed payment. repaired: it was a grey record that the card has now proved."""

    record: OfflineRecord
    repaired: bool = False


class _Started(NamedTuple):
    key_index: int
    balance_fen: int
    atc: int
    version: int
    algorithm: Algorithm
    random: bytes


class Validator:
    """One device with one PSAM. `ride`, `enter` and `leave` serve a card; `take_records` empties its memory."""

    def __init__(
        self,
        psam: Psam,
        place: Place,
        rules: Rules,
        *,
        next_serial: int = 1,
        test: bool = False,
        tariff: Tariff | None = None,
        upstream: bool = False,
    ) -> None:
        """test: every record is of kind 0F. upstream: the direction the vehicle goes in; it may change."""
        self.psam = psam
        self.place = place
        self.rules = rules
        self._normal = RecordKind.TEST if test else RecordKind.NORMAL
        self.tariff = tariff or Tariff()
        self.upstream = upstream
        self._next_serial = next_serial
        self._done: deque[OfflineRecord] = deque()
        self._grey: dict[str, OfflineRecord] = {}

    @property
    def records_waiting(self) -> int:
        """Records that may leave."""
        return len(self._done)

    @property
    def grey_waiting(self) -> int:
        """Grey records that wait for their card."""
        return len(self._grey)

    def take_records(self, *, with_grey: bool = False) -> list[bytes]:
        """Packed records in order, with their serials; with_grey: also those whose card has not come back."""
        if with_grey:
            self._done.extend(self._grey.values())
            self._grey.clear()
        packed = []
        while self._done:
            packed.append(self._done.popleft().pack(self._next_serial))
            self._next_serial += 1
        return packed

    # --- rides --------------------------------------------------------------------------------------------------

    def ride(
        self,
        card: Reader,
        fare_fen: int,
        when: datetime,
        *,
        full_fare_fen: int | None = None,
        capp: bool = False,
    ) -> Ride:
        """A flat fare: plain purchase or, with capp, one CAPP with a ride record on the card.

        CardRejectedError when nothing was taken, CardGoneError when that is not known.
        """
        facts = self._accepted(card, when)
        repaired = self._repaired(card, facts, when)
        if repaired is not None and _just_now(repaired, when):
            return Ride(repaired, repaired=True)
        price = Price(fare_fen, fare_fen if full_fare_fen is None else full_fare_fen)
        return self._pay(card, facts, price, when, Phase.NONE, CAPP if capp else PURCHASE, "0000")

    def board(self, card: Reader, full_fare_fen: int, when: datetime) -> Ride:
        """上車: a flat fare by the tariff, with the card's discounts; CAPP, so that the next ride knows of this one."""
        facts = self._accepted(card, when)
        repaired = self._repaired(card, facts, when)
        if repaired is not None and _just_now(repaired, when):
            return Ride(repaired, repaired=True)
        transfer = self.tariff.is_transfer(_ride_record(card, 1), self.place.line, when)
        price = self._price(facts, full_fare_fen, transfer=transfer)
        return self._pay(card, facts, price, when, Phase.NONE, CAPP, "0000")

    def enter(self, card: Reader, when: datetime) -> list[Ride]:
        """進站: amount 0; a trip that was never completed is charged first, as a supplement.

        Whether the trip begins as a transfer is known only now: the entry record covers the ride before it on the card.
        """
        facts = self._accepted(card, when)
        repaired = self._repaired(card, facts, when)
        rides = []
        if repaired is not None:
            rides.append(Ride(repaired, repaired=True))
            if repaired.phase is Phase.ENTRY and _just_now(repaired, when):
                return rides
        newest = _ride_record(card, 1)
        before = open_entry(newest)
        if before is not None:
            fare = before.max_fare_fen
            price = Price(fare, fare)
            rides.append(self._pay(card, facts, price, when, Phase.SUPPLEMENT, CAPP, before.station))
        entry = Price(0, 0, self.tariff.is_transfer(newest, self.place.line, when))
        rides.append(self._pay(card, facts, entry, when, Phase.ENTRY, CAPP, self.place.station))
        return rides

    def leave(self, card: Reader, fare_fen: int | None, when: datetime) -> Ride:
        """出站: the fare (None: by distance), or the maximum when there is no entry or it is too long ago."""
        facts = self._accepted(card, when)
        repaired = self._repaired(card, facts, when)
        if repaired is not None and repaired.phase is not Phase.ENTRY and _just_now(repaired, when):
            return Ride(repaired, repaired=True)
        entry = open_entry(_ride_record(card, 1))
        if entry is None:
            top = self.tariff.max_fare_fen
            return self._pay(card, facts, Price(top, top), when, Phase.SUPPLEMENT, CAPP, "0000")
        if when - entry.entered > timedelta(minutes=entry.max_minutes):
            top = entry.max_fare_fen
            return self._pay(card, facts, Price(top, top), when, Phase.SUPPLEMENT, CAPP, entry.station)
        if fare_fen is None:
            full_fen = self.tariff.distance_fen(entry.station, self.place.station)
            # As it was at the entry, whose own record covers the ride before it.
            transfer = self.tariff.is_transfer(_ride_record(card, 2), self.place.line, entry.entered)
            price = self._price(facts, full_fen, transfer=transfer)
        else:
            price = Price(fare_fen, fare_fen)
        return self._pay(card, facts, price, when, Phase.EXIT, CAPP, entry.station)

    def _price(self, facts: CardFacts, full_fen: int, *, transfer: bool) -> Price:
        own = facts.city_code == self.rules.own_city
        return self.tariff.price(full_fen, card_type=facts.card_type, own_city=own, transfer=transfer)

    # --- the card's papers --------------------------------------------------------------------------------------

    def _accepted(self, card: Reader, when: datetime) -> CardFacts:
        rules = self.rules
        if rules.list_fresh_at is not None and when - rules.list_fresh_at > timedelta(days=rules.list_days):
            raise NotNowError("hot list is too old: fetch it first")
        facts = read_facts(card)
        if facts.enabled != ENABLED:
            raise CardRejectedError("card is not enabled")
        if not facts.valid_from <= f"{when:%Y%m%d}" <= facts.valid_to:
            raise CardRejectedError("outside the card's dates")
        if facts.issuer_id not in rules.issuers:
            raise CardRejectedError("issuer is not on the white list")
        if facts.asn in rules.hot_list:
            if rules.hot_list[facts.asn] == 1:
                self._lock(card, facts, when)
            raise CardRejectedError("card is on the black list")
        if facts.city_code != rules.own_city and not (
            facts.interoperable and facts.city_code in rules.known_cities
        ):
            raise CardRejectedError("city is unknown or the card is local")
        return facts

    def _lock(self, card: Reader, facts: CardFacts, when: datetime) -> None:
        """APPLICATION BLOCK by the PSAM's maintenance key, and a record of it."""
        started = self._initialize(card, 0, PURCHASE)
        challenge = ask(card, bytes.fromhex("0084000004"), "GET CHALLENGE")
        header = bytes.fromhex("841E0000")
        command = self.psam.maintenance_command(
            started.version, started.algorithm, facts.issuer_id, facts.asn, challenge, header
        )
        ask(card, command, "APPLICATION BLOCK")
        record = self._record(facts, started, Price(0, 0), when, Phase.NONE, PURCHASE, bytes(4), "0000")
        self._finish(record._replace(kind=RecordKind.LOCKED, tac=bytes(4)))

    # --- paying -------------------------------------------------------------------------------------------------

    def _initialize(self, card: Reader, amount_fen: int, tti: int) -> _Started:
        mode = 0x01 if tti == PURCHASE else 0x03
        for key_index in self.rules.key_indexes:
            data = bytes((key_index,)) + amount_fen.to_bytes(4) + self.psam.number
            answer = card.transmit(bytes((0x80, 0x50, mode, 0x02, 0x0B)) + data + b"\x0f")
            if int.from_bytes(answer[-2:]) != Sw.KEY_INDEX:
                body = body_of(answer, "INITIALIZE")
                return _Started(
                    key_index,
                    int.from_bytes(body[:4]),
                    int.from_bytes(body[4:6]),
                    body[9],
                    Algorithm(body[10]),
                    body[11:15],
                )
        raise CardRejectedError("card has none of this validator's key sets", Sw.KEY_INDEX)

    def _pay(
        self,
        card: Reader,
        facts: CardFacts,
        price: Price,
        when: datetime,
        phase: Phase,
        tti: int,
        entry_station: str,
    ) -> Ride:
        fare_fen = price.fare_fen
        if fare_fen > self.rules.purchase_max_fen:
            raise CardRejectedError("fare is above the offline limit")
        if len(self._done) + len(self._grey) >= RECORDS_MAX or len(self._grey) >= GREY_MAX:
            raise NotNowError("record memory is full: upload first")
        moment = bcd_moment(when)
        started = self._initialize(card, fare_fen, tti)
        data = b"".join(
            (
                started.random,
                started.atc.to_bytes(2),
                fare_fen.to_bytes(4),
                bytes((tti,)),
                moment,
                bytes((started.version, started.algorithm)),
                bytes.fromhex(facts.asn[-16:]),
                facts.issuer_id,
            )
        )
        answer = ask(self.psam, b"\x80\x70\x00\x00\x24" + data + b"\x08", "INIT SAM")
        psam_serial, mac1 = answer[:4], answer[4:]
        if tti == CAPP:
            ride = RideRecord(
                _RIDE_KIND[phase],
                self.psam.number,
                self.place,
                fare_fen,
                started.balance_fen - fare_fen,
                moment,
                entry_station,
                self.tariff.max_fare_fen,
                self.tariff.max_minutes,
            )
            ask(card, b"\x80\xdc\x00\xf0\x30" + ride.pack(), "UPDATE CAPP")
        grey = self._record(facts, started, price, when, phase, tti, psam_serial, entry_station)
        self._grey[facts.asn] = grey
        try:
            answer = ask(card, b"\x80\x54\x01\x00\x0f" + psam_serial + moment + mac1 + b"\x08", "DEBIT")
        except CardRejectedError:
            del self._grey[facts.asn]  # the card said no: nothing was taken
            raise
        ask(self.psam, b"\x80\x72\x00\x00\x04" + answer[4:], "CREDIT SAM")  # a false card's record stays grey
        return Ride(self._settled(facts.asn, answer[:4]))

    def _record(
        self,
        facts: CardFacts,
        started: _Started,
        price: Price,
        when: datetime,
        phase: Phase,
        tti: int,
        psam_serial: bytes,
        entry_station: str,
    ) -> OfflineRecord:
        return OfflineRecord(
            RecordKind.GREY,
            tti,
            started.algorithm,
            started.version,
            started.key_index,
            bytes.fromhex(facts.asn),
            facts.issuer_id,
            facts.city_code,
            facts.card_type,
            0,
            started.atc,
            price.fare_fen,
            started.balance_fen,
            bcd_moment(when),
            self.psam.number,
            psam_serial,
            GREY_TAC,
            price.full_fare_fen,
            phase,
            self.place,
            entry_station,
            self.upstream,
            price.transfer,
        )

    def _settled(self, asn: str, tac: bytes) -> OfflineRecord:
        record = self._grey.pop(asn)._replace(kind=self._normal, tac=tac)
        self._finish(record)
        return record

    def _finish(self, record: OfflineRecord) -> None:
        self._done.append(record)

    def _repaired(self, card: Reader, facts: CardFacts, when: datetime) -> OfflineRecord | None:
        """What became of this card's grey record: proved and finished, dropped, or left to be uploaded as it is."""
        grey = self._grey.get(facts.asn)
        if grey is None:
            return None
        answer = card.transmit(bytes.fromhex("00B201C417"))
        if answer[-2:] == b"\x90\x00" and _logged(answer[:-2], grey):
            atc = (grey.offline_atc + 1).to_bytes(2)
            proof = card.transmit(bytes((0x80, 0x5A, 0x00, grey.tti, 0x02)) + atc + b"\x08")
            if proof[-2:] == b"\x90\x00":
                return self._settled(facts.asn, proof[4:8])
        balance_fen = int.from_bytes(ask(card, bytes.fromhex("805C000204"), "GET BALANCE"))
        # An entry costs nothing, so the balance alone cannot tell: the counter must not have moved either.
        if (
            balance_fen == grey.balance_before_fen
            and self._initialize(card, 0, grey.tti).atc == grey.offline_atc
        ):
            del self._grey[facts.asn]
        else:
            self._finish(self._grey.pop(facts.asn))
        return None


def _ride_record(card: Reader, place: int) -> bytes:
    """A record of the card's ride log, 1 is the newest; empty when there is none."""
    answer = card.transmit(bytes((0x00, 0xB2, place, 0xF4, 0x30)))
    return answer[:-2] if answer[-2:] == b"\x90\x00" else b""


def _logged(log: bytes, grey: OfflineRecord) -> bool:
    """Whether a purse log record is the transaction of a grey record: terminal, amount, time within 120 s."""
    same = (
        int.from_bytes(log[:2]) == grey.offline_atc + 1
        and int.from_bytes(log[5:9]) == grey.amount_fen
        and log[9] == grey.tti
        and log[10:16] == grey.psam_number
    )
    return same and abs(_moment(log[16:23]) - _moment(grey.moment)) <= GREY_WINDOW


def _just_now(record: OfflineRecord, when: datetime) -> bool:
    """Whether a repaired record is the ride the passenger is still waiting for, and not an older one."""
    return abs(when - _moment(record.moment)) <= GREY_WINDOW


def _moment(bcd: bytes) -> datetime:
    return datetime.strptime(bcd.hex(), "%Y%m%d%H%M%S")  # noqa: DTZ007 - cards and validators know no zone
