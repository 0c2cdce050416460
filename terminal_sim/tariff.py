"""What a ride costs: distance, the maximum for trips that are never completed, the city's discount, the discount of a transfer.

Pure: facts about card and trip go in, fen come out. What a validator charges and what the full fare was both go into the
record, so that whoever pays the difference can be told how much it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from terminal_sim.records import RideKind, read_ride

_COMPLETED = frozenset({RideKind.EXIT, RideKind.SINGLE})


class Price(NamedTuple):
    """What is charged, what it would have been without discounts, and whether a transfer made it less. Fen."""

    fare_fen: int
    full_fare_fen: int
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class Tariff:
    """The operator's fares; a set of parameters that validators are given.

    steps: (stations apart at most, fen), rising; farther costs the last. percent_of_type: what cards of a type pay, of cards of
    this city only. transfer_fen: taken off a ride that begins within transfer_minutes of the end of another on another line.
    """

    steps: tuple[tuple[int, int], ...] = ((4, 200), (8, 300), (13, 400), (19, 500))
    max_fare_fen: int = 1_000
    max_minutes: int = 240
    percent_of_type: Mapping[int, int] = field(default_factory=dict)
    transfer_fen: int = 0
    transfer_minutes: int = 90

    def __post_init__(self) -> None:
        stations = [upto for upto, _ in self.steps]
        if not stations or stations != sorted(set(stations)):
            raise ValueError("steps: stations must rise")
        if not all(0 <= percent <= 100 for percent in self.percent_of_type.values()):
            raise ValueError("percent_of_type: 0 to 100")

    def distance_fen(self, entry_station: str, station: str) -> int:
        """The fare between two stations of a line, which are numbered along it, never above the maximum.

        >>> Tariff().distance_fen("0103", "0109")
        300
        """
        apart = abs(int(station) - int(entry_station))
        fare_fen = next((fen for upto, fen in self.steps if apart <= upto), self.steps[-1][1])
        return min(fare_fen, self.max_fare_fen)

    def price(self, full_fen: int, *, card_type: int, own_city: bool, transfer: bool) -> Price:
        """The city's discount first, then that of the transfer; whole fen, rounded up, never below nothing."""
        percent = self.percent_of_type.get(card_type, 100) if own_city else 100
        fare_fen = -(-full_fen * percent // 100)
        if not transfer:
            return Price(fare_fen, full_fen)
        return Price(max(fare_fen - self.transfer_fen, 0), full_fen, self.transfer_fen > 0)

    def is_transfer(self, newest_ride: bytes, line: str, when: datetime) -> bool:
        """Whether the newest ride record of a card ended on another line a short while ago. line: of this validator."""
        ride = read_ride(newest_ride)
        if ride is None or ride.kind not in _COMPLETED or ride.line == line:
            return False
        return timedelta(0) <= when - ride.moment <= timedelta(minutes=self.transfer_minutes)
