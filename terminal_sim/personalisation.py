"""What a card is made of before it meets a terminal: its files and its keys, derived from the issuer's roots.

Files and offsets follow the PBOC purse as T-Union cards carry it (JT/T 978): public information 15h, holder 16h, management
17h. Keys come in sets, each with an index, a version and an algorithm: 3DES sets 01-05, SM4 sets 41-45.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from terminal_sim.crypto import Algorithm, KeyKind, diversify

PUBLIC_FILE, HOLDER_FILE, MANAGEMENT_FILE = 0x15, 0x16, 0x17
NOT_ENABLED, ENABLED, STOPPED = 0, 1, 2  # byte 10 of the public file


class CardKeySet(NamedTuple):
    """The keys of one card under one index. Shows none of them."""

    key_index: int
    version: int
    algorithm: Algorithm
    keys: Mapping[KeyKind, bytes]

    def __repr__(self) -> str:
        return f"CardKeySet(index={self.key_index:02X}, version={self.version}, {self.algorithm.name})"


class RootSet(NamedTuple):
    """The national roots behind one key set: 16 bytes for each kind that the cards shall have."""

    key_index: int
    version: int
    algorithm: Algorithm
    roots: Mapping[KeyKind, bytes]

    def __repr__(self) -> str:
        return f"RootSet(index={self.key_index:02X}, version={self.version}, {self.algorithm.name})"


class Issuer:
    """One issuer's personalisation centre: holds its own level of every root and derives cards from it."""

    def __init__(self, issuer_id: bytes, root_sets: Iterable[RootSet]) -> None:
        assert len(issuer_id) == 8
        self.issuer_id = issuer_id
        self._sets = [
            root_set._replace(
                roots={
                    kind: diversify(root_set.algorithm, root, issuer_id)
                    for kind, root in root_set.roots.items()
                }
            )
            for root_set in root_sets
        ]

    def card_keys(self, asn: str) -> tuple[CardKeySet, ...]:
        """All key sets of the card with this ASN (20 digits)."""
        diversifier = bytes.fromhex(asn[-16:])
        return tuple(
            CardKeySet(
                own.key_index,
                own.version,
                own.algorithm,
                {kind: diversify(own.algorithm, key, diversifier) for kind, key in own.roots.items()},
            )
            for own in self._sets
        )


@dataclass(frozen=True, slots=True)
class CardProfile:
    """The open data of a card. Codes are digits as in the files; the city code has four."""

    asn: str  # 20 digits
    issuer_id: bytes  # 8
    city_code: str = "3350"
    province_code: str = "3300"
    valid_from: date = date(2020, 1, 1)
    valid_to: date = date(2039, 12, 31)
    enabled: int = ENABLED
    interoperable: bool = True
    card_type: int = 1
    holder_name: str = ""
    document_number: str = ""
    document_type: int = 0

    def __post_init__(self) -> None:
        if not (len(self.asn) == 20 and self.asn.isascii() and self.asn.isdecimal()):
            raise ValueError("an ASN has 20 digits")
        if len(self.issuer_id) != 8:
            raise ValueError("an issuer id has 8 bytes")

    def __repr__(self) -> str:  # the ASN is the PAN
        return f"CardProfile(asn=…{self.asn[-4:]})"

    def files(self) -> dict[int, bytes]:
        """Contents of the three transparent files by short file id."""
        public = b"".join(
            (
                self.issuer_id,
                bytes((2, self.enabled)),
                bytes.fromhex(self.asn),
                bytes.fromhex(f"{self.valid_from:%Y%m%d}{self.valid_to:%Y%m%d}"),
                bytes(2),
            )
        )
        holder = b"".join(
            (
                bytes((self.card_type, 0)),
                self.holder_name.encode("gbk")[:20].ljust(20, b" "),
                self.document_number.encode("ascii")[:32].ljust(32, b" "),
                bytes((self.document_type,)),
            )
        )
        management = b"".join(
            (
                bytes.fromhex("00000156"),
                bytes.fromhex(self.province_code),
                bytes.fromhex(self.city_code),
                bytes((0, int(self.interoperable), self.card_type)),
                bytes(49),
            )
        )
        assert (len(public), len(holder), len(management)) == (30, 55, 60)
        return {PUBLIC_FILE: public, HOLDER_FILE: holder, MANAGEMENT_FILE: management}
