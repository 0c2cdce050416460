"""How often a token may ask, per process: a bucket that fills by itself."""

from collections import OrderedDict
from typing import Final

PER_S: Final = 20.0
BURST: Final = 40.0
BUCKETS_MAX: Final = 1_000


class Rate:
    """Buckets by token number. Pure: whoever asks says what time it is."""

    def __init__(self, per_s: float = PER_S, burst: float = BURST, buckets_max: int = BUCKETS_MAX) -> None:
        self._per_s = per_s
        self._burst = burst
        self._buckets_max = buckets_max
        self._buckets: OrderedDict[int, tuple[float, float]] = OrderedDict()

    def wait_s(self, token_no: int, now_s: float) -> float:
        """0.0 when it may be answered now, else after how many seconds it may ask again."""
        left, since_s = self._buckets.pop(token_no, (self._burst, now_s))
        left = min(self._burst, left + (now_s - since_s) * self._per_s)
        allowed = left >= 1.0
        self._buckets[token_no] = (left - 1.0 if allowed else left, now_s)
        if len(self._buckets) > self._buckets_max:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self._per_s
