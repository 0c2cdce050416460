"""The outbox emptied over a real link: real PostgreSQL, a simulated host over TCP that says what it heard."""

import asyncio
import time
from collections import Counter

import pytest

from switch.domain.hosts import HostDown, HostKey, HostRequest, Refusal
from switch.routing import forwarding as forwarding_module
from switch.routing.advices import KEY_IN_USE_S
from switch.routing.forwarding import FIRST_WINDOW, HOST_DOWN_PAUSE_S
from terminal_sim.host.script import Behaviour, Script, Step
from tests.helpers.hosts import OPENING_FEN, ask, balances, book, linked, request, until
from tests.helpers.outbox import (
    PRICE,
    Heard,
    Told,
    counted,
    forwarding,
    one,
    put_items,
    put_legs,
    put_reversals,
    put_stood_in,
    until_none_open,
)

pytestmark = pytest.mark.server


async def test_reversals_of_what_the_host_booked_and_of_what_it_never_saw_are_both_confirmed(
    postgres_url, pg, tmp_path
):
    async with linked(tmp_path) as (link, host, _):
        asked = request(1, amount_fen=PRICE)
        assert (await ask(link, asked._replace(key=asked.key._replace(transmitted="1125103015")))).approved
        await put_reversals(pg, 2)
        told = Told()
        async with forwarding(postgres_url, link, told):
            await until_none_open(pg)
            await until(lambda: told.ends == {"confirmed": 2})
        cursor = await pg.execute("SELECT last_end, tries FROM host_outbox ORDER BY outbox_no")
        assert await cursor.fetchall() == [("00", 1), ("25", 1)]
        assert balances(host) == [OPENING_FEN]


async def test_what_is_told_of_one_transaction_is_told_in_its_order_even_under_a_lower_number(
    postgres_url, pg, tmp_path
):
    async with linked(tmp_path) as (link, host, _):
        heard = Heard(host)
        await put_legs(pg, 20)
        await put_items(pg, 60, first_leg=1, per_leg=3)
        # Another process had a higher block of numbers when it stored the first message of leg 1.
        await pg.execute(
            "UPDATE host_outbox SET outbox_no = 1000, created_at = created_at - interval '1 second' WHERE outbox_no = 3"
        )
        heard.always[3] = "00"
        async with forwarding(postgres_url, link):
            await until_none_open(pg)
        assert sorted(heard.traces) == list(range(1, 61))
        by_leg: dict[int, list[int]] = {}
        for trace, original in zip(heard.traces, heard.originals, strict=True):
            by_leg.setdefault(original, []).append(trace)
        assert by_leg.pop(1) == [3, 1, 2]
        assert all(traces == sorted(traces) for traces in by_leg.values())


async def test_a_host_that_comes_back_is_told_no_more_in_a_second_than_was_agreed(postgres_url, pg, tmp_path):
    async with linked(tmp_path) as (link, _, _):
        await put_reversals(pg, 60)
        started = time.monotonic()
        async with forwarding(postgres_url, link, per_s=50.0):
            await until_none_open(pg)
        assert time.monotonic() - started > 1.0, "sixty, of which five may leave at once"


async def test_a_refused_message_stands_in_the_list_and_holds_nobody_up(postgres_url, pg, tmp_path):
    async with linked(tmp_path) as (link, host, _):
        heard = Heard(host)
        heard.always[1] = "12"
        await put_reversals(pg, 200)
        await put_items(pg, 1, first=500, first_leg=1)  # a later one of the same leg goes on
        told = Told()
        async with forwarding(postgres_url, link, told):
            await until_none_open(pg)
            await until(lambda: told.ends == {"confirmed": 200, "refused": 1})
        assert await one(pg, "SELECT last_end, tries, done_at IS NULL FROM host_outbox WHERE result = 2") == (
            "12",
            1,
            False,
        )
        assert Counter(heard.traces)[1] == 1


async def test_a_code_that_says_later_is_tried_again_with_the_same_key_and_others_pass_by(
    postgres_url, pg, tmp_path
):
    async with linked(tmp_path) as (link, host, _):
        heard = Heard(host)
        heard.always[1] = "91"
        await put_reversals(pg, 100)
        async with forwarding(postgres_url, link):
            async with asyncio.timeout(60):
                while (await counted(pg)).get(None) != 1 or heard.traces.count(1) < 3:
                    await asyncio.sleep(0.02)
            assert await one(pg, "SELECT outbox_no FROM host_outbox WHERE result IS NULL") == 1
            del heard.always[1]
            await until_none_open(pg)
        assert await one(pg, "SELECT last_end, tries FROM host_outbox WHERE outbox_no = 1") == (
            "25",
            heard.traces.count(1),
        )


