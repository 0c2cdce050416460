"""All hosts of one process: their links by name, and the keys that partners have proved, which all links then use.

A host whose keys are missing gets no link and is said so; the others are not kept from serving by it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import structlog

from switch.domain.errors import DependencyError, SwitchError
from switch.keys.vault import Vault
from switch.keys.zone import Generation, ZoneKeys
from switch.routing.hosts import OnLate
from switch.transports.host_link import TcpHostLink
from switch.transports.host_terms import HostFigures, HostWatch, LinkTerms

log = structlog.get_logger(__name__)

RETRY_S = 5.0

# Activates a generation of a partner's keys for good, and lets the vault know. DependencyError: try again later.
Activate = Callable[[Generation, str], Awaitable[None]]


class HostsWatch(HostWatch, Protocol):
    """What operators see of hosts."""

    def watch_host(self, host: str, read: Callable[[], HostFigures]) -> None:
        """Show what somebody else keeps about a host."""


class HostLinks:
    """Use: start(); links by name; stop()."""

    def __init__(
        self,
        hosts: Sequence[tuple[LinkTerms, int]],
        vault: Vault,
        watch: HostsWatch,
        on_late: OnLate,
        activate: Activate,
    ) -> None:
        """hosts: each with the id of its MAC algorithm, 1 to 5."""
        self.links: dict[str, TcpHostLink] = {}
        self._keys: list[ZoneKeys] = []
        self._activate = activate
        self._activating: set[asyncio.Task[None]] = set()
        for terms, mac_id in hosts:
            partner = terms.parties.receiver
            try:
                keys = ZoneKeys(vault, partner, mac_id, partial(self._proved, partner))
            except SwitchError as error:
                log.error("a host has no usable keys and no link", host=terms.name, rule=str(error))  # noqa: TRY400
                continue
            self._keys.append(keys)
            link = self.links[terms.name] = TcpHostLink(terms, keys, watch, on_late)
            watch.watch_host(terms.name, link.figures)

    async def start(self) -> None:
        """Begin to connect; returns at once, whatever the hosts do."""
        for link in self.links.values():
            await link.start()

    async def stop(self) -> None:
        """Sign off everywhere at once."""
        await asyncio.gather(*(link.stop() for link in self.links.values()))
        for task in self._activating:
            task.cancel()
        await asyncio.gather(*self._activating, return_exceptions=True)

    def _proved(self, partner: str, pair: Generation) -> None:
        task = asyncio.get_running_loop().create_task(self._put_in_force(pair, partner))
        self._activating.add(task)
        task.add_done_callback(self._activating.discard)

    async def _put_in_force(self, pair: Generation, partner: str) -> None:
        """Until it is done: both sides have the keys, and the partner takes the old ones until it hears of the new."""
        while True:
            try:
                await self._activate(pair, partner)
                break
            except DependencyError as error:
                log.warning("new keys are not in force yet; tried again", partner=partner, rule=str(error))
                await asyncio.sleep(RETRY_S)
            except SwitchError as error:  # an operator has retired them meanwhile: the old ones go on
                log.error("proved keys cannot be activated", partner=partner, rule=str(error))  # noqa: TRY400
                return
        for keys in self._keys:
            try:
                keys.refresh()
            except (
                SwitchError
            ) as error:  # another partner's, changed by a ceremony: its link refuses what it is asked
                log.error("a host has no usable keys", rule=str(error))  # noqa: TRY400
        log.info("new keys are in force", partner=partner, zak=pair.zak, zpk=pair.zpk)
