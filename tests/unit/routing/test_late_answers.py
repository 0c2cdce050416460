"""Answers after the time-out: late, twice, with another code, too many, and never a second reversal."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from switch.domain.hosts import HostAnswer, HostKey, LateAnswer, host_key
from switch.ledger.legs import trace_of
from switch.ledger.outbox import claim
from switch.routing import late_answers
from switch.routing.late_answers import LateAnswers
from tests.helpers.hosts import until
from tests.helpers.outbox import (
    ITEM_SENT,
    LEG_SENT,
    PRICE,
    STATE_STOOD_IN,
    Told,
    connector,
    one,
    put_items,
    put_legs,
    put_reversals,
    put_stood_in,
)

pytestmark = pytest.mark.server


def answer(trace=1, code="00", *, sent=LEG_SENT, host="bank"):
    return LateAnswer(host, HostAnswer(HostKey(sent, trace), code, "", "", None, "", None, ""))


@asynccontextmanager
async def listening(url, told, due=None, **more):
    late = LateAnswers(connector(url), told, (due if due is not None else []).append, **more)
    task = asyncio.create_task(late.run())
    try:
        yield late
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def waiting(pg):
    """Seconds until the reversal is due, about."""
    return await one(pg, "SELECT extract(epoch FROM due_at - now())::float FROM host_outbox")


@pytest.mark.parametrize(("code", "what", "due"), [("00", "approved", ["bank"]), ("51", "declined", [])])
async def test_a_late_answer_is_noted_and_an_approval_has_the_reversal_sent_at_once(
    postgres_url, pg, code, what, due
):
    await put_reversals(pg, 1)
    await pg.execute("UPDATE host_outbox SET due_at = now() + interval '5 minutes', tries = 4")
    told, hastened = Told(), []
    async with listening(postgres_url, told, hastened) as late:
        late.put(answer(code=code))
        await until(lambda: told.late == {what: 1})
    assert await one(pg, "SELECT late_code, state FROM host_leg") == (code, 4)
    assert hastened == due
    assert (await waiting(pg) <= 0) is bool(due)
    assert await one(pg, "SELECT count(*) FROM host_outbox") == 1


async def test_the_first_of_two_late_answers_stands_whatever_the_second_says(postgres_url, pg):
    await put_reversals(pg, 1)
    told = Told()
    async with listening(postgres_url, told) as late:
        for code in ("51", "00", "51"):
            late.put(answer(code=code))
        await until(lambda: told.late == {"declined": 1, "again": 2})
    assert await one(pg, "SELECT late_code FROM host_leg") == "51"
    assert await one(pg, "SELECT count(*) FROM host_outbox") == 1


async def test_a_reversal_on_its_way_or_confirmed_is_left_alone(postgres_url, pg):
    await put_reversals(pg, 2)
    [message] = await claim(pg, 0, "bank", limit=1, lease_s=60.0)
    await pg.execute(
        "UPDATE host_outbox SET result = 1, done_at = now(), last_end = '00' WHERE outbox_no = 2"
    )
    told, hastened = Told(), []
    async with listening(postgres_url, told, hastened) as late:
        late.put(answer(1))
        late.put(answer(2))
        await until(lambda: told.late == {"approved": 2})
    assert hastened == []
    assert await one(pg, "SELECT due_at FROM host_outbox WHERE outbox_no = 1") == message.held_until
    assert await claim(pg, 0, "bank", limit=1, lease_s=60.0) == []


@pytest.mark.parametrize("state", [1, 3])
async def test_a_leg_that_was_not_given_up_keeps_its_state(postgres_url, pg, state):
    await put_legs(pg, 1, state=state)
    told = Told()
    async with listening(postgres_url, told) as late:
        late.put(answer())
        await until(lambda: told.late == {"approved": 1})
    assert await one(pg, "SELECT state, late_code FROM host_leg") == (state, "00")
    assert await one(pg, "SELECT count(*) FROM host_outbox") == 0


async def test_what_its_host_declined_and_approves_later_is_reversed_once_however_often_it_is_said(
    postgres_url, pg
):
    await put_legs(pg, 1, state=2)
    told, due = Told(), []
    async with listening(postgres_url, told, due) as late, listening(postgres_url, told, due) as other:
        late.put(answer(code="51"))  # nothing that we did not know
        await until(lambda: told.late == {"declined": 1})
        for one_process in (late, other) * 5:
            one_process.put(answer())
        await until(lambda: told.late == {"declined": 1, "approved": 1, "again": 9})
    assert due == ["bank"]
    assert await one(pg, "SELECT late_code, state FROM host_leg") == ("00", 2)
    [message] = await claim(pg, 0, "bank", limit=9, lease_s=60.0)
    assert (message.step, message.service, message.reason, message.amount_fen) == (5, 1, "96", PRICE)
    assert (message.leg_no, message.rrn) == (1, "000000000001")
    assert (message.transmitted, message.trace) == host_key(trace_of(message.outbox_no), message.created_at)
    assert await one(pg, "SELECT entry_no = ended_by FROM host_outbox JOIN host_leg USING (shard, leg_no)")


async def test_what_a_doubtful_code_has_reversed_already_gets_no_second_reversal(postgres_url, pg):
    await put_legs(pg, 1, state=2)
    await put_items(pg, 1)
    await pg.execute("UPDATE host_outbox SET result = 1, done_at = now()")
    told, due = Told(), []
    async with listening(postgres_url, told, due) as late:
        late.put(answer())
        await until(lambda: told.late == {"approved": 1})
    assert (due, await one(pg, "SELECT count(*) FROM host_outbox")) == ([], 1)


async def test_an_approval_that_overtakes_the_decline_on_its_way_into_the_book_is_reversed_when_that_is_there(
    postgres_url, pg, monkeypatch
):
    monkeypatch.setattr(late_answers, "PAUSE_S", 0.01)
    monkeypatch.setattr(late_answers, "TRIES", 1_000_000)
    await put_legs(pg, 1, state=0)
    told, due = Told(), []
    async with listening(postgres_url, told, due) as late:
        late.put(answer())
        late.put(answer(trace=77))
        await until(lambda: told.late == {"other": 1})  # nobody waits behind it
        assert await one(pg, "SELECT late_code FROM host_leg") is None
        await pg.execute("UPDATE host_leg SET state = 2, ended_at = now(), ended_by = 1, host_code = '51'")
        await until(lambda: told.late == {"other": 1, "approved": 1})
    assert (due, await one(pg, "SELECT count(*) FROM host_outbox")) == (["bank"], 1)


async def test_an_approval_of_a_leg_that_stays_open_is_left_to_whoever_ends_that(
    postgres_url, pg, monkeypatch
):
    monkeypatch.setattr(late_answers, "PAUSE_S", 0.001)
    await put_legs(pg, 1, state=0)
    told = Told()
    async with listening(postgres_url, told) as late:
        late.put(answer())
        await until(lambda: told.late == {"failed": 1})
    assert await one(pg, "SELECT late_code FROM host_leg") is None
    assert await one(pg, "SELECT count(*) FROM host_outbox") == 0


async def test_an_answer_to_a_message_of_the_outbox_or_to_nothing_changes_nothing(postgres_url, pg):
    await put_reversals(pg, 1)
    await put_stood_in(pg, 1, first=2)
    told = Told()
    async with listening(postgres_url, told) as late:
        for strange in (
            answer(1, sent=ITEM_SENT),
            answer(2),  # the advice of a stand-in
            answer(1, host="other"),
            answer(77),
        ):
            late.put(strange)
        await until(lambda: told.late == {"other": 4})
    assert await one(pg, "SELECT count(*) FROM host_leg WHERE late_code IS NOT NULL") == 0
    assert await one(pg, "SELECT state FROM host_leg WHERE leg_no = 2") == STATE_STOOD_IN


async def test_a_full_queue_drops_and_counts(postgres_url, pg):
    told = Told()
    late = LateAnswers(connector(postgres_url), told, lambda _host: None, queue_max=10)
    for trace in range(1, 16):
        late.put(answer(trace))
    assert (late.depth, told.late) == (10, {"dropped": 5})
    await put_legs(pg, 15)
    task = asyncio.create_task(late.run())
    await until(lambda: told.late.get("approved") == 10)
    late.put(answer(11))
    await until(lambda: told.late["approved"] == 11)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_database_that_was_away_is_asked_again(postgres_url, pg):
    await put_reversals(pg, 1)
    told = Told()
    good = connector(postgres_url)
    failures = iter([True])

    def sometimes():
        return connector("postgresql://127.0.0.1:1/nowhere")() if next(failures, False) else good()

    late = LateAnswers(sometimes, told, lambda _host: None)
    late.put(answer())
    task = asyncio.create_task(late.run())
    await until(lambda: told.late == {"approved": 1})
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
