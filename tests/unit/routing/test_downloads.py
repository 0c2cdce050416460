"""How often a terminal is asked for what it owes: a need at a time, with growing pauses, and at once for something new."""

from collections.abc import Callable
from typing import Any

import pytest

from switch.domain.transactions import ParameterDownload, StatusUpload
from switch.registry.terminals import Need
from switch.routing.downloads import PAUSES_S, DownloadDesk

FETCH, STATUS = Need(1, 5), Need(2, 0)
Ask = Callable[..., int]


@pytest.fixture
def ask() -> Ask:
    nobody: Any = None
    desk = DownloadDesk(nobody, nobody)

    def asked(needs: tuple[Need, ...], now_s: float, content: object = None, terminal_no: int = 1) -> int:
        return desk.ask(terminal_no, needs, content, now_s)

    return asked


def test_a_terminal_that_never_acts_is_asked_after_a_minute_ten_minutes_and_then_daily(ask: Ask) -> None:
    week_s = 7 * 86_400
    moments = [now_s for now_s in range(0, week_s, 10) if ask((FETCH,), float(now_s))]
    assert moments == [0, 60, 660, *range(87_060, week_s, 86_400)]
    assert PAUSES_S == (60, 600, 86_400)


def test_needs_take_turns_so_that_one_it_cannot_meet_does_not_hide_another(ask: Ask) -> None:
    assert [ask((FETCH, STATUS), 0.0) for _ in range(3)] == [1, 2, 0]
    assert [ask((FETCH, STATUS), 61.0) for _ in range(3)] == [1, 2, 0]


def test_a_new_version_is_asked_for_at_once(ask: Ask) -> None:
    for now_s in (0.0, 60.0, 660.0):
        assert ask((FETCH,), now_s) == 1
    assert ask((FETCH,), 700.0) == 0
    assert ask((FETCH._replace(wanted=6),), 700.0) == 1


def test_a_terminal_is_not_asked_for_what_it_is_at(ask: Ask) -> None:
    assert ask((FETCH, STATUS), 0.0, ParameterDownload(0)) == 2
    assert ask((FETCH, STATUS), 0.0, StatusUpload(())) == 1
    assert ask((FETCH, STATUS), 0.0, StatusUpload(())) == 0


def test_terminals_are_asked_each_for_itself(ask: Ask) -> None:
    assert [ask((FETCH,), 0.0, terminal_no=number) for number in (1, 2, 1, 2)] == [1, 1, 0, 0]
