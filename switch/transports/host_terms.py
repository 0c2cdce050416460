"""What a host link is given: its terms, its keys, and who counts."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from switch.domain.transactions import PinFormat
from switch.messages.dialect import Dialect
from switch.messages.host_mapping import Parties
from switch.transports.breaker import BreakerTerms


class HostKeys(Protocol):
    """The keys of the link: `keys.zone.ZoneKeys`."""

    @property
    def pin_key(self) -> tuple[str, PinFormat]:
        """Name of the ZPK in use and the format of its blocks."""

    def mac(self, mab: bytes) -> bytes:
        """Eight bytes."""

    def verify(self, mab: bytes, mac: bytes) -> None:
        """Return None or raise MacMismatch."""

    def key_change(self) -> bytes | None:
        """Field 62 of a key change, when keys wait to be sent."""


class HostWatch(Protocol):
    """What operators count about hosts."""

    def host_ended(self, host: str, end: str, seconds: float) -> None:
        """A request ended: field 39 of its answer, or the name of what went wrong, in small letters."""

    def host_strange(self, host: str, what: str) -> None:
        """Something came that ends nothing: `late`, `twice`, `nowhere`, `mac`, `unreadable`, `unusable`, `request`."""

    def host_line_closed(self, host: str, reason: str) -> None:
        """A connection ended: `lost`, `framing`, `session`, `full`, `keys`, `stopping`, or never began: `connect`."""


@dataclass(frozen=True, slots=True)
class LinkTerms:
    """One host: where it is, how it speaks, and what it may take of us. Seconds, unless said otherwise."""

    name: str
    host: str
    port: int
    dialect: Dialect
    parties: Parties
    connections: int = 2
    in_flight_max: int = 1_000
    answer_s: float = 15.0  # terminals give up at 60, and the reversal must be stored before that
    connect_s: float = 5.0
    network_answer_s: float = 10.0
    quiet_s: float = 30.0
    reconnect_min_s: float = 0.2
    reconnect_max_s: float = 30.0
    remember_s: float = 600.0
    remembered_max: int = 16_384
    breaker: BreakerTerms = field(default_factory=BreakerTerms)
    retry_ratio: float = 0.2  # repeats that an answer pays for
    retry_per_s: float = 10.0
    retry_saved_max: float = 100.0


class HostFigures(NamedTuple):
    """What a link looks like now."""

    lines: int
    in_flight: int
    breaker: int
    remembered: int
