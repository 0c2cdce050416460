"""Bad days of the outbox: killed between two lines, cut in the middle, two at once. The host books each message once, in order."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import psycopg
import pytest

from switch.storage.pool import connect
from terminal_sim.faults import FaultProxy
from terminal_sim.host.script import Behaviour, Script, Step
from tests.helpers.hosts import BANK, OPENING_FEN, balances, book, linked, until
from tests.helpers.local_server import free_port
from tests.helpers.outbox import (
    PRICE,
    Heard,
    counted,
    forwarding,
    one,
    put_items,
    put_legs,
    put_reversals,
    put_stood_in,
    until_none_open,
)
from tests.helpers.switch_process import SwitchProcess, cardswitch
from tests.helpers.switch_process import until as wait_until
from tests.scenarios.test_hosts import ended, host_process, rehearsal_file

pytestmark = [pytest.mark.server, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("point", ["claimed", "answered", "recorded"])
async def test_killed_at_any_point_the_host_is_told_with_the_same_key_and_books_it_once(
    postgres_url, pg, tmp_path, point
):
    (tmp_path / "killed").mkdir()
    async with linked(tmp_path) as (link, host, _):
        heard = Heard(host)
        await put_stood_in(pg, 2)
        await put_legs(pg, 2, first=10)
        await put_items(pg, 4, first=10, first_leg=10, per_leg=2)
        words = [postgres_url, str(host.port), str(tmp_path / "killed"), point]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.helpers.forward_alone", *words, cwd=ROOT
        )
        assert await process.wait() == -signal.SIGKILL
        await until(lambda: len(host.connections) == 1)  # the host has read what the dead one sent
        sent_before = len(heard.traces)
        assert (sent_before == 0) is (point == "claimed")
        done_before = (await counted(pg)).get(1, 0)
        assert (done_before == 0) is (point != "recorded")
        async with forwarding(postgres_url, link):
            await until_none_open(pg)  # once the claims of the dead one are over
        assert await counted(pg) == {1: 6}
        again = len(heard.traces) - 6
        assert again == sent_before - done_before, (
            "what was sent and not written down is sent again, and nothing else"
        )
        assert host.counts["repeat"] >= again
        assert balances(host) == [OPENING_FEN - 2 * PRICE]
        assert await one(pg, "SELECT outstanding_fen, outstanding_count FROM stand_in") == (0, 0)
        first_heard = list(dict.fromkeys(heard.traces))
        for earlier, later in ((10, 11), (12, 13)):
            assert first_heard.index(earlier) < first_heard.index(later)


async def test_connections_cut_again_and_again_in_the_middle_leave_nothing_untold(postgres_url, pg, tmp_path):
    (tmp_path / "behind").mkdir()
    script = Script(habit=Step(Behaviour.SLOW, 0.02))
    async with (
        linked(tmp_path, script, accounts=book(10**9), ready=False) as (_, host, _),
        FaultProxy("127.0.0.1", host.port) as proxy,
        linked(
            tmp_path / "behind", port=proxy.port, answer_s=2.0, reconnect_min_s=0.01, retry_per_s=10_000.0
        ) as (link, _, _),
    ):
        await put_stood_in(pg, 400)
        async with forwarding(postgres_url, link, answer_s=2.0) as forwarder:
            link.on_usable = lambda _host: forwarder.wake()
            cuts = 0
            while None in await counted(pg):
                await asyncio.sleep(0.1)
                if cuts < 8 and host._timers:  # it has heard what it has not answered yet
                    proxy.cut_all()
                    cuts += 1
            await until(lambda: forwarder.held == 0)
        assert await counted(pg) == {1: 400}
        assert await one(pg, "SELECT max(tries) FROM host_outbox") > 1
        assert host.book.moved_fen == 400 * PRICE
        assert await one(pg, "SELECT outstanding_fen, outstanding_count FROM stand_in") == (0, 0)


async def test_a_host_that_answers_and_dies_at_once_has_booked_what_is_sent_again(postgres_url, pg, tmp_path):
    script = Script(*[Step(Behaviour.NORMAL)] * 20, Step(Behaviour.DIES, 0.3), *[Step(Behaviour.SILENT)] * 5)
    async with linked(tmp_path, script, accounts=book(10**9), answer_s=2.0) as (link, host, _):
        await put_stood_in(pg, 200)
        async with forwarding(postgres_url, link, answer_s=2.0) as forwarder:
            link.on_usable = lambda _host: forwarder.wake()
            await until_none_open(pg)
        assert host.book.moved_fen == 200 * PRICE
        assert host.counts["repeat"] >= 6


def test_two_serving_processes_tell_a_bank_that_was_down_each_thing_once(tmp_path):
    path = rehearsal_file(tmp_path)
    port = free_port()
    links = [
        {"name": "bank", "institution": BANK, "host": "127.0.0.1", "port": port, "reconnect_max_s": 0.5},
    ]
    environment = os.environ | {
        "CARDSWITCH_DATA_DIR": str(tmp_path / "data"),
        "CARDSWITCH_TERMINALS__PORT": "0",
        "CARDSWITCH_TERMINALS__PROCESSES": "2",
        "CARDSWITCH_HTTP__PORT": "0",
        "CARDSWITCH_CLEARING__AUTO_CLOSE": "false",
        "CARDSWITCH_HOSTS__LINKS": json.dumps(links),
    }
    cardswitch("init", environment=environment)
    cardswitch("keys", "ceremony", "--rehearsal", str(path), environment=environment)
    switch = SwitchProcess(environment, tmp_path / "serve.log")
    try:
        url = (tmp_path / "data/postgres/url").read_text().strip()

        async def fill() -> None:
            async with await connect(url) as connection:
                await put_reversals(connection, 300)
                await put_reversals(connection, 300, first=1_001, shard=1)

        asyncio.run(fill())
        wait_until(lambda: switch.metric("cardswitch_host_outbox_open", host="bank") == 600, 300, "the count")
        assert switch.metric("cardswitch_host_outbox_oldest_seconds", host="bank") > 59
        bank = host_process(tmp_path, port)
        wait_until(lambda: switch.metric("cardswitch_host_outbox_open", host="bank") == 0, 300, "the drain")
        assert 0 < switch.metric("cardswitch_host_forwarded_total", host="bank", end="confirmed") <= 600
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT count(*), max(tries) FROM host_outbox WHERE result = 1"
            ).fetchone()
            assert row == (600, 1)
        listed = json.loads(cardswitch("hosts", "list", "--json", environment=environment))
        assert [(host["host"], host["open"], host["refused"]) for host in listed] == [("bank", 0, 0)]
        assert ended(bank)["0420"] == 600
        switch.terminate()
        assert switch.wait() == 0
    finally:
        switch.end()
        bank.kill()
        bank.wait()
        assert bank.stdout is not None
        bank.stdout.close()
