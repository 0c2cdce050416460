"""Hosts as routing sees them: a link takes a request and gives its end. `transports/host_link.py` implements it.

What routing and its outbox may count on:

* `ask` returns by its deadline, whatever the host does, and raises only when the PIN block cannot be read (PinBlockError)
  or the request contradicts itself (ValueError); in both cases nothing was sent.
* HostDown: nothing was sent. HostTimeout: the host may have done it; store the reversal before the terminal is told.
* An answer to a request that ended in HostTimeout, or whose asking task is gone, comes to `on_late`, once.
* The link never sends anything twice by itself. A repeat is asked again by its owner, with the same key, as `repeat`.
"""

from collections.abc import Callable
from typing import Protocol

from switch.domain.hosts import HostOutcome, HostRequest, LateAnswer, PinUnder

# Called in the event loop, before anything else is read from the host: it stores or queues and returns.
OnLate = Callable[[LateAnswer], None]


class HostLink(Protocol):
    """The way to one host."""

    @property
    def name(self) -> str:
        """As the settings call the host."""

    @property
    def usable(self) -> bool:
        """Whether a request would be sent now. A hint for choosing among destinations; `ask` decides."""

    async def ask(
        self, request: HostRequest, *, deadline_s: float, pin: PinUnder | None = None, repeat: bool = False
    ) -> HostOutcome:
        """Send a request and wait for its end.

        deadline_s: monotonic seconds, from the one instant of the transaction; the link's own time-out may be sooner.
        repeat: this message has been sent before; such ones are limited by the retry budget.
        """
