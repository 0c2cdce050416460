"""Serials of journal entries, and the retrieval reference 檢索參考號 (field 37) made from them.

A serial is unique for ever; processes get them in blocks from one sequence, so a crash leaves a hole and never a pair.
"""

from datetime import datetime
from functools import lru_cache

from switch.domain.calendar import SHANGHAI

BLOCK = 10_000
# A message to a host is named by its second and a trace number of six digits, made of a serial. A hundred blocks later those come again,
# so no writer may use a block for so long that others take a hundred meanwhile: here they would need 100 000 serials a second.
HELD_MAX_S = 10.0
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]
_PERIOD = 36**6  # 2.2 thousand million: the date and hour in front make a reference unique


def base36(serial: int) -> str:
    """Six base-36 characters of a serial.

    >>> base36(35), base36(36**6 + 1)
    ('00000Z', '000001')
    """
    high, low = divmod(serial % _PERIOD, 1296)
    top, middle = divmod(high, 1296)
    return _PAIRS[top] + _PAIRS[middle] + _PAIRS[low]


@lru_cache(maxsize=8)
def _hour_prefix(hour: int) -> str:
    instant = datetime.fromtimestamp(hour * 3600, SHANGHAI)
    return f"{instant.year % 10}{instant.timetuple().tm_yday:03d}{instant.hour:02d}"


def rrn_head(decided_at: datetime) -> str:
    """The first six characters of field 37, the same for every entry of an hour."""
    return _hour_prefix(int(decided_at.timestamp()) // 3600)


def rrn_of(entry_no: int, decided_at: datetime) -> str:
    """Field 37, `YDDDhhnnnnnn`: last digit of the year, day of the year, hour (Asia/Shanghai), serial in base 36.

    >>> from datetime import UTC
    >>> rrn_of(4, datetime(2024, 3, 15, 0, 15, 30, tzinfo=UTC))
    '407508000004'
    """
    return rrn_head(decided_at) + base36(entry_no)


class Serials:
    """Serials held by one writer. Ask `short_of(n)` before a batch, refill if it is, then take."""

    def __init__(self) -> None:
        self._next = 0
        self._end = 0
        self._since_s = 0.0

    def short_of(self, count: int) -> bool:
        """Whether fewer than `count` serials are left."""
        return self._end - self._next < count

    def held_too_long(self, now_s: float) -> bool:
        """Whether messages to hosts may no longer be named by this block. now_s: monotonic seconds."""
        return now_s - self._since_s > HELD_MAX_S

    def refill(self, block: int, now_s: float = 0.0) -> None:
        """Take over a block, the next value of the sequence entry_no_block. What was left of the old one is given up."""
        self._since_s = now_s
        self._end = block * BLOCK + 1
        self._next = self._end - BLOCK

    def take(self) -> int:
        """The next serial; only after short_of said there is one."""
        serial = self._next
        assert serial < self._end, "serials must be refilled before a batch"
        self._next = serial + 1
        return serial

    def take_many(self, count: int) -> int:
        """The first of `count` serials that follow each other; only after short_of said that there are as many."""
        serial = self._next
        assert serial + count <= self._end, "serials must be refilled before a batch"
        self._next = serial + count
        return serial
