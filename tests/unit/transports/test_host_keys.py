"""New keys over the wire: sent under the ZMK, proved by a MAC, in force on both sides without a lost transaction."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from switch.domain.errors import DatabaseLost, InputRefused
from switch.domain.hosts import HostAnswer, Refusal
from switch.keys.ceremony import Custodian
from switch.keys.opening import activate_proved
from switch.keys.pin_blocks import PinBlockError, encrypt_pin
from switch.messages.host_1987 import BCD
from switch.transports import host_links
from switch.transports.host_links import HostLinks
from terminal_sim.crypto import terminal_mac
from terminal_sim.host.script import Behaviour, Script, Step
from terminal_sim.host.server import SimulatedHost
from tests.helpers.hosts import (
    BANK,
    OPERATORS,
    PARTIES,
    QUICK,
    SECRETS,
    Watched,
    ask,
    book,
    request,
    until,
    zone_vault,
)


class Seen(Watched):
    def __init__(self):
        super().__init__()
        self.hosts = {}

    def watch_host(self, host, read):
        self.hosts[host] = read


@asynccontextmanager
async def joined(tmp_path, algorithm="SM4", script=None, *, activate=None, rotated=True, connections=2):
    """Links as the service builds them, with keys that wait to be sent."""
    vault, store = zone_vault(tmp_path)
    if rotated:
        for kind in ("ZAK", "ZPK"):
            Custodian(vault, store).rotate(f"{kind}/{algorithm}/v1/{BANK}", OPERATORS)
    proved = []

    async def put_in_force(pair, partner):
        proved.append(pair)
        if activate is not None:
            await activate(len(proved))
        vault.replace_records(await asyncio.to_thread(activate_proved, vault, store, pair, partner))

    secrets = SECRETS[algorithm]
    async with SimulatedHost(BCD, secrets, book(10**9, pin="864209"), script) as host:
        terms = replace(QUICK, port=host.port, connections=connections)
        other = replace(terms, name="nobody", parties=PARTIES._replace(receiver="09990000"))
        watched = Seen()
        hosts = HostLinks(
            [(terms, secrets.mac_id), (other, secrets.mac_id)],
            vault,
            watched,
            watched.late.append,
            put_in_force,
        )
        await hosts.start()
        try:
            yield hosts, host, watched, proved, (vault, secrets)
        finally:
            await hosts.stop()


def pin_under(vault, secrets):
    """Stands for a terminal's block: what the vault would make of it under the zone key of the moment."""

    def under(name, pin_format):
        key = vault._zone_pin_key(name, frozenset({vault._records[name].state}))
        return encrypt_pin(key, "864209", pin_format, request().card)

    return under


@pytest.mark.parametrize("algorithm", SECRETS)
async def test_keys_change_under_traffic_and_every_answer_is_good(tmp_path, algorithm):
    async with joined(tmp_path, algorithm) as (hosts, host, watched, proved, (vault, secrets)):
        link = hosts.links["bank"]
        await until(lambda: link.usable)
        outcomes = []
        trace = 0
        while host.keys.changes == 0 or trace < 50:
            trace += 10
            outcomes += await asyncio.gather(
                *(ask(link, request(trace + n), pin=pin_under(vault, secrets)) for n in range(10))
            )
            assert trace < 20_000
        outcomes.append(await ask(link, request(trace + 100), pin=pin_under(vault, secrets)))
        assert {outcome.code for outcome in outcomes if isinstance(outcome, HostAnswer)} == {"00"}
        assert all(isinstance(outcome, HostAnswer) for outcome in outcomes)
        assert len(proved) == 1
        assert host.counts["0800 101"] == 1
        assert host.counts["wrong mac"] == 0
        assert watched.strange == {}


async def test_a_host_without_keys_has_no_link_and_the_others_do(tmp_path):
    async with joined(tmp_path, rotated=False) as (hosts, host, watched, _, _):
        assert list(hosts.links) == list(watched.hosts) == ["bank"]
        await until(lambda: watched.hosts["bank"]().lines == 2)
        assert host.counts["0800 101"] == 0


