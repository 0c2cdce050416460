"""The business day 清算日, and the day on which its money moves. Pure: instants and calendars go in.

Clearing date D covers [D-1 cut-off, D cut-off) of switch time in Asia/Shanghai, 23:00 by default; terminal time never
decides. While the service runs, the stored end of each day in the database decides (ledger); this file says where that
end is when nobody moved it.
"""

from collections.abc import Callable, Collection
from datetime import UTC, date, datetime, time, timedelta, timezone

SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")  # no daylight saving since 1991
CUT_OFF = time(23, 0)

__all__ = [
    "CUT_OFF",
    "SHANGHAI",
    "UTC",
    "clearing_date",
    "day_bounds",
    "end_of_days",
    "settlement_date",
    "workday_by_lists",
]


def clearing_date(instant: datetime, cut_off: time = CUT_OFF) -> date:
    """The clearing date of an aware instant; an instant at the cut-off belongs to the next day."""
    local = instant.astimezone(SHANGHAI)
    return local.date() + timedelta(days=1) if local.time() >= cut_off else local.date()


def day_bounds(day: date, cut_off: time = CUT_OFF) -> tuple[datetime, datetime]:
    """First instant of a clearing date and the first after it, both aware."""
    end = datetime.combine(day, cut_off, SHANGHAI)
    return end - timedelta(days=1), end


def end_of_days(instant: datetime, days: int) -> datetime:
    """The first instant after a period of so many days: the day it begins on is not counted, the last counts to 24:00 in Shanghai.

    >>> end_of_days(datetime(2026, 11, 23, 15, 59, tzinfo=SHANGHAI), 30).isoformat()
    '2026-12-24T00:00:00+08:00'
    """
    last = instant.astimezone(SHANGHAI).date() + timedelta(days=days)
    return datetime.combine(last + timedelta(days=1), time(), SHANGHAI)


def workday_by_lists(holidays: Collection[date], extra_workdays: Collection[date]) -> Callable[[date], bool]:
    """A workday rule from a holiday list and a make-up-workday list 調休."""
    return lambda day: day in extra_workdays or (day.weekday() < 5 and day not in holidays)


def settlement_date(day: date, is_workday: Callable[[date], bool]) -> date:
    """T+1: the first workday after the clearing date. Looks at most 31 days ahead, or ValueError."""
    for ahead in range(1, 32):
        candidate = day + timedelta(days=ahead)
        if is_workday(candidate):
            return candidate
    raise ValueError("no workday within 31 days: the calendar is wrong")
