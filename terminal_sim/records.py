"""Records that a validator writes: EPR1 for the switch (96 bytes) and ride records for the card (48 bytes).

Packed here by the simulator's own tables; the switch reads them with other code. Amounts in fen, digits as BCD.
"""

from datetime import datetime
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

GREY_TAC = b"\xff\xff\xff\xff"


class RecordKind(IntEnum):
    """Byte 2 of EPR1."""

    NORMAL = 0
    GREY = 1
    LOCKED = 2  # the card was locked because of the black list
    TEST = 0x0F


class Phase(IntEnum):
    """行程階段, byte 78 of EPR1."""

    NONE = 0
    ENTRY = 1
    EXIT = 2
    SUPPLEMENT = 3


class RideKind(IntEnum):
    """Byte 1 of a ride record on the card."""

    ENTRY = 3
    EXIT = 4
    SINGLE = 6
    SUPPLEMENT = 8


def crc16(data: bytes) -> int:
    """CRC-16/CCITT-FALSE: polynomial 1021, start FFFF.

    >>> f"{crc16(b'123456789'):04X}"
    '29B1'
    """
    crc = 0xFFFF
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ _CRC_TABLE[crc >> 8 ^ byte]
    return crc


def _crc_entry(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1 ^ 0x1021) & 0xFFFF if crc & 0x8000 else crc << 1
    return crc


_CRC_TABLE = tuple(_crc_entry(byte) for byte in range(256))


def bcd_moment(when: datetime) -> bytes:
    """YYYYMMDDhhmmss in seven bytes; the terminal's local time."""
    return bytes.fromhex(f"{when:%Y%m%d%H%M%S}")


class Place(NamedTuple):
    """Where a validator stands: the same in all its records. Digits are as they appear in hex."""

    acquirer: bytes  # 8: eight digits and FFFFFFFF
    city_code: str = "3350"
    industry: int = 2  # 01 metro, 02 bus
    line: str = "0001"
    station: str = "0000"
    vehicle: str = "00000000"
    driver: str = "00000000"


class OfflineRecord(NamedTuple):
    """EPR1 before packing."""

    kind: RecordKind
    tti: int
    algorithm_id: int
    key_version: int
    key_index: int
    asn: bytes  # 10
    issuer_id: bytes  # 8
    card_city: bytes  # 2
    card_type: int
    card_subtype: int
    offline_atc: int  # N as INITIALIZE returned it
    amount_fen: int
    balance_before_fen: int
    moment: bytes  # 7
    psam_number: bytes  # 6
    psam_serial: bytes  # 4
    tac: bytes  # 4
    full_fare_fen: int
    phase: Phase
    place: Place
    entry_station: str = "0000"
    upstream: bool = False
    transfer: bool = False

    def __repr__(self) -> str:  # the ASN is the PAN
        return f"OfflineRecord({self.kind.name}, ATC {self.offline_atc}, {self.amount_fen} fen)"

    def pack(self, serial: int) -> bytes:
        """Ninety-six bytes with the terminal's record serial and the CRC."""
        place = self.place
        head = _EPR1.pack(
            1,
            self.kind,
            self.tti,
            self.algorithm_id,
            self.key_version,
            self.key_index,
            self.asn,
            self.issuer_id,
            self.card_city,
            self.card_type,
            self.card_subtype,
            self.offline_atc,
            self.amount_fen,
            self.balance_before_fen,
            self.moment,
            self.psam_number,
            self.psam_serial,
            self.tac,
            serial,
            place.acquirer,
            bytes.fromhex(place.city_code),
            self.full_fare_fen,
            self.phase,
            place.industry,
            bytes.fromhex(place.line),
            bytes.fromhex(place.station),
            bytes.fromhex(self.entry_station),
            bytes.fromhex(place.vehicle),
            bytes.fromhex(place.driver),
            int(self.upstream) | int(self.transfer) << 1,
        )
        return head + crc16(head).to_bytes(2)


_EPR1 = Struct(">6B10s8s2s2BH2I7s6s4s4sI8s2sI2B2s2s2s4s4sB")
assert _EPR1.size == 94


class RideRecord(NamedTuple):
    """A record of the card's ride log 1E. station travels in the two first reserved bytes."""

    kind: RideKind
    psam_number: bytes
    place: Place
    amount_fen: int
    balance_after_fen: int
    moment: bytes
    station: str = "0000"
    max_fare_fen: int = 0
    max_minutes: int = 0

    def pack(self) -> bytes:
        """Forty-eight bytes."""
        place = self.place
        return _RIDE.pack(
            self.kind,
            bytes(2) + self.psam_number,
            place.industry,
            bytes.fromhex(place.line.rjust(8, "0")),
            bytes.fromhex(self.station) + bytes(1),
            self.amount_fen,
            self.balance_after_fen,
            self.moment,
            bytes.fromhex(place.city_code),
            place.acquirer,
            self.max_fare_fen,
            self.max_minutes,
        )


_RIDE = Struct(">B8sB4s3sII7s2s8sIH")
assert _RIDE.size == 48


class Ride(NamedTuple):
    """A ride record as a validator reads it from a card."""

    kind: int
    line: str
    station: str
    moment: datetime
    max_fare_fen: int
    max_minutes: int


def read_ride(record: bytes) -> Ride | None:
    """Read a ride record from a card; None when its length or its moment is none."""
    if len(record) != _RIDE.size:
        return None
    kind, _, _, line, reserved, _, _, moment, _, _, max_fare_fen, max_minutes = _RIDE.unpack(record)
    try:
        when = datetime.strptime(moment.hex(), "%Y%m%d%H%M%S")  # noqa: DTZ007 - the card knows no zone
    except ValueError:
        return None
    return Ride(kind, line.hex()[4:], reserved[:2].hex(), when, max_fare_fen, max_minutes)


class OpenEntry(NamedTuple):
    """The newest ride record of a card that entered and has not left."""

    entered: datetime
    station: str
    max_fare_fen: int
    max_minutes: int


def open_entry(record: bytes) -> OpenEntry | None:
    """Read a ride record from a card; None when it is not an entry or cannot be read."""
    ride = read_ride(record)
    if ride is None or ride.kind != RideKind.ENTRY:
        return None
    return OpenEntry(ride.moment, ride.station, ride.max_fare_fen, ride.max_minutes)
