"""Which links lead to whom: from an institution of the registry to the hosts that the settings name.

A bank may have several links, say one of each of its centres; they are in the order of the settings, the first preferred.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from switch.routing.destinations import Destination, Way


class NamedHost(Protocol):
    """What of a host's settings is looked at."""

    @property
    def name(self) -> str:
        """As routes call it."""

    @property
    def institution(self) -> str:
        """Whose it is, 8 to 11 digits."""


class HostNames:
    """The hosts of the settings by name and by institution. Whether they can be reached is not its concern."""

    def __init__(self, hosts: Iterable[NamedHost] = ()) -> None:
        self.names: frozenset[str] = frozenset()
        found: dict[int, tuple[Destination, ...]] = {}
        for host in hosts:
            self.names |= {host.name}
            number = int(
                host.institution
            )  # field 100 may have zeros in front, the registry's eight digits do not
            found[number] = (*found.get(number, ()), Destination(Way.HOST, host.name))
        self._of: Mapping[int, tuple[Destination, ...]] = found

    def of_institution(self, institution_id: str) -> tuple[Destination, ...]:
        """Its hosts; none when it has no link."""
        return self._of.get(int(institution_id), ()) if institution_id.isdecimal() else ()

    def names_of(self, destination: Destination) -> tuple[str, ...]:
        """The links behind a destination, in the order in which they are preferred; none behind the ledger or a refusal."""
        if destination.way is Way.HOST:
            return (destination.name,) if destination.name in self.names else ()
        if destination.way is Way.CITY:
            return tuple(host.name for host in self.of_institution(destination.name))
        return ()

    def has(self, destination: Destination) -> bool:
        """Whether this switch has a link to it."""
        return bool(self.names_of(destination))
