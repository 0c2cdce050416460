"""A link and a simulated host over real TCP: every way in which a host behaves, and what routing is told of it."""

import asyncio

import pytest

from switch.domain.hosts import (
    HostAnswer,
    HostDown,
    HostOriginal,
    HostService,
    HostStep,
    HostTimeout,
    Refusal,
    Unknown,
)
from switch.domain.money import Fen
from switch.messages.host_1987 import DIALECTS
from switch.transports.breaker import BreakerState, BreakerTerms
from terminal_sim.host.script import Behaviour, Script, Step
from tests.helpers.hosts import OPENING_FEN, SHORT_S, ask, balances, book, linked, request, reversal_of, until

PRICE = 1234


@pytest.mark.parametrize("algorithm", ["3DES", "SM4"])
@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
async def test_a_purchase_is_answered_by_the_host(tmp_path, dialect, algorithm):
    async with linked(tmp_path, dialect=dialect, algorithm=algorithm) as (link, host, watched):
        answer = await ask(link, request())
        assert isinstance(answer, HostAnswer)
        assert (answer.code, answer.authorisation_code, answer.amount_fen) == ("00", "000001", PRICE)
        assert answer.approved
        assert answer.settlement_day == "0101"
        assert balances(host) == [OPENING_FEN - PRICE]
        assert watched.ends == {"00": 1}
        assert host.counts["wrong mac"] == 0


async def test_a_refusal_is_an_answer_and_moves_nothing(tmp_path):
    async with linked(tmp_path, accounts=book(balance_fen=PRICE - 1)) as (link, host, _):
        answer = await ask(link, request())
        assert (answer.code, answer.approved) == ("51", False)
        assert balances(host) == [PRICE - 1]


async def test_a_balance_enquiry_tells_what_is_available(tmp_path):
    async with linked(tmp_path, accounts=book(balance_fen=77)) as (link, _, _):
        answer = await ask(link, request(service=HostService.BALANCE, amount_fen=None))
        assert (answer.code, answer.amount_fen, answer.available_fen) == ("00", None, 77)


async def test_a_return_names_its_original_and_cannot_exceed_it(tmp_path):
    async with linked(tmp_path) as (link, host, _):
        bought = request()
        await ask(link, bought)
        refund = request(
            2,
            step=HostStep.ADVICE,
            service=HostService.RETURN,
            original=HostOriginal(bought.step, bought.key),
        )
        assert (await ask(link, refund)).code == "00"
        assert (await ask(link, refund, repeat=True)).code == "00"
        assert balances(host) == [OPENING_FEN]
        assert (await ask(link, refund._replace(key=request(3).key))).code == "64"


#   behaviour                 what routing is told    booked at the host
SCRIPTED = [
    (Step(Behaviour.SLOW, 0.1), "00", True),
    (Step(Behaviour.REFUSES), "91", False),
    (Step(Behaviour.SILENT), Unknown.SILENT, True),
    (Step(Behaviour.DEAF), Unknown.SILENT, False),
    (Step(Behaviour.HALF_OPEN), Unknown.SILENT, False),
    (Step(Behaviour.WRONG_MAC), Unknown.MAC_WRONG, True),
    (Step(Behaviour.OTHER_AMOUNT), Unknown.UNUSABLE, True),
    (Step(Behaviour.GARBLED), Unknown.UNUSABLE, True),
    (Step(Behaviour.DIES, 0.05), Unknown.LINE_LOST, True),
    (Step(Behaviour.DUPLICATE), "00", True),
]


@pytest.mark.parametrize(("step", "told", "booked"), SCRIPTED, ids=lambda value: str(value))
async def test_what_a_host_does_is_told_apart_and_its_reversal_restores_the_account(
    tmp_path, step, told, booked
):
    async with linked(tmp_path, Script(step)) as (link, host, _):
        bought = request()
        outcome = await ask(link, bought, within_s=SHORT_S if told is Unknown.SILENT else 600.0)
        assert (outcome.code if isinstance(told, str) else outcome.why) == told
        assert isinstance(outcome, HostAnswer if isinstance(told, str) else HostTimeout)
        await until(lambda: balances(host) == [OPENING_FEN - (PRICE if booked else 0)])
        if step.behaviour is Behaviour.HALF_OPEN:
            return  # nothing more comes through this connection; the next test is about that
        await until(lambda: link.usable)
        undone = await ask(link, reversal_of(bought, 2))
        assert undone.code == ("00" if booked else "25")
        assert balances(host) == [OPENING_FEN]