async def test_a_silent_host_gets_the_same_message_again_and_books_it_once(postgres_url, pg, tmp_path):
    script = Script(*[Step(Behaviour.SILENT)] * 3)
    async with linked(tmp_path, script, answer_s=1.0) as (link, host, _):
        await put_stood_in(pg, 3)
        told = Told()
        async with forwarding(postgres_url, link, told, answer_s=1.0):
            await until_none_open(pg)
            await until(lambda: told.ends.get("confirmed") == 3)
        # One for each time that no answer came: on a busy machine that may be so once more.
        assert host.counts["repeat"] == told.ends["unknown"] >= 3
        assert balances(host) == [OPENING_FEN - 3 * PRICE]
        assert await one(pg, "SELECT outstanding_fen, outstanding_count FROM stand_in") == (0, 0)
        assert await one(pg, "SELECT count(*) FROM host_leg WHERE state = 5") == 3


async def test_a_refused_advice_of_a_stand_in_leaves_what_is_outstanding_and_is_seen(
    postgres_url, pg, tmp_path
):
    async with linked(tmp_path) as (link, host, _):
        heard = Heard(host)
        heard.always[2] = "14"
        await put_stood_in(pg, 3)
        async with forwarding(postgres_url, link):
            await until_none_open(pg)
        assert await counted(pg) == {1: 2, 2: 1}
        assert await one(pg, "SELECT outstanding_fen, outstanding_count FROM stand_in") == (0, 0)
        assert heard.originals == [0, 0, 0]


async def test_nothing_is_sent_to_a_host_that_is_down_and_all_when_it_is_back(postgres_url, pg, tmp_path):
    async with linked(tmp_path, accounts=book(10**9), connections=2) as (link, host, _):
        host.die()
        await until(lambda: link.figures().lines == 0)
        await put_reversals(pg, 2_000)
        told = Told()
        async with forwarding(postgres_url, link, told) as forwarder:
            await asyncio.sleep(1.2)  # longer than it takes to look again
            assert await one(pg, "SELECT count(*) FROM host_outbox WHERE tries > 0 OR sending") == 0
            link.on_usable = lambda _host: forwarder.wake()
            await host.start()
            await until_none_open(pg)
            await until(lambda: told.ends.get("confirmed") == 2_000)
        assert await one(pg, "SELECT max(tries) FROM host_outbox") == 1
        assert host.counts["0420"] == 2_000


async def test_two_forwarders_on_one_database_send_each_message_once(postgres_url, pg, tmp_path):
    (tmp_path / "other").mkdir()
    async with (
        linked(tmp_path, answer_s=120.0) as (link, host, _),
        linked(tmp_path / "other", port=host.port, answer_s=120.0) as (other, _, _),
    ):
        heard = Heard(host)
        act, kept = host._act, []
        host._act = lambda *said: kept.append(said)  # until both have something to do
        await put_legs(pg, 500)
        await put_items(pg, 1_500, first_leg=1, per_leg=3)
        heard.always.update(dict.fromkeys(range(1, 1_501), "00"))
        first, second = Told(), Told()
        async with (
            forwarding(postgres_url, link, first, answer_s=120.0) as one_of_them,
            forwarding(postgres_url, other, second, answer_s=120.0) as the_other,
        ):
            await until(lambda: one_of_them.held and the_other.held)
            host._act = act
            for said in kept:
                act(*said)
            await until_none_open(pg)
            await until(lambda: first.ends["confirmed"] + second.ends["confirmed"] == 1_500)
        assert sorted(heard.traces) == list(range(1, 1_501))
        by_leg: dict[int, list[int]] = {}
        for trace, original in zip(heard.traces, heard.originals, strict=True):
            by_leg.setdefault(original, []).append(trace)
        assert all(traces == sorted(traces) for traces in by_leg.values())
        assert first.ends["confirmed"] > 0
        assert second.ends["confirmed"] > 0


async def test_five_thousand_messages_that_cannot_be_sent_are_refused_and_the_others_go_out(
    postgres_url, pg, tmp_path
):
    async with linked(tmp_path) as (link, host, _):
        await put_items(pg, 5_000)  # no legs
        await put_reversals(pg, 1, first=9_000)
        await put_legs(pg, 1, first=9_001, pan="62")  # no card number
        await put_items(pg, 1, first=9_001)
        async with forwarding(postgres_url, link):
            await until_none_open(pg)
        assert await counted(pg) == {1: 1, 2: 5_001}
        assert (
            await one(pg, "SELECT count(*) FROM host_outbox WHERE starts_with(last_end, 'unsendable: ')")
            == 5_001
        )
        assert host.counts["0420"] == 1