async def test_a_database_that_is_away_delays_new_keys_and_loses_none(tmp_path, monkeypatch):
    monkeypatch.setattr(host_links, "RETRY_S", 0.05)

    async def away_twice(attempt):
        if attempt <= 2:
            raise DatabaseLost("away")

    async with joined(tmp_path, activate=away_twice) as (hosts, host, _, proved, _):
        link = hosts.links["bank"]
        await until(lambda: len(proved) == 3)
        trace = 0
        while host.keys.changes == 0:
            trace += 1
            assert isinstance(await ask(link, request(trace)), HostAnswer)
        assert host.keys.waiting is None


async def test_keys_that_a_host_cannot_read_are_not_sent_again_and_again(tmp_path):
    async with joined(tmp_path) as (hosts, host, _, proved, _):
        host.keys._zmk = bytes(16)  # another ceremony than ours
        link = hosts.links["bank"]
        await until(lambda: host.counts["0800 101"] == 1)
        for trace in range(1, 4):
            await asyncio.sleep(0.3)
            assert isinstance(await ask(link, request(trace)), HostAnswer)
        assert host.counts["0800 101"] == 1
        assert proved == []


async def test_a_host_that_has_other_keys_than_we_signs_nobody_on(tmp_path):
    async with joined(tmp_path, rotated=False) as (hosts, host, watched, _, _):
        link = hosts.links["bank"]
        await until(lambda: link.usable)
        host.keys.current = host.keys.current._replace(mac=terminal_mac(5, bytes(range(16))))
        outcome = await ask(link, request())
        assert outcome.why.name == "MAC_WRONG"  # it says A0, and we cannot believe it
        assert watched.strange["mac"] == 1
        host.die()
        await host.start()
        await until(lambda: watched.strange["mac"] >= 2)
        assert not link.usable


async def test_a_wrong_pin_is_the_hosts_to_judge(tmp_path):
    async with joined(tmp_path, rotated=False, script=Script(habit=Step(Behaviour.NORMAL))) as (
        hosts,
        _,
        _,
        _,
        given,
    ):
        link = hosts.links["bank"]
        await until(lambda: link.usable)
        assert (await ask(link, request(1))).code == "55"
        assert (await ask(link, request(2), pin=pin_under(*given))).code == "00"
        assert (await ask(link, request(3), pin=lambda name, form: bytes(16))).code == "55"


async def test_a_pin_block_that_cannot_be_read_is_never_sent(tmp_path):
    def unreadable(name, pin_format):
        raise PinBlockError("PIN block is not readable")

    async with joined(tmp_path, rotated=False) as (hosts, host, _, _, _):
        link = hosts.links["bank"]
        await until(lambda: link.usable)
        with pytest.raises(PinBlockError):
            await ask(link, request(), pin=unreadable)
        assert host.counts["0200"] == 0
        assert link.figures().in_flight == 0


async def test_a_link_whose_keys_are_taken_away_refuses_before_it_sends(tmp_path):
    async with joined(tmp_path, rotated=False, connections=1) as (hosts, host, watched, _, (vault, _)):
        link = hosts.links["bank"]
        await until(lambda: link.usable)
        vault.replace_records([record for record in vault.records() if record.key_type != "ZAK"])
        assert (await ask(link, request())).why is Refusal.NO_KEYS
        assert host.counts["0200"] == 0
        host.ask("301")  # cannot be believed, and could not be answered
        await until(lambda: watched.strange["mac"] == 1)
        link._network.send(link._lines[0], "301")
        await until(lambda: watched.closed["keys"] >= 1)
        assert (await ask(link, request(2))).why in (Refusal.NO_LINE, Refusal.NO_KEYS)


async def test_keys_that_an_operator_retires_meanwhile_are_given_up(tmp_path):
    async def refused(attempt):
        raise InputRefused("it is retired: it cannot become active")

    async with joined(tmp_path, activate=refused) as (hosts, host, _, proved, _):
        link = hosts.links["bank"]
        await until(lambda: proved)
        assert isinstance(await ask(link, request()), HostAnswer)
        await until(lambda: not hosts._activating)
        assert len(proved) == 1
        assert host.keys.changes == 0