async def test_a_half_open_connection_is_found_by_an_echo_and_replaced(tmp_path):
    async with linked(tmp_path, Script(Step(Behaviour.HALF_OPEN)), quiet_s=0.3) as (link, host, watched):
        # Of this connection only, since the next one must be answered; and longer than the request waits.
        link._lines[0].session._answer_s = 2.0
        assert (await ask(link, request(), within_s=SHORT_S)).why is Unknown.SILENT
        await until(lambda: watched.closed["session"] == 1)
        await until(lambda: link.usable)
        assert (await ask(link, request(2))).code == "00"
        assert host.counts["0800 001"] == 2


async def test_an_idle_connection_is_kept_alive_by_echoes(tmp_path):
    async with linked(tmp_path, quiet_s=0.25) as (link, host, watched):
        await until(lambda: host.counts["0800 301"] >= 2)
        assert link.figures().lines == 1
        assert watched.closed == {}


async def test_an_answer_after_the_time_out_is_told_once_as_late(tmp_path):
    async with linked(tmp_path, Script(Step(Behaviour.SLOW, 1.2)), answer_s=SHORT_S) as (link, _, watched):
        asked = request()
        assert (await ask(link, asked)).why is Unknown.SILENT
        await until(lambda: watched.late)
        assert [(late.host, late.answer.code, late.answer.key) for late in watched.late] == [
            ("bank", "00", asked.key)
        ]
        assert watched.strange == {"late": 1}


async def test_an_answer_to_somebody_who_has_gone_is_told_as_late(tmp_path):
    async with linked(tmp_path, Script(Step(Behaviour.SLOW, 0.2))) as (link, host, watched):
        task = asyncio.ensure_future(ask(link, request()))
        await until(lambda: host.counts["slow"])
        task.cancel()
        await until(lambda: watched.late)
        assert watched.late[0].answer.approved
        assert link.figures().in_flight == 0


async def test_a_second_answer_changes_nothing(tmp_path):
    async with linked(tmp_path, Script(habit=Step(Behaviour.DUPLICATE))) as (link, host, watched):
        for trace in range(1, 6):
            assert (await ask(link, request(trace))).code == "00"
        await until(lambda: watched.strange["twice"] == 5)
        assert watched.late == []
        assert balances(host) == [OPENING_FEN - 5 * PRICE]


async def test_an_approval_behind_a_decline_is_told_as_late_and_another_decline_is_not(tmp_path):
    async with linked(tmp_path, Script(Step(Behaviour.WAVERS, 0.05))) as (link, host, watched):
        asked = request()
        assert (await ask(link, asked)).code == "51"
        await until(lambda: watched.late)
        assert [(late.answer.code, late.answer.key) for late in watched.late] == [("00", asked.key)]
        assert balances(host) == [OPENING_FEN - PRICE]
        host.script.habit = Step(Behaviour.DUPLICATE)
        dear = request(2, amount_fen=Fen(OPENING_FEN))
        assert (await ask(link, dear)).code == "51"
        await until(lambda: watched.strange["twice"] == 2)
        assert len(watched.late) == 1


async def test_a_host_that_comes_back_with_an_old_sequence_deceives_nobody(tmp_path):
    async with linked(tmp_path, Script(habit=Step(Behaviour.OLD_SEQUENCE))) as (link, host, watched):
        backup = host.book.copy()
        first = await ask(link, request(1))
        host.book = backup  # restored from before the first purchase: its numbers begin again
        second = await ask(link, request(2))
        assert (first.authorisation_code, second.authorisation_code) == ("000001", "000001")
        assert second.key == request(2).key
        assert watched.strange == {"twice": 1}
        assert watched.late == []


async def test_the_same_message_again_moves_nothing_and_gets_the_same_answer(tmp_path):
    async with linked(tmp_path, Script(Step(Behaviour.SILENT))) as (link, host, _):
        asked = request(step=HostStep.ADVICE)
        assert (await ask(link, asked, within_s=SHORT_S)).why is Unknown.SILENT
        answers = [await ask(link, asked, repeat=True) for _ in range(3)]
        assert len(set(answers)) == 1
        assert answers[0].code == "00"
        assert balances(host) == [OPENING_FEN - PRICE]


