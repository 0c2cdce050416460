"""Workdays in the PRC: the public holiday calendar, and an operator's file over it.

The published calendar ends with the last year that the State Council has announced. A year it does not know is an error
and never a guess: weekends alone would move money on a holiday.
"""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import chinese_calendar
import orjson

from switch.domain.errors import ConfigurationError

WARN_DAYS = 45  # the State Council announces a year in November
_YEARS_AHEAD_MAX = 50


class WorkdayCalendar:
    """Says of each day whether banks settle on it.

    override: a JSON file `{"years": [2027], "holidays": ["2027-01-01", ...], "workdays": ["2027-02-06", ...]}`. Its
    holidays and make-up workdays 調休 go before everything; a year in `years` is described by it completely, so that
    the days it does not name follow the weekend.
    """

    def __init__(self, override: Path | None = None) -> None:
        self._years: frozenset[int] = frozenset()
        self._holidays: frozenset[date] = frozenset()
        self._workdays: frozenset[date] = frozenset()
        if override is not None:
            self._read(override)

    def _read(self, path: Path) -> None:
        try:
            content: dict[str, Any] = orjson.loads(path.read_bytes())
            unknown = content.keys() - {"years", "holidays", "workdays"}
            if unknown:
                raise ConfigurationError(f"{path}: unknown entry {min(unknown)}")
            self._years = frozenset(int(year) for year in content.get("years", ()))
            self._holidays = frozenset(date.fromisoformat(day) for day in content.get("holidays", ()))
            self._workdays = frozenset(date.fromisoformat(day) for day in content.get("workdays", ()))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{path}: not a calendar file: {error}") from error
        both = self._holidays & self._workdays
        if both:
            raise ConfigurationError(f"{path}: {min(both)} is both a holiday and a workday")

    def is_workday(self, day: date) -> bool:
        """Whether money moves on this day. Raises ConfigurationError for a year nobody has published."""
        if day in self._workdays:
            return True
        if day in self._holidays:
            return False
        if day.year in self._years:
            return day.weekday() < 5
        try:
            return bool(chinese_calendar.is_workday(day))
        except NotImplementedError as error:
            raise ConfigurationError(
                f"no holiday calendar for {day.year}: upgrade chinesecalendar or name the year in clearing.calendar_file"
            ) from error

    def known_until(self, day: date) -> date | None:
        """The last day up to which every day from this one on is known; None when this one is not."""
        last = None
        for year in range(day.year, day.year + _YEARS_AHEAD_MAX):
            if not (year in self._years or _published(year)):
                break
            last = date(year, 12, 31)
        return last


def _published(year: int) -> bool:
    try:
        chinese_calendar.is_workday(date(year, 1, 1))
    except NotImplementedError:
        return False
    return True


def horizon(calendar_file: Path | None, today: date) -> tuple[date | None, str]:
    """Until when the calendar knows, and what is wrong with that: empty while there is time. For health and the doctor."""
    try:
        until = WorkdayCalendar(calendar_file).known_until(today)
    except ConfigurationError as error:
        return None, str(error)
    if until is not None and until - today > timedelta(days=WARN_DAYS):
        return until, ""
    known = f"knows until {until}" if until else f"does not know {today.year}"
    return (
        until,
        f"the holiday calendar {known}: upgrade chinesecalendar or name the next year in clearing.calendar_file",
    )
