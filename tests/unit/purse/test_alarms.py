"""The work list of alarms: both records as evidence, and who has looked; nothing else changes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.domain.errors import InputRefused
from switch.purse.alarms import AT_ONCE_MAX, case_of, list_alarms, note
from switch.purse.card_view import find_purse, view_card
from switch.purse.shadow import adjudicate, fold_purses
from switch.storage.pool import connect
from terminal_sim.records import RecordKind
from tests.helpers.offline import Fetch, Ride, pan_of, results, upload
from tests.unit.purse.conftest import Office

pytestmark = pytest.mark.server


@pytest.fixture
async def link(town: str) -> AsyncIterator[AsyncConnection[Any]]:
    connection = await connect(town)
    yield connection
    await connection.close()


async def test_each_alarm_shows_the_record_and_the_one_it_is_in_conflict_with(
    office: Office, link: AsyncConnection[Any]
) -> None:
    first = Ride(card=1, atc=4, psam_serial=77, amount_fen=150)
    clone = Ride(card=1, atc=4, psam_serial=78, amount_fen=900, terminal_no=7)
    same_serial = Ride(card=2, atc=0, psam_serial=77)
    jump = Ride(card=1, atc=5, balance_fen=1_000, psam_serial=80)
    (one,) = await office.take(upload(first.pack()))
    (two,) = await office.take(upload(clone.pack(), terminal_no=7))
    (three,) = await office.take(upload(same_serial.pack(), jump.pack()))
    assert [results(one), results(two), results(three)] == [["10"], ["02"], ["02", "10"]]
    grey = Ride(card=3, atc=5, balance_fen=5_000, kind=RecordKind.GREY)
    await office.take(upload(grey.pack(), Ride(card=3, atc=5, balance_fen=1_234).pack()))
    await fold_purses(link)
    await adjudicate(link)
    cases = {alarm.kind: await case_of(link, alarm.alarm_no) for alarm in await list_alarms(link)}

    def shown(kind: str) -> list[tuple[Any, ...]]:
        case = cases[kind]
        assert case.record is not None
        assert case.other is not None
        return [(one.atc, one.amount_fen, one.psam_serial, one.result) for one in (case.record, case.other)]

    assert shown("ATC_COLLISION") == [(4, 900, 78, "02"), (4, 150, 77, "10")]
    assert shown("PSAM_COLLISION") == [(0, 200, 77, "02"), (4, 150, 77, "10")]
    assert shown("CHAIN_BREAK") == [(5, 200, 80, "10"), (4, 150, 77, "10")]
    assert [row[:2] for row in shown("GREY_CONTRADICTION")] == [(5, 200), (5, 200)]
    terminals = {
        one.terminal_id for one in (cases["ATC_COLLISION"].record, cases["ATC_COLLISION"].other) if one
    }
    assert terminals == {"33500001", "33500007"}
    step = cases["CHAIN_BREAK"].step
    assert step is not None
    assert (step.verdict.value, step.expected_fen, step.found_fen) == ("break", 99_850, 1_000)
    assert pan_of(1) not in repr(cases)
    view = await view_card(link, await find_purse(link, "1"))
    assert view.suspected_clone
    assert not (await view_card(link, await find_purse(link, pan_of(2)))).suspected_clone


async def _an_alarm(office: Office, fetch: Fetch) -> int:
    asn = "0" + pan_of(555)
    await office.take(upload(Ride(asn=asn).pack()))
    ((number,),) = fetch("SELECT alarm_no FROM purse_alarm")
    return int(number)


async def test_an_alarm_is_acknowledged_by_one_of_two_people_and_can_be_opened_again(
    office: Office, link: AsyncConnection[Any], town: str, fetch: Fetch
) -> None:
    number = await _an_alarm(office, fetch)
    books = "SELECT (SELECT count(*) FROM purse_record), (SELECT count(*) FROM purse_posting), (SELECT sum(amount_fen) FROM purse_atc)"
    before = fetch(books)
    async with await connect(town) as other:
        ends = await asyncio.gather(
            note(link, [number], acknowledged=True, actor="li wei", reason="card  seen\nat the desk"),
            note(other, [number], acknowledged=True, actor="wang fang", reason="card seen"),
            return_exceptions=True,
        )
    assert [type(end) for end in ends].count(InputRefused) == 1
    assert await list_alarms(link) == []
    (alarm,) = await list_alarms(link, every=True)
    assert alarm.acknowledged
    assert alarm.reason in ("card seen at the desk", "card seen")
    await note(link, [number], acknowledged=False, actor="ann", reason="too early")
    assert [one.alarm_no for one in await list_alarms(link)] == [number]
    assert [one.acknowledged for one in (await case_of(link, number)).notes] == [True, False]
    assert fetch(books) == before
    with pytest.raises(psycopg.errors.RestrictViolation):
        fetch("UPDATE purse_alarm_note SET actor = 'nobody' RETURNING 1")


REFUSED: list[tuple[list[int], dict[str, Any], str]] = [
    ([1, 2], {}, "there is no number 2; nothing was changed"),
    ([1], {"acknowledged": False}, "open already"),
    ([1], {"reason": "  "}, "reason"),
    ([1], {"reason": "x" * 201}, "reason"),
    ([1], {"actor": ""}, "actor"),
    ([], {}, "alarms"),
    (list(range(AT_ONCE_MAX + 1)), {}, "alarms"),
]


async def test_what_cannot_be_noted_is_refused_as_a_whole(
    office: Office, link: AsyncConnection[Any], fetch: Fetch
) -> None:
    assert await _an_alarm(office, fetch) == 1
    for numbers, changes, text in REFUSED:
        said = {"acknowledged": True, "actor": "ann", "reason": "seen"} | changes
        with pytest.raises(InputRefused, match=text):
            await note(link, numbers, **said)
    assert fetch("SELECT * FROM purse_alarm_note") == []


async def test_a_list_of_what_is_not_there_is_refused(link: AsyncConnection[Any]) -> None:
    for bad in ({"kinds": ["CLONE"]}, {"at_most": 0}, {"at_most": 10_001}):
        with pytest.raises(InputRefused):
            await list_alarms(link, **bad)  # type: ignore[arg-type]  # one of each
    with pytest.raises(InputRefused, match="no such alarm"):
        await case_of(link, 99)