@pytest.mark.parametrize("steps", [(HostStep.REVERSAL, HostStep.REVERSAL_ADVICE), (HostStep.REVERSAL,) * 2])
async def test_a_reversal_that_comes_twice_counts_once(tmp_path, steps):
    async with linked(tmp_path) as (link, host, _):
        bought = request()
        await ask(link, bought)
        for trace, step in enumerate(steps, start=2):
            assert (await ask(link, reversal_of(bought, trace, step=step))).code == "00"
        assert balances(host) == [OPENING_FEN]


async def test_a_reversal_that_overtakes_its_original_leaves_a_tombstone(tmp_path):
    async with linked(tmp_path) as (link, host, _):
        bought = request()
        assert (await ask(link, reversal_of(bought, 2))).code == "25"
        assert (await ask(link, bought)).code == "22"
        assert balances(host) == [OPENING_FEN]


async def test_a_key_that_waits_for_its_answer_is_not_asked_again(tmp_path):
    async with linked(tmp_path, Script(Step(Behaviour.SLOW, 0.2))) as (link, host, _):
        first = asyncio.ensure_future(ask(link, request()))
        await until(lambda: host.counts["slow"])
        assert await ask(link, request()) == HostDown(request().key, Refusal.KEY_IN_USE)
        assert (await first).code == "00"


async def test_thousands_wait_at_once_and_the_next_one_is_refused_at_once(tmp_path):
    size = 3_000
    async with linked(
        tmp_path,
        Script(habit=Step(Behaviour.SLOW, 1.0)),
        accounts=book(balance_fen=10**9),
        connections=3,
        in_flight_max=size,
        answer_s=600.0,
    ) as (link, host, watched):
        tasks = [asyncio.ensure_future(ask(link, request(trace))) for trace in range(1, size + 1)]
        await until(lambda: link.figures().in_flight == size)
        assert await ask(link, request(size + 1)) == HostDown(request(size + 1).key, Refusal.FULL)
        answers = await asyncio.gather(*tasks)
        assert [answer.key.trace for answer in answers] == list(range(1, size + 1))
        assert {answer.code for answer in answers} == {"00"}
        assert link.figures().in_flight == 0
        assert watched.ends == {"00": size, "full": 1}
        assert host.book.moved_fen == size * PRICE


