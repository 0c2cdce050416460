"""Workdays: a year nobody published is an error, and an operator's file goes before everything."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from switch.clearing.calendar_cn import WARN_DAYS, WorkdayCalendar, horizon
from switch.domain.calendar import settlement_date
from switch.domain.errors import ConfigurationError


def test_holidays_and_make_up_workdays_decide() -> None:
    calendar = WorkdayCalendar()
    assert not calendar.is_workday(date(2024, 4, 4))  # Qingming
    assert calendar.is_workday(date(2024, 4, 7))  # a Sunday, worked 調休
    assert settlement_date(date(2024, 4, 3), calendar.is_workday) == date(2024, 4, 7)


def test_a_year_that_nobody_published_is_an_error_and_no_guess() -> None:
    with pytest.raises(ConfigurationError, match="no holiday calendar for 2099"):
        WorkdayCalendar().is_workday(date(2099, 1, 5))


def test_an_operators_file_goes_before_the_published_calendar(tmp_path: Path) -> None:
    file = tmp_path / "calendar.json"
    file.write_text('{"years": [2099], "holidays": ["2099-01-01", "2024-04-07"], "workdays": ["2099-01-03"]}')
    calendar = WorkdayCalendar(file)
    assert not calendar.is_workday(date(2024, 4, 7))
    assert not calendar.is_workday(date(2099, 1, 1))
    assert calendar.is_workday(date(2099, 1, 3))  # a Saturday
    assert not calendar.is_workday(date(2099, 1, 4))
    assert calendar.is_workday(date(2099, 1, 5))


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("{", "not a calendar file"),
        ("[]", "not a calendar file"),
        ('{"holiday": []}', "unknown entry holiday"),
        ('{"holidays": ["2099-13-01"]}', "not a calendar file"),
        ('{"holidays": ["2099-01-01"], "workdays": ["2099-01-01"]}', "both a holiday and a workday"),
    ],
)
def test_a_calendar_file_that_cannot_be_meant_is_refused(tmp_path: Path, content: str, rule: str) -> None:
    file = tmp_path / "calendar.json"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=rule):
        WorkdayCalendar(file)


def test_it_is_known_until_when_the_calendar_knows_and_said_in_time(tmp_path: Path) -> None:
    until, fault = horizon(None, date(2024, 3, 1))
    assert until is not None
    assert until >= date(2026, 12, 31)
    assert fault == ""
    _, in_time = horizon(None, until - timedelta(days=WARN_DAYS + 1))
    assert in_time == ""
    _, late = horizon(None, until - timedelta(days=WARN_DAYS))
    assert late == (
        f"the holiday calendar knows until {until}: upgrade chinesecalendar or name the next year in clearing.calendar_file"
    )
    assert horizon(None, until + timedelta(days=1))[0] is None
    file = tmp_path / "calendar.json"
    file.write_text(f'{{"years": [{until.year + 1}]}}')
    assert horizon(file, until) == (date(until.year + 1, 12, 31), "")
    file.write_text("{")
    assert "not a calendar file" in horizon(file, until)[1]