async def test_five_thousand_messages_of_one_transaction_go_one_by_one_and_hold_nobody_up(
    postgres_url, pg, tmp_path
):
    async with linked(tmp_path) as (link, host, _):
        heard = Heard(host)
        await put_legs(pg, 1)
        await put_items(pg, 5_000, first_leg=1, per_leg=5_000)
        await put_reversals(pg, 50, first=6_000)
        heard.always.update(dict.fromkeys(range(1, 5_001), "00"))
        async with forwarding(postgres_url, link):
            async with asyncio.timeout(300):
                while (
                    await one(pg, "SELECT count(*) FROM host_outbox WHERE outbox_no >= 6000 AND result = 1")
                    < 50
                ):
                    await asyncio.sleep(0.02)
            await until(lambda: heard.originals.count(1) > 20)
        own = [trace for trace, original in zip(heard.traces, heard.originals, strict=True) if original == 1]
        assert own == list(range(1, len(own) + 1))


async def test_no_more_than_the_bound_is_on_its_way_and_live_requests_pass(postgres_url, pg, tmp_path):
    script = Script(habit=Step(Behaviour.SLOW, 0.05))
    async with linked(tmp_path, script, accounts=book(10**9)) as (link, _, _):
        await put_reversals(pg, 300)
        most = 0
        async with forwarding(postgres_url, link, in_flight_max=20) as forwarder:
            while None in await counted(pg):
                most = max(most, link.figures().in_flight)
                assert forwarder.held <= 20
                assert (await ask(link, request(100_000 + most, amount_fen=1))).code in ("00", "94")
        assert 2 <= most <= 21


class Refusing:
    """A link that is usable by its own word and refuses everything."""

    name = "bank"
    usable = True

    def __init__(self, why: Refusal) -> None:
        self.why = why
        self.asked: Counter[HostKey] = Counter()

    async def ask(self, asked: HostRequest, **_more: object) -> HostDown:
        self.asked[asked.key] += 1
        return HostDown(asked.key, self.why)


@pytest.mark.parametrize("why", list(Refusal))
async def test_what_a_link_refuses_counts_as_no_try_and_is_not_asked_in_a_tight_circle(postgres_url, pg, why):
    await put_reversals(pg, 100)
    link = Refusing(why)
    told = Told()
    begun_s = time.monotonic()
    async with forwarding(postgres_url, link, told):
        await until(lambda: told.ends.get("not_sent", 0) >= 2)
        await asyncio.sleep(1.0)
        seconds = time.monotonic() - begun_s
        if why in (Refusal.RETRY_BUDGET, Refusal.KEY_IN_USE):  # others may go; this one waits for a second
            assert max(link.asked.values()) <= 1 + seconds / KEY_IN_USE_S[0]
        else:
            assert link.asked.total() <= FIRST_WINDOW * (1 + seconds / HOST_DOWN_PAUSE_S)
    assert await one(pg, "SELECT count(*) FROM host_outbox WHERE tries > 0 OR result IS NOT NULL") == 0


async def test_a_stop_waits_for_what_is_on_its_way_and_writes_it_down(
    postgres_url, pg, tmp_path, monkeypatch
):
    monkeypatch.setattr(forwarding_module, "STOP_S", 60.0)  # writing it down takes a new connection
    script = Script(habit=Step(Behaviour.SLOW, 0.2))
    async with linked(tmp_path, script) as (link, host, _):
        await put_reversals(pg, 2)
        async with forwarding(postgres_url, link) as forwarder:
            await until(lambda: host.counts["0420"] == 2)
            forwarder.stop()
            await until(lambda: forwarder.held == 0)
        assert await counted(pg) == {1: 2}


async def test_a_database_that_is_away_for_a_moment_costs_no_message(postgres_url, pg, tmp_path):
    script = Script(habit=Step(Behaviour.SLOW, 0.1))
    async with linked(tmp_path, script) as (link, host, _):
        heard = Heard(host)
        await put_reversals(pg, 300)
        async with forwarding(postgres_url, link, in_flight_max=50):
            pause_s = 0.1
            while None in await counted(pg):
                await pg.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                await asyncio.sleep(pause_s)
                pause_s *= 1.1  # a slow machine may need longer to get anything done in between
        assert await counted(pg) == {1: 300}
        assert set(heard.traces) == set(range(1, 301))