async def test_stored_messages_leave_half_of_the_room_to_those_who_wait_at_a_till(tmp_path):
    async with linked(tmp_path, Script(habit=Step(Behaviour.DEAF)), in_flight_max=4, answer_s=SHORT_S) as (
        link,
        _,
        _,
    ):
        advices = [
            asyncio.ensure_future(ask(link, request(trace, step=HostStep.ADVICE))) for trace in range(1, 4)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert advices[2].done()
        assert advices[2].result().why is Refusal.FULL
        live = [asyncio.ensure_future(ask(link, request(trace))) for trace in range(4, 7)]
        assert [outcome.why for outcome in await asyncio.gather(*advices[:2], *live)] == [
            Unknown.SILENT,
            Unknown.SILENT,
            Unknown.SILENT,
            Unknown.SILENT,
            Refusal.FULL,
        ]


async def test_a_host_that_is_not_there_is_down_at_once_and_found_when_it_comes(tmp_path):
    async with linked(tmp_path) as (link, host, watched):
        host.die()
        await until(lambda: not link.usable)
        assert await ask(link, request()) == HostDown(request().key, Refusal.NO_LINE)
        await until(lambda: watched.closed["connect"] >= 2)
        await host.start()
        await until(lambda: link.usable)
        assert (await ask(link, request(2))).code == "00"


async def test_a_host_that_refuses_the_sign_on_gets_no_request(tmp_path):
    async with linked(tmp_path, ready=False) as (link, host, watched):
        host.sign_on_code = "91"
        host.die()
        await host.start()
        await until(lambda: watched.closed["session"] >= 2)
        assert (await ask(link, request())).why is Refusal.NO_LINE
        host.sign_on_code = "00"
        await until(lambda: link.usable)


async def test_a_host_may_sign_off_and_on_again(tmp_path):
    async with linked(tmp_path) as (link, host, _):
        host.ask("002")
        await until(lambda: not link.usable)
        assert (await ask(link, request())).why is Refusal.NO_LINE
        host.ask("301")
        host.ask("001")
        await until(lambda: link.usable)
        assert (await ask(link, request())).code == "00"
        assert host.counts["answer 0810 301"] == 1


async def test_a_request_that_leaves_no_time_for_an_answer_is_not_sent(tmp_path):
    async with linked(tmp_path) as (link, host, _):
        assert (await link.ask(request(), deadline_s=0.0)).why is Refusal.TOO_LATE
        assert host.counts["0200"] == 0


async def test_the_breaker_opens_refuses_at_once_probes_and_closes(tmp_path):
    terms = BreakerTerms(failures=3, open_s=2.0, open_max_s=2.0, probes=2)
    async with linked(tmp_path, Script(*[Step(Behaviour.SILENT)] * 5), breaker=terms) as (
        link,
        host,
        watched,
    ):
        first = await asyncio.gather(*(ask(link, request(trace), within_s=SHORT_S) for trace in range(1, 4)))
        assert {outcome.why for outcome in first} == {Unknown.SILENT}
        assert link.figures().breaker is BreakerState.OPEN
        assert (await ask(link, request(4))).why is Refusal.BREAKER
        await until(lambda: link.figures().breaker is BreakerState.HALF_OPEN)
        assert host.counts["0200"] == 3
        probes = await asyncio.gather(*(ask(link, request(trace), within_s=SHORT_S) for trace in range(5, 9)))
        assert sorted(str(outcome.why) for outcome in probes) == sorted(
            map(str, [Unknown.SILENT, Unknown.SILENT, Refusal.BREAKER, Refusal.BREAKER])
        )
        await until(lambda: link.usable)
        assert [(await ask(link, request(trace))).code for trace in (9, 10)] == ["00", "00"]
        assert link.figures().breaker is BreakerState.CLOSED
        assert watched.ends["breaker"] == 3


async def test_a_connection_that_breaks_under_many_requests_counts_once_against_the_host(tmp_path):
    terms = BreakerTerms(failures=3, open_s=5.0, open_max_s=5.0, probes=1)
    script = Script(*[Step(Behaviour.DEAF)] * 10, Step(Behaviour.DIES, 0.05))
    async with linked(tmp_path, script, breaker=terms) as (link, _, _):
        outcomes = await asyncio.gather(*(ask(link, request(trace)) for trace in range(1, 12)))
        assert {outcome.why for outcome in outcomes} == {Unknown.LINE_LOST}
        await until(lambda: link.usable)
        assert link.figures().breaker is BreakerState.CLOSED


async def test_repeats_are_limited_by_the_answers_there_are(tmp_path):
    async with linked(tmp_path, retry_saved_max=2.0, retry_per_s=0.0, retry_ratio=0.5) as (link, _, _):
        outcomes = [
            await ask(link, request(trace, step=HostStep.ADVICE), repeat=True) for trace in range(1, 10)
        ]
        codes = [outcome.code if isinstance(outcome, HostAnswer) else outcome.why for outcome in outcomes]
        assert codes[:3] == ["00", "00", "00"]
        assert codes[3:] == [Refusal.RETRY_BUDGET] * 6
        assert (await ask(link, request(20))).code == "00"  # what is asked for the first time is not limited


async def test_stopping_lets_what_is_in_flight_be_answered_and_signs_off(tmp_path):
    async with linked(tmp_path, Script(Step(Behaviour.SLOW, 0.2))) as (link, host, watched):
        task = asyncio.ensure_future(ask(link, request()))
        await until(lambda: host.counts["slow"])
        await link.stop(60.0)
        assert (await task).code == "00"
        assert (await ask(link, request(2))).why is Refusal.NO_LINE
        assert host.counts["0800 002"] == 1
        assert watched.closed == {"stopping": 1}


async def test_a_dead_host_costs_another_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with (
        linked(tmp_path / "a", Script(habit=Step(Behaviour.DEAF)), in_flight_max=50, answer_s=30.0) as (
            dead,
            _,
            _,
        ),
        linked(tmp_path / "b", in_flight_max=50) as (well, _, seen),
    ):
        stuck = [asyncio.ensure_future(ask(dead, request(trace))) for trace in range(1, 200)]
        await until(lambda: dead.figures().in_flight == 50)
        for trace in range(1, 200):
            assert (await ask(well, request(trace, amount_fen=1))).code == "00"
        assert seen.ends == {"00": 199}
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_what_an_operator_is_shown_has_no_card_number(tmp_path):
    async with linked(tmp_path) as (link, _, _):
        await ask(link, request())
        shown = repr(link) + repr(request()) + repr(await ask(link, request(2)))
        assert "6228480123456789006" not in shown
        assert "622848*********9006" in shown
