"""What a host sends that ends no request: counted each time, told rarely."""

from collections.abc import Callable

import structlog

from switch.transports.host_terms import HostWatch

log = structlog.get_logger(__name__)

LOG_EVERY_S = 1.0


class Oddities:
    """Those of one host."""

    def __init__(self, host: str, watch: HostWatch, now_s: Callable[[], float]) -> None:
        self._host = host
        self._watch = watch
        self._now_s = now_s
        self._logged_s = 0.0

    def met(self, what: str, error: Exception | None = None) -> None:
        """Count one; what: see HostWatch.host_strange."""
        self._watch.host_strange(self._host, what)
        self.tell("host sent what ends no request", what=what, rule=str(error or ""))

    def tell(self, event: str, **details: str) -> None:
        """One line a second at most: a host can send a million wrong messages."""
        now_s = self._now_s()
        if now_s - self._logged_s >= LOG_EVERY_S:
            self._logged_s = now_s
            log.warning(event, host=self._host, **details)
